"""The spelling of a trick, the mechanism that tricks plug into, and the keyed streams."""

import itertools
import keyword
from typing import Annotated, Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError
from scipy import stats
from torch import Generator, Tensor, nn

from trickbag.ground import streams
from trickbag.ground.errors import UsageError
from trickbag.ground.spec import Spec, parse, spell
from trickbag.trick import PLUG_POINTS, Batch, Outputs, Stage, Trick, View, conflict, having, ordered, regroup

# the spelling

names = st.from_regex(r"[a-zA-Z_][a-z_0-9]{0,8}", fullmatch=True).filter(lambda name: not keyword.iskeyword(name))
values = st.recursive(
    st.integers(max_value=2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text() | st.booleans() | st.none(),
    lambda inner: (
        st.lists(inner, max_size=3).map(tuple)
        | st.builds(Spec, names, st.lists(inner, max_size=3).map(tuple), st.dictionaries(names, inner, max_size=3))
    ),
    max_leaves=12,
)
specs = st.builds(Spec, names, st.lists(values, max_size=3).map(tuple), st.dictionaries(names, values, max_size=3))


@given(specs)
def test_parse_undoes_spell(spec: Spec) -> None:
    found = parse(str(spec))
    assert repr(found) == repr(spec)  # repr tells 1 from 1.0 and from True
    assert spell(found) == spell(spec)


@pytest.mark.parametrize(
    "text",
    ["mixup( alpha = 0.4 , )", "  mixup(alpha=.4)\n", "mixup(alpha=4e-1)", "mixup(alpha=(0.4))", "mixup(\n  alpha=0.4\n)"],
)
def test_every_way_to_type_a_spec_has_one_spelling(text: str) -> None:
    assert str(parse(text)) == "mixup(alpha=0.4)"


BAD = [
    "",
    "0.4",
    "'mixup'",
    "(mixup, cutmix)",
    "mixup(",
    "mixup)",
    "mixup(alpha=)",
    "mixup(alpha=1, alpha=2)",
    "mixup(alpha=1, 2)",
    "mixup(*a)",
    "mixup(**a)",
    "mixup(alpha=1j)",
    "mixup(alpha=b'1')",
    "mixup(alpha=...)",
    "mixup(alpha=1 + 1)",
    "mixup(alpha=not 1)",
    "mixup(alpha=-x)",
    "mixup(alpha=-'x')",
    "mixup(alpha=-True)",
    "mixup(alpha={1})",
    "mixup(alpha={1: 2})",
    "mixup(alpha=f'{x}')",
    "mixup(alpha=x := 1)",
    "mixup(alpha=[x for x in y])",
    "mixup(alpha=lambda: 0)",
    "mixup(alpha=x.y)",
    "mixup(alpha=x[0])",
    "mixup(alpha=1 if x else 2)",
    "lambda: 0",
    "mixup.alpha",
    "mixup.alpha()",
    "mixup()()",
    "mixup; cutmix",
    "mixup = 1",
    "mixup\ncutmix",
    "mixup\0",
    "import os",
    "await mixup",
    "__import__('os').system('true')",
    "__import__('os').getcwd",
    "[].__class__",
    "a(" * 150 + ")" * 150 + ".b",
    "a(" * 100_000 + ")" * 100_000,
    "(" * 100_000,
    "-" * 100_000 + "1",
    "a" + ".b" * 100_000,
    "a(b=" + "[" * 5000 + "]" * 5000 + ")",
    "mixup(alpha=" + "9" * 100_000 + ")",
    "mixup(" + "1," * 50_000,
]


@pytest.mark.parametrize("text", BAD, ids=lambda text: repr(text[:24]))
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"is not a trick: write name or name\(field=value, …\), paths in quotes\.$"):
        parse(text)


@given(st.text(alphabet="ab(),=[]{}'\"\\.-:*1e \n\0λ_"))
def test_no_text_whatever_does_more_than_parse_or_be_refused(text: str) -> None:
    try:
        spec = parse(text)
    except UsageError:
        return
    assert repr(parse(str(spec))) == repr(spec)


def test_a_spec_is_read_and_never_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse("__import__('os')") == Spec("__import__", ("os",))
    assert parse("print(print('run'))") == Spec("print", (Spec("print", ("run",)),))
    assert capsys.readouterr().out == ""


# the mechanism: each class says its own file


class Mixer(Trick):
    __module__ = "bag.mixer"
    stage = Stage.MIX
    slot = "mix"
    neutral = {"alpha": 0.0}
    alpha: Annotated[float, Field(ge=0)] = 0.2
    """Strength."""

    def batch(self, batch: Batch, t: float, rng: Generator) -> Batch:
        return batch


class Cutter(Mixer):
    __module__ = "bag.cutter"


class Focal(Trick):
    __module__ = "bag.focal"
    stage = Stage.LABEL

    def loss(self, outputs: Outputs, y: Tensor) -> Tensor:
        return -(y * outputs.logits).sum(1)


class Hinge(Focal):
    __module__ = "bag.hinge"


class Average(Trick):
    __module__ = "bag.average"
    stage = Stage.WEIGHT
    half_life: Annotated[float, Field(gt=0, lt=1)] = 0.02
    """Share of training."""

    def setup(self, model: Any, fit: Any) -> None:
        self.mean_ = [p.detach().clone() for p in model.parameters()]

    def after_step(self, model: Any, t: float) -> None:
        self.mean_.append(torch.tensor(t))


class Late(Trick):
    __module__ = "bag.late"
    stage = Stage.LABEL
    begins: ClassVar[str] = "since"
    since: float = 0.8
    """Share of training."""

    def weights(self, y: Tensor, t: float) -> Tensor:
        return y.sum(1)


class Choice(Trick):
    __module__ = "bag.choice"
    stage = Stage.MIX
    positional: ClassVar[str] = "tricks"
    tricks: tuple[Trick, ...]
    """To choose from."""
    share: float = 0.5
    """Of batches."""

    def batch(self, batch: Batch, t: float, rng: Generator) -> Batch:
        return batch


class Bigger(Trick):
    __module__ = "bag.bigger"
    stage = Stage.EVAL

    def view(self, view: View) -> View:
        return view


def test_a_misspelt_plug_point_is_an_error_at_import() -> None:
    def misspelt() -> None:
        class MixUp(Trick):
            def bacth(self) -> None: ...

    def static() -> None:
        class MixUp(Trick):
            @staticmethod
            def helper() -> None: ...

    with pytest.raises(TypeError, match=r"MixUp\.bacth is not a plug point\. Plug points: data, region, .*sets\."):
        misspelt()
    with pytest.raises(TypeError, match=r"MixUp\.helper is not a plug point"):
        static()


def test_every_plug_point_is_a_documented_method_in_order() -> None:
    own = [n for n, v in vars(Trick).items() if callable(v) and not n.startswith("_") and n in PLUG_POINTS]
    assert own == list(PLUG_POINTS)
    assert all(getattr(Trick, name).__doc__ for name in own)


def test_the_order_of_action_is_that_of_stages_then_names() -> None:
    tricks = [Mixer(), Focal(), Late(), Average(), Bigger(), Choice(tricks=())]
    expected = ["choice", "mixer", "focal", "late", "average", "bigger"]
    for typed in itertools.permutations(tricks):
        assert [trick.name() for trick in ordered(typed)] == expected
    assert [trick.name() for trick in having(ordered(tricks), "batch")] == ["choice", "mixer"]


@pytest.mark.parametrize(
    ("a", "b", "reason"),
    [
        (Mixer(), Mixer(alpha=1), "mixer and mixer(alpha=1.0): a recipe holds a trick once. Choose one."),
        (Mixer(), Cutter(), "mixer and cutter both sit in the slot 'mix'. Choose one, or write one_of(mixer, cutter)."),
        (Focal(), Hinge(), "focal and hinge both decide 'loss', which only one trick can. Choose one."),
        (Mixer(), Choice(tricks=()), ""),
        (Late(), Average(), ""),
    ],
)
def test_conflicts_are_derived_and_told(a: Trick, b: Trick, reason: str) -> None:
    assert conflict(a, b) == reason
    if reason:
        with pytest.raises(UsageError, match="Choose one"):
            ordered([Bigger(), a, b])
    else:
        assert len(ordered([a, b])) == 2


def test_a_fresh_trick_carries_no_state_at_any_depth() -> None:
    average = Average(half_life=0.1)
    choice = Choice(tricks=(average, Choice(tricks=(average,))))
    average.setup(nn.Linear(2, 2), None)
    choice.count_ = 3
    assert set(average.state()) == {"mean_"}
    assert set(choice.state()) == {"count_"}
    fresh = choice.fresh()
    assert fresh == choice
    inner = fresh.tricks[1]
    assert isinstance(inner, Choice)
    assert [trick.state() for trick in (fresh, *fresh.tricks, *inner.tricks)] == [{}] * 4
    fresh.tricks[0].setup(nn.Linear(2, 2), None)
    fresh.tricks[0].after_step(None, 0.5)
    assert (len(average.state()["mean_"]), len(fresh.tricks[0].state()["mean_"])) == (2, 3)
    assert average.half_life == 0.1


def test_configuration_never_changes() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Mixer().alpha = 1.0  # type: ignore[misc]


def test_a_trick_is_known_by_its_spelling() -> None:
    assert str(Mixer()) == "mixer"
    assert str(Choice(tricks=(Mixer(alpha=1), Average()), share=0.25)) == "choice(mixer(alpha=1.0), average, share=0.25)"
    assert Mixer() == Mixer(alpha=0.2) != Mixer(alpha=0.3)
    assert len({Mixer(), Mixer(alpha=0.2), Cutter()}) == 2
    assert Choice.usage() == "choice(tricks=…, share=0.5)"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("mixer(alpha=-1)", "mixer(alpha=-1): alpha: input should be greater than or equal to 0."),
        ("mixer(alpha='x')", "mixer(alpha='x'): alpha: input should be a valid number, unable to parse string as a number."),
        ("mixer(alpha=1e999)", "alpha: input should be a finite number."),
        ("mixer(beta=1)", "mixer(beta=1): there is no field beta. All fields, with their defaults: mixer(alpha=0.2)."),
        (
            "mixer(alfa=1)",
            "mixer(alfa=1): there is no field alfa; did you mean alpha? All fields, with their defaults: mixer(alpha=0.2).",
        ),
        ("mixer(0.4)", "mixer(0.4): write values with their names, mixer(alpha=0.2)."),
    ],
)
def test_a_wrong_field_is_told_with_its_place(text: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        Mixer.build(parse(text))
    assert str(caught.value).endswith(told)


def test_when_a_trick_begins_follows_from_what_it_overrides() -> None:
    begun = {trick.name(): trick.begin() for trick in (Mixer(), Average(), Bigger(), Late(), Late(since=0.3))}
    assert begun == {"mixer": 0.0, "average": 1.0, "bigger": 1.0, "late": 0.3}
    assert Late().begin() == 0.8
    assert Average().plugs() == ("setup", "after_step")


def test_regroup_splits_parameters_and_keeps_them_all() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3))
    named = dict(model.named_parameters())
    groups = [{"params": [*named.values()], "names": [*named], "weight_decay": 0.1, "lr_scale": 1.0}]
    found = regroup(groups, lambda name, p: {"weight_decay": 0.0} if p.ndim == 1 else {})
    assert [(g["names"], g["weight_decay"], g["lr_scale"]) for g in found] == [
        (["0.weight"], 0.1, 1.0),
        (["0.bias", "1.weight", "1.bias"], 0.0, 1.0),
    ]
    assert all(p is named[n] for g in found for n, p in zip(g["names"], g["params"], strict=True))


# the streams


def test_no_two_points_share_a_key() -> None:
    points = itertools.product(range(4), ["mixup", "cutmix", "order"], range(100), range(100))
    flat = ((seed, "mixup", n) for seed in range(100, 104) for n in range(10_000))
    keys = [streams.key(*point) for point in points] + [streams.key(*point) for point in flat]
    assert len(set(keys)) == len(keys) == 160_000
    assert all(0 <= key < 2**63 for key in keys)


def test_keys_stay_what_they_are() -> None:
    # Independent of this code: `printf 0/mixup/3 | b2sum -l 64`.
    assert streams.key(0, "mixup", 3) == 0x9ACDF13699796449 >> 1


def test_draws_over_keys_are_uniform_and_independent() -> None:
    n = 2000
    draws = np.array([[streams.uniform(streams.generator(seed, "flip", key), -1, 3) for key in range(n)] for seed in range(20)])
    assert stats.kstest(draws.ravel(), stats.uniform(-1, 4).cdf).pvalue > 0.01
    # One correlation may be large by chance; those of all pairs of seeds, and of all neighbours, must be normal.
    between = np.corrcoef(draws)[np.triu_indices(20, 1)] * np.sqrt(n)
    neighbours = np.array([np.corrcoef(row[1:], row[:-1])[0, 1] for row in draws]) * np.sqrt(n - 1)
    assert stats.kstest(between, "norm").pvalue > 0.01
    assert stats.kstest(neighbours, "norm").pvalue > 0.01


def test_draws_of_many_images_are_those_of_splitmix64() -> None:
    # The first five numbers of the published generator for the seed 1234567.
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    drawn = streams.uniforms(1234567, torch.empty(1, 0, dtype=torch.int64), 5)
    assert drawn.tolist() == [[(number >> 11) / 2**53 for number in published]]


def test_draws_of_many_images_are_uniform_and_independent() -> None:
    places = torch.cartesian_prod(torch.arange(1000), torch.arange(3))
    draws = np.stack([streams.uniforms(streams.key(0, "flip", epoch), places, 4).numpy() for epoch in range(5)])
    assert draws.min() >= 0
    assert draws.max() < 1
    assert len(np.unique(draws)) == draws.size
    assert stats.kstest(draws.ravel(), "uniform").pvalue > 0.01
    table = draws.reshape(5, 1000, 12).transpose(0, 2, 1).reshape(60, 1000)
    between = np.corrcoef(table)[np.triu_indices(60, 1)] * np.sqrt(1000)
    neighbours = np.array([np.corrcoef(row[1:], row[:-1])[0, 1] for row in table]) * np.sqrt(999)
    assert stats.kstest(between, "norm").pvalue > 0.01
    assert stats.kstest(neighbours, "norm").pvalue > 0.01


def test_the_draws_of_an_image_do_not_depend_on_those_beside_it() -> None:
    places = torch.tensor([[5, 0], [9, 0], [5, 1]])
    together = streams.uniforms(streams.key(0, "flip", 1), places, 6)
    for row in range(3):
        assert torch.equal(together[row], streams.uniforms(streams.key(0, "flip", 1), places[row : row + 1], 6)[0])
        assert torch.equal(together[row, :2], streams.uniforms(streams.key(0, "flip", 1), places, 2)[row])


@pytest.mark.parametrize(("a", "b"), [(0.2, 0.2), (1.0, 1.0), (2.0, 5.0), (0.5, 3.0)])
def test_beta_is_the_beta_distribution(a: float, b: float) -> None:
    draws = [streams.beta(streams.generator(7, "mixup", n), a, b) for n in range(3000)]
    assert stats.kstest(draws, stats.beta(a, b).cdf).pvalue > 0.01


def test_beta_of_tiny_parameters_is_a_coin() -> None:
    draws = [streams.beta(streams.generator(7, "mixup", n), 3e-4, 1e-4) for n in range(2000)]
    assert set(map(round, draws)) == {0, 1}
    assert abs(sum(draws) / len(draws) - 0.75) < 0.04


def test_a_point_draws_the_same_whatever_else_is_drawn() -> None:
    before = torch.get_rng_state()
    first = streams.uniform(streams.generator(3, "size", 1, 2))
    streams.uniform(streams.generator(3, "size", 1, 3))
    assert streams.uniform(streams.generator(3, "size", 1, 2)) == first
    assert torch.equal(torch.get_rng_state(), before)
