"""A study's folder in which something was altered, exchanged or lost: nothing of it is believed, and nothing else is lost."""

import gzip
import io
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import study_lab
from study_lab import album, study

from trickbag.ground import store
from trickbag.ground.errors import TrickbagError
from trickbag.ground.events import Note
from trickbag.studies import finished


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished study of three arms, and how to give its command again in a copy of its folder."""
    place = tmp_path_factory.mktemp("damage")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRICKBAG_CACHE", str(place / "cache"))
        album(place / "album", {"a": 20, "b": 20, "c": 20})
        asked: dict[str, Any] = {"recipe": study_lab.recipe(place, epochs=1), "tricks": ["flip_tta"], "seeds": 3}
        first = study(place / "album", out=place / "first", **asked)

        def again(folder: Path) -> tuple[Any, list[str]]:
            told: list[Any] = []
            finished = study(place / "album", out=folder, tell=told.append, **asked)
            return finished, [event.text for event in told if isinstance(event, Note)]

        yield SimpleNamespace(folder=first.folder, findings=first.findings, again=again)


@pytest.fixture
def copied(made, tmp_path):
    return Path(shutil.copytree(made.folder, tmp_path / "study"))


def run(folder: Path, arm: str, seed: int) -> Path:
    held = study_lab.held(folder)
    return held.place.run(held.cell(next(a for a in held.arms if a.name == arm), seed).key)


def rewrite(run: Path, **changes: Any) -> None:
    """Change arrays of the predictions, and seal the run anew."""
    with np.load(run / "predictions.npz", allow_pickle=False) as file:
        arrays = dict(file)
    np.savez(packed := io.BytesIO(), **arrays | {name: change(arrays[name]) for name, change in changes.items()})
    (run / "predictions.npz").write_bytes(packed.getvalue())
    store.seal(run)


def altered(run: Path) -> None:
    content = bytearray((run / "predictions.npz").read_bytes())
    content[len(content) // 2] ^= 1
    (run / "predictions.npz").write_bytes(content)


def not_finite(run: Path) -> None:
    rewrite(run, test_logits=lambda logits: logits * np.nan)


def empty(run: Path) -> None:
    rewrite(run, **dict.fromkeys(("test_logits", "test_labels", "test_rows"), lambda array: array[:0]))


def malformed(run: Path) -> None:
    record = json.loads((run / "result.json").read_text())
    (run / "result.json").write_text(json.dumps(record | {"seconds": "soon"}))
    store.seal(run)


def listing_nothing(run: Path) -> None:
    (run / "MANIFEST.json").write_text('{"files": {}}')


def logless(run: Path) -> None:
    (run / "log.jsonl").write_text("[]\n")
    store.seal(run)


def unsealed(run: Path) -> None:
    (run / "MANIFEST.json").unlink()


HARMS = {
    ("flip_tta", 0): (altered, "predictions.npz was changed"),
    ("flip_tta", 1): (not_finite, "some logits are not finite"),
    ("flip_tta", 2): (empty, "it holds no image"),
    ("placebo", 0): (malformed, "seconds: input should be a valid number"),
    ("placebo", 1): (listing_nothing, "MANIFEST.json does not list"),
    ("placebo", 2): (logless, "log.jsonl is damaged in line 1"),
    ("reference", 2): (unsealed, "MANIFEST.json is missing"),
}


def test_damaged_runs_are_passed_over_then_set_aside_and_trained_again(made, copied):
    folders = {run(copied, arm, seed): (arm, seed) for arm, seed in HARMS}
    for folder, which in folders.items():
        HARMS[which][0](folder)
    found = finished.report(copied).findings
    assert [arm.name for arm in found.arms] == ["reference"]
    assert found.arms[0].accuracies == (*made.findings.arms[0].accuracies[:2], None)
    told = {(f.arm, f.seed): f.cause for f in found.failures}
    assert {f.kind for f in found.failures} == {"damaged"}
    assert told.keys() == HARMS.keys() - {("reference", 2)}  # of which nobody knows whether it was finished
    assert all(HARMS[which][1] in cause for which, cause in told.items())

    again, notes = made.again(copied)
    for folder, which in folders.items():
        (said,) = [text for text in notes if str(folder) in text]
        assert HARMS[which][1] in said
        assert f"It is now {folder.name}.damaged, and the run is trained again." in said
        assert folder.with_name(f"{folder.name}.damaged").is_dir()
    assert study_lab.predictions(copied) == study_lab.predictions(made.folder)
    assert [e.points for e in again.effects] == [e.points for e in made.findings.effects]
    assert again.findings.failures == ()


def test_exchanged_runs_are_noticed(made, copied):
    one, other = run(copied, "flip_tta", 0), run(copied, "reference", 0)
    for old, new in ((one, one.with_name("x")), (other, one), (one.with_name("x"), other)):
        old.rename(new)
    told = {(f.arm, f.seed): f.cause for f in finished.report(copied).findings.failures}
    assert told.keys() == {("flip_tta", 0), ("reference", 0)}
    assert f"it holds the run {other.name}" in told["flip_tta", 0]
    made.again(copied)
    assert study_lab.predictions(copied) == study_lab.predictions(made.folder)


def test_a_report_before_the_references_first_run_says_so(copied):
    for seed in range(3):
        shutil.rmtree(run(copied, "reference", seed))
    with pytest.raises(TrickbagError, match=r"no run of the reference has finished yet.*to continue it"):
        finished.report(copied)
    shutil.rmtree(copied / "runs")
    with pytest.raises(TrickbagError, match="no run of the reference has finished yet"):
        finished.report(copied)


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda held: "{", "it is not JSON"),
        (lambda held: json.dumps(held | {"seeds": [0, 1]}), "it was changed after trickbag wrote it"),
        (lambda held: json.dumps({k: v for k, v in held.items() if k != "digest"}), "it has no digest"),
        (lambda held: json.dumps(held | {"arms": []}), "arms: list should have at least 1 item"),
    ],
)
def test_a_damaged_study_is_refused_and_the_same_command_mends_it(made, copied, harm, says):
    file = copied / "study.json"
    file.write_text(harm(json.loads(file.read_text())))
    with pytest.raises(TrickbagError) as refused:
        finished.report(copied)
    assert str(refused.value).startswith(f"{file} is damaged: {says}")
    assert "Give the same trickbag study command again" in str(refused.value)
    before = study_lab.manifests(copied)
    again, notes = made.again(copied)
    assert study_lab.manifests(copied) == before
    assert (copied / "study.json.damaged").exists()
    (said,) = [text for text in notes if "study.json.damaged" in text]
    assert says in said
    assert again.findings.departures == (said,)
    assert [e.points for e in again.effects] == [e.points for e in made.findings.effects]


def test_a_damaged_ledger_is_set_aside(made, copied):
    (copied / "ledger.jsonl").write_text('{"event": "began"}\n')
    shutil.rmtree(run(copied, "placebo", 1))
    _, notes = made.again(copied)
    assert [text for text in notes if "ledger.jsonl is damaged in line 1: job: field required" in text]
    assert study_lab.ledger(copied) == [("began", ("placebo",), 1), ("ended", ("placebo",), 1)]


def test_what_a_killed_command_left_of_a_finished_training_is_removed(made, copied):
    job = json.loads((run(copied, "placebo", 1) / "result.json").read_text())["training"]
    for name in (job, f".{job}.4711.part"):
        (copied / ".work" / name).mkdir(parents=True)
        (copied / ".work" / name / "log.jsonl").touch()
    made.again(copied)
    assert list((copied / ".work").iterdir()) == []


def test_the_images_of_a_study_have_their_names(made):
    """Row n of the predictions is line n of the images, after the head."""
    text = gzip.decompress((made.folder / "images.csv.gz").read_bytes()).decode()
    named = [line.split(",") for line in text.splitlines()[1:]]
    with np.load(run(made.folder, "reference", 0) / "predictions.npz", allow_pickle=False) as arrays:
        rows, labels = arrays["test_rows"], arrays["test_labels"]
    assert [named[row][1] for row in rows] == ["abc"[label] for label in labels]
    assert {named[row][2] for row in rows} <= {"train", "val"}
    assert all(Path(named[row][0]).parts[0] == named[row][1] for row in rows)
