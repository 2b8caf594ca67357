"""A study on a Ray cluster that is started here: the numbers of one process, also where a worker is killed.

And on a cluster with GPUs: Ray lends what a machine declares, whether it has it or not.
"""

import csv
import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import album
import own
import pytest
import torch
from studying import Studying

from trickbag import plugins, tricks
from trickbag.ground.errors import TrickbagError, UsageError
from trickbag.ground.events import Event, Note
from trickbag.laboratory.lab import recipe
from trickbag.studies.cluster import Cluster, Lot, answered, divide, remote
from trickbag.studies.jobs import Cell, Job
from trickbag.studies.plan import StudyPlan
from trickbag.studies.planning import Planner

pytest.importorskip("ray", reason="Ray is not installed: pip install 'trickbag[ray]'")

EVEN = {"RAY_worker_niceness": "0"}
"""Ray's workers give way to all else by default, and so to the tests beside this one, for minutes."""


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> tuple[Studying, Studying]:
    """A study with a trick and a metric of one's own, in one process and on Ray, one of whose workers was killed once."""
    place = tmp_path_factory.mktemp("ray")
    data = album.fill(place / "data", {"a": 0, "b": 1, "c": 2}, 20)
    recipe = album.recipe_file(place / "tiny.toml", album.TINY.replace("epochs = 2", "epochs = 4"))
    options = ["--recipe", str(recipe), "--seeds", "1", "--with", "invert(share=0.3)"]
    for name, source in {"invert": own.INVERT, "scores": own.TOP2}.items():
        options += ["--plugin", own.write(place, name, source)]
    whole = Studying(place / "whole", data, *options, checkpoint_seconds=60)
    whole.run()
    clustered = Studying(place / "clustered", data, *options, "--ray", "local", checkpoint_seconds=0.0)
    clustered.environment |= EVEN
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


def test_a_trick_and_a_metric_of_ones_own_are_in_what_ray_made(studies: tuple[Studying, Studying]) -> None:
    _, clustered = studies
    assert (clustered.out / "plugins/invert.py").read_text("utf-8") == own.INVERT
    with (clustered.out / "effects.csv").open(encoding="utf-8") as file:
        effects = list(csv.DictReader(file))
    assert all(row["metric_top2_difference"] for row in effects)


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


@pytest.fixture(scope="module")
def lending(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a cluster that is started here and declares two GPUs and four cores."""
    from ray.cluster_utils import Cluster as Machines

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRICKBAG_CACHE", str(tmp_path_factory.mktemp("cache")))
        for name, value in (EVEN | {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "RAY_USAGE_STATS_ENABLED": "0"}).items():
            patch.setenv(name, value)
        started = Machines()
        started.add_node(num_cpus=4, num_gpus=2, include_dashboard=False, object_store_memory=80_000_000)
        yield str(started.address)
        started.shutdown()


def test_each_job_has_a_gpu_and_cores_of_its_own_whatever_the_driver_has(lending: str, tmp_path: Path) -> None:
    """Two jobs, each of which waits for the other to begin, from a driver with no GPU, or one, and with 16 threads."""

    def task(job: Job) -> None:
        (tmp_path / f"{job.key}.began").touch()
        while len(list(tmp_path.glob("*.began"))) < 2:
            time.sleep(0.01)
        found = [os.environ["CUDA_VISIBLE_DEVICES"], torch.get_num_threads(), os.environ["TRICKBAG_WORKERS"]]
        (tmp_path / f"{job.key}.found").write_text(json.dumps(found))

    made = recipe()
    with closing(Cluster(task, lending, threads=16)) as cluster:
        assert cluster.slots == 2
        for seed in range(2):
            cluster.begin(Job(made, seed, f"job-{seed}", (Cell("arm", made, seed, f"run-{seed}"),)))
        ended = cluster.ended()
        ended += cluster.ended() if len(ended) < 2 else []
    assert [outcome.kind for outcome in ended] == ["", ""]
    found = sorted(json.loads(path.read_text()) for path in tmp_path.glob("*.found"))
    assert found == [["0", 2, "2"], ["1", 2, "2"]]


def test_a_job_that_is_lent_no_gpu_sees_none_of_its_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setenv("TRICKBAG_WORKERS", "7")

    def task(job: Job) -> None:
        raise ValueError(f"it sees {os.environ['CUDA_VISIBLE_DEVICES']!r}")

    assert remote(task, Job(recipe(), 0, "job", ()), Lot(1, 1, 0)).cause == "ValueError: it sees ''"


@pytest.mark.parametrize(
    ("machines", "threads", "expected"),
    [
        ([(0, 0), (4, 0), (6, 0)], 4, Lot(2, 4, 0)),
        ([(4, 0), (6, 0)], 64, Lot(1, 6, 0)),
        ([(64, 0), (8, 2), (4, 1)], 64, Lot(3, 4, 1)),
        ([(2, 8), (64, 8)], 4, Lot(10, 1, 1)),
        ([(0, 8), (3, 0)], 2, Lot(1, 2, 0)),
    ],
)
def test_no_job_asks_for_more_than_a_machine_has(machines: list[tuple[int, int]], threads: int, expected: Lot) -> None:
    assert divide([{"CPU": cpus, "GPU": gpus} for cpus, gpus in machines], threads) == expected


def test_a_cluster_that_can_carry_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="no machine of the cluster offers a CPU"):
        divide([{"memory": 1e9}, {"CPU": 0, "GPU": 8}], 1)


def test_what_is_timed_and_chosen_for_a_device_is_so_on_the_clusters(
    lending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver times nothing, its notes are those of the machine that did, and what is wrong is said as ever."""
    monkeypatch.setenv("TRICKBAG_CACHE", str(tmp_path / "cache"))
    data = album.fill(tmp_path / "data", {"a": 0, "b": 1, "c": 2}, 20)
    file = album.recipe_file(tmp_path / "tiny.toml", album.TINY.replace('precision = "fp32"', 'precision = "auto"'))
    told = list[Event]()
    for place in ("trickbag.runs.auto.fastest", "trickbag.studies.pilot.fastest"):
        monkeypatch.setattr(place, lambda *_: pytest.fail("the driver timed steps"))

    def planned(**options: Any) -> StudyPlan:
        asked = {"recipe": str(file), "tricks": ["mixup"], "seeds": 1} | options
        return Planner(data, None, tmp_path / "study", None, told.append, asked).planned_there(lending)

    assert planned().reference.precision in ("fp32", "bf16")
    assert any("is the fastest here" in event.text for event in told if isinstance(event, Note))
    with pytest.raises(UsageError, match=r"3 seeds of the smallest design take about"):
        planned(seeds=3, budget=1e-6)


def test_a_plugin_goes_to_the_cluster_with_its_content(lending: str, tmp_path: Path) -> None:
    """Neither its file nor its name need be known there."""
    file = own.write(tmp_path, "invert", own.INVERT)
    with plugins.using(file):
        trick = tricks.parse("invert(share=1.0)")
        (held,) = plugins.of([trick]).values()
    Path(file).unlink()

    def there() -> tuple[list[int], str]:
        (transform,) = trick.augment()
        (known,) = plugins.of([trick]).values()
        pixels = transform(torch.tensor([0, 255], dtype=torch.uint8), 16, torch.Generator())
        return pixels.tolist(), known.digest

    assert answered(lending, 1, there) == ([255, 0], held.digest)


def test_a_process_of_the_cluster_that_dies_over_a_question_is_named(lending: str) -> None:
    assert answered(lending, 1, torch.get_num_threads) == 1
    with pytest.raises(TrickbagError, match="the process that planned the study died"):
        answered(lending, 1, lambda: os.kill(os.getpid(), signal.SIGKILL))
