"""Studies from start to end: what is planted is found, and report and Python say what the folder holds."""

import shutil

import numpy as np
import pytest
import study_lab
from study_lab import done, effect, study

import trickbag as tb
from trickbag.ground import store
from trickbag.ground.errors import TrickbagError, UsageError
from trickbag.studies import finished


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
            assert told.seconds_ratio == pytest.approx(arms[told.arm], rel=1e-12)
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
        few = [" ".join(made.findings.answer), made.findings.descriptive] if seeds < 3 else []
        for said in (made.findings.noise[0], page, *few):
            assert "The seed changes nothing here" in said
        assert (effect(made, "ncm").interval is None) == (seeds < 3), "images alone give an interval"
        assert "every run of an arm gets the same images right" in effect(made, "ncm").note


def test_seeds_that_change_something_are_not_said_to_change_nothing(controls):
    assert "changes nothing" not in (controls.folder / "report.html").read_text("utf-8")


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


def test_a_run_that_was_not_made_yet_is_no_failure(controls, tmp_path):
    """A report on a study that was stopped."""
    shutil.copytree(controls.folder, tmp_path / "stopped")
    held = study_lab.held(tmp_path / "stopped")
    arm = next(arm for arm in held.arms if arm.name == "flip_tta")
    store.remove(held.place.run(held.cell(arm, 1).key))
    found = {arm.name: arm for arm in finished.report(tmp_path / "stopped").findings.arms}
    assert [accuracy is None for accuracy in found["flip_tta"].accuracies] == [False, True, False]
    assert (found["flip_tta"].failed, found["flip_tta"].failure_interval) == (0, None)


def test_the_report_is_a_pure_function_of_the_folder(controls):
    folder = controls.folder
    names = ("report.html", "report.md", "effects.csv", "arms.csv", "recommended.toml")
    before = {name: (folder / name).read_bytes() for name in names}
    finished.report(folder)
    assert {name: (folder / name).read_bytes() for name in names} == before
    for name in names:
        (folder / name).unlink()
    finished.report(folder)
    assert {name: (folder / name).read_bytes() for name in names} == before


def test_the_api_gives_effects_the_recommended_recipe_and_the_report(controls, place):
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


def test_a_damaged_study_is_told_in_a_sentence(place):
    (place / "damaged").mkdir()
    with pytest.raises(UsageError, match=r"holds no study.*Give the folder"):
        finished.report(place / "damaged")
    store.write(place / "damaged" / "study.json", "{")
    with pytest.raises(TrickbagError, match=r"study\.json is damaged.*Give the same trickbag study command again"):
        finished.report(place / "damaged")
