"""Confident learning against the package of its authors, and what it must find and leave alone."""

import numpy as np
import pytest
from cleanlab.count import compute_confident_joint
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores

from trickbag.statistics.label_errors import joint, quality, ranked, suspects, whole


def example(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels [N], 15 % of them wrong, and probabilities [N, K] of a classifier that is more or less good."""
    rng = np.random.default_rng(seed)
    classes = int(rng.integers(2, 9))
    count = int(rng.integers(5 * classes, 300))
    true = rng.integers(0, classes, count)
    labels = np.where(rng.random(count) < 0.15, rng.integers(0, classes, count), true)
    labels[:classes] = np.arange(classes)
    logits = rng.normal(0, 1, (count, classes))
    logits[np.arange(count), true] += rng.uniform(0, 5)
    p = np.exp(logits)
    return labels, p / p.sum(1, keepdims=True)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(60))
def test_joint_quality_and_suspects_are_those_of_cleanlab(seed: int) -> None:
    labels, p = example(seed)
    counts = np.bincount(labels, minlength=p.shape[1])
    theirs = compute_confident_joint(labels, p, calibrate=False)
    np.testing.assert_allclose(joint(labels, p), theirs / theirs.sum(1, keepdims=True) * counts[:, None])
    np.testing.assert_allclose(quality(labels, p), get_label_quality_scores(labels, p, method="self_confidence"))
    # What is rounded up where several cells have the same rest, they leave to the last bits: both go on from our whole numbers.
    table = whole(joint(labels, p)).astype(int)
    assert (table.sum(1) == counts).all()
    found = find_label_issues(labels, p, confident_joint=table, n_jobs=1)
    assert (found == suspects(labels, p)).all()
    order = find_label_issues(labels, p, confident_joint=table, n_jobs=1, return_indices_ranked_by="self_confidence")
    assert sorted(order) == sorted(ranked(labels, p))
    np.testing.assert_allclose(quality(labels, p)[order], quality(labels, p)[ranked(labels, p)])


@pytest.mark.filterwarnings("ignore")
def test_where_nothing_is_rounded_either_way_all_is_equal() -> None:
    equal = 0
    for seed in range(60):
        labels, p = example(seed)
        if (whole(joint(labels, p)) == compute_confident_joint(labels, p)).all():
            assert (find_label_issues(labels, p, n_jobs=1) == suspects(labels, p)).all()
            equal += 1
    assert equal > 40


def test_sure_and_right_probabilities_find_what_was_planted_and_nothing_else() -> None:
    labels, p = np.arange(40) % 4, np.full((40, 4), 0.02)
    p[np.arange(40), labels] = 0.94
    assert not suspects(labels, p).any()
    assert not suspects(np.zeros(5, int), np.eye(3)[[0] * 5]).any()
    labels[[3, 17]] = [0, 2]
    assert ranked(labels, p).tolist() == [3, 17]


def test_classes_without_images_and_none_to_compare_with_raise_nothing() -> None:
    assert not suspects(np.zeros(3, int), np.ones((3, 1))).any()
    labels, p = np.array([0, 0, 2, 2, 2]), np.eye(4)[[0, 0, 2, 2, 0]] * 0.9 + 0.025
    assert suspects(labels, p).tolist() == [False] * 4 + [True]
    assert not len(ranked(np.zeros(0, int), np.zeros((0, 3))))
