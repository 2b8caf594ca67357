"""Whether a classifier that was trained with the tricks is a better start for finding boxes or regions.

    python -m benchmarks.transfer --data atlas/bloodcells --to detection:bccd --weights FILE
    python -m benchmarks.transfer --data food10 --to segmentation:camvid --ignore 11 --weights FILE

He et al. ("Bag of Tricks for Image Classification with CNNs", CVPR 2019, section 6) say so of Faster R-CNN on Pascal VOC,
and of an FCN on ADE20K for the schedule alone. Here classifiers are trained with each of the paper's refinements, from scratch
and from weights, with some seeds; *plain* is the paper's baseline, whose learning rate falls in steps. Each is then fine-tuned
below a new head with the same seed. *floor* and *ceiling* are the same fine-tuning from scratch and from the weights as they
are. Classifiers are scored on their test photos, detectors and segmenters on theirs; differences from the plain classifier are
judged as those of a study are, a start being a family. Distilled classifiers learn from the same recipe's without distillation,
of the same seed. One epoch of each kind is timed first, and the plan printed. What is finished in --out is not trained again.
Prints Markdown tables.
"""

import argparse
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.machine import origin

SCHEDULE = ["warmup", "cosine"]
SMOOTH = [*SCHEDULE, "label_smoothing"]
ARMS: dict[str, list[str]] = {
    "plain": ["step_decay"],
    "schedule": SCHEDULE,
    "+ smoothing": SMOOTH,
    "+ smoothing, mixup": [*SMOOTH, "mixup"],
    "+ smoothing, distillation": [*SMOOTH, "distill"],
    "all": [*SMOOTH, "mixup", "distill"],
}
PAPER: dict[str, dict[str, tuple[float, float]]] = {
    "detection": {
        "plain": (77.16, 78.30),
        "schedule": (77.91, 79.23),
        "+ smoothing": (78.31, 80.71),
        "+ smoothing, mixup": (79.15, 81.16),
        "+ smoothing, distillation": (78.67, 80.96),
        "all": (79.29, 81.33),
    },
    "segmentation": {
        "plain": (77.16, 38.88),
        "schedule": (77.91, 39.33),
        "+ smoothing": (78.31, 38.75),
        "+ smoothing, mixup": (79.15, 37.99),
        "+ smoothing, distillation": (78.67, 38.90),
        "all": (79.29, 38.40),
    },
}
"""Top-1 on ImageNet, and mAP on VOC 2007 or mIoU on ADE20K, of ResNet-50-D, in per cent (tables 6, 9 and 10)."""
BASE: dict[str, Any] = {"precision": "fp32", "channels_last": False, "compile": False, "keep": "last", "batch_size": 32}
BASE_TRICKS = ["flip", "random_resized_crop(scale=(0.5, 1.0))", "adamw"]
STARTS: dict[str, tuple[float, list[str]]] = {
    "from scratch": (4e-3, []),
    "from weights": (5e-4, ["fit_head", "freeze_norms"]),
}
"""Learning rate, and tricks of all its classifiers."""
TEACHERS = {"+ smoothing, distillation": "+ smoothing", "all": "+ smoothing, mixup"}
"""The arm whose classifier an arm distils."""


class Asked(NamedTuple):
    """What the command line says."""

    data: str
    task: str
    marked: str
    model: str
    weights: str
    size: int
    epochs: dict[str, int]
    marked_size: int
    marked_epochs: int
    ignore: tuple[str, ...]
    out: Path


class Unit(NamedTuple):
    """A classifier and what becomes of it; without an arm, the floor or the ceiling."""

    start: str
    arm: str
    seed: int


def classifier(asked: Asked, unit: Unit) -> Path:
    """Train the classifier of a unit, or find it."""
    import trickbag as tb

    lr, tricks = STARTS[unit.start]
    arm: list[Any] = list(ARMS[unit.arm])
    if unit.arm in TEACHERS:
        arm[arm.index("distill")] = tb.Distill(teacher=str(classifier(asked, unit._replace(arm=TEACHERS[unit.arm]))))
    recipe = tb.Recipe(
        model=asked.model,
        weights=asked.weights if unit.start == "from weights" else "none",
        size=asked.size,
        epochs=asked.epochs[unit.start],
        lr=lr,
        weight_decay=0.05,
        tricks=[*BASE_TRICKS, *tricks, *arm],
        **BASE,
    )
    out = asked.out / "classifiers" / name(unit)
    return tb.train(asked.data, recipe, seed=unit.seed, out=out, progress=False).folder


def name(unit: Unit) -> str:
    """Of a unit's folder."""
    return "-".join(filter(None, [unit.start, unit.arm, str(unit.seed)])).replace(" ", "_").replace(",", "").replace("+_", "")


def carry_out(asked: Asked, units: Sequence[Unit]) -> float:
    """Both trainings of each unit; the seconds that they took in this call."""
    began = time.monotonic()
    for unit in units:
        transferred(asked, unit)
    return time.monotonic() - began


def transferred(asked: Asked, unit: Unit) -> None:
    """Train a unit's classifier, and fine-tune it."""
    import trickbag as tb

    model, weights = (classifier(asked, unit), None) if unit.arm else (asked.model, asked.weights)
    weights = "none" if unit.start == "floor" else weights
    fields = {"size": asked.marked_size, "epochs": asked.marked_epochs}
    own: dict[str, Any] = {"weights": weights, "set_": fields, "seed": unit.seed, "ignore": asked.ignore, "progress": False}
    tb.transfer(model, asked.marked, asked.task, out=asked.out / asked.task / name(unit), **own)


def regions(asked: Asked, unit: Unit) -> np.ndarray:
    """What each test image says of a unit's mAP at 0.5, or of its mIoU [images]."""
    from trickbag.transfers.run import Transferred
    from trickbag.transfers.seeds import per_image

    return per_image(Transferred.load(asked.out / asked.task / name(unit) / f"seed-{unit.seed}"), "test")[0]


def classes(asked: Asked, unit: Unit) -> np.ndarray:
    """Which test photos a unit's classifier gets right [images]."""
    with np.load(asked.out / "classifiers" / name(unit) / "predictions.npz") as arrays:
        return np.asarray(arrays["test_logits"].argmax(1) == arrays["test_labels"], float)


def compared(asked: Asked, start: str, seeds: Sequence[int], values: Callable[[Asked, Unit], np.ndarray]) -> list[str]:
    """Of each arm its mean in per cent, and its gain over the first with a simultaneous interval."""
    from trickbag.statistics.effects import Sample, effects

    rows = [np.stack([values(asked, Unit(start, arm, seed)) for arm in ARMS]) for seed in seeds]
    contrasts = np.hstack([-np.ones((len(ARMS) - 1, 1)), np.eye(len(ARMS) - 1)])
    found = effects([Sample(row, np.arange(row.shape[1])) for row in rows], contrasts, shares=values is classes)
    means = 100 * np.mean([row.mean(1) for row in rows], axis=0)
    gains = ["–", *map(said, found)]
    return [f"{mean:.1f} | {gain}" for mean, gain in zip(means, gains, strict=True)]


def report(asked: Asked, seeds: Sequence[int]) -> None:
    """Print a table for each start, and one of the bounds."""
    measure, short = {"detection": ("mAP at 0.5", "mAP"), "segmentation": ("mean IoU", "mIoU")}[asked.task]
    for start in STARTS:
        print(f"\n## {start.capitalize()}\n")
        print(f"| classifier | top-1, % | gain | {measure}, % | gain | the paper's top-1 | its {short} |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        columns = [compared(asked, start, seeds, values) for values in (classes, regions)]
        for arm, upstream, downstream in zip(ARMS, *columns, strict=True):
            first, second = PAPER[asked.task][arm]
            print(f"| {arm} | {upstream} | {downstream} | {first:.2f} | {second:.2f} |")
    print(f"\n## Bounds\n\n| start | {measure}, % | of each seed |\n| --- | --- | --- |")
    for bound in ("floor", "ceiling"):
        scores = [100 * float(regions(asked, Unit(bound, "", seed)).mean()) for seed in seeds]
        print(f"| {bound} | {np.mean(scores):.1f} | {', '.join(f'{score:.1f}' for score in scores)} |")


def said(effect: Any) -> str:
    """An effect in points, with its simultaneous interval."""
    low, high = effect.interval
    return f"{100 * effect.difference:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})".replace("-", "−")


def timed(asked: Asked, seeds: int) -> str:
    """The plan: one epoch of each kind, timed, times what there is to train."""
    import trickbag as tb

    began = time.monotonic()
    place = asked.out / "timing"
    fields = {"model": asked.model, "size": asked.size, "epochs": 1} | {k: v for k, v in BASE.items() if k != "compile"}
    tb.train(asked.data, tb.Recipe(tricks=["flip"], **fields), out=place / "classifier", progress=False)
    one, began = time.monotonic() - began, time.monotonic()
    sets = {"size": asked.marked_size, "epochs": 1}
    asking: dict[str, Any] = {"weights": "none", "ignore": asked.ignore, "progress": False}
    tb.transfer(asked.model, asked.marked, asked.task, set_=sets, out=place / asked.task, **asking)
    two = time.monotonic() - began
    classifiers = seeds * len(ARMS) * sum(asked.epochs.values()) * one
    marked = seeds * (2 * len(ARMS) + 2) * asked.marked_epochs * two
    return (
        f"an epoch of a classifier takes {one:.0f} s, of {asked.task} {two:.0f} s with judging: about "
        f"{(classifiers + marked) / 3600:.1f} hours of one core"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", required=True, help="of the classifiers")
    parser.add_argument("--to", required=True, help="detection:FOLDER or segmentation:FOLDER")
    parser.add_argument("--weights", required=True, help="of the model, a .safetensors file")
    parser.add_argument("--model", default="tf_mobilenetv3_small_100")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--epochs", type=int, nargs=2, default=(20, 5), help="of classifiers, from scratch and from weights")
    parser.add_argument("--marked-size", type=int, default=320)
    parser.add_argument("--marked-epochs", type=int, default=8)
    parser.add_argument("--ignore", default="", help="a class of regions whose pixels do not count")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=Path("runs/transfer"))
    args = parser.parse_args()
    task, _, marked = args.to.partition(":")
    epochs = dict(zip(STARTS, args.epochs, strict=True))
    ignore = tuple(filter(None, [args.ignore]))
    sizes = (args.size, epochs, args.marked_size, args.marked_epochs)
    asked = Asked(args.data, task, marked, args.model, args.weights, *sizes, ignore, args.out)
    print(origin(), "", timed(asked, args.seeds), sep="\n", flush=True)
    jobs = [[Unit(bound, "", seed) for bound in ("floor", "ceiling")] for seed in range(args.seeds)]
    jobs += [[Unit(start, arm, seed) for arm in ARMS] for seed, start in product(range(args.seeds), STARTS)]
    with get_context("spawn").Pool(args.workers) as pool:
        for done, seconds in enumerate(pool.imap_unordered(partial(carry_out, asked), jobs), 1):
            print(f"{done} of {len(jobs)}: {seconds:.0f} s", flush=True)
    report(asked, range(args.seeds))


if __name__ == "__main__":
    main()
