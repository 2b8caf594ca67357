"""Who judges: images that chose nothing and that nothing was trained on, another fold for each seed."""

import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import study_lab
from study_lab import COUNTS, album, done, study

import trickbag as tb
from trickbag.data.images import Images
from trickbag.engine.assemble import assemble
from trickbag.engine.loop import Diverged
from trickbag.engine.speed import Timing
from trickbag.ground.errors import UsageError
from trickbag.ground.events import Note, silent
from trickbag.statistics.power import churn
from trickbag.studies import conduct
from trickbag.studies.folds import Judging
from trickbag.studies.pilot import ASSUMED, Expected, Pilot
from trickbag.studies.plan import StudyPlan
from trickbag.studies.planning import Planner

FEW = {"a": 40, "b": 40, "c": 40}


def asked(data: Path, **options):
    return Planner(data, None, None, None, silent, {"tricks": ["ema"]} | options)


@pytest.fixture(scope="module")
def fitted(place):
    """A network that was trained on other photos of the same kind, and a few photos to fine-tune it on."""
    album(place / "before", {"a": 60, "b": 60, "c": 60}, noise=20, seed=1)
    album(place / "few", FEW, noise=60, seed=2)
    return tb.train(place / "before", study_lab.recipe(place, epochs=4), out=place / "fitted").folder


@pytest.fixture(scope="module")
def rotated(place):
    """A study whose three seeds judge three folds."""
    return done(place, "rotated", {"epochs": 1}, tricks=["flip_tta"], same=1)


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


def test_what_a_plan_resolves_follows_from_trainings_of_the_reference(place, fitted):
    """Two of them, where one is short; else what a classifier on the initial features does; else nothing is known."""
    album(place / "hard", FEW, noise=200, seed=3)

    def plan(data: str, epochs: int, weights: str = "none") -> StudyPlan:
        recipe = study_lab.recipe(place, epochs=epochs)
        return conduct.plan(place / data, recipe=recipe, weights=weights, tricks=["mixup"], seeds=3)

    short, harder = plan("album", 1, str(fitted)), plan("hard", 1, str(fitted))
    long, longer, unknown = plan("album", 10**5, str(fitted)), plan("hard", 10**5, str(fitted)), plan("album", 10**5)
    assert all(one.expected.known.startswith("two trainings of the reference on three quarters") for one in (short, harder))
    assert all(
        one.expected.known.endswith("as a classifier on its initial features did, on a sample") for one in (long, longer)
    )
    assert unknown.expected == ASSUMED
    for easy, hard in ((short, harder), (long, longer)):
        assert hard.expected.right < 0.9 < easy.expected.right < 1
        assert easy.expected.churn < hard.expected.churn
    assert long.resolves(3) < 0.8 * unknown.resolves(3)
    lines = "\n".join(harder.lines())
    assert f"disagree on {100 * harder.expected.churn:.0f} % of the images ({harder.expected.known})" in lines
    assert "networks that get 75 % right do, and nothing tells before" in "\n".join(unknown.lines())


def test_how_often_two_trainings_disagree_is_counted(place, fitted, monkeypatch):
    """By what the two networks say; where nothing is learned they agree on all, however many are wrong."""
    album(place / "guess", FEW, noise=200, seed=4)
    loops = []

    def kept(*asked):
        loops.append(assemble(*asked))
        return loops[-1]

    monkeypatch.setattr("trickbag.studies.pilot.assemble", kept)
    for lr in (1e-9, 0.1):
        loops.clear()
        recipe = study_lab.recipe(place, epochs=1, lr=lr)
        made = conduct.plan(place / "guess", recipe=recipe, weights=str(fitted), tricks=["mixup"], seeds=3).expected
        one, other = (loop.judge.logits("val")[0].argmax(1) == loop.judge.loaders["val"].labels for loop in loops)
        differ, right = int((one != other).sum()), int(one.sum() + other.sum())
        assert (differ == 0) == (lr < 0.1)
        assert made.right == (right + 1) / (2 * len(one) + 2)
        usual = churn(made.right)
        assert made.churn == pytest.approx((differ + 10) / (len(one) + 10 / usual))
        told = f"on {100 * differ / len(one):.0f} % of the others, with {50 * right / len(one):.0f} % right"
        assert f"{told}; most networks with as many right do on {100 * usual:.0f} %" in made.known


def test_no_more_disagreement_is_expected_than_chance_makes():
    one = np.arange(40) % 2 > 0
    assert Expected.counted(one, ~one).churn == 0.5


def trials(monkeypatch):
    """How many images each trial has from now on."""
    seen = []

    def trial(recipe, data, *rest):
        seen.append(len(data.images))
        return assemble(recipe, data, *rest)

    monkeypatch.setattr("trickbag.studies.pilot.assemble", trial)
    return seen


def test_a_classifier_is_tried_on_a_sample_as_far_as_time_lasts(place, fitted, monkeypatch):
    seen = trials(monkeypatch)
    wanted = asked(place / "album", recipe=study_lab.recipe(place, epochs=10**5), weights=str(fitted)).wanted
    for sample, least in ((60, 60), (10, 24)):
        seen.clear()
        monkeypatch.setattr("trickbag.studies.pilot.SAMPLE", sample)
        assert "a classifier" in Pilot(wanted).expected.known
        assert seen == [least]
    seen.clear()
    assert Pilot(wanted, seconds=0.0).expected == ASSUMED
    monkeypatch.setattr(Pilot, "timing", lambda *_: Timing(1.0, 1.0, 0, 0.0))
    assert Pilot(wanted).expected == ASSUMED  # twenty images in as many seconds
    assert seen == []


def test_nothing_is_tried_where_images_are_few(place, fitted, monkeypatch):
    album(place / "tiny", {"a": 9, "b": 9, "c": 9}, noise=20, seed=5)
    seen = trials(monkeypatch)
    wanted = asked(place / "tiny", recipe=study_lab.recipe(place, epochs=1), weights=str(fitted)).wanted
    assert Pilot(wanted).expected == ASSUMED
    assert seen == []


def test_a_trial_ends_when_its_time_is_over(place):
    wanted = asked(place / "album", recipe=study_lab.recipe(place, epochs=50)).wanted
    rows = np.arange(len(wanted.data.images))
    assert Pilot(wanted).right(wanted.recipe, rows, until=0.0) is None


def test_no_second_training_is_begun_for_which_no_time_is_left(place, monkeypatch):
    wanted = asked(place / "album", recipe=study_lab.recipe(place, epochs=1)).wanted
    pilot, turns = Pilot(wanted, seconds=1.0), []

    def right(recipe, rows, until, turn=0):
        turns.append(turn)
        time.sleep(0.6)
        return np.arange(20) % 2 > 0

    monkeypatch.setattr(pilot, "seconds", lambda _: 0.1)
    monkeypatch.setattr(pilot, "right", right)
    assert pilot.trained(np.arange(100)) == Expected.guessed(
        0.5, "as the reference did, trained once on three quarters of them"
    )
    assert turns == [0]


def test_a_reference_that_trains_nothing_is_no_trial_of_trainings(place, fitted):
    fields = {"epochs": 0, "tricks": '"fit_head"'}
    wanted = asked(place / "album", recipe=study_lab.recipe(place, **fields), weights=str(fitted)).wanted
    assert "a classifier" in Pilot(wanted).expected.known


def test_what_needs_other_networks_or_photos_is_left_out_of_a_trial(place, fitted):
    (place / "unlabelled").mkdir()
    for photo in (place / "few" / "a").iterdir():
        shutil.copy(photo, place / "unlabelled")
    tricks = f"\"distill(teacher='{fitted}')\", \"fixmatch(unlabelled='{place / 'unlabelled'}')\""
    for chosen, named in ((tricks.partition(", ")[0], "distill"), (tricks.partition(", ")[2], "fixmatch")):
        wanted = asked(place / "album", recipe=study_lab.recipe(place, epochs=1, tricks=chosen)).wanted
        assert f"two trainings of the reference without {named} on" in Pilot(wanted).expected.known


@pytest.mark.parametrize("failure", [RuntimeError("of the trial"), Diverged(3, 0.1, [])])
@pytest.mark.parametrize(("fails", "known"), [(0, "as a classifier on its initial features did"), (1, "trained once on")])
def test_a_reference_that_fails_in_its_trial_fails_when_its_turn_comes(place, fitted, failure, fails, known, monkeypatch):
    def trial(recipe, data, pixels, seed, *rest):
        if recipe.epochs and seed == fails:
            raise failure
        return assemble(recipe, data, pixels, seed, *rest)

    monkeypatch.setattr("trickbag.studies.pilot.assemble", trial)
    recipe = study_lab.recipe(place, epochs=1)
    made = conduct.plan(place / "album", recipe=recipe, weights=str(fitted), tricks=["mixup"], seeds=3)
    assert known in made.expected.known


def test_a_trial_keeps_groups_together_and_a_plan_counts_them(place, tmp_path, monkeypatch):
    """Ten photos of each of twelve patients: the trial's quarter are other patients, and only patients count as independent."""
    photos = sorted((place / "album").rglob("*.png"))[:120]
    rows = [f"{photo},{photo.parent.name},{n // 10}" for n, photo in enumerate(photos)]
    (tmp_path / "grouped.csv").write_text("\n".join(["path,class,group", *rows]))
    seen = []

    def trial(recipe, data, *rest):
        seen.append(data.images)
        return assemble(recipe, data, *rest)

    monkeypatch.setattr("trickbag.studies.pilot.assemble", trial)
    asked = {"recipe": study_lab.recipe(place, epochs=1), "tricks": ["mixup"], "seeds": 3}
    made = conduct.plan(tmp_path / "grouped.csv", **asked)
    assert seen
    for images in seen:
        groups = [set(images.groups[images.splits == split].tolist()) for split in ("train", "val")]
        assert groups[0]
        assert groups[1]
        assert not groups[0] & groups[1]
    assert made.groups < made.images
    assert made.proof.groups < made.proof.images


def test_each_seed_judges_other_images_and_learns_from_none_of_them(place, rotated):
    held = study_lab.held(rotated)
    images = asked(place / "album", recipe=study_lab.recipe(place, epochs=1)).data.images
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
    assert rotated.findings.images == len(set().union(*judged))


def test_after_the_last_fold_a_new_partition_of_the_same_images_begins(place, rotated):
    before = study_lab.manifests(rotated.folder)
    more = done(place, "rotated", {"epochs": 1}, tricks=["flip_tta"], same=1, seeds=5)
    after = study_lab.manifests(more.folder)
    assert {path: after[path] for path in before} == before, "what was finished was made again"
    held, rows = study_lab.held(more), []
    for turn in range(5):
        with np.load(held.place.run(held.cell(held.arms[0], turn).key) / "predictions.npz") as arrays:
            rows.append(set(arrays["test_rows"].tolist()))
    assert not rows[3] & rows[4]
    assert rows[3] | rows[4] < rows[0] | rows[1] | rows[2]
    assert rows[3] not in rows[:3]
    assert more.findings.images == rotated.findings.images


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
    assert ["nll and ece of arms.csv" in effect.note for effect in made.findings.effects if effect.declared] == [True]
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


def test_judging_on_the_test_images_is_labelled(place):
    told = []
    made = done(place, "on-test", {"epochs": 1}, tricks=["flip_tta"], seeds=1, on="test", tell=told.append)
    assert made.findings.on_test
    assert dict(made.findings.decided)["judged on"].startswith("the test images")
    assert any("chosen on them" in event.text for event in told if isinstance(event, Note))
    with pytest.raises(UsageError, match="holds another study"):
        done(place, "on-test", {"epochs": 1}, tricks=["flip_tta"], seeds=1)
