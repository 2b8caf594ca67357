"""Average precision against COCO's own code, on random detections and on what breaks implementations."""

from collections.abc import Sequence

import numpy as np
import pytest

from benchmarks.averaging import Scene, cocos
from trickbag.statistics.detection import MOST, OVERLAPS, Found, Matches, Precision, Truth, matched, precision


def ours(scenes: Sequence[Scene], classes: int, weights: np.ndarray | None = None) -> Precision:
    return precision([matched(*scene, classes) for scene in scenes], classes, weights)


def agree(scenes: Sequence[Scene], classes: int) -> Precision:
    found, (at_half, over_all) = ours(scenes, classes), cocos(scenes, classes)
    np.testing.assert_allclose(found.classes50, at_half, atol=1e-9)
    np.testing.assert_allclose(found.classes, over_all, atol=1e-9)
    seen = np.isfinite(over_all)
    if seen.any():
        assert found.map50 == pytest.approx(at_half[seen].mean(), abs=1e-9)
        assert found.map == pytest.approx(over_all[seen].mean(), abs=1e-9)
    else:
        assert np.isnan(found.map50)
        assert np.isnan(found.map)
    return found


def boxes(rng: np.random.Generator, count: int, grid: float) -> np.ndarray:
    corner, sides = rng.integers(0, 40, (count, 2)), rng.integers(4, 24, (count, 2))
    return np.concatenate([corner, corner + sides], axis=1) * grid


def scene(rng: np.random.Generator, classes: int, ignored: float = 0.2, levels: int = 1000) -> Scene:
    """Some boxes, detections near them and anywhere, scores of so many different values."""
    truth = boxes(rng, int(rng.integers(0, 9)), 1.0)
    labels = rng.integers(0, classes, len(truth))
    again = rng.integers(0, len(truth), 12) if len(truth) else np.zeros(0, int)
    near = truth[again] + rng.normal(0, 1, (len(again), 4)).round()
    near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
    said = np.concatenate([near, boxes(rng, 5, 1.0)])
    meant = np.concatenate([labels[again], np.zeros(5, int)])
    names = np.where(rng.random(len(said)) < 0.8, meant, rng.integers(0, classes, len(said)))
    scores = rng.integers(1, levels, len(said)) / levels
    return Found(said, names, scores), Truth(truth, labels, rng.random(len(truth)) < ignored)


NONE = Found(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0))
EMPTY = Truth(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0, bool))


@pytest.mark.parametrize("seed", range(40))
def test_random_detections_are_judged_as_by_coco(seed: int) -> None:
    """With and without ignored boxes, many scores or three, one class or several."""
    rng = np.random.default_rng(seed)
    classes = int(rng.integers(1, 5))
    scenes = [scene(rng, classes, float(rng.choice([0, 0.4])), int(rng.choice([4, 10_000]))) for _ in range(12)]
    agree(scenes, classes)


def test_what_breaks_implementations_is_judged_as_by_coco() -> None:
    one = np.array([[10.0, 10, 30, 30]])
    truth = Truth(one, np.array([0]), np.array([False]))
    exact = Found(one, np.array([0]), np.array([0.7]))
    assert agree([(exact, truth)], 1).map == 1
    assert agree([(NONE, truth)], 1).map == 0
    assert np.isnan(agree([(exact, EMPTY)], 1).map)
    assert np.isnan(agree([(NONE, EMPTY)], 2).map)
    assert agree([(exact, truth), (NONE, EMPTY)], 3).map == 1  # classes that are absent do not count
    assert agree([(exact._replace(labels=np.array([1])), truth)], 2).map == 0  # another class
    twice = Found(np.repeat(one, 2, 0), np.array([0, 0]), np.array([0.5, 0.5]))
    assert agree([(twice, truth)], 1).map == 1  # the second is wrong, further down
    pair = Truth(np.repeat(one, 2, 0), np.array([0, 0]), np.zeros(2, bool))
    assert agree([(twice, pair)], 1).map == 1  # identical boxes are two
    assert agree([(Found(one + 200, np.array([0]), np.array([0.9])), truth), (exact, truth)], 1).map < 0.5  # elsewhere


def test_an_overlap_of_exactly_the_threshold_is_enough() -> None:
    truth = Truth(np.array([[0.0, 0, 10, 10]]), np.array([0]), np.array([False]))
    half = Found(np.array([[0.0, 0, 10, 5]]), np.array([0]), np.array([0.5]))
    found = agree([(half, truth)], 1)
    assert (found.map50, found.map) == (1, pytest.approx(0.1))


def test_ignored_boxes_excuse_many_detections_and_are_taken_last() -> None:
    crowd = Truth(np.array([[0.0, 0, 40, 40], [0, 0, 12, 12]]), np.array([0, 0]), np.array([True, False]))
    inside = np.array([[1.0, 1, 11, 11], [20, 20, 30, 30], [5, 25, 15, 35], [60, 60, 70, 70]])
    said = Found(inside, np.zeros(4, int), np.array([0.3, 0.9, 0.8, 0.1]))
    assert agree([(said, crowd)], 1).map50 == 1
    assert np.isnan(agree([(said, crowd._replace(ignored=np.array([True, True])))], 1).map)


@pytest.mark.parametrize("levels", [2, 10_000])
def test_more_than_a_hundred_detections_of_an_image_are_cut_as_by_coco(levels: int) -> None:
    rng = np.random.default_rng(levels)
    truth = Truth(boxes(rng, 60, 1.0), rng.integers(0, 2, 60), rng.random(60) < 0.1)
    again = rng.integers(0, 60, 5 * MOST)
    said = Found(truth.xyxy[again], truth.labels[again], rng.integers(1, levels + 1, len(again)) / levels)
    agree([(said, truth), scene(rng, 2)], 2)
    counted = matched(said, truth, 2).labels
    assert np.bincount(counted).tolist() == [MOST, MOST]


def test_weights_count_images_as_often_as_they_stand_in_the_data() -> None:
    rng = np.random.default_rng(3)
    scenes = [scene(rng, 3, levels=10**9) for _ in range(20)]
    draws = rng.integers(0, 20, (5, 20))
    weights = np.stack([np.bincount(draw, minlength=20) for draw in draws])
    found = ours(scenes, 3, weights)
    for row, draw in enumerate(draws):
        once = ours([scenes[number] for number in np.sort(draw)], 3)
        np.testing.assert_allclose([found.map50[row], found.map[row]], [once.map50, once.map], atol=1e-12)
        np.testing.assert_allclose(found.classes[row], once.classes, atol=1e-12)
    assert np.isnan(ours(scenes, 3, np.zeros(20)).map)


def test_a_match_says_of_each_detection_whether_it_is_right_wrong_or_ignored() -> None:
    rng = np.random.default_rng(4)
    for _ in range(20):
        said, truth = scene(rng, 3)
        one: Matches = matched(said, truth, 3)
        assert one.right.shape == one.wrong.shape == (len(OVERLAPS), len(one.scores))
        assert not (one.right & one.wrong).any()
        assert (one.right.sum(1) <= one.truths.sum()).all()
        assert one.truths.sum() == (~truth.ignored).sum()
