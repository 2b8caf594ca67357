"""Whether the statistics of a study keep their promises, on simulated studies of a reference and eight tricks.

    OMP_NUM_THREADS=1 python -m benchmarks.effects

False findings where nothing helps, coverage of both intervals, printed against achieved power, and looking early. Every draw
has a fixed seed. Six to sixteen minutes on one core, by what else the machine does. Prints Markdown tables.
"""

import math
import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from benchmarks.machine import origin
from trickbag.statistics.effects import effects
from trickbag.statistics.intervals import Interval
from trickbag.statistics.looks import LOOKS, decide
from trickbag.statistics.power import assumed_sd, detectable
from trickbag.statistics.variance import RATIO, pool, residual

Floats = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], Floats]
"""A study's values [arms, seeds, examples] from a generator and a number of seeds."""

K = 8
CONTRASTS = np.hstack([-np.ones((K, 1)), np.eye(K)])
ERROR, IMAGES = 0.08, 2000
"""Of the printed power: share of errors, judged images."""
FOUND = ("helps", "worthwhile", "hurts")


def gaussian(rng: np.random.Generator, seeds: int, *, twice: int | None = None) -> Floats:
    """Means of runs without any effect: a common part per seed and noise of sd 1, of sd 2 in the arm ``twice``."""
    sd = np.ones((K + 1, 1))
    if twice is not None:
        sd[twice] = 2
    return np.asarray((rng.normal(size=seeds) + sd * rng.normal(size=(K + 1, seeds)))[..., None])


def bernoulli(rng: np.random.Generator, seeds: int, *, images: int = 500) -> Floats:
    """Right and wrong answers without any effect: every run gets an image right with the probability of that image."""
    chance = rng.beta(2.0, 0.15, size=images)
    return (rng.random((K + 1, seeds, images)) < chance).astype(float)


NULLS: dict[str, Draw] = {
    "Gaussian": gaussian,
    "Bernoulli, 500 images": bernoulli,
    "one arm with twice the sd": partial(gaussian, twice=1),
    "the reference with twice the sd": partial(gaussian, twice=0),
}


def false_findings(draw: Draw, seeds: int, studies: int) -> tuple[float, float, float, float]:
    """Shares of null studies: any false finding; any by plain t tests; an arm set apart; a ratio of variances above RATIO."""
    rng, counts = np.random.default_rng(seeds), np.zeros(4)
    critical = stats.t.isf(0.025, seeds - 1) / math.sqrt(seeds)
    for _ in range(studies):
        values = draw(rng, seeds)
        table = values.mean(2)
        gain = table[1:] - table[0]
        spread = (residual(table).cells ** 2).sum(1)
        counts += (
            any(e.verdict in FOUND for e in effects(values, CONTRASTS)),
            (abs(gain.mean(1)) > critical * gain.std(1, ddof=1)).any(),
            pool(values).odd.any(),
            spread.max() > RATIO * spread.min(),
        )
    return tuple(counts / studies)


def expected(mean: Floats, sd: float, nodes: int) -> Floats:
    """The mean of a logistic function of Gaussians with these means and this sd, by Gauss-Hermite quadrature."""
    at, weights = np.polynomial.hermite_e.hermegauss(nodes)
    return (1 / (1 + np.exp(-(mean[..., None] + sd * at)))) @ weights / math.sqrt(2 * math.pi)


class Photos:
    """Classifiers that are right on 93 % of images, which differ in difficulty; small effects; images and seeds drawn anew."""

    spread, taste = 2.5, 0.5
    """sd over images, in logits, of the difficulty and of what an arm adds to it."""

    def __init__(self, seed_sd: float) -> None:
        """``seed_sd`` is that of the accuracy over seeds, beside the chance of each answer."""
        self.shift = 4.8 + np.linspace(-0.2, 0.2, K + 1)
        wide = math.hypot(self.spread, self.taste)
        low, high = expected(self.shift[4] + np.array([-0.01, 0.01]), wide, 60)
        slope = (high - low) / 0.02
        self.seed_sd = seed_sd / slope
        accuracy = expected(self.shift, math.hypot(wide, self.seed_sd), 60)
        self.on_new_images = accuracy[1:] - accuracy[0]

    def draw(self, rng: np.random.Generator, seeds: int, images: int) -> tuple[Floats, Floats]:
        """Values [arms, seeds, images] and the true effects on these images."""
        logits = self.shift[:, None] + self.spread * rng.normal(size=images) + self.taste * rng.normal(size=(K + 1, images))
        accuracy = expected(logits, self.seed_sd, 8).mean(1)
        moved = logits[:, None].astype(np.float32) + np.float32(self.seed_sd) * rng.normal(size=(K + 1, seeds, 1)).astype(
            np.float32
        )
        right = rng.random(moved.shape, dtype=np.float32) * (1 + np.exp(-moved)) < 1
        return right.astype(float), accuracy[1:] - accuracy[0]


def coverage(seeds: int, images: int, seed_sd: float, studies: int) -> tuple[float, float, float]:
    """Of the truth, by: a single declared contrast on this set, all eight of them together, those on new images."""
    rng = np.random.default_rng([seeds, images, round(1e6 * seed_sd)])
    photos, counts = Photos(seed_sd), np.zeros(3)
    for number in range(studies):
        values, truth = photos.draw(rng, seeds, images)
        found, some = effects(values, CONTRASTS), range(number % 2, K, 2)
        means = values.mean(2, keepdims=True)
        alone = [covered(effects(means, CONTRASTS[[c]])[0].this_set, truth[c]) for c in some]
        together = [covered(e.this_set, true) for e, true in zip(found, truth, strict=True)]
        new = [covered(e.new_images, true) for e, true in zip(found, photos.on_new_images, strict=True)]
        counts += np.mean(alone), all(together), np.mean(new)
    return tuple(counts / studies)


def covered(interval: Interval, true: float) -> bool:
    return interval.low <= true <= interval.high


def gaussian_gain(rng: np.random.Generator, seeds: int, effect: float) -> Floats:
    """A study in which the first trick adds ``effect`` to Gaussian means of the assumed sd."""
    values = gaussian(rng, seeds) * assumed_sd(ERROR, IMAGES) / math.sqrt(2)
    values[1] += effect
    return values


def bernoulli_gain(rng: np.random.Generator, seeds: int, effect: float) -> Floats:
    """The same from answers: errors fall on images that a run gets right half the time, so that two runs disagree on ERROR."""
    chance = np.full((K + 1, 1, round(2 * ERROR * IMAGES)), 0.5)
    chance[1] += effect / (2 * ERROR)
    values = np.ones((K + 1, seeds, IMAGES))
    values[:, :, : chance.shape[2]] = rng.random((K + 1, seeds, chance.shape[2])) < chance
    return values


GAINS = {"Gaussian": gaussian_gain, "Bernoulli": bernoulli_gain}


def achieved(gain: Callable[[np.random.Generator, int, float], Floats], seeds: int, effect: float, studies: int) -> float:
    """The share of studies that find a gain."""
    rng = np.random.default_rng(seeds)
    return sum(effects(gain(rng, seeds, effect), CONTRASTS)[0].verdict in FOUND for _ in range(studies)) / studies


def early(studies: int) -> tuple[float, float, float]:
    """Shares of null studies that end in a false finding: eight tricks by the planned looks; one trick by them; one by a t test
    after every seed.
    """
    rng, eight, planned, every = np.random.default_rng(0), 0, 0, 0
    for _ in range(studies):
        values = gaussian(rng, max(LOOKS))
        eight += any(one.estimate.verdict in FOUND for one in decide(values, CONTRASTS, LOOKS))
        values = values[:2]
        planned += decide(values, [[-1, 1]], LOOKS)[0].estimate.verdict in FOUND
        each = (effects(values[:, :seeds], [[-1, 1]])[0].verdict for seeds in range(3, max(LOOKS) + 1))
        every += any(verdict in FOUND for verdict in each)
    return eight / studies, planned / studies, every / studies


def percent(*shares: float) -> str:
    return " | ".join(f"{100 * share:.1f}" for share in shares)


def head(*columns: str) -> tuple[str, str]:
    return f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"


def tables(studies: int) -> Iterator[str]:
    bound = 0.05 + 3 * math.sqrt(0.05 * 0.95 / studies)
    yield f"False findings, {studies:,} null studies each, % (promised: at most {percent(bound)}, 5 + 3 standard errors)\n"
    yield from head("values", "seeds", "a study", "plain t tests", "an arm set apart", "variances differ > 4 times")
    for name, draw in NULLS.items():
        for seeds in (3, 5, 10):
            yield f"| {name} | {seeds} | {percent(*false_findings(draw, seeds, studies))} |"
    yield f"\nCoverage, {2 * studies // 5:,} studies each, % (promised: 93 to 99)\n"
    yield from head("seeds", "images", "sd over seeds, points", "this set, one contrast", "this set, all eight", "new images")
    for seeds in (3, 5, 10):
        for images in (500, 2000):
            for points in (0, 0.15, 0.4):
                found = coverage(seeds, images, points / 100, 2 * studies // 5)
                yield f"| {seeds} | {images} | {points:g} | {percent(*found)} |"
    yield f"\nPower, {studies // 2:,} studies each, % (promised: within 5 of what is printed)\n"
    yield from head("values", "seeds", "effect, points", "printed", "achieved")
    for name, gain in GAINS.items():
        for seeds in (3, 5, 10):
            for share in (0.5, 0.8):
                effect = detectable(assumed_sd(ERROR, IMAGES), seeds, K, share=share)
                found = achieved(gain, seeds, effect, studies // 2)
                yield f"| {name} | {seeds} | {100 * effect:.2f} | {percent(share, found)} |"
    yield f"\nLooking early, {studies:,} null studies of up to {max(LOOKS)} seeds, % with a false finding\n"
    yield from head("eight tricks, planned looks", "one trick, planned looks", "one trick, a t test after every seed")
    yield f"| {percent(*early(studies))} |"


def main() -> None:
    began = time.monotonic()
    print(origin() + "\n", flush=True)
    for line in tables(2000):
        print(line, flush=True)
    print(f"\n{time.monotonic() - began:.0f} s in all.")


if __name__ == "__main__":
    main()
