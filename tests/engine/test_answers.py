"""What other networks say of images before training: pseudo-labels of unlabelled ones, and answers kept for all runs."""

import csv
import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from album import fill, recipe_file

import trickbag as tb
from trickbag.data.unlabelled import read_unlabelled
from trickbag.engine.loop import Loop
from trickbag.engine.precision import fabric_for
from trickbag.engine.speed import time_steps
from trickbag.ground.cache import cache_dir
from trickbag.ground.errors import TrickbagError, UsageError
from trickbag.laboratory.lab import dataset, recipe
from trickbag.runs.request import request
from trickbag.runs.run import Run
from trickbag.tricks import parse

KINDS = {"bag/red": 0, "c": 1, "shoe/red": 2}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRICKBAG_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Photos, others of the same kinds without labels (five of them copies of labelled ones, one broken), and a teacher."""
    folder = tmp_path_factory.mktemp("answers")
    fill(folder / "photos", KINDS, 24)
    fill(folder / "more", KINDS, 12, seed=1)
    for number, path in enumerate(sorted((folder / "photos").rglob("*.png"))[:5]):
        shutil.copy(path, folder / "more" / f"copy {number}.png")
    (folder / "more" / "broken.png").write_bytes(b"no image")
    recipe_file(folder / "tiny.toml")
    tb.train(folder / "photos", folder / "tiny.toml", out=folder / "teacher", set_={"epochs": 6, "lr": 0.1})
    return folder


def assembled(place: Path, spec: str, seed: int = 0, **fields: object) -> tuple[Run, Loop]:
    """A run that is asked for with a trick, and its loop before the first step."""
    asked = request(place / "photos", place / "tiny.toml", with_=[spec], seed=seed, set_=fields)
    run = Run(asked, asked.recipe, place / f"run-{seed}", fabric_for("fp32"), lambda event: None)
    return run, run.assemble()


def pseudo(place: Path, threshold: float, teacher: str = "teacher") -> str:
    return f"pseudo_label(unlabelled={str(place / 'more')!r}, teacher={str(place / teacher)!r}, threshold={threshold})"


def test_what_the_teacher_is_sure_of_joins_with_its_label(place: Path) -> None:
    said = {p.path: p for p in tb.load(place / "teacher").predict(sorted((place / "more").rglob("*/*.png")), 1)}
    least = float(np.median([p.probabilities[0] for p in said.values()])) + 1e-6
    sure = {path: p.classes[0] for path, p in said.items() if p.probabilities[0] >= least}
    assert 5 < len(sure) < len(said)

    run, loop = assembled(place, pseudo(place, least))
    train, labelled = loop.loader.pixels.images, run.wanted.data.images.split("train")
    assert train.paths[: len(labelled)] == labelled.paths
    joined = [(path, train.classes[k]) for path, k in zip(train.paths, train.labels.tolist(), strict=True)][len(labelled) :]
    assert dict(joined) == sure
    assert loop.judge.facts.counts.sum() == len(labelled) + len(sure)
    assert len(loop.judge.loaders["val"].labels) == len(run.wanted.data.images.split("val"))


def test_a_run_with_pseudo_labels_is_a_teacher_for_a_second_round(place: Path) -> None:
    asked = {"set_": {"epochs": 2}}
    first = tb.train(place / "photos", place / "tiny.toml", out=place / "first", with_=[pseudo(place, 0.5)], **asked)
    again = tb.train(place / "photos", place / "tiny.toml", out=place / "second", with_=[pseudo(place, 0.5, "first")], **asked)
    assert first.record["test"]["n"] == again.record["test"]["n"]
    for run in (first, again):
        lines = list(csv.reader((run.folder / "changed.csv").read_text("utf-8").splitlines()))
        said = run.record["training_images"]
        assert (lines[0], len(lines) - 1) == (["path", "old", "new"], said["added"])
        assert all(old == "" and new in KINDS for _, old, new in lines[1:])
        assert said["images"] == run.record["splits"]["train"]["images"] + said["added"] > said["left_out"] == 0
    assert first.record["request"] != again.record["request"]


def test_a_change_in_the_unlabelled_folder_makes_another_run(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "more", tmp_path / "more")
    spec = f"pseudo_label(unlabelled={str(tmp_path / 'more')!r}, teacher={str(place / 'teacher')!r})"
    before = request(place / "photos", place / "tiny.toml", with_=[spec]).key
    assert request(place / "photos", place / "tiny.toml", with_=[spec]).key == before
    next((tmp_path / "more").rglob("*/*.png")).unlink()
    assert request(place / "photos", place / "tiny.toml", with_=[spec]).key != before


def test_a_folder_without_images_or_with_copies_alone_is_refused(place: Path, tmp_path: Path, ask) -> None:
    with pytest.raises(UsageError, match="is not a folder"):
        read_unlabelled(tmp_path / "nowhere")
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(UsageError, match="holds no image that can be read"):
        read_unlabelled(tmp_path)
    spec = f"pseudo_label(unlabelled={str(place / 'photos')!r}, teacher={str(place / 'teacher')!r})"
    with pytest.raises(UsageError, match="copies of labelled ones"):
        assembled(place, spec)


@pytest.mark.parametrize("asked", [("train", "--plan", "--with"), ("study", "--plan", "--tricks"), ("train", "--with")])
@pytest.mark.parametrize("trick", ["pseudo_label(unlabelled='nowhere')", "distill(teacher='nowhere')"])
def test_what_a_trick_names_must_be_there_before_anything_is_timed(place: Path, ask, asked, trick) -> None:
    told = ask(asked[0], f"{place}/photos", "--recipe", f"{place}/tiny.toml", *asked[1:], trick)
    assert told.code == 2
    assert re.search("'nowhere' is not (a|the) folder", told.err)
    assert "timing" not in told.err + told.out


def test_a_batch_that_diverged_names_unlabelled_files_too(place: Path) -> None:
    asked = request(place / "photos", place / "tiny.toml", with_=[pseudo(place, 0.01)], set_={"lr": 1e30})
    run = Run(asked, asked.recipe, place / "diverged", fabric_for("fp32"), lambda event: None)
    with pytest.raises(TrickbagError, match="no longer a number"):
        run.train()
    files = json.loads((place / "diverged" / "diverged.json").read_text("utf-8"))["files"]
    assert {True, False} == {file.startswith(str(place / "more")) for file in files}


def distilled(place: Path, **fields: object) -> str:
    return str(parse(f"distill(teacher={str(place / 'teacher')!r})").model_copy(update=fields))


def test_kept_answers_train_as_a_teacher_that_is_asked_at_every_step(place: Path) -> None:
    asked = {"with_": ["flip"], "set_": {"epochs": 3, "keep": "last"}}

    def logits(spec: str, out: str) -> np.ndarray:
        run = tb.train(place / "photos", place / "tiny.toml", out=place / out, **asked | {"with_": ["flip", spec]})
        with np.load(run.folder / "predictions.npz") as stored:
            return stored["test_logits"]

    live = logits(distilled(place), "live")
    np.testing.assert_allclose(logits(distilled(place, cached=True, fixed=3), "kept"), live, rtol=0, atol=1e-4)
    assert np.abs(logits(distilled(place, cached=True, fixed=1), "one") - live).max() > 1e-3


def test_every_seed_finds_the_same_answers_and_pays_for_them(place: Path) -> None:
    before = {path for path in cache_dir().glob("answers-*") if path.is_dir()}
    first, _ = assembled(place, distilled(place, cached=True, fixed=5))
    second = Run(replace(first.wanted, seed=7), first.recipe, place / "seven", fabric_for("fp32"), lambda event: None)
    second.assemble()
    (made,) = {path for path in cache_dir().glob("answers-*") if path.is_dir()} - before
    taught = json.loads((place / "teacher" / "result.json").read_text("utf-8"))["seconds"]
    answered = json.loads((made / "seconds.json").read_text("utf-8"))
    assert first.taught.seconds == pytest.approx(taught, abs=1e-9), "it took the time itself"
    assert second.taught.seconds == pytest.approx(taught + answered, abs=1e-9)


def test_kept_answers_are_the_teachers_to_the_images_that_are_shown(place: Path) -> None:
    _, loop = assembled(place, distilled(place, cached=True, fixed=2))
    teacher, answers = loop.judge.network(str(place / "teacher")), loop.judge.answers(str(place / "teacher"))
    assert answers.shape == (2, len(loop.loader.labels), 3)
    seen = {}
    for epoch in range(3):
        for _, batch in loop.loader.train(loop.plan.epoch(epoch), epoch):
            assert batch.version == epoch % 2
            torch.testing.assert_close(answers[batch.version, batch.rows], teacher(batch.x).logits, rtol=0, atol=1e-4)
            for row, x in zip(batch.rows.tolist(), batch.x, strict=True):
                seen.setdefault(row, []).append(x)
    assert all(torch.equal(first, third) for first, _, third in seen.values())
    assert not all(torch.equal(first, second) for first, second, _ in seen.values())


def test_answers_that_are_cut_short_under_a_training_are_still_there(place: Path) -> None:
    before = {path for path in cache_dir().glob("answers-*") if path.is_dir()}
    _, loop = assembled(place, distilled(place, cached=True, fixed=4))
    answers = loop.judge.answers(str(place / "teacher"))
    (made,) = {path for path in cache_dir().glob("answers-*") if path.is_dir()} - before
    kept = torch.from_numpy(np.load(made / "logits.npy"))
    os.truncate(made / "logits.npy", 0)  # a page of a map of it could no longer be read: SIGBUS
    assert torch.equal(answers, kept)


@pytest.mark.parametrize("mixing", ["mixup", "cutmix", "manifold_mixup"])
def test_images_whose_answers_are_kept_are_not_mixed(place: Path, mixing: str) -> None:
    asked = request(place / "photos", place / "tiny.toml", with_=[distilled(place, cached=True), mixing])
    with pytest.raises(UsageError, match=f"answers to fixed images, which {mixing}"):
        Run(asked, asked.recipe, place / "mixed", fabric_for("fp32"), lambda event: None).assemble()


def test_timing_some_steps_asks_nobody_for_answers() -> None:
    data, pixels = dataset()
    before = list(cache_dir().glob("answers-*"))
    assert time_steps(recipe("distill(cached=True)"), data, pixels, 0).train > 0
    assert list(cache_dir().glob("answers-*")) == before
