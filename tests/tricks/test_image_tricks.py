"""Tricks on what is in an image, and on which way it lies, against Pillow, SciPy, timm, torchvision and their formulas."""

import math
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter, ImageOps
from reference import photo
from scipy import ndimage
from scipy.special import softmax
from scipy.stats import chisquare, kstest
from timm.data import auto_augment as timm_augment
from torch import Generator, Tensor, nn
from torchvision.transforms import functional as pillow_functional
from torchvision.transforms.v2 import functional

from trickbag.ground.errors import UsageError
from trickbag.ground.orientations import laid, ways
from trickbag.ground.streams import beta, generator, key, uniform, uniforms
from trickbag.transfers.recipe import TransferRecipe
from trickbag.trick import Batch, Draw, Outputs, conflict
from trickbag.tricks import parse, three_augment
from trickbag.tricks.cutmix import box_around
from trickbag.tricks.gaussian_blur import blurred
from trickbag.tricks.resize_mix import paste as paste_resized
from trickbag.tricks.saliency_mix import paste as paste_salient
from trickbag.tricks.saliency_mix import peaks, salience
from trickbag.tricks.tone import toned

SPECS = ["dihedral", "gaussian_blur(p=1)", "tone", "three_augment"]
NEUTRAL = [
    "dihedral(left_right=False, up_down=False, turns=False)",
    "gaussian_blur(p=0)",
    "tone(grayscale=0, posterize=0, solarize=0)",
]
SIZE = 24


def augmented(spec: str, image: Tensor, rng: Generator) -> Tensor:
    (transform,) = parse(spec).augment()
    return transform(image, SIZE, rng)


def gap(made: Tensor, pillow: Image.Image) -> int:
    """The largest difference of levels from an image of Pillow's."""
    return int((made.int() - functional.pil_to_tensor(pillow).int()).abs().max())


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("channels", [1, 3, 4, 13])
def test_draws_come_from_the_given_generator_alone(spec: str, channels: int) -> None:
    image = photo(channels)
    before, state = image.clone(), torch.get_rng_state()
    first, again = ([augmented(spec, image, generator(0, spec, row)) for row in range(12)] for _ in range(2))
    assert all(map(torch.equal, first, again))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(image, before)
    assert all(made.dtype == torch.uint8 and made.shape in (image.shape, image.mT.shape) for made in first)
    assert len({made.contiguous().numpy().tobytes() for made in first}) > 1


@pytest.mark.parametrize("spec", NEUTRAL)
def test_neutral_values_return_the_very_image(spec: str) -> None:
    assert parse(spec).neutral == {name: getattr(parse(spec), name) for name in parse(spec).neutral or {}}
    image = photo()
    assert all(augmented(spec, image, generator(0, spec, row)) is image for row in range(4))


@pytest.mark.parametrize("spec", ["gaussian_blur(p=1)", "tone(grayscale=1, posterize=1, solarize=1)", "three_augment"])
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (2, 3)])
def test_tiny_images_are_taken(spec: str, size: tuple[int, int]) -> None:
    for row in range(8):
        assert augmented(spec, photo(3, *size), generator(0, spec, row)).shape == (3, *size)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("flip(vertical=1.1)", "vertical: input should be less than or equal to 1"),
        ("gaussian_blur(sigma=(2, 1))", "sigma: the first value, 2.0, must be at most the second, 1.0"),
        ("gaussian_blur(sigma=(0, 1))", "sigma: input should be greater than 0"),
        ("gaussian_blur(sigma=(1, 11))", "sigma: input should be less than or equal to 10"),
        ("three_augment(sigma=(2, 1))", "sigma: the first value"),
        ("three_augment(jitter=2)", "jitter: input should be less than or equal to 1"),
        ("tone(bits=0)", "bits: input should be greater than or equal to 1"),
        ("tone(threshold=257)", "threshold: input should be less than or equal to 256"),
        ("resize_mix(scale=(0.5, 0.2))", "scale: the first value, 0.5, must be at most the second, 0.2"),
        ("resize_mix(scale=(0.5, 1.2))", "scale: input should be less than or equal to 1"),
        ("saliency_mix(alpha=-1)", "alpha: input should be greater than or equal to 0"),
        ("dihedral(turn=True)", "there is no field turn; did you mean turns?"),
    ],
)
def test_values_out_of_bounds_are_refused_by_name(spec: str, words: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse(spec)
    assert words in str(refused.value)


# flip


def draw_of(count: int) -> Draw:
    """The draws of so many images."""
    return lambda n: uniforms(key(0, "flip"), torch.arange(count)[:, None], n)


def test_upside_down_is_a_draw_of_its_own_and_moves_no_other() -> None:
    count = 4000
    before = draw_of(count)(1)[:, 0] < 0.5
    assert torch.equal(parse("flip").mirror(draw_of(count)), before.long())
    ways = parse("flip(vertical=0.5)").mirror(draw_of(count))
    assert torch.equal(ways % 2, before.long())
    assert chisquare(ways.bincount(minlength=4)).pvalue > 0.01
    assert parse("flip(p=0, vertical=1)").mirror(draw_of(9)).tolist() == [2] * 9
    assert abs(int((parse("flip(vertical=0.3)").mirror(draw_of(count)) >= 2).sum()) - 1200) < 3 * math.sqrt(count * 0.21)


# dihedral

GENERATORS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "left_right": lambda x: np.flip(x, -1),
    "up_down": lambda x: np.flip(x, -2),
    "turns": lambda x: np.rot90(x, axes=(-2, -1)),
}
FIELDS = [tuple(name for bit, name in enumerate(GENERATORS) if number >> bit & 1) for number in range(8)]


def spelled(name: str, allowed: tuple[str, ...]) -> str:
    return f"{name}({', '.join(f'{field}={field in allowed}' for field in GENERATORS)})"


def closure(image: np.ndarray, allowed: tuple[str, ...]) -> list[np.ndarray]:
    """All that comes of an image by these moves, one after the other."""
    found = {(image.shape, image.tobytes()): image}
    waiting = [image]
    while waiting:
        one = waiting.pop()
        for name in allowed:
            made = np.ascontiguousarray(GENERATORS[name](one))
            if (made.shape, made.tobytes()) not in found:
                found[made.shape, made.tobytes()] = made
                waiting.append(made)
    return list(found.values())


@pytest.mark.parametrize("allowed", FIELDS)
@pytest.mark.parametrize("size", [(6, 6), (5, 8)])
def test_all_ways_are_drawn_alike_and_no_other(allowed: tuple[str, ...], size: tuple[int, int]) -> None:
    image = photo(2, *size)
    wanted = {(each.shape, each.tobytes()) for each in closure(image.numpy(), allowed)}
    spec, seen = spelled("dihedral", allowed), Counter[tuple[object, bytes]]()
    for row in range(640):
        made = augmented(spec, image, generator(0, spec, row)).contiguous().numpy()
        seen[made.shape, made.tobytes()] += 1
    assert set(seen) == wanted
    assert len(wanted) == len(ways(*(field in allowed for field in GENERATORS)))
    assert len(wanted) == 1 or chisquare(list(seen.values())).pvalue > 0.001


def test_a_detector_refuses_to_turn_images_without_their_boxes() -> None:
    with pytest.raises(UsageError, match="dihedral acts on images that have one class each, and these have boxes"):
        TransferRecipe(tricks=("dihedral",))
    assert TransferRecipe(tricks=("flip(vertical=0.5)",)).tricks


# dihedral_tta


def judge(x: Tensor) -> Outputs:
    """A network whose answer depends on where things are in the image."""
    place = torch.arange(float(x.shape[-1])) / x.shape[-1]
    maps = x * (place - 0.3) + x.square() * place[:, None]
    features = torch.cat([maps[..., 0, 0], maps[..., -1, 1], maps.mean((2, 3))], 1)
    return Outputs(maps, features, 5 * features[:, :3])


@pytest.mark.parametrize("allowed", FIELDS)
@pytest.mark.parametrize("count", [1, 7])
def test_judging_is_the_mean_over_all_ways_to_lay_an_image(allowed: tuple[str, ...], count: int) -> None:
    x = torch.randn(count, 2, 6, 6, generator=generator(0, "x"))
    predict = parse(spelled("dihedral_tta", allowed)).predict(judge)
    found = predict(x)
    assert (predict is judge) == (not allowed)
    for row in range(count):
        views = [judge(torch.from_numpy(view)[None]) for view in closure(x[row].numpy(), allowed)]
        p = np.mean([softmax(view.logits[0].double().numpy()) for view in views], 0)
        np.testing.assert_allclose(softmax(found.logits[row].double().numpy()), p, rtol=1e-4)
        torch.testing.assert_close(found.features[row], torch.cat([view.features for view in views]).mean(0))


@pytest.mark.parametrize("allowed", FIELDS[1:])
def test_the_answer_is_the_same_whichever_way_an_image_lies_and_its_maps_lie_with_it(allowed: tuple[str, ...]) -> None:
    x = torch.randn(3, 2, 6, 6, generator=generator(0, "x"))
    predict = parse(spelled("dihedral_tta", allowed)).predict(judge)
    found = predict(x)
    for name in allowed:
        move = GENERATORS[name]
        turned = predict(torch.from_numpy(move(x.numpy()).copy()))
        torch.testing.assert_close(turned.logits, found.logits)
        torch.testing.assert_close(turned.features, found.features)
        torch.testing.assert_close(turned.maps, torch.from_numpy(move(found.maps.numpy()).copy()))


def test_maps_are_laid_back_over_what_they_show() -> None:
    x = torch.randn(2, 3, 5, 5, generator=generator(0, "x"))
    same = parse("dihedral_tta").predict(lambda view: Outputs(view, view.mean((2, 3)), view.mean((2, 3))))(x)
    torch.testing.assert_close(same.maps, x)


@pytest.mark.parametrize("logits", [[1e4, 0.0, -1e4], [1e4, -1e4], [0.0, 0.0]])
def test_means_stand_extreme_logits(logits: list[float]) -> None:
    sure = parse("dihedral_tta").predict(lambda x: Outputs(x, x.mean((2, 3)), torch.tensor([logits]).expand(len(x), -1)))
    expected = torch.tensor(logits, dtype=torch.float64).log_softmax(0).float()
    torch.testing.assert_close(sure(torch.zeros(1, 1, 4, 4)).logits[0], expected)


def test_judging_in_half_precision_is_that_in_single_but_for_rounding() -> None:
    torch.manual_seed(0)
    body, head = nn.Conv2d(3, 8, 3), nn.Linear(8, 2)

    def network(x: Tensor) -> Outputs:
        maps = body(x).relu()
        features = maps.mean((2, 3))
        return Outputs(maps, features, head(features))

    x = torch.randn(4, 3, 8, 8)
    predict = parse("dihedral_tta").predict(network)
    with torch.no_grad():
        single = predict(x).logits
        with torch.autocast("cpu", torch.bfloat16):
            half = predict(x).logits
    torch.testing.assert_close(half.float(), single, rtol=0.05, atol=0.02)


def test_two_tricks_that_judge_mirror_images_are_told_to_choose() -> None:
    assert "slot 'orientation'. Choose one." in conflict(parse("flip_tta"), parse("dihedral_tta"))


# gaussian_blur


def gaussian(image: np.ndarray, sigma: float) -> np.ndarray:
    """The formula in float64: each axis with weights cut off at 3 sigma, mirrored at the edges."""
    reach = math.ceil(3 * sigma)
    weights = np.exp(-(np.arange(-reach, reach + 1.0) ** 2) / (2 * sigma**2))
    for axis in (1, 2):
        image = ndimage.correlate1d(image.astype(np.float64), weights / weights.sum(), axis, mode="mirror")
    return image


@pytest.mark.parametrize("channels", [1, 3, 13])
@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.3, 2.0, 6.0])
def test_blur_is_the_formula_in_float64(channels: int, sigma: float) -> None:
    image = photo(channels)
    assert np.abs(blurred(image, sigma).numpy() - gaussian(image.numpy(), sigma)).max() <= 0.5 + 1e-3


@pytest.mark.parametrize("sigma", [1.0, 2.0])
def test_blur_is_close_to_pillows(sigma: float) -> None:
    """Pillow's is made of boxes, and repeats the edge where this is mirrored."""
    image = photo()
    theirs = functional.pil_to_tensor(functional.to_pil_image(image).filter(ImageFilter.GaussianBlur(sigma)))
    inside = (blurred(image, sigma).int() - theirs.int())[:, 6:-6, 6:-6].abs()
    assert inside.max() <= 5
    assert inside.double().mean() < 1.5


def test_the_given_share_of_images_is_blurred_by_sigmas_from_the_range() -> None:
    image, touched = photo(1), 0
    for row in range(300):
        made = augmented("gaussian_blur(p=0.3, sigma=(1, 2))", image, generator(0, "blur", row))
        rng = generator(0, "blur", row)
        drawn, sigma = uniform(rng), uniform(rng, 1, 2)
        assert torch.equal(made, blurred(image, sigma) if drawn < 0.3 else image)
        touched += made is not image
    assert abs(touched - 90) < 3 * math.sqrt(300 * 0.21)


# tone


@pytest.mark.parametrize("bits", range(1, 9))
def test_posterising_is_pillows_and_timms(bits: int) -> None:
    image = photo()
    pillow = functional.to_pil_image(image)
    made = toned(image, False, bits, 256)
    assert gap(made, ImageOps.posterize(pillow, bits)) == 0
    assert gap(made, timm_augment.posterize(pillow, bits)) == 0


@pytest.mark.parametrize("threshold", [0, 1, 128, 255, 256])
def test_solarising_is_pillows_and_timms(threshold: int) -> None:
    image = photo()
    pillow = functional.to_pil_image(image)
    made = toned(image, False, 8, threshold)
    assert gap(made, ImageOps.solarize(pillow, threshold)) == 0
    assert gap(made, timm_augment.solarize(pillow, threshold)) == 0


def test_greyscale_is_pillows_but_for_rounding_and_comes_first() -> None:
    image = photo()
    made = toned(image, True, 8, 256)
    assert gap(made, functional.to_pil_image(image).convert("L").convert("RGB")) <= 1
    assert torch.equal(toned(image, True, 3, 100), toned(toned(made, False, 3, 256), False, 8, 100))


@pytest.mark.parametrize("channels", [1, 2, 4, 13])
def test_without_three_channels_colours_stay_and_levels_change(channels: int) -> None:
    image = photo(channels)
    assert toned(image, True, 8, 256) is image
    assert torch.equal(toned(image, True, 8, 128), torch.where(image >= 128, 255 - image, image))


def test_each_change_of_tone_has_its_own_share_and_draw() -> None:
    image, seen = photo(), Counter[tuple[bool, ...]]()
    spec = "tone(grayscale=0.5, posterize=0.3, solarize=0.2, bits=3)"
    for row in range(1000):
        made = augmented(spec, image, generator(0, "tone", row))
        drawn = torch.rand(3, generator=generator(0, "tone", row), dtype=torch.float64) < torch.tensor([0.5, 0.3, 0.2])
        grey, few, inverted = drawn.tolist()
        assert torch.equal(made, toned(image, grey, 3 if few else 8, 128 if inverted else 256))
        seen[grey, few, inverted] += 1
    shares = [0.5 * (0.3 if few else 0.7) * (0.2 if inverted else 0.8) for _, few, inverted in seen]
    assert len(seen) == 8
    assert chisquare(list(seen.values()), 1000 * np.array(shares)).pvalue > 0.01


# three_augment


def test_the_three_operations_are_pillows() -> None:
    image = photo()
    pillow = functional.to_pil_image(image)
    assert gap(three_augment.operate(image, "grayscale", 1.0), pillow.convert("L").convert("RGB")) <= 1
    assert gap(three_augment.operate(image, "solarize", 1.0), ImageOps.solarize(pillow)) == 0
    assert torch.equal(three_augment.operate(image, "blur", 1.4), blurred(image, 1.4))


def test_they_are_those_of_timms_policy_of_that_name() -> None:
    policy = timm_augment.auto_augment_policy("3a", {})
    names = {"Solarize": "solarize", "Desaturate": "grayscale", "GaussianBlurRand": "blur"}
    operations = {names[op.name]: op for (op,) in policy}
    assert set(operations) == set(three_augment.OPERATIONS)
    (threshold,) = operations["solarize"].level_fn(operations["solarize"].magnitude, {})
    assert threshold == three_augment.THRESHOLD
    assert all(op.prob == 1 for op in operations.values())


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1], [1, 2, 0]])
def test_jitter_is_that_of_pillows_enhancers(order: list[int]) -> None:
    image = photo()
    factors, pillow = [1.25, 0.8, 1.1], functional.to_pil_image(image)
    adjusts = (
        pillow_functional.adjust_brightness,
        pillow_functional.adjust_contrast,
        pillow_functional.adjust_saturation,
    )
    for place in order:
        pillow = adjusts[place](pillow, factors[place])
    assert gap(three_augment.jitter(image, order, factors), pillow) <= 3


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_without_three_channels_each_is_jittered_by_itself(channels: int) -> None:
    image = photo(channels)
    made = three_augment.jitter(image, [1, 2, 0], [1.2, 0.7, 0.1])
    mean = image.double().mean((1, 2), keepdim=True)
    exact = (0.7 * image + 0.3 * mean).clamp(0, 255) * 1.2
    assert (made - exact.clamp(0, 255)).abs().max() <= 2.5
    assert torch.equal(three_augment.operate(image, "grayscale", 1.0), image)


def test_one_of_three_is_drawn_alike_for_each_image_and_then_its_colours_move() -> None:
    image = photo()
    done: dict[str, Tensor] = {name: three_augment.operate(image, name, 1.5) for name in three_augment.OPERATIONS}
    seen, spec = Counter[str](), "three_augment(jitter=0, sigma=(1.5, 1.5))"
    for row in range(300):
        made = augmented(spec, image, generator(0, "three", row))
        (name,) = (name for name, one in done.items() if (made.int() - one.int()).abs().max() <= 1)
        seen[name] += 1
    assert chisquare([seen[name] for name in done]).pvalue > 0.01
    grey = torch.full((1, 1, 1), 100, dtype=torch.uint8)
    levels = [int(augmented("three_augment", grey, generator(0, "jitter", row))) for row in range(900)]
    assert kstest((np.array(levels) + 0.5 - 70) / 61, "uniform").pvalue > 0.01


# resize_mix, saliency_mix

MIXING = ["resize_mix", "saliency_mix", "one_of(resize_mix, saliency_mix)"]


def batch_of(size: int, channels: int = 3, classes: int = 5) -> Batch:
    rng = generator(1, "batch", size, channels)
    x = torch.randn(size, channels, 12, 10, generator=rng)
    return Batch(x, torch.eye(classes)[torch.randint(classes, (size,), generator=rng)], torch.arange(size))


def mixed(spec: str, batch: Batch, *keys: int) -> Batch:
    return parse(spec).batch(batch, 0.0, generator(0, "mix", *keys))


@pytest.mark.parametrize("spec", MIXING)
@pytest.mark.parametrize(("size", "channels", "classes"), [(1, 3, 5), (2, 1, 2), (7, 13, 5)])
def test_mixing_keeps_shapes_and_row_sums_and_is_keyed(spec: str, size: int, channels: int, classes: int) -> None:
    batch = batch_of(size, channels, classes)
    given, state = Batch(*(part.clone() for part in batch[:3])), torch.get_rng_state()
    made, again = ([mixed(spec, batch, step) for step in range(12)] for _ in range(2))
    assert all(torch.equal(a, b) for one, two in zip(made, again, strict=True) for a, b in zip(one[:3], two[:3], strict=True))
    assert all(map(torch.equal, batch[:3], given[:3]))
    assert torch.equal(torch.get_rng_state(), state)
    for one in made:
        assert one.x.shape == batch.x.shape
        torch.testing.assert_close(one.y.sum(1), torch.ones(size))
        assert one.y.min() >= 0
    assert len({one.x.numpy().tobytes() for one in made}) > 1 or (spec, size) == ("saliency_mix", 1)


@pytest.mark.parametrize("spec", ["resize_mix(scale=(0, 0))", "saliency_mix(alpha=0)"])
def test_neutral_values_return_the_very_batch(spec: str) -> None:
    batch = batch_of(4)
    assert mixed(spec, batch) is batch


@pytest.mark.parametrize("spec", MIXING)
def test_mixing_and_smoothing_commute(spec: str) -> None:
    smoothing, rng = parse("label_smoothing(eps=0.2)"), generator(0, "unused")
    for step in range(6):
        batch = batch_of(7)
        first = smoothing.batch(mixed(spec, batch, step), 0.0, rng)
        last = mixed(spec, smoothing.batch(batch, 0.0, rng), step)
        assert torch.equal(first.x, last.x)
        torch.testing.assert_close(first.y, last.y, rtol=0, atol=1e-6)


@pytest.mark.parametrize("spec", MIXING[:2])
def test_targets_say_how_many_pixels_each_image_gives(spec: str) -> None:
    """Each image of one level, but for one pixel of it that is a little brighter."""
    size = 6
    x = torch.arange(float(size)).view(size, 1, 1, 1).repeat(1, 2, 14, 9)
    for row in range(size):
        x[row, :, 2 * row, row] += 0.1
    shares = []
    for step in range(100):
        made = mixed(spec, Batch(x, torch.eye(size), torch.arange(size)), step)
        pixels = torch.stack([(made.x[:, 0].round() == k).flatten(1).float().mean(1) for k in range(size)], 1)
        torch.testing.assert_close(made.y, pixels)
        shares.append(made.y.max(1).values.min().item())
    assert min(shares) < 0.7
    assert max(shares) > 0.95


@pytest.mark.parametrize("spec", MIXING[:2])
def test_extreme_pixels_stay_what_they_are_under_autocast_too(spec: str) -> None:
    batch = batch_of(4)
    far = batch._replace(x=1e4 * batch.x.sign())
    with torch.autocast("cpu", torch.bfloat16):
        made = mixed(spec, far)
    assert all(map(torch.equal, made[:3], mixed(spec, far)[:3]))
    assert made.x.abs().max() <= 1.00001e4
    torch.testing.assert_close(made.y.sum(1), torch.ones(4))


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (12, 10)])
def test_the_other_image_is_pasted_whole_by_torchvisions_resize(size: tuple[int, int]) -> None:
    batch = batch_of(5)
    partners = torch.randperm(5, generator=generator(0, "partners"))
    top, left = 12 - size[0], (10 - size[1]) // 2
    x, y = paste_resized(batch.x, batch.y, partners, top, left, size)
    share = 1 - size[0] * size[1] / 120
    for i, j in enumerate(partners.tolist()):
        expected = batch.x[i].clone()
        expected[:, top : top + size[0], left : left + size[1]] = functional.resize(batch.x[j], list(size), antialias=True)
        torch.testing.assert_close(x[i], expected)
        torch.testing.assert_close(y[i], share * batch.y[i] + (1 - share) * batch.y[j])


def test_resized_images_have_the_drawn_scale_and_lie_anywhere_inside() -> None:
    x = torch.arange(2.0).view(2, 1, 1, 1).repeat(1, 1, 40, 40)
    sides, tops, rooms = [], [], []
    for step in range(1500):
        foreign = mixed("resize_mix(scale=(0.2, 0.6))", Batch(x, torch.eye(2), torch.arange(2)), step).x[0, 0] > 0.5
        if rows := foreign.any(1).nonzero().flatten().tolist():
            sides.append(len(rows))
            assert foreign.sum() == len(rows) ** 2
            tops.append(rows[0])
            rooms.append(41 - len(rows))
    jitter = np.random.default_rng(0).uniform(size=len(sides))
    assert kstest((np.array(sides) - 0.5 + jitter - 8) / 16, "uniform").pvalue > 0.01
    assert kstest((np.array(tops) + jitter) / np.array(rooms), "uniform").pvalue > 0.01


def salience_by_hand(image: np.ndarray) -> np.ndarray:
    """The formula in float64, place by place."""
    mean = image.astype(np.float64).mean(0)
    made = np.zeros_like(mean)
    for (i, j), value in np.ndenumerate(mean):
        for r in (2, 4, 8, 16):
            made[i, j] += abs(value - mean[max(i - r, 0) : i + r + 1, max(j - r, 0) : j + r + 1].mean())
    return made


@pytest.mark.parametrize("size", [(12, 10), (32, 32), (1, 20)])
def test_salience_is_the_formula_in_float64(size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *size, generator=generator(0, "salience"))
    made = salience(x)
    for row in range(2):
        np.testing.assert_allclose(made[row].numpy(), salience_by_hand(x[row].numpy()), rtol=1e-4, atol=1e-5)


def test_large_images_are_averaged_first_and_their_peak_is_in_pixels() -> None:
    x = 0.1 * torch.randn(3, 2, 96, 64, generator=generator(0, "salience"))
    for row, (top, left) in enumerate([(0, 0), (30, 42), (93, 62)]):
        x[row, :, top : top + 3, left : left + 2] += 3
    small = x.view(3, 2, 32, 3, 32, 2).mean((3, 5))
    torch.testing.assert_close(salience(x), salience(small))
    assert torch.stack(peaks(x), 1).tolist() == [[1, 1], [31, 43], [94, 63]]


def test_an_image_without_any_contrast_is_pasted_all_the_same() -> None:
    batch = batch_of(3)._replace(x=torch.full((3, 3, 12, 10), 0.7))
    assert torch.equal(mixed("saliency_mix", batch).x, batch.x)


def test_the_box_lies_around_what_is_most_salient_in_the_other_image() -> None:
    batch = batch_of(7)
    rng = generator(0, "mix", 5)
    share, partners = beta(rng, 0.6, 0.6), torch.randperm(7, generator=rng)
    made = mixed("saliency_mix(alpha=0.6)", batch, 5)
    for i, j in enumerate(partners.tolist()):
        place = np.unravel_index(salience_by_hand(batch.x[j].numpy()).argmax(), (12, 10))
        top, bottom, left, right = box_around(int(place[0]), int(place[1]), 12, 10, share)
        expected = batch.x[i].clone()
        expected[:, top:bottom, left:right] = batch.x[j][:, top:bottom, left:right]
        assert torch.equal(made.x[i], expected)
        kept = 1 - (bottom - top) * (right - left) / 120
        torch.testing.assert_close(made.y[i], kept * batch.y[i] + (1 - kept) * batch.y[j])


def test_a_box_of_no_pixels_changes_nothing() -> None:
    batch, partners = batch_of(3), torch.tensor([1, 2, 0])
    x, y = paste_salient(batch.x, batch.y, partners, (torch.zeros(3).long(), torch.zeros(3).long()), 1.0)
    assert torch.equal(x, batch.x)
    assert torch.equal(y, batch.y)


def test_an_image_is_laid_as_numpy_lays_it() -> None:
    image = photo(2, 4, 7)
    made = laid(image, (True, True, False))
    assert np.array_equal(made.numpy(), np.rot90(image.numpy(), axes=(1, 2)))
