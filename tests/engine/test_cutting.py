"""Cutting a batch at once in a device's memory shows what cutting image by image shows, within one level of 255."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from trickbag.engine import assemble as assembling
from trickbag.engine.cutting import Resident, cut, cuts_of, cuts_to, framed, resident
from trickbag.engine.loop import Loop
from trickbag.engine.pixels import Cache, Data, Pixels, build
from trickbag.ground.streams import generator
from trickbag.laboratory import lab
from trickbag.trick import View

CPU = torch.device("cpu")
SIZES = [(40, 30), (17, 64), (64, 9), (33, 33), (50, 41), (1, 40), (3, 2)]


def kept(images: list[Tensor], folder: Path) -> Cache:
    """A cache of these images."""
    folder.mkdir()
    build(images, folder)
    return Cache(folder, images)


@pytest.fixture(params=[1, 3, 5])
def images(request: pytest.FixtureRequest) -> list[Tensor]:
    """Noise of several shapes."""
    rng = generator(0, "noise", request.param)
    return [torch.randint(0, 256, (request.param, *size), dtype=torch.uint8, generator=rng) for size in SIZES]


def compare(made: Tensor, expected: list[Tensor]) -> None:
    """Equal but for rounding: never more than a level, and mostly not even that."""
    levels = (made - torch.stack(expected).float()).abs()
    assert levels.max() <= 1
    assert levels.mean() < 0.3
    assert torch.equal(made, made.round())


@pytest.mark.parametrize("view", [View(16, 16), View(37, 32), View(9, 9), View(80, 64), View(33, 33)])
def test_judged_views(images: list[Tensor], view: View, tmp_path: Path) -> None:
    held = Resident(kept(images, tmp_path / "cache"), CPU)
    rows = torch.tensor([4, 0, 6, 5, 1, 2, 3, 3])
    made = held.cut(rows, cuts_of(held.sizes[rows], view), None, view.crop)
    compare(made, [cut(images[row], view) for row in rows.tolist()])


@pytest.mark.parametrize("size", [8, 24, 61])
def test_windows_and_mirror_images(images: list[Tensor], size: int, tmp_path: Path) -> None:
    held = Resident(kept(images, tmp_path / "cache"), CPU)
    rows = torch.arange(len(images)).repeat(4)
    ends = torch.rand(len(rows), 2, 2, generator=generator(1, "ends")) * (held.sizes[rows] + 1)[..., None]
    low, high = ends.long().minimum(held.sizes[rows][..., None]).sort(2).values.unbind(2)
    low = low.minimum(held.sizes[rows] - 1)
    windows = torch.cat([low, (high - low).clamp_min(1)], 1)
    mirrored = torch.randint(4, (len(rows),), generator=generator(1, "mirrored"))
    made = held.cut(rows, cuts_to(windows, size), mirrored, size)
    expected = [
        framed(images[row], window, int(mirror), size)
        for row, window, mirror in zip(rows.tolist(), windows, mirrored, strict=True)
    ]
    compare(made, expected)


def test_an_image_of_the_wanted_size_is_itself(tmp_path: Path) -> None:
    image = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8, generator=generator(0, "itself"))
    held, rows = Resident(kept([image] * 4, tmp_path / "cache"), CPU), torch.arange(4)
    made = held.cut(rows, cuts_of(held.sizes[rows], View(32, 32)), rows, 32)
    upside_down = functional.vertical_flip(image)
    mirrored = [functional.horizontal_flip(each) for each in (image, upside_down)]
    assert torch.equal(made, torch.stack([image, mirrored[0], upside_down, mirrored[1]]).float())
    aside = held.cut(rows, cuts_of(held.sizes[rows], View(32, 32)), rows == 1, 32)
    assert torch.equal(aside[:2], made[:2])


@pytest.mark.parametrize("view", [View(16, 16), View(37, 32), View(9, 9)])
def test_an_image_is_mirrored_before_its_middle_is_cut(images: list[Tensor], view: View, tmp_path: Path) -> None:
    held = Resident(kept(images, tmp_path / "cache"), CPU)
    rows, mirrored = torch.arange(len(images)).repeat(4), torch.arange(4).repeat_interleave(len(images))
    made = held.cut(rows, cuts_of(held.sizes[rows], view, mirrored), mirrored, view.crop)
    axes: dict[int, list[int]] = {0: [], 1: [2], 2: [1], 3: [1, 2]}
    compare(made, [cut(images[row].flip(axes[int(how)]), view) for row, how in zip(rows, mirrored, strict=True)])


class Sent:
    """Training and judging with all images in the memory of a device, which here is the CPU."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.held, self.cuts = tmp_path, 0, 0
        real = Resident.cut

        def counted(*asked: object) -> Tensor:
            self.cuts += 1
            return real(*asked)  # type: ignore[arg-type]

        monkeypatch.setattr(Resident, "cut", counted)
        monkeypatch.setattr(assembling, "resident", self.resident)

    def resident(self, pixels: Pixels, device: torch.device) -> Resident:
        self.held += 1
        return Resident(kept([pixels[row] for row in range(len(pixels))], self.folder / f"cache{self.held}"), device)


@pytest.mark.parametrize(
    "tricks", [(), ("flip(vertical=0.5)",), ("random_resized_crop", "flip"), ("random_resized_crop", "multi_scale")]
)
def test_a_training_sees_what_it_sees_image_by_image(
    tricks: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches within a level, so losses and accuracy that differ as rounding does."""
    plain = lab.loop(lab.recipe(*tricks))
    one_by_one = list(plain.loader.train(plain.plan.epoch(1), 1))
    usual = lab.train(*tricks, lr=0.01)
    sent = Sent(tmp_path, monkeypatch)
    on_device = lab.loop(lab.recipe(*tricks))
    for (part, a), (_, b) in zip(one_by_one, on_device.loader.train(on_device.plan.epoch(1), 1), strict=True):
        assert a.x.shape == b.x.shape == (len(part.rows), 3, part.size, part.size)
        assert (a.x - b.x).abs().max() <= 1.01 / 255 / 0.25
        assert torch.equal(a.y, b.y)
    before = sent.cuts
    made = lab.train(*tricks, lr=0.01)
    assert sent.cuts >= before + made.loop.step
    np.testing.assert_allclose(made.losses, usual.losses, rtol=0.02, atol=0.02)
    torch.testing.assert_close(made.logits, usual.logits, rtol=0.05, atol=0.05)


def test_augmentation_that_is_made_for_single_images_stays_with_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    def shown(made: Loop) -> list[Tensor]:
        return [batch.x for _, batch in made.loader.train(made.plan.epoch(0), 0)]

    asked = lab.recipe("color_jitter", "flip")
    usual = shown(lab.loop(asked))
    sent = Sent(tmp_path, monkeypatch)
    made = lab.loop(asked)
    assert all(map(torch.equal, usual, shown(made)))
    assert not sent.cuts
    list(made.loader.judged(torch.arange(3), 2))
    assert sent.cuts == 2


def test_boxes_are_cut_image_by_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = Sent(tmp_path, monkeypatch)
    lab.train("box_crop")
    assert not sent.cuts


def test_a_cpu_holds_no_copy(tmp_path: Path) -> None:
    data, pixels = lab.dataset()
    assert isinstance(data, Data)
    assert resident(kept(pixels, tmp_path / "cache"), CPU) is None
