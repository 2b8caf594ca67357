"""Nomination and proof in whole studies, and what is expected before them."""

import itertools
import re
import shutil
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import study_lab
from atlases import found, measured
from reference import joined, satterthwaite
from scipy import stats
from scipy.linalg import helmert
from study_lab import done, effect

from trickbag.ground import store
from trickbag.ground.events import silent
from trickbag.report.findings import CONTROLS
from trickbag.statistics.belief import Prior
from trickbag.statistics.effects import UNMOVED, Sample, effects
from trickbag.statistics.power import BESIDE, elsewhere, evenly
from trickbag.statistics.variance import PRIOR, Part, Share, spread
from trickbag.studies import analysis, conduct, finished, questions, recommend
from trickbag.studies.arms import kept
from trickbag.studies.atlas import combined
from trickbag.studies.folder import StudyRecord
from trickbag.studies.plan import ProofPlan
from trickbag.studies.planning import Planner
from trickbag.studies.prior import AtlasRecord
from trickbag.studies.proof import foreseen, judged_here, level_of, nearest, rests_on, seeds_by_all, seeds_here


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
    assert "not proved yet: run the study again with --proof." in made.findings.answer[0]
    budgeted = StudyRecord.load(made.folder)
    options = budgeted.options.model_copy(update={"budget": 60.0})
    changed = budgeted.model_copy(update={"options": options})
    store.write(made.folder / "study.json", store.to_json(StudyRecord.of(changed.plain()).signed()))
    said = finished.report(made.folder).findings.answer[0]
    assert "run the study again with --proof, and --seeds 3 in the place of --budget." in said
    assert (made.folder / "recommended.toml").read_text("utf-8").startswith("# Not proved, but expected to gain +")


def test_where_the_test_images_chose_the_recipe_no_proof_is_advised(place, shelf, tmp_path):
    asked = {"with_": ["wrong_answers(share=0.4)"], "vary": {"wrong_answers.share": [0.0]}, "on": "test"}
    made = done(place, tmp_path / "read", {"epochs": 4}, seeds=3, **asked)
    assert "that is not proved, and no photos are left that chose nothing" in made.findings.answer[0]


def test_the_proof_has_fresh_seeds_and_images_that_chose_nothing(proved, mended):
    found, held = proved.proof, study_lab.held(proved)
    assert len(found.seeds) == 8
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


def test_an_error_with_few_degrees_of_freedom_is_believed_the_less(mended):
    """As sure as a normal distribution that is as wide as Student's interval for 95 %."""
    found = replace(mended, difference=0.01, error=0.01)
    surer, less = (recommend.believed([replace(found, df=df)], {}) for df in (1e9, 3.0))
    assert surer.of[found.name].helps > less.of[found.name].helps > 0.5
    wide = replace(found, error=0.01 * stats.t.isf(0.025, 3.0) / stats.norm.isf(0.025), df=1e9)
    assert less.of[found.name].helps == pytest.approx(recommend.believed([wide], {}).of[found.name].helps)


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
        nominated = recommend.nominate(held, found, recommend.believed(found, {}, recommend.clear(held)))
        assert nominated.changes == ("+mixup",)
        wider.append(rests_on(held, runs, nominated).sd / nominated.belief.sd)
    assert wider[0] < 1.1
    assert wider[1] > 1.25


def test_of_two_changes_what_is_believed_counts_what_they_share(place, tmp_path):
    """Planted: both help. What is not known of the mean of all effects does not average out over the two."""
    trained = done(place, "without", {"epochs": 2}, tricks=["mixup", "label_smoothing"])
    made = study_lab.answered(
        trained, tmp_path / "both", lambda arm: 0.6 + 0.2 * ("mixup" in arm.edits) + 0.15 * ("smoothing" in arm.edits)
    )
    held = study_lab.held(made)
    runs, known, results, _ = analysis.measured(held)
    found = questions.answers(held, known, runs, results)
    beliefs = recommend.believed(found, {})
    nominated = recommend.nominate(held, found, beliefs)
    assert set(nominated.changes) == {"+mixup", "+label_smoothing"}
    (shared,) = beliefs.together.values()
    alone = sum(one.sd**2 for one in beliefs.of.values())
    assert shared > 0
    assert nominated.belief.sd == pytest.approx((alone + 2 * shared) ** 0.5)


@pytest.fixture(scope="module")
def turned(place, tmp_path_factory):
    """Planted: it helps to take out what the reference holds, more so beside the other trick, which helps too."""
    fields = {"epochs": 2, "tricks": '"label_smoothing"'}
    trained = done(place, "turned", fields, tricks=["mixup", "label_smoothing"])

    def chance(arm):
        mixup, smoothing = (any(trick.name() == name for trick in arm.recipe.tricks) for name in ("mixup", "label_smoothing"))
        return 0.5 + 0.1 * mixup + 0.1 * (not smoothing) + 0.2 * (mixup and not smoothing)

    held = study_lab.held(study_lab.answered(trained, tmp_path_factory.mktemp("turned") / "study", chance))
    runs, known, results, _ = analysis.measured(held)
    return held, runs, questions.answers(held, known, runs, results)


def test_what_is_believed_of_a_removal_is_turned_round(turned):
    """By the coordinates of the design: -1 without a trick, +1 with it, so that the reference is at (-1, +1)."""
    held, _, found = turned
    beliefs = recommend.believed(found, {}, recommend.clear(held))
    names = ["mixup", "label_smoothing", next(name for name in beliefs.of if " × " in name)]
    nominated = recommend.nominate(held, found, beliefs)
    assert nominated.changes == ("+mixup", "-label_smoothing")
    # From (-1, +1) to (+1, -1): an effect counts whole, with its sign, and an interaction not at all.
    change = dict(zip(names, (1.0, -1.0, 0.0), strict=True))
    assert nominated.belief.gain == pytest.approx(sum(change[name] * beliefs.of[name].gain for name in names))
    variance = sum((change[name] * beliefs.of[name].sd) ** 2 for name in names)
    variance += sum(
        2 * change[a] * change[b] * beliefs.together[frozenset({a, b})] for a, b in itertools.combinations(names, 2)
    )
    assert nominated.belief.sd == pytest.approx(variance**0.5)
    assert {part.name: factor for part, factor in nominated.parts} == {"mixup": 1.0, "label_smoothing": -1.0}
    without = beliefs._replace(of=beliefs.of | {"mixup": beliefs.of["mixup"]._replace(gain=-1.0)})
    single = recommend.nominate(held, found, without)
    assert single.changes == ("-label_smoothing",)
    # From (-1, +1) to (-1, -1): the product of the two goes from -1 to +1, and an interaction b adds b / 4 times that.
    assert single.belief.gain == pytest.approx(-beliefs.of[names[1]].gain + 0.5 * beliefs.of[names[2]].gain)
    assert {part.name: factor for part, factor in single.parts}[names[2]] == 0.5


def test_only_interactions_that_the_design_tells_from_others_count(turned):
    held, _, found = turned
    mixed = [replace(question, aliases=("another",)) if question.kind == "pair" else question for question in held.questions]
    assert recommend.clear(SimpleNamespace(questions=held.questions)) == {e.name for e in found if e.kind == "pair"}
    assert recommend.clear(SimpleNamespace(questions=mixed)) == set()


def test_what_was_expected_before_shares_nothing_with_the_others(turned):
    held, _, found = turned
    beliefs = recommend.believed(found, {"mixup": Prior(0.1, 0.01)}, recommend.clear(held))
    assert not any("mixup" in pair for pair in beliefs.together)
    assert any("label_smoothing" in pair for pair in beliefs.together)


def test_what_changed_no_answer_is_not_nominated_for_what_others_gain(turned):
    held, _, found = turned
    still = [replace(e, difference=0.0, note=UNMOVED) if e.name == "mixup" else e for e in found]
    beliefs = recommend.believed(still, {}, recommend.clear(held))
    assert beliefs.of["mixup"].gain == 0
    none = [replace(e, difference=0.0, note=UNMOVED) if e.kind == "main" else e for e in found]
    assert all(own.gain == 0 for own in recommend.believed(none, {}, recommend.clear(held)).of.values())


def test_the_proof_counts_what_seeds_added_in_the_study_as_it_is_known_there(proved):
    """The share of the study, by formulas: carried to fewer judgements by each seed, with its degrees of freedom there."""
    held = study_lab.held(proved)
    nominated = analysis.nomination(held)
    cells = [held.proofs(arm) for arm in (held.arms[0], nominated.arm)]
    both = [[held.judged(cell) for cell in row] for row in cells]
    parts = [Part(other.correct - one.correct, one.rows) for one, other in zip(*both, strict=True)]
    own, study = spread(parts), seeds_here(held)

    def within(judges, seeds):
        """Of one seed's mean, in units of the churn, where one change is kept."""
        often = np.unique(np.concatenate(judges), return_counts=True)[1]
        again = (often**2).sum() / often.sum() - 1
        return (1 + 0.02 * (1 - again / (seeds - 1))) * seeds / often.sum()

    here = within([held.judged(cell).rows for cell in held.row(nominated.arm)], len(held.seeds))
    there = within([part.groups for part in parts], len(parts))
    ratio, added = here / there, max(study.share, 0.0)
    carried = study.share * ratio, study.df * min(((1 + added * ratio) / ((1 + added) * ratio)) ** 2, 1.0)
    known = joined(*joined(own.seed / own.within, 7, *carried), 0.0, PRIOR)
    error = satterthwaite(own.images + 2 / own.groups**2, own.within, 8, own.groups, *known)[0]
    assert proved.proof.effect.error == pytest.approx(error)


def test_before_a_proof_all_arms_say_what_seeds_add_to_two_of_them(turned):
    """By contrasts at right angles, controls left out; those against the reference, which come first, are among them."""
    held, runs, _ = turned
    names = [arm.name for arm in held.arms if arm.role not in CONTROLS]
    assert len(names) < len(held.arms)
    shares, rows = [], []
    for weights in helmert(len(names)):
        values = [weights @ np.array([runs[name][s].correct for name in names]) for s in range(len(held.seeds))]
        one = spread([Part(value, runs[names[0]][s].rows) for s, value in enumerate(values)])
        shares.append(one.seed / one.within)
        rows.append(np.concatenate([value - value.mean() for value in values]))
    alike = np.corrcoef(rows)
    nominated, known = analysis.nomination(held), seeds_here(held)
    besides = len(rows) ** 2 / (alike**2).sum() * (len(held.seeds) - 1) - known.df
    assert besides > 1
    believed = Share(*joined(*known, float(np.mean(shares)), besides))
    assert seeds_by_all(held, known) == pytest.approx(believed)
    plan = ProofPlan(images=60, groups=60, judged=240, seconds=1.0, before=4.0, most=2, apart=1.0)
    near, reference = nearest(held, nominated.arm), held.arms[0]
    found = spread([Part(o.correct - r.correct, r.rows) for o, r in zip(runs[near.name], runs[reference.name], strict=True)])
    here, there = judged_here(held, nominated.arm), plan.spread(kept(nominated.arm.recipe, reference.recipe))
    error, df = elsewhere(found.images, believed, known, here, there, 2 / 60**2)
    assert foreseen(held, nominated, plan).half == pytest.approx(stats.t.ppf(0.975, df) * error)


def test_one_difference_says_once_what_seeds_add(proved):
    held = study_lab.held(proved)
    assert seeds_by_all(held, seeds_here(held)) == seeds_here(held)


def test_the_gain_that_a_plan_prints_is_proved_four_times_in_five():
    """Of binary answers, a part of them the same with every seed, whatever a study of seeds that add nothing says of these."""
    images, judged = evenly(np.repeat([4, 8], [240, 160]))
    plan = ProofPlan(images=400, groups=images, judged=judged, seconds=1.0, before=5.0, most=5, apart=1.0)
    churn, rng, proved = 0.2, np.random.default_rng(0), []
    gain = plan.least(churn, 5)
    assert gain > plan.least(churn, 1)
    folds, test = np.split(np.arange(240), 2), np.arange(240, 400)
    for _ in range(400):
        own = gain + np.sqrt(5 * 0.02 * churn) * rng.choice([-1, 1], 400)
        samples = []
        for seed in range(8):
            rows = np.append(folds[seed % 2], test)
            draws, right = rng.random(len(rows)), np.full((2, len(rows)), 0.5)
            differ = 1.1 * churn  # by chance, and by what the changes do
            right[1] += (draws < (differ + own[rows]) / 2).astype(float) - (draws > 1 - (differ - own[rows]) / 2)
            samples.append(Sample(right, rows))
        shown = effects(samples, [[-1.0, 1.0]], before=Share(rng.chisquare(5) / 5 - 1, 5.0))[0]
        proved.append(shown.verdict in ("helps", "worthwhile"))
    assert np.mean(proved) == pytest.approx(0.8, abs=0.06)


def test_a_plan_of_a_proof_counts_judgements_and_changes(place):
    """By the rows themselves; what the study knows of seeds is carried as far as images make less of their means."""
    asked = {"recipe": study_lab.recipe(place, epochs=1), "tricks": ["mixup", "ema"], "vary": {"lr": [0.3, 0.4]}, "seeds": 3}
    planner = Planner(place / "album", None, None, None, silent, asked)
    made, images = planner.planned(), planner.data.images
    often = [
        np.unique(np.concatenate([made.judging.judges(images, turn, role) for turn in range(count)]), return_counts=True)[1]
        for role, count in (("study", 3), ("proof", 8))
    ]
    assert (made.proof.groups, made.proof.judged) == (often[1].sum() ** 2 / (often[1] ** 2).sum(), often[1].sum())
    assert (often[0] == 1).all()
    others = sum(arm.role not in CONTROLS for arm in made.design.arms[1:])
    known = 2 * others / (1 + (others - 1) / 4)  # correlated by a half through the reference
    assert made.proof.before == pytest.approx(known * min((8 / often[1].sum()) / (3 / often[0].sum()), 1.0) ** 2)
    assert made.proof.most == 3
    line = next(text for text in made.lines() if text.startswith("proof: "))
    assert re.search(r"a gain of [\d.]+ points by one change, or of [\d.]+ points by 3, is proved with 80 % power", line)
    one = conduct.plan(place / "album", **asked | {"tricks": ["mixup"], "vary": {}})
    assert re.search(r"; a gain of [\d.]+ points is proved", next(text for text in one.lines() if text.startswith("proof: ")))
    few = replace(made.proof, groups=4.0, judged=16)
    assert few.least(0.2, 1) > 1
    assert "they are too few, and no gain is proved with 80 % power" in few.line(0.2)
    after = conduct.plan(place / "album", **asked | {"tricks": ["flip_tta"], "vary": {}})
    assert (one.proof.apart, after.proof.apart) == (1.0, BESIDE)
    assert after.proof.least(0.2, 1) < 0.9 * one.proof.least(0.2, 1)


def test_a_candidate_whose_own_arm_failed_is_judged_by_the_arm_that_is_most_like_it(place, tmp_path):
    """Planted: both tricks help, and of the combination of both no run is left."""
    both = [["mixup", "label_smoothing"]]
    asked = {"tricks": ["mixup", "label_smoothing"], "design": "add-one", "combine": both}
    trained = done(place, "combined", {"epochs": 2}, **asked)
    made = study_lab.answered(trained, tmp_path / "failed", lambda arm: 0.6 + 0.15 * len(arm.recipe.tricks))
    held = study_lab.held(made)
    whole = next(arm for arm in held.arms if len(arm.recipe.tricks) == 2)
    for cell in held.row(whole):
        shutil.rmtree(held.place.run(cell.key))
    held = study_lab.held(finished.report(made.folder))
    nominated = analysis.nomination(held)
    assert nominated.arm == whole
    assert nearest(held, whole).recipe.key != whole.recipe.key
    plan = ProofPlan(images=60, groups=60, judged=240, seconds=1.0, before=4.0, most=2, apart=1.0)
    before = foreseen(held, nominated, plan)
    assert 0 < before.likely <= 1
    assert before.half > 0


def test_another_candidate_on_the_same_images_has_a_stricter_proof(proved, place, tmp_path):
    """Planted: the study put another recipe to the proof before."""
    shutil.copytree(proved.folder, tmp_path / "again")
    record = StudyRecord.load(tmp_path / "again")
    other = record.nominees[0].model_copy(update={"recipe": record.nominees[0].recipe | {"epochs": 3}})
    changed = record.model_copy(update={"nominees": [other, *record.nominees]})
    store.write(tmp_path / "again" / "study.json", store.to_json(StudyRecord.of(changed.plain()).signed()))
    again = finished.report(tmp_path / "again")
    found = again.proof
    assert (proved.proof.level, found.level) == (0.05, 0.025)
    assert found.interval.low < proved.proof.interval.low
    plan, studies = (
        ProofPlan(images=60, groups=60, judged=240, seconds=1.0, before=4.0, most=1, apart=1.0),
        map(study_lab.held, (proved, again)),
    )
    first, second = (foreseen(held, analysis.nomination(held), plan) for held in studies)
    assert (first.half < second.half, first.likely > second.likely) == (True, True)
    held = study_lab.held(proved)
    held.facts["departures"].append("plugin wrong_answers: another content")
    assert level_of(held, analysis.nomination(held)) == 0.025
    assert "they test recipe number 2, so at 2.5 %" in again.findings.answer[0]
    assert "they test" not in proved.findings.answer[0]
    texts = {name: [(one.folder / name).read_text("utf-8") for one in (proved, again)] for name in ("methods.md", "report.md")}
    assert ["since it was recipe number 2" in text for text in texts["methods.md"]] == [False, True]
    assert all("points (" in text and "a gain is proved" in text for text in texts["methods.md"])
    assert all(text.startswith("Use this recipe") for text in texts["report.md"])


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


def test_a_damaged_run_of_the_proof_is_among_the_failures(proved, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(proved.folder, copy)
    held = study_lab.held(copy)
    for arm in held.arms[0], held.held.nominees[0].arm():
        (held.place.run(held.proofs(arm)[1].key) / "predictions.npz").write_bytes(b"no archive")
    found = finished.report(copy).findings
    seed = held.held.proof_seeds[1]
    names = {"reference", held.held.nominees[0].name}
    assert {(f.arm, f.seed, f.kind) for f in found.failures} == {(name, seed, "damaged") for name in names}
    assert "its proof is not complete: give the same trickbag study command" in found.answer[0]
    assert "its proof is not complete" not in proved.findings.answer[0]


def test_what_helps_but_adds_nothing_to_the_recipe_is_named(place, tmp_path):
    """Planted: each of two tricks helps, and the two together less than either alone."""
    trained = done(place, "without", {"epochs": 2}, tricks=["mixup", "label_smoothing"])
    right = {0: 0.3, 1: 0.98, 2: 0.85}
    made = study_lab.answered(
        trained, tmp_path / "one", lambda arm: right[sum(trick.name() != "placebo" for trick in arm.recipe.tricks)]
    )
    assert {effect(made, name, "main").verdict for name in ("mixup", "label_smoothing")} == {"worthwhile"}
    (changes,) = [text for text in made.findings.answer if text.startswith("The changes: ")]
    (said,) = [text for text in made.findings.answer if text.startswith("Left out")]
    assert said.startswith(f"Left out, though measured to help: {'label_smoothing' if 'mixup' in changes else 'mixup'}. ")
