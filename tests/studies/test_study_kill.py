"""A study whose driver and workers are killed or stopped at any moment ends as if nothing had happened."""

import os
import re
import signal
import time
from collections.abc import Callable
from typing import Any

import album
import pytest
from studying import Studying, alive, kill

TINY = album.TINY.replace("epochs = 2", "epochs = 4").replace("batch_size = 16", "batch_size = 8")
RUNS, JOBS = 10, 8
SEED = 1
"""Of kills that hit both the driver and workers."""
EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
Make = Callable[..., Studying]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Makes a tiny study in a place of its own, with two seeds."""
    place = tmp_path_factory.mktemp("data")
    data = album.fill(place / "data", {"a": 0, "b": 1, "c": 2}, 24)
    recipe = album.recipe_file(place / "tiny.toml", TINY)

    def made(*arguments: str, **options: Any) -> Studying:
        return Studying(tmp_path_factory.mktemp("study"), data, "--recipe", str(recipe), "--seeds", "2", *arguments, **options)

    return made


@pytest.fixture(scope="module")
def whole(make: Make) -> dict[str, Any]:
    """The ending of the study that nothing disturbed, in one process."""
    study = make(checkpoint_seconds=60)
    study.run()
    assert len(study.events("ended")) == JOBS
    return study.ending()


def same(ending: dict[str, Any], other: dict[str, Any]) -> None:
    """Assert that two endings are equal, and name the part that is not."""
    assert [part for part in ending if ending[part] != other[part]] == []


def test_killed_at_random_with_two_workers_no_finished_run_is_lost_and_the_report_is_that_of_one_process(
    make: Make, whole: dict[str, Any]
) -> None:
    study = make("--workers", "2", checkpoint_seconds=0.0)
    told = kill(study, 3, RUNS, pause=0.1, seed=SEED)
    assert {text.split()[0] for text in told} == {"driver", "worker"}
    extra = study.events("began").total() - JOBS
    assert 0 < extra <= sum(2 if text.startswith("driver") else 1 for text in told)
    begun = [line["reached"] for line in study.ledger if line["event"] == "began"]
    assert any("no step" not in text for text in begun), "no killed run went on from its checkpoint"
    assert not study.events("failed")
    same(study.ending(), whole)


def test_stopped_the_workers_leave_a_checkpoint_after_their_step_and_the_same_command_continues(
    make: Make, whole: dict[str, Any]
) -> None:
    study = make("--workers", "2", checkpoint_seconds=1000)
    for number, code in EXIT_CODES.items():
        process = study.start()
        while not (midway := set(study.midway()) & (workers := study.workers()).keys()):
            time.sleep(0.002)
        assert process.pid
        os.kill(process.pid, number)
        process.join()
        assert process.exitcode == code
        assert re.fullmatch(r"trickbag: stopped[^\n]* same command continues[^\n]*\.\n", study.errors)
        assert not any(map(alive, workers.values()))
        assert any(study.checkpoints().get(job) for job in midway)
    stopped = [line["reached"] for line in study.ledger if line["event"] == "stopped"]
    assert any("step-" in reached for reached in stopped)
    study.run()
    same(study.ending(), whole)
