"""Boxes and regions go with what is cut, mirrored and resized, and come back where they were."""

from dataclasses import replace

import marked
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import tv_tensors

from trickbag.scenes.reading import read
from trickbag.scenes.table import Boxes
from trickbag.transfers.judge import in_pixels
from trickbag.transfers.loading import NONE, SceneLoader
from trickbag.transfers.moving import WHOLE, Frame, boxes_shown, canvas, fit, padded, shown
from trickbag.tricks import parse


@given(
    window=st.tuples(st.floats(0, 0.5), st.floats(0, 0.5), st.floats(0.2, 0.5), st.floats(0.2, 0.5)),
    mirrored=st.integers(0, 3),
    box=st.tuples(st.integers(0, 60), st.integers(0, 40), st.integers(8, 40), st.integers(8, 40)),
)
@settings(deadline=None, max_examples=60)
def test_a_box_stays_around_what_it_marks(window: tuple[float, ...], mirrored: int, box: tuple[int, ...]) -> None:
    """A white rectangle on black, cut and mirrored with its box: the box holds the white that is left, to a pixel."""
    left, top, width, height = box
    image = torch.zeros(1, 80, 100, dtype=torch.uint8)
    image[:, top : top + height, left : left + width] = 255
    frame = Frame(window, mirrored, 96, 128)  # type: ignore[arg-type]
    seen = shown(image, frame)[0] > 127
    xyxy = np.array([[left, top, left + width, top + height]], float)
    found = boxes_shown(xyxy, np.array([0]), (80, 100), frame)
    if not len(found):
        assert seen.any(0).sum() <= 4 or seen.any(1).sum() <= 4
        return
    rows, columns = seen.any(1).nonzero().flatten(), seen.any(0).nonzero().flatten()
    white = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1] if len(rows) else [0, 0, 0, 0]
    assert found[0, :4].tolist() == pytest.approx([float(v) for v in white], abs=2.5)


@pytest.mark.parametrize(("mirrored", "axes"), [(0, []), (1, [1]), (2, [0]), (3, [0, 1])])
def test_regions_move_as_images_do(mirrored: int, axes: list[int]) -> None:
    regions = torch.randint(0, 5, (80, 100), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    regions = regions.repeat_interleave(4, 0).repeat_interleave(4, 1)
    frame = Frame((0.25, 0.5, 0.5, 0.25), mirrored, 160, 100)
    moved = shown(tv_tensors.Mask(regions[None]), frame)
    assert torch.equal(moved.as_subclass(torch.Tensor)[0], regions[80:240, 200:300].flip(axes))


@pytest.mark.parametrize("size", [(480, 640), (33, 57), (64, 20)])
def test_what_is_found_comes_back_in_pixels_of_the_image(size: tuple[int, int]) -> None:
    place = fit(*size, 64)
    boxes = np.array([[0, 0, size[1], size[0]], [size[1] / 4, size[0] / 4, size[1] / 2, size[0] / 2]])
    on_canvas = boxes_shown(boxes, np.array([0, 1]), size, Frame(WHOLE, 0, *place))
    said = in_pixels((on_canvas[:, :4], on_canvas[:, 4].long(), torch.ones(2)), size, place)
    assert said.xyxy == pytest.approx(boxes, abs=1e-3)
    scores = torch.zeros(3, 64, 64)
    scores[2, : place[0], : place[1]] = 1
    assert (in_pixels(scores, size, place) == 2).all()
    assert in_pixels(scores, size, place).shape == size


def loader(tmp_path, tricks=("flip", "random_resized_crop"), write=marked.voc, task="detection", seed=0) -> SceneLoader:
    """Of the training images of a small data set."""
    scenes = read(write(tmp_path / "set"), task)
    pixels = [torch.from_numpy(np.array(Image.open(scenes.path(row)))).permute(2, 0, 1) for row in range(len(scenes))]
    rows = np.flatnonzero(scenes.splits == "train")
    made = tuple(parse(trick) for trick in tricks)
    normal = ((0.5,) * 3, (0.25,) * 3)
    return SceneLoader(scenes, pixels, rows, made, 40, canvas(scenes.sizes, 40), normal, seed, torch.device("cpu"))


def drawn(made: SceneLoader, rows: list[int], epoch: int):
    from trickbag.engine.loader import Keys

    picked = torch.tensor(rows)
    return made.on_device(made.shown(picked, made.drawn(picked, Keys(made.seed, epoch, picked, torch.zeros_like(picked)))))


def test_an_images_draws_depend_on_its_row_epoch_and_seed_alone(tmp_path, cache) -> None:
    made = loader(tmp_path)
    both, one = drawn(made, [0, 1], 3), drawn(made, [1], 3)
    assert torch.equal(both.x[1], one.x[0])
    kept = both.y[1][both.y[1][:, 4] != NONE]
    assert torch.equal(kept, one.y[0])
    assert not torch.equal(drawn(made, [1], 4).x, one.x)


def test_without_tricks_images_are_shown_whole_and_padded_with_their_mean(tmp_path, cache) -> None:
    made = loader(tmp_path, tricks=())
    batch = next(made.judged(torch.tensor([1]), 1))
    assert batch.x.shape == (1, 3, 64, 64)
    assert batch.x[0, :, :40, :27].std() > 0.5
    assert batch.x[0, :, 40:].abs().max() < 0.02
    assert batch.x[0, :, :, 27:].abs().max() < 0.02


def test_images_that_are_shown_upside_down_have_their_boxes_there(tmp_path, cache) -> None:
    made = loader(tmp_path, tricks=())
    plain, turned = drawn(made, [0, 1], 0), drawn(loader(tmp_path, tricks=("flip(p=0, vertical=1)",)), [0, 1], 0)
    for image, other, marks, others, row in zip(plain.x, turned.x, plain.y, turned.y, range(2), strict=True):
        height, _ = fit(*made.scenes.sizes[row].tolist(), 40)
        assert torch.equal(other[:, :height], image[:, :height].flip(1))
        there = marks[:, 4] != NONE
        expected = marks[there][:, [0, 3, 2, 1, 4]] * torch.tensor([1, -1, 1, -1, 1]) + torch.tensor([0, height, 0, height, 0])
        torch.testing.assert_close(others[there], expected)
        assert there.any()


def test_boxes_that_are_ignored_are_not_trained_on(tmp_path, cache) -> None:
    made = loader(tmp_path, tricks=())
    first = made.scenes.boxes[0]
    marks = Boxes(*first[:2], np.array([True, False]))
    made.scenes = replace(made.scenes, boxes=(marks, marks))
    assert made.boxes(0, made.whole(0))[:, 4].tolist() == [1.0]


def test_padding_counts_nowhere(tmp_path, cache) -> None:
    made = loader(tmp_path, tricks=(), write=marked.regions, task="segmentation")
    region = made.region(1, made.whole(1))
    assert set(region.unique().tolist()) <= {*range(len(made.scenes.classes)), 255}
    assert (region[40:] == 255).all()
    assert (region[:, 27:] == 255).all()
    assert padded(torch.zeros(1, 2, 2), (3, 3), 7.0)[0, 2, 2] == 7
