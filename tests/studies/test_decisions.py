"""What is declared in advance: its hash is that of each part and of nothing else, and stands before the first run."""

import json
import signal
from dataclasses import replace

import pytest
import study_lab
from studying import Studying

from trickbag.ground import store
from trickbag.statistics.belief import Prior
from trickbag.studies import conduct
from trickbag.studies.arms import Design
from trickbag.studies.decisions import decided, plan_hash

COUNTS = {"across": 20, "along": 20, "up": 20}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("declared")
    study_lab.album(place / "album", COUNTS)
    return place


@pytest.fixture(scope="module")
def plan(place):
    return conduct.plan(place / "album", recipe=study_lab.recipe(place), tricks=["mixup"], seeds=3, out=place / "planned")


def hashed(plan, **priors):
    return plan_hash(decided(plan, priors))


def designed(plan, **fields):
    return replace(plan, design=replace(plan.design, **fields))


def reworded(plan, **fields):
    first, *others = plan.design.questions
    return designed(plan, questions=(replace(first, **fields), *others))


OTHERWISE = {
    "the data": lambda p: replace(p, fingerprint="f" + p.fingerprint[:-1]),
    "an arm": lambda p: designed(p, arms=(*p.design.arms, replace(p.design.arms[1], name="other"))),
    "what an arm edits": lambda p: designed(
        p, arms=tuple(replace(arm, edits="+mixup(alpha=0.4)") if arm.name == "mixup" else arm for arm in p.design.arms)
    ),
    "the reference": lambda p: replace(p, reference=p.reference.edit(lr=0.2)),
    "the epoch that counts": lambda p: replace(p, reference=p.reference.edit(keep="best")),
    "a seed": lambda p: replace(p, seeds=(*p.seeds, 3)),
    "the folds": lambda p: replace(p, judging=replace(p.judging, folds=p.judging.folds + 1)),
    "what divides them": lambda p: replace(p, judging=replace(p.judging, seed=1)),
    "who judges": lambda p: replace(p, judging=replace(p.judging, on="test", folds=0, proving=0)),
    "a contrast": lambda p: designed(p, questions=p.design.questions[1:]),
    "what a contrast is": lambda p: reworded(p, says="the reference minus itself"),
    "the family": lambda p: reworded(p, declared=not p.design.questions[0].declared),
    "the design": lambda p: designed(p, kind="leave-one-out"),
    "the proof": lambda p: replace(p, proof=None),
    "the images of the proof": lambda p: replace(p, proof=replace(p.proof, images=p.proof.images + 1)),
    "no difference": lambda p: replace(p, options=p.options.model_copy(update={"delta": 0.5})),
    "the price": lambda p: replace(p, options=p.options.model_copy(update={"price": 2.0})),
    "the looks": lambda p: replace(p, options=p.options.model_copy(update={"looks": True})),
}


@pytest.mark.parametrize("part", OTHERWISE)
def test_the_hash_changes_with_each_part(plan, part):
    assert hashed(OTHERWISE[part](plan)) != hashed(plan)


def test_the_hash_changes_with_what_is_expected_before(plan):
    one = hashed(plan, mixup=Prior(0.01, 0.0001, 0.0, "an atlas"))
    assert len({hashed(plan), one, hashed(plan, mixup=Prior(0.02, 0.0001, 0.0, "an atlas"))}) == 3


def test_the_hash_changes_with_nothing_else(plan):
    other = replace(plan, seconds=1e6, disk=1, steps_share=0.5, jobs=(), rivals=(("add-one", 0.1),))
    assert isinstance(plan.design, Design)
    slower = replace(other, proof=replace(plan.proof, seconds=1e6), options=plan.options.model_copy(update={"budget": 60.0}))
    assert hashed(slower) == hashed(plan) == hashed(plan)


def test_the_plan_is_stored_before_the_first_run_and_its_hash_stays(place, tmp_path):
    killed = Studying(tmp_path, place / "album", "--recipe", study_lab.recipe(place, epochs=1), "--seeds", "1")
    process = killed.start(at=r"open study/ledger\.jsonl$")
    process.join()
    assert process.exitcode == -signal.SIGKILL, killed.errors
    assert not list(killed.out.glob("runs/*"))
    first = json.loads((killed.out / "study.json").read_text())
    assert first["plan"] == plan_hash(first["decided"])
    assert first["departures"] == []
    killed.arguments += ["--delta", "0.7"]
    killed.run()
    then = json.loads((killed.out / "study.json").read_text())
    assert (then["plan"], then["decided"]) == (first["plan"], first["decided"])
    assert then["departures"] == ["no difference: less than 0.7 points; at first less than 0.2 points."]
    said = " ".join((killed.said.with_suffix(".out").read_text() + killed.errors).split())
    assert f"plan: {first['plan']}, stored in" in said
    assert "1 departure from it" in said
    page = (killed.out / "report.html").read_text()
    assert first["plan"] in page
    assert "at first less than 0.2 points" in page
    for name, said in {"methods.md": first["plan"], "effects.tex": r"\begin{tabular}", "references.bib": "@"}.items():
        assert said in (killed.out / name).read_text(), name


def test_an_earlier_version_s_study_may_lack_a_part(place, tmp_path):
    made = conduct.study(
        place / "album", recipe=study_lab.recipe(place, epochs=1), tricks=["flip_tta"], seeds=1, out=tmp_path / "made"
    )
    held = study_lab.held(made).held.plain()
    del held["decided"]["endpoints"]
    store.write(made.folder / "study.json", store.to_json(conduct.StudyRecord.of(held).signed()))
    again = conduct.study(
        place / "album", recipe=study_lab.recipe(place, epochs=1), tricks=["flip_tta"], seeds=1, out=tmp_path / "made"
    )
    assert again.findings.departures == ()
    assert again.findings.plan == made.findings.plan
