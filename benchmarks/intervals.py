"""Whether intervals of mAP and mIoU hold the truth, on detectors and segmenters that are drawn from populations.

    OMP_NUM_THREADS=1 python -m benchmarks.intervals

What is known of a population: how many boxes or pixels of each class an image has, how hard images are, and how networks of a
recipe differ by their seed. Its truth is what 20,000 images give, for nine seeds from -3 to 3 standard deviations and what lies
between them. From it data sets of n test images are drawn, each judged by the networks of two recipes with 1, 3 and 5 seeds.
One seed speaks of its network on new images, more of the recipe's networks in the mean. Bootstraps draw images, the same
for all seeds and both recipes, and seeds apart from them (Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 2007);
BCa takes its acceleration from the per-image values. Since they cost as much as six intervals from per-image values, they are
made on a part of the data sets. Prints Markdown tables, of each estimator the share of intervals that hold the truth, of scores
and of differences, and the median width of the first score's in points.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import interpolate, stats

from benchmarks.machine import origin
from trickbag.statistics import jackknife
from trickbag.statistics.detection import OVERLAPS, Matches, grain, precision
from trickbag.statistics.effects import Sample, effects
from trickbag.statistics.intervals import Interval
from trickbag.statistics.scores import score
from trickbag.statistics.segmentation import overlap
from trickbag.statistics.variance import Part

Floats = NDArray[np.float64]
SIZES, SEEDS, REPLICATES, MANY = (50, 72, 200, 500), (1, 3, 5), 199, 20_000
NODES = np.linspace(-3, 3, 9)


class Population(NamedTuple):
    """Where images and the networks of two recipes come from."""

    name: str
    task: str
    counts: tuple[float, ...]
    """Boxes of each class in an image, in the mean; or the share of pixels."""
    skills: tuple[float, float]
    """Of the two recipes."""
    by_seed: float
    """The standard deviation of the skill over seeds."""


POPULATIONS = (
    Population("blood cells: 8, 1.2 and 0.8 boxes of a class in an image", "detection", (8, 1.2, 0.8), (0.8, 1.0), 0.05),
    Population("a rare class: 3, 1 and 0.15 boxes", "detection", (3, 1, 0.15), (0.8, 1.0), 0.05),
    Population("nearly solved: 2 and 1 boxes", "detection", (2, 1), (2.0, 2.3), 0.1),
    Population("streets: eleven classes", "segmentation", tuple(0.6**k for k in range(11)), (0.8, 1.0), 0.05),
    Population("streets, seeds that differ twice as much", "segmentation", tuple(0.6**k for k in range(11)), (0.8, 1.0), 0.1),
)


class Images(NamedTuple):
    """What is the same for all networks: of each image how hard it is, and of each class what is there."""

    hard: Floats
    there: Floats
    """[n, K] boxes, or pixels."""
    latent: Floats
    """[boxes] how hard each is, or [n, K]."""


def images(population: Population, n: int, rng: np.random.Generator) -> Images:
    hard, counts = rng.normal(size=n), np.array(population.counts)
    if population.task == "detection":
        there = rng.poisson(counts, (n, len(counts))).astype(float)
        return Images(hard, there, rng.normal(size=int(there.sum())))
    seen = rng.random((n, len(counts))) < np.minimum(1, 3 * counts**0.5)
    seen[:, 0] = True
    shares = seen * counts * np.exp(rng.normal(size=seen.shape))
    return Images(hard, np.round(76_800 * shares / shares.sum(1, keepdims=True)), rng.normal(size=seen.shape))


def judged(population: Population, seen: Images, skill: float, rng: np.random.Generator) -> list[Matches] | Floats:
    """What a network of this skill says: matches of each image, or confusion matrices [n, K, K]."""
    return (_detected if population.task == "detection" else _segmented)(population, seen, skill, rng)


def _detected(population: Population, seen: Images, skill: float, rng: np.random.Generator) -> list[Matches]:
    n = len(seen.there)
    hard = seen.hard + 0.4 * rng.normal(size=n)
    image, label = (part.ravel() for part in np.indices(seen.there.shape))
    boxes = seen.there.ravel().astype(int)
    image, label = np.repeat(image, boxes), np.repeat(label, boxes)
    z = skill - 0.5 * hard[image] - 0.4 * label + 0.8 * seen.latent + 0.6 * rng.normal(size=len(image))
    overlaps = 1 / (1 + np.exp(-(0.9 + 0.6 * z + 0.3 * rng.normal(size=len(z)))))
    scores = z + 0.7 * rng.normal(size=len(z))
    kept = z > -1.5
    wrong = rng.poisson(np.exp(0.4 * hard - 0.3 * skill)[:, None] * np.array(population.counts) * 0.6)
    others, names = (np.repeat(part.ravel(), wrong.ravel()) for part in np.indices(wrong.shape))
    image, label = np.concatenate([image[kept], others]), np.concatenate([label[kept], names])
    scores = np.concatenate([scores[kept], rng.normal(-0.8, 1, len(others))])
    right = np.concatenate([overlaps[kept], np.zeros(len(others))]) >= OVERLAPS[:, None]
    order = np.argsort(image, kind="stable")
    image, label, scores, right = image[order], label[order], scores[order], right[:, order]
    cuts = np.searchsorted(image, np.arange(n + 1))
    return [
        Matches(label[a:b], scores[a:b], right[:, a:b], ~right[:, a:b], there.astype(int))
        for a, b, there in zip(cuts[:-1], cuts[1:], seen.there, strict=True)
    ]


def _segmented(population: Population, seen: Images, skill: float, rng: np.random.Generator) -> Floats:
    n, classes = seen.there.shape
    hard = seen.hard + 0.4 * rng.normal(size=n)
    z = 1 + skill - 0.6 * hard[:, None] - 0.15 * np.arange(classes) + 0.8 * seen.latent + 0.5 * rng.normal(size=(n, classes))
    found = 1 / (1 + np.exp(-z))
    mixed = rng.gamma(0.3, size=(n, classes, classes)) * np.array(population.counts) + 1e-9
    mixed[:, np.arange(classes), np.arange(classes)] = 0
    mixed *= ((1 - found) / mixed.sum(2))[:, :, None]
    mixed[:, np.arange(classes), np.arange(classes)] = found
    return np.round(mixed * seen.there[:, :, None])


def scored(said: Sequence[Matches] | Floats, classes: int, weights: Floats | None = None) -> Floats:
    """Of a network, both scores: [..., 2], mAP at 0.5 and mAP, or mIoU and pixel accuracy."""
    if isinstance(said, np.ndarray):
        found = overlap(said, weights)
        return np.stack([found.miou, found.accuracy], axis=-1)
    exact = precision(said, classes, weights)
    return np.stack([exact.map50, exact.map], axis=-1)


def by_image(said: Sequence[Matches] | Floats, classes: int) -> Floats:
    """[2, n]"""
    return np.array(jackknife.of_overlap(said) if isinstance(said, np.ndarray) else jackknife.of_precision(said, classes))


class Truth(NamedTuple):
    """What is true of each recipe's networks, and of the recipe in the mean over them."""

    networks: interpolate.CubicSpline
    """Skill less its mean, in standard deviations -> [2 recipes, 2 scores]."""
    recipes: Floats
    """[2, 2]"""


def truth(population: Population) -> Truth:
    rng = np.random.default_rng(0)
    seen, classes = images(population, MANY, rng), len(population.counts)
    values = [
        [scored(judged(population, seen, skill + population.by_seed * node, rng), classes) for skill in population.skills]
        for node in NODES
    ]
    networks = interpolate.CubicSpline(NODES, np.array(values))
    grid = np.linspace(-3, 3, 601)
    weights = stats.norm.pdf(grid)
    return Truth(networks, np.tensordot(weights / weights.sum(), networks(grid), 1))


class Draw(NamedTuple):
    """A data set, as five seeds of both recipes judge it."""

    values: Floats
    """[S, n, 2 recipes, 2 scores] per image."""
    grain: float
    """Of the scores."""
    replicates: Floats
    """[REPLICATES, S, 2, 2], or none."""
    true: Floats
    """[S, 2, 2] of the networks."""


def drawn(population: Population, known: Truth, n: int, number: int, bootstrap: bool) -> Draw:
    rng = np.random.default_rng((n, number))
    seen, classes = images(population, n, rng), len(population.counts)
    skills = rng.normal(size=(max(SEEDS), 2)).clip(-3, 3)
    said = [
        [
            judged(population, seen, skill + population.by_seed * more, rng)
            for skill, more in zip(population.skills, row, strict=True)
        ]
        for row in skills
    ]
    values = np.array([[by_image(one, classes) for one in row] for row in said]).transpose(0, 3, 1, 2)
    replicates = np.zeros((0, *skills.shape, 2))
    if bootstrap:
        often = rng.multinomial(n, np.full(n, 1 / n), REPLICATES).astype(float)
        replicates = np.array([[scored(one, classes, often) for one in row] for row in said]).transpose(2, 0, 1, 3)
    true = np.array([[known.networks(skill)[recipe] for recipe, skill in enumerate(row)] for row in skills])
    return Draw(values, 0.0 if isinstance(said[0][0], np.ndarray) else grain(said[0][0]), replicates, true)


Ends = tuple[float, float]


def by_score(values: Floats, grain: float = 0.0) -> Ends:
    """Values [S, n] -> the package's interval of a score, or of a difference of two networks."""
    parts = [Part(row, np.arange(len(row))) for row in values]
    middle, found = score(parts, ends=Interval(-1.0, 1.0), grain=grain)
    return found or (middle, middle)


def by_effects(values: Floats) -> Ends:
    """The package's interval of a difference of two recipes."""
    samples = [Sample(np.stack([np.zeros(len(row)), row]), np.arange(len(row))) for row in values]
    found = effects(samples, [[-1, 1]], shares=False)[0]
    return found.interval or (found.difference, found.difference)


def bootstrapped(values: Floats, replicates: Floats, rng: np.random.Generator) -> dict[str, Ends]:
    """Values [S, n], replicates [R, S] -> the intervals of the bootstraps."""
    seeds, middle = len(values), float(values.mean())
    chosen = rng.integers(seeds, size=(len(replicates), seeds))
    both = np.sort(np.take_along_axis(replicates, chosen, 1).mean(1))
    low, high = np.quantile(both, [0.025, 0.975], method="weibull")
    u = values.mean(0) - values.mean()
    a = float((u**3).sum() / (6 * max((u**2).sum(), 1e-20) ** 1.5))
    z0 = float(stats.norm.ppf(np.clip(((both < middle).mean() + (both <= middle).mean()) / 2, 0.01, 0.99)))
    at = [float(stats.norm.cdf(z0 + (z0 + z) / (1 - a * (z0 + z)))) for z in (-1.96, 1.96)]
    bca = np.quantile(both, at, method="weibull")
    alone = np.quantile(replicates.mean(1), [0.025, 0.975], method="weibull")
    return {
        "bootstrap, percentile": (low, high),
        "bootstrap, basic": (2 * middle - high, 2 * middle - low),
        "bootstrap, BCa": (bca[0], bca[1]),
    } | ({"bootstrap of images alone": (alone[0], alone[1])} if seeds > 1 else {})


class Cell(NamedTuple):
    """How an estimator did on the data sets of one size."""

    scores: float
    """Share of the intervals that hold the truth, of the better recipe's two scores."""
    differences: float
    """The same of what it is better by."""
    width: float
    """Median of the intervals of the first score, in points."""


def cells(draws: Sequence[Draw], known: Truth, seeds: int) -> dict[str, Cell]:
    rng, by_pairs = np.random.default_rng(0), by_effects if seeds > 1 else by_score
    held: dict[str, list[list[bool]]] = {}
    widths: dict[str, list[float]] = {}
    for draw in draws:
        true = draw.true[0] if seeds == 1 else known.recipes
        made = [
            intervals(part(draw.values[:seeds]), part(draw.replicates[:, :seeds]), ours, rng)
            for part, ours in zip(PARTS, (*2 * [partial(by_score, grain=draw.grain)], by_pairs, by_pairs), strict=True)
        ]
        for name in made[0]:
            rows = zip(PARTS, made, strict=True)
            held.setdefault(name, []).append([one[name][0] <= part(true) <= one[name][1] for part, one in rows])
            widths.setdefault(name, []).append(100 * (made[0][name][1] - made[0][name][0]))
    return {
        name: Cell(float(np.mean(each, 0)[:2].mean()), float(np.mean(each, 0)[2:].mean()), float(np.median(widths[name])))
        for name, each in held.items()
    }


def intervals(values: Floats, replicates: Floats, ours: Callable[[Floats], Ends], rng: np.random.Generator) -> dict[str, Ends]:
    """By the name of the estimator."""
    return {"per-image values": ours(values)} | (bootstrapped(values, replicates, rng) if len(replicates) else {})


def _score(which: int) -> Callable[[Floats], Floats]:
    return lambda values: values[..., 1, which]


def _difference(which: int) -> Callable[[Floats], Floats]:
    return lambda values: values[..., 1, which] - values[..., 0, which]


PARTS = (_score(0), _score(1), _difference(0), _difference(1))


def table(population: Population, sets: int, bootstrapped: int) -> Iterator[str]:
    known = truth(population)
    means = ", ".join(f"{100 * value:.1f}" for value in known.recipes.ravel())
    yield f"\n## {population.name.capitalize()}\n\nTrue scores of the two recipes, %: {means}\n"
    yield "| seeds | estimator | " + " | ".join(f"n = {n}" for n in SIZES) + " |"
    yield "|---" * (2 + len(SIZES)) + "|"
    rows: dict[tuple[int, str], list[str]] = {}
    for n in SIZES:
        draws = [drawn(population, known, n, number, number < bootstrapped) for number in range(sets)]
        for seeds in SEEDS:
            for name, cell in cells(draws, known, seeds).items():
                said = f"{100 * cell.scores:.1f} / {100 * cell.differences:.1f} ({cell.width:.1f})"
                rows.setdefault((seeds, name), []).append(said)
    for (seeds, name), cells_ in sorted(rows.items()):
        yield f"| {seeds} | {name} | " + " | ".join(cells_) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--sets", type=int, default=400, help="data sets of each size")
    parser.add_argument("--bootstrapped", type=int, default=100, help="of which so many are bootstrapped")
    parser.add_argument("--only", type=int, nargs="+", default=range(len(POPULATIONS)), help="numbers of populations")
    args = parser.parse_args()
    print(origin(), flush=True)
    for number in args.only:
        for line in table(POPULATIONS[number], args.sets, args.bootstrapped):
            print(line, flush=True)


if __name__ == "__main__":
    main()
