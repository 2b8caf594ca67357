"""Empirical Bayes: against its definition in another form, and against what is known when effects are drawn from the prior."""

import numpy as np
import pytest
from scipy import stats

from trickbag.statistics.belief import Belief, Prior, around_zero, belief, common, paule_mandel


def test_tau_squared_makes_the_weighted_spread_what_it_is_expected_to_be():
    rng = np.random.default_rng(1)
    b, v = rng.normal(0, 2, 9), rng.uniform(0.2, 1.5, 9) ** 2
    tau2 = paule_mandel(b, v)
    weights = 1 / (v + tau2)
    mean = (weights * b).sum() / weights.sum()
    assert tau2 > 0
    assert (weights * (b - mean) ** 2).sum() == pytest.approx(len(b) - 1)


def test_equal_errors_give_the_variance_less_what_the_errors_explain():
    b, v = np.array([-1.0, 0.0, 4.0]), np.full(3, 0.5)
    assert paule_mandel(b, v) == pytest.approx(b.var(ddof=1) - 0.5)


def test_no_more_spread_than_the_errors_explain_is_none():
    assert paule_mandel(np.array([0.1, -0.1, 0.0]), np.ones(3)) == 0
    assert around_zero([0.1, -0.1], [1.0, 1.0]).variance == 0
    assert paule_mandel(np.array([3.0]), np.ones(1)) == 0


def test_a_belief_is_the_posterior_of_a_normal_mean():
    """On a grid, in another way: prior times likelihood."""
    prior, measured, error = Prior(0.3, 0.7**2), 1.4, 0.5
    grid = np.linspace(-6, 8, 200_001)
    weights = stats.norm.pdf(grid, prior.mean, 0.7) * stats.norm.pdf(measured, grid, error)
    weights /= weights.sum()
    mean = weights @ grid
    found = belief(measured, error, prior)
    assert found.gain == pytest.approx(mean, abs=1e-6)
    assert found.sd == pytest.approx(np.sqrt(weights @ (grid - mean) ** 2), abs=1e-6)
    assert found.helps == pytest.approx(weights[grid > 0].sum(), abs=1e-4)


def test_what_is_certain_is_certain():
    assert belief(0.2, 0.0, Prior(0.0, 1.0)) == Belief(0.2, 0.0)
    assert Belief(0.2, 0.0).helps == 1
    assert Belief(-0.2, 0.0).helps == 0
    assert Belief(0.0, 0.0).helps == 0.5


def test_over_many_families_beliefs_are_right_on_average_and_nearer_to_the_truth_than_what_was_measured():
    """Eight effects drawn from N(0.3, 0.5^2), each measured with an error of 0.5."""
    rng = np.random.default_rng(2)
    off, naive, claimed = [], [], []
    for _ in range(400):
        truth = rng.normal(0.3, 0.5, 8)
        measured = truth + rng.normal(0, 0.5, 8)
        prior = common(measured.tolist(), [0.5] * 8)
        beliefs = [belief(m, 0.5, prior) for m in measured]
        off += [b.gain - t for b, t in zip(beliefs, truth, strict=True)]
        naive += list(measured - truth)
        claimed += [(b.helps, t > 0) for b, t in zip(beliefs, truth, strict=True)]
    assert np.mean(np.square(off)) < 0.75 * np.mean(np.square(naive))
    helps, did = np.array(claimed, float).T
    sure = helps > 0.8
    assert sure.sum() > 500
    assert did[sure].mean() == pytest.approx(helps[sure].mean(), abs=0.06)
