"""Carry a study's jobs on a Ray cluster. Its machines see the study's folder, the data and the weights under the same paths."""

import logging
import os
import signal
import threading
from typing import Any

import torch

from trickbag.ground import signals
from trickbag.ground.errors import UsageError
from trickbag.studies.execute import LOOK_SECONDS, Outcome, Task, attempt, share
from trickbag.studies.jobs import Job

PATIENCE = 60.0
"""Seconds that stopped jobs have for their step and checkpoint."""


class Cluster:
    """A Ray cluster; ``address`` "local" starts one here. A job takes ``threads`` cores, and a GPU where there is one.

    Raises UsageError where Ray is not installed or the cluster cannot be reached.
    """

    def __init__(self, task: Task, address: str, threads: int) -> None:
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
        gpus = int(torch.cuda.is_available())
        resources = ray.cluster_resources()  # type: ignore[no-untyped-call]
        self.slots = max(1, int(resources.get("GPU", 0) if gpus else resources.get("CPU", 1) // threads))
        self.ray, self.task, self.threads = ray, ray.put(task), threads
        self.remote = ray.remote(num_cpus=threads, num_gpus=gpus, max_retries=0)(remote)
        self.running: dict[Any, Job] = {}

    def begin(self, job: Job) -> None:
        """Begin the job where there is room."""
        self.running[self.remote.remote(self.task, job, self.threads)] = job

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


def remote(task: Task, job: Job, threads: int) -> Outcome:
    """Carry a job in a process of the cluster."""
    share(threads)
    return attempt(task, job)
