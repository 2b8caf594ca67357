"""Jobs in this process and in others: order, failures, deaths, and what the ledger says of them."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from processes import SERVER

from trickbag.ground import store
from trickbag.ground.errors import Interrupted, NoRoomError, TrickbagError
from trickbag.laboratory.lab import recipe
from trickbag.studies.execute import ATTEMPTS, LOST, Carrier, Here, Outcome, Processes, execute
from trickbag.studies.jobs import Cell, Job
from trickbag.studies.worker import Place


class OddError(Exception):
    """Cannot be pickled back: it needs two values."""

    def __init__(self, what: str, where: str) -> None:
        super().__init__(f"{what} at {where}")


def task(job: Job, place: Place) -> None:
    """Do what the job's name says, and store its run."""
    name = job.key.partition("-")[0]
    steps = place.work(job.key) / ".work"
    if name == "kills":
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "advances":
        reached = len(list(steps.glob("step-*"))) if steps.exists() else 0
        (steps / f"step-{reached:08d}").mkdir(parents=True)
        if reached < 2 * ATTEMPTS:
            os.kill(os.getpid(), signal.SIGKILL)
    if name == "fails":
        raise TrickbagError("the disk is full.")
    if name == "full" and not (place.folder / "freed").exists():
        raise NoRoomError("no space left.")
    if name == "odd":
        raise OddError("something", "somewhere")
    if name == "large":
        raise MemoryError
    if name == "stops" and not (place.folder / "stopped").exists():
        (place.folder / "stopped").touch()
        raise Interrupted("stopped.", signal.SIGINT)
    with (place.folder / "order").open("a") as file:
        file.write(f"{job.key} {os.getpid()}\n")
    store.write(place.run(job.key) / store.MANIFEST, "{}")


def jobs(*keys: str, **parents: str) -> list[Job]:
    """Jobs of these names, each with one run; those of ``parents`` after them."""
    made = recipe()
    named = dict.fromkeys(keys, "") | parents
    return [Job(made, 0, key, (Cell(key, made, 0, key),), parent=parent) for key, parent in named.items()]


def carry_out(place: Place, asked: list[Job], workers: int = 1) -> dict[str, tuple[str, str]]:
    """Carry out jobs and return how those that came to an end did."""
    told: list[Outcome] = []
    work = partial(task, place=place)
    carrier: Carrier = Here(work) if workers == 1 else Processes(work, workers, 1)
    failed = execute(asked, place, carrier, told.append)
    assert failed == [outcome for outcome in told if outcome.kind]
    return {outcome.job.key: (outcome.kind, outcome.cause) for outcome in told}


def events(place: Place, name: str) -> Counter[str]:
    """How often each job has a line of this name in the ledger."""
    return Counter(line["job"] for line in store.lines(place.folder / "ledger.jsonl") if line["event"] == name)


def order(place: Place) -> list[str]:
    """The jobs that ended well, as they did."""
    return [line.split()[0] for line in (place.folder / "order").read_text().splitlines()]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.mark.parametrize("workers", [1, 2])
def test_failures_of_every_kind_are_told_and_the_others_go_on(place: Place, workers: int) -> None:
    ended = carry_out(place, jobs("fails", "odd", "large", "fine", "good"), workers)
    assert ended == {
        "fails": ("error", "the disk is full."),
        "odd": ("error", "OddError: something at somewhere"),
        "large": ("memory", "MemoryError"),
        "fine": ("", ""),
        "good": ("", ""),
    }
    assert set(carry_out(place, jobs("fails", "odd", "large", "fine", "good"), workers)) == {"fails", "odd", "large"}
    assert events(place, "began") == Counter(fails=2, odd=2, large=2, fine=1, good=1)


def test_a_child_waits_for_its_parent_and_begins_also_where_that_failed(place: Place) -> None:
    asked = jobs(child="parent", orphan="fails", fails="", parent="")
    assert carry_out(place, asked)["orphan"] == ("", "")
    assert order(place) == ["parent", "child", "orphan"] or order(place) == ["orphan", "parent", "child"]
    begun = [line["job"] for line in store.lines(place.folder / "ledger.jsonl") if line["event"] == "began"]
    assert begun.index("parent") < begun.index("child")
    assert begun.index("fails") < begun.index("orphan")


def test_a_job_that_kills_its_process_is_given_up_and_nobody_else_is_touched(place: Place) -> None:
    ended = carry_out(place, jobs("kills", "a", "b", "c"), workers=2)
    assert ended == {"kills": ("worker", LOST), "a": ("", ""), "b": ("", ""), "c": ("", "")}
    assert events(place, "began") == Counter(kills=ATTEMPTS, a=1, b=1, c=1)
    assert events(place, "lost") == Counter(kills=ATTEMPTS)


def test_a_job_that_gets_further_each_time_before_its_process_dies_is_not_given_up(place: Place) -> None:
    assert carry_out(place, jobs("advances", "a"), workers=2) == {"advances": ("", ""), "a": ("", "")}
    assert events(place, "lost") == Counter(advances=2 * ATTEMPTS)


def test_every_job_has_a_process_of_its_own(place: Place) -> None:
    carry_out(place, jobs("a", "b", "c"), workers=2)
    pids = {line.split()[1] for line in (place.folder / "order").read_text().splitlines()}
    assert len(pids) == 3
    assert str(os.getpid()) not in pids


def test_here_a_job_that_kills_the_driver_is_begun_last_and_at_last_given_up(place: Place) -> None:
    """As when the system is short of memory: the same command, called again and again, comes to an end."""
    asked = jobs("kills", "a", "b")
    for _ in range(ATTEMPTS):
        process = SERVER.Process(target=carry_out, args=(place, asked))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    assert order(place) == ["a", "b"]
    assert carry_out(place, asked) == {"kills": ("worker", LOST)}
    assert events(place, "began") == Counter(kills=ATTEMPTS, a=1, b=1)


def test_here_a_stop_is_no_outcome_and_no_death(place: Place) -> None:
    asked = jobs("stops", "a")
    with pytest.raises(Interrupted):
        carry_out(place, asked)
    assert events(place, "stopped") == Counter(stops=1)
    assert carry_out(place, asked) == {"stops": ("", ""), "a": ("", "")}
    assert not events(place, "lost")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_stops_the_study_and_fails_no_job(place: Place, workers: int) -> None:
    asked = jobs("full", "a", "b", a="full", b="full")
    with pytest.raises(NoRoomError, match="same command continues"):
        carry_out(place, asked, workers)
    assert events(place, "began") == events(place, "stopped") == Counter(full=1)
    (place.folder / "freed").touch()
    assert carry_out(place, asked) == {"full": ("", ""), "a": ("", ""), "b": ("", "")}


def holding(place: Place, ready: Any) -> None:
    """Be a driver whose two jobs never end."""
    execute(jobs("a", "b"), place, Processes(partial(forever, ready=ready), 2, 1), print)


def forever(job: Job, ready: Any) -> None:
    """Say which process this is, and wait."""
    ready.send(os.getpid())
    while True:
        signal.pause()


def test_the_processes_of_a_killed_driver_end(place: Place) -> None:
    receiver, sender = SERVER.Pipe(duplex=False)
    driver = SERVER.Process(target=holding, args=(place, sender))
    driver.start()
    assert receiver.recv() != receiver.recv()
    driver.kill()
    driver.join()
    sender.close()
    assert receiver.poll(60)  # all who could write are gone; at once, but the machine may be busy with other tests
    with pytest.raises(EOFError):
        receiver.recv()


SLOW = """
import fcntl, os, pathlib, time
held = open(os.environ["HELD"], "w")
fcntl.flock(held, fcntl.LOCK_EX)
pathlib.Path(os.environ["HELD"]).with_suffix(".begun").touch()
time.sleep(600)
"""
DRIVER = """
from trickbag.studies.execute import Place, Processes
Place.__module__ = "slow"
Processes(print, 1, 1).begin(None)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="processes start from a server on Linux alone")
def test_a_fork_server_that_still_imports_ends_with_its_driver(tmp_path: Path) -> None:
    """What it imports takes ten minutes here; its death frees the lock."""
    (tmp_path / "slow.py").write_text(SLOW)
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"HELD": str(tmp_path / "held"), "PYTHONPATH": path}
    driver = subprocess.Popen([sys.executable, "-c", DRIVER], env=environment)
    try:
        while not (tmp_path / "held.begun").exists() and driver.poll() is None:
            time.sleep(0.01)
        assert driver.poll() is None
    finally:
        driver.kill()
        driver.wait()
    with (tmp_path / "held").open("a") as held:
        for _ in range(300):
            with suppress(BlockingIOError):
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            time.sleep(0.1)
    pytest.fail("the server still runs")
