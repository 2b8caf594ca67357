"""Probable label errors: confident learning, from what networks say of images that they did not learn from.

Northcutt, Jiang, Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels", JAIR 70, 2021: thresholds and
confident joint (eq. 1 and 2), its calibration (eq. 3), and of the ways to choose images *prune by noise rate* (section 3.2).
Those that are chosen are ranked by self-confidence: of labels changed at random, more stand first than by normalised
margin (``python -m benchmarks.label_errors``).
"""

import numpy as np
from numpy.typing import NDArray

from trickbag.statistics.variance import Floats, Ints


def quality(labels: Ints, p: Floats) -> Floats:
    """How well the label of each image fits: its own probability of [N, K], the self-confidence, 0 to 1.

    >>> quality(np.array([0, 1]), np.array([[0.9, 0.1], [0.9, 0.1]])).tolist()
    [0.9, 0.1]
    """
    found: Floats = p[np.arange(len(labels)), labels]
    return found


def joint(labels: Ints, p: Floats) -> Floats:
    """How many images [K, K] of each label (row) are truly of each class (column), estimated; rows sum to the labels' counts.

    An image is counted where its probability reaches the mean that the images of this label get for it; where several classes
    do, for the most probable one. A label counts for itself at least once.

    >>> p = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.1, 0.9], [0.2, 0.8], [0.9, 0.1]])
    >>> joint(np.array([0, 0, 0, 1, 1, 1]), p)
    array([[3., 0.],
           [1., 2.]])
    """
    classes = p.shape[1]
    counts = np.bincount(labels, minlength=classes)
    own = np.bincount(labels, p[np.arange(len(labels)), labels], classes)
    with np.errstate(invalid="ignore", divide="ignore"):
        confident = p >= np.where(counts > 0, own / counts, np.inf) - 1e-6
    true = np.where(confident.sum(1) > 1, p.argmax(1), confident.argmax(1))
    counted = confident.any(1)
    found = np.bincount(classes * labels[counted] + true[counted], minlength=classes**2).reshape(classes, classes).astype(float)
    np.fill_diagonal(found, found.diagonal().clip(1))
    made: Floats = found / found.sum(1, keepdims=True) * counts[:, None]
    return made


def suspects(labels: Ints, p: Floats) -> NDArray[np.bool_]:
    """Which images [N] probably have a wrong label, by their labels [N] and probabilities [N, K].

    Of each pair of classes as many as the joint says are mislabelled, those with the largest margin; never an image whose most
    probable class is its label, and never the last one of a class.

    >>> p = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.1, 0.9], [0.2, 0.8], [0.9, 0.1]])
    >>> suspects(np.array([0, 0, 0, 1, 1, 1]), p).nonzero()[0].tolist()
    [5]
    """
    wanted = whole(joint(labels, p)).astype(int)
    found = np.zeros(len(labels), bool)
    for label in range(p.shape[1]):
        rows = np.flatnonzero(labels == label)
        for true in np.flatnonzero(wanted[label]):
            if true != label:
                margin = p[rows, true] - p[rows, label]
                least = np.sort(margin)[-wanted[label, true]]
                found[rows[margin >= least]] = True
    found &= p.argmax(1) != labels
    return found


def whole(table: Floats) -> Floats:
    """Rows of numbers as whole ones with the same sums: rounded down, then up where most is left; of equals, the last ones.

    >>> whole(np.array([[1.4, 1.4, 0.2]]))
    array([[1., 2., 0.]])
    """
    table = table.round(9)  # what differs in the last bits is equal
    found: Floats = np.floor(table)
    for row, left in zip(found, table - found, strict=True):
        missing = round(left.sum())
        row[np.argsort(left, kind="stable")[len(row) - missing :]] += 1
    return found


def ranked(labels: Ints, p: Floats) -> Ints:
    """The rows of the suspects, the worst first."""
    rows = np.flatnonzero(suspects(labels, p))
    return rows[np.argsort(quality(labels, p)[rows], kind="stable")]
