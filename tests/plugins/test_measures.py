"""One's own metrics as endpoints of a study."""

import csv
import re
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
    with Path("study/effects.csv").open(encoding="utf-8", newline="") as file:
        written = {row["name"]: row for row in csv.DictReader(file)}
    for one in loss.effects:
        row = written[one.name]
        assert row["metric_loss_difference"] == ("" if one.difference is None else str(one.difference))
        assert row["metric_loss_verdict"] == one.verdict
        assert (row["metric_loss_low"] == "") == (one.interval is None)
    assert "metric_accuracy_high" in done.table().column_names


def test_a_file_of_options_names_plugins(place: Path, ask) -> None:
    own.write(Path(), "invert", own.INVERT)
    Path("study.toml").write_text(
        'plugins = ["invert.py", "scores.py"]\nrecipe = "tiny.toml"\ntricks = ["invert"]\nset = { epochs = 1 }\nseeds = 1\n'
    )
    told = ask("study", "photos", "study.toml", "--plan")
    assert (told.code, "  invert: +invert" in told.out) == (0, True), told.err
    assert [arm.name for arm in tb.plan_study("photos", "study.toml").design.arms] == ["reference", "invert", "placebo"]
    for content, said in (
        ("plugins = 5\n", "write a Python file, or a list"),
        ('plugins = "gone.py"\n', "'gone.py' cannot be read"),
    ):
        Path("study.toml").write_text(content)
        refused = ask("study", "photos", "study.toml", "--plan")
        assert (refused.code, said in refused.err) == (2, True), refused.err


def test_a_number_for_all_images_is_refused_in_a_study(place: Path, ask) -> None:
    own.write(Path(), "doubts", own.SCORES)
    told = ask("study", "photos", "--recipe", "tiny.toml", "--tricks", "mixup", "--plugin", "doubts.py", "--out", "study")
    assert told.code == 2
    assert "the metric doubt gives one number for all images" in told.err


def test_metrics_have_the_names_that_the_file_gives_them_and_none_ends_the_process(place: Path, ask) -> None:
    made = "import sys\nimport trickbag\n\n\ndef make(k):\n    @trickbag.metric\n    def inner(labels, probabilities):\n"
    made += "        return float(k)\n    return inner\n\n\none, three = make(1), make(3)\n"
    own.write(Path(), "several", made)
    result = tb.train("photos", "tiny.toml", set_={"epochs": 1}, plugins="several.py", out="run")
    assert result.record["val"]["metrics"] == {"one": 1.0, "three": 3.0}
    own.write(Path(), "leaves", "import sys\nimport trickbag\n\n@trickbag.metric\ndef leaves(labels, p):\n    sys.exit(0)\n")
    told = ask("evaluate", "run", "photos", "--plugin", "leaves.py")
    assert (told.code, "the metric leaves fails" in told.err) == (2, True)


def test_a_trick_that_ends_the_process_or_fails_is_a_sentence_with_its_line(place: Path, ask) -> None:
    for fault, said in (
        ("raise SystemExit(0)", "SystemExit: 0."),
        ("return 255 - imaeg", "NameError: name 'imaeg' is not defined."),
    ):
        own.write(Path(), "invert", own.INVERT.replace("return 255 - image", fault))
        told = ask("train", "photos", "--recipe", "tiny.toml", "--with", "invert", "--plugin", "invert.py", "--out", "bad")
        assert told.code == 1
        assert re.fullmatch(rf"trickbag: [^\n]*invert\.py, line \d+: {re.escape(said)}\n", told.err)
