"""What arms have in common is trained once, across calls too, and no number depends on it."""

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import study_lab
from study_lab import study

from trickbag.engine import judge, loop
from trickbag.runs import run, under_way
from trickbag.studies import worker
from trickbag.studies.finished import Finished
from trickbag.tricks.ema import Ema

AFTERWARDS = ("calibrate", "crop_tta", "crt", "flip_tta", "knn")
WATCHING = ("swa", "ema", "ema(half_life=0.2)")
TRAINING = ("label_smoothing", "mixup")
LATE = "drw"
COUNTS = {"a": 40, "b": 28, "c": 16}
SEEDS = 2


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sharing")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRICKBAG_CACHE", str(folder / "cache"))
        study_lab.album(folder / "album", COUNTS, noise=60)
        yield folder


def done(place: Path, out: str, *tricks: str, **options: object) -> Finished:
    asked = {"design": "add-one", "seeds": SEEDS, "recipe": study_lab.recipe(place, epochs=3), "out": place / out} | options
    return study(place / "album", tricks=tricks, **asked)


@pytest.fixture(scope="module")
def shared(place):
    return done(place, "shared", *AFTERWARDS, *WATCHING, *TRAINING, LATE)


@pytest.fixture(scope="module")
def alone(place):
    return done(place, "alone", *AFTERWARDS, *WATCHING, *TRAINING, LATE, sharing=False)


def weights(finished: Finished) -> dict[tuple[str, int], str]:
    return {cell: record["weights"] for cell, record in study_lab.runs(finished).items()}


def test_predictions_and_weights_of_every_run_are_those_of_runs_trained_alone(shared, alone):
    arms = 2 + len(AFTERWARDS) + len(WATCHING) + len(TRAINING) + 1  # the reference and the placebo too
    assert len(weights(alone)) == SEEDS * arms
    assert weights(shared) == weights(alone)
    assert study_lab.predictions(shared) == study_lab.predictions(alone)
    own = {arm: weights(shared)[arm, 0] for arm, seed in weights(shared) if seed == 0}
    assert len({own[arm] for arm in ("reference", "crt", *WATCHING, *TRAINING, LATE)}) == 4 + len(WATCHING) + len(TRAINING) - 1


def test_the_same_findings_but_for_prices_and_sharing(shared, alone):
    def told(finished):
        return [replace(e, seconds_ratio=None) for e in finished.effects]

    assert told(shared) == told(alone)


def test_at_most_60_percent_of_the_steps_are_trained(shared, alone):
    found, naive = shared.findings.sharing, alone.findings.sharing
    assert naive.trained_steps == naive.naive_steps == found.naive_steps
    assert found.trained_steps <= 0.6 * found.naive_steps
    steps = study_lab.runs(shared)["reference", 0]["steps"]
    late = steps - study_lab.runs(shared)[LATE, 0]["first_step"]
    assert found.trained_steps == SEEDS * ((2 + len(TRAINING)) * steps + late)


def test_the_price_of_an_arm_is_that_of_a_training_of_its_own(place, monkeypatch):
    """Seconds count the common beginning for every arm, and no watcher but the arm's own."""
    now = 0.0

    def takes(seconds, does):
        def slower(*args):
            nonlocal now
            now += seconds
            return does(*args)

        return slower

    clock = SimpleNamespace(monotonic=lambda: now, perf_counter=lambda: now)
    for module in (judge, loop, run, under_way, worker):
        monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(loop.Loop, "set_lr", takes(1, loop.Loop.set_lr))
    monkeypatch.setattr(Ema, "after_step", takes(100, Ema.after_step))
    made = done(place, "priced", "calibrate", "ema", "mixup", LATE, seeds=1)
    seconds = {arm: record["seconds"] for (arm, _), record in study_lab.runs(made).items()}
    steps = study_lab.runs(made)["reference", 0]["steps"]
    assert made.findings.sharing.trained_steps == 3 * steps + steps - study_lab.runs(made)[LATE, 0]["first_step"]
    assert seconds == dict.fromkeys(seconds, steps) | {"ema": 101 * steps}


def test_a_late_trick_goes_on_from_the_state_that_the_reference_left_at_its_beginning(shared):
    found = study_lab.runs(shared)
    steps = found["reference", 0]["steps"]
    for seed in range(SEEDS):
        first = found[LATE, seed]["first_step"]
        assert abs(first - 0.8 * steps) < 1, "the last step of an epoch holds fewer images"
        assert found[LATE, seed]["steps"] == steps
        assert found["reference", seed]["first_step"] == 0
        assert (shared.folder / "forks" / f"{found['reference', seed]['training']}-0.8" / "MANIFEST.json").exists()
    (log, other) = (
        study_lab.held(shared).log(study_lab.held(shared).cell(a, 0)) for a in (arm(shared, LATE), arm(shared, "reference"))
    )
    assert len(log) == 3
    assert [line["val"] for line in log[:2]] == [line["val"] for line in other[:2]]


def arm(finished: Finished, name: str):
    return next(a for a in study_lab.held(finished).arms if a.name == name)


def test_without_the_state_or_with_a_damaged_one_it_trains_from_the_start_to_the_same_end(shared, place):
    """One seed's state is missing, the other's was changed; the runs and their trainings are made again."""
    folder = place / "forgotten"
    shutil.copytree(shared.folder, folder)
    for seed in range(SEEDS):
        record = study_lab.runs(folder)[LATE, seed]
        shutil.rmtree(study_lab.held(folder).place.run(study_lab.held(folder).cell(arm(shared, LATE), seed).key))
        shutil.rmtree(folder / "trainings" / record["training"])
        fork = folder / "forks" / f"{study_lab.runs(folder)['reference', seed]['training']}-0.8"
        if seed:
            file = fork / "state.safetensors"
            file.write_bytes(file.read_bytes()[:-1] + b"\x55")
        else:
            shutil.rmtree(fork)
    again = done(place, "forgotten", *AFTERWARDS, *WATCHING, *TRAINING, LATE)
    assert [study_lab.runs(again)[LATE, seed]["first_step"] for seed in range(SEEDS)] == [0, 0]
    assert weights(again) == weights(shared)
    assert study_lab.predictions(again) == study_lab.predictions(shared)


def test_a_study_that_grows_trains_only_what_is_new(place, alone):
    def grown(*tricks, **options):
        return done(place, "grown", *tricks, **options)

    first = grown("mixup", seeds=1)
    before, told = study_lab.manifests(first.folder), study_lab.ledger(first.folder)
    grown("mixup", seeds=1)
    assert study_lab.ledger(first.folder) == told, "the same call carried a job out again"

    grown("mixup", "calibrate", "flip_tta", seeds=1)  # act on what was trained: nothing is trained
    after = study_lab.manifests(first.folder)
    assert {name for name in after if name.startswith("trainings/")} == {n for n in before if n.startswith("trainings/")}
    assert len(after) == len(before) + 2
    assert before.items() <= after.items(), "something that was finished was made again"

    before = after
    more = grown("mixup", "calibrate", "flip_tta", "label_smoothing", seeds=1)  # one training of its own
    after = study_lab.manifests(first.folder)
    assert before.items() <= after.items()
    assert len(after) == len(before) + 2
    assert study_lab.ledger(first.folder)[-1] == ("ended", ("label_smoothing",), 0)

    before, told = after, study_lab.ledger(first.folder)
    last = grown("mixup", "calibrate", "flip_tta", "label_smoothing", seeds=2)  # the new seed alone
    assert before.items() <= study_lab.manifests(first.folder).items()
    assert {seed for _, _, seed in study_lab.ledger(first.folder)[len(told) :]} == {1}
    assert last.findings.sharing.trained_steps == 2 * more.findings.sharing.trained_steps
    assert study_lab.predictions(last).items() <= study_lab.predictions(alone).items()

    assert first.findings.departures == ()
    assert [d.partition(":")[0] for d in last.findings.departures] == ["arms", "family of declared effects"] * 2 + ["seeds"]
    assert all("at first reference, mixup, placebo" in d for d in last.findings.departures if d.startswith("arms:"))
    assert last.findings.departures[-1] == "seeds: 0, 1; at first 0."


def test_a_watcher_that_comes_later_is_what_it_would_have_been_from_the_start(place, alone):
    """What was trained without it is trained again, since it must look on; the runs that are there stay."""
    first = done(place, "later", "flip_tta", seeds=1)
    before = {n: t for n, t in study_lab.manifests(first.folder).items() if n.startswith("runs/")}
    later = done(place, "later", "flip_tta", "swa", LATE, seeds=1)
    assert before.items() <= study_lab.manifests(first.folder).items()
    assert study_lab.predictions(later).items() <= study_lab.predictions(alone).items()


def test_seeds_beyond_the_end_of_a_partition_are_those_of_a_study_that_had_them_at_once(place):
    """The fourth seed judges a fold that is cut from all of the first three."""
    first = done(place, "three", "label_smoothing", seeds=3)
    before, told = study_lab.manifests(first.folder), study_lab.ledger(first.folder)
    more = done(place, "three", "label_smoothing", seeds=4)
    assert before.items() <= study_lab.manifests(more.folder).items()
    assert {seed for _, _, seed in study_lab.ledger(more.folder)[len(told) :]} == {3}
    assert study_lab.predictions(more) == study_lab.predictions(done(place, "four", "label_smoothing", seeds=4))
    rows = {
        seed: np.frombuffer(arrays["test_rows"], np.int64)
        for (arm, seed), arrays in study_lab.predictions(more).items()
        if arm == "reference"
    }
    assert all(len(np.intersect1d(rows[3], rows[seed])) for seed in range(3)), (
        "the fourth fold is cut from all of the first three"
    )
    assert set(rows[3]) <= set(np.concatenate([rows[seed] for seed in range(3)]))
