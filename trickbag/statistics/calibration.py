"""Log-loss without what a temperature would mend: probabilities at the temperature that suits other images best."""

import numpy as np

from trickbag.statistics.variance import Floats, Ints


def cross_calibrated(logits: Floats, labels: Ints, groups: Ints) -> Floats:
    """Log-probabilities [N, K] at two temperatures: each half of the groups has the one that suits the other half best.

    They are the same for logits that were all divided by one temperature before.

    >>> wrong_of_four = np.array([[2.0, 0.0]] * 8), np.array([0, 0, 0, 0, 0, 0, 1, 1]), np.arange(8)
    >>> np.exp(cross_calibrated(*wrong_of_four))[:, 0].round(2).tolist() == [0.75] * 8
    True
    """
    half = np.unique(groups, return_inverse=True)[1] % 2
    cooled = normalised(logits)
    for side in (0, 1):
        if (half == side).any() and (half != side).any():
            cooled[half == side] = normalised(logits[half == side] / temperature(logits[half != side], labels[half != side]))
    return cooled


def normalised(logits: Floats) -> Floats:
    """Logits [N, K] -> log-probabilities."""
    shifted = logits - logits.max(1, keepdims=True)
    result: Floats = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return result


def temperature(logits: Floats, labels: Ints, steps: int = 20) -> float:
    """The temperature that minimises the NLL of logits [N, K]: Newton's method on its convex inverse.

    It is 1/32 to 32 in units of the logits' own size, so that the bounds mean the same whatever divided them before.

    >>> z = np.array([[2.0, 0.0]] * 3 + [[2.0, 0.0]])
    >>> bool(np.isclose(temperature(z, np.array([0, 0, 0, 1])), 2 / np.log(3), rtol=1e-6))
    True
    """
    size = float(np.sqrt(((logits - logits.mean(1, keepdims=True)) ** 2).mean())) or 1.0
    logits = logits / size
    beta, own = 1.0, logits[np.arange(len(labels)), labels]
    for _ in range(steps):
        p = np.exp(normalised(beta * logits))
        mean = (p * logits).sum(1)
        slope, bend = (mean - own).mean(), ((p * logits**2).sum(1) - mean**2).mean()
        step = slope / bend if bend > 1e-12 else 0.0
        old, beta = beta, float(np.clip(beta - np.clip(step, -beta / 2, beta), 1 / 32, 32))
        if abs(beta - old) < 1e-9 * beta:
            break
    return size / beta
