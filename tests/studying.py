"""Real studies from the command line, whose driver and workers are killed while they run."""

import json
import os
import re
import shutil
import signal
import time
from collections import Counter
from collections.abc import Sequence
from glob import glob
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import numpy as np
from processes import SERVER, command_line

from trickbag import plugins
from trickbag.ground import store
from trickbag.ground.streams import generator, uniform
from trickbag.studies import finished
from trickbag.studies.folder import StudyRecord

TIMES = ("seconds", "training_seconds", "images_per_second", "latency", "memory_bytes")
"""Fields of ``result.json`` that no two runs share; ``log.jsonl`` has ``seconds`` too."""
FILES = (
    "report.html",
    "report.md",
    "effects.csv",
    "arms.csv",
    "recommended.toml",
    "methods.md",
    "effects.tex",
    "references.bib",
)
PATIENCE = 60
"""Seconds to wait for processes that are to end: they do so at once, but the machine may be busy with other tests."""
ARGUMENTS = ("--tricks", "mixup,drw(start=0.5),ema", "--design", "add-one", "--price", "1000")
"""The reference shares its trainings with ema, and their beginnings with drw: four trainings a seed, with the placebo."""


class Studying:
    """One ``trickbag study`` command, started as often as it takes."""

    def __init__(self, place: Path, data: Path, *arguments: str, checkpoint_seconds: float = 0.0) -> None:
        self.out, self.said = place / "study", place / "said"
        place.mkdir(parents=True, exist_ok=True)
        self.arguments = ["study", str(data), "--out", str(self.out), *ARGUMENTS, *arguments]
        self.environment = {
            "TRICKBAG_CACHE": str(place / "cache"),
            "TRICKBAG_CHECKPOINT_SECONDS": str(checkpoint_seconds),
            # As many as each of two workers has: the last bits go by the number of threads.
            "OMP_NUM_THREADS": "1",
        }

    def start(self, at: str = "", nth: int = 1, number: int = signal.SIGKILL) -> ForkServerProcess:
        """Start the command; ``at``, ``nth`` and ``number`` as for ``processes.command_line``."""
        process = SERVER.Process(target=command_line, args=(self.arguments, self.environment, self.said, at, nth, number))
        process.start()
        return process

    def run(self) -> None:
        """Start the command and see it end well."""
        process = self.start()
        process.join()
        assert process.exitcode == 0, self.errors

    @property
    def errors(self) -> str:
        """What the last start wrote to standard error."""
        return self.said.with_suffix(".err").read_text()

    @property
    def ledger(self) -> list[dict[str, Any]]:
        """The lines of the ledger."""
        return store.lines(self.out / "ledger.jsonl")

    def events(self, name: str) -> Counter[str]:
        """How often each job has a line of this name in the ledger."""
        return Counter(line["job"] for line in self.ledger if line["event"] == name)

    def workers(self) -> dict[str, int]:
        """The jobs that are being carried out in processes of their own, and the processes' numbers."""
        found = {}
        for file in (self.out / "trainings").glob(".*.lock"):
            text = file.read_text()
            if text and alive(int(text)):
                found[file.name[1:].removesuffix(".lock")] = int(text)
        return found

    def checkpoints(self) -> dict[str, str]:
        """The newest checkpoint of each job under way."""
        newest = {work.name: store.Checkpoints(work / ".work").paths()[:1] for work in self._under_way()}
        return {job: path.name for job, paths in newest.items() for path in paths}

    def midway(self) -> list[str]:
        """The jobs that have trained an epoch."""
        return [work.name for work in self._under_way() if store.lines(work / "log.jsonl")]

    def _under_way(self) -> list[Path]:
        """The folders of the jobs under way: any may be gone when it is looked into."""
        return [self.out / ".work" / job for job in glob("*", root_dir=self.out / ".work")]  # noqa: PTH207  as in store.py

    def finished(self) -> dict[str, int]:
        """The finished runs, by the number of the file that holds their result: it changes when a run is made anew."""
        return {path.parent.name: path.stat().st_ino for path in (self.out / "runs").glob("[!.]*/result.json")}

    def ending(self) -> dict[str, Any]:
        """What must not depend on what happened before: the runs bit for bit, and the report without times and command.

        The report is made anew from a copy in which the fields TIMES are 1, the command is empty, and no run counts as alone.
        """
        copy = self.out.with_name("copy")
        shutil.copytree(self.out, copy)
        runs: dict[str, Any] = {}
        for folder in sorted((copy / "runs").iterdir()):
            record = json.loads((folder / "result.json").read_text())
            log = [line | {"seconds": 1} for line in store.lines(folder / "log.jsonl")]
            with np.load(folder / "predictions.npz", allow_pickle=False) as arrays:
                predictions = {name: arrays[name].tobytes() for name in arrays.files}
            runs[folder.name] = {k: v for k, v in record.items() if k not in (*TIMES, "alone")}, predictions, log
            same = {name: 1 for name in TIMES if name in record} | {"alone": False}
            store.write(folder / "result.json", json.dumps(record | same))
            store.write(folder / "log.jsonl", "".join(store.to_json(line) + "\n" for line in log))
            store.seal(folder)
        facts = {k: v for k, v in json.loads((copy / "study.json").read_text()).items() if k not in ("command", "digest")}
        with plugins.using((copy / plugins.KEPT).glob("*.py")):
            store.write(copy / "study.json", store.to_json(StudyRecord.of(facts | {"command": ""}).signed()))
            finished.report(copy)
        report = {name: re.sub(rb"\d{4}-\d\d-\d\d( \d\d:\d\d)?", b"", (copy / name).read_bytes()) for name in FILES}
        shutil.rmtree(copy)
        return {"runs": runs, "facts": facts, **report}


def alive(pid: int) -> bool:
    """Whether a process of multiprocessing or of Ray with this number lives."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return b"multiprocessing" in command or b"ray::" in command


def gone(pids: Sequence[int], seconds: float) -> float:
    """How long these processes still lived, at most so many seconds."""
    began = time.monotonic()
    while any(map(alive, pids)) and time.monotonic() - began < seconds:
        time.sleep(0.005)
    return time.monotonic() - began


def kill(study: Studying, kills: int, runs: int, pause: float, seed: int = 0) -> list[str]:
    """Kill a study with workers so often, driver and workers in random turn, and tell whom and where.

    The kills are spread over the first four fifths of its ``runs``; each comes up to ``pause`` seconds after a new checkpoint.
    Checks each time what a kill may not take, finished runs, and that the workers of a killed driver end.
    """
    told, process = list[str](), study.start()
    spent: dict[str, str] = {}
    while len(told) < kills:
        moved(study, process, spent, 4 * runs * len(told) // (5 * kills))
        rng = generator(seed, "kills", len(told))  # so that a try which found nobody changes no later one
        time.sleep(uniform(rng, 0, pause))
        before, workers, reached = study.finished(), study.workers(), study.checkpoints()
        fresh = [job for job in workers if reached.get(job, "") > spent.get(job, "")]
        if not fresh:
            continue
        if uniform(rng, 0, 1) < 0.5:
            process.kill()
            process.join()
            assert process.exitcode == -signal.SIGKILL, f"the study ended after {len(told)} kills: {study.errors}"
            assert gone(list(workers.values()), PATIENCE) < PATIENCE
            told.append(f"driver {len(before)}")
            spent |= {job: reached.get(job, "") for job in workers}
            process = study.start()
        else:
            job = fresh[int(uniform(rng, 0, len(fresh)))]
            try:
                os.kill(workers[job], signal.SIGKILL)
            except ProcessLookupError:
                continue
            gone([workers[job]], PATIENCE)
            told.append(f"worker {len(before)}")
            spent[job] = reached[job]
        after = study.finished()
        assert {key: after.get(key) for key in before} == before
    process.join()
    assert process.exitcode == 0, study.errors
    return told


def moved(study: Studying, process: ForkServerProcess, spent: dict[str, str], least: int) -> None:
    """Wait until so many runs are finished and a worker has got further than where its job was killed before."""
    while process.is_alive():
        reached = study.checkpoints()
        if len(study.finished()) >= least and any(reached.get(job, "") > spent.get(job, "") for job in study.workers()):
            return
        time.sleep(0.005)
    raise AssertionError(f"the study ended with exit code {process.exitcode}: {study.errors}")
