"""Which images training shows, as a reference network says: easy ones first, and a share of them alone."""

import csv
import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from album import fill, recipe_file

import trickbag as tb
from trickbag.engine.assemble import build_model
from trickbag.engine.loop import Loop
from trickbag.engine.speed import time_steps
from trickbag.ground.errors import UsageError
from trickbag.ground.streams import generator
from trickbag.laboratory.lab import CLASSES, dataset, loop, recipe, train
from trickbag.runs import auto
from trickbag.runs.run import replaced
from trickbag.studies.arms import Bench
from trickbag.trick import itself
from trickbag.tricks import parse
from trickbag.tricks.data_pruning import SCORES, kept
from trickbag.tricks.easy_first import easy_order, pace, places


def probabilities(logits: Any) -> np.ndarray:
    """Softmax of logits [N, K] in float64."""
    shifted = np.exp(np.asarray(logits, np.float64) - np.max(logits, 1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)


def reference(score: str, logits: Any, labels: np.ndarray) -> np.ndarray:
    """The papers' formulas, image by image, in float64."""
    found = []
    for p, y in zip(probabilities(logits), labels, strict=True):
        error = p - np.eye(len(p))[y]
        other = max(p[k] for k in range(len(p)) if k != y)
        found.append({"el2n": np.sqrt(error @ error), "loss": -np.log(p[y]), "margin": other - p[y]}[score])
    return np.array(found)


# scores
@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("score", SCORES)
def test_scores_are_those_of_the_papers(score: str, classes: int) -> None:
    rng = np.random.default_rng(classes)
    logits, labels = 3 * rng.normal(size=(50, classes)), rng.integers(0, classes, 50)
    expected = reference(score, logits, labels)
    for dtype, places_of in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        p = torch.from_numpy(logits).to(dtype).softmax(1)
        np.testing.assert_allclose(SCORES[score](p, torch.from_numpy(labels)), expected, rtol=places_of, atol=places_of)


@pytest.mark.parametrize("score", SCORES)
def test_scores_of_certain_answers_are_finite_and_in_order(score: str) -> None:
    logits = torch.tensor([[1e4, -1e4, 0.0], [2.0, 1.0, 0.0], [-1e4, 1e4, 0.0]])
    for p in (logits.softmax(1), logits.bfloat16().softmax(1)):
        found = SCORES[score](p, torch.zeros(3, dtype=torch.int64))
        assert bool(found.isfinite().all())
        assert found.argsort().tolist() == [0, 1, 2]


# which images stay
@pytest.mark.parametrize("keep", [0.01, 0.3, 0.5, 0.99, 1.0])
def test_of_each_class_its_share_of_the_hardest_stays(keep: float) -> None:
    rng = np.random.default_rng(0)
    labels = rng.permutation([0] * 20 + [1] * 7 + [3])  # a class of one image, and one without any
    scores = rng.normal(size=28)
    rows = kept(torch.from_numpy(scores), torch.from_numpy(labels), keep).tolist()
    assert rows == sorted(rows)
    for label, count in Counter(labels.tolist()).items():
        own = np.flatnonzero(labels == label)
        stay = max(1, round(keep * count))
        assert {row for row in rows if labels[row] == label} == set(own[np.argsort(-scores[own])[:stay]].tolist())


def asked(made: Loop, split: str = "train") -> tuple[np.ndarray, np.ndarray]:
    """What the laboratory's reference says of a split of a recipe without tricks: logits [N, K], and labels [N]."""
    net = build_model(recipe(), (), len(CLASSES), 3, 99, "none").eval()
    logits, labels = made.judge.outputs(net, split)[1], made.loader.labels
    return logits.numpy(), labels.numpy()


@pytest.mark.parametrize("prefer", ["hard", "easy"])
@pytest.mark.parametrize("score", SCORES)
def test_training_has_the_images_that_stay_and_no_other(score: str, prefer: str) -> None:
    bare = loop(recipe())
    paths = np.array(bare.loader.pixels.images.paths)
    logits, labels = asked(bare)
    hard = reference(score, logits, labels) * (1 if prefer == "hard" else -1)
    expected = [row for k in range(3) for row in sorted(np.flatnonzero(labels == k), key=lambda row: -hard[row])]
    counts = {k: round(0.5 * count) for k, count in Counter(labels.tolist()).items()}
    expected = [row for k in range(3) for row in [row for row in expected if labels[row] == k][: counts[k]]]
    made = loop(recipe(f"data_pruning(keep=0.5, score={score!r}, prefer={prefer!r})"))
    assert made.loader.pixels.images.paths == tuple(paths[sorted(expected)])
    assert made.judge.facts.counts.tolist() == [10, 6, 4]
    shown = torch.cat([part.rows for part in made.plan.epoch(0)])
    assert sorted(shown.tolist()) == list(range(20))
    for row in range(20):
        (own,) = np.flatnonzero(paths == made.loader.pixels.images.paths[row])
        assert torch.equal(made.loader.pixels[row], bare.loader.pixels[int(own)])
    assert made.plan.steps() == 2 * 2


def test_who_keeps_all_asks_nobody() -> None:
    assert train("data_pruning(keep=1.0, teacher='self:0.5')").same(train())


# easy ones first
def test_places_within_classes() -> None:
    rng = np.random.default_rng(1)
    labels, hard = rng.integers(0, 3, 40), rng.normal(size=40).round(1)  # with equals
    easier = [[labels[i] == labels[j] and (hard[i], i) < (hard[j], j) for i in range(40)] for j in range(40)]
    assert places(torch.from_numpy(hard), torch.from_numpy(labels)).tolist() == list(map(sum, easier))


@pytest.mark.parametrize(("start", "until"), [(0.2, 0.5), (1.0, 0.5), (0.04, 1.0)])
def test_the_pace_rises_evenly_from_start_to_all(start: float, until: float) -> None:
    shares = [pace(t / 100, start, until) for t in range(101)]
    np.testing.assert_allclose(shares, np.interp(np.arange(101) / 100, [0, until], [start, 1.0]), rtol=1e-12)


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 1.0])
def test_an_epoch_shows_the_easiest_of_each_class_as_often_as_the_class_has_images(share: float) -> None:
    rng = np.random.default_rng(2)
    labels = torch.from_numpy(rng.permutation([0] * 30 + [1] * 11 + [3]))
    place = places(torch.from_numpy(rng.normal(size=42)), labels)
    rows = easy_order(labels, place, share, generator(0, "easy"))
    assert labels[rows].bincount().tolist() == labels.bincount().tolist()
    for label, count in ((0, 30), (1, 11), (3, 1)):
        times = Counter(rows[labels[rows] == label].tolist())
        play = max(1, round(share * count))
        assert sorted(int(place[row]) for row in times) == list(range(play))
        assert max(times.values()) - min(times.values()) <= 1
    assert not torch.equal(rows, easy_order(labels, place, share, generator(0, "hard")))


def test_training_begins_with_what_the_reference_finds_easy() -> None:
    made = loop(recipe("easy_first(start=0.3, until=0.5)", epochs=4))
    logits, labels = asked(loop(recipe()))
    loss = reference("loss", logits, labels)
    for epoch, share in enumerate((0.3, 0.65, 1.0, 1.0)):
        rows = torch.cat([part.rows for part in made.plan.epoch(epoch)])
        assert len(rows) == made.plan.count(epoch) == 41
        for label in range(3):
            own = np.flatnonzero(labels == label)
            easiest = own[np.argsort(loss[own], kind="stable")[: max(1, round(share * len(own)))]]
            assert {row for row in rows.tolist() if labels[row] == label} == set(easiest.tolist())


def test_the_length_of_an_epoch_is_known_before_the_reference_is_asked() -> None:
    labels = torch.tensor([0, 0, 0, 1, 2, 2])
    assert sorted(parse("easy_first").fresh().order(labels, 0, generator(0, "x")).tolist()) == list(range(6))


def test_orders_exclude_each_other_and_pruning_goes_with_them() -> None:
    with pytest.raises(UsageError, match="both decide 'order'"):
        recipe("easy_first", "balanced_sampling")
    made = loop(recipe("easy_first", "data_pruning(keep=0.5)"))
    assert len(torch.cat([part.rows for part in made.plan.epoch(1)])) == 20


# what it costs
@pytest.mark.parametrize(
    ("name", "share"),
    [("self", 1.0), ("self:0.2", 0.2), ("self:.5", 0.5), ("self:2", 0.0), ("self:", 0.0), ("self:0", 0.0), ("selfish", 0.0)],
)
def test_the_share_of_a_short_run(name: str, share: float) -> None:
    assert itself(name) == share


@pytest.mark.parametrize(("share", "epochs", "short"), [(1.0, 40, 40), (0.2, 40, 8), (0.01, 40, 1), (0.2, 0, 0), (0.5, 3, 2)])
def test_a_short_run_is_the_recipe_without_what_asks_for_networks(share: float, epochs: int, short: int) -> None:
    made = tb.Recipe(tricks=["flip", "until(distill, 0.5)", "easy_first", "data_pruning"], epochs=epochs)
    assert replaced(made, share) == tb.Recipe(tricks=["flip"], epochs=short)


def test_the_price_is_that_of_shorter_epochs() -> None:
    data, pixels = dataset()
    wanted: Any = SimpleNamespace(data=data, seed=0)
    assert auto.left_labels(recipe(), data.images).bincount().tolist() == [20, 12, 9]
    assert auto.left_labels(recipe("data_pruning(keep=0.5)"), data.images).bincount().tolist() == [10, 6, 4]
    assert auto.shown(recipe("data_pruning(keep=0.5)"), wanted) == 20
    assert auto.shown(recipe("data_pruning(keep=0.5)", "undersample"), wanted) == 12
    assert auto.shown(recipe("easy_first"), wanted) == 41
    assert time_steps(recipe("data_pruning", "easy_first"), data, pixels, 0, steps=1).train > 0


def test_a_run_trains_and_pays_for_the_short_run_that_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRICKBAG_CACHE", str(tmp_path / "cache"))
    fill(tmp_path / "photos", {"a": 0, "b": 1}, 20)
    recipe_file(tmp_path / "tiny.toml")
    asked_for: dict[str, Any] = {"recipe": tmp_path / "tiny.toml", "set_": {"epochs": 4}}
    run = tb.train(tmp_path / "photos", out=tmp_path / "run", with_=["data_pruning(keep=0.5, teacher='self:0.5')"], **asked_for)
    (teacher,) = tmp_path.glob("photos-teacher-*")
    short = json.loads((teacher / "result.json").read_text("utf-8"))
    assert short["epochs"] == 2
    assert short["training_images"] == {"images": 28, "left_out": 0, "relabelled": 0, "added": 0}
    assert not (teacher / "changed.csv").exists()
    assert run.record["training_images"] == {"images": 14, "left_out": 14, "relabelled": 0, "added": 0}
    listed = list(csv.DictReader((run.folder / "changed.csv").read_text("utf-8").splitlines()))
    assert [(line["old"], line["new"]) for line in listed] == [("a", "drop")] * 7 + [("b", "drop")] * 7
    again = tb.train(tmp_path / "photos", **asked_for, out=tmp_path / "again", corrections=run.folder / "changed.csv")
    assert again.record["corrections"]["dropped"] == 14
    assert run.record["seconds"] > short["seconds"]
    logged = [json.loads(line) for line in (run.folder / "log.jsonl").read_text("utf-8").splitlines()]
    plan = tb.plan(tmp_path / "photos", with_=["data_pruning(keep=0.5, teacher='self:0.5')"], **asked_for)
    assert plan.steps == logged[-1]["step"]


@pytest.mark.parametrize("trick", ["easy_first(teacher='self:2')", "data_pruning(teacher='nowhere')"])
def test_a_reference_that_is_none_is_refused_before_anything_is_trained(
    trick: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRICKBAG_CACHE", str(tmp_path / "cache"))
    fill(tmp_path / "photos", {"a": 0, "b": 1}, 10)
    with pytest.raises(UsageError, match=r"'(self:2|nowhere)' is not the folder of a finished run"):
        tb.train(tmp_path / "photos", "cifar", with_=[trick], out=tmp_path / "run")


def test_a_study_tries_both_beside_a_reference() -> None:
    bench = Bench(tb.Recipe(tricks=["cosine"]), [parse("easy_first"), parse("data_pruning")])
    assert [str(trick) for trick in bench.together()] == ["easy_first", "data_pruning"]
    assert not bench.not_run


def test_references_are_networks_of_this_recipe_by_default() -> None:
    assert parse("easy_first").others() == ("self",)
    assert parse("data_pruning").others() == ("self:0.2",)
