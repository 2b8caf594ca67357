"""Images unlike all others: how far an image lies from its nearest neighbours in the feature space of a network.

Angiulli, Pizzuti, "Fast Outlier Detection in High Dimensional Spaces", PKDD 2002 (the weight of a point); with cosine distances
of deep features: Kuan, Mueller, "Back to the Basics: Revisiting Out-of-Distribution Detection Baselines", 2022, section 2.
"""

import numpy as np

from trickbag.ground import signals
from trickbag.statistics.variance import Floats

NEAREST = 10
_AT_ONCE = 20_000_000
"""Distances in memory."""


def remoteness(features: Floats, nearest: int = NEAREST) -> Floats:
    """Features [N, D] -> the mean cosine distance [N], 0 to 2, of each image to the nearest others.

    >>> remoteness(np.array([[1.0, 0.0], [2.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), nearest=2).tolist()
    [0.0, 0.0, 0.0, 1.0]
    """
    count = len(features)
    near = min(nearest, count - 1)
    found = np.zeros(count)
    if near < 1:
        return found
    scale = np.linalg.norm(features, axis=1, keepdims=True)
    directions = (features / np.maximum(scale, np.finfo(np.float32).tiny)).astype(np.float32)
    step = max(1, _AT_ONCE // count)
    for at in range(0, count, step):
        signals.look()
        rows = np.arange(at, min(at + step, count))
        distance = 1 - directions[rows] @ directions.T
        distance[np.arange(len(rows)), rows] = np.inf
        found[rows] = np.partition(distance, near - 1, axis=1)[:, :near].mean(1)
    return found.clip(0)
