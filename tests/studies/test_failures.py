"""What fails in a study is told with its cause, and the others go on."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import study_lab
from study_lab import done

from trickbag.ground.errors import TrickbagError
from trickbag.ground.events import CellDone


@pytest.fixture(scope="module")
def failing(place, shelf):
    """Arms that break in several ways, beside one that does not."""
    told = []
    asked = {"tricks": ["breaks", 'breaks(says="CUDA out of memory", seed=1)', "flip_tta"], "vary": {"lr": [1e30]}}
    made = done(place, "failing", {"epochs": 2}, design="add-one", seeds=2, tell=told.append, **asked)
    return SimpleNamespace(made=made, told=told)


def test_a_failing_arm_is_told_with_its_cause_and_the_others_go_on(failing):
    found = {(f.arm, f.seed): (f.kind, f.cause) for f in failing.made.findings.failures}
    memory = "breaks(says='CUDA out of memory', seed=1)"
    assert found["breaks", 0] == found["breaks", 1] == ("error", "RuntimeError: no such thing")
    assert found[memory, 1] == ("memory", "CUDA out of memory")
    assert (memory, 0) not in found
    assert {cell for cell in found if cell[0] == "lr=1e+30"} == {("lr=1e+30", 0), ("lr=1e+30", 1)}
    assert all(kind == "diverged" and "learning rate 1e+30" in why for (a, _), (kind, why) in found.items() if a == "lr=1e+30")
    arms = {arm.name: arm for arm in failing.made.findings.arms}
    assert "breaks" not in arms
    assert None not in arms["flip_tta"].accuracies
    assert arms[memory].accuracies[1] is None
    assert (arms[memory].failed, arms["lr=1e+30"].failed, arms["flip_tta"].failed) == (1, 2, 0)
    assert [e.name for e in failing.made.effects if e.declared] == [memory, "flip_tta", "lr=1e+30"]
    events = {(e.arm, e.seed): e for e in failing.told if isinstance(e, CellDone)}
    assert events["breaks", 0].failure == "RuntimeError: no such thing"
    assert events["flip_tta", 1].failure == ""


def test_a_run_that_diverged_counts_with_its_last_valid_accuracy_or_that_of_a_guess(failing, place):
    arms = {arm.name: arm for arm in failing.made.findings.arms}
    assert arms["lr=1e+30"].accuracies == pytest.approx((1 / 3, 1 / 3))
    assert arms["lr=1e+30"].nll == pytest.approx(np.log(3))
    held = study_lab.held(failing.made)
    log = place / "log.jsonl"
    scores = [{"n": 63, "top1": accuracy, "macro_recall": accuracy, "nll": 1.0, "ece": 0.1} for accuracy in (0.5, 0.625)]
    epoch = {"kind": "epoch", "epoch": 1, "step": 9, "t": 0.5, "loss": 1.0, "lr": 0.05, "seconds": 1.0}
    lines = [epoch | {"val": one, "weights": {"": one}} for one in scores]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (place / "diverged.json").write_text('{"message": "the loss is no longer a number", "step": 9, "lr": 1.0, "files": []}')
    from trickbag.studies.worker import Place, write_diverged

    cell = held.cell(held.arms[0], 0)
    images = SimpleNamespace(classes=("a", "b", "c"), splits=np.array(["train", "test", "apart", "test"]))
    run = SimpleNamespace(log=log, folder=place, wanted=SimpleNamespace(data=SimpleNamespace(images=images)))
    write_diverged(cell, run, Place(place / "diverged"))
    kept = json.loads((place / "diverged" / "runs" / cell.key / "result.json").read_text())
    assert (kept["counts_with"], kept["rows"]) == (0.625, [1, 3])


def test_failed_runs_are_tried_again_and_finished_ones_are_not(failing, place, shelf):
    told = study_lab.ledger(failing.made.folder)
    asked = {"tricks": ["breaks", 'breaks(says="CUDA out of memory", seed=1)', "flip_tta"], "vary": {"lr": [1e30]}}
    done(place, "failing", {"epochs": 2}, design="add-one", seeds=2, **asked)
    again = study_lab.ledger(failing.made.folder)[len(told) :]
    assert {(arms, seed) for event, arms, seed in again if event == "began"} == {
        (("breaks",), 0),
        (("breaks",), 1),
        (("breaks(says='CUDA out of memory', seed=1)",), 1),
    }


def test_a_reference_that_fails_ends_the_study_with_the_cause(place, shelf):
    with pytest.raises(TrickbagError, match=r"the reference failed with every seed.*no such thing"):
        done(place, "no-reference", with_=["breaks"], tricks=["flip_tta"], seeds=1)
