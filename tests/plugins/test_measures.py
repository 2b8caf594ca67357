"""One's own metrics as endpoints of a study."""

from pathlib import Path

import own
import pytest
from album import fill, recipe_file

import trickbag as tb

SOURCE = '''"""What a study measures itself, by other means."""

import numpy as np

import trickbag


@trickbag.metric
def accuracy(labels, probabilities):
    return probabilities.argmax(1) == labels


@trickbag.metric(better="lower")
def loss(labels, probabilities):
    return -np.log(probabilities[np.arange(len(labels)), labels])
'''
SMALL = {"recipe": "tiny.toml", "set_": {"epochs": 1}, "tricks": "mixup", "design": "add-one", "proof": False}


@pytest.fixture
def place(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    fill(Path("photos"), {"a": 0, "b": 1, "c": 2}, 14)
    recipe_file(Path("tiny.toml"))
    own.write(Path(), "scores", SOURCE)
    return tmp_path


def test_ones_own_accuracy_has_the_verdicts_of_the_studys_and_is_added_without_training(place: Path, ask) -> None:
    tb.study("photos", out="study", **SMALL)
    made = {path: path.stat().st_mtime_ns for path in Path("study/runs").glob("*/MANIFEST.json")}
    done = tb.study("photos", out="study", plugins="scores.py", **SMALL)
    assert {path: path.stat().st_mtime_ns for path in Path("study/runs").glob("*/MANIFEST.json")} == made
    accuracy, loss = done.findings.measures
    assert [e.name for e in accuracy.effects] == [e.name for e in done.effects]
    for mine, theirs in zip(accuracy.effects, done.effects, strict=True):
        assert mine.difference == pytest.approx(theirs.difference, abs=1e-12)
        assert mine.verdict == theirs.verdict
        assert (mine.interval is None) == (theirs.interval is None)
        if mine.interval and theirs.interval:
            assert (mine.interval.low, mine.interval.high) == pytest.approx((theirs.interval.low, theirs.interval.high))
    arms = {arm.name: arm for arm in done.findings.arms}
    (mixed,) = (e for e in loss.effects if e.name == "mixup")
    reference = done.findings.arms[0]
    assert loss.reference == pytest.approx(reference.nll)
    assert mixed.difference == pytest.approx(arms["mixup"].nll - reference.nll)
    page = Path("study/report.html").read_text("utf-8")
    assert "By your metric accuracy: higher is better" in page
    assert "By your metric loss: lower is better" in page
    assert "By your metric loss: lower is better" in Path("study/report.md").read_text("utf-8")
    assert "your metric accuracy" in " ".join(done.findings.departures), "an endpoint that was not declared before the runs"
    assert ask("report", "study").out.count("By your metric") == 2


def test_a_number_for_all_images_is_refused_in_a_study(place: Path, ask) -> None:
    own.write(Path(), "doubts", own.SCORES)
    told = ask("study", "photos", "--recipe", "tiny.toml", "--tricks", "mixup", "--plugin", "doubts.py", "--out", "study")
    assert told.code == 2
    assert "the metric doubt gives one number for all images" in told.err
