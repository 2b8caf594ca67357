"""Data without a test split: what is held out is told, and without any the validation's score is given for what it is."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from album import fill, recipe_file

import trickbag as tb
from trickbag.display.screen import Screen
from trickbag.ground.errors import UsageError
from trickbag.ground.events import Event, Note
from trickbag.runs.request import request
from trickbag.studies import finished
from trickbag.terminal import cli

KINDS = {"a": 0, "b": 1, "c": 2}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Photos with the splits train and val alone, and a run that tests on none."""
    folder = tmp_path_factory.mktemp("no-test")
    fill(folder / "given" / "train", KINDS, 15)
    fill(folder / "given" / "val", KINDS, 4, seed=1)
    recipe_file(folder / "tiny.toml")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRICKBAG_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        tb.train("given", "tiny.toml", set_={"test_share": 0}, out="run", with_=["flip_tta", "calibrate"])
        yield folder


@pytest.fixture(autouse=True)
def inside(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


def test_a_test_split_that_is_taken_out_of_given_training_images_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told: list[Event] = []
    run = tb.train("given", "tiny.toml", set_={"epochs": 0}, out=tmp_path / "run", progress=told.append)
    message = "No test split is given: 9 of the 45 training images are held out for it (test_share = 0.2)."
    assert any(message in event.text and "--set test_share=0" in event.text for event in told if isinstance(event, Note))
    assert message in {f["message"][: len(message)] for f in json.loads((run.folder / "check.json").read_text())["findings"]}
    assert run.record["splits"] == {
        "train": {"images": 36, "given": True, "trained_before": 0},
        "val": {"images": 12, "given": True, "trained_before": 0},
        "test": {"images": 9, "given": False, "trained_before": 0},
    }
    Screen().result(run)
    assert "the 9 test images were held out from your training images" in capsys.readouterr().out


def test_a_validation_split_that_is_taken_out_of_given_training_images_is_told(tmp_path: Path) -> None:
    shutil.copytree("given/train", tmp_path / "photos" / "train")
    shutil.copytree("given/val", tmp_path / "photos" / "test")
    told: list[Event] = []
    tb.plan(tmp_path / "photos", "tiny.toml", progress=told.append)
    assert "No val split is given: 6 of the 45 training images are held out for it (val_share = 0.1)." in {
        event.text for event in told if isinstance(event, Note)
    }


def test_where_all_or_no_splits_are_given_there_is_nothing_to_tell(tmp_path: Path) -> None:
    shutil.copytree("given", tmp_path / "photos")
    fill(tmp_path / "photos" / "test", KINDS, 4, seed=2)
    fill(tmp_path / "flat", KINDS, 12)
    for data in ("photos", "flat"):
        told: list[Event] = []
        tb.plan(tmp_path / data, "tiny.toml", progress=told.append)
        assert not [event for event in told if isinstance(event, Note) and "held out" in event.text]


def test_without_a_test_all_training_images_are_trained_on_and_validation_is_the_score() -> None:
    record = tb.Result.load("run").record
    assert {split: own["images"] for split, own in record["splits"].items()} == {"train": 45, "val": 12, "test": 0}
    assert record["test"] is None
    assert record["val"]["n"] == 12
    with np.load("run/predictions.npz", allow_pickle=False) as arrays:
        assert {name.partition("_")[0] for name in arrays} == {"val"}
    assert Path("run/confusion.png").is_file()


def test_its_result_says_what_the_score_is_worth(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["given", "--recipe", "tiny.toml", "--set", "test_share=0", "--with", "flip_tta", "--with", "calibrate"]
    cli.app(["train", *asked, "--out", "run"], standalone_mode=False)
    said = capsys.readouterr().out
    top1 = tb.Result.load("run").record["val"]["top1"]
    assert f"validation top-1 {100 * top1:.1f} %" in said
    assert "test top-1" not in said
    assert "there is no test split: the epoch was chosen on the validation images, so this score is too good" in said


def test_the_last_epoch_is_not_called_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    cli.app(
        ["train", "given", "--recipe", "tiny.toml", "--set", "test_share=0", "--set", "keep=last", "--out", "last"],
        standalone_mode=False,
    )
    said = capsys.readouterr().out
    assert " kept" in said
    assert "chosen" not in said


def test_such_a_run_predicts_and_is_evaluated() -> None:
    assert tb.evaluate("run", "given").chosen_on == 12
    assert len(list(tb.load("run").predict(["given/val/a"]))) == 4


def test_a_flat_folder_can_go_without_a_test_too() -> None:
    assert tb.plan("given/train", "tiny.toml", set_={"test_share": 0}).splits == {"train": 39, "val": 6, "test": 0}


def test_a_study_goes_without_a_test_and_refuses_what_reads_it(tmp_path: Path) -> None:
    asked = {"recipe": "tiny.toml", "set_": {"test_share": 0, "epochs": 1}, "tricks": ["flip_tta"]}
    made = tb.study("given", **asked, seeds=1, out=tmp_path / "study")
    assert made.findings.images == 12
    assert finished.report(tmp_path / "study").findings == made.findings
    assert (tmp_path / "study" / "arms.csv").read_text("utf-8").count("flip_tta")
    with pytest.raises(tb.UsageError, match="reads the test images, and there are none"):
        tb.study("given", **asked, seeds=1, out=tmp_path / "other", on="test")
    with pytest.raises(tb.UsageError, match="nothing has judged by, and there are none"):
        tb.study("given", **asked, seeds=3, out=tmp_path / "other", proof=True)


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_split_of_other_classes_is_refused_before_it_scores_nothing_right(split: str, tmp_path: Path) -> None:
    """As images without labels in a folder of their own, or classes of another spelling."""
    fill(tmp_path / "photos" / "train", {"banded": 0, "dotted": 1}, 12)
    fill(tmp_path / "photos" / split, {"unknown": 0}, 6, seed=1)
    recipe = recipe_file(tmp_path / "tiny.toml")
    with pytest.raises(UsageError, match=rf"the {split} images are of other classes \(unknown\).*\(banded, dotted\)"):
        request(tmp_path / "photos", recipe)
    fill(tmp_path / "photos" / split, {"dotted": 1}, 1, seed=2)
    request(tmp_path / "photos", recipe)
