"""Where a network gives no numbers for an image nothing is predicted: an error names the image, whoever asks."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from album import TINY, fill, recipe_file
from PIL import Image
from safetensors.torch import load_file, save_file

import trickbag as tb
from trickbag.engine.judge import predictor
from trickbag.ground import store
from trickbag.ground.errors import TrickbagError
from trickbag.laboratory import lab
from trickbag.runs.outcome import finish
from trickbag.terminal import cli
from trickbag.trick import Outputs
from trickbag.tricks import bag

KINDS = {"a": 0, "b": 1, "c": 2}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run whose first layer overflows at all that is not black, photos, and a black picture."""
    folder = tmp_path_factory.mktemp("not-finite")
    fill(folder / "photos", KINDS, 12)
    Image.new("RGB", (30, 36)).save(folder / "black.png")
    recipe_file(folder / "tiny.toml", TINY.replace("[0.5]", "[0.0]").replace("[0.25]", "[1.0]"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRICKBAG_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        run = tb.train("photos", "tiny.toml", out="run", set_={"epochs": 1}).folder
        weights = load_file(run / "model.safetensors")
        first = next(name for name in weights if weights[name].ndim == 4)
        save_file({**weights, first: weights[first] * 1e38}, run / "model.safetensors")
        store.seal(run)
        yield folder


@pytest.fixture(autouse=True)
def inside(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


@pytest.mark.parametrize(
    "ask",
    [
        lambda: list(tb.load("run").predict(["black.png", "photos/b/03.png"])),
        lambda: list(tb.load("run").explain(["black.png", "photos/b/03.png"])),
        *(
            lambda spelled=spelled: list(tb.Classifier.load("run", [spelled]).predict(["black.png", "photos/b/03.png"]))
            for spelled in ("flip_tta", "crop_tta", "scale_tta")
        ),
    ],
)
def test_an_image_without_numbers_is_an_error_that_names_it(ask: Callable[[], Any]) -> None:
    assert next(tb.load("run").predict(["black.png"])).probabilities[0] > 0
    with pytest.raises(TrickbagError, match=r"no finite numbers for 1 of [12] images: photos/b/03\.png"):
        ask()


def test_an_evaluation_names_such_images() -> None:
    with pytest.raises(
        TrickbagError, match=r"no finite numbers for 36 of 36 images: a/00\.png, a/01\.png, a/02\.png and 33 more"
    ):
        tb.evaluate("run", "photos")


def test_predict_ends_with_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["trickbag", "predict", "run", "photos/a/00.png"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr()
    assert (ended.value.code, said.out) == (1, "")
    assert "photos/a/00.png" in said.err


@pytest.mark.parametrize(
    "spelled", ["distill(teacher='run', cached=True)", "pseudo_label(unlabelled='photos/a', teacher='run')"]
)
def test_a_teacher_without_numbers_teaches_nothing(spelled: str, tmp_path: Path) -> None:
    fill(tmp_path / "other", KINDS, 12, seed=3)
    with pytest.raises(TrickbagError, match="no finite numbers for"):
        tb.train(tmp_path / "other", "tiny.toml", with_=[spelled], out=tmp_path / "run")


def test_a_training_that_ends_in_no_numbers_names_the_images(tmp_path: Path) -> None:
    with pytest.raises(TrickbagError, match=r"no finite numbers for \d+ of \d+ images: [abc]/\d\d\.png"):
        tb.train("photos", "tiny.toml", weights="run", set_={"epochs": 0}, out=tmp_path / "run")


@pytest.mark.parametrize("name", [name for name, trick in bag().items() if "predict" in trick.plugs()])
def test_no_trick_makes_numbers_of_nothing(name: str) -> None:
    """Law: what a trick says where the network says nothing is no number either."""
    trained = lab.train(lab.example(name))
    model, tricks = finish(trained.loop, trained.loop.recipe)

    def spoilt(_: Any, __: Any, outputs: Outputs) -> Outputs:
        return Outputs(*(value * torch.nan if isinstance(value, torch.Tensor) else value for value in outputs))

    model.register_forward_hook(spoilt)
    batch = next(iter(trained.loop.judge.judged("test")))
    try:
        logits = predictor(model, tricks, trained.loop.fabric.autocast)(batch.x).logits
    except TrickbagError:
        return
    assert not logits.isfinite().all(1).any()
