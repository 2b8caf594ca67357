"""Crash safety: a training that is killed, interrupted or damaged at any moment ends as if nothing had happened."""

import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import album
import pytest
from processes import Training, same

from trickbag.ground import store
from trickbag.ground.streams import generator, uniform
from trickbag.laboratory import lab

SMALL = ["cifar_resnet8", "size=16", "batch_size=8", "channels_last=false"]
HEAP = [
    "random_erasing", "one_of(mixup, cutmix)", "adamw", "sam", "clip_gradient", "ema(half_life=0.2)", "distill",
    "balanced_sampling", "knn", "calibrate",
]  # fmt: skip
EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty images of each of three classes."""
    return album.fill(tmp_path_factory.mktemp("data"), {"a": 0, "b": 1, "c": 2}, 40)


Make = Callable[..., Training]


@pytest.fixture(scope="module")
def trainings(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Makes a tiny training in a place of its own."""

    def make(*tricks: str, precision: str = "fp32", fields: tuple[str, ...] = ("epochs=6",), **options: Any) -> Training:
        model, *rest = SMALL
        chosen = ["--without", "cosine", *(word for trick in tricks for word in ("--with", trick))]
        edits = [word for field in (*rest, f"precision={precision}", *fields) for word in ("--set", field)]
        return Training(
            tmp_path_factory.mktemp("training"), data, "--recipe", "cifar", "--model", model, *chosen, *edits, **options
        )

    return make


@pytest.fixture(scope="module")
def whole(trainings: Make) -> dict[str, Any]:
    """The ending of the plain training that nothing disturbed."""
    return trainings(checkpoint_seconds=60).ending()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_killed_at_random_moments_a_heap_of_ten_tricks_ends_bit_identically(trainings: Make, precision: str) -> None:
    options = {"precision": precision, "fields": ("epochs=2",), "checkpoint_seconds": 0.02}
    undisturbed = trainings(*HEAP, **options | {"checkpoint_seconds": 60}).ending()
    training, rng, resumed = trainings(*HEAP, **options), generator(0, "kills"), 0
    for _ in range(3):
        process = training.start()
        training.moved(process)
        time.sleep(uniform(rng, 0, 0.1))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        resumed += bool(training.checkpoints())
    assert resumed == 3
    same(training.ending(), undisturbed)


def test_killed_before_each_renaming_in_turn_it_ends_bit_identically(trainings: Make, whole: dict[str, Any]) -> None:
    """A name on the disk changes only by renaming: these are all the states that a crash can leave."""
    training = trainings(checkpoint_seconds=0.2)
    for nth in range(1, 14):
        assert training.run(r"^os.rename", nth) == -signal.SIGKILL, training.errors
    same(training.ending(), whole)


MOMENTS = (
    ("checking", r"^open .*\.png$"),
    ("deciding", r"^os.rename run/\.recipe\.toml"),
    ("decoding", r"^open .*/pixels.bin$"),
    ("training", r"^os.rename .*/\.step-"),
    ("training", r"^os.rename .*/\.step-"),
    ("finishing", r"^os.rename run/\.model\.safetensors"),
    ("sealing", r"^os.rename run/\.MANIFEST"),
)


def test_interrupted_in_every_phase_it_says_so_and_ends_bit_identically(trainings: Make, whole: dict[str, Any]) -> None:
    training = trainings()
    for turn, (phase, moment) in enumerate(MOMENTS):
        number = (signal.SIGINT, signal.SIGTERM)[turn % 2]
        assert training.run(moment, 3 if phase in ("checking", "training") else 1, number) == EXIT_CODES[number], phase
        assert re.fullmatch(r"trickbag: stopped[^\n]* same command continues[^\n]*\.\n", training.errors), phase
    same(training.ending(), whole)


def flip(path: Path) -> None:
    """Change one byte in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    """Cut a file's second half off."""
    os.truncate(path, path.stat().st_size // 2)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "a flipped bit": lambda folder: flip(folder / "state.safetensors"),
    "a truncated file": lambda folder: truncate(folder / "state.json"),
    "no manifest": lambda folder: (folder / store.MANIFEST).unlink(),
}


@pytest.fixture(scope="module")
def stopped(trainings: Make) -> Training:
    """A training that was killed when it had the checkpoints of steps 13 and 14."""
    training = trainings()
    assert training.run(r"^os.rename .*/\.step-00000015") == -signal.SIGKILL
    assert [path.name for path in training.checkpoints()] == ["step-00000013", "step-00000014"]
    return training


def copied(training: Training, place: Path) -> Training:
    """The same training in another place."""
    shutil.copytree(training.place, place)
    copy = Training(place, Path(training.arguments[1]), checkpoint_seconds=60)
    copy.arguments = [str(copy.out) if word == str(training.out) else word for word in training.arguments]
    return copy


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(
    stopped: Training, whole: dict[str, Any], tmp_path: Path, damage: str
) -> None:
    training = copied(stopped, tmp_path / "copy")
    DAMAGES[damage](training.checkpoints()[-1])
    same(training.ending(), whole)
    assert re.search(r"checkpoint \S*step-00000014 is damaged \(.+\).*the one before", training.story)
    assert "continuing at step 13 of" in training.story


def test_with_all_checkpoints_damaged_it_starts_from_the_beginning(
    stopped: Training, whole: dict[str, Any], tmp_path: Path
) -> None:
    training = copied(stopped, tmp_path / "copy")
    for path, damage in zip(training.checkpoints(), DAMAGES.values(), strict=False):
        damage(path)
    same(training.ending(), whole)
    assert training.story.count("is damaged") == 2
    assert training.story.count("training starts from the beginning.") == 1
    assert "continuing at" not in training.story


def test_a_second_process_is_refused_and_the_first_is_unharmed(trainings: Make, whole: dict[str, Any], tmp_path: Path) -> None:
    training = trainings()
    first = training.start()
    training.moved(first)
    os.kill(first.pid or 0, signal.SIGSTOP)
    before = training.checkpoints()
    second = Training(tmp_path, Path(), checkpoint_seconds=0)
    second.arguments = training.arguments
    assert second.run() == 2
    assert re.fullmatch(rf"trickbag: \S+ is being written by another process \(pid {first.pid}\)\.[^\n]+\n", second.errors)
    assert training.checkpoints() == before
    os.kill(first.pid or 0, signal.SIGCONT)
    first.join()
    assert first.exitcode == 0
    assert (training.out / "model.safetensors").read_bytes() == whole["weights"]


def test_the_best_score_is_known_after_a_resume_and_a_worse_epoch_does_not_replace_it(
    stopped: Training, tmp_path: Path
) -> None:
    """The checkpoint's one judged epoch is given a score that no other can beat, whatever this processor trains."""
    training = copied(stopped, tmp_path / "copy")
    newest = training.checkpoints()[-1]
    state = store.load_state(newest)
    best = state["loop"]["best"][""]
    best["rank"] = [1.0, 0.0]
    store.remove(newest)
    with store.writing(newest) as folder:
        store.save_state(folder, state)
    log = training.ending()["log"]
    assert [(line["epoch"], line["kept"]) for line in log if line["kind"] == "epoch"] == [(n, n == 1) for n in range(1, 7)]
    assert json.loads((training.out / "result.json").read_text())["kept_epoch"] == best["epoch"] == 1
    weights = store.load_tensors(training.out / "model.safetensors")
    assert lab.same(weights, {name.removeprefix("net."): value for name, value in best["model"].items()})


def test_an_epoch_stands_in_the_log_once_though_the_checkpoint_is_older_than_its_line(
    trainings: Make, whole: dict[str, Any]
) -> None:
    training = trainings()
    assert training.run(r"^os.rename \.work/step-00000011$") == -signal.SIGKILL
    assert [line["step"] for line in store.lines(training.out / "log.jsonl")] == [11]
    same(training.ending(), whole)


def test_a_diverged_run_says_where_keeps_the_good_checkpoint_and_says_it_again(trainings: Make, data: Path) -> None:
    training = trainings(fields=("epochs=6", "lr=1e30"))
    assert training.run() == 1
    first = training.errors
    record = json.loads((training.out / "diverged.json").read_text())
    assert re.fullmatch(rf"trickbag: the loss is no longer a number at step {record['step']} \(learning rate .*\n", first)
    assert record["lr"] > 1e20
    assert len(record["files"]) == 8
    assert all((data / name).is_file() for name in record["files"])
    newest = training.checkpoints()[-1]
    state = store.load_state(newest)
    assert state["loop"]["step"] < record["step"]
    assert all(bool(tensor.isfinite().all()) for tensor in state["loop"]["model"].values())
    assert training.run() == 1
    assert training.errors == first
    assert training.checkpoints()[-1] == newest


def test_after_the_end_the_same_command_returns_the_result_at_once(trainings: Make) -> None:
    training = trainings(checkpoint_seconds=60)
    assert training.run() == 0
    files = {path: path.stat().st_mtime_ns for path in training.out.iterdir()}
    assert training.run() == 0
    assert {path: path.stat().st_mtime_ns for path in training.out.iterdir()} == files
