"""What a study takes beside its trainings, and how long its findings and its report take.

A study of twelve arms and five seeds of tiny trainings in one process. Outside training is what the call takes from the end of
its planning to its end, less the seconds inside of jobs: training, finishing, judging and storing runs. Then the findings of
sixty runs with 10,000 judged images, whose folders are written here with random logits.

Command: python -m benchmarks.overhead
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.machine import origin
from trickbag.ground import store
from trickbag.ground.events import Event, Note
from trickbag.studies import analysis, conduct, finished, worker
from trickbag.studies.record import Study

sys.path.append(str(Path(__file__).parents[1] / "tests"))
import album

RESULT = Path(__file__).parent / "results" / "overhead.md"
TRICKS = (
    "mixup", "cutmix", "label_smoothing(eps=0.05)", "random_erasing", "color_jitter", "ema", "no_bias_decay", "zero_gamma",
    "clip_gradient", "trivialaugment",
)  # fmt: skip
"""With the reference and the placebo twelve arms."""
SEEDS = 5
IMAGES = 10_000
CLASSES = 10
EPOCHS = 10
BOUNDS = {"outside training": "under 5 %", "report": "under 20 s", "findings": "under 5 s"}


class Clock:
    """Counts the seconds inside of a module's function."""

    def __init__(self, module: object, name: str) -> None:
        self.seconds, work = 0.0, getattr(module, name)

        def timed(*values: object, **named: object) -> object:
            began = time.monotonic()
            try:
                return work(*values, **named)
            finally:
                self.seconds += time.monotonic() - began

        setattr(module, name, timed)


def study(place: Path) -> tuple[Path, float, float, float]:
    """Carry out the study: its folder, seconds after planning, in jobs, and in training alone."""
    data = album.fill(place / "data", {"a": 0, "b": 1, "c": 2}, 40)
    recipe = album.recipe_file(place / "tiny.toml", album.TINY.replace("epochs = 2", f"epochs = {EPOCHS}"))
    planned: list[float] = []

    def tell(event: Event) -> None:
        if isinstance(event, Note) and event.text.startswith("trainings:"):
            planned.append(time.monotonic())

    jobs, training = Clock(conduct, "carry"), Clock(worker, "trained")
    conduct.study(data, recipe=str(recipe), tricks=TRICKS, design="add-one", seeds=SEEDS, out=place / "study", tell=tell)
    return place / "study", time.monotonic() - planned[0], jobs.seconds, training.seconds


def enlarge(folder: Path) -> None:
    """Give every run of a study 10,000 judged images and ten classes."""
    rng = np.random.default_rng(0)
    labels = rng.integers(CLASSES, size=IMAGES)
    paths = [f"{n}.png" for n in range(IMAGES)]
    difficulty = rng.normal(2.5, 2, (IMAGES, 1))
    facts = json.loads((folder / "study.json").read_text("utf-8"))
    facts["classes"], facts["class_counts"] = [str(n) for n in range(CLASSES)], np.bincount(labels).tolist()
    facts["splits"]["val"], facts["groups"]["val"] = IMAGES, []
    facts["judged"] = {"paths": paths, "labels": labels.tolist()}
    store.write(folder / "study.json", store.to_json(facts))
    for run in sorted((folder / "runs").glob("[!.]*")):
        logits = rng.normal(0, 1, (IMAGES, CLASSES)) + difficulty * np.eye(CLASSES)[labels]
        named = {"val_logits": logits.astype(np.float32), "val_labels": labels, "val_rows": np.arange(IMAGES)}
        np.savez_compressed(run / "predictions.npz", **named)


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        os.environ["TRICKBAG_CACHE"] = str(place / "cache")
        folder, whole, jobs, training = study(place)
        runs = len(list((folder / "runs").glob("[!.]*/result.json")))
        began = time.monotonic()
        finished.report(folder)
        small = time.monotonic() - began
        enlarge(folder)
        began, spent = time.monotonic(), time.process_time()
        analysis.findings(Study.load(folder))
        findings, findings_cpu = time.monotonic() - began, time.process_time() - spent
        began, spent = time.monotonic(), time.process_time()
        finished.report(folder)
        report, report_cpu = time.monotonic() - began, time.process_time() - spent
    outside = whole - jobs
    lines = [
        "# What a study takes beside its trainings",
        "",
        origin(),
        "",
        "| | seconds | bound |",
        "|---|---|---|",
        f"| study of {runs} runs of {EPOCHS} epochs on 84 images, after planning | {whole:.1f} | |",
        f"| inside of its jobs: training | {training:.1f} | |",
        f"| inside of its jobs: finishing, judging and storing | {jobs - training:.1f} | |",
        f"| outside of its jobs | {outside:.1f}, {100 * outside / whole:.1f} % | {BOUNDS['outside training']} |",
        f"| of that, its report | {small:.1f} | {BOUNDS['report']} |",
        f"| findings of {runs} runs with {IMAGES:,} images | {findings:.1f} ({findings_cpu:.1f} CPU) | {BOUNDS['findings']} |",
        f"| their report, findings included | {report:.1f} ({report_cpu:.1f} CPU) | {BOUNDS['report']} |",
        "",
        f"n = 1. Load of the machine at the end: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores.",
        "",
    ]
    print("\n".join(lines))
    RESULT.write_text("\n".join(lines), "utf-8")


if __name__ == "__main__":
    main()
