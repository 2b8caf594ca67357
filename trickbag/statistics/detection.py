"""The mean average precision of a detector by COCO's rules, which box of an image was found apart from what follows from it.

Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014; the rules are those of pycocotools' ``COCOeval`` for boxes
of all areas. An image is matched once; what any weights of the images give, as in a bootstrap or a jackknife, is then cheap.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trickbag.statistics.variance import Floats, Ints, over_seen

Bools = NDArray[np.bool_]

OVERLAPS = np.linspace(0.5, 0.95, 10)
"""Of intersection over union, from which on a box is found."""
RECALLS = np.linspace(0, 1, 101)
MOST = 100
"""Detections that count, of a class in an image."""
_AT_ONCE = 64
"""Rows of weights in memory."""


class Found(NamedTuple):
    """What a detector says of one image."""

    xyxy: Floats
    """[n, 4] left, top, right, bottom in pixels."""
    labels: Ints
    """[n]"""
    scores: Floats
    """[n]"""


class Truth(NamedTuple):
    """What there is to be found in one image."""

    xyxy: Floats
    """[n, 4] as of Found."""
    labels: Ints
    """[n]"""
    ignored: Bools
    """[n] boxes that are neither found nor missed, nor wrong to have been found."""


class Matches(NamedTuple):
    """Which detections of one image are right, at each of the OVERLAPS; what is neither right nor wrong is ignored."""

    labels: Ints
    """[n]"""
    scores: Floats
    """[n]"""
    right: Bools
    """[10, n]"""
    wrong: Bools
    """[10, n]"""
    truths: Ints
    """[K] boxes of each class to be found."""


class Precision(NamedTuple):
    """Average precision, 0 to 1; a class of which there is no box to be found is NaN and not counted."""

    map50: Floats
    """[...] the mean over classes, at an overlap of 0.5."""
    map: Floats
    """[...] the mean over classes and OVERLAPS."""
    classes50: Floats
    """[..., K]"""
    classes: Floats
    """[..., K]"""


def matched(found: Found, truth: Truth, classes: int) -> Matches:
    """The detections of one image beside its boxes, both of labels 0 to ``classes`` - 1.

    From the highest score down, a detection takes the box of its class, among those that are not taken, that it overlaps most.
    Where none is left it is wrong, unless an ignored box holds enough of it: the share of the detection that lies inside, and
    for any number of detections (COCO's crowds). Of a class, the MOST detections with the highest scores count.

    >>> boxes = np.array([[0.0, 0, 10, 10], [20, 20, 30, 30]])
    >>> said, truth = Found(boxes, np.array([0, 0]), np.array([0.9, 0.8])), Truth(boxes[:1], np.array([0]), np.zeros(1, bool))
    >>> one = matched(said, truth, 1)
    >>> one.right[0].tolist(), one.wrong[0].tolist(), one.truths.tolist()
    ([True, False], [False, True], [1])
    """
    parts = [_of_class(found, truth, number) for number in range(classes)]
    kept, right, wrong = (np.concatenate(column, axis=-1) for column in zip(*parts, strict=True))
    truths = np.bincount(truth.labels[~truth.ignored], minlength=classes)
    return Matches(found.labels[kept], found.scores[kept], right, wrong, truths)


def _of_class(found: Found, truth: Truth, label: int) -> tuple[Ints, Bools, Bools]:
    """Which detections count, by falling score, and which of them are right and wrong."""
    rows = np.flatnonzero(found.labels == label)
    rows = rows[np.argsort(-found.scores[rows], kind="stable")][:MOST]
    own, ignored = truth.labels == label, truth.ignored
    shared = overlaps(found.xyxy[rows], truth.xyxy[own & ~ignored])
    inside = overlaps(found.xyxy[rows], truth.xyxy[own & ignored], crowds=True)
    right = np.zeros((len(OVERLAPS), len(rows)), bool)
    taken = np.zeros((len(OVERLAPS), shared.shape[1]), bool)
    for row in np.flatnonzero((shared >= OVERLAPS[0]).any(1)):
        free = np.where(~taken & (shared[row] >= OVERLAPS[:, None]), shared[row], -1.0)
        last = free.shape[1] - 1 - free[:, ::-1].argmax(1)  # the last of those that it overlaps alike, as in COCOeval
        levels = np.flatnonzero(free.max(1) > 0)
        right[levels, row] = taken[levels, last[levels]] = True
    excused = inside.max(1, initial=0.0) >= OVERLAPS[:, None]
    return rows, right, ~right & ~excused


def overlaps(found: Floats, truth: Floats, crowds: bool = False) -> Floats:
    """Boxes [n, 4], [m, 4] -> intersection over union [n, m], or over the area of what was found.

    >>> overlaps(np.array([[0.0, 0, 10, 10]]), np.array([[5.0, 0, 15, 10]])).round(3).tolist()
    [[0.333]]
    """
    sides = np.minimum(found[:, None, 2:], truth[None, :, 2:]) - np.maximum(found[:, None, :2], truth[None, :, :2])
    both = np.where((sides > 0).all(-1), sides.prod(-1), 0.0)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(-1) for boxes in (found, truth)]
    whole = np.broadcast_to(areas[0][:, None], both.shape) if crowds else areas[0][:, None] + areas[1] - both
    return share(both, whole)


def precision(matches: Sequence[Matches], classes: int, weights: Floats | None = None) -> Precision:
    """The average precision of a detector on some images.

    ``weights`` [..., images] say how often each image counts (1 without): each row of them gives what the data set would in
    which the images stand that often, and the answer has their leading dimensions.

    >>> boxes = np.array([[0.0, 0, 10, 10], [20, 20, 30, 30]])
    >>> said = Found(boxes, np.array([0, 0]), np.array([0.8, 0.9]))
    >>> found = precision([matched(said, Truth(boxes[:1], np.array([0]), np.zeros(1, bool)), 1)], 1)
    >>> float(found.map50), found.classes.tolist()
    (0.5, [0.5])
    """
    often = np.ones(len(matches)) if weights is None else np.asarray(weights, float)
    rows, ranking = often.reshape(-1, len(matches)), ranked(matches, classes)
    parts = [rows[at : at + _AT_ONCE] for at in range(0, len(rows), _AT_ONCE)]
    by_class = np.concatenate([np.stack([_average(one, part) for one in ranking], axis=-1) for part in parts])
    by_class = by_class.reshape(*often.shape[:-1], len(OVERLAPS), classes)
    mean = by_class.mean(-2)
    return Precision(over_seen(by_class[..., 0, :]), over_seen(mean), by_class[..., 0, :], mean)


class Ranked(NamedTuple):
    """The detections of a class in all images, by falling score."""

    image: Ints
    """[n]"""
    right: Bools
    """[10, n]"""
    wrong: Bools
    """[10, n]"""
    truths: Floats
    """[images] boxes to be found."""


def ranked(matches: Sequence[Matches], classes: int) -> list[Ranked]:
    """Of each class."""
    order = np.argsort(-np.concatenate([one.scores for one in matches]), kind="stable")
    labels = np.concatenate([one.labels for one in matches])[order]
    image = np.repeat(np.arange(len(matches)), [len(one.labels) for one in matches])[order]
    right = np.concatenate([one.right for one in matches], axis=1)[:, order]
    wrong = np.concatenate([one.wrong for one in matches], axis=1)[:, order]
    truths = np.array([one.truths for one in matches], float)
    own = [labels == label for label in range(classes)]
    return [Ranked(image[rows], right[:, rows], wrong[:, rows], truths[:, label]) for label, rows in enumerate(own)]


def _average(one: Ranked, weights: Floats) -> Floats:
    """The average precision of a class at the OVERLAPS, for each row of weights [n, images]: [n, 10]."""
    often, truths = weights[:, one.image], (weights @ one.truths)[:, None]
    ranks, average = np.cumsum(often, axis=1), np.empty((len(weights), len(OVERLAPS)))
    for level, (right, wrong) in enumerate(zip(one.right, one.wrong, strict=True)):
        ignored = ~(right | wrong)
        above = np.cumsum(np.pad(often[:, ignored], ((0, 0), (1, 0))), axis=1)[:, np.cumsum(ignored)[right]]
        hits = np.cumsum(often[:, right], axis=1)
        highest = envelope(share(hits, ranks[:, right] - above))
        reached = np.searchsorted(RECALLS, share(hits, truths), side="right")
        average[:, level] = (highest * np.diff(reached, axis=1, prepend=0)).sum(1) / len(RECALLS)
    return np.where(truths > 0, average, np.nan)


def share(part: NDArray[Any], whole: NDArray[Any]) -> Floats:
    """0 where the whole is 0."""
    shares: Floats = np.divide(part, whole, out=np.zeros(part.shape), where=whole > 0)
    return shares


def envelope(exact: Floats) -> Floats:
    """The highest precision [10, n] from each place of a ranking on."""
    highest: Floats = np.maximum.accumulate(exact[:, ::-1], axis=1)[:, ::-1]
    return highest
