"""Intersection over union and pixel accuracy against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, jaccard_score

from trickbag.statistics.segmentation import IGNORED, confusion, overlap


@pytest.mark.filterwarnings("ignore:A single label")
@pytest.mark.parametrize("seed", range(20))
def test_overlaps_are_those_of_sklearn_over_all_pixels(seed: int) -> None:
    """Of images of many sizes, some pixels ignored, and often a class that nobody names."""
    rng = np.random.default_rng(seed)
    classes = int(rng.integers(1, 7))
    named = rng.permutation(classes)[: int(rng.integers(1, classes + 1))]
    found, true = [], []
    for _ in range(5):
        size = rng.integers(1, 20, 2)
        true.append(rng.choice(named, size).astype(np.uint8))
        found.append(np.where(rng.random(size) < 0.6, true[-1], rng.choice(named, size)))
        true[-1][rng.random(size) < 0.1] = IGNORED
    ours = overlap([confusion(one, other, classes) for one, other in zip(found, true, strict=True)])
    y, said = (np.concatenate([one.ravel() for one in part]) for part in (true, found))
    y, said = y[y != IGNORED], said[y != IGNORED]
    theirs = jaccard_score(y, said, labels=range(classes), average=None, zero_division=0)
    theirs[~np.isin(range(classes), np.union1d(y, said))] = np.nan
    np.testing.assert_allclose(ours.classes, theirs, atol=1e-9)
    assert float(ours.miou) == pytest.approx(jaccard_score(y, said, average="macro"), abs=1e-9)
    assert float(ours.accuracy) == pytest.approx(accuracy_score(y, said), abs=1e-9)
    for one, other in zip(found, true, strict=True):
        seen = other != IGNORED
        theirs = confusion_matrix(other[seen], one[seen], labels=range(classes)) if seen.any() else 0
        assert (confusion(one, other, classes) == theirs).all()


def test_weights_count_images_as_often_as_they_stand_in_the_data() -> None:
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 50, (8, 3, 3))
    draws = rng.integers(0, 8, (4, 8))
    found = overlap(counts, np.stack([np.bincount(draw, minlength=8) for draw in draws]))
    for row, draw in enumerate(draws):
        once = overlap(counts[draw])
        assert (found.miou[row], found.accuracy[row]) == (pytest.approx(once.miou), pytest.approx(once.accuracy))
        np.testing.assert_allclose(found.classes[row], once.classes)


def test_nothing_to_judge_is_no_number() -> None:
    nothing = overlap([confusion(np.zeros((2, 2), int), np.full((2, 2), IGNORED), 3)])
    assert np.isnan([nothing.miou, nothing.accuracy, *nothing.classes]).all()
