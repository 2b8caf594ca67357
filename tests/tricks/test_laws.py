"""The laws that every trick obeys, found by the folder: a new file on the shelf is covered by being there."""

import copy
import inspect
import itertools
import math
import sys
from functools import cache
from typing import Any

import annotated_types
import pytest
import torch
from lab import CLASSES, SIZE, dataset, example, fingerprint, follow, loop, network, recipe, same, train

from trickbag.engine.loader import Loader
from trickbag.engine.outline import outline
from trickbag.ground import store
from trickbag.ground.errors import UsageError
from trickbag.ground.spec import Spec
from trickbag.ground.streams import generator
from trickbag.recipe import Recipe
from trickbag.trick import CARD, PLUG_POINTS, WATCHING, Batch, Trick, card, conflict, having, ordered
from trickbag.tricks import bag, parse

NAMES = list(bag())
NEUTRAL = [name for name in NAMES if bag()[name].neutral is not None]
HEAP = (
    "warmup", "cosine", "random_resized_crop", "flip", "random_erasing", "one_of(mixup, cutmix)", "label_smoothing",
    "adamw", "sam", "clip_gradient", "ema(half_life=0.2)", "no_bias_decay", "distill", "balanced_sampling", "knn", "calibrate",
)  # fmt: skip
FAMILIES = {
    "test_resnet": 32,
    "test_efficientnet": 32,
    "test_convnext": 32,
    "test_vit": 32,
}


@cache
def plain(model: str, size: int, batch_size: int) -> Any:
    """A training without any trick."""
    return train(model=model, size=size, batch_size=batch_size)


def without(name: str, batch_size: int = 16) -> Any:
    """A training of the network that the trick is tried on, without the trick."""
    return plain(**network([example(name)]), batch_size=batch_size)


def rebuilt(trick: Trick, fields: dict[str, Any]) -> Trick:
    return trick.build(Spec(trick.name(), (), {n: getattr(trick, n) for n in type(trick).model_fields} | fields))


@pytest.mark.parametrize("name", NAMES)
def test_the_spelling_and_the_trick_are_inverses(name: str) -> None:
    trick = example(name)
    assert parse(str(trick)) == trick
    assert str(parse(str(trick))) == str(trick)
    for field, info in type(trick).model_fields.items():
        if isinstance(info.default, float | int) and not isinstance(info.default, bool):
            low = [b.ge for b in info.metadata if isinstance(b, annotated_types.Ge)]
            changed = rebuilt(trick, {field: low[0] if low else info.default})
            assert parse(str(changed)) == changed


@pytest.mark.parametrize("name", NAMES)
def test_the_card_is_whole(name: str) -> None:
    words = card(bag()[name])
    assert words["Title"].endswith(".")
    assert [word for word in CARD if words.get(word)] == list(CARD)
    assert ">>>" in inspect.getsource(sys.modules[bag()[name].__module__])
    assert all(field.description for field in bag()[name].model_fields.values())
    assert bag()[name].__doc__
    assert bag()[name].plugs()


@pytest.mark.parametrize("name", NEUTRAL)
def test_at_its_neutral_value_a_trick_changes_nothing(name: str) -> None:
    values = bag()[name].neutral or {}
    trick = rebuilt(example(name), values)
    assert train(trick, **network([example(name)])).same(without(name))


@pytest.mark.parametrize("name", [name for name in NAMES if bag()[name].neutral != {}])
def test_a_trick_acts(name: str) -> None:
    """No option is accepted without effect: weights or predictions differ from those without the trick.

    What acts on a few steps is seen in few; the others get more.
    """
    assert any(not train(example(name), batch_size=size).same(without(name, batch_size=size)) for size in (16, 2))


@pytest.mark.parametrize("name", [*NAMES, "heap"])
def test_a_resumed_run_equals_an_uninterrupted_one(name: str, tmp_path: Any) -> None:
    check_resume(recipe(*HEAP) if name == "heap" else recipe(example(name)), tmp_path)


@pytest.mark.parametrize("name", ["none", *(name for name in NAMES if "optimizer" in bag()[name].plugs())])
def test_an_optimisers_state_is_laid_out_anew_as_its_parameters_are(name: str, tmp_path: Any) -> None:
    """A file keeps no layout of memory, by which the fused steps of torch go."""
    check_resume(recipe(*([example(name)] if name in NAMES else []), channels_last=True), tmp_path)


def check_resume(made: Recipe, tmp_path: Any) -> None:
    """Stopped before the last step and gone on, a training ends with the same bits; the recipe's tricks stay as they were."""
    spelled, fields = [str(trick) for trick in made.tricks], copy.deepcopy([dict(trick) for trick in made.tricks])
    whole = follow(loop(made))
    assert [str(trick) for trick in whole.loop.tricks] == spelled
    assert [dict(trick) for trick in made.tricks] == fields
    assert not any(trick.state() for trick in made.tricks), "run state on the recipe's own trick"
    stopped = loop(made)
    list(stopped.prepare())
    steps = stopped.judge.facts.steps
    for event in stopped.train():
        if getattr(event, "images", 0) and event.step == steps - 1:
            break
    with store.writing(tmp_path / "state") as folder:
        store.save_state(folder, stopped.state())
    resumed = loop(made)
    resumed.load(store.load_state(tmp_path / "state"))
    again = follow(resumed)
    assert again.same(whole)
    assert fingerprint(again.loop.state()) == fingerprint(whole.loop.state())


AFTER = {"finish", "view", "predict"}
"""Plug points of what comes after training."""
PAIRS = [(a, b) for a, b in itertools.combinations(NAMES, 2) if bag()[a].stage == bag()[b].stage]


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_tricks_of_a_stage_commute_or_exclude_each_other(a: str, b: str) -> None:
    first, second = example(a), example(b)
    if reason := conflict(first, second):
        assert reason == conflict(first, second)
        for pair in ((first, second), (second, first)):
            with pytest.raises(UsageError, match="Choose one"):
                recipe(*pair)
        return
    assert ordered([first, second]) == ordered([second, first])
    assert recipe(first, second).key == recipe(second, first).key
    assert recipe(first, second) == recipe(second, first)
    if all(AFTER & set(trick.plugs()) for trick in (first, second)):  # in training all pairs meet in test_covering
        assert all(map(math.isfinite, train(first, second, epochs=1).losses))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_shapes_and_row_sums_are_kept(name: str, channels: int) -> None:
    made = loop(recipe(example(name)), channels=channels)
    for trick in having(made.tricks, "augment"):
        image = torch.randint(0, 256, (channels, 20, 24), dtype=torch.uint8, generator=generator(0, "test"))
        for transform in trick.augment():
            before = image.clone()
            out = transform(image, SIZE, generator(0, name))
            assert out.dtype == torch.uint8
            assert out.shape[0] == channels
            assert torch.equal(image, before), "the pixels that all epochs share were written to"
    for trick in having(made.tricks, "window"):
        top, left, height, width = trick.window(torch.tensor([[20, 24]]), lambda n: torch.rand(1, n).double())[0].tolist()
        assert 0 <= top < top + height <= 20
        assert 0 <= left < left + width <= 24
    for part, batch in made.loader.train(made.plan.epoch(0), 0):
        assert batch.x.shape == (len(part.rows), channels, part.size, part.size)
        for trick in having(made.tricks, "batch"):
            out = trick.batch(batch, 0.3, generator(0, name))
            assert out.x.shape == batch.x.shape
            assert out.y.shape == batch.y.shape
            torch.testing.assert_close(out.y.sum(1), torch.ones(len(out.y)))
        for trick in having(made.tricks, "weights"):
            assert trick.weights(batch.y, 0.3).shape == (len(batch.y),)


def out_of_bounds(trick: type[Trick]) -> Any:
    for field, info in trick.model_fields.items():
        if isinstance(info.default, tuple) or info.is_required():
            continue
        if isinstance(info.default, float | int) and not isinstance(info.default, bool):
            yield field, math.nan
            yield field, math.inf
        for bound in info.metadata:
            match bound:
                case annotated_types.Ge(ge=value) | annotated_types.Gt(gt=value):
                    yield field, value - 1
                case annotated_types.Le(le=value) | annotated_types.Lt(lt=value):
                    yield field, value + 1


@pytest.mark.parametrize("name", NAMES)
def test_values_out_of_bounds_are_refused_by_name(name: str) -> None:
    for field, value in out_of_bounds(bag()[name]):
        with pytest.raises(UsageError, match=field):
            rebuilt(example(name), {field: value})
    with pytest.raises(UsageError, match="no field nonsense"):
        rebuilt(example(name), {"nonsense": 1})
    numbers = [
        f for f, i in bag()[name].model_fields.items() if isinstance(i.default, float | int) and not isinstance(i.default, bool)
    ]
    for field in numbers:
        assert any(field == said for said, _ in out_of_bounds(bag()[name])), f"{field} has no bounds"


@pytest.mark.parametrize("name", NAMES)
def test_a_trick_moves_no_other_draw(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The generators that the rest of the run asks for are the same, and torch's own generator is never drawn from."""
    from trickbag.engine import assemble
    from trickbag.engine import loop as engine_loop
    from trickbag.ground import streams

    def keys_of(*tricks: Any) -> list[tuple[Any, ...]]:
        asked: list[tuple[Any, ...]] = []
        real = streams.key

        def spy(seed: int, stream: str, *keys: int) -> int:
            asked.append((seed, stream, *keys))
            return real(seed, stream, *keys)

        for module in (streams, engine_loop, assemble):
            monkeypatch.setattr(module, "key", spy)
        made = loop(recipe("flip", *tricks))
        torch.manual_seed(5)
        for trick in made.tricks:
            for part, batch in made.loader.train(made.plan.epoch(0), 0):
                before = torch.get_rng_state()
                if trick in having(made.tricks, "batch"):
                    trick.batch(batch, part.t, generator(0, trick.name(), 0))
                assert torch.equal(before, torch.get_rng_state()), "drew from the global generator"
        for event in made.train():
            if getattr(event, "images", 0) and event.step == 2:
                break
        monkeypatch.undo()
        return sorted({k for k in asked if k[0] == 0 and k[1] != name}, key=repr)

    trick = example(name)
    if name == "flip" or {"data", "order", "batch_size"} & set(trick.plugs()):
        assert conflict(trick, trick)  # these decide which images are drawn: only one of them may
        return
    assert keys_of(trick) == keys_of()


@pytest.mark.parametrize("name", NAMES)
def test_two_ranks_draw_what_one_rank_draws(name: str) -> None:
    made = loop(recipe(example(name)))

    def rank(number: int, ranks: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        one = made.loader
        part = Loader(
            one.pixels,
            one.labels,
            one.classes,
            made.tricks,
            one.view,
            ((0.5,) * 3, (0.25,) * 3),
            0,
            one.device,
            False,
            number,
            ranks,
        )
        return [(batch.rows, batch.x) for _, batch in part.train(made.plan.epoch(1), 1)]

    for (rows, x), (rows_0, x_0), (rows_1, x_1) in zip(rank(0, 1), rank(0, 2), rank(1, 2), strict=True):
        assert torch.equal(rows[0::2], rows_0)
        assert torch.equal(rows[1::2], rows_1)
        assert torch.equal(x[0::2], x_0)
        assert torch.equal(x[1::2], x_1)


@pytest.mark.parametrize("name", [name for name in NAMES if set(bag()[name].plugs()) <= WATCHING])
def test_watchers_and_evaluation_tricks_leave_the_trajectory_untouched(name: str) -> None:
    trained, plain = train(example(name)), without(name)
    assert same(trained.live, plain.live)
    assert trained.losses == plain.losses


@pytest.mark.parametrize("name", [name for name in NAMES if 0 < example(name).begin() < 1])
def test_before_it_begins_a_trick_leaves_the_trajectory_untouched(name: str) -> None:
    """What a study relies on when it trains a common beginning once."""
    trick, many = example(name), without(name, batch_size=2)
    trained = train(trick, batch_size=2)
    plan = trained.loop.plan
    before = sum(part.t < trick.begin() for epoch in range(plan.epochs) for part in plan.epoch(epoch))
    assert 0 < before < len(trained.losses)
    assert trained.losses[:before] == many.losses[:before]
    assert trained.losses[before:] != many.losses[before:]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("family", FAMILIES)
def test_two_steps_on_every_family_or_a_sentence(name: str, family: str) -> None:
    size = FAMILIES[family]
    try:
        made = loop(recipe(example(name), model=family, size=size, batch_size=4, lr=1e-3))
        list(made.prepare())
        steps = [event for event in itertools.islice(made.train(), 2) if hasattr(event, "images")]
    except UsageError as error:
        refusal = str(error)
        steps = []
    if not steps:
        assert refusal.endswith(".")
        assert len(refusal) > 20
        return
    assert len(steps) == 2
    assert all(bool(event.loss.isfinite()) for event in steps)


@pytest.mark.parametrize("name", NAMES)
def test_the_outline_seats_the_trick_at_each_of_its_plug_points(name: str) -> None:
    lines = [line for line in outline(recipe(example(name)), len(CLASSES)) if str(example(name)) in line]
    assert len(lines) == len(bag()[name].plugs())


def test_every_plug_point_is_drawn() -> None:
    text = "\n".join(outline(recipe(), len(CLASSES)))
    from trickbag.engine import outline as drawn

    assert all(drawn.LOOP.count(f" {point}\n") or drawn.LOOP.endswith(f" {point}") for point in PLUG_POINTS)
    assert "SGD" in text


def test_batch_law_holds_for_odd_and_single_batches() -> None:
    _, pixels = dataset()
    for name in NAMES:
        trick = example(name)
        if "batch" in trick.plugs():
            for count in (1, 3):
                x = torch.stack(pixels[:count]).float()
                out = trick.batch(Batch(x, torch.eye(3)[:count], torch.arange(count)), 0.0, generator(0, name))
                assert out.x.shape == x.shape
