"""Carry out a study's jobs, here or in other processes; resumable, and no failure stops the others.

Only the driver writes the ledger, ``ledger.jsonl``: a line for every job that began, and one for what became of it.
"""

import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import Any, Protocol, Self

import torch

from trickbag import plugins
from trickbag.ground import signals, store
from trickbag.ground.errors import Interrupted, NoRoomError, TrickbagError, lacks_memory
from trickbag.studies.folder import LEDGER, LedgerLine
from trickbag.studies.jobs import Job
from trickbag.studies.worker import Place

Task = Callable[[Job], None]

ATTEMPTS = 3
"""How often the process that carries a job may die at the same point of it."""
LOST = f"its process died {ATTEMPTS} times at the same point; the machine may be short of memory"
LOOK_SECONDS = 1.0
"""Between two looks for a stop signal while others work."""
START = "forkserver" if sys.platform == "linux" else "spawn"
"""How processes start: from a server that has imported torch and nothing else, where forking after that is safe."""


@dataclass(frozen=True)
class Outcome:
    """How a job ended."""

    job: Job
    kind: str = ""
    """Empty where it ended well; else error, memory, room, which is that the disk is full, or worker, that its process died."""
    cause: str = ""


class Carrier(Protocol):
    """What carries jobs."""

    slots: int
    """Jobs at a time."""

    def begin(self, job: Job) -> None:
        """Begin a job."""
        ...

    def ended(self) -> list[Outcome]:
        """Wait until a job has ended, and tell all that have."""
        ...

    def close(self) -> None:
        """Stop what still runs, after its step."""
        ...


class Here:
    """The driver's own process, one job after another."""

    slots = 1

    def __init__(self, task: Task) -> None:
        self.task, self.outcomes = task, list[Outcome]()

    def begin(self, job: Job) -> None:
        """Carry the job before coming back."""
        self.outcomes = [attempt(self.task, job)]

    def ended(self) -> list[Outcome]:
        """How the job ended."""
        return self.outcomes

    def close(self) -> None:
        """Nothing is held."""


class Processes:
    """Processes of this machine, one for each job: where one dies, it is known whose, and no other is touched."""

    def __init__(self, task: Task, workers: int, threads: int) -> None:
        self.task, self.slots, self.threads = task, workers, threads
        self.running: dict[Connection, tuple[Job, BaseProcess]] = {}
        self.context = beginning()

    def begin(self, job: Job) -> None:
        """Start the job's process."""
        receiver, sender = self.context.Pipe(duplex=False)
        process = self.context.Process(target=serve, args=(self.task, job, self.threads, sender), daemon=True)  # type: ignore[attr-defined]
        with begun_apart():
            process.start()
        sender.close()
        self.running[receiver] = job, process

    def ended(self) -> list[Outcome]:
        """What the processes told before they ended; of those that told nothing, that they died."""
        outcomes = []
        while not (told := wait(list(self.running), LOOK_SECONDS)):
            signals.look()
        for receiver in told:
            assert isinstance(receiver, Connection)
            job, process = self.running.pop(receiver)
            with receiver:
                try:
                    outcomes.append(receiver.recv())
                except (EOFError, OSError):
                    outcomes.append(Outcome(job, "worker"))
            process.join()
        return outcomes

    def close(self) -> None:
        """Have the processes stop after their step, with a checkpoint; they end at once when this one does."""
        for _, process in self.running.values():
            process.terminate()
        for receiver, (_, process) in self.running.items():
            with receiver, suppress(EOFError, OSError):  # not join: the server that watches them may be stopped as well
                while True:
                    receiver.recv()
            process.join()


def beginning() -> BaseContext:
    """How processes begin: on Linux they are forked from one that has imported all that they need, whoever asks first."""
    context = multiprocessing.get_context(START)
    context.set_forkserver_preload(["trickbag.studies.mortal", Place.__module__])
    return context


@contextmanager
def begun_apart() -> Iterator[None]:
    """Inside, processes begin that do not run the user's script again, and that get no signal but SIGTERM."""
    script = sys.modules["__main__"]
    with signals.held():
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = script


def serve(task: Task, job: Job, threads: int, sender: Connection) -> None:
    """Be the process of one job: tell how it ended, stop after the step on SIGTERM, end at once when the driver is dead."""
    driver = multiprocessing.parent_process()
    assert driver

    def watch() -> None:
        wait([driver.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    signals.listen(second=False)  # the driver and whoever stops a group of processes both send one
    for number in {*signals.STOPS} - {signal.SIGTERM}:
        signal.signal(number, signal.SIG_IGN)  # a terminal sends them to all processes: the driver decides
    try:
        share(threads)
        sender.send(attempt(task, job))
    except Interrupted as stopped:
        sys.exit(stopped.exit_code)


def share(threads: int) -> None:
    """Take no more than a share of the cores."""
    torch.set_num_threads(threads)
    os.environ["TRICKBAG_WORKERS"] = str(threads)


def attempt(task: Task, job: Job) -> Outcome:
    """Carry a job and tell how it ended. Raises Interrupted where the user stopped it."""
    return Outcome(job, *fault(partial(task, job)))


def fault(act: Callable[[], object]) -> tuple[str, str]:
    """How an act failed and why, as in ``Outcome``; both empty where it did not. Raises Interrupted."""
    try:
        act()
    except Exception as error:  # noqa: BLE001 - whatever happened is told, and the other jobs go on
        text = str(error) or type(error).__name__
        if isinstance(error, NoRoomError):
            return "room", text
        if lacks_memory(error):
            return "memory", text
        where = plugins.place(error)
        return "error", text if isinstance(error, TrickbagError) else f"{where}{type(error).__name__}: {text}"
    return "", ""


class Ledger:
    """A line for every job that began, and one for what became of it: ended, failed, stopped, or lost with its process."""

    def __init__(self, place: Place, carrier: str) -> None:
        self.place, self.path, self.carrier = place, place.folder / LEDGER, carrier
        self.last: dict[str, dict[str, Any]] = {}
        self.deaths: Counter[tuple[str, str]] = Counter()
        for line in store.lines(self.path, LedgerLine):
            self._read(line)

    def _read(self, line: dict[str, Any]) -> None:
        self.last[line["job"]] = line
        if line["event"] == "lost":
            self.deaths[line["job"], line["reached"]] += 1
        if line["event"] in ("ended", "failed"):
            self.deaths = Counter({(job, at): n for (job, at), n in self.deaths.items() if job != line["job"]})

    def write(self, event: str, job: Job, **more: str) -> None:
        """One more line."""
        line: dict[str, Any] = {"event": event, "job": job.key, "arms": [cell.arm for cell in job.cells], "seed": job.seed}
        line |= {"time": round(time.time(), 3), "host": socket.gethostname(), "carrier": self.carrier}
        line |= {"reached": self.reached(job), **more}
        store.append(self.path, line)
        self._read(line)

    @contextmanager
    def following(self, running: Mapping[str, Job]) -> Iterator[Self]:
        """Whatever ends the block, write that it stopped the jobs that run."""
        try:
            yield self
        finally:
            for job in running.values():
                self.write("stopped", job)

    def reached(self, job: Job) -> str:
        """What the job's next process would go on from."""
        steps = [path.name for path in store.Checkpoints(self.place.work(job.key) / ".work").paths()]
        return f"{sum(map(self.place.done, job.cells))} of {len(job.cells)} runs, {max(steps, default='no step')}"

    def hopeless(self, job: Job) -> bool:
        """Whether the job's process died too often where it stands."""
        return self.deaths[job.key, self.reached(job)] >= ATTEMPTS

    def took_driver(self, job: Job) -> bool:
        """Whether the driver died while it carried the job itself: of jobs in other processes its death says nothing."""
        last = self.last.get(job.key, {})
        return last.get("event") == "began" and last["carrier"] == Here.__name__


def ready(waiting: Sequence[Job], unfinished: Sequence[Job]) -> list[Job]:
    """Those jobs whose parents have left what they go on from, or failed: then they train from the start."""
    keys = {job.key for job in unfinished}
    return [job for job in waiting if job.parent not in keys]


def execute(jobs: Sequence[Job], place: Place, carrier: Carrier, ended: Callable[[Outcome], None]) -> list[Outcome]:
    """Carry out every job that is not finished, in this order where parents allow it; return those that failed.

    A job whose process died is begun again, after the others. Raises Interrupted where the user stops it: the same call
    goes on from there.
    """
    waiting = [job for job in jobs if not all(map(place.done, job.cells))]
    running: dict[str, Job] = {}
    failed: list[Outcome] = []

    def settle(outcome: Outcome) -> None:
        job = outcome.job
        if outcome.kind == "room":
            ledger.write("stopped", job)
            raise NoRoomError(f"{outcome.cause} What was finished is kept; the same command continues.")
        if outcome.kind == "worker":
            ledger.write("lost", job)
            if not ledger.hopeless(job):
                waiting.append(job)
                return
            outcome = Outcome(job, "worker", LOST)
        if outcome.kind:
            ledger.write("failed", job, kind=outcome.kind, cause=outcome.cause)
            failed.append(outcome)
        else:
            ledger.write("ended", job)
        ended(outcome)

    with closing(carrier), Ledger(place, type(carrier).__name__).following(running) as ledger:
        for job in filter(ledger.took_driver, list(waiting)):
            waiting.remove(job)
            settle(Outcome(job, "worker"))
        while waiting or running:
            for job in ready(waiting, [*waiting, *running.values()])[: carrier.slots - len(running)]:
                waiting.remove(job)
                running[job.key] = job
                ledger.write("began", job)
                carrier.begin(job)
            for outcome in carrier.ended():
                del running[outcome.job.key]
                settle(outcome)
    return failed
