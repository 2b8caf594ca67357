"""Studies from start to end: what is planted is found, what fails is told, what was decided stays decided."""

import itertools
import json
import shutil
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import study_lab
from atlases import found, measured
from shelves import more_tricks
from study_lab import album, effect, study

import trickbag as tb
from trickbag.data.images import Images
from trickbag.engine.speed import Timing
from trickbag.ground import store
from trickbag.ground.errors import TrickbagError, UsageError
from trickbag.ground.events import CellDone, Note, silent
from trickbag.runs.auto import SAFETY
from trickbag.studies import analysis, conduct, questions, recommend
from trickbag.studies.atlas import combined
from trickbag.studies.folder import StudyRecord
from trickbag.studies.folds import Judging
from trickbag.studies.planning import Planner
from trickbag.studies.prior import AtlasRecord
from trickbag.studies.proof import rests_on

COUNTS = {"a": 70, "b": 70, "c": 70}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRICKBAG_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        album(folder / "album", COUNTS, noise=60)
        yield folder


@pytest.fixture(scope="module")
def shelf():
    """Two more tricks, for this module alone."""
    with more_tricks():
        yield


def done(place: Path, out: str, fields=None, **options):
    return study(
        place / "album", recipe=study_lab.recipe(place, **(fields or {})), out=place / out, **{"proof": False} | options
    )


# controls and planted effects


@pytest.fixture(scope="module")
def controls(place):
    """A placebo and two A/A arms beside a trick that acts when images are judged."""
    return done(place, "controls", {"epochs": 3}, tricks=["flip_tta"], same=2)


def test_a_placebo_changes_no_bit(controls):
    found, arrays = study_lab.runs(controls), study_lab.predictions(controls)
    for seed in range(3):
        assert found["placebo", seed]["weights"] == found["reference", seed]["weights"]
        assert found["placebo", seed]["training"] != found["reference", seed]["training"]
        assert arrays["placebo", seed] == arrays["reference", seed]
    told = effect(controls, "placebo", "control")
    assert (told.difference, told.points, told.verdict, told.loss_difference) == (0.0, (0.0, 0.0, 0.0), "identical", 0.0)


def test_the_reference_with_other_seeds_is_not_found_to_help(controls, tmp_path):
    found, alike = study_lab.runs(controls), study_lab.answered(controls, tmp_path / "alike", lambda arm: 0.7)
    for name in ("same 1", "same 2"):
        assert found[name, 0]["weights"] != found["reference", 0]["weights"]
        assert effect(alike, name, "control").difference != 0
        assert effect(alike, name, "control").verdict == "open"
    assert found["same 2", 0]["seed"] == 2000


def test_an_arm_has_one_time_ratio_in_all_tables(controls):
    arms = {arm.name: arm.price.ratio for arm in controls.findings.arms}
    for told in controls.effects:
        if told.arm:
            assert told.seconds_ratio == arms[told.arm]
    assert {told.arm for told in controls.effects} >= {"flip_tta", "same 1"}


def test_seeds_that_change_nothing_are_said_to(place):
    """A fitted classifier on given weights: nothing in it is random."""
    start = tb.train(place / "album", study_lab.recipe(place), out=place / "start").folder
    fixed = study_lab.recipe(place, epochs=0, tricks='"fit_head"')
    for seeds in (2, 3):
        made = study(
            place / "album",
            recipe=fixed,
            weights=str(start),
            tricks=["ncm"],
            out=place / f"idle-{seeds}",
            seeds=seeds,
            rotate=False,
        )
        arms = {arm.name: arm.accuracies for arm in made.findings.arms}
        assert all(len(set(accuracies)) == 1 for accuracies in arms.values()), arms
        assert effect(made, "ncm").difference, "the arms differ, so that a verdict would be wanted"
        page = (made.folder / "report.html").read_text("utf-8")
        assert "fewer than" not in page
        few = [made.findings.answer[0], made.findings.descriptive] if seeds < 3 else []
        for said in (made.findings.noise[0], page, *few):
            assert "The seed changes nothing here" in said
        assert (effect(made, "ncm").interval is None) == (seeds < 3), "images alone give an interval"
        assert "every run of an arm gets the same images right" in effect(made, "ncm").note


def test_seeds_that_change_something_are_not_said_to_change_nothing(controls):
    assert "changes nothing" not in (controls.folder / "report.html").read_text("utf-8")


@pytest.fixture(scope="module")
def proved(place, shelf):
    """A study whose reference says another class for four images of ten, which one value mends, and the proof of it."""
    asked = {"with_": ["wrong_answers(share=0.4)"], "vary": {"wrong_answers.share": [0.0]}}
    return done(place, "proved", {"epochs": 4}, seeds=4, proof=True, **asked)


@pytest.fixture(scope="module")
def mended(proved):
    """What the value does that mends it."""
    (found,) = (e for e in proved.effects if e.kind == "varied")
    return found


def test_an_answer_that_is_mended_helps_and_is_proved(proved, mended):
    assert mended.verdict in ("helps", "worthwhile"), mended
    assert mended.helps > 0.95
    assert proved.proof.verdict == "proved"
    assert list(map(str, proved.recommended.tricks)) == ["wrong_answers(share=0.0)"]
    assert proved.findings.answer[0].startswith("Use this recipe: +")
    assert (proved.folder / "recommended.toml").read_text("utf-8").startswith("# Proved: +")


def test_what_costs_nothing_is_recommended_without_a_proof_and_called_unproved(place, proved, tmp_path):
    asked = {"with_": ["wrong_answers(share=0.4)"], "vary": {"wrong_answers.share": [0.0]}}
    made = done(place, tmp_path / "unproved", {"epochs": 4}, seeds=3, **asked)
    assert made.proof is None
    assert list(map(str, made.recommended.tricks)) == ["wrong_answers(share=0.0)"]
    assert "not proved yet: run the study again with --proof" in made.findings.answer[0]
    assert (made.folder / "recommended.toml").read_text("utf-8").startswith("# Not proved, but expected to gain +")


def test_wrong_answers_hurt(place, shelf):
    hurt = done(place, "wrong", {"epochs": 4}, tricks=["wrong_answers(share=0.4)"], seeds=4)
    told = effect(hurt, "wrong_answers(share=0.4)")
    assert told.verdict == "hurts", told
    assert not hurt.recommended.tricks
    assert "Keep the reference recipe" in hurt.findings.answer[0]


def test_two_tricks_that_do_the_same_have_a_negative_interaction(place, tmp_path):
    """Planted: either of them makes nine answers of ten right, and so do both."""
    tricks = ["ema(half_life=0.1)", "linear"]
    trained = done(place, "redundant", {"epochs": 1}, seeds=4, tricks=tricks, design="two-sided")
    made = study_lab.answered(
        trained, tmp_path / "planted", lambda arm: 0.9 if set(tricks) & set(map(str, arm.recipe.tricks)) else 0.5
    )
    for name in tricks:
        assert effect(made, name).verdict in ("helps", "worthwhile")
        assert effect(made, name, "dropped").verdict == "open"
    told = effect(made, "ema(half_life=0.1)", "interaction")
    assert told.difference < -0.1
    assert told.verdict == "hurts", told


# failures


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


def test_a_run_that_was_not_made_yet_is_no_failure(controls, tmp_path):
    """A report on a study that was stopped."""
    shutil.copytree(controls.folder, tmp_path / "stopped")
    held = study_lab.held(tmp_path / "stopped")
    arm = next(arm for arm in held.arms if arm.name == "flip_tta")
    store.remove(held.place.run(held.cell(arm, 1).key))
    found = {arm.name: arm for arm in conduct.report(tmp_path / "stopped").findings.arms}
    assert [accuracy is None for accuracy in found["flip_tta"].accuracies] == [False, True, False]
    assert (found["flip_tta"].failed, found["flip_tta"].failure_interval) == (0, None)


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


# what is decided, and where arms are judged


def test_folds_judge_every_image_once_in_each_repeat_and_the_test_never(place):
    made = done(place, "folds", {"epochs": 1}, tricks=["flip_tta"], folds="2x2")
    assert made.findings.seeds == (0, 1, 2, 3)
    seen = {}
    for block in range(4):
        cell = study_lab.held(made).cell(study_lab.held(made).arms[0], block)
        with np.load(study_lab.held(made).place.run(cell.key) / "predictions.npz") as arrays:
            assert sorted(arrays.files) == ["test_labels", "test_logits", "test_rows"]
            seen[block] = set(arrays["test_rows"].tolist())
    assert not seen[0] & seen[1]
    assert seen[0] | seen[1] == seen[2] | seen[3]
    assert seen[0] != seen[2]
    counts = study_lab.held(made).held.counts
    assert len(seen[0] | seen[1]) == counts.pool == sum(COUNTS.values()) - counts.test


def test_a_dear_trick_gets_a_reference_that_is_trained_as_long(place):
    made = done(place, "matched", {"epochs": 3, "size": 16}, tricks=["sam"], seeds=1, matched=True)
    arms = {arm.name: arm for arm in made.findings.arms}
    extra = [arm for arm in arms.values() if arm.role == "matched"]
    assert len(extra) == 1
    assert extra[0].edits == f"epochs={round(3 * arms['sam'].price.ratio)}"
    again = done(place, "matched", {"epochs": 3, "size": 16}, tricks=["sam"], seeds=1, matched=True)
    assert [arm.name for arm in again.findings.arms] == [arm.name for arm in made.findings.arms]


def test_the_proof_has_fresh_seeds_and_images_that_chose_nothing(proved, mended):
    found, held = proved.proof, study_lab.held(proved)
    assert len(found.seeds) == 5
    assert not set(found.seeds) & set(proved.findings.seeds)
    assert found.images == held.held.counts.proof
    read, judged, proving = {}, set(), set()
    for arm in held.arms:
        for turn in range(len(held.seeds)):
            with np.load(held.place.run(held.cell(arm, turn).key) / "predictions.npz") as arrays:
                judged |= set(arrays["test_rows"].tolist())
        for cell in held.proofs(arm):
            path = held.place.run(cell.key) / "predictions.npz"
            if path.exists():
                with np.load(path) as arrays:
                    proving |= set(arrays["test_rows"].tolist())
                    read.setdefault(arm.name, []).append(
                        float((arrays["test_logits"].argmax(1) == arrays["test_labels"]).mean())
                    )
    assert len(proving) == found.images
    assert not judged & proving, "images that had chosen the recipe prove it"
    assert {name: tuple(values) for name, values in read.items()} == {
        "reference": found.reference,
        mended.arm: found.nominee,
    }
    assert found.difference == pytest.approx(np.mean(found.nominee) - np.mean(found.reference))
    assert found.expected == pytest.approx(mended.expected)


def test_a_nomination_that_rests_on_a_restless_reference_is_believed_the_less(place, tmp_path):
    """Planted: the same accuracies in the mean over seeds, and of the reference alone others from seed to seed."""
    trained = done(place, "without", {"epochs": 2}, tricks=["mixup", "label_smoothing"])
    moods = itertools.cycle([0.45, 0.95, 0.7])

    def chance(arm, reference):
        return 0.7 + 0.2 * ("mixup" in arm.edits) - 0.1 * ("smoothing" in arm.edits) if arm.edits else reference()

    wider = []
    for name, reference in (("calm", lambda: 0.7), ("restless", lambda: next(moods))):
        made = study_lab.answered(trained, tmp_path / name, partial(chance, reference=reference))
        held = study_lab.held(made)
        runs, known, results, _ = analysis.measured(held)
        found = questions.answers(held, known, runs, results)
        nominated = recommend.nominate(held, found, recommend.believed(found, {}))
        assert nominated.changes == ("+mixup",)
        wider.append(rests_on(held, runs, nominated).sd / nominated.belief.sd)
    assert wider[0] < 1.1
    assert wider[1] > 1.25


def test_another_candidate_on_the_same_images_has_a_stricter_proof(proved, place, tmp_path):
    """Planted: the study put another recipe to the proof before."""
    shutil.copytree(proved.folder, tmp_path / "again")
    record = StudyRecord.load(tmp_path / "again")
    other = record.nominees[0].model_copy(update={"recipe": record.nominees[0].recipe | {"epochs": 3}})
    changed = record.model_copy(update={"nominees": [other, *record.nominees]})
    store.write(tmp_path / "again" / "study.json", store.to_json(StudyRecord.of(changed.plain()).signed()))
    found = conduct.report(tmp_path / "again").proof
    assert (proved.proof.level, found.level) == (0.05, 0.025)
    assert found.interval.low < proved.proof.interval.low


def test_what_other_data_sets_found_is_expected_here_and_named(place):
    """Planted: on four sets of another kind of photo mixup had gained ten points, and here nothing speaks for or against it."""
    sets = [found(f"set {n}", {"mixup": measured("mixup", 0.1 + n / 1000, 0.005)}, regime="from scratch") for n in range(4)]
    file = place / "atlas.json"
    store.write(file, store.to_json(AtlasRecord.build(combined(sets, "2026-11-29")).signed()))
    plain, told = (
        done(place, name, {"epochs": 2}, tricks=["mixup", "label_smoothing"], **asked)
        for name, asked in (("without", {}), ("with", {"prior": str(file)}))
    )
    before, after = effect(plain, "mixup", "main"), effect(told, "mixup", "main")
    assert before.difference == after.difference
    assert before.expected < after.expected
    assert after.helps > 0.9
    assert effect(plain, "label_smoothing", "main").difference == effect(told, "label_smoothing", "main").difference
    assert told.findings.prior.startswith(f"{file} (from scratch, 4 data sets, 2026-11-29), for mixup; for the others")
    assert str(file) in dict(told.findings.decided)["expected before"]


def test_judging_on_the_test_images_is_labelled(place):
    told = []
    made = done(place, "on-test", {"epochs": 1}, tricks=["flip_tta"], seeds=1, on="test", tell=told.append)
    assert made.findings.on_test
    assert dict(made.findings.decided)["judged on"].startswith("the test images")
    assert any("chosen on them" in event.text for event in told if isinstance(event, Note))
    with pytest.raises(UsageError, match="holds another study"):
        done(place, "on-test", {"epochs": 1}, tricks=["flip_tta"], seeds=1)


def test_a_budget_chooses_seeds_or_says_that_it_is_too_short(place, monkeypatch):
    """Every step takes as long as on a machine that never changes."""
    timing = Timing(train=0.01, judge=0.004, memory=0, loss=1.0)
    monkeypatch.setattr("trickbag.studies.plan.fastest", lambda recipe, *_: (recipe, timing))
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)

    def planned(budget=0.0, gone=0.0, **options):
        options |= {"budget": budget / SAFETY, "recipe": study_lab.recipe(place, epochs=2), "began": 100.0 - gone}
        return conduct.plan(place / "album", **{"tricks": ["mixup", "random_erasing"]} | options)

    one = planned(seeds=1).seconds
    assert len(planned(budget=7.5 * one, gone=2 * one, proof=False).seeds) == 5  # reading and timing count
    assert len(planned(budget=20 * one, proof=False).seeds) == 20
    three = {"tricks": ["mixup", "random_erasing", "label_smoothing"], "design": "add-one"}
    each = planned(seeds=1, **three).seconds
    assert len(planned(budget=7.5 * each, proof=False, **three).seeds) == 7
    assert len(planned(budget=100 * one).seeds) == 20
    assert len(planned(budget=7.5 * one, proof=False).seeds) == 7
    assert 3 <= len(planned(budget=7.5 * one).seeds) < 7
    assert planned(budget=7.5 * one).proof
    assert len(planned(budget=2.9 * one, proof=False).seeds) == 3  # of a smaller design
    assert not planned(budget=2.9 * one).proof
    with pytest.raises(UsageError, match=r"--budget 0.0011.*s is too short: 3 seeds of the .* take about [^.]+ s\. .*epochs"):
        planned(budget=0.001)
    with pytest.raises(UsageError, match=r"design, with the proof, take about .* s\. Give as much"):
        planned(budget=2.9 * one, proof=True)


def test_what_a_budget_chose_stays_when_the_study_goes_on(place, monkeypatch):
    """On a machine that is slower by then, and with other options on one that is not."""
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)

    def planned(train, **options):
        timing = Timing(train=train, judge=0.004, memory=0, loss=1.0)
        monkeypatch.setattr("trickbag.studies.plan.fastest", lambda recipe, *_: (recipe, timing))
        asked = {"recipe": study_lab.recipe(place, epochs=2), "tricks": ["mixup", "random_erasing"]}
        asked |= {"budget": 200.0} | options
        planner = Planner(place / "album", None, place / "slower", 100.0, silent, asked)
        return planner, planner.planned()

    first, plan = planned(0.01)
    conduct.Conductor(first, conduct.Means()).write(plan)
    assert len(plan.seeds) > 3
    again = planned(0.012)[1]
    assert (again.seeds, again.design.kind) == (plan.seeds, plan.design.kind)
    assert len(planned(0.012, budget=201.0)[1].seeds) < len(plan.seeds)


def test_an_arm_that_a_look_decided_gets_no_more_seeds(place):
    """Mixing with a share of 0 is the same network, so its arm is decided at once; smoothing is not, with half a percent."""
    still = "mixup(alpha=0.0)"
    told, options = [], {"tricks": [still, "label_smoothing"], "design": "add-one", "seeds": 4, "delta": 0.0}
    made = done(place, "looks", looks=True, tell=told.append, **options)
    assert f"{still} is decided after 3 seeds and stops" in [e.text for e in told if isinstance(e, Note)]
    seeds = {name: [s for arm, s in study_lab.runs(made) if arm == name] for name in ("reference", still, "label_smoothing")}
    assert seeds == {"reference": [0, 1, 2, 3], still: [0, 1, 2], "label_smoothing": [0, 1, 2, 3]}
    arms = {arm.name: arm for arm in made.findings.arms}
    assert (len(arms[still].accuracies), arms[still].failed) == (3, 0)
    assert effect(made, still).verdict == "identical"
    assert "level 0.5 %, the look after 3 of 4 seeds" in effect(made, still).note
    assert "level 4.5 %, the look after 4 of 4 seeds" in effect(made, "label_smoothing").note
    assert dict(made.findings.decided)["looks"] == "0.5 % after 3 seeds, 4.5 % after 4 seeds"

    before = study_lab.manifests(made.folder)
    again = done(place, "looks", looks=True, **options)
    assert study_lab.manifests(again.folder) == before
    assert again.findings == made.findings

    whole = done(place, "looks", **options)
    assert len(effect(whole, still).points) == 4
    assert any(text.startswith("looks: none; at first 0.5 %") for text in whole.findings.departures)


def test_a_study_in_which_all_is_decided_ends(place):
    made = done(place, "futile", {"epochs": 1}, tricks=["label_smoothing"], seeds=4, delta=100.0, looks=True)
    assert {seed for _, seed in study_lab.runs(made)} == {0, 1, 2}
    with pytest.raises(UsageError, match=r"looks stop after some seeds, but folds need all runs"):
        done(place, "futile", tricks=["label_smoothing"], folds="2x2", looks=True)


def test_tricks_auto_says_why(place):
    told = []
    made = conduct.plan(place / "album", recipe=study_lab.recipe(place), tricks="auto", seeds=1, tell=told.append)
    notes = [event.text for event in told if isinstance(event, Note)]
    assert made.tricks
    for trick in made.tricks:
        (said,) = (note for note in notes if note.startswith(f"{trick}: "))
        assert said.endswith(".")
        assert len(said) > len(trick) + 20


def test_an_unknown_option_of_a_file_is_told_with_the_file(place):
    (place / "study.toml").write_text('tricks = ["mixup"]\nseed_count = 3\n')
    with pytest.raises(UsageError, match=r"study study\.toml: seed_count: a study has no such field\. It has: recipe"):
        study(place / "album", place / "study.toml")


# the report and the API


def test_the_report_is_a_pure_function_of_the_folder(controls):
    folder = controls.folder
    names = ("report.html", "report.md", "effects.csv", "arms.csv", "recommended.toml")
    before = {name: (folder / name).read_bytes() for name in names}
    conduct.report(folder)
    assert {name: (folder / name).read_bytes() for name in names} == before
    for name in names:
        (folder / name).unlink()
    conduct.report(folder)
    assert {name: (folder / name).read_bytes() for name in names} == before


def test_the_api_gives_effects_the_recommended_recipe_and_the_report(controls, place):
    assert tb.study is study
    assert controls.effects == controls.findings.effects
    assert isinstance(controls.recommended, tb.Recipe)
    assert controls.findings.recommended == f"# The reference recipe: no other is recommended.\n{controls.recommended.toml()}"
    written = controls.report(place / "elsewhere" / "r.html")
    assert written.read_bytes() == (controls.folder / "report.html").read_bytes()
    again = tb.study(
        place / "album", tb.Options(recipe=study_lab.recipe(place, epochs=3), tricks=["flip_tta"], same=2), out=controls.folder
    )
    assert [e.points for e in again.effects] == [e.points for e in controls.effects]


def test_stored_scores_are_those_of_the_stored_predictions(controls):
    held, arms = study_lab.held(controls), {arm.name: arm for arm in controls.findings.arms}
    for arm in held.arms:
        with np.load(held.place.run(held.cell(arm, 0).key) / "predictions.npz") as arrays:
            hits = arrays["test_logits"].argmax(1) == arrays["test_labels"]
        assert arms[arm.name].accuracies[0] == pytest.approx(hits.mean(), abs=1e-12)
    told = effect(controls, "flip_tta")
    assert told.points == pytest.approx(
        [a - b for a, b in zip(arms["flip_tta"].accuracies, arms["reference"].accuracies, strict=True)]
    )


# what is computed of a run's predictions


def test_a_damaged_study_is_told_in_a_sentence(place):
    (place / "damaged").mkdir()
    with pytest.raises(UsageError, match=r"holds no study.*Give the folder"):
        conduct.report(place / "damaged")
    store.write(place / "damaged" / "study.json", "{")
    with pytest.raises(TrickbagError, match=r"study\.json is damaged.*Give the same trickbag study command again"):
        conduct.report(place / "damaged")


# the images that judge chose nothing


FEW = {"a": 40, "b": 40, "c": 40}


def asked(data: Path, **options):
    return Planner(data, None, None, None, silent, {"tricks": ["ema"]} | options)


def test_a_prior_that_cannot_be_read_is_refused_before_steps_are_timed(place, monkeypatch):
    monkeypatch.setattr("trickbag.runs.auto.decide", lambda *_: pytest.fail("steps were timed"))
    with pytest.raises(UsageError, match=r"nothing\.json' cannot be read"):
        asked(place / "album", recipe=study_lab.recipe(place), prior="nothing.json").planned()


@pytest.fixture(scope="module")
def fitted(place):
    """A network that was trained on other photos of the same kind, and a few photos to fine-tune it on."""
    album(place / "before", {"a": 60, "b": 60, "c": 60}, noise=20, seed=1)
    album(place / "few", FEW, noise=60, seed=2)
    return tb.train(place / "before", study_lab.recipe(place, epochs=4), out=place / "fitted").folder


def test_an_arm_is_judged_by_the_network_that_its_trick_shaped(place, fitted):
    """Training makes the fitted classifier worse here, and epoch 0 is the best of every arm."""
    rough = study_lab.recipe(place, epochs=2, lr=1.0, tricks='"fit_head"', keep="best")
    made = study(place / "few", recipe=rough, weights=str(fitted), tricks=["mixup", "label_smoothing"], out=place / "rough")
    assert {run["kept_epoch"] for run in study_lab.runs(made).values()} == {2, 0}, "0 of the neighbours, which train nothing"
    assert {e.verdict for e in made.effects if e.name in ("mixup", "label_smoothing")}.isdisjoint({"identical"})
    assert made.findings.answer[0].startswith("Do not fine-tune here, or more gently")
    assert made.recommended.epochs == 0, "the classifier alone is the best candidate"
    best = study(
        place / "few",
        recipe=rough,
        weights=str(fitted),
        tricks=["mixup", "label_smoothing"],
        out=place / "kept",
        set_={"keep": "best"},
    )
    assert study_lab.held(best).arms[0].recipe.keep == "best"


def test_each_seed_judges_other_images_and_learns_from_none_of_them(place, controls):
    held = study_lab.held(controls)
    images = asked(place / "album", recipe=study_lab.recipe(place, epochs=3)).data.images
    tables = [held.judging.table(images, turn) for turn in range(3)]
    judged = [set(np.flatnonzero(table.splits == "test").tolist()) for table in tables]
    assert not judged[0] & judged[1] | judged[0] & judged[2] | judged[1] & judged[2]
    for arm in held.arms:
        for turn, rows in enumerate(judged):
            with np.load(held.place.run(held.cell(arm, turn).key) / "predictions.npz") as arrays:
                assert set(arrays["test_rows"].tolist()) == rows
    proof = [set(held.judging.judges(images, turn, "proof").tolist()) for turn in range(2)]
    test = set(np.flatnonzero(images.splits == "test").tolist())
    assert proof[0] & proof[1] == test
    assert not (proof[0] | proof[1]) & set().union(*judged)
    assert len(set().union(*proof, *judged)) == len(images)
    for table in tables:
        assert table.split("val").counts().min() > 0
        assert set(np.flatnonzero(table.splits == "apart").tolist()) == test
    assert controls.findings.images == len(set().union(*judged))


def test_after_the_last_fold_a_new_partition_of_the_same_images_begins(place):
    made = done(place, "longer", {"epochs": 1}, tricks=["flip_tta"], seeds=3)
    before = study_lab.manifests(made.folder)
    more = done(place, "longer", {"epochs": 1}, tricks=["flip_tta"], seeds=5)
    after = study_lab.manifests(more.folder)
    assert {path: after[path] for path in before} == before, "what was finished was made again"
    held, rows = study_lab.held(more), []
    for turn in range(5):
        with np.load(held.place.run(held.cell(held.arms[0], turn).key) / "predictions.npz") as arrays:
            rows.append(set(arrays["test_rows"].tolist()))
    assert not rows[3] & rows[4]
    assert rows[3] | rows[4] < rows[0] | rows[1] | rows[2]
    assert rows[3] not in rows[:3]
    assert more.findings.images == made.findings.images


def test_given_validation_images_judge_every_seed_and_choose_nothing(place):
    """What must be chosen is chosen on training images that are set apart."""
    for split, counts in {"train": {"a": 30, "b": 30, "c": 30}, "val": {"a": 12, "b": 12, "c": 12}}.items():
        album(place / "given" / split, counts, seed=len(split))
    made = study(place / "given", recipe=study_lab.recipe(place, epochs=1), tricks=["calibrate"], out=place / "given-study")
    held = study_lab.held(made)
    assert (held.judging.folds, held.held.counts.pool, made.findings.images) == (0, 36, 36)
    images = asked(place / "given", recipe=study_lab.recipe(place, epochs=1)).data.images
    table = held.judging.table(images, 0)
    assert all(path.startswith("val/") for path in table.split("test").paths)
    assert all(path.startswith("train/") for path in table.split("val").paths)
    rotated = conduct.plan(place / "given", recipe=study_lab.recipe(place, epochs=1), tricks=["ema"], rotate=True)
    assert rotated.judging.folds == 5


def test_groups_and_copies_are_judged_together(place):
    root = album(place / "grouped", {"a": 30, "b": 30, "c": 30}, seed=5)
    for number in range(0, 30, 2):
        shutil.copy(root / "a" / f"{number:03d}.png", root / "a" / f"{number:03d}-copy.png")
    planner = asked(root)
    images, judging = planner.data.images, planner.judging
    assert len(set(images.groups.tolist())) < len(images)
    for turn in range(6):
        table = judging.table(images, turn)
        for group in set(images.groups.tolist()):
            assert len(set(table.splits[images.groups == group].tolist())) == 1


def test_a_class_that_would_not_be_learned_judges_nobody():
    images = Images(
        Path(),
        tuple(f"{n}.png" for n in range(21)),
        np.array([0] * 10 + [1] * 10 + [2]),
        np.array(["train"] * 21),
        np.arange(21),
        ("a", "b", "single"),
    )
    judging = Judging("val", 5, 0, 0, 0.2)
    for turn in range(5):
        table = judging.table(images, turn)
        assert table.split("train").counts().min() > 0
        assert table.split("test").counts()[2] == 0
