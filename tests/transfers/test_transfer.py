"""From a run and marked images to a detector or a segmenter: the same again, killed, with more seeds, with other data."""

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import album
import marked
import numpy as np
import pytest
from processes import Training, same
from safetensors.torch import load_file

import trickbag as tb
from trickbag.ground import store
from trickbag.ground.errors import UsageError
from trickbag.ground.events import EpochDone
from trickbag.runs.folder import BEGUN
from trickbag.transfers.folder import TransferBegun
from trickbag.transfers.request import request
from trickbag.transfers.run import Transferred, carry_out
from trickbag.transfers.seeds import per_image

SMALL: dict[str, Any] = {"size": 32, "epochs": 2, "batch_size": 2}
HEADS = {"detection": ("faster_rcnn", "fcos"), "segmentation": ("fcn", "unet")}
WRITERS: dict[str, Callable[[Path], Path]] = {"detection": marked.voc, "segmentation": marked.regions}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier, and a data set for each task."""
    place = tmp_path_factory.mktemp("transfers")
    album.fill(place / "photos", {"a": 0, "b": 1}, 8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRICKBAG_CACHE", str(place / "cache"))
        small = {"size": 16, "epochs": 1, "precision": "fp32"}
        tb.train(place / "photos", "cifar", model="cifar_resnet8", set_=small, out=place / "run")
    for task, write in WRITERS.items():
        write(place / task)
    return place


@pytest.fixture
def there(place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The same, with a cache, and an empty folder to work in."""
    monkeypatch.setenv("TRICKBAG_CACHE", str(place / "cache"))
    monkeypatch.chdir(tmp_path)
    return place


@pytest.mark.parametrize(("task", "head"), [(task, head) for task, heads in HEADS.items() for head in heads])
def test_each_head_is_trained_scored_and_read_back(there: Path, task: str, head: str) -> None:
    made = tb.transfer(there / "run", there / task, task, set_=SMALL | {"head": head}, out="made")
    record = made.runs[0].record
    assert (record["val"]["n"], record["test"]["n"], record["epochs"]) == (1, 1, 2)
    assert json.loads(Path("made/summary.json").read_text()) == made.record
    network, weights = made.runs[0].network(), load_file("made/seed-0/model.safetensors")
    assert all(np.array_equal(value, weights[name]) for name, value in network.state_dict().items())
    assert not network.training


@pytest.mark.parametrize("task", WRITERS)
def test_the_body_is_the_runs(there: Path, task: str) -> None:
    """Without a step of training, all that the classifier had below its head is in the detector."""
    made = tb.transfer(there / "run", there / task, task, set_=SMALL | {"epochs": 0, "norms": "frozen"}, out="made")
    given, body = load_file(there / "run/model.safetensors"), made.runs[0].network().body
    held = dict(body.net.state_dict())
    assert held
    assert all(np.array_equal(value, given[name]) for name, value in held.items() if not name.endswith("batches_tracked"))


def ended(training: Training) -> dict[str, Any]:
    """What must not depend on what happened before."""
    assert training.run() == 0, training.errors
    out = training.out / "seed-0"
    log = [
        {k: v for k, v in line.items() if k not in ("seconds", "images_per_second")} for line in store.lines(out / "log.jsonl")
    ]
    with np.load(out / "judged.npz") as arrays:
        judged = {name: arrays[name].tobytes() for name in arrays.files}
    assert not [path for path in out.iterdir() if path.name.startswith(".")]
    return {"weights": (out / "model.safetensors").read_bytes(), "judged": judged, "log": log}


@pytest.mark.parametrize("task", WRITERS)
def test_killed_and_continued_it_ends_bit_identically(there: Path, tmp_path: Path, task: str) -> None:
    def training(name: str, seconds: float) -> Training:
        made = Training(tmp_path / name, there / task, checkpoint_seconds=seconds)
        tricks = ["--with", "ema", "--with", "sam"]
        sets = [word for field, value in SMALL.items() for word in ("--set", f"{field}={value}")]
        made.arguments = [
            "transfer",
            str(there / "run"),
            str(there / task),
            "--to",
            task,
            "--out",
            str(made.out),
            *tricks,
            *sets,
        ]
        return made

    whole, killed = ended(training("whole", 60.0)), training("killed", 0.0)
    for moment in (
        r"^os.rename \.work/\.step-|^os.rename .*/\.step-",
        r"^os.rename seed-0/\.judged",
        r"^os.rename seed-0/\.MANIFEST",
    ):
        assert killed.run(moment) < 0, killed.errors
    same(ended(killed), whole)


def test_the_same_again_trains_nothing_and_more_seeds_train_only_themselves(there: Path) -> None:
    def asked(seeds: int) -> tuple[tb.Transfer, list[EpochDone]]:
        seen: list[Any] = []
        made = tb.transfer(
            there / "run", there / "detection", "detection", set_=SMALL, seeds=seeds, out="made", progress=seen.append
        )
        return made, [event for event in seen if isinstance(event, EpochDone)]

    one, epochs = asked(1)
    assert len(epochs) == 2
    assert asked(1)[1] == []
    two, epochs = asked(2)
    assert len(epochs) == 2
    assert two.runs[0].record == one.runs[0].record
    first, second = (load_file(run.folder / "model.safetensors") for run in two.runs)
    assert any(not np.array_equal(first[name], second[name]) for name in first)


def test_a_run_that_was_moved_is_the_same_run(there: Path) -> None:
    small = SMALL | {"epochs": 1}
    first = tb.transfer(there / "run", there / "detection", "detection", set_=small, out="made")
    shutil.copytree(there / "run", "moved")
    seen: list[Any] = []
    tb.transfer("moved", there / "detection", "detection", set_=small, seeds=2, out="made", progress=seen.append)
    assert len([event for event in seen if isinstance(event, EpochDone)]) == 1
    assert Transferred.load("made/seed-0").record == first.runs[0].record


def test_another_request_for_the_folder_is_refused(there: Path) -> None:
    tb.transfer(there / "run", there / "detection", "detection", set_=SMALL | {"epochs": 1}, out="made")
    for change, said in (
        ({"lr": 0.5}, "lr was 0.* and is now 0.5"),
        ({"head": "fcos"}, "head was faster_rcnn and is now fcos"),
    ):
        with pytest.raises(UsageError, match=f"begun with another .*: {said}"):
            tb.transfer(there / "run", there / "detection", "detection", set_=SMALL | {"epochs": 1} | change, out="made")
    with pytest.raises(UsageError, match="another"):
        tb.transfer(there / "run", there / "segmentation", "segmentation", set_=SMALL, out="made")


REFUSED = {
    "a trick of classes": ({"with_": "mixup"}, "mixup acts on images that have one class each"),
    "another task's head": ({"set_": {"head": "fcn"}}, "choose faster_rcnn or fcos"),
    "a recipe for regions": ({"recipe": "segmentation"}, "not for detection"),
    "weights beside a run": ({"weights": "hub"}, "leave weights out"),
    "norms frozen twice": ({"with_": "freeze_norms"}, "freeze_norms freezes batch norms, and this network trains none"),
    "no weights beside a run": ({"weights": "none"}, "leave weights out"),
    "another network": ({"set_": {"model": "resnet18"}}, "the network is named before the data"),
    "another task": ({"set_": {"task": "segmentation", "head": "fcn"}}, "to says it"),
    "no data": ({"data": ""}, "'' is no data set"),
    "a network that can be no body": ({"model": "test_vit"}, "Choose a convolutional network"),
    "no seed": ({"seeds": 0}, "whole number from 1"),
    "an unknown field": ({"set_": {"epoch": 1}}, "did you mean epochs"),
    "too little time": ({"budget": "soon"}, "budget"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_done_is_refused_before_any_training(there: Path, case: str) -> None:
    asked, said = REFUSED[case]
    with pytest.raises(UsageError, match=said):
        tb.transfer(**{"model": there / "run", "data": there / "detection", "to": "detection", "out": "made", **asked})
    assert not os.path.exists("made")


def test_what_one_process_does_is_refused_under_torchrun(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match=r"a detector or a segmenter is the work of one process, and torchrun started 2\."):
        tb.transfer(there / "run", there / "detection", "detection", set_=SMALL, out="made")
    with pytest.raises(UsageError, match="a study is the work of one process"):
        tb.study(there / "photos", tricks="ema", out="made")
    assert not os.path.exists("made")


def test_killed_after_the_first_of_its_files_it_has_the_others_in_the_end(there: Path) -> None:
    wanted = request(there / "run", there / "detection", "detection", set_=SMALL | {"epochs": 0})
    begun = TransferBegun(request=wanted.key, recipe=wanted.recipe.spelled())
    store.write(Path("made", BEGUN), store.to_json(begun.signed()))
    assert carry_out(wanted, Path("made")).record["request"] == wanted.key
    assert json.loads(Path("made/asked.json").read_text()) == json.loads(json.dumps(wanted.asked()))
    assert Path("made/recipe.toml").read_text() == wanted.recipe.toml()


def test_data_of_the_other_kind_are_refused(there: Path) -> None:
    with pytest.raises(UsageError, match="boxes"):
        tb.transfer(there / "run", there / "segmentation", "detection", out="made")
    with pytest.raises(UsageError):
        tb.transfer(there / "run", there / "photos", "segmentation", out="made")


def test_a_budget_decides_the_epochs_once(there: Path) -> None:
    small = {"size": 32, "batch_size": 2}

    def asked() -> dict[str, Any]:
        return tb.transfer(there / "run", there / "detection", "detection", set_=small, budget="20s", out="made").runs[0].record

    epochs = asked()["epochs"]
    assert epochs >= 1
    with pytest.raises(UsageError, match="made was begun with a budget of 20 s a seed, and this is a budget of 10 s a seed"):
        tb.transfer(there / "run", there / "detection", "detection", set_=small, seeds=2, budget="20s", out="made")
    shutil.rmtree("made/seed-0")
    assert asked()["epochs"] == epochs


def test_a_damaged_result_is_not_believed(there: Path) -> None:
    made = tb.transfer(there / "run", there / "detection", "detection", set_=SMALL | {"epochs": 1}, out="made")
    file = made.runs[0].folder / "judged.npz"
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(tb.TrickbagError, match=r"judged\.npz"):
        Transferred.load(made.runs[0].folder)


EDITS: dict[str, tuple[str, Callable[[Any], Any], str]] = {
    "another task": ("result.json", lambda held: held | {"task": "segmentation"}, "val: there are no miou and accuracy"),
    "no measure": ("result.json", lambda held: held | {"test": held["test"] | {"measures": {}}}, "test: there are no map50"),
    "no class": ("result.json", lambda held: held | {"val": held["val"] | {"classes": {}}}, "val: there are no map50"),
    "no split": ("result.json", lambda held: held | {"images": {}}, "images: a split is missing"),
    "a huge image": ("transfer.json", lambda held: held | {"size": 1 << 16}, "size: input should be less than"),
    "a pixel": ("transfer.json", lambda held: held | {"size": 1}, "size: input should be greater than"),
    "an odd canvas": ("transfer.json", lambda held: held | {"canvas": [33, 64]}, "canvas.0: input should be a multiple of 32"),
    "classes alike": ("transfer.json", lambda held: held | {"classes": ["cat", "cat"]}, "a class is named twice"),
    "grey": ("transfer.json", lambda held: held | {"mean": [0.5], "std": [0.5]}, "make no network that can be used"),
    "no colours": ("transfer.json", lambda held: held | {"std": [0.5]}, "there are 1 values for 3 channels"),
}


def test_what_makes_no_sense_is_not_believed_even_under_its_seal(there: Path, tmp_path: Path) -> None:
    folder = tb.transfer(there / "run", there / "detection", "detection", set_=SMALL | {"epochs": 0}, out="made").runs[0].folder
    for name, edit, said in EDITS.values():
        shutil.copytree(folder, "edited")
        file = Path("edited", name)
        file.write_text(json.dumps(edit(json.loads(file.read_text()))))
        store.seal(Path("edited"))
        with pytest.raises(tb.TrickbagError, match=said):
            tb.load("edited")
        shutil.rmtree("edited")
    with np.load(folder / "judged.npz") as arrays:
        held = dict(arrays)
    np.savez_compressed(folder / "judged.npz", **held | {"test_truths": held["test_truths"][:, :1]})
    store.seal(folder)
    with pytest.raises(tb.TrickbagError, match=r"judged\.npz is damaged"):
        per_image(Transferred.load(folder), "test")


def test_three_seeds_speak_of_new_seeds(there: Path, ask: Callable[..., Any]) -> None:
    began = time.time()
    sets = [word for field, value in (SMALL | {"epochs": 1}).items() for word in ("--set", f"{field}={value}")]
    said = ask(
        "transfer", str(there / "run"), str(there / "detection"), "--to", "detection", "--seeds", "3", "--out", "made", *sets
    )
    assert said.code == 0, said.err
    assert "95 % intervals for new images and seeds; 1 image, 3 seeds, 1 epoch" in said.out
    record = json.loads(Path("made/summary.json").read_text())
    assert record["seeds"] == [0, 1, 2]
    assert record["seconds"] < time.time() - began
