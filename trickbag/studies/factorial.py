"""Two-level factorial designs and the contrasts they hold: arrays of -1 and +1 in, weights of the cells out.

Box, Hunter and Hunter, "Statistics for Experimenters", 2nd ed., 2005, chapters 5 and 6. A row is a cell, a column a factor.
"""

from itertools import combinations
from math import factorial

import numpy as np
from numpy.typing import NDArray
from pydoe import fracfact

Signs = NDArray[np.float64]
"""[N, k] of -1 (off) and +1 (on): N cells of k factors."""
Pair = tuple[int, int]
"""Two factors, the lower number first."""

MOST = 16
"""Factors that a design can hold."""
_SIXTEEN = ("a", "b", "c", "d", "abc", "bcd", "acd", "abd")
# In this order as few words of the defining relation as possible have four letters, whatever the number of factors.
_THIRTY_TWO = ("a", "b", "c", "d", "e", "abc", "abd", "ace", "ade", "abcde", "abe", "acd", "bcd", "bce", "bde", "cde")


def fraction(k: int) -> Signs:
    """The cells of k factors, 1 to 16; the first has all factors off.

    All 2^k cells for k up to 4; 16 of them with resolution V for k = 5 and IV for 6 to 8; 32 with resolution IV for 9 to 16.
    The generators from 6 on have an odd number of letters, so that every word of the defining relation has an even one: all
    factors on is a cell too, and no main effect is mixed up with an interaction of two factors. Raises ValueError for other k.

    >>> fraction(2)
    array([[-1., -1.],
           [-1.,  1.],
           [ 1., -1.],
           [ 1.,  1.]])
    >>> [len(fraction(k)) for k in (4, 5, 8, 16)]
    [16, 16, 16, 32]
    """
    if not 1 <= k <= MOST:
        raise ValueError(f"a factorial design has 1 to {MOST} factors, not {k}")
    words = (*_SIXTEEN[:4], "-abcd") if k == 5 else _SIXTEEN[:k] if k <= 8 else _THIRTY_TWO[:k]
    signs: Signs = fracfact(" ".join(words))
    return signs


def crossed(shaping: int, late: int) -> Signs:
    """The cells of the factors that take a training of their own, each with every combination of those that take none.

    ``late`` factors are crossed in full up to 4, and by ``fraction`` above. The first cell has all factors off.

    >>> crossed(1, 1)
    array([[-1., -1.],
           [-1.,  1.],
           [ 1., -1.],
           [ 1.,  1.]])
    >>> crossed(6, 3).shape
    (128, 9)
    """
    parts = [fraction(k) if k else np.empty((1, 0)) for k in (shaping, late)]
    cells, repeats = len(parts[0]), len(parts[1])
    signs: Signs = np.hstack([np.repeat(parts[0], repeats, 0), np.tile(parts[1], (cells, 1))])
    return signs


def main(signs: Signs) -> Signs:
    """Weights [N, k] of each factor's main effect: the mean of the cells with it minus the mean of those without."""
    return signs * 2 / len(signs)


def pair(signs: Signs, i: int, j: int) -> Signs:
    """Weights [N] of an interaction of two factors: the effect of one where the other is on minus where it is off."""
    weights: Signs = signs[:, i] * signs[:, j] * 4 / len(signs)
    return weights


def chains(signs: Signs) -> list[list[tuple[Pair, int]]]:
    """The interactions of two factors in groups that the cells cannot tell apart, each with its sign beside the first.

    >>> chains(fraction(2)[:, [0, 1, 0]] * [1, 1, -1])  # the third factor is always the opposite of the first
    [[((0, 1), 1), ((1, 2), -1)], [((0, 2), 1)]]
    """
    found: dict[bytes, list[tuple[Pair, int]]] = {}
    for i, j in combinations(range(signs.shape[1]), 2):
        column = signs[:, i] * signs[:, j]
        sign = int(column[0])
        found.setdefault((column * sign).astype(np.int8).tobytes(), []).append(((i, j), sign))
    return [[(members, sign * chain[0][1]) for members, sign in chain] for chain in found.values()]


def shapley(signs: Signs) -> Signs:
    """Weights [2^k, k] of each factor's Shapley value, from all 2^k cells in any order.

    The mean over all orders of adding the factors of what a factor adds when it comes: a cell with s other factors on has the
    share s! (k - 1 - s)! / k! of the orders. Shapley, "A value for n-person games", 1953.

    >>> shapley(fraction(2)).T
    array([[-0.5, -0.5,  0.5,  0.5],
           [-0.5,  0.5, -0.5,  0.5]])
    """
    k = signs.shape[1]
    share = np.array([factorial(s) * factorial(k - 1 - s) / factorial(k) for s in range(k)])
    others = (signs > 0).sum(1, keepdims=True) - (signs > 0)
    weights: Signs = signs * share[others]
    return weights
