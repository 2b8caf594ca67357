"""A detector or a segmenter as an ONNX file finds what the network finds, for whoever follows what the file says of itself."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import album
import marked
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

import trickbag as tb
from trickbag.exports import marks
from trickbag.ground.errors import TrickbagError

HEADS = {"fcos": "detection", "faster_rcnn": "detection", "fcn": "segmentation", "unet": "segmentation"}
Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    place = tmp_path_factory.mktemp("marks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRICKBAG_CACHE", str(place / "cache"))
        patch.chdir(place)
        album.fill(place / "photos", {"a": 0, "b": 1}, 8)
        tb.train("photos", "cifar", model="cifar_resnet8", set_={"size": 16, "epochs": 1, "precision": "fp32"}, out="run")
        marked.voc(place / "detection")
        marked.regions(place / "segmentation")
        for head, task in HEADS.items():
            small = {"size": 32, "epochs": 6, "head": head, "lr": 0.01}  # long enough that no two boxes have nearly one score
            tb.transfer("run", task, task, set_=small, out=head)  # type: ignore[arg-type]
        yield place


def as_described(path: Path, facts: dict[str, str]) -> np.ndarray:
    """An image as the file's own words want it, made by Pillow."""
    photo, wanted = Image.open(path), json.loads(facts["preprocessing"])
    scale = wanted["longer side"] / max(photo.size)
    height, width = wanted["padded to"]
    canvas = Image.new("RGB", (width, height), tuple(wanted["with"]))
    canvas.paste(photo.resize([round(scale * side) for side in photo.size], Image.Resampling.BILINEAR))
    return np.asarray(canvas).transpose(2, 0, 1)[None]


@pytest.fixture(autouse=True)
def there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRICKBAG_CACHE", str(place / "cache"))
    monkeypatch.chdir(place)


@pytest.mark.parametrize("head", HEADS)
def test_a_file_finds_what_the_network_finds(place: Path, ask: Ask, head: str, tmp_path: Path) -> None:
    told = ask("export", head, "--to", "onnx", "--data", HEADS[head], "--out", str(tmp_path / "made"))
    assert told.code == 0, told.err
    assert "compared with the network on 1 test image" in told.out
    found = json.loads((tmp_path / "made" / "parity.json").read_text())
    assert found["holds"]
    assert found["parity"]["agreement"] == 1.0
    assert found["parity"]["probability"] < 1e-4
    assert found["parity"]["boxes"] is None if HEADS[head] == "segmentation" else found["parity"]["boxes"] > 0

    file = tmp_path / "made" / "model.onnx"
    facts = {prop.key: prop.value for prop in onnx.load(file).metadata_props}
    path = Path("detection/JPEGImages/e.png")
    said = onnxruntime.InferenceSession(file).run(None, {"images": as_described(path, facts)})
    model = tb.load(head)
    assert json.loads(facts["classes"]) == list(model.classes)
    if HEADS[head] == "segmentation":
        height, width = 24, 32
        classes = said[0][0, :, :height, :width].argmax(0)
        (mine,) = model.predict(path)
        small = np.asarray(Image.fromarray(mine.regions).resize((width, height), Image.Resampling.NEAREST))
        assert (classes == small).mean() > 0.9
        return
    (mine,) = model.predict(path, threshold=0)
    scale = 32 / 40
    best = [[side * scale for side in box[2:]] for box in mine.boxes[:1]]
    seen = np.minimum(said[0], [32, 24, 32, 24])  # the rest is padding
    assert np.abs(seen - best).max(1).min() < 1.0, "the best box is among those of the file"


def test_a_file_that_differs_gets_no_name(place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for head in ("fcos", "fcn"):
        other = tb.load(head)
        with torch.no_grad():
            for number, parameter in enumerate(other.network.parameters()):
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)))
        content = marks.written(other)
        out = tmp_path / head
        with monkeypatch.context() as patch:
            patch.setattr(marks, "written", lambda _, content=content: content)
            with pytest.raises(TrickbagError, match=r"model\.onnx\.differs is not the network"):
                tb.export(head, "onnx", data=HEADS[head], out=out)
        assert sorted(path.name for path in out.glob("*.*")) == ["MANIFEST.json", "model.onnx.differs", "parity.json"]
        assert not json.loads((out / "parity.json").read_text())["holds"]
        tb.export(head, "onnx", data=HEADS[head], out=out)
        assert (out / "model.onnx").exists()
        assert not (out / "model.onnx.differs").exists()


def test_without_photos_generated_ones_are_compared(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRICKBAG_CACHE", str(tmp_path / "empty"))
    shutil.copytree("fcn/seed-0", tmp_path / "alone")
    made = tb.export(tmp_path / "alone", "onnx", out=tmp_path / "made")
    assert "generated images, as no photo is at hand" in made.parity.images
    assert made.parity.holds


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--to", "timm"], "becomes an ONNX file alone"),
        (["--to", "torch"], "becomes an ONNX file alone"),
        (["--to", "onnx", "--int8"], "classifiers alone take --int8"),
        (["--to", "onnx", "--push", "me/it"], "classifiers alone take --push"),
        (["--to", "onnx", "--out", "detection"], "holds other files"),
        (["--to", "onnx", "--data", "segmentation"], "boxes"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_done_is_refused_by_name(place: Path, ask: Ask, words: list[str], said: str) -> None:
    told = ask("export", "fcos", *words)
    assert told.code == 2, told
    assert said in told.err
