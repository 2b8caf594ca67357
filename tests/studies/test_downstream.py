"""A study whose classifiers also become detectors: continued with it, killed, with the same network, damaged, refused."""

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import album
import marked
import numpy as np
import pytest
from processes import Training
from safetensors.torch import load_file

import trickbag as tb
from trickbag.ground import store
from trickbag.ground.errors import UsageError
from trickbag.ground.state import digest
from trickbag.statistics.effects import Sample, effects
from trickbag.statistics.jackknife import of_precision
from trickbag.studies import finished
from trickbag.studies.folder import StudyRecord
from trickbag.studies.record import Study
from trickbag.transfers.body import identity
from trickbag.transfers.folder import unpacked

SPLITS = {"train": 6, "val": 2, "test": 6}
SMALL = {"size": 32, "epochs": 1, "batch_size": 2}
ARMS = ("reference", "mixup", "flip_tta", "placebo")
TRAININGS = 6
"""Of twelve runs: those with flip_tta or with the placebo have the reference's network."""


def photos() -> dict[str, marked.Photo]:
    """Each with a box."""
    rng, made = np.random.default_rng(0), {}
    for split, count in SPLITS.items():
        for number in range(count):
            left, top, width, height = (int(n) for n in rng.integers((0, 0, 9, 8), (20, 15, 20, 15)))
            box = marked.Box(marked.CLASSES[number % 2], left, top, left + width, top + height)
            made[f"{split}{number}"] = marked.Photo(split, [box])
    return made


class Studied(NamedTuple):
    """A study in which the trainings were killed half-way, and what was there before and after."""

    place: Path
    plain: dict[str, int]
    killed: dict[str, int]
    ended: dict[str, int]
    said: str

    @property
    def out(self) -> Path:
        return self.place / "run"


def manifests(folder: Path) -> dict[str, int]:
    """When everything that is finished was finished."""
    found = [path.relative_to(folder) for path in folder.rglob("MANIFEST.json")]
    return {str(path): (folder / path).stat().st_mtime_ns for path in found if ".work" not in path.parts}


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Studied:
    place = tmp_path_factory.mktemp("downstream")
    album.fill(place / "photos", {"a": 0, "b": 1, "c": 2}, 20)
    recipe = album.recipe_file(place / "tiny.toml", album.TINY.replace("epochs = 2", "epochs = 1"))
    marked.voc(place / "boxes", photos())
    study = Training(place, place / "photos", checkpoint_seconds=0.0)
    plain = ["study", str(place / "photos"), "--recipe", str(recipe), "--tricks", "mixup,flip_tta", "--design", "add-one"]
    plain += ["--no-proof", "--out", str(study.out)]
    further = ["--transfer", f"detection:{place / 'boxes'}"]
    further += [word for field, value in SMALL.items() for word in ("--transfer-set", f"{field}={value}")]
    study.arguments = plain
    assert study.run() == 0, study.errors
    first = manifests(study.out)
    study.arguments = plain + further
    assert study.run(r"^os.rename [0-9a-f]{16}/\.judged", nth=3) < 0, study.errors
    killed = manifests(study.out)
    assert study.run() == 0, study.errors
    return Studied(place, first, killed, manifests(study.out), study.output)


def test_what_was_finished_is_never_made_again(studied: Studied) -> None:
    assert [name for name in studied.plain if name.startswith(("networks", "transfers"))] == []
    assert studied.plain.items() <= studied.killed.items() <= studied.ended.items()
    assert sum(name.startswith("transfers/") for name in studied.killed) == 2
    assert sum(name.startswith("transfers/detection/") for name in studied.ended) == TRAININGS
    assert f"detection on boxes: {TRAININGS} trainings for 12 runs; 2 are finished already" in studied.said
    assert "(4 of 4 runs" in studied.said
    assert list((studied.out / "transfers").rglob(".work")) == []


def test_that_it_came_later_is_a_departure(studied: Studied) -> None:
    (departure,) = json.loads((studied.out / "study.json").read_text())["departures"]
    assert departure.startswith("downstream: detection on boxes: faster_rcnn, 1 epoch, map50 on 6 test images")
    assert departure.endswith("at first none.")


def test_the_same_network_shares_a_training_and_its_effect_is_exactly_0(studied: Studied) -> None:
    held = Study.load(studied.out)
    (one,) = held.held.downstream
    keys = {arm.name: [one.keys[cell.key] for cell in held.row(arm) if cell] for arm in held.arms}
    assert [*keys] == [*ARMS]
    assert keys["reference"] == keys["flip_tta"] == keys["placebo"]
    assert len({*keys["reference"], *keys["mixup"]}) == TRAININGS
    found = {e.name: e for e in finished.report(studied.out).findings.downstream[0].effects}
    for name in ("flip_tta", "placebo"):
        assert (found[name].difference, found[name].interval, found[name].verdict) == (0.0, (0.0, 0.0), "identical")
    assert found["mixup"].verdict != "identical"
    accuracy = {e.name: e for e in finished.report(studied.out).effects}
    assert accuracy["flip_tta"].verdict != "identical"


def test_the_networks_are_those_that_were_judged(studied: Studied) -> None:
    """Their weights have the hash that the run had when it was judged, though they were taken later."""
    for folder in (studied.out / "networks").glob("[!.]*"):
        record = json.loads((studied.out / "runs" / folder.name / "result.json").read_text())
        assert digest(load_file(folder / "model.safetensors")) == record["weights"]


def values(studied: Studied) -> tuple[list[Sample], list[str]]:
    """Read from the folders, a sample for each seed, of the arms that are pooled."""
    held = json.loads((studied.out / "study.json").read_text())
    (one,), arms = held["downstream"], ARMS[:3]
    runs: dict[tuple[str, int], str] = {}
    for arm in held["arms"]:
        for seed in held["seeds"]:
            found = [key for name, key in held["keys"].items() if name.startswith(_key(arm)) and name.endswith(f" {seed}")]
            runs[arm["name"], seed] = found[0]
    made = []
    for seed in held["seeds"]:
        rows = []
        for arm in arms:
            folder = studied.out / "transfers" / "detection" / one["keys"][runs[arm, seed]]
            seen = unpacked(folder / "judged.npz", "test")
            assert isinstance(seen, list)
            rows.append(of_precision(seen, 2)[0])
            record = json.loads((folder / "result.json").read_text())
            assert rows[-1].mean() == pytest.approx(record["test"]["measures"]["map50"], abs=1e-12)
            assert record["seed"] == seed
        made.append(Sample(np.array(rows), np.arange(SPLITS["test"])))
    return made, list(arms)


def _key(arm: dict[str, Any]) -> str:
    return str(tb.Recipe(**arm["recipe"]).key)


def test_the_figures_are_those_of_a_direct_call(studied: Studied) -> None:
    samples, arms = values(studied)
    direct = effects(samples, [[-1, 1, 0], [-1, 0, 1]], same=[False, True], shares=False, delta=0.0)
    known = finished.report(studied.out)
    own = {e.name: e for e in known.findings.downstream[0].effects}
    for name, one in zip(arms[1:], direct, strict=True):
        assert own[name].difference == pytest.approx(one.difference, abs=1e-15)
        assert own[name].interval == pytest.approx(one.interval, abs=1e-12)
    assert known.findings.downstream[0].reference == pytest.approx(np.mean([s.values[0].mean() for s in samples]))
    rows = {row["name"]: row for row in csv.DictReader(io.StringIO((studied.out / "effects.csv").read_text()))}
    assert float(rows["mixup"]["detection_on_boxes_difference"]) == own["mixup"].difference
    assert rows["flip_tta"]["detection_on_boxes_verdict"] == "identical"
    assert 'id="downstream"' in (studied.out / "report.html").read_text()
    assert "| the classifier | detection on boxes |" in (studied.out / "report.md").read_text()


@pytest.fixture
def copy(studied: Studied, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the study, with its cache."""
    monkeypatch.setenv("TRICKBAG_CACHE", str(studied.place / "cache"))
    shutil.copytree(studied.out, tmp_path / "study")
    return tmp_path / "study"


def of(studied: Studied, out: Path, **changes: Any) -> Any:
    """The same call in Python."""
    asked: dict[str, Any] = {"recipe": studied.place / "tiny.toml", "tricks": "mixup,flip_tta", "design": "add-one"}
    asked |= {"proof": False, "transfer": f"detection:{studied.place / 'boxes'}", "transfer_set": SMALL}
    return tb.study(studied.place / "photos", **(asked | {"out": out} | changes))


def test_a_damaged_training_counts_as_not_made_and_is_made_again(studied: Studied, copy: Path) -> None:
    (one,) = Study.load(copy).held.downstream
    held = Study.load(copy)
    mixup = next(arm for arm in held.arms if arm.name == "mixup")
    folder = copy / "transfers" / "detection" / one.keys[held.cell(mixup, 1).key]
    judged = (folder / "judged.npz").read_bytes()
    (folder / "judged.npz").write_bytes(judged[:-9])
    findings = finished.report(copy).findings
    (own,) = (e for e in findings.downstream[0].effects if e.name == "mixup")
    assert (own.seeds, own.verdict) == (2, "descriptive")
    assert own.note.startswith("1 of 3 seeds left out, as a run has no result")
    (failure,) = findings.failures
    assert (failure.arm, failure.seed, failure.kind) == ("mixup, detection on boxes", 1, "damaged")
    before = manifests(copy)
    told: list[str] = []
    findings = of(studied, copy, progress=lambda event: told.append(str(event))).findings
    assert any("is damaged: judged.npz" in text for text in told)
    assert (folder / "judged.npz").read_bytes() == judged
    made = (folder, folder.with_name(f"{folder.name}.damaged"))
    changed = {name for name, when in manifests(copy).items() if before.get(name) != when}
    assert changed == {str(path.relative_to(copy) / "MANIFEST.json") for path in made}
    assert findings.failures == ()
    assert findings.downstream == finished.report(studied.out).findings.downstream


def test_trainings_that_fail_stop_nothing_and_are_told(studied: Studied, copy: Path) -> None:
    findings = of(studied, copy, transfer_set=SMALL | {"lr": 1e30, "head": "fcos"}).findings
    assert {(f.arm, f.kind) for f in findings.failures} == {
        (f"{arm}, detection on boxes", "error") for arm in ("reference", "mixup")
    }
    assert all(e.difference is None for e in findings.downstream[0].effects)
    assert findings.effects == finished.report(studied.out).findings.effects


def test_a_body_is_known_wherever_it_lies_and_by_nothing_but_itself(studied: Studied, tmp_path: Path) -> None:
    held = Study.load(studied.out)
    folders = {arm.name: held.place.network(held.cell(arm, 0).key) for arm in held.arms}
    moved = tmp_path / "elsewhere"
    shutil.copytree(folders["reference"], moved)
    assert identity(moved) == identity(folders["reference"]) == identity(folders["flip_tta"]) != identity(folders["mixup"])


REFUSED = {
    "no task": (["boxes"], [], "write detection:FOLDER or segmentation:FOLDER"),
    "another task": (["tracking:boxes"], [], "write detection:FOLDER or segmentation:FOLDER"),
    "no folder": (["detection:nowhere"], [], "'nowhere' does not exist"),
    "regions asked of boxes": (["segmentation:boxes"], [], "boxes"),
    "twice": (["detection:boxes", "detection:boxes"], [], "given twice"),
    "the same by another path": (["detection:boxes", "detection:./boxes"], [], "two of --transfer are called"),
    "an unknown field": (["detection:boxes"], ["epoch=1"], "did you mean epochs"),
    "settings for nothing": ([], ["epochs=1"], "none is"),
    "nothing to be found": (["detection:empty"], [], "nothing is marked on its test images"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_done_is_refused_before_any_training(
    studied: Studied, monkeypatch: pytest.MonkeyPatch, ask: Callable[..., Any], tmp_path: Path, case: str
) -> None:
    monkeypatch.chdir(studied.place)
    monkeypatch.setenv("TRICKBAG_CACHE", str(studied.place / "cache"))
    if case == "nothing to be found" and not Path("empty").exists():
        none = {name: one._replace(boxes=() if one.split == "test" else one.boxes) for name, one in photos().items()}
        marked.voc(Path("empty"), none)
    transfers, fields, said = REFUSED[case]
    words = [word for text in transfers for word in ("--transfer", text)]
    words += [word for text in fields for word in ("--transfer-set", text)]
    answer = ask("study", "photos", "--recipe", "tiny.toml", "--tricks", "mixup", "--out", str(tmp_path / "out"), *words)
    assert (answer.code, answer.out) == (2, "")
    assert said in " ".join(answer.err.split())
    assert not (tmp_path / "out" / "runs").exists()


def test_a_network_that_can_be_no_body_is_refused_before_any_training(studied: Studied, tmp_path: Path, cache: Path) -> None:
    with pytest.raises(UsageError, match="transfer: model=test_vit cannot be transferred: test_vit"):
        of(studied, tmp_path / "out", vary={"model": ["test_vit"]})
    assert not (tmp_path / "out" / "runs").exists()


def test_the_plan_says_what_it_costs(studied: Studied, tmp_path: Path, cache: Path) -> None:
    asked: dict[str, Any] = {"tricks": "mixup", "design": "add-one", "out": tmp_path / "planned"}
    asked |= {"transfer": [f"detection:{studied.place / 'boxes'}"], "transfer_set": ["size=32", "epochs=3", "batch_size=2"]}
    plan = tb.plan_study(studied.place / "photos", recipe=studied.place / "tiny.toml", **asked)
    (line,) = (line for line in plan.lines() if line.startswith("detection on boxes"))
    assert "(faster_rcnn, 3 epochs; images: 6 train, 2 val, 6 test): at most 9 trainings of about" in line
    assert plan.downstream[0].seconds > 0


def test_a_study_of_before_reads_as_it_did(copy: Path) -> None:
    held = json.loads((copy / "study.json").read_text())
    del held["downstream"], held["options"]["transfer"], held["options"]["transfer_set"], held["digest"]
    store.write(copy / "study.json", store.to_json(StudyRecord.of(held).signed()))
    assert finished.report(copy).findings.downstream == ()
