"""Worlds in which the true gain of every recipe is known, for ``benchmarks.nominating``.

A photo is named rightly where the sum of its own ease, of what each trick does to it, of the tricks' mean effects and of the
run's luck is above 0; all are normal, so that the true gain of every recipe is a formula.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

Floats = NDArray[np.float64]
TRICKS, POOL, TEST = 8, 1500, 375
ACCURACY, LUCK, OWN = 0.85, 0.45, 0.14
"""Of the reference; sd of a run's luck in a photo, and of what a trick does to one beyond its mean; that of the ease is 1.
Two runs of the reference then disagree on about a tenth of the photos, and of what five tricks together change in a photo a
tenth is the same in every run, as ``python -m benchmarks.assumed`` finds it for trained networks."""


class World(NamedTuple):
    """What is true."""

    gains: Floats
    """[K] in points, of each trick alone; of a pair that helps only together, of the pair."""
    pair: tuple[int, int] | None = None
    """Tricks of which each does half of its harm alone and both their gain together."""
    excluded: tuple[int, int] | None = None
    instead: tuple[int, int] | None = None
    """Tricks of which the second adds nothing to the first."""


WORLDS = {
    "null": World(np.zeros(TRICKS)),
    "8 of +0.3": World(np.full(TRICKS, 0.3)),
    "3 of +0.5": World(np.array([0.5] * 3 + [0.0] * 5)),
    "8 of −0.5": World(np.full(TRICKS, -0.5)),
    "mixed": World(np.array([1, 0.5, 0.3, 0, 0, -0.3, -0.5, -1])),
    "two that help only together, +1.5": World(np.array([1.5, 1.5] + [0.0] * 6), pair=(0, 1)),
    "two of +1 that exclude each other": World(np.array([1.0, 1.0] + [0.0] * 6), excluded=(0, 1)),
    "null, four tricks": World(np.zeros(4)),
    "4 of +0.5": World(np.full(4, 0.5)),
    "1, 0.5, 0, −0.5": World(np.array([1, 0.5, 0, -0.5])),
    "two of four that help only together, +1.5": World(np.array([1.5, 1.5, 0, 0]), pair=(0, 1)),
    "two of four, +1 each and +1 together": World(np.array([1.0, 1.0, 0, 0]), instead=(0, 1)),
}


def shift(gain: float) -> float:
    """What moves the latent mean of a recipe with one trick by a gain in points."""
    wide = math.sqrt(1 + LUCK**2)
    base = float(special.ndtri(ACCURACY)) * wide
    return float(special.ndtri(ACCURACY + gain / 100)) * math.sqrt(1 + LUCK**2 + OWN**2) - base


def mean_of(world: World, on: NDArray[np.bool_]) -> float:
    """The latent mean of a recipe."""
    moves = np.array([shift(gain) for gain in world.gains])
    if world.pair:
        moves[list(world.pair)] = on[list(world.pair)].all() * moves[world.pair[0]] / 2
    if world.instead:
        moves[world.instead[1]] *= not on[world.instead[0]]
    return float(special.ndtri(ACCURACY)) * math.sqrt(1 + LUCK**2) + float(moves @ on)


def accuracy(world: World, on: NDArray[np.bool_]) -> float:
    """Of a recipe on new photos."""
    return float(special.ndtr(mean_of(world, on) / math.sqrt(1 + LUCK**2 + OWN**2 * on.sum())))


class Photos(NamedTuple):
    """A data set's photos."""

    ease: Floats
    """[N]"""
    own: Floats
    """[K, N] what each trick does to each."""

    def right(self, world: World, cells: NDArray[np.bool_], rows: NDArray[np.int64], rng: np.random.Generator) -> Floats:
        """[A, n] which recipes name which photos rightly, each in a run of its own."""
        means = np.array([mean_of(world, on) for on in cells])
        latent = means[:, None] + self.ease[rows] + cells.astype(float) @ self.own[:, rows]
        return np.asarray(latent + LUCK * rng.normal(size=latent.shape) > 0, dtype=float)


def photos(rng: np.random.Generator, tricks: int = TRICKS) -> Photos:
    """Those of a data set, drawn."""
    return Photos(rng.normal(size=POOL + TEST), OWN * rng.normal(size=(tricks, POOL + TEST)))


def gaining(count: int, gain: float) -> World:
    """A world in which so many tricks, all alike, gain so many points together."""
    on = np.arange(TRICKS) < count

    def short(each: float) -> float:
        return accuracy(World(np.where(on, each, 0.0)), on) - ACCURACY - gain / 100

    return World(np.where(on, optimize.brentq(short, -5.0, 10.0), 0.0))
