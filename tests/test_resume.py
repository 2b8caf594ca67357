"""Crash safety: real processes of the command line, killed and interrupted, end as if nothing had happened.

Importing torch takes seconds, so the processes are forked from a server that has imported the libraries already. What a
process then runs is ``trickbag.cli.main``, with its own environment, signals and files.
"""

import itertools
import json
import multiprocessing
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lab import fingerprint

from trickbag import store
from trickbag.data import digits
from trickbag.streams import generator, uniform

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["lightning_fabric", "timm", "torchmetrics", "torchvision.transforms.v2", "pyarrow", "lab"])

SMALL = ["cifar_resnet8", "size=16", "batch_size=8", "epochs=6", "channels_last=false"]
HEAP = [
    "random_erasing", "one_of(mixup, cutmix)", "adamw", "sam", "clip_gradient", "ema(half_life=0.2)", "distill", "balanced_sampling",
    "knn", "calibrate",
]  # fmt: skip
EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -signal.SIGKILL}
TIMES = ("seconds", "images_per_second")


def command_line(arguments: list[str], environment: dict[str, str], said: Path, at: str, nth: int, number: int) -> None:
    """Be ``trickbag`` with these arguments. ``at``: the process sends itself the signal ``number`` just before the ``nth`` file is
    opened or renamed whose event and name, as "open 3.png" or "os.rename .work", match this expression."""
    os.environ.update(environment)
    for stream, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(said.with_suffix(f".{name}"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    seen = itertools.count(1)

    def strike(event: str, values: tuple[Any, ...]) -> None:
        if event in ("open", "os.rename") and isinstance(values[0], str | Path):
            if re.search(at, f"{event} {Path(values[0]).name}") and next(seen) == nth:
                os.kill(os.getpid(), number)

    from trickbag.cli import main

    if at:
        sys.addaudithook(strike)
    sys.argv = ["trickbag", *arguments]
    main()


class Training:
    """One ``trickbag train`` command, started as often as it takes."""

    def __init__(self, place: Path, data: Path, *arguments: str, checkpoint_seconds: float = 0.0) -> None:
        self.place, self.out, self.said = place, place / "run", place / "said"
        place.mkdir(parents=True, exist_ok=True)
        self.arguments = ["train", str(data), "--recipe", "cifar", "--out", str(self.out), *arguments]
        self.environment = {
            "TRICKBAG_CACHE": str(place / "cache"),
            "TRICKBAG_CHECKPOINT_SECONDS": str(checkpoint_seconds),
            "OMP_NUM_THREADS": "1",
        }
        self.starts = 0

    def start(self, at: str = "", nth: int = 1, number: int = signal.SIGKILL) -> ForkServerProcess:
        """Start the command, each time with another number of loader threads."""
        self.starts += 1
        environment = self.environment | {"TRICKBAG_WORKERS": str(1 + self.starts % 3)}
        process = SERVER.Process(target=command_line, args=(self.arguments, environment, self.said, at, nth, number))
        process.start()
        return process

    def run(self, at: str = "", nth: int = 1, number: int = signal.SIGKILL) -> int:
        """Start the command, wait for its end and return the exit code, negative for a signal that killed it."""
        process = self.start(at, nth, number)
        process.join()
        assert process.exitcode is not None
        return process.exitcode

    @property
    def output(self) -> str:
        """What the last start wrote to standard output."""
        return self.said.with_suffix(".out").read_text()

    @property
    def errors(self) -> str:
        """What the last start wrote to standard error."""
        return self.said.with_suffix(".err").read_text()

    def checkpoints(self) -> list[Path]:
        """The checkpoints, the newest last."""
        return sorted((self.out / ".work").glob("step-*"))

    def moved(self, process: ForkServerProcess) -> None:
        """Wait until the process has written a checkpoint, or ended."""
        before = self.checkpoints()[-1:]
        while process.is_alive() and self.checkpoints()[-1:] in ([], before):
            time.sleep(0.005)

    def ending(self) -> dict[str, Any]:
        """Go to the end and return what must not depend on what happened before."""
        assert self.run(r"^os.rename \.work$") == -signal.SIGKILL, self.errors
        state = store.load_state(self.checkpoints()[-1])
        assert self.run() == 0, self.errors
        assert sorted(path.name for path in self.out.iterdir() if path.name.startswith(".")) == []
        log = [{k: v for k, v in line.items() if k not in TIMES} for line in store.lines(self.out / "log.jsonl")]
        with np.load(self.out / "predictions.npz", allow_pickle=False) as arrays:
            predictions = {name: arrays[name].tobytes() for name in arrays.files}
        weights = (self.out / "model.safetensors").read_bytes()
        return {"state": fingerprint(state["loop"]), "weights": weights, "predictions": predictions, "log": log}


def same(ending: dict[str, Any], other: dict[str, Any]) -> None:
    """Assert that two endings are equal, bit for bit, and name the part that is not."""
    assert [part for part in ending if ending[part] != other[part]] == []


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first 40 digits of three classes."""
    folder = tmp_path_factory.mktemp("data")
    everything = digits.write(folder / "all")
    for label in "012":
        (folder / "some" / label).mkdir(parents=True)
        for path in sorted((everything / label).iterdir())[:40]:
            shutil.copy(path, folder / "some" / label)
    return folder / "some"


Make = Callable[..., Training]


@pytest.fixture(scope="module")
def trainings(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Makes a tiny training in a place of its own."""

    def make(*tricks: str, precision: str = "fp32", fields: tuple[str, ...] = (), **options: Any) -> Training:
        model, *rest = SMALL
        chosen = [word for trick in tricks for word in ("--with", trick)]
        edits = [word for field in (*rest, f"precision={precision}", *fields) for word in ("--set", field)]
        return Training(tmp_path_factory.mktemp("training"), data, "--model", model, *chosen, *edits, **options)

    return make


@pytest.fixture(scope="module")
def whole(trainings: Make) -> dict[str, Any]:
    """The ending of the plain training that nothing disturbed."""
    return trainings(checkpoint_seconds=60).ending()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_killed_at_random_moments_a_heap_of_ten_tricks_ends_bit_identically(trainings: Make, precision: str) -> None:
    undisturbed = trainings(*HEAP, precision=precision, checkpoint_seconds=60).ending()
    training, rng, resumed = trainings(*HEAP, precision=precision), generator(0, "kills"), 0
    for _ in range(4):
        process = training.start()
        training.moved(process)
        time.sleep(uniform(rng, 0, 0.15))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        resumed += bool(training.checkpoints())
    assert resumed >= 3
    same(training.ending(), undisturbed)


def test_killed_before_each_renaming_in_turn_it_ends_bit_identically(trainings: Make, whole: dict[str, Any]) -> None:
    """A name on the disk changes only by renaming: these are all the states that a crash can leave."""
    training = trainings(checkpoint_seconds=0.2)
    for nth in range(1, 14):
        assert training.run(r"^os.rename", nth) == -signal.SIGKILL, training.errors
    same(training.ending(), whole)


MOMENTS = {
    "checking": r"^open .*\.png$",
    "decoding": r"^open pixels.bin$",
    "deciding": r"^os.rename \.recipe\.toml",
    "training": r"^os.rename \.step-",
    "finishing": r"^os.rename \.model\.safetensors",
    "sealing": r"^os.rename \.MANIFEST",
}


def test_interrupted_in_every_phase_it_says_so_and_ends_bit_identically(trainings: Make, whole: dict[str, Any]) -> None:
    training = trainings()
    for phase, moment in MOMENTS.items():
        for number in (signal.SIGINT, signal.SIGTERM):
            nth = 3 if phase in ("checking", "training") else 1
            assert training.run(moment, nth, number) == EXIT_CODES[number], (phase, training.errors)
            assert re.fullmatch(r"trickbag: stopped[^\n]* same command continues[^\n]*\.\n", training.errors), (phase, training.errors)
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
    assert training.run(r"^os.rename \.step-", 15) == -signal.SIGKILL
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
    ending = training.run(r"^os.rename \.work$")
    assert ending == -signal.SIGKILL
    assert re.search(r"checkpoint \S*step-00000014 is damaged \(.+\).*the one before", training.output)
    assert "continuing at step 13 of" in training.output
    same(training.ending(), whole)


def test_with_all_checkpoints_damaged_it_starts_from_the_beginning(
    stopped: Training, whole: dict[str, Any], tmp_path: Path
) -> None:
    training = copied(stopped, tmp_path / "copy")
    for path, damage in zip(training.checkpoints(), DAMAGES.values(), strict=False):
        damage(path)
    assert training.run(r"^os.rename \.work$") == -signal.SIGKILL
    assert training.output.count("is damaged") == 2
    assert "no checkpoint is left: training starts from the beginning" in training.output
    assert "continuing at" not in training.output
    same(training.ending(), whole)


def test_a_second_process_is_refused_and_the_first_is_unharmed(
    trainings: Make, whole: dict[str, Any], tmp_path: Path
) -> None:
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
    again = trainings()
    assert json.loads((training.out / "result.json").read_text())["recipe_key"]
    assert (training.out / "model.safetensors").read_bytes() == whole["weights"]
    del again


def test_the_best_score_is_known_after_a_resume_and_a_worse_epoch_does_not_replace_it(trainings: Make) -> None:
    """A learning rate that only grows: the early epochs are the best."""
    edits: dict[str, Any] = {"fields": ("lr=50.0",)}
    reference = trainings("warmup(share=1.0)", **edits, checkpoint_seconds=60)
    undisturbed = reference.ending()
    kept = [line["epoch"] for line in undisturbed["log"] if line.get("kept")]
    assert kept[-1] < 4
    training = trainings("warmup(share=1.0)", **edits)
    steps = {line["epoch"]: line["step"] for line in undisturbed["log"] if line["kind"] == "epoch"}
    assert training.run(rf"^os.rename \.step-{steps[kept[-1]] + 2:08d}") == -signal.SIGKILL
    same(training.ending(), undisturbed)
    assert json.loads((training.out / "result.json").read_text())["kept_epoch"] == kept[-1]


def test_a_diverged_run_says_where_keeps_the_good_checkpoint_and_says_it_again(trainings: Make, data: Path) -> None:
    training = trainings(fields=("lr=1e30",))
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


__all__ = ["Iterator"]
