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
from torchmetrics.functional.classification import multiclass_calibration_error

from trickbag.engine.scores import BINS, Judge, calibration_error, interval, score
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


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_torchmetrics_agrees_where_no_confidence_lies_on_an_end_of_a_bin(classes: int) -> None:
    logits, labels = draw(500, classes)
    peer = multiclass_calibration_error(logits.double().softmax(1), labels, classes, BINS)
    assert score(logits, labels).ece == pytest.approx(float(peer), abs=1e-6)  # which adds up in fp32


def test_a_certain_answer_lies_in_the_last_bin() -> None:
    """Fifty that are as good as certain, five of them wrong, and fifty right at .953: one bin, .95 right of .976 expected."""
    logits = torch.tensor([[20.0, 0.0], [3.0, 0.0]]).repeat_interleave(50, 0)
    labels = torch.zeros(100, dtype=torch.int64)
    labels[:5] = 1
    probability = 1 / (1 + np.exp(-np.array([20.0, 3.0])))
    assert score(logits, labels).ece == pytest.approx(abs(0.95 - probability.mean()), abs=1e-9)
    assert score(logits, labels).ece == pytest.approx(0.0263, abs=5e-5)
    assert score(logits.double() * 1000, labels).ece == pytest.approx(0.05, abs=1e-9)


@pytest.mark.parametrize("m", range(1, 16))
def test_a_confidence_on_the_end_of_a_bin_lies_in_the_bin_that_it_ends(m: int) -> None:
    """(a, b]: together with one just below, not with one just above, of which each is wrong the other way."""
    end = torch.tensor(m / 15, dtype=torch.float64)
    below, above = end - 1e-6, (end + 1e-6).clamp(max=1)
    right = torch.tensor([False, True])
    assert calibration_error(torch.stack([end, below]), right) == pytest.approx(abs(2 * m / 15 - 1e-6 - 1) / 2)
    if m < 15:
        apart = calibration_error(torch.stack([end, above]), right)
        assert apart == pytest.approx((m / 15 + 1 - m / 15 - 1e-6) / 2)


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
        (torch.tensor([[math.nan, 0.0]]), torch.tensor([0]), "no finite numbers"),
        (torch.tensor([[math.inf, 0.0]]), torch.tensor([0]), "for 1 of 1 images"),
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
