"""What images say of mAP and mIoU: derivatives against finite differences, and what ``effects`` makes of them."""

from collections.abc import Sequence

import numpy as np
import pytest

from trickbag.statistics.detection import OVERLAPS, Matches, precision
from trickbag.statistics.effects import Sample, effects
from trickbag.statistics.jackknife import of_overlap, of_precision
from trickbag.statistics.segmentation import overlap

STEP = 1e-6


def detections(rng: np.random.Generator, skill: float = 0.0, ignored: float = 0.0) -> Matches:
    """Of one image, whose boxes are the easier to find the higher their score; the third class is nowhere."""
    count = int(rng.integers(0, 9))
    labels, scores = rng.integers(0, 2, count), rng.random(count)
    right = (scores + 0.3 * rng.normal(size=count) + skill > OVERLAPS[:, None]) & (rng.random((10, count)) < 0.9)
    wrong = ~right & (rng.random(count) >= ignored)
    truths = np.bincount(labels, right.any(0), minlength=3).astype(int)
    truths[:2] += rng.integers(0, 2, 2)
    return Matches(labels, scores, right, wrong, truths)


def area(matches: Sequence[Matches], weights: np.ndarray, label: int, level: int) -> float:
    """Under the envelope of precision over recall, one detection after the other."""
    rows = sorted(
        (-score, right, wrong, weight)
        for one, weight in zip(matches, weights, strict=True)
        for name, score, right, wrong in zip(one.labels, one.scores, one.right[level], one.wrong[level], strict=True)
        if name == label
    )
    points, hits, misses = [], 0.0, 0.0
    for _, right, wrong, weight in rows:
        hits, misses = hits + weight * right, misses + weight * wrong
        if right:
            points.append((weight, hits / (hits + misses)))
    truths = sum(weight * one.truths[label] for one, weight in zip(matches, weights, strict=True))
    return sum(weight * max(exact for _, exact in points[at:]) for at, (weight, _) in enumerate(points)) / truths


@pytest.mark.parametrize("seed", range(4))
def test_what_an_image_says_of_map_is_the_score_and_its_derivative(seed: int) -> None:
    rng = np.random.default_rng(seed)
    matches = [detections(rng, ignored=0.2) for _ in range(9)]
    at_half, over_all = of_precision(matches, 3)
    found = precision(matches, 3)
    assert at_half.mean() == pytest.approx(float(found.map50))
    assert over_all.mean() == pytest.approx(float(found.map))
    for image in range(9):
        change = np.zeros(9)
        change[image] = STEP
        slopes = np.array([[slope(matches, sign * change, level) for level in range(len(OVERLAPS))] for sign in (-1, 1)])
        low, high = slopes.min(0), slopes.max(0)  # another where two peaks of the envelope are alike
        assert low[0] - 1e-5 < (at_half[image] - found.map50) / 9 < high[0] + 1e-5
        assert low.mean() - 1e-5 < (over_all[image] - found.map) / 9 < high.mean() + 1e-5


def slope(matches: Sequence[Matches], change: np.ndarray, level: int) -> float:
    """Of the mean area of both classes, to one side."""
    both = [area(matches, 1 + change, label, level) - area(matches, np.ones(len(matches)), label, level) for label in range(2)]
    return float(np.mean(both)) / change.sum()


def test_what_an_image_says_of_miou_is_the_score_and_its_derivative() -> None:
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 50, (7, 4, 4)) * (rng.random((7, 4, 4)) < 0.6)
    counts[:, 2], counts[:, :, 2] = 0, 0  # a class that is nowhere
    miou, accuracy = of_overlap(counts)
    found = overlap(counts)
    up, down = overlap(counts, 1 + STEP * np.eye(7)), overlap(counts, 1 - STEP * np.eye(7))
    np.testing.assert_allclose(miou, found.miou + 7 * (up.miou - down.miou) / 2 / STEP, atol=1e-6)
    np.testing.assert_allclose(accuracy, found.accuracy + 7 * (up.accuracy - down.accuracy) / 2 / STEP, atol=1e-6)
    assert (miou.mean(), accuracy.mean()) == (pytest.approx(float(found.miou)), pytest.approx(float(found.accuracy)))


def test_nothing_to_be_found_says_nothing() -> None:
    nothing = Matches(np.zeros(0, int), np.zeros(0), np.zeros((10, 0), bool), np.zeros((10, 0), bool), np.zeros(2, int))
    assert np.isnan(of_precision([nothing, nothing], 2)).all()
    assert np.isnan(of_overlap(np.zeros((2, 3, 3)))).all()


def test_effects_of_detectors_are_differences_of_map_on_the_same_images() -> None:
    """Three seeds of two detectors, of which the second finds more: as of any value per image."""
    samples, scores = [], []
    for seed in range(3):
        both = [[detections(np.random.default_rng((seed, image)), skill) for image in range(150)] for skill in (0.0, 0.25)]
        samples.append(Sample(np.array([of_precision(one, 3)[1] for one in both]), np.arange(150)))
        scores.append([float(precision(one, 3).map) for one in both])
    found = effects(samples, [[-1, 1]], shares=False)[0]
    assert found.difference == pytest.approx(np.diff(np.mean(scores, 0))[0])
    assert found.interval is not None
    assert 0 < found.interval.low < found.difference < found.interval.high
    assert found.verdict in {"helps", "worthwhile"}
    assert effects([one._replace(values=one.values[[1, 1]]) for one in samples], [[-1, 1]])[0].verdict == "identical"
