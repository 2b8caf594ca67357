"""Metrics against scikit-learn, and at the edges."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn import metrics

from trickbag.engine.scores import Judge, interval, score
from trickbag.ground.errors import TrickbagError


def draw(n: int, classes: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=rng)
    logits = 2 * torch.randn(n, classes, generator=rng)
    logits[torch.arange(n), labels] += 1.5
    return logits, labels


def ece_by_formula(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Guo et al. 2017, eq. 3, with bins ((m - 1) / M, m / M]."""
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    total = 0.0
    for m in range(bins):
        inside = (confidence > m / bins) & (confidence <= (m + 1) / bins)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return total


@pytest.mark.parametrize(("n", "classes"), [(1, 2), (7, 2), (200, 3), (333, 11), (400, 100)])
def test_scikit_learn_agrees(n: int, classes: int) -> None:
    logits, labels = draw(n, classes)
    found = score(logits, labels)
    true, probabilities = labels.numpy(), logits.double().softmax(1).numpy()
    predicted, every = probabilities.argmax(1), list(range(classes))
    precision, recall, _, count = metrics.precision_recall_fscore_support(true, predicted, labels=every, zero_division=0)
    occurring = np.union1d(true, predicted)
    f1 = metrics.f1_score(true, predicted, average="macro", labels=occurring, zero_division=0)
    expected = {
        "top1": metrics.accuracy_score(true, predicted),
        "macro_recall": recall[count > 0].mean(),
        "macro_f1": f1,
        "nll": metrics.log_loss(true, probabilities, labels=every),
        "brier": ((probabilities - np.eye(classes)[true]) ** 2).sum(1).mean(),
        "ece": ece_by_formula(probabilities, true),
        "top5": metrics.top_k_accuracy_score(true, probabilities, k=5, labels=every) if classes > 5 else 1.0,
    }
    assert {name: getattr(found, name) for name in expected} == pytest.approx(expected, abs=1e-7)
    assert found.per_class.precision == pytest.approx(precision.tolist())
    assert found.per_class.recall == pytest.approx(recall.tolist())
    assert found.per_class.count == count.tolist()
    assert found.confusion == metrics.confusion_matrix(true, predicted, labels=every).tolist()


def test_macro_recall_is_the_balanced_accuracy() -> None:
    logits, labels = draw(300, 7)
    balanced = metrics.balanced_accuracy_score(labels.numpy(), logits.argmax(1).numpy())
    assert score(logits, labels).macro_recall == pytest.approx(balanced)


def test_brier_of_two_classes_is_twice_that_of_scikit_learn() -> None:
    logits, labels = draw(90, 2)
    one_sided = metrics.brier_score_loss(labels.numpy(), logits.double().softmax(1)[:, 1].numpy())
    assert score(logits, labels).brier == pytest.approx(2 * one_sided)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 20), max_size=8), st.integers(0, 1000))
def test_parts_of_any_size_give_the_whole(sizes: list[int], seed: int) -> None:
    logits, labels = draw(sum(sizes), 4, seed)
    judge = Judge(4)
    for part, known in zip(logits.split(sizes), labels.split(sizes), strict=True):
        judge.update(part, known)
    assert judge.scores().as_json() == score(logits, labels).as_json()
    assert judge.scores().n == sum(sizes)


def test_the_last_partial_batch_counts_once() -> None:
    judge = Judge(2).update(torch.eye(2).repeat(4, 1), torch.tensor([0, 1] * 4)).update(torch.eye(2)[:1], torch.tensor([1]))
    assert (judge.scores().n, judge.scores().top1) == (9, pytest.approx(8 / 9))


def test_no_image_has_no_shares() -> None:
    found = score(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))
    assert found.n == 0
    assert math.isnan(found.top1)
    assert math.isnan(found.ece)
    assert found.confusion == [[0] * 3] * 3
    assert json.loads(json.dumps(found.as_json(), allow_nan=False))["top1"] is None


def test_a_class_that_is_absent_lowers_no_mean() -> None:
    logits = torch.eye(4)[[0, 1, 1, 1]]
    found = score(logits, torch.tensor([0, 1, 1, 0]))
    assert found.macro_recall == pytest.approx((1 / 2 + 1) / 2)
    assert found.per_class.recall[2:] == [0, 0]
    assert found.per_class.count == [2, 2, 0, 0]


def test_equal_logits_go_to_the_first_class() -> None:
    found = score(torch.zeros(10, 10), torch.arange(10))
    assert (found.top1, found.top5) == (pytest.approx(0.1), pytest.approx(0.5))
    assert [row[0] for row in found.confusion] == [1] * 10


def test_huge_logits_stay_finite() -> None:
    found = score(torch.tensor([[1e30, -1e30], [-1e4, 1e4]]), torch.tensor([0, 0]))
    assert found.nll == pytest.approx(1e4)
    assert found.brier == pytest.approx(1.0)


def test_half_precision_is_scored_in_double() -> None:
    logits, labels = draw(50, 5)
    assert score(logits.bfloat16(), labels) == score(logits.bfloat16().double(), labels)


@pytest.mark.parametrize(
    ("logits", "labels", "says"),
    [
        (torch.tensor([[math.nan, 0.0]]), torch.tensor([0]), "not finite"),
        (torch.tensor([[math.inf, 0.0]]), torch.tensor([0]), "of 1 of 1 images"),
        (torch.zeros(2, 3), torch.tensor([0, 3]), r"outside 0\.\.2"),
        (torch.zeros(2, 3), torch.tensor([0, -1]), r"outside 0\.\.2"),
        (torch.zeros(2, 3), torch.tensor([0]), r"\[2, 3\] and \[1\]"),
        (torch.zeros(6), torch.tensor([0]), r"\[N, K\]"),
        (torch.zeros(2, 0), torch.zeros(2, dtype=torch.int64), r"\[N, K\]"),
    ],
)
def test_what_cannot_be_scored_is_said(logits: torch.Tensor, labels: torch.Tensor, says: str) -> None:
    with pytest.raises(TrickbagError, match=says):
        score(logits, labels)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 5000), st.floats(0, 1), st.sampled_from([0.8, 0.95, 0.99]))
def test_the_interval_solves_wilsons_equation(n: int, share: float, level: float) -> None:
    successes = round(n * share)
    low, high = interval(successes, n, level)
    z, seen = norm.ppf(0.5 + level / 2), successes / n
    assert 0 <= low <= seen + 1e-12
    assert seen - 1e-12 <= high <= 1
    for bound in (low, high):
        assert abs(seen - bound) == pytest.approx(z * math.sqrt(bound * (1 - bound) / n), abs=1e-9)


def test_the_interval_of_nothing_is_everything() -> None:
    assert interval(0, 0) == (0, 1)


def test_recalls_are_averaged_by_training_images_over_classes_that_occur() -> None:
    """Liu et al. 2019: many above 100, few below 20; the last class has no judged image."""
    labels = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    logits = torch.eye(5)[torch.tensor([0, 0, 1, 0, 2, 0, 0, 0])]
    scores = score(logits, labels)
    assert scores.by_frequency([500, 101, 100, 19, 5]) == {"many": 0.75, "medium": 0.5, "few": 0.0}
    assert scores.by_frequency([500, 500, 500, 500, 5]) == {"many": 0.5, "medium": None, "few": None}
