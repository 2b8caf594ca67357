"""What a budget, a look, a dear trick or ``--tricks auto`` makes of a study, and what is refused before it begins."""

import time

import pytest
import study_lab
from study_lab import done, effect, study

from trickbag.engine.speed import Timing
from trickbag.ground.errors import UsageError
from trickbag.ground.events import Note, silent
from trickbag.runs.auto import SAFETY
from trickbag.studies import conduct
from trickbag.studies.options import Options
from trickbag.studies.planning import Planner


def test_a_dear_trick_gets_a_reference_that_is_trained_as_long(place):
    made = done(place, "matched", {"epochs": 3, "size": 16}, tricks=["sam"], seeds=1, matched=True)
    arms = {arm.name: arm for arm in made.findings.arms}
    extra = [arm for arm in arms.values() if arm.role == "matched"]
    assert len(extra) == 1
    assert extra[0].edits == f"epochs={round(3 * arms['sam'].price.ratio)}"
    again = done(place, "matched", {"epochs": 3, "size": 16}, tricks=["sam"], seeds=1, matched=True)
    assert [arm.name for arm in again.findings.arms] == [arm.name for arm in made.findings.arms]


def test_a_budget_chooses_seeds_or_says_that_it_is_too_short(place, monkeypatch):
    """Every step takes as long as on a machine that never changes."""
    timing = Timing(train=0.01, judge=0.004, memory=0, loss=1.0)
    monkeypatch.setattr("trickbag.studies.pilot.fastest", lambda recipe, *_: (recipe, timing))
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
    left_out = "proof: left out, since the budget does not hold the"
    assert left_out in "\n".join(planned(budget=2.9 * one).lines())
    assert left_out not in "\n".join([*planned(budget=2.9 * one, proof=False).lines(), *planned(budget=7.5 * one).lines()])
    with pytest.raises(
        UsageError, match=r"A budget of 0\.0011 s is too short: 3 seeds of the .* take about [^.]+ s\. .*epochs"
    ):
        planned(budget=0.001)
    with pytest.raises(UsageError, match=r"design, with the proof, take about .* s\. Give as much"):
        planned(budget=2.9 * one, proof=True)


def test_what_a_budget_chose_stays_when_the_study_goes_on(place, monkeypatch):
    """On a machine that is slower by then, and with other options on one that is not."""
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)

    def planned(train, **options):
        timing = Timing(train=train, judge=0.004, memory=0, loss=1.0)
        monkeypatch.setattr("trickbag.studies.pilot.fastest", lambda recipe, *_: (recipe, timing))
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


def test_a_prior_that_cannot_be_read_is_refused_before_steps_are_timed(place, monkeypatch):
    monkeypatch.setattr("trickbag.runs.auto.decide", lambda *_: pytest.fail("steps were timed"))
    with pytest.raises(UsageError, match=r"nothing\.json' cannot be read"):
        conduct.plan(place / "album", recipe=study_lab.recipe(place), tricks=["ema"], prior="nothing.json")


def test_a_field_that_is_set_beside_a_file_joins_those_of_the_file(tmp_path):
    (tmp_path / "study.toml").write_text('set = {lr = 0.2, size = 16}\nvary = {epochs = [1]}\ntricks = ["ema"]\n')
    for name in "set", "set_":
        made = Options.load(tmp_path / "study.toml", **{name: {"size": 8, "batch_size": 4}}, tricks=["mixup"])
        assert made.set_ == {"lr": 0.2, "size": 8, "batch_size": 4}
        assert (made.vary, made.tricks) == ({"epochs": (1,)}, ("mixup",))
