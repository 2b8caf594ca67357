"""box_crop from the manifest to the answer: against slices of numpy arrays, and where a background misleads."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from album import TINY, recipe_file
from answers import Answer, Here
from PIL import Image

from trickbag.data.audit import audit
from trickbag.data.images import Images
from trickbag.data.reading import read
from trickbag.engine.assemble import regions
from trickbag.engine.cutting import cut
from trickbag.engine.pixels import Files, Rows, crop
from trickbag.ground.errors import UsageError
from trickbag.laboratory.lab import dataset, loop, recipe
from trickbag.tricks import parse
from trickbag.tricks.box_crop import enlarged

pytestmark = pytest.mark.usefixtures("cache")
EDGES = ("left", "top", "right", "bottom")


def manifest(folder: Path, rows: list[tuple[object, ...]]) -> Path:
    """A manifest of paths, labels, splits and boxes."""
    with (folder / "photos.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "split", *EDGES), *rows])
    return folder / "photos.csv"


def seen(images: Images, spelling: str, shorter: int, judged: bool = False) -> list[np.ndarray]:
    """Each image as the trick shows it, [h, w, C], decoded and shrunk as in a run."""
    found = regions(images, [parse(spelling)], judged)
    rows = Rows(images, Files(images, 3, shorter), np.arange(len(images)), found)
    return [rows[row].permute(1, 2, 0).numpy() for row in range(len(rows))]


def test_a_cut_is_the_slice_of_the_upright_picture(tmp_path: Path) -> None:
    """Whatever way the camera was held: the second picture is stored lying on its side."""
    upright = np.random.default_rng(0).integers(0, 256, (3, 40, 60, 3), np.uint8)
    camera = Image.Exif()
    camera[0x0112] = 6  # to be turned clockwise
    Image.fromarray(upright[0]).save(tmp_path / "0.png")
    Image.fromarray(np.rot90(upright[1])).save(tmp_path / "1.png", exif=camera)
    Image.fromarray(upright[2]).save(tmp_path / "2.png")
    boxes = [(8, 4, 24, 20), (32, 8, 60, 32), ("", "", "", "")]
    images = audit(read(manifest(tmp_path, [(f"{n}.png", "x", "", *box) for n, box in enumerate(boxes)]))).images

    def same(spelling: str, *slices: tuple[slice, slice]) -> None:
        for found, picture, inside in zip(seen(images, spelling, 40), upright, slices, strict=True):
            np.testing.assert_array_equal(found, picture[inside])

    whole = (slice(None), slice(None))
    same("box_crop(margin=0)", (slice(4, 20), slice(8, 24)), (slice(8, 32), slice(32, 60)), whole)
    same("box_crop(margin=0.25)", (slice(0, 24), slice(4, 28)), (slice(2, 38), slice(25, 60)), whole)
    same("box_crop(margin=100)", whole, whole, whole)
    half = seen(images, "box_crop(margin=0)", 20)  # decoded images are kept at a smaller size than the file's
    assert [picture.shape[:2] for picture in half] == [(8, 8), (12, 14), (20, 30)]
    shrunk = np.asarray(Image.fromarray(upright[0]).resize((30, 20), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(half[0], shrunk[2:10, 4:12], atol=1)
    assert [picture.shape[:2] for picture in seen(images, "box_crop", 40, judged=True)] == [(40, 60)] * 3


def test_enlarged_boxes_are_the_formula_and_the_smallest_is_a_pixel() -> None:
    rng = np.random.default_rng(1)
    low, side = rng.uniform(0, 0.5, (50, 2)), rng.uniform(0.01, 0.5, (50, 2))
    expected = np.concatenate([np.maximum(0, low - 0.3 * side), np.minimum(1, low + 1.3 * side)], 1)
    np.testing.assert_allclose(enlarged(torch.from_numpy(np.concatenate([low, low + side], 1)), 0.3), expected)
    assert crop(torch.zeros(3, 10, 10), torch.tensor([0.999, 0.0, 1.0, 0.001])).shape == (3, 1, 1)


@pytest.mark.parametrize("when", ["train", "always"])
def test_training_images_are_cut_and_judged_ones_if_asked(when: str) -> None:
    data, pixels = dataset()
    made = loop(recipe(f"box_crop(margin=0, when={when!r})"))
    for name, loader in made.judge.loaders.items():
        rows = np.flatnonzero(data.images.splits == name)
        batch = torch.cat([batch.x for batch in loader.judged(torch.arange(len(rows)), 8)])
        for place, row in enumerate(rows):
            box = data.images.boxes[row]
            boxed = whole = pixels[row]
            if not np.isnan(box).any():
                left, top, right, bottom = box.astype(int)
                boxed = whole[:, top:bottom, left:right]
            if name == "train":
                shown = loader.augmented(torch.tensor([place]), torch.tensor([0]), 0, 16)[0, 0]
                assert torch.equal(shown, cut(boxed, loader.view))
            expected = cut(boxed if when == "always" else whole, loader.view)
            torch.testing.assert_close(batch[place], (expected / 255 - 0.5) / 0.25)


def test_without_any_box_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, pixels = dataset()
    bare = data._replace(images=replace(data.images, boxes=np.empty((0, 4))))
    monkeypatch.setattr("trickbag.laboratory.lab.dataset", lambda *_: (bare, pixels))
    with pytest.raises(UsageError, match=r"none has one\. Give a manifest with the columns left, top, right, bottom"):
        loop(recipe("box_crop"))


def album(folder: Path, each: int = 14) -> Path:
    """Photos of 36 x 30 pixels: a box of 12 x 12 has the class's colour; the background tells the class in training alone."""
    rng, rows = np.random.default_rng(0), []
    for split in ("train", "val", "test"):
        for number in range(2 * each):
            label = number % 2
            bright = label if split == "train" else 1 - label
            photo = rng.normal(60 + 130 * bright, 10, (30, 36, 3))
            left, top = (int(rng.integers(0, most)) for most in (25, 19))
            photo[top : top + 12, left : left + 12] = rng.normal((190, 60, 60) if label else (60, 60, 190), 10, (12, 12, 3))
            name = f"{split}{number}.png"
            Image.fromarray(photo.clip(0, 255).astype(np.uint8)).save(folder / name)
            rows.append((name, ("blue", "red")[label], split, left, top, left + 12, top + 12))
    return manifest(folder, rows)


def test_with_boxes_a_misleading_background_misleads_no_more(
    tmp_path: Path, ask: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    photos = album(tmp_path)
    recipe_file(tmp_path / "tiny.toml", TINY.replace("epochs = 2", "epochs = 4"))

    def train(out: str, *options: str) -> dict[str, float]:
        told = ask("train", str(photos), "--recipe", "tiny.toml", "--out", out, *options)
        assert told.code == 0, told.err
        scores: dict[str, float] = json.loads(Path(out, "result.json").read_text())["test"]
        return scores

    plain, boxed = train("plain"), train("boxed", "--with", "box_crop(margin=0, when='always')")
    assert plain["top1"] < 0.5
    assert boxed["top1"] == 1.0

    def evaluated(rows: slice) -> Answer:
        lines = photos.read_text().splitlines()
        Path("again.csv").write_text("\n".join([lines[0], *lines[rows]]))
        return ask("evaluate", "boxed", "again.csv", "--json")

    again = json.loads(evaluated(slice(57, None)).out)  # the rows of the test
    assert again["nll"] == pytest.approx(boxed["nll"], abs=1e-6)
    for words in (("predict", "boxed", "test0.png"), ("explain", "boxed", "test0.png", "--out", "looked")):
        assert ask(*words).code == 0

    for edges, sentence in ((",,,", "none has one"), ("0,0,37,12", "36 x 30 pixels, has one to right 37, bottom 12.")):
        lines = [",".join(line.split(",")[:3]) for line in photos.read_text().splitlines()]
        photos.write_text(
            "\n".join([f"{lines[0]},{','.join(EDGES)}", f"{lines[1]},{edges}", *(f"{line},,,," for line in lines[2:])])
        )
        refused = ask("train", str(photos), "--recipe", "tiny.toml", "--with", "box_crop", "--out", "none")
        assert refused.code == 2
        assert sentence in refused.err
    noted = ask("evaluate", "boxed", str(photos))
    assert noted.code == 0
    assert "1 box outside the image: train0.png" in noted.out
