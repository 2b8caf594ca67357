"""Whether the interval of a study holds on a real population, and what rotation and each estimator make of it.

    OMP_NUM_THREADS=1 python -m benchmarks.population --data CIFAR10 --weights FILE

The population are the 60,000 photos of CIFAR-10 as features of a network (64 px, 96 principal components), computed once. Data
sets of 1,500 photos, as many of each class, are drawn from it; on each eight learners that train in milliseconds are compared
with a calm reference and with a noisy one, with 3, 5 and 10 seeds: ridge classifiers with other strengths, on a part of the
features, on a part of the photos or on partly wrong labels, which their seeds choose, and nearest neighbours. What is true of a
pair of learners on a data set is the mean of their difference over a hundred other seeds, each on 1,000 photos outside of it;
intervals are widened by how far that mean may be off, in quadrature. Fixed: a fifth of the photos is judged by all seeds;
rotating: each seed judges another fifth. The estimator was chosen on the first 400 data sets; the next 400 chose nothing.
Prints Markdown tables.
"""

import argparse
import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from multiprocessing import Pool
from pathlib import Path
from typing import NamedTuple

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from scipy import stats
from sklearn.model_selection import StratifiedKFold

from benchmarks.machine import origin
from trickbag.data.reading import read
from trickbag.engine.pixels import Files
from trickbag.statistics.effects import Sample, effects

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
SIZE, OUTSIDE, FOLDS, SEEDS, OTHERS = 1500, 1000, 5, (3, 5, 10), 100
CLASSES, DIMENSIONS, SIDE = 10, 96, 64
NORMAL = 1.96


class Population(NamedTuple):
    """All photos that there are."""

    x: Floats
    """[N, D]"""
    y: Ints
    """[N]"""


Learner = Callable[[Floats, Ints, Floats, np.random.Generator], Ints]
"""Training features [n, D] and labels [n], features [m, D] -> classes [m]."""


def ridge(
    x: Floats,
    y: Ints,
    new: Floats,
    rng: np.random.Generator,
    *,
    strength: float,
    share: float = 1,
    rows: float = 1,
    wrong: float = 0,
) -> Ints:
    """A ridge classifier on a share of the features and of the photos, with a share of wrong labels, all drawn."""
    columns = rng.permutation(x.shape[1])[: round(share * x.shape[1])]
    kept = rng.permutation(len(x))[: round(rows * len(x))]
    y = np.where(rng.random(len(y)) < wrong, rng.integers(CLASSES, size=len(y)), y)[kept]
    x, new = x[kept][:, columns], new[:, columns]
    middle = x.mean(0)
    targets = np.eye(CLASSES)[y] - 1 / CLASSES
    weights = np.linalg.solve((x - middle).T @ (x - middle) + strength * np.eye(len(columns)), (x - middle).T @ targets)
    return np.asarray(((new - middle) @ weights + targets.mean(0)).argmax(1))


def neighbours(x: Floats, y: Ints, new: Floats, rng: np.random.Generator, *, k: int, rows: float) -> Ints:
    """The most frequent class among the nearest of a share of the photos."""
    kept = rng.permutation(len(x))[: round(rows * len(x))]
    x, y = x[kept], y[kept]
    far = (x**2).sum(1) - 2 * new @ x.T
    near = np.argpartition(far, k, axis=1)[:, :k]
    return np.asarray(np.eye(CLASSES)[y[near]].sum(1).argmax(1))


PLAIN: Learner = partial(ridge, strength=300.0, rows=0.9)
NOISY: Learner = partial(ridge, strength=300.0, rows=0.35, share=0.8)
REFERENCES: dict[str, Learner] = {"plain": PLAIN, "noisy": NOISY}
TRICKS: dict[str, Learner] = {
    "the same": PLAIN,
    "weaker": partial(ridge, strength=30.0, rows=0.9),
    "stronger": partial(ridge, strength=3000.0, rows=0.9),
    "all photos": partial(ridge, strength=300.0),
    "half the features": partial(ridge, strength=300.0, rows=0.9, share=0.5),
    "a tenth wrong": partial(ridge, strength=300.0, rows=0.9, wrong=0.1),
    "a third wrong": partial(ridge, strength=300.0, rows=0.9, wrong=0.33),
    "neighbours": partial(neighbours, k=15, rows=0.9),
}


class Draw(NamedTuple):
    """A data set's runs."""

    samples: list[Sample]
    others: Floats
    """[O, A] accuracy of other seeds, each on other photos outside of the data set."""


def runs(population: Population, learners: Sequence[Learner], seeds: int, number: int, rotating: bool) -> Draw:
    """The runs of all learners on the ``number``-th data set."""
    order = np.random.default_rng(number).permutation(len(population.y))
    first = np.concatenate([np.flatnonzero(population.y[order] == k)[: SIZE // CLASSES] for k in range(CLASSES)])
    own, outside = order[first], np.delete(order, first)
    folds = [
        part
        for partition in range(math.ceil((seeds + OTHERS) / FOLDS))
        for _, part in StratifiedKFold(FOLDS, shuffle=True, random_state=1000 * number + partition).split(
            own, population.y[own]
        )
    ]
    samples, others = [], list[Floats]()
    for seed in range(seeds + OTHERS):
        judged = folds[seed if rotating else 0]
        train = np.setdiff1d(np.arange(SIZE), judged)
        new = own[judged] if seed < seeds else np.take(outside, range(OUTSIDE * seed, OUTSIDE * (seed + 1)), mode="wrap")
        right = np.array(
            [
                learner(
                    population.x[own[train]],
                    population.y[own[train]],
                    population.x[new],
                    np.random.default_rng((number, seed, a)),
                )
                == population.y[new]
                for a, learner in enumerate(learners)
            ]
        ).astype(float)
        if seed < seeds:
            samples.append(Sample(right, judged))
        else:
            others.append(right.mean(1))
    return Draw(samples, np.array(others))


def over_means(samples: Sequence[Sample], row: Floats, more: float = 0.0) -> tuple[float, float]:
    """Student's t over the seeds' means; with ``more``, judged over trained images, that of Nadeau and Bengio."""
    points = np.array([row @ sample.values.mean(1) for sample in samples])
    half = stats.t.isf(0.025, len(points) - 1) * points.std(ddof=1) * math.sqrt(1 / len(points) + more)
    return points.mean() - half, points.mean() + half


def over_images(samples: Sequence[Sample], row: Floats) -> tuple[float, float]:
    """Normal, by the spread of the judged images alone (Bayle et al. 2020)."""
    values = np.concatenate([row @ sample.values for sample in samples])
    half = stats.norm.isf(0.025) * values.std(ddof=1) / math.sqrt(len(values))
    return values.mean() - half, values.mean() + half


def features(data: str, weights: str, file: Path) -> Population:
    """The population, from a file where it was computed before."""
    if not file.exists():
        images = read(data)
        pixels = Files(images, 3, SIDE)
        overlay = {"file": weights}
        network = timm.create_model(
            "tf_mobilenetv3_small_100", pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay
        ).eval()
        found = []
        with torch.inference_mode():
            for first in range(0, len(images), 250):
                rows = range(first, min(first + 250, len(images)))
                x = torch.stack([pixels[row] for row in rows]).float() / 127.5 - 1
                found.append(network(torch.nn.functional.interpolate(x, (SIDE, SIDE), mode="bilinear")))
        every = torch.cat(found).double()
        axes = torch.linalg.svd(every[::10] - every.mean(0), full_matrices=False).Vh[:DIMENSIONS]
        reduced = (every - every.mean(0)) @ axes.T
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, x=(reduced / reduced[:, 0].std()).numpy(), y=images.labels)
    with np.load(file) as arrays:
        return Population(arrays["x"], arrays["y"])


class Score(NamedTuple):
    """How an estimator did over the data sets."""

    covered: float
    """Share of the intervals of single pairs that hold the truth."""
    worst: float
    """The same for the pair with the lowest share."""
    wrong: float
    """Share of the data sets with an interval of the family, or a verdict, that errs; NaN for an estimator of single pairs."""
    width: float
    """Median, in points."""


ESTIMATORS = {
    "of the study": None,
    "images alone (Bayle et al.)": over_images,
    "t over the seeds' means": over_means,
    "Nadeau and Bengio": partial(over_means, more=1 / (FOLDS - 1)),
}


def found_by_us(samples: Sequence[Sample], contrasts: Sequence[Floats] | Floats) -> list[tuple[float, float]]:
    """The study's intervals of a family of contrasts."""
    found = effects(samples, np.asarray(contrasts))
    return [(e.interval.low, e.interval.high) if e.interval else (math.nan, math.nan) for e in found]


def holds(interval: tuple[float, float], found: float, truth: float, off: float) -> bool:
    """Whether an interval around what was found holds the truth, of which the standard error is ``off``."""
    reach = math.hypot(max(interval[1] - found, 0.0) if truth > found else max(found - interval[0], 0.0), NORMAL * off)
    return abs(truth - found) <= reach


def against(reference: int, references: int, tricks: int) -> Floats:
    """[C, A] the contrasts of all tricks with one of the references, which come first."""
    contrasts = np.hstack([np.zeros((tricks, references)), np.eye(tricks)])
    contrasts[:, reference] = -1
    return contrasts


def scores(draws: Sequence[Draw], seeds: int, contrasts: Floats) -> dict[str, Score]:
    """Every estimator on the same data sets, the first ``seeds`` of each."""
    scored: dict[str, Score] = {}
    for name, estimator in ESTIMATORS.items():
        held, errs, widths = [], [], []
        for draw in draws:
            samples, others = draw.samples[:seeds], draw.others @ contrasts.T
            found = [float(np.mean([row @ sample.values.mean(1) for sample in samples])) for row in contrasts]
            known = list(zip(found, others.mean(0), others.std(0, ddof=1) / math.sqrt(len(others)), strict=True))
            each = estimator or (lambda own, row: found_by_us(own, [row])[0])
            ends = [each(samples, row) for row in contrasts]
            held.append([holds(end, *one) for end, one in zip(ends, known, strict=True)])
            widths += [high - low for low, high in ends]
            if estimator is None:
                family = found_by_us(samples, contrasts)
                errs.append(not all(holds(end, *one) for end, one in zip(family, known, strict=True)))
        covered = np.mean(held, 0)
        wrong = float(np.mean(errs)) if errs else math.nan
        scored[name] = Score(float(covered.mean()), float(covered.min()), wrong, 100 * float(np.median(widths)))
    return scored


def drawn(population: Population, rotating: bool, sets: Iterable[int]) -> list[Draw]:
    """The runs of both references and all tricks on these data sets, one for each core at a time."""
    one = partial(runs, population, [*REFERENCES.values(), *TRICKS.values()], max(SEEDS), rotating=rotating)
    with Pool() as pool:
        return pool.map(one, sets, chunksize=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", required=True, help="CIFAR-10")
    parser.add_argument("--weights", required=True, help="of tf_mobilenetv3_small_100")
    parser.add_argument("--sets", type=int, nargs=2, default=(400, 800), help="the first, and that after the last")
    parser.add_argument("--features", type=Path, default=Path("runs/population/features.npz"))
    args = parser.parse_args()
    population = features(args.data, args.weights, args.features)
    print(origin(), "", sep="\n", flush=True)
    for rotating in (False, True):
        draws = drawn(population, rotating, range(*args.sets))
        for reference, name in enumerate(REFERENCES):
            print(f"\n## {name.capitalize()} reference, {'rotating' if rotating else 'fixed'}\n")
            print("| estimator | seeds | covered, % | worst pair, % | families that err, % | width, points |")
            print("| --- | --- | --- | --- | --- | --- |")
            for seeds in SEEDS:
                for estimator, s in scores(draws, seeds, against(reference, len(REFERENCES), len(TRICKS))).items():
                    shares = " | ".join("–" if math.isnan(v) else f"{100 * v:.1f}" for v in (s.covered, s.worst, s.wrong))
                    print(f"| {estimator} | {seeds} | {shares} | {s.width:.2f} |", flush=True)


if __name__ == "__main__":
    main()
