"""Wide photos: what a central crop cuts away, padding shows; the same in training, judging, prediction and evaluation."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import trickbag as tb
from trickbag.data.audit import audit
from trickbag.data.reading import read
from trickbag.engine.assemble import assemble, plain_view
from trickbag.engine.cutting import cut
from trickbag.engine.pixels import Cache, Data, Files, fitted, pixels
from trickbag.engine.precision import fabric_for
from trickbag.ground.errors import UsageError
from trickbag.ground.events import silent
from trickbag.recipe import Fit, Recipe
from trickbag.runs import auto, evaluation
from trickbag.runs.request import request

pytestmark = pytest.mark.usefixtures("cache")
NUMBERS = {"precision": "fp32", "channels_last": False, "mean": (0.5,), "std": (0.25,)}
RECIPE = Recipe(model="cifar_resnet8", size=32, epochs=8, batch_size=16, lr=0.05, **NUMBERS, tricks=["warmup", "flip"])
COUNTS = {"train": 24, "val": 4, "test": 8}


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    """Photos of 256 x 64 pixels; a bright one of two classes for each dark one, which differ at their ends alone."""
    rng = np.random.default_rng(0)
    for split, count in COUNTS.items():
        for number in range(count):
            photo = rng.integers(40, 216, (64, 256, 3), dtype=np.uint8)
            for name, level in (("bright", 250), ("dark", 5)):
                photo[:, :24] = photo[:, -24:] = level
                (tmp_path / "photos" / split / name).mkdir(parents=True, exist_ok=True)
                Image.fromarray(photo).save(tmp_path / "photos" / split / name / f"{number}.png")
    return tmp_path / "photos"


@pytest.mark.parametrize(("fit", "top1"), [("crop", 0.5), ("pad", 1.0), ("squash", 1.0)])
def test_a_mark_at_the_ends_is_seen_unless_it_is_cut_away(wide: Path, tmp_path: Path, fit: Fit, top1: float) -> None:
    run = tb.train(wide, RECIPE, set_={"fit": fit}, out=tmp_path / "run")
    assert run.record["test"]["top1"] == top1
    assert json.loads((run.folder / "model.json").read_text())["fit"] == fit
    with np.load(run.folder / "predictions.npz") as arrays:
        kept = dict(arrays)
    files = [wide / path for path in np.array(audit(read(wide)).images.paths)[kept["test_rows"]]]
    found = tb.load(run.folder)
    told = [dict(zip(one.classes, one.probabilities, strict=True)) for one in found.predict(files)]
    expected = torch.from_numpy(kept["test_logits"]).softmax(1)
    made = torch.tensor([[one[name] for name in found.classes] for one in told])
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-5)
    assert evaluation.evaluate(run.folder, wide / "test").scores.top1 == top1


@pytest.mark.parametrize("fit", ["pad", "squash"])
@pytest.mark.parametrize("size", [(64, 256), (256, 64), (48, 48), (1, 3000), (20, 10)])
def test_what_is_kept_is_square_and_judged_whole(size: tuple[int, int], fit: Fit) -> None:
    image = torch.full((3, *size), 255, dtype=torch.uint8)
    image[:, -1, -1] = 0
    made = fitted(image, fit, 100)
    side = min(100, max(size))
    assert made.shape == (3, side, side)
    assert torch.equal(fitted(made, fit, 100), made)
    shown = [min(side, max(1, round(side * length / max(size)))) for length in size]
    assert int((made.float().mean(0) != 128).sum()) == (side * side if fit == "squash" else shown[0] * shown[1])
    view = plain_view(RECIPE.edit(fit=fit))
    assert view == (32, 32)
    assert cut(made, view).shape == (3, 32, 32)


@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
def test_the_cache_keeps_each_fit_apart(wide: Path, fit: Fit) -> None:
    images = audit(read(wide)).images
    data = Data(images, images.fingerprint, 3)
    for other in ("crop", "pad", "squash"):
        pixels(data, 40, silent, other)
    found, files = pixels(data, 40, silent, fit), Files(images, 3, 40, fit)
    assert isinstance(found, Cache)
    assert all(torch.equal(found[row], files[row]) for row in range(0, len(images), 10))


def test_check_says_what_a_crop_cuts_away_and_auto_pads(wide: Path) -> None:
    (found,) = [finding for finding in audit(read(wide)).findings if finding.kind == "shape"]
    assert "cuts away 75 % of an image at the median" in found.message
    assert "--set fit=pad" in found.suggestion
    chosen, reasons = auto.choose(request(wide, weights="none"))
    assert (chosen.fit, chosen.size) == ("pad", 160)
    assert "padded to squares, since a central crop would cut away 75 % of them" in reasons[-1]
    assert auto.choose(request(wide, weights="none", set_={"fit": "squash"}))[0].fit == "squash"


def test_usual_photos_are_cropped(tmp_path: Path) -> None:
    for start, name in ((0, "cat"), (100, "dog")):
        (tmp_path / name).mkdir()
        for number in range(10):
            noise = np.random.default_rng(start + number).integers(0, 256, (72, 128, 3), dtype=np.uint8)
            Image.fromarray(noise).save(tmp_path / name / f"{number}.png")
    found = request(tmp_path, weights="none")
    assert not [finding for finding in found.audit.findings if finding.kind == "shape"]
    assert auto.choose(found)[0].fit == "crop"


def test_the_fit_is_part_of_the_recipe() -> None:
    assert len({RECIPE.edit(fit=fit).key for fit in ("crop", "pad", "squash")}) == 3
    assert 'fit = "pad"' in RECIPE.edit(fit="pad").toml()
    with pytest.raises(UsageError, match="fit='stretch'"):
        RECIPE.edit(fit="stretch")


def test_boxes_are_parts_and_padding_shows_all(wide: Path) -> None:
    data = request(wide, RECIPE).data
    asked = RECIPE.edit(["box_crop"], fit="pad")
    with pytest.raises(UsageError, match='box_crop shows parts of images and fit="pad" all of them'):
        assemble(asked, data, Files(data.images, 3, 40, "pad"), 0, fabric_for("fp32"), lambda *_: None)  # type: ignore[arg-type,return-value]
