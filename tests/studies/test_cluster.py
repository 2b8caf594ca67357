"""A study on a Ray cluster that is started here: the numbers of one process, also where a worker is killed."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import album
import pytest
from studying import Studying

pytest.importorskip("ray", reason="Ray is not installed: pip install 'trickbag[ray]'")


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> tuple[Studying, Studying]:
    """A study in one process, and the same on Ray, one of whose workers was killed once."""
    place = tmp_path_factory.mktemp("ray")
    data = album.fill(place / "data", {"a": 0, "b": 1, "c": 2}, 20)
    recipe = album.recipe_file(place / "tiny.toml", album.TINY.replace("epochs = 2", "epochs = 4"))
    options = ("--recipe", str(recipe), "--seeds", "1")
    whole = Studying(place / "whole", data, *options, checkpoint_seconds=60)
    whole.run()
    clustered = Studying(place / "clustered", data, *options, "--ray", "local", checkpoint_seconds=0.0)
    process = clustered.start()
    while process.is_alive() and not (reached := clustered.checkpoints().keys() & clustered.workers().keys()):
        time.sleep(0.005)
    if not process.is_alive() and "--ray local: the cluster cannot be reached" in clustered.errors:
        pytest.skip(f"Ray does not start here: {clustered.errors}")
    os.kill(clustered.workers()[min(reached)], signal.SIGKILL)
    process.join()
    assert process.exitcode == 0, clustered.errors
    return whole, clustered


def test_a_study_on_ray_gives_the_numbers_of_one_process_bit_for_bit(studies: tuple[Studying, Studying]) -> None:
    whole, clustered = (study.ending() for study in studies)
    assert [part for part in whole if whole[part] != clustered[part]] == []


def test_the_job_of_a_killed_ray_worker_goes_on_from_its_checkpoint_in_another(studies: tuple[Studying, Studying]) -> None:
    _, clustered = studies
    lost = clustered.events("lost")
    assert lost.total() == 1
    job = next(iter(lost))
    first, second = (line for line in clustered.ledger if line["job"] == job and line["event"] == "began")
    assert "no step" in first["reached"]
    assert "step-" in second["reached"]
    assert {line["carrier"] for line in clustered.ledger} == {"Cluster"}
    assert clustered.events("began").total() == clustered.events("ended").total() + 1


def test_ray_leaves_no_process_behind(studies: tuple[Studying, Studying]) -> None:
    _, clustered = studies
    assert clustered.workers() == {}
    assert rays(clustered) == []


def rays(study: Studying) -> list[str]:
    """The processes of Ray that were started for a study, which hands its cache folder down to all of them."""
    mine = f"TRICKBAG_CACHE={study.environment['TRICKBAG_CACHE']}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mine in (folder / "environ").read_bytes().split(b"\0"):
                found.append((folder / "cmdline").read_text())
    return found
