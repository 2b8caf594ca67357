"""Planted label errors: how many of them are among the first images of a list, beside the ranking of cleanlab.

Some labels of a set are changed to another class, drawn evenly. N is how many. *Precision* is the share of the first N of a
list that was planted, *recall* how many of the planted are among them; a list that is shorter than N is taken whole. What the
set itself has of label errors counts as wrong. cleanlab (AGPL-3.0) gets the same probabilities.
"""

import argparse
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

import numpy as np

import trickbag as tb
from benchmarks.machine import origin
from trickbag.engine.crossfit import out_of_fold
from trickbag.ground.events import silent
from trickbag.ground.streams import generator
from trickbag.mistakes.features import of_start
from trickbag.recipe import Recipe
from trickbag.statistics.label_errors import ranked, suspects

WAYS = ("trickbag", "cleanlab, by self-confidence", "cleanlab, by normalised margin")


def planted(labels: np.ndarray, classes: int, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The labels with a share of them changed, and which."""
    rng = np.random.default_rng(generator(seed, "planted").initial_seed() % 2**32)
    wrong = np.zeros(len(labels), bool)
    wrong[rng.choice(len(labels), round(share * len(labels)), replace=False)] = True
    moved = (labels + rng.integers(1, classes, len(labels))) % classes
    return np.where(wrong, moved, labels), wrong


def first(order: Sequence[int] | np.ndarray, wrong: np.ndarray) -> tuple[float, float]:
    """Precision and recall of the first N of a list."""
    count = int(wrong.sum())
    head = np.asarray(order[:count], int)
    return float(wrong[head].mean()) if len(head) else 0.0, float(wrong[head].sum() / count)


def lists(labels: np.ndarray, p: np.ndarray) -> dict[str, np.ndarray]:
    """The suspects by each way, the worst first."""
    from cleanlab.filter import find_label_issues

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        margin = find_label_issues(labels, p, return_indices_ranked_by="normalized_margin", n_jobs=1)
        own = find_label_issues(labels, p, return_indices_ranked_by="self_confidence", n_jobs=1)
    return dict(zip(WAYS, (ranked(labels, p), own, margin), strict=True))


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation in percent."""
    return f"{100 * mean(values):.1f} ± {100 * stdev(values):.1f}" if len(values) > 1 else f"{100 * values[0]:.1f}"


def by_features(data: Path, asked: argparse.Namespace) -> None:
    """A table for a data set: five-fold logistic regressions on features of the network."""
    audit = tb.check(data, progress=False)
    images, classes = audit.images, len(audit.images.classes)
    recipe = Recipe.load("auto").edit(model=asked.model, weights=asked.weights, size=asked.size)
    features = of_start(recipe, images, audit.sizes["channels"], silent)
    found: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    listed, right, kept = [], [], []
    for seed in range(asked.seeds):
        labels, wrong = planted(images.labels, classes, asked.share, seed)
        p = out_of_fold(features, replace(images, labels=labels), silent)
        for way, order in lists(labels, p).items():
            found[way].append(first(order, wrong))
        chosen = suspects(labels, p)
        listed.append(int(chosen.sum()))
        kept.append(float((chosen & wrong).sum() / wrong.sum()))
        right.append(float((p.argmax(1) == images.labels).mean()))
    count = round(asked.share * len(images))
    said = f"{data.name}: {len(images):,} photos, {classes} classes, N = {count}, {asked.seeds} seeds."
    print(f"\n{said} The classifiers get {spread(right)} % right; trickbag's list has {mean(listed):.0f} images, with")
    print(f"{spread(kept)} % of the planted.\n")
    print("| first N of the list of | precision, % | recall, % |\n|---|--:|--:|")
    for way, pairs in found.items():
        print(f"| {way} | {spread([p for p, _ in pairs])} | {spread([r for _, r in pairs])} |", flush=True)


def by_study(data: Path, asked: argparse.Namespace) -> None:
    """What the review of a small study with one planting lists."""
    images = tb.check(data, progress=False).images
    labels, wrong = planted(images.labels, len(images.classes), asked.share, 0)
    rows = [(str(images.path(n)), images.classes[label]) for n, label in enumerate(labels.tolist())]
    base = {
        "recipe": "linear-probe",
        "model": asked.model,
        "weights": asked.weights,
        "set_": {"size": asked.size, "test_share": 0},
    }
    with tempfile.TemporaryDirectory() as out:
        tb.study(rows, **base, tricks="flip_tta", folds="1x5", out=f"{out}/study", progress=False)
        found = tb.review(f"{out}/study", progress=False)
    place = {str(images.path(n)): n for n in range(len(images))}
    precision, recall = first([place[one.path] for one in found.label_errors], wrong)
    listed = f"The review of a study of {data.name} (linear-probe, 1x5 folds, one planting): {len(found.label_errors)} listed"
    print(f"\n{listed}; of the first {wrong.sum()}, precision {100 * precision:.1f} %, recall {100 * recall:.1f} %.")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("--model", default="tf_mobilenetv3_small_100")
    parser.add_argument("--weights", required=True)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--study", action="store_true", help="also review a study of the last set")
    asked = parser.parse_args()
    print(f"# Planted label errors\n\n{origin()}")
    for data in asked.data:
        by_features(data, asked)
    if asked.study:
        by_study(asked.data[-1], asked)


if __name__ == "__main__":
    main()
