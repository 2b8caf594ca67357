"""What a study saves by training once what its arms have in common, and whether that changes a number.

    python -m benchmarks.sharing
    python -m benchmarks.sharing --designs add-one --images 20 --epochs 10 --workers 2

The same study is run twice, with sharing and with every run trained alone, of tricks that act when images are judged
(flip_tta, crop_tta, knn, calibrate, crt), of those that look on (swa, ema twice), of one that begins late (drw) and of some
that train from the start. Asserts that predictions and weights of every run are equal bit for bit, and that sharing trains at
most 60 % of the steps; where trainings at once have a core each and those one after another several threads, which round
otherwise, numbers are not asked to be equal. Prints a Markdown table. ``seconds`` is the whole study, with reading, planning
and the report. With ``--workers`` the study that shares also trains several jobs at once; the other is one training after
another. Each has a cache of its own.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.machine import origin
from trickbag.studies.conduct import Means, study
from trickbag.studies.finished import Finished

sys.path.append(str(Path(__file__).parents[1] / "tests"))
import study_lab

TRICKS = (
    "swa", "ema", "ema(half_life=0.2)", "calibrate", "flip_tta", "crop_tta", "knn", "crt", "drw",
    "label_smoothing", "mixup", "warmup",
)  # fmt: skip
COUNTS = {"a": 90, "b": 60, "c": 30}
MOST = 0.6
"""Of the steps of runs trained alone."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--designs", nargs="+", default=["add-one", "leave-one-out"])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--images", type=int, default=1, help="how many times the usual images")
    parser.add_argument("--workers", type=int, default=1, help="trainings at once, of the study that shares")
    parser.add_argument("--threads", type=int, default=1, help="of a process, at most")
    parser.add_argument("--out", type=Path, help="where the studies go; they are removed where this is not given")
    return parser.parse_args()


def row(args: argparse.Namespace, design: str, data: Path, recipe: str, out: Path) -> str:
    """A line of the table; raises AssertionError where sharing changes a number or saves too little."""
    seconds, made = [], list[Finished]()
    for sharing in (True, False):
        place = out / f"{design}-{'shared' if sharing else 'alone'}"
        os.environ["TRICKBAG_CACHE"] = str(place.with_suffix(".cache"))
        means = Means(workers=args.workers if sharing else 1)
        asked = {"recipe": recipe, "design": design, "tricks": TRICKS, "seeds": args.seeds, "sharing": sharing}
        began = time.monotonic()
        made.append(study(data, out=place, means=means, **asked))
        seconds.append(time.monotonic() - began)
    shared, alone = made
    weights = [{cell: record["weights"] for cell, record in study_lab.runs(one).items()} for one in made]
    equal = study_lab.predictions(shared) == study_lab.predictions(alone) and weights[0] == weights[1]
    found, naive = shared.findings.sharing, alone.findings.sharing
    alike = args.threads == 1 or args.workers == 1
    assert equal or not alike, "sharing changes a number"
    assert naive.trained_steps == naive.naive_steps == found.naive_steps
    share = found.trained_steps / found.naive_steps
    assert share <= MOST, f"{found.trained_steps} of {found.naive_steps} steps"
    counts = f"{len(shared.findings.arms)} | {len(weights[0])} | {found.trained_steps:,} | {found.naive_steps:,}"
    said = "yes" if equal else "but for rounding"
    return f"| {design} | {counts} | {100 * share:.0f} % | {said} | {seconds[0]:.0f} | {seconds[1]:.0f} |"


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    lines = [
        "| design | arms | runs | steps with sharing | steps alone | share | predictions and weights equal | seconds | alone |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        data = study_lab.album(place / "album", {name: args.images * count for name, count in COUNTS.items()}, noise=60)
        recipe = study_lab.recipe(place, epochs=args.epochs, size=12)
        lines += [row(args, design, data, recipe, args.out or place) for design in args.designs]
    load = f"Load average at the end: {os.getloadavg()[0]:.1f}. " if hasattr(os, "getloadavg") else ""
    said = f"{load}torch threads: {torch.get_num_threads()}. Workers of the study that shares: {args.workers}. "
    said += f"Tricks: {', '.join(TRICKS)}; a placebo is added to every study."
    print("\n".join([origin() + f"\n\n{said}\n", *lines]))


if __name__ == "__main__":
    main()
