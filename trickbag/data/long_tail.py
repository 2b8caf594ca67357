"""Long tails: how many images the classes of a long-tailed data set have, and classes grouped by their training images."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from trickbag.ground.errors import UsageError

Kind = Literal["exponential", "step"]
MANY, FEW = 100, 20
"""A class has many training images above the one, few below the other (Liu et al., CVPR 2019, arXiv:1904.05160)."""


def tail(largest: int, classes: int, ratio: float, kind: Kind = "exponential") -> list[int]:
    """Images per class of a long tail, the largest class first and ``ratio`` times as large as the last, each at least 1.

    Exponential: largest * ratio^(-k / (K - 1)) for k = 0 .. K - 1 (Cui et al., CVPR 2019, arXiv:1901.05555, section 5.1);
    step: the first half of the classes has all, the others largest / ratio (Buda et al., Neural Networks 2018,
    arXiv:1710.05381). Rounded down. Raises UsageError where ``ratio`` is below 1 or there is no such kind.

    >>> tail(5000, 10, 100)
    [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    >>> tail(100, 4, 10, "step")
    [100, 100, 10, 10]
    """
    if not ratio >= 1 or kind not in ("exponential", "step"):
        raise UsageError(f"ratio {ratio:g}, kind {kind}: a ratio is 1 or more, a kind exponential or step.")
    if kind == "step":
        shares = [1.0 if k < classes / 2 else 1 / ratio for k in range(classes)]
    else:
        shares = [ratio ** (-k / max(1, classes - 1)) for k in range(classes)]
    return [max(1, int(largest * share + 1e-9)) for share in shares]


def by_frequency(values: Sequence[float], trained: Sequence[int]) -> dict[str, float | None]:
    """The mean of a value per class [K] over the classes with many, medium and few training images [K].

    A class whose value is NaN does not count; None where no class is left.

    >>> by_frequency([0.9, 0.7, 0.5, 0.1], [500, 101, 100, 19])
    {'many': 0.8, 'medium': 0.5, 'few': 0.1}
    """
    counts: NDArray[np.int64] = np.asarray(trained)
    groups = {"many": counts > MANY, "medium": (counts <= MANY) & (counts >= FEW), "few": counts < FEW}
    array = np.asarray(values, dtype=float)
    known = {name: array[some & np.isfinite(array)] for name, some in groups.items()}
    return {name: float(own.mean()) if len(own) else None for name, own in known.items()}
