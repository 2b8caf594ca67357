"""Real processes of the command line, to be killed, interrupted and started again.

Importing torch takes seconds, so the processes are forked from a server that has imported the libraries already. What a
process then runs is ``trickbag.terminal.cli.main``, with its own environment, signals and files.
"""

import itertools
import multiprocessing
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trickbag.ground import store
from trickbag.laboratory.lab import fingerprint
from trickbag.tricks import bag

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    ["lab", "matplotlib.figure", "timm", "trickbag.display.screen", "trickbag.studies.conduct"]
    + [f"trickbag.tricks.{name}" for name in bag()]
)

SEALED = r"^os.rename run/\.work$"
"""The run is complete; its last checkpoint is about to be removed."""
TIMES = ("seconds", "images_per_second")


class Dying:
    """An object whose finaliser is hit by a signal; Python drops what a handler raises there."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.kill(os.getpid(), self.number)
        for _ in range(1000):
            pass


def hit(number: int) -> None:
    """Send this process a signal."""
    os.kill(os.getpid(), number)


def hit_twice(number: int) -> None:
    """Send it twice."""
    with suppress(BaseException):
        hit(number)
    hit(number)


def command_line(
    arguments: list[str],
    environment: dict[str, str],
    said: Path,
    at: str,
    nth: int,
    number: int,
    how: Callable[[int], object] = hit,
) -> None:
    """Be ``trickbag`` with these arguments, its output in the files ``said``.out and .err.

    The process sends itself the signal ``number`` just before it opens or renames the ``nth`` file whose event and name, as
    "open cats/3.png" or "os.rename run/.work", match the expression ``at``.
    """
    os.environ.update(environment)
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))  # the server has imported torch with the variable of its own
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests may be under nohup
    for stream, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(said.with_suffix(f".{name}"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    seen = itertools.count(1)

    def strike(event: str, values: tuple[Any, ...]) -> None:
        if event in ("open", "os.rename") and isinstance(values[0], str | Path):
            path = Path(values[0])
            if re.search(at, f"{event} {path.parent.name}/{path.name}") and next(seen) == nth:
                how(number)

    from trickbag.terminal.cli import main

    if at:
        sys.addaudithook(strike)
    sys.argv = ["trickbag", *arguments]
    main()


class Training:
    """One ``trickbag train`` command, started as often as it takes."""

    def __init__(self, place: Path, data: Path, *arguments: str, checkpoint_seconds: float = 0.0) -> None:
        self.place, self.out, self.said = place, place / "run", place / "said"
        place.mkdir(parents=True, exist_ok=True)
        self.arguments = ["train", str(data), "--out", str(self.out), *arguments]
        self.environment = {
            "TRICKBAG_CACHE": str(place / "cache"),
            "TRICKBAG_CHECKPOINT_SECONDS": str(checkpoint_seconds),
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        }
        self.starts = 0
        self.story = ""
        """What the start that came to the end wrote to standard output."""

    def start(
        self,
        at: str = "",
        nth: int = 1,
        number: int = signal.SIGKILL,
        how: Callable[[int], object] = hit,
        **variables: str,
    ) -> ForkServerProcess:
        """Start the command, each time with another number of loader threads."""
        self.starts += 1
        environment = self.environment | {"TRICKBAG_WORKERS": str(1 + self.starts % 3)} | variables
        process = SERVER.Process(target=command_line, args=(self.arguments, environment, self.said, at, nth, number, how))
        process.start()
        return process

    def run(self, at: str = "", nth: int = 1, number: int = signal.SIGKILL, how: Callable[[int], object] = hit) -> int:
        """Start the command, wait for its end and return the exit code, negative for a signal that killed it."""
        process = self.start(at, nth, number, how)
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
        return store.Checkpoints(self.out / ".work").paths()[::-1]

    def moved(self, process: ForkServerProcess) -> None:
        """Wait until the process has written a checkpoint, or ended."""
        before = self.checkpoints()[-1:]
        while process.is_alive() and self.checkpoints()[-1:] in ([], before):
            time.sleep(0.005)

    def ending(self) -> dict[str, Any]:
        """Go to the end and return what must not depend on what happened before."""
        assert self.run(SEALED) == -signal.SIGKILL, self.errors
        self.story = self.output
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
