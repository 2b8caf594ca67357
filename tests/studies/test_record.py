"""What a study keeps of a run, against independent references."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp
from sklearn.metrics import log_loss, recall_score
from torchmetrics.functional.classification import multiclass_calibration_error

from trickbag.engine.scores import score
from trickbag.statistics import calibration
from trickbag.studies import record


@pytest.mark.parametrize(("count", "classes", "scale"), [(500, 4, 3.0), (37, 10, 0.3), (200, 2, 12.0)])
def test_a_run_is_judged_as_independent_references_judge_it(count, classes, scale):
    """scikit-learn's NLL and recall, torchmetrics' and our own calibration error, scipy's best temperature."""
    rng = np.random.default_rng(count)
    labels = rng.integers(0, classes, count)
    logits = rng.normal(0, 1, (count, classes)) * scale
    logits[np.arange(count), labels] += scale
    p = np.exp(logits - logsumexp(logits, axis=1, keepdims=True))
    rows = np.arange(count)
    judged = record.judge(logits, labels, rows, rows)
    own = score(torch.from_numpy(logits), torch.from_numpy(labels))
    assert judged.correct.mean() == pytest.approx(own.top1, abs=1e-12)
    assert judged.nll.mean() == pytest.approx(log_loss(labels, p, labels=range(classes)), rel=1e-10)
    np.testing.assert_allclose(judged.recalls, recall_score(labels, judged.predicted, average=None), rtol=1e-12)
    peer = float(multiclass_calibration_error(torch.from_numpy(p), torch.from_numpy(labels), classes, record.BINS))
    assert record.ece(judged.bins) == pytest.approx(peer, abs=1e-6)
    assert record.ece(judged.bins) == pytest.approx(own.ece, abs=1e-6)
    assert judged.bins[:, 2].sum() == count

    def nll(log_t):
        z = logits / np.exp(log_t)
        return float((logsumexp(z, axis=1) - z[np.arange(count), labels]).mean())

    best = minimize_scalar(nll, bounds=(-np.log(32), np.log(32)), method="bounded", options={"xatol": 1e-10})
    found = calibration.temperature(logits, labels)
    assert nll(np.log(found)) <= best.fun + 1e-9
    assert found == pytest.approx(np.exp(best.x), rel=1e-4)
    cooled = np.empty_like(logits)
    for side in (0, 1):  # of the images, and of the temperature that the other half of them chose
        own, other = rows % 2 == side, rows % 2 != side
        z = logits[own] / calibration.temperature(logits[other], labels[other])
        cooled[own] = np.exp(z - logsumexp(z, axis=1, keepdims=True))
    np.testing.assert_allclose(judged.calibrated, -np.log(cooled[rows, labels]), rtol=1e-9, atol=1e-12)
    peer = float(multiclass_calibration_error(torch.from_numpy(cooled), torch.from_numpy(labels), classes, record.BINS))
    assert record.ece(judged.bins_calibrated) == pytest.approx(peer, abs=1e-6)


def test_images_of_one_group_never_choose_the_temperature_that_judges_them():
    rng = np.random.default_rng(0)
    logits, labels, groups = rng.normal(0, 3, (60, 3)), rng.integers(0, 3, 60), np.repeat(np.arange(20), 3)
    logits[np.arange(60), labels] += 3
    plain = record.judge(logits, labels, np.arange(60), groups).calibrated
    changed = logits.copy()
    changed[:3] = rng.normal(0, 30, (3, 3))
    moved = record.judge(changed, labels, np.arange(60), groups).calibrated != plain
    assert not moved[groups % 2 == 0][3:].any(), "the others of its half keep their temperature"
    assert moved[groups % 2 == 1].all()


def test_what_divided_all_logits_before_is_no_difference():
    """Calibrate's own temperature, also where one half can be told apart without a mistake, so that a bound decides."""
    rng = np.random.default_rng(1)
    logits, labels = rng.normal(0, 1, (12, 3)), rng.integers(0, 3, 12)
    logits[np.arange(0, 12, 2), labels[::2]] += 9
    found = [record.judge(scale * logits, labels, np.arange(12), np.arange(12)).calibrated for scale in (1.0, 0.4, 30.0)]
    np.testing.assert_allclose(found[1:], [found[0]] * 2, rtol=1e-9)


def test_the_temperature_of_a_perfect_and_of_a_hopeless_run_stays_in_its_bounds():
    logits, labels = np.eye(3)[[0, 1, 2]] * 5, np.array([0, 1, 2])
    assert -calibration.normalised(logits / calibration.temperature(logits, labels))[range(3), labels].mean() < 1e-9
    for scale in (1, 1000):
        size = np.sqrt(scale**2 * 25 * 2 / 9)
        assert calibration.temperature(scale * logits, (labels + 1) % 3) == pytest.approx(32 * size)
        assert calibration.temperature(scale * logits, labels) == pytest.approx(scale * calibration.temperature(logits, labels))
    assert calibration.temperature(np.zeros((3, 3)), labels) == 1.0
    assert record.ece(np.zeros((record.BINS, 3))) is None
