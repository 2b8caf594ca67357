"""Policies, masks, warps, repeated images, mixing inside the network, agreement of views and scales: against other libraries
and the papers' formulas, on fixed draws."""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import chain as chain_of
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from reference import photo
from scipy.stats import ks_2samp, kstest
from timm.data.distributed_sampler import RepeatAugSampler
from torch import Generator, Tensor, nn
from torchvision import transforms as v1
from torchvision.transforms import v2
from torchvision.transforms.v2 import InterpolationMode, functional

from trickbag.engine.cutting import framed
from trickbag.engine.loader import Keys
from trickbag.ground.errors import UsageError
from trickbag.ground.streams import beta, generator, uniform
from trickbag.laboratory.lab import loop, recipe, train
from trickbag.models import networks
from trickbag.trick import Batch, Facts, Fit, Forward, Outputs, conflict
from trickbag.tricks import affine, augmix, autoaugment, parse
from trickbag.tricks.affine import warp
from trickbag.tricks.cutout import cover
from trickbag.tricks.grid_mask import mask
from trickbag.tricks.manifold_mixup import ManifoldMixup, ends, mix
from trickbag.tricks.multi_scale import disagreement, resized
from trickbag.tricks.repeated_augmentation import repeated_order
from trickbag.tricks.rotate import turn

SPECS = [
    "autoaugment",
    "autoaugment(policy='cifar10')",
    "autoaugment(policy='svhn')",
    "augmix(jsd=0)",
    "cutout",
    "grid_mask(p=1)",
    "rotate",
    "affine",
]
NEUTRAL = ["cutout(side=0)", "grid_mask(p=0)", "rotate(degrees=0)", "affine(shear=0, translate=0, scale=(1, 1))"]
CLASSES = 4


def augmented(spec: str, image: Tensor, rng: Generator) -> Tensor:
    (transform,) = parse(spec).augment()
    return transform(image, 24, rng)


def draw(high: int, rng: Generator) -> int:
    return int(torch.randint(high, (), generator=rng))


def net(name: str = "cifar_resnet8", size: int = 16, channels: int = 3) -> networks.Net:
    torch.manual_seed(3)
    return networks.build(name, CLASSES, channels, size)


def fit_of(size: int = 16, channels: int = 3) -> Fit:
    facts = Facts(tuple("abcd"), torch.full((CLASSES,), 5), steps=10, batch_size=4, size=size, channels=channels, seed=0)
    return cast(Fit, SimpleNamespace(facts=facts))


def batch_of(count: int, size: int = 16) -> Batch:
    rng = generator(1, "batch", count)
    labels = torch.arange(count) % CLASSES
    y = torch.nn.functional.one_hot(labels, CLASSES).float()
    return Batch(torch.randn(count, 3, size, size, generator=rng), y, torch.arange(count))


def passing(model: Callable[[Tensor], Outputs]) -> Forward:
    return lambda batch: (batch, model(batch.x))


# all that change pixels


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("channels", [1, 3, 4, 13])
def test_draws_come_from_the_given_generator_alone(spec: str, channels: int) -> None:
    image = photo(channels)
    before = image.clone()
    state = torch.get_rng_state()
    first = [augmented(spec, image, generator(0, spec, row)) for row in range(12)]
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    with ThreadPoolExecutor(3) as pool:
        again = list(pool.map(lambda row: augmented(spec, image, generator(0, spec, row)), range(12)))
    assert all(map(torch.equal, first, again))
    assert torch.equal(image, before)
    assert all(made.dtype == torch.uint8 and made.shape == image.shape for made in first)
    assert len({made.numpy().tobytes() for made in first}) > 5


@pytest.mark.parametrize("spec", [*NEUTRAL, "rotate(p=0)"])
def test_neutral_values_return_the_very_image(spec: str) -> None:
    trick = parse(spec)
    if spec in NEUTRAL:
        assert trick.neutral == {name: getattr(trick, name) for name in trick.neutral or {}}
    image = photo()
    for row in range(5):
        assert augmented(spec, image, generator(0, spec, row)) is image


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("autoaugment(policy='coco')", "policy: input should be 'imagenet', 'cifar10' or 'svhn'"),
        ("augmix(severity=11)", "severity: input should be less than or equal to 10"),
        ("augmix(severity=0)", "severity: input should be greater than or equal to 1"),
        ("augmix(width=0)", "width: input should be greater than or equal to 1"),
        ("augmix(depth=-1)", "depth: input should be greater than or equal to 0"),
        ("augmix(jsd=-1)", "jsd: input should be greater than or equal to 0"),
        ("cutout(side=1.5)", "side: input should be less than or equal to 1"),
        ("grid_mask(d=(0.5, 0.2))", "d: the first value, 0.5, must be at most the second, 0.2"),
        ("grid_mask(r=0)", "r: input should be greater than 0"),
        ("repeated_augmentation(n=1)", "n: input should be greater than or equal to 2"),
        ("rotate(degrees=181)", "degrees: input should be less than or equal to 180"),
        ("affine(shear=90)", "shear: input should be less than 90"),
        ("affine(scale=(1.1, 0.9))", "scale: the first value, 1.1, must be at most the second, 0.9"),
        ("affine(scale=(0, 1))", "scale: input should be greater than 0"),
        ("manifold_mixup(alpha=-1)", "alpha: input should be greater than or equal to 0"),
        ("multi_scale(sizes=())", "sizes: tuple should have at least 1 item"),
        ("multi_scale(sizes=(0.5, 0))", "sizes: input should be greater than 0"),
        ("multi_scale(weight=1e999)", "weight: "),
        ("one_of(mixup, manifold_mixup)", "manifold_mixup cannot be chosen batch by batch; give tricks that mix a batch"),
        ("one_of(mixup, augmix)", "augmix cannot be chosen batch by batch"),
    ],
)
def test_what_cannot_be_is_refused_by_name(spec: str, words: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse(spec)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("autoaugment", "randaugment"),
        ("augmix", "mixup"),
        ("augmix", "manifold_mixup"),
        ("manifold_mixup", "one_of(mixup, cutmix)"),
        ("repeated_augmentation", "balanced_sampling"),
    ],
)
def test_tricks_that_cannot_share_a_recipe_are_told_to_choose(a: str, b: str) -> None:
    assert "Choose one" in conflict(parse(a), parse(b))


# autoaugment


def on_these_draws(theirs: Any, pair: int, chances: list[float], signs: list[int], image: Tensor) -> Tensor:
    """An image after torchvision's transform of one pair, each operation with a probability of 1 or none, its sign dictated."""
    for (operation, p, m), chance, sign in zip(theirs._get_policies(theirs.policy)[pair], chances, signs, strict=True):
        table, signed = v2.AutoAugment._AUGMENTATION_SPACE[operation]
        factor = -1 if signed and sign == 0 else 1
        theirs._policies = [[(operation, 1.0 if chance <= p else -1.0, m)]]
        theirs._AUGMENTATION_SPACE = {
            operation: (
                lambda *size, table=table, factor=factor: None if table(*size) is None else factor * table(*size),
                False,
            )
        }
        image = theirs(image)
    return image


@pytest.mark.parametrize("policy", ["imagenet", "cifar10", "svhn"])
def test_autoaugment_is_torchvisions_on_the_same_draws(policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    newer, older = v2.AutoAugment(v2.AutoAugmentPolicy(policy)), v1.AutoAugment(v1.AutoAugmentPolicy(policy))
    image = photo()
    pairs, acted = set(), 0
    for row in range(150):
        rng = generator(0, policy, row)
        pair = draw(25, rng)
        chances = torch.rand(2, generator=rng, dtype=torch.float64).tolist()
        signs = torch.randint(2, (2,), generator=rng).tolist()
        made = augmented(f"autoaugment(policy={policy!r})", image, generator(0, policy, row))
        assert torch.equal(made, on_these_draws(newer, pair, chances, signs, image)), (pair, chances, signs)
        monkeypatch.setattr(older, "get_params", lambda _, drawn=(pair, chances, signs): drawn)
        assert float(((made.int() - older(image).int()).abs() > 2).double().mean()) < 0.01, (pair, chances, signs)
        pairs.add(pair)
        acted += not torch.equal(made, image)
    assert len(pairs) == 25
    assert acted > 75


@pytest.mark.parametrize("ours", [autoaugment, augmix])
def test_operations_act_on_any_number_of_channels(ours: Any) -> None:
    many = photo(5)
    names = getattr(ours, "OPERATIONS", tuple(v2.AutoAugment._AUGMENTATION_SPACE))
    for operation in names:
        made = ours.operate(many, operation, 7, 1)
        assert torch.equal(made, torch.cat([ours.operate(channel[None], operation, 7, 1) for channel in many]))
        assert (operation == "Color") == torch.equal(made, many), operation


# augmix


class DictatedAugMix(v2.AugMix):
    """torchvision's, whose draws are handed over."""

    def __init__(self, width: int, depth: int, weights: list[Tensor], operations: list[tuple[str, float]]) -> None:
        super().__init__(mixture_width=width, chain_depth=depth, all_ops=False)
        self.weights, self.operations = iter(weights), iter(operations)

    def _sample_dirichlet(self, params: Tensor) -> Tensor:
        return next(self.weights)[None]

    def _get_random_item(self, dct: Any) -> Any:
        operation, magnitude = next(self.operations)
        return operation, (lambda bins, height, width: torch.full((bins,), magnitude), False)


@pytest.mark.parametrize(("severity", "width", "depth"), [(3, 3, 0), (10, 2, 2), (1, 4, 1)])
def test_augmix_is_torchvisions_on_the_same_draws(severity: int, width: int, depth: int) -> None:
    image, up, lengths = photo(), 0, set()
    space = v2.AugMix._PARTIAL_AUGMENTATION_SPACE
    for row in range(40):
        rng = generator(0, "augmix", row)
        kept = uniform(rng)
        shares = torch._sample_dirichlet(torch.ones(width, dtype=torch.float64), generator=rng)
        chains: list[Tensor] = []
        single = DictatedAugMix(1, 1, [], [])
        drawn: list[list[tuple[str, float]]] = []
        for _ in range(width):
            chain: list[tuple[str, float]] = []
            for _ in range(depth or 1 + draw(3, rng)):
                operation, m, sign = tuple(space)[draw(9, rng)], draw(severity, rng), 2 * draw(2, rng) - 1
                table, signed = space[operation]
                values = table(10, 30, 40)
                chain.append((operation, 0.0 if values is None else float(values[m]) * (sign if signed else 1)))
            drawn.append(chain)
            lengths.add(len(chain))
            chains.append(image)
            for operation, magnitude in chain:
                chains[-1] = single._apply_image_or_video_transform(
                    chains[-1], operation, magnitude, single.interpolation, single._fill
                )
        made = augmented(
            f"augmix(severity={severity}, width={width}, depth={depth}, jsd=0)", image, generator(0, "augmix", row)
        )
        mean = sum(float(share) * chain.double() for share, chain in zip(shares, chains, strict=True))
        exact = kept * image.double() + (1 - kept) * mean
        assert (made - exact).abs().max() <= 0.5 + 1e-4
        if depth:  # torchvision draws lengths between the operations
            weights = [torch.tensor([kept, 1 - kept]), shares.float()]
            theirs = DictatedAugMix(width, depth, weights, list(chain_of(*drawn)))(image)
            cut = made.int() - theirs.int()
            assert set(cut.unique().tolist()) <= {0, 1}  # it cuts decimals off
            up += int(cut.sum())
    assert lengths == ({depth} if depth else {1, 2, 3})
    assert not depth or up


def test_augmix_shares_are_uniform_on_the_simplex() -> None:
    """An image of 0 with one chain of an operation that makes 255 of it tells 1 - kept."""
    black = torch.zeros(1, 1, 1, dtype=torch.uint8)
    levels = []
    for row in range(600):
        rng = generator(0, "shares", row)
        kept, shares = uniform(rng), torch._sample_dirichlet(torch.ones(3, dtype=torch.float64), generator=rng)
        levels.append(float(augmix.blend(black, [255 - black, black, black], shares, kept)) / 255 / max(1 - kept, 1e-9))
    assert kstest(np.clip(levels, 0, 1), "beta", args=(1, 2)).pvalue > 0.01  # a share of three has density 2 (1 - s)


def test_a_constant_image_stays_itself_however_it_is_mixed() -> None:
    for level in range(256):
        grey = torch.full((3, 2, 2), level, dtype=torch.uint8)
        rng = generator(0, "constant", level)
        shares = torch._sample_dirichlet(torch.ones(3, dtype=torch.float64), generator=rng)
        assert torch.equal(augmix.blend(grey, [grey] * 3, shares, uniform(rng)), grey)


def test_jensen_shannon_is_the_papers_formula_in_float64() -> None:
    logits = 3 * torch.randn(3, 7, CLASSES, generator=generator(0, "jsd"), dtype=torch.float64)
    p = logits.softmax(2)
    log_mean = p.mean(0).log()
    each = [torch.nn.functional.kl_div(log_mean, one, reduction="batchmean") for one in p]
    expected = (each[0] + each[1] + each[2]) / 3
    torch.testing.assert_close(augmix.jensen_shannon(logits), expected, rtol=1e-12, atol=0)
    assert float(augmix.jensen_shannon(logits[:1].expand(3, -1, -1))) == pytest.approx(0, abs=1e-12)
    sure = torch.tensor([[[1e4, 0.0]], [[0.0, 1e4]], [[0.0, 1e4]]])
    assert float(augmix.jensen_shannon(sure)) == pytest.approx(math.log(3) - 2 / 3 * math.log(2), rel=1e-6)


def test_augmixs_views_are_mixed_and_the_image_itself_is_not() -> None:
    made, plain, single = (loop(recipe("flip", *given)) for given in (["augmix"], [], ["augmix(jsd=0)"]))
    (part, batch), (_, unmixed), (_, mixed) = (next(one.loader.train(one.plan.epoch(0), 0)) for one in (made, plain, single))
    assert batch.views is not None
    assert mixed.views is None
    assert batch.views.shape == (16, 2, 3, 16, 16)
    assert torch.equal(batch.x, unmixed.x)
    assert not torch.equal(mixed.x, unmixed.x)
    assert not torch.equal(batch.views[:, 0], batch.views[:, 1])
    row = int(part.rows[0])
    keys = Keys(0, 0, part.rows[:1], part.copies[:1])
    mirrored = bool(parse("flip").mirror(keys.draw("flip")))
    for view in (1, 2):
        image = framed(made.loader.pixels[row], None, mirrored, 16)
        image = augmented("augmix", image, generator(0, "augmix", 0, row, 0, view))
        expected = functional.center_crop(functional.resize(image, [16], antialias=True), [16, 16])
        torch.testing.assert_close(batch.views[0, view - 1], (expected / 255 - 0.5) / 0.25)


def test_augmixs_penalty_is_the_divergence_of_the_networks_answers() -> None:
    model, batch = net().eval(), batch_of(6)
    views = torch.randn(6, 2, 3, 16, 16, generator=generator(0, "views"))
    outputs, trick = model(batch.x), parse("augmix(jsd=5)")
    answers = torch.stack([outputs.logits, model(views[:, 0]).logits, model(views[:, 1]).logits])
    penalty = trick.penalty(batch._replace(views=views), outputs, model, 0.0)
    torch.testing.assert_close(penalty, 5 * augmix.jensen_shannon(answers))
    penalty.backward()  # type: ignore[no-untyped-call]
    assert model.classifier.get_parameter("weight").grad is not None
    same = batch.x[:, None].expand(-1, 2, -1, -1, -1)
    assert trick.penalty(batch._replace(views=same), outputs, model, 0.0).item() == pytest.approx(0, abs=1e-6)
    assert float(parse("augmix(jsd=0)").penalty(batch, outputs, model, 0.0)) == 0


def test_augmixs_views_reach_the_loss_in_micro_batches_too() -> None:
    with_views, without = (train(f"augmix(jsd={jsd}, severity=10)", epochs=1, micro_batch=5) for jsd in (12, 0))
    assert all(map(math.isfinite, with_views.losses))
    assert not with_views.same(without)


# cutout


def test_cutout_covers_the_papers_square() -> None:
    image = photo()
    mean = image.double().mean((1, 2)).round()
    outside = 0
    for row in range(60):
        rng = generator(0, "cutout", row)
        y, x = draw(30, rng), draw(40, rng)
        length = 2 * (1 + row % 10)
        covered = np.zeros((30, 40), bool)  # the mask of the authors' code, for even lengths
        y1, y2 = np.clip(y - length // 2, 0, 30), np.clip(y + length // 2, 0, 30)
        x1, x2 = np.clip(x - length // 2, 0, 40), np.clip(x + length // 2, 0, 40)
        covered[y1:y2, x1:x2] = True
        made = augmented(f"cutout(side={length / 30})", image, generator(0, "cutout", row))
        assert torch.equal(made[:, ~covered], image[:, ~covered])
        assert (made[:, covered] == mean[:, None]).all()
        outside += covered.sum() < length**2
    assert outside > 10
    assert torch.equal(cover(image, 3, 4, 3)[:, 2:5, 3:6], mean.view(3, 1, 1).expand(-1, 3, 3).to(torch.uint8))


# grid_mask


@pytest.mark.parametrize(("unit", "kept", "y", "x"), [(7, 4, 0, 0), (10, 6, 9, 3), (24, 14, 5, 23), (1, 1, 0, 0), (2, 1, 1, 0)])
def test_grid_mask_covers_the_papers_squares(unit: int, kept: int, y: int, x: int) -> None:
    image = photo()
    covered = np.zeros((30, 40), bool)
    for top in range(y - unit, 30, unit):  # units tile the plane; of each, the square behind the kept edges is covered
        for left in range(x - unit, 40, unit):
            covered[max(top + kept, 0) : max(top + unit, 0), max(left + kept, 0) : max(left + unit, 0)] = True
    made = mask(image, unit, kept, y, x)
    assert torch.equal(made[:, ~covered], image[:, ~covered])
    assert (made[:, covered] == image.double().mean((1, 2)).round()[:, None]).all()


def test_grid_mask_keeps_the_papers_share_of_pixels() -> None:
    ramp = torch.arange(200, dtype=torch.uint8).repeat(200, 1)[None]
    for r in (0.2, 0.6, 0.9):
        made = augmented(f"grid_mask(p=1, r={r}, d=(0.1, 0.1))", ramp, generator(0, "grid", round(10 * r)))
        assert float((made == ramp).double().mean()) == pytest.approx(r * (2 - r), abs=0.01)


def test_grid_masks_units_and_offsets_fill_their_ranges_and_p_of_the_images_are_touched() -> None:
    ramp = torch.arange(100, dtype=torch.uint8).repeat(100, 1)[None]
    units, shifts = [], []
    for row in range(600):
        made = augmented("grid_mask(p=1, r=0.5, d=(0.2, 0.4))", ramp, generator(0, "units", row))[0]
        lines = (made != ramp[0]).any(1).int()
        begins = (lines.diff() == 1).nonzero().flatten()
        unit = int(begins[1] - begins[0])
        units.append(unit)
        shifts.append(((int(begins[0]) + 1 - round(0.5 * unit)) % unit + 0.5) / unit)
    assert (min(units), max(units)) == (20, 40)
    assert kstest((np.array(units) + generator_noise(600) - 20) / 20, "uniform").pvalue > 0.01
    assert kstest(shifts, "uniform").pvalue > 0.005
    touched = sum(augmented("grid_mask", ramp, generator(0, "touched", row)) is not ramp for row in range(1000))
    assert abs(touched - 500) < 4 * math.sqrt(250)


def generator_noise(count: int) -> Any:
    """What rounding took away, drawn anew."""
    return torch.rand(count, generator=generator(0, "noise"), dtype=torch.float64).numpy() - 0.5


# rotate, affine


def nearly_pillows(made: Tensor, theirs: Any) -> bool:
    """Whether nearly all pixels are within two levels: Pillow interpolates in whole numbers."""
    wrong = (made.int() - functional.pil_to_tensor(theirs).int()).abs() > 2
    return float(wrong.double().mean()) < 0.05


def test_rotate_is_torchvisions_and_pillows() -> None:
    image = photo(height=60, width=60)
    theirs = v2.RandomRotation(40, interpolation=InterpolationMode.BILINEAR, fill=None)
    pillow = functional.to_pil_image(image)
    angles = []
    for row in range(200):
        rng = generator(0, "rotate", row)
        uniform(rng)  # whether
        angles.append(uniform(rng, -40, 40))
        made = augmented("rotate(degrees=40)", image, generator(0, "rotate", row))
        assert torch.equal(made, theirs.transform(image, {"angle": angles[-1]}))
        if row < 20:
            assert nearly_pillows(made, pillow.rotate(angles[-1], resample=2))
    assert kstest((np.array(angles) + 40) / 80, "uniform").pvalue > 0.01
    assert torch.equal(turn(image, 90), image.rot90(1, (1, 2)))
    turned = sum(augmented("rotate(p=0.3)", image, generator(0, "p", row)) is not image for row in range(500))
    assert abs(turned - 150) < 4 * math.sqrt(500 * 0.3 * 0.7)


def test_affine_draws_and_warps_as_torchvisions(monkeypatch: pytest.MonkeyPatch) -> None:
    image, real = photo(height=40, width=60), affine.warp
    theirs = v2.RandomAffine(0, (0.2, 0.2), (0.5, 1.5), (-20, 20, -20, 20), InterpolationMode.BILINEAR, fill=None)
    seen: list[tuple[Any, Any, float]] = []

    def record(image: Tensor, shear: Any, shift: Any, factor: float) -> Tensor:
        seen.append((shear, shift, factor))
        return real(image, shear, shift, factor)

    monkeypatch.setattr(affine, "warp", record)
    for row in range(800):
        made = augmented("affine(shear=20, translate=0.2, scale=(0.5, 1.5))", image, generator(0, "affine", row))
        shear, shift, factor = seen[-1]
        assert torch.equal(made, theirs.transform(image, {"angle": 0, "translate": shift, "scale": factor, "shear": shear}))
    torch.manual_seed(6)
    drawn = [theirs.make_params([image]) for _ in range(10_000)]
    for axis in (0, 1):
        assert ks_2samp([shear[axis] for shear, _, _ in seen], [one["shear"][axis] for one in drawn]).pvalue > 0.01
        assert ks_2samp([shift[axis] for _, shift, _ in seen], [one["translate"][axis] for one in drawn]).pvalue > 0.01
    assert ks_2samp([factor for _, _, factor in seen], [one["scale"] for one in drawn]).pvalue > 0.01
    together = np.corrcoef([[*shear, *shift, factor] for shear, shift, factor in seen], rowvar=False)
    assert np.abs(together - np.eye(5)).max() < 0.15


def test_a_warp_shifts_by_pixels_scales_about_the_centre_and_shears_by_the_tangent() -> None:
    image = photo(height=40, width=40)
    shifted = torch.zeros_like(image)
    shifted[:, 3:, :-5] = image[:, :-3, 5:]
    assert torch.equal(warp(image, (0, 0), (-5, 3), 1.0), shifted)
    dot = torch.zeros(1, 41, 41, dtype=torch.uint8)
    dot[0, 30, 20] = 255  # ten below the centre
    scaled = warp(dot, (0, 0), (0, 0), 2.0)[0].double()
    place = (scaled.sum(1) @ torch.arange(41.0, dtype=torch.float64)) / scaled.sum()
    assert float(place) == pytest.approx(40, abs=0.5)
    sheared = warp(dot, (30, 0), (0, 0), 1.0)[0].double()
    place = (sheared.sum(0) @ torch.arange(41.0, dtype=torch.float64)) / sheared.sum()
    assert abs(float(place) - 20) == pytest.approx(10 * math.tan(math.radians(30)), abs=0.5)


# repeated_augmentation


@pytest.mark.parametrize("count", [1, 2, 41, 200, 255])
@pytest.mark.parametrize("n", [2, 3, 4, 7])
def test_repeated_augmentation_is_timms_sampler(count: int, n: int) -> None:
    for epoch in (0, 5):
        theirs = RepeatAugSampler(range(count), num_replicas=1, rank=0, num_repeats=n)
        theirs.set_epoch(epoch)
        ours = repeated_order(count, n, torch.Generator().manual_seed(epoch))
        assert ours.dtype == torch.int64
        assert ours.tolist() == [int(row) for row in theirs]
        shown = ours.bincount(minlength=count)
        assert int((shown > 0).sum()) == math.ceil(count / n)
        assert sorted(shown[shown > 0].tolist())[1:] == [n] * (math.ceil(count / n) - 1)


def test_copies_share_a_batch_are_augmented_anew_and_change_with_the_epoch() -> None:
    made = loop(recipe("repeated_augmentation(n=4)", "random_resized_crop"))
    parts = list(made.loader.train(made.plan.epoch(0), 0))
    assert [len(part.rows) for part, _ in parts] == [16, 16, 9]
    for part, batch in parts[:2]:
        fours = part.rows.view(-1, 4)
        assert (fours == fours[:, :1]).all()
        assert fours[:, 0].unique().numel() == 4
        assert len({x.numpy().tobytes() for x in batch.x}) == 16
    assert not torch.equal(made.plan.rows(0), made.plan.rows(1))


# manifold_mixup


def places(model: networks.Net, size: int = 16) -> list[str]:
    trick = ManifoldMixup()
    trick.setup(model, fit_of(size))
    return cast(list[str], trick.state()["places_"])


def test_manifold_mixup_mixes_at_the_papers_places() -> None:
    assert places(net("resnet18", 32), 32) == ["", "net.layer1", "net.layer2"]
    assert places(net("cifar_resnet20", 32), 32) == ["", "net.layer1", "net.layer2.1"]
    assert places(net("vit_tiny_patch16_224", 32), 32) == ["", "net.blocks.2", "net.blocks.5"]


def test_a_layer_that_something_goes_past_is_no_place() -> None:
    model = net("densenet121", 32)
    chosen = places(model, 32)
    assert [name.rpartition(".")[2] for name in chosen[1:]] == ["transition2", "transition3"]
    assert any("denselayer" in module for module in ends(model.depths))


class Bypassed(nn.Module):
    """Two layers side by side: nothing but the input is gone through by all."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.head = nn.Linear(12, 3), nn.Linear(12, 3), nn.Linear(12, 3), nn.Linear(9, CLASSES)
        self.depths = {
            f"{name}.{kind}": depth for depth, name in enumerate(("a", "b", "c", "head")) for kind in ("weight", "bias")
        }

    def forward(self, x: Tensor) -> Outputs:
        features = torch.cat([layer(x.flatten(1)) for layer in (self.a, self.b, self.c)], 1)
        return Outputs(features[:, :, None, None], features, self.head(features))


def test_a_network_without_a_place_is_refused_and_left_without_hooks() -> None:
    model = Bypassed()
    with pytest.raises(UsageError, match="no layer that everything passes through"):
        ManifoldMixup().setup(model, fit_of(2))
    assert not any(module._forward_hooks for module in model.modules())
    ManifoldMixup(alpha=0).setup(model, fit_of(2))


def by_hand(model: networks.Net, x: Tensor, place: str, partners: Tensor, share: float) -> Tensor:
    """The logits of a cifar_resnet8 whose images are mixed at a place."""

    def mixed(h: Tensor, here: str) -> Tensor:
        return torch.stack([share * h[i] + (1 - share) * h[j] for i, j in enumerate(partners)]) if here == place else h

    timm: Any = model.net
    h = torch.relu(timm.bn1(timm.conv1(mixed(x, ""))))
    h = mixed(timm.layer1(h), "net.layer1")
    h = mixed(timm.layer2(h), "net.layer2")
    return cast(Tensor, timm.fc(timm.layer3(h).mean((2, 3))))


def test_mixing_inside_is_mixing_by_hand_in_each_micro_batch_and_leaves_no_hook() -> None:
    model, trick = net(), ManifoldMixup()
    trick.setup(model, fit_of())
    seen = set()
    for step in range(12):
        rng = generator(0, "manifold_mixup", step)
        share = beta(rng, 2.0, 2.0)
        place = trick.state()["places_"][draw(3, rng)]
        forward = trick.forward(passing(model.train()), model, 0.0, generator(0, "manifold_mixup", step))
        for part in (batch_of(5), batch_of(3), batch_of(1)):
            partners = torch.randperm(len(part.x), generator=rng)
            given = part.x.clone()
            made, outputs = forward(part)
            torch.testing.assert_close(outputs.logits, by_hand(model, part.x, place, partners, share), rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(made.y, share * part.y + (1 - share) * part.y[partners])
            assert torch.equal(part.x, given)
            assert (place == "") == (not torch.equal(made.x, part.x)) or len(part.x) == 1
            model.zero_grad()
            outputs.logits.square().sum().backward()  # type: ignore[no-untyped-call]
            grads = [p.grad.clone() for p in model.parameters() if p.grad is not None]
            model.zero_grad()
            by_hand(model, part.x, place, partners, share).square().sum().backward()  # type: ignore[no-untyped-call]
            torch.testing.assert_close(grads, [p.grad for p in model.parameters()], rtol=1e-3, atol=1e-4)
        seen.add(place)
        assert not any(module._forward_hooks for module in model.modules())
    assert seen == {"", "net.layer1", "net.layer2"}


def test_places_are_drawn_evenly_and_shares_from_beta() -> None:
    model, trick = net().eval(), ManifoldMixup(alpha=0.7)
    trick.setup(model, fit_of())
    counts, shares = dict.fromkeys(trick.state()["places_"], 0), []

    def note(batch: Batch) -> tuple[Batch, Outputs]:
        hooked = [name for name, module in model.named_modules() if module._forward_hooks]
        counts[hooked[0] if hooked else ""] += 1
        return batch, model(batch.x[:, :, :4, :4])

    for step in range(900):
        made, _ = trick.forward(note, model, 0.0, generator(0, "places", step))(batch_of(2, 4))
        if float(made.y[0].max()) < 1:
            shares.append(float(made.y[0, 0]))
    assert all(abs(count - 300) < 4 * math.sqrt(200) for count in counts.values())
    assert kstest(shares, "beta", args=(0.7, 0.7)).pvalue > 0.01


def test_the_hook_is_gone_after_an_error_too() -> None:
    model, trick = net(), ManifoldMixup()
    trick.setup(model, fit_of())

    def fail(batch: Batch) -> tuple[Batch, Outputs]:
        raise RuntimeError("out of memory")

    for step in range(6):
        with pytest.raises(RuntimeError, match="out of memory"):
            trick.forward(fail, model, 0.0, generator(0, "error", step))(batch_of(2))
        assert not any(module._forward_hooks for module in model.modules())


def test_a_compiled_network_is_refused_before_training() -> None:
    with pytest.raises(UsageError, match=r"manifold_mixup reaches into the network's layers, which compile=true closes"):
        loop(recipe("manifold_mixup", compile=True))


def test_without_a_parameter_the_forward_is_the_very_same() -> None:
    forward = passing(net())
    trick = ManifoldMixup(alpha=0)
    trick.setup(net(), fit_of())
    assert trick.forward(forward, net(), 0.0, generator(0, "x")) is forward
    assert torch.equal(mix(torch.eye(3), torch.tensor([2, 0, 1]), 1.0), torch.eye(3))


# multi_scale


def test_disagreement_is_one_minus_the_cosine_in_float64() -> None:
    a, b = torch.randn(2, 6, 9, generator=generator(0, "features"), dtype=torch.float64)
    each = [1 - float(x @ y) / math.sqrt(float(x @ x) * float(y @ y)) for x, y in zip(a, b, strict=True)]
    assert float(disagreement(a, b)) == pytest.approx(sum(each) / 6, rel=1e-12)
    assert float(disagreement(a, 3 * a)) == pytest.approx(0, abs=1e-12)


def test_resizing_is_torchvisions() -> None:
    x = torch.rand(2, 3, 32, 32, generator=generator(0, "resize"))
    for side in (8, 24, 40):
        torch.testing.assert_close(resized(x, side), functional.resize(x, [side, side], antialias=True))


def test_multi_scale_adds_the_mean_disagreement_of_the_networks_features() -> None:
    model, batch, trick = net(), batch_of(5), parse("multi_scale(sizes=(0.5, 0.75, 1.5), weight=3)")
    trick.setup(model, fit_of())
    model.eval()
    outputs = model(batch.x)
    wanted = [
        disagreement(outputs.features, model(functional.resize(batch.x, [side, side], antialias=True)).features)
        for side in (8, 12, 24)
    ]
    penalty = trick.penalty(batch, outputs, model, 0.0)
    torch.testing.assert_close(penalty, 3 * sum(wanted) / 3)
    assert penalty.item() > 0.001
    penalty.backward()  # type: ignore[no-untyped-call]
    assert sum(float(p.grad.abs().sum()) for p in model.parameters() if p.grad is not None) > 0
    assert float(parse("multi_scale(weight=0)").penalty(batch, outputs, model, 0.0)) == 0


def test_multi_scale_brings_the_scales_together() -> None:
    def apart(weight: float) -> float:
        trained = train(f"multi_scale(sizes=(0.5,), weight={weight})", epochs=6)
        model = trained.loop.model.eval()
        x = next(trained.loop.judge.judged("val")).x
        with torch.no_grad():
            return float(disagreement(model(x).features, model(resized(x, 8)).features))

    assert apart(5.0) < 0.7 * apart(0.0)


def test_networks_that_read_one_size_or_none_so_small_are_refused() -> None:
    with pytest.raises(UsageError, match="this network reads 32 pixels only"):
        parse("multi_scale").setup(net("vit_tiny_patch16_224", 32), fit_of(32))
    with pytest.raises(UsageError, match="images of 16 pixels, which are too small"):
        parse("multi_scale").setup(net("convnext_atto", 32), fit_of(32))
    parse("multi_scale(weight=0)").setup(net("vit_tiny_patch16_224", 32), fit_of(32))
