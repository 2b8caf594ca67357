"""The augmentation tricks against torchvision, Pillow and their formulas, on fixed draws."""

import math
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from reference import photo
from scipy.stats import ks_2samp, kstest
from torch import Generator, Tensor
from torchvision import transforms as v1
from torchvision.transforms import autoaugment as pillow_policy
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from trickbag.engine.cutting import framed
from trickbag.ground.errors import UsageError
from trickbag.ground.limits import Range
from trickbag.ground.streams import generator, key, uniforms
from trickbag.trick import Draw, Facts, Fit
from trickbag.tricks import parse, randaugment, trivialaugment
from trickbag.tricks.color_jitter import jitter
from trickbag.tricks.lighting import light
from trickbag.tricks.progressive_resizing import grown_size
from trickbag.tricks.random_erasing import erase, rectangle
from trickbag.tricks.random_resized_crop import crop_boxes

SPECS = [
    "color_jitter",
    "lighting",
    "randaugment",
    "trivialaugment",
    "random_erasing(p=1)",
]
NEUTRAL = [
    "color_jitter(hue=0, saturation=0, brightness=0)",
    "lighting(std=0)",
    "randaugment(n=0)",
    "random_erasing(p=0)",
]
SIZE = 24


def augmented(spec: str, image: Tensor, rng: Generator, size: int = SIZE) -> Tensor:
    for transform in parse(spec).augment():
        image = transform(image, size, rng)
    return image


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("channels", [1, 3, 4, 13])
def test_draws_come_from_the_given_generator_alone(spec: str, channels: int) -> None:
    image = photo(channels)
    before = image.clone()
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = [augmented(spec, image, generator(0, spec, row)) for row in range(12)]
    torch.manual_seed(2)
    with ThreadPoolExecutor(3) as pool:
        again = list(pool.map(lambda row: augmented(spec, image, generator(0, spec, row)), range(12)))
    assert all(map(torch.equal, first, again))
    torch.manual_seed(1)
    augmented(spec, image, generator(0, spec, 0))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(image, before)
    assert all(made.dtype == torch.uint8 and made.shape == image.shape for made in first)
    if not (spec == "lighting" and channels != 3):
        assert len({made.numpy().tobytes() for made in first}) > 1


@pytest.mark.parametrize("spec", NEUTRAL)
def test_neutral_values_return_the_very_image(spec: str) -> None:
    trick = parse(spec)
    assert trick.neutral == {name: getattr(trick, name) for name in trick.neutral or {}}
    image = photo()
    assert augmented(spec, image, generator(0, spec)) is image


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("flip(p=1.1)", "p: input should be less than or equal to 1"),
        ("flip(p=1e999)", "p: "),
        ("random_resized_crop(scale=(0.5, 0.2))", "scale: the first value, 0.5, must be at most the second, 0.2"),
        ("random_resized_crop(scale=(0, 1))", "scale: input should be greater than 0"),
        ("random_resized_crop(scale=(0.5, 1.5))", "scale: input should be less than or equal to 1"),
        ("random_resized_crop(ratio=(2, 1))", "ratio: the first value, 2.0, must be at most"),
        ("random_erasing(area=(0.4, 0.1))", "area: the first value"),
        ("random_erasing(ratio=(0, 1))", "ratio: input should be greater than 0"),
        ("color_jitter(hue=-0.1)", "hue: input should be greater than or equal to 0"),
        ("lighting(std=-1)", "std: input should be greater than or equal to 0"),
        ("randaugment(m=31)", "m: input should be less than 31"),
        ("randaugment(n=-1)", "n: input should be greater than or equal to 0"),
        ("trivialaugment(n=1)", "there is no field n"),
        ("progressive_resizing(start=0)", "start: input should be greater than 0"),
        ("progressive_resizing(until=1.5)", "until: input should be less than or equal to 1"),
    ],
)
def test_values_out_of_bounds_are_refused_by_name(spec: str, words: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse(spec)
    assert words in str(refused.value)


# random_resized_crop


def draw_of(count: int, name: str) -> Draw:
    """The draws of so many images."""
    return lambda n: uniforms(key(0, name), torch.arange(count)[:, None], n)


def crops(height: int, width: int, scale: Range, ratio: Range, count: int = 1500) -> Tensor:
    """Boxes that are drawn in an image of this size."""
    trick = parse(f"random_resized_crop(scale={scale}, ratio={ratio})")
    return trick.window(torch.tensor([[height, width]]).expand(count, 2), draw_of(count, "boxes"))


def test_crop_boxes_are_distributed_as_torchvisions() -> None:
    height, width, n = 60, 100, 1500
    scale, ratio = (0.08, 1.0), (3 / 4, 4 / 3)
    ours = crops(height, width, scale, ratio, n).numpy()
    torch.manual_seed(3)
    image = torch.zeros(3, height, width)
    theirs = np.array([v1.RandomResizedCrop.get_params(image, list(scale), list(ratio)) for _ in range(n)])
    for column in range(4):
        assert ks_2samp(ours[:, column], theirs[:, column]).pvalue > 0.01
    top, left, h, w = ours.T
    assert top.min() >= 0
    assert left.min() >= 0
    assert (top + h).max() == height
    assert (left + w).max() == width


@pytest.mark.parametrize(("height", "width"), [(10, 200), (200, 10), (40, 50)])
@pytest.mark.parametrize("ratio", [(3 / 4, 4 / 3), (2.0, 2.0)])
def test_a_box_that_never_fits_falls_back_as_torchvisions(height: int, width: int, ratio: Range) -> None:
    scale = (1.0, 1.0)
    theirs = v1.RandomResizedCrop.get_params(torch.zeros(3, height, width), list(scale), list(ratio))
    assert crops(height, width, scale, ratio, 1)[0].tolist() == list(theirs)


def test_the_first_of_ten_boxes_that_fits_is_taken() -> None:
    """By the formula, one image and one attempt after the other."""
    scale, ratio, sizes = (0.3, 1.0), (0.5, 2.0), torch.randint(1, 90, (400, 2), generator=generator(0, "sizes"))
    draws = uniforms(key(0, "attempts"), torch.arange(400)[:, None], 40).view(400, 10, 4)
    made = crop_boxes(sizes, scale, ratio, draws)
    fallen = 0
    for (height, width), own, box in zip(sizes.tolist(), draws.tolist(), made.tolist(), strict=True):
        for a, s, y, x in own:
            area, shape = height * width * (0.3 + 0.7 * a), math.exp(math.log(0.5) + math.log(4) * s)
            h, w = round(math.sqrt(area / shape)), round(math.sqrt(area * shape))
            if 0 < h <= height and 0 < w <= width:
                assert box == [int(y * (height - h + 1)), int(x * (width - w + 1)), h, w]
                break
        else:
            fallen += 1
            assert box[:2] == [(height - box[2]) // 2, (width - box[3]) // 2]
    assert 0 < fallen < 200


@pytest.mark.parametrize(("channels", "size"), [(1, 24), (3, 24), (3, 64), (13, 24)])
def test_crop_resizes_the_box_it_draws(channels: int, size: int) -> None:
    image = photo(channels)
    box = crops(*image.shape[1:], (0.3, 0.9), (0.5, 2.0), 1)[0]
    expected = functional.resize(functional.crop(image, *box.tolist()), [size, size], antialias=True)
    made = framed(image, box, False, size)
    assert torch.equal(made, expected)
    exact = torch.nn.functional.interpolate(
        functional.crop(image, *box.tolist())[None].double(), (size, size), mode="bilinear", antialias=True
    )[0]
    assert (made - exact).abs().max() <= 1.01


# flip


def test_flip_mirrors_the_given_share_of_images() -> None:
    mirrored = parse("flip(p=0.3)").mirror(draw_of(1000, "flip"))
    assert abs(int(mirrored.sum()) - 300) < 3 * math.sqrt(1000 * 0.3 * 0.7)
    assert parse("flip(p=1)").mirror(draw_of(1000, "flip")).all()
    assert not parse("flip(p=0)").mirror(draw_of(1000, "flip")).any()


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_mirrored_image_is_turned_left_to_right(channels: int) -> None:
    image = photo(channels)
    assert torch.equal(framed(image, None, True, SIZE), image.flip(2))
    assert framed(image, None, False, SIZE) is image


# color_jitter


def test_jitter_is_torchvisions_three_adjustments() -> None:
    image = photo()
    expected = functional.adjust_brightness(image, 1.3)
    assert torch.equal(jitter(image, 1.3, 1, 1), expected)
    expected = functional.adjust_saturation(expected, 0.7)
    assert torch.equal(jitter(image, 1.3, 0.7, 1), expected)
    expected = functional.adjust_hue(expected, 0.25 / 6)
    assert torch.equal(jitter(image, 1.3, 0.7, 1.25), expected)


def test_a_whole_hue_unit_turns_red_into_yellow() -> None:
    red = torch.tensor([255, 0, 0], dtype=torch.uint8).view(3, 1, 1)
    assert jitter(red, 1, 1, 2).flatten().tolist() == [255, 255, 0]


def test_jitter_factors_fill_their_ranges_evenly() -> None:
    grey = torch.full((1, 1, 1), 100, dtype=torch.uint8)
    levels = [int(augmented("color_jitter", grey, generator(0, "jitter", row))) for row in range(1500)]
    assert kstest((np.array(levels) + 0.5 - 60) / 81, "uniform").pvalue > 0.01
    red = torch.tensor([200, 0, 0], dtype=torch.uint8).view(3, 1, 1)
    made = [augmented("color_jitter(brightness=0, saturation=0)", red, generator(0, "hue", row)) for row in range(600)]
    turns = [(int(one[1]) - int(one[2])) / 200 for one in made]  # sixths of a turn, red being 0
    assert kstest((np.array(turns) + 0.4) / 0.8, "uniform").pvalue > 0.01


def test_a_field_set_to_zero_leaves_the_other_draws_where_they_were() -> None:
    grey = photo(1)
    both = (augmented(spec, grey, generator(0, "jitter")) for spec in ("color_jitter", "color_jitter(hue=0, saturation=0)"))
    assert torch.equal(*both)


@pytest.mark.parametrize("channels", [1, 2, 4, 13])
def test_without_three_channels_brightness_alone_acts(channels: int) -> None:
    image = photo(channels)
    assert torch.equal(jitter(image, 1.3, 0.5, 1.4), (image.float() * 1.3).clamp(0, 255).to(torch.uint8))
    assert jitter(image, 1, 0.5, 1.4) is image


# lighting


def test_lighting_is_the_formula_in_float64() -> None:
    image = photo()
    values = np.array([0.2175, 0.0188, 0.0045])
    vectors = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])
    for row in range(20):
        strengths = 0.3 * torch.randn(3, generator=generator(0, "lighting", row), dtype=torch.float64).numpy()
        exact = image.numpy() + 255 * (vectors @ (strengths * values))[:, None, None]
        made = augmented("lighting(std=0.3)", image, generator(0, "lighting", row))
        assert np.abs(made.numpy() - exact.clip(0, 255)).max() <= 0.5 + 1e-9


def test_lighting_clips_and_spreads_as_its_std_says() -> None:
    far = torch.tensor([-5.0, 0, 0], dtype=torch.float64)
    assert light(torch.full((3, 1, 1), 200, dtype=torch.uint8), far).flatten().tolist() == [255, 255, 255]
    assert light(torch.full((3, 1, 1), 200, dtype=torch.uint8), -far).flatten().tolist() == [43, 39, 38]
    grey = torch.full((3, 1, 1), 128, dtype=torch.uint8)
    shifts = torch.stack([augmented("lighting", grey, generator(0, "lighting", row)) for row in range(800)]).double() - 128
    directions = torch.tensor([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]).double()
    spread = (directions * torch.tensor([0.2175, 0.0188, 0.0045]).double() * 25.5).square().sum(1).sqrt()
    torch.testing.assert_close(shifts.flatten(1).std(0), spread, rtol=0.1, atol=0)


def test_lighting_leaves_images_without_three_channels_alone() -> None:
    for channels in (1, 4, 13):
        image = photo(channels)
        assert augmented("lighting", image, generator(0, "lighting")) is image


# randaugment, trivialaugment

POLICIES = [
    (randaugment, v2.RandAugment(), v1.RandAugment()),
    (trivialaugment, v2.TrivialAugmentWide(), v1.TrivialAugmentWide()),
]
NAMES = (
    "Identity ShearX ShearY TranslateX TranslateY Rotate Brightness Color Contrast "
    "Sharpness Posterize Solarize AutoContrast Equalize"
)


def older_magnitude(older: object, operation: str, m: int, sign: int, image: Tensor) -> float:
    """The magnitude by the tables of torchvision's first transforms."""
    if isinstance(older, v1.RandAugment):
        table = older._augmentation_space(31, (image.shape[1], image.shape[2]))
    else:
        assert isinstance(older, v1.TrivialAugmentWide)
        table = older._augmentation_space(31)
    magnitudes, signed = table[operation]
    value = float(magnitudes[m]) if magnitudes.ndim else 0.0
    return value * sign if signed else value


@pytest.mark.parametrize(("ours", "theirs", "older"), POLICIES, ids=["randaugment", "trivialaugment"])
@pytest.mark.parametrize("operation", NAMES.split())
def test_operations_are_torchvisions_at_every_magnitude(ours: Any, theirs: Any, older: Any, operation: str) -> None:
    image = photo(height=40, width=50)
    pillow = functional.to_pil_image(image)
    nearest = v1.InterpolationMode.NEAREST
    for m in (0, 1, 9, 19, 29):  # at 20 and 30 a shear asks for points midway between two pixels
        for sign in (-1, 1):
            made = ours.operate(image, operation, m, sign)
            magnitude = older_magnitude(older, operation, m, sign, image)
            newer = magnitude / 255 if operation == "Solarize" else magnitude
            expected = theirs._apply_image_or_video_transform(image, operation, newer, nearest, theirs._fill)
            assert torch.equal(made, expected)
            reference = functional.pil_to_tensor(pillow_policy._apply_op(pillow, operation, magnitude, nearest, None))
            wrong = ((made.int() - reference.int()).abs() > 1).double().mean()
            assert wrong < 0.002, (m, sign, float(wrong))


@pytest.mark.parametrize("ours", [randaugment, trivialaugment])
def test_every_operation_acts_on_any_number_of_channels(ours: Any) -> None:
    assert list(ours.OPERATIONS) == NAMES.split()
    many = photo(5)
    for operation in ours.OPERATIONS:
        made = ours.operate(many, operation, 12, 1)
        by_channel = torch.cat([ours.operate(channel[None], operation, 12, 1) for channel in many])
        assert torch.equal(made, by_channel)
        assert (operation in ("Identity", "Color")) == torch.equal(made, many)


def test_randaugment_draws_operations_and_signs_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    image, operate = photo(height=8, width=8), randaugment.operate
    seen: list[tuple[str, int, int]] = []

    def record(image: Tensor, operation: str, m: int, sign: int) -> Tensor:
        seen.append((operation, m, sign))
        return operate(image, operation, m, sign)

    monkeypatch.setattr(randaugment, "operate", record)
    for row in range(700):
        augmented("randaugment(n=2, m=4)", image, generator(0, "randaugment", row))
    assert len(seen) == 1400
    assert {m for _, m, _ in seen} == {4}
    counts = [sum(operation == name and sign == s for operation, _, sign in seen) for name in NAMES.split() for s in (-1, 1)]
    assert min(counts) > 50 - 4 * math.sqrt(50)
    assert max(counts) < 50 + 4 * math.sqrt(50)


def test_trivialaugment_draws_operations_magnitudes_and_signs_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    image, operate = photo(height=8, width=8), trivialaugment.operate
    seen: list[tuple[str, int, int]] = []

    def record(image: Tensor, operation: str, m: int, sign: int) -> Tensor:
        seen.append((operation, m, sign))
        return operate(image, operation, m, sign)

    monkeypatch.setattr(trivialaugment, "operate", record)
    for row in range(1500):
        augmented("trivialaugment", image, generator(0, "trivialaugment", row))
    assert len(seen) == 1500
    for values, choices in ((0, NAMES.split()), (1, range(31)), (2, (-1, 1))):
        counts = [sum(draw[values] == choice for draw in seen) for choice in choices]
        expected = 1500 / len(counts)
        assert max(abs(count - expected) for count in counts) < 4 * math.sqrt(expected)


# random_erasing


def test_rectangles_are_distributed_as_torchvisions() -> None:
    height, width, n = 60, 80, 1200
    image = torch.zeros(3, height, width)
    torch.manual_seed(4)
    theirs = np.array([v1.RandomErasing.get_params(image, (0.02, 0.33), (0.3, 3.3), [0.0])[:4] for _ in range(n)])
    rng = generator(4, "rectangles")
    ours = np.array([rectangle(height, width, (0.02, 0.33), (0.3, 3.3), rng) for _ in range(n)])
    for column in range(4):
        assert ks_2samp(ours[:, column], theirs[:, column]).pvalue > 0.01
    areas = ours[:, 2] * ours[:, 3] / (height * width)
    assert kstest((areas - 0.02) / 0.31, "uniform").pvalue > 0.01


def test_erasing_fills_the_rectangle_with_even_noise_and_nothing_else() -> None:
    image = torch.full((3, 60, 80), 77, dtype=torch.uint8)
    rng = generator(0, "random_erasing")
    top, left, height, width = rectangle(60, 80, (0.3, 0.3), (0.5, 0.5), rng)
    made = erase(image, top, left, height, width, rng)
    inside = torch.zeros(60, 80, dtype=torch.bool)
    inside[top : top + height, left : left + width] = True
    assert torch.equal(made[:, ~inside], image[:, ~inside])
    assert height / width == pytest.approx(0.5, abs=0.02)
    noise = made[:, inside].double()
    assert noise.unique().tolist() == list(range(256))
    assert noise.shape[1] == height * width
    assert kstest((noise.flatten() + 0.5).numpy() / 256, "uniform").pvalue > 0.01
    assert abs(float(noise.corrcoef()[0, 1])) < 0.1


def test_erasing_touches_the_given_share_of_images() -> None:
    image = photo()
    touched = sum(augmented("random_erasing", image, generator(0, "erase", row)) is not image for row in range(1000))
    assert abs(touched - 250) < 3 * math.sqrt(1000 * 0.25 * 0.75)


# progressive_resizing


@pytest.mark.parametrize(("size", "step"), [(224, 32), (299, 32), (128, 32), (64, 4), (32, 4), (3, 4)])
def test_the_size_grows_in_steps_up_to_the_full_one(size: int, step: int) -> None:
    shares = [i / 200 for i in range(200)]
    sizes = [grown_size(t, size, 0.5, 0.8) for t in shares]
    assert sizes == sorted(sizes)
    assert max(sizes) == size
    assert all(one == size or one % step == 0 for one in sizes)
    assert all(one == size for one, t in zip(sizes, shares, strict=True) if t >= 0.8)
    wanted = [size * min(1, 0.5 + 0.5 * t / 0.8) for t in shares]
    assert all(abs(one - want) <= step for one, want in zip(sizes, wanted, strict=True))
    assert {grown_size(t, size, 1.0, 0.8) for t in shares} == {size}


def test_progressive_resizing_starts_from_the_recipes_size() -> None:
    trick = parse("progressive_resizing(start=0.25)")
    facts = Facts(("a", "b"), torch.tensor([5, 5]), steps=10, batch_size=2, size=96, channels=3, seed=0)
    trick.setup(None, cast(Fit, SimpleNamespace(facts=facts)))
    assert [trick.size(t) for t in (0, 0.4, 0.8)] == [24, 60, 96]
    assert trick.state() == {"full_": 96}
    assert trick.fresh().state() == {}
