"""What is learned from wrong labels: tricks against label noise beside plain training, on planted noise.

    python -m benchmarks.label_noise atlas/rsscn7/manifest.csv atlas/dtd10/manifest.csv --weights FILE

A share of the training labels is changed to another class, drawn evenly and anew for each seed; validation, which chooses
nothing here, and test keep theirs. The network's features stay as they are and its classifier alone learns, so that an epoch
costs little and the last one has learned wrong labels by heart: the features are more than the images. Each trick stands alone
at its defaults; mixup, whose mixed images have no features to look up, costs the most. Differences from plain training are
judged as those of a study are, for each share of noise a family, over seeds and test images. What is finished in --out is not
trained again. Prints a Markdown table for each data set.
"""

import argparse
import io
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, nn

import trickbag as tb
from benchmarks.machine import origin
from benchmarks.transfer import said
from trickbag.data.images import Images, divide
from trickbag.engine.assemble import assemble, kept_pixels
from trickbag.engine.pixels import Data, Files
from trickbag.engine.precision import fabric_for
from trickbag.ground.store import write
from trickbag.ground.streams import generator
from trickbag.laboratory.lab import follow
from trickbag.statistics.effects import Sample, effects

PLAIN = "plain"
ARMS = (
    *(PLAIN, "label_smoothing", "generalized_cross_entropy", "symmetric_cross_entropy", "bi_tempered"),
    *("bootstrap", "drop_hardest", "clean_labels", "mixup"),
)
SHARES = (0.0, 0.2, 0.4)
BASE: dict[str, Any] = {"precision": "fp32", "channels_last": False, "compile": False, "keep": "last", "batch_size": 128}
TRICKS = ("freeze", "adamw", "cosine")


class Unit(NamedTuple):
    """A training."""

    share: float
    arm: str
    seed: int

    def file(self, out: Path) -> Path:
        """Where what came out of it is kept."""
        return out / f"{self.arm}-{self.share:g}-{self.seed}.npz"


class Bench(NamedTuple):
    """A data set, decoded, and how it is trained on."""

    name: str
    images: Images
    channels: int
    pixels: Mapping[int, Tensor]
    recipe: tb.Recipe
    out: Path


def bench(data: Path, asked: argparse.Namespace) -> Bench:
    """A data set of the command line."""
    fields = {"model": asked.model, "weights": asked.weights, "size": asked.size, "epochs": asked.epochs, "lr": asked.lr}
    recipe = tb.Recipe(tricks=TRICKS, **fields, **BASE)
    audit = tb.check(data, progress=False)
    images, channels = divide(audit.images, seed=0, val=0.02), audit.sizes["channels"]
    files = Files(images, channels, kept_pixels(recipe), recipe.fit)
    name = data.parent.name if data.suffix == ".csv" else data.name
    return Bench(name, images, channels, {row: files[row] for row in range(len(images))}, recipe, asked.out / name)


def planted(images: Images, share: float, seed: int) -> Images:
    """The table with a share of the training labels changed."""
    rng = np.random.default_rng(generator(seed, "planted").initial_seed() % 2**32)
    train, labels = np.flatnonzero(images.splits == "train"), images.labels.copy()
    rows = rng.choice(train, round(share * len(train)), replace=False)
    labels[rows] = (labels[rows] + rng.integers(1, len(images.classes), len(rows))) % len(images.classes)
    return replace(images, labels=labels)


def carry_out(made: Bench, unit: Unit) -> None:
    """Train a unit and keep which test images it gets right, and its mean loss in the last epoch."""
    recipe = made.recipe if unit.arm == PLAIN else made.recipe.edit(unit.arm)
    data = Data(planted(made.images, unit.share, unit.seed), "", made.channels)
    loop = assemble(recipe, data, made.pixels, unit.seed, fabric_for(recipe.precision), lambda *_: nn.Identity())
    trained = follow(loop)
    right = trained.logits.argmax(1).numpy() == made.images.split("test").labels
    last = math.ceil(len(trained.losses) / recipe.epochs)
    np.savez(file := io.BytesIO(), right=right, loss=np.mean(trained.losses[-last:]))
    write(unit.file(made.out), file.getvalue())


def column(made: Bench, share: float, arms: Sequence[str], seeds: Sequence[int]) -> tuple[list[str], float]:
    """Of each arm its mean top-1 in per cent, and its gain over plain training; and the loss that plain training came to."""
    found = {(arm, seed): np.load(Unit(share, arm, seed).file(made.out)) for arm, seed in product(arms, seeds)}
    rows = [np.stack([found[arm, seed]["right"].astype(float) for arm in arms]) for seed in seeds]
    contrasts = np.hstack([-np.ones((len(arms) - 1, 1)), np.eye(len(arms) - 1)])
    gains = effects([Sample(row, np.arange(row.shape[1])) for row in rows], contrasts, shares=True)
    each = 100 * np.array([row.mean(1) for row in rows])
    scores = [f"{mean:.1f} ± {sd:.1f}" for mean, sd in zip(each.mean(0), each.std(0, ddof=1), strict=True)]
    cells = [f"{score} | {gain}" for score, gain in zip(scores, ["–", *map(said, gains)], strict=True)]
    return cells, float(np.mean([found[PLAIN, seed]["loss"] for seed in seeds]))


def report(made: Bench, arms: Sequence[str], seeds: Sequence[int]) -> None:
    """Print the table of a data set."""
    train, test, classes = len(made.images.split("train")), len(made.images.split("test")), len(made.images.classes)
    columns, losses = zip(*(column(made, share, arms, seeds) for share in SHARES), strict=True)
    came = ", ".join(f"{loss:.2f} at {100 * share:.0f} %" for loss, share in zip(losses, SHARES, strict=True))
    print(f"\n## {made.name}\n\n{train:,} training and {test:,} test images of {classes} classes, {len(seeds)} seeds.")
    print(f"The loss of plain training in its last epoch is {came}.\n")
    print("| trick |" + "".join(f" top-1, %, {100 * share:.0f} % wrong | gain |" for share in SHARES))
    print("|---|" + "--:|--:|" * len(SHARES))
    for arm, *cells in zip(arms, *columns, strict=True):
        print(f"| {arm} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Train what is not finished yet, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("--model", default="tf_mobilenetv3_small_100")
    parser.add_argument("--weights", required=True)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--lr", type=float, default=0.03)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/label_noise"))
    asked = parser.parse_args()
    print(f"# Label noise\n\n{origin()}", flush=True)
    arms, seeds = [PLAIN, *(arm for arm in asked.arms if arm != PLAIN)], range(asked.seeds)
    for data in asked.data:
        made = bench(data, asked)
        for unit in (Unit(share, arm, seed) for arm, seed, share in product(arms, seeds, SHARES)):
            if not unit.file(made.out).exists():
                began, cpu = time.monotonic(), time.process_time()
                carry_out(made, unit)
                print(f"{unit}: {time.monotonic() - began:.0f} s, {time.process_time() - cpu:.1f} s of a core", flush=True)
        report(made, arms, seeds)


if __name__ == "__main__":
    main()
