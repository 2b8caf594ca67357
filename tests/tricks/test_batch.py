"""Mixing, class weights and balanced sampling against timm, scikit-learn and their formulas, on fixed draws."""

import math
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from sklearn.utils.class_weight import compute_class_weight
from timm.data import mixup as timm_mixup
from torch import Tensor

from trickbag.ground.errors import UsageError
from trickbag.ground.streams import beta, generator
from trickbag.trick import Batch, Facts, Fit, Outputs, Stage, Trick, conflict
from trickbag.tricks import parse
from trickbag.tricks.balanced_sampling import balanced_order
from trickbag.tricks.class_weights import balanced_weights
from trickbag.tricks.cutmix import box_around, paste
from trickbag.tricks.mixup import mix
from trickbag.tricks.one_of import OneOf

CLASSES = 5
MIXING = ["mixup", "cutmix", "one_of(mixup, cutmix)"]


def batch_of(size: int, channels: int = 3, height: int = 12, width: int = 10) -> Batch:
    rng = generator(1, "batch", size, channels)
    x = torch.randn(size, channels, height, width, generator=rng)
    labels = torch.randint(CLASSES, (size,), generator=rng)
    return Batch(x, torch.nn.functional.one_hot(labels, CLASSES).float(), torch.arange(size))


def mixed(spec: str, batch: Batch, *keys: int) -> Batch:
    return parse(spec).batch(batch, 0.0, generator(0, "mix", *keys))


def fit_of(counts: list[int]) -> Fit:
    names = tuple(map(str, range(len(counts))))
    facts = Facts(names, torch.tensor(counts), steps=10, batch_size=2, size=8, channels=3, seed=0)
    return cast(Fit, SimpleNamespace(facts=facts))


# what mixes


@pytest.mark.parametrize("spec", MIXING)
@pytest.mark.parametrize("size", [1, 2, 5, 7])
@pytest.mark.parametrize("channels", [1, 3, 13])
def test_mixing_keeps_shapes_and_row_sums_and_is_keyed(spec: str, size: int, channels: int) -> None:
    batch = batch_of(size, channels)
    given = Batch(*(part.clone() for part in batch[:3]))
    state = torch.get_rng_state()
    made = [mixed(spec, batch, step) for step in range(20)]
    again = [mixed(spec, batch, step) for step in range(20)]
    assert all(torch.equal(a, b) for one, two in zip(made, again, strict=True) for a, b in zip(one[:3], two[:3], strict=True))
    assert all(map(torch.equal, batch[:3], given[:3]))
    assert torch.equal(torch.get_rng_state(), state)
    for one in made:
        assert one.x.shape == batch.x.shape
        assert torch.equal(one.rows, batch.rows)
        torch.testing.assert_close(one.y.sum(1), torch.ones(size))
    distinct = len({one.x.numpy().tobytes() for one in made})
    assert distinct == 1 if size == 1 else distinct > 5


@pytest.mark.parametrize("spec", ["mixup(alpha=0)", "cutmix(alpha=0)"])
def test_neutral_values_return_the_very_batch(spec: str) -> None:
    batch = batch_of(4)
    assert parse(spec).neutral == {"alpha": 0.0}
    assert mixed(spec, batch) is batch


@pytest.mark.parametrize("spec", MIXING)
def test_a_batch_of_one_is_left_as_it_is(spec: str) -> None:
    batch = batch_of(1)
    for step in range(10):
        made = mixed(spec, batch, step)
        assert torch.equal(made.x, batch.x)
        assert torch.equal(made.y, batch.y)


@pytest.mark.parametrize("spec", MIXING)
@pytest.mark.parametrize("eps", [0.1, 0.4])
def test_mixing_and_smoothing_commute(spec: str, eps: float) -> None:
    smoothing, rng = parse(f"label_smoothing(eps={eps})"), generator(0, "unused")
    for step in range(10):
        batch = batch_of(7)
        first = smoothing.batch(mixed(spec, batch, step), 0.0, rng)
        last = mixed(spec, smoothing.batch(batch, 0.0, rng), step)
        assert torch.equal(first.x, last.x)
        torch.testing.assert_close(first.y, last.y, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("mixup(alpha=-1)", "mixup(alpha=-1): alpha: input should be greater than or equal to 0"),
        ("cutmix(alpha=-0.5)", "alpha: input should be greater than or equal to 0"),
        ("cutmix(alpha=1e999)", "alpha: "),
        ("one_of(mixup)", "choices: tuple should have at least 2 items"),
        ("one_of", "choices is missing"),
        ("one_of(mixup, label_smoothing)", "label_smoothing cannot be chosen batch by batch; give tricks that mix"),
        ("one_of(mixup, 3)", "choices: "),
        ("class_weights(kind='log')", "kind: input should be 'inverse' or 'effective'"),
        ("class_weights(beta=1)", "beta: input should be less than 1"),
        ("balanced_sampling(n=1)", "there is no field n"),
    ],
)
def test_values_out_of_bounds_are_refused_by_name(spec: str, words: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse(spec)
    assert words in str(refused.value)


# mixup


def test_mixup_is_timms_formula() -> None:
    labels = torch.tensor([3, 0, 1, 1, 4])
    y = torch.nn.functional.one_hot(labels, CLASSES).float()
    x = batch_of(5).x
    turned = torch.arange(4, -1, -1)
    for share in (0.0, 0.2, 0.7, 1.0):
        torch.testing.assert_close(mix(y, turned, share), timm_mixup.mixup_target(labels, CLASSES, share))
        torch.testing.assert_close(mix(x, turned, share), x * share + x.flip(0) * (1 - share))


def test_mixup_mixes_images_and_targets_by_one_drawn_share_and_permutation() -> None:
    batch = batch_of(7)
    rng = generator(0, "mix", 3)
    share = beta(rng, 0.4, 0.4)
    partners = torch.randperm(7, generator=rng)
    made = mixed("mixup(alpha=0.4)", batch, 3)
    for i, j in enumerate(partners.tolist()):
        torch.testing.assert_close(made.x[i], share * batch.x[i] + (1 - share) * batch.x[j])
        torch.testing.assert_close(made.y[i], share * batch.y[i] + (1 - share) * batch.y[j])


@pytest.mark.parametrize("alpha", [0.2, 1.0, 8.0])
def test_mixups_share_is_drawn_from_beta(alpha: float) -> None:
    batch = Batch(torch.zeros(2, 1, 1, 1), torch.eye(2), torch.arange(2))
    shares = []
    for step in range(1200):
        made = mixed(f"mixup(alpha={alpha})", batch, step).y[0, 0].item()
        if made < 1:  # else each image was its own partner
            shares.append(made)
    assert len(shares) > 450
    assert kstest(shares, "beta", args=(alpha, alpha)).pvalue > 0.01


# cutmix


def test_cutmix_boxes_are_timms(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = generator(0, "boxes")
    for _ in range(300):
        height, width = 16, 24
        share = float(torch.rand((), generator=rng))
        y, x = (int(torch.randint(side, (), generator=rng)) for side in (height, width))
        centre = iter((y, x))
        monkeypatch.setattr(np.random, "randint", lambda low, high, size=None, centre=centre: next(centre))
        theirs = tuple(int(edge) for edge in timm_mixup.rand_bbox((1, height, width), share))
        assert box_around(y, x, height, width, share) == theirs


def test_cutmix_pastes_the_box_and_weighs_by_its_true_area() -> None:
    batch = batch_of(7)
    partners = torch.randperm(7, generator=generator(0, "partners"))
    for box in ((0, 12, 0, 10), (3, 3, 2, 8), (5, 12, 0, 4)):
        top, bottom, left, right = box
        x, y = paste(batch.x, batch.y, partners, box)
        share = 1 - (bottom - top) * (right - left) / 120
        for i, j in enumerate(partners.tolist()):
            expected = batch.x[i].clone()
            expected[:, top:bottom, left:right] = batch.x[j][:, top:bottom, left:right]
            assert torch.equal(x[i], expected)
            torch.testing.assert_close(y[i], share * batch.y[i] + (1 - share) * batch.y[j])


def test_cutmix_targets_say_how_many_pixels_each_image_gives() -> None:
    size = 6
    x = torch.arange(size).float().view(size, 1, 1, 1).expand(size, 2, 14, 9).contiguous()
    batch = Batch(x, torch.eye(size), torch.arange(size))
    shares = []
    for step in range(200):
        made = mixed("cutmix", batch, step)
        pixels = torch.stack([(made.x[:, 0] == k).flatten(1).float().mean(1) for k in range(size)], dim=1)
        torch.testing.assert_close(made.y, pixels)
        shares.append(made.y.max(1).values.min().item())
    assert min(shares) < 0.6
    assert max(shares) > 0.95


def test_cutmix_centres_are_uniform_and_sides_follow_beta() -> None:
    batch = Batch(torch.arange(2.0).view(2, 1, 1, 1).expand(2, 1, 40, 40).contiguous(), torch.eye(2), torch.arange(2))
    rows, columns, sides = torch.zeros(40), torch.zeros(40), []
    for step in range(6000):
        foreign = mixed("cutmix", batch, step).x[0, 0] == 1
        box_rows, box_columns = foreign.any(1).nonzero().flatten(), foreign.any(0).nonzero().flatten()
        if len(box_rows) and box_rows[0] > 0 and box_rows[-1] < 39 and box_columns[0] > 0 and box_columns[-1] < 39:
            assert len(box_rows) == len(box_columns)
            sides.append(len(box_rows))
        rows += foreign.any(1)
        columns += foreign.any(0)
    # A box of side s = sqrt(1 - share) lies inside with probability about (1 - s)^2, and share is uniform:
    # P(side <= a | inside) is the integral of 12 s (1 - s)^2 over [0, a].
    ends = np.arange(2, 40) / 40
    steps = np.abs(np.searchsorted(np.sort(sides), 40 * ends) / len(sides) - ends**2 * (6 - 8 * ends + 3 * ends**2))
    assert steps.max() < 0.08  # whole pixels, and about 500 boxes
    assert (rows - rows.flip(0)).abs().max() < 5 * math.sqrt(float(rows.max()))
    assert (columns - columns.flip(0)).abs().max() < 5 * math.sqrt(float(columns.max()))


# one_of


def test_one_of_hands_each_batch_to_one_choice_evenly() -> None:
    batch = batch_of(6)
    chosen = [0, 0, 0]
    texts = ("mixup(alpha=0.7)", "cutmix(alpha=0.5)", "mixup(alpha=0)")
    trick, choices = parse(f"one_of({', '.join(texts)})"), list(map(parse, texts))
    for step in range(900):
        rng = generator(0, "one_of", step)
        made = trick.batch(batch, 0.0, generator(0, "one_of", step))
        i = int(torch.randint(3, (), generator=rng))
        expected = choices[i].batch(batch, 0.0, rng)
        assert torch.equal(made.x, expected.x)
        assert torch.equal(made.y, expected.y)
        chosen[i] += 1
    assert all(abs(count - 300) < 4 * math.sqrt(200) for count in chosen)


def test_one_of_keeps_its_choices_as_they_are() -> None:
    text = "one_of(mixup, cutmix(alpha=0.5))"
    mixup, cutmix = parse("mixup"), parse("cutmix(alpha=0.5)")
    trick = OneOf(choices=(mixup, cutmix))
    assert trick.choices[0] is mixup
    assert trick.choices[1] is cutmix
    assert str(trick) == str(parse(text)) == str(trick.fresh()) == text
    assert trick.fresh().batch(batch_of(3), 0.0, generator(0, "x")).x.shape == (3, 3, 12, 10)
    assert trick.model_dump() == {"choices": ({"alpha": 0.2}, {"alpha": 0.5})}
    assert parse("one_of(one_of(mixup, cutmix), mixup)").plugs() == ("batch",)


class HalfLoss(Trick):
    stage, slot = Stage.MIX, "mix"

    def batch(self, batch: Batch, t: float, rng: torch.Generator) -> Batch:
        return batch

    def loss(self, outputs: Outputs, y: Tensor) -> Tensor:
        return outputs.logits.sum(1) / 2


def test_one_of_refuses_a_choice_that_acts_beyond_the_batch() -> None:
    with pytest.raises(UsageError, match="cannot be chosen batch by batch"):
        OneOf(choices=(parse("mixup"), HalfLoss()))


def test_two_tricks_that_mix_are_told_to_choose() -> None:
    assert "write one_of(mixup, cutmix)" in conflict(parse("mixup"), parse("cutmix"))
    assert "Choose one" in conflict(parse("mixup"), parse("one_of(mixup, cutmix)"))


# class_weights

COUNTS = [500, 120, 7, 1]


def test_inverse_weights_are_scikit_learns_balanced_ones() -> None:
    labels = np.repeat(np.arange(4), COUNTS)
    expected = compute_class_weight("balanced", classes=np.arange(4), y=labels)
    np.testing.assert_allclose(balanced_weights(torch.tensor(COUNTS), "inverse", 0.9999).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("beta_", [0.0, 0.9, 0.999, 0.9999, 0.9999999])
def test_effective_weights_are_the_formula_in_float64(beta_: float) -> None:
    raw = np.array([1 / sum(beta_**i for i in range(n)) for n in COUNTS])
    expected = raw * sum(COUNTS) / (raw @ np.array(COUNTS))
    made = balanced_weights(torch.tensor(COUNTS), "effective", beta_).numpy()
    np.testing.assert_allclose(made, expected, rtol=1e-6)
    np.testing.assert_allclose(made @ np.array(COUNTS) / sum(COUNTS), 1, rtol=1e-12)


@pytest.mark.parametrize("kind", ["inverse", "effective"])
def test_a_class_without_images_weighs_nothing_and_moves_no_other(kind: str) -> None:
    made = balanced_weights(torch.tensor([4, 0, 2]), kind, 0.9)
    assert made[1] == 0
    assert torch.equal(made[[0, 2]], balanced_weights(torch.tensor([4, 2]), kind, 0.9))


def test_samples_weigh_as_their_classes_and_mixed_rows_as_the_mean() -> None:
    trick = parse("class_weights")
    trick.setup(None, fit_of(COUNTS))
    expected = balanced_weights(torch.tensor(COUNTS), "inverse", 0.9999).float()
    assert torch.equal(trick.state()["class_weight_"], expected)
    assert torch.equal(trick.weights(torch.eye(4), 0.5), expected)
    row = torch.tensor([[0.25, 0, 0.75, 0]])
    torch.testing.assert_close(trick.weights(row, 0.5), (0.25 * expected[0] + 0.75 * expected[2])[None])
    assert trick.weights(torch.eye(4, dtype=torch.float64), 0.5).dtype == torch.float64
    assert trick.fresh().state() == {}


# balanced_sampling


def test_every_class_is_drawn_equally_often_and_images_come_round_in_turn() -> None:
    labels = torch.tensor([0] * 50 + [2] * 7 + [5] * 2 + [1] * 1)[torch.randperm(60, generator=generator(0, "labels"))]
    order = balanced_order(labels, generator(0, "balanced_sampling"))
    assert order.dtype == torch.int64
    assert labels[order].bincount().tolist() == [15, 15, 15, 0, 0, 15]
    shown = order.bincount(minlength=60)
    assert set(shown[labels == 0].tolist()) == {0, 1}
    assert set(shown[labels == 2].tolist()) == {2, 3}
    assert sorted(shown[labels == 5].tolist()) == [7, 8]
    assert shown[labels == 1].tolist() == [15]


def test_a_remainder_goes_to_classes_drawn_anew_each_epoch() -> None:
    trick, labels = parse("balanced_sampling"), torch.tensor([0] * 6 + [1] * 3 + [2] * 2)
    spare = torch.zeros(3)
    for epoch in range(60):
        counts = labels[trick.order(labels, epoch, generator(0, "balanced_sampling", epoch))].bincount(minlength=3)
        assert sorted(counts.tolist()) == [3, 4, 4]
        spare += counts == 3
    assert spare.min() > 8


def test_a_balanced_set_is_shuffled() -> None:
    labels = torch.arange(40) // 10
    orders = [balanced_order(labels, generator(0, "balanced_sampling", epoch)) for epoch in range(200)]
    assert all(torch.equal(order.sort().values, torch.arange(40)) for order in orders)
    assert torch.equal(orders[0], balanced_order(labels, generator(0, "balanced_sampling", 0)))
    assert not torch.equal(orders[0], orders[1])
    places = torch.stack(orders).double().mean(0)  # each place holds each row equally often: mean 19.5, sd 11.5 / sqrt(200)
    assert (places - 19.5).abs().max() < 4 * 11.5 / math.sqrt(200)


def test_sampling_leaves_the_global_generator_alone() -> None:
    state: Tensor = torch.get_rng_state()
    balanced_order(torch.tensor([0, 0, 1]), generator(0, "balanced_sampling"))
    assert torch.equal(torch.get_rng_state(), state)
