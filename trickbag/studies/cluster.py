"""Carry a study's jobs on a Ray cluster. Its machines see the study's folder, the data and the weights under the same paths."""

import logging
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from trickbag.ground import signals
from trickbag.ground.errors import TrickbagError, UsageError
from trickbag.studies.execute import LOOK_SECONDS, Outcome, Task, attempt, share
from trickbag.studies.jobs import Job

PATIENCE = 60.0
"""Seconds that stopped jobs have for their step and checkpoint."""
Answer = TypeVar("Answer")


class Lot(NamedTuple):
    """What each job gets of a cluster."""

    slots: int
    """Jobs at a time."""
    threads: int
    gpus: int


def divide(machines: Sequence[Mapping[str, float]], threads: int) -> Lot:
    """The lot of jobs on machines with so many units of "CPU" and "GPU" each, of at most so many threads.

    A job gets one GPU where any machine has one, since times on unlike devices cannot be compared, and as many cores as
    leave one job for every GPU. Raises UsageError where no machine can carry a job.

    >>> divide([{"CPU": 8}, {"CPU": 6}], 4)
    Lot(slots=3, threads=4, gpus=0)
    >>> divide([{"CPU": 64}, {"CPU": 16, "GPU": 8}], 4)
    Lot(slots=8, threads=2, gpus=1)
    >>> divide([{"CPU": 0}, {"CPU": 2}], 64)
    Lot(slots=1, threads=2, gpus=0)
    """
    cores = [(int(each.get("CPU", 0)), int(each.get("GPU", 0))) for each in machines if each.get("CPU", 0) >= 1]
    if with_gpus := [(cpus, gpus) for cpus, gpus in cores if gpus]:
        own = max(1, min(threads, *(cpus // gpus for cpus, gpus in with_gpus)))
        return Lot(sum(min(gpus, cpus // own) for cpus, gpus in with_gpus), own, 1)
    if not cores:
        raise UsageError("--ray: no machine of the cluster offers a CPU. Start its workers without --num-cpus=0.")
    own = min(threads, max(cpus for cpus, _ in cores))
    return Lot(sum(cpus // own for cpus, _ in cores), own, 0)


def connect(address: str) -> Any:
    """Ray, connected to the cluster at ``address``; "local" starts one here.

    Raises UsageError where Ray is not installed or the cluster cannot be reached.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise UsageError("--ray needs Ray. Install it: pip install 'trickbag[ray]'.") from None
    started: dict[str, Any] = {"include_dashboard": False, "num_cpus": os.cpu_count()} if address == "local" else {}
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **started)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UsageError(f"--ray {address}: the cluster cannot be reached ({error}).") from None
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)  # Ray has put its own there
    return ray


def lot(ray: Any, threads: int) -> Lot:
    """The lot of jobs on the cluster, whatever the driver's own machine has."""
    return divide([node["Resources"] for node in ray.nodes() if node["Alive"]], threads)


def answered(address: str, threads: int, question: Callable[[], Answer]) -> Answer:
    """The answer that a process of the cluster gives, on the device and with the threads of a job.

    Raises what the question raises, and TrickbagError where that process died.
    """
    ray = connect(address)
    try:
        own = lot(ray, threads)
        reference = ray.remote(num_cpus=own.threads, num_gpus=own.gpus, max_retries=0)(ask).remote(question, own)
        while not ray.wait([reference], timeout=LOOK_SECONDS)[0]:
            signals.look()
        answer: Answer = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError as error:
        raise TrickbagError(f"--ray {address}: the process that planned the study died ({error}).") from None
    finally:
        ray.shutdown()
    return answer


class Cluster:
    """A Ray cluster, which says what a job gets: cores, up to ``threads``, and a GPU where there is one.

    Raises UsageError where Ray is not installed, or the cluster cannot be reached or carry a job.
    """

    def __init__(self, task: Task, address: str, threads: int) -> None:
        self.ray = connect(address)
        try:
            self.lot = lot(self.ray, threads)
        except UsageError:
            self.ray.shutdown()
            raise
        self.slots, self.task = self.lot.slots, self.ray.put(task)
        self.remote = self.ray.remote(num_cpus=self.lot.threads, num_gpus=self.lot.gpus, max_retries=0)(remote)
        self.running: dict[Any, Job] = {}

    def begin(self, job: Job) -> None:
        """Begin the job where there is room."""
        self.running[self.remote.remote(self.task, job, self.lot)] = job

    def ended(self) -> list[Outcome]:
        """What the jobs told, and of those whose process or machine died, that it did."""
        done: list[Any] = []
        while not done:
            done, _ = self.ray.wait(list(self.running), timeout=LOOK_SECONDS)
            signals.look()
        return [self._outcome(reference, self.running.pop(reference)) for reference in done]

    def _outcome(self, reference: Any, job: Job) -> Outcome:
        try:
            outcome: Outcome = self.ray.get(reference)
        except self.ray.exceptions.RayTaskError as error:  # the task itself did not start: another version, a missing module
            return Outcome(job, "error", f"{type(error.cause).__name__}: {error.cause}")
        except self.ray.exceptions.RayError:
            return Outcome(job, "worker")
        return outcome

    def close(self) -> None:
        """Stop what still runs after its step, with a checkpoint, and leave the cluster; one that was started here ends."""
        try:
            for reference in self.running:
                self.ray.cancel(reference)
            self.ray.wait(list(self.running), num_returns=len(self.running), timeout=PATIENCE) if self.running else None
        finally:
            self.ray.shutdown()


def remote(task: Task, job: Job, own: Lot) -> Outcome:
    """Carry a job in a process of the cluster."""
    take(own)
    return attempt(task, job)


def ask(question: Callable[[], Answer], own: Lot) -> Answer:
    """Answer a question in a process of the cluster."""
    take(own)
    return question()


def take(own: Lot) -> None:
    """Use no more of this machine than the cluster lent: a job without a GPU would take the first that it sees."""
    share(own.threads)
    if not own.gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
