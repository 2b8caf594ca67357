"""Beliefs: against their definition in another form, and against what is known when effects are drawn from the prior."""

import numpy as np
import pytest
from scipy import stats

from trickbag.statistics.belief import Belief, Prior, alike, belief


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


def test_alike_effects_are_believed_as_the_model_has_it() -> None:
    """By drawing what is not known from its distribution, and weighing each draw by what was measured."""
    rng, b, s = np.random.default_rng(3), np.array([0.9, -0.2, 0.5, 0.4]), np.array([0.4, 0.5, 0.3, 0.2])
    for pairs in (0, 1):
        effects, n = len(b) - pairs, 400_000
        tau2 = np.median(s[:effects] ** 2) * (1 / rng.uniform(size=n) - 1)
        w, z = 1 / (s[:effects] ** 2 + tau2[:, None]), rng.uniform(size=n)
        m = rng.normal(0, np.sqrt((1 / z - 1) / w.sum(1)))
        square = ((1 - z) * (w * b[:effects]).sum(1) / w.sum(1)) ** 2 + (1 - z) / w.sum(1)
        theta = m[:, None] + np.sqrt(tau2)[:, None] * rng.normal(size=(n, len(b)))
        for number in range(effects, len(b)):  # an interaction, as large as effects times one of the ratios
            theta[:, number] = rng.choice([0.125, 0.25, 0.5, 1, 2], n) * np.sqrt(tau2 + square) * rng.normal(size=n)
        likely = np.exp(-(((b - theta) / s) ** 2).sum(1) / 2)
        likely /= likely.sum()
        mean = likely @ theta
        found, together = alike(b.tolist(), s.tolist(), pairs)
        assert [one.gain for one in found] == pytest.approx(mean, abs=0.02)
        assert together == pytest.approx((theta - mean).T @ (likely[:, None] * (theta - mean)), abs=0.01)
        assert [one.sd**2 for one in found] == pytest.approx(np.diag(together))


def test_beliefs_follow_the_unit_and_of_nothing_there_are_none() -> None:
    b, s = np.array([0.9, -0.2, 0.5]), np.array([0.4, 0.5, 0.3])
    found, scaled = alike(b.tolist(), s.tolist())[0], alike((b / 1000).tolist(), (s / 1000).tolist())[0]
    assert [one.gain for one in scaled] == pytest.approx([one.gain / 1000 for one in found])
    assert alike([], [])[0] == []
    assert 0 < alike([1.0], [0.5])[0][0].gain < 1


@pytest.mark.parametrize(("mean", "sd"), [(0.3, 0.5), (0.0, 0.0), (0.3, 0.0)])
def test_over_many_families_beliefs_are_right_and_nearer_to_the_truth_than_what_was_measured(mean: float, sd: float) -> None:
    """Eight effects drawn from N(mean, sd^2), each measured with an error of 0.5, and their sum."""
    rng = np.random.default_rng(2)
    off, naive, sums = [], [], []
    for _ in range(400):
        truth = rng.normal(mean, sd, 8)
        measured = truth + rng.normal(0, 0.5, 8)
        found, together = alike(measured.tolist(), [0.5] * 8)
        gains = np.array([one.gain for one in found])
        off += list((truth - gains) / [one.sd for one in found])
        naive.append(np.mean((gains - truth) ** 2) / np.mean((measured - truth) ** 2))
        sums.append((truth.sum() - gains.sum()) / together.sum() ** 0.5)
    assert np.mean(naive) < 0.85
    assert 0.5 < np.std(off) < 1.1
    assert 0.5 < np.std(sums) < 1.1


@pytest.mark.parametrize("least", [1.0, 1e-3, 1e-6])
def test_one_effect_that_is_known_far_better_than_the_others_does_not_make_these_sure(least: float) -> None:
    """Four of them were measured at five times their error, so most of that is believed."""
    found, together = alike([0.0, 0.05, -0.05, 0.05, -0.05], [0.01 * least, 0.01, 0.01, 0.01, 0.01])
    assert all(0.043 < abs(one.gain) < 0.05 and 0.008 < one.sd < 0.011 for one in found[1:])
    assert np.linalg.eigvalsh(together).min() > 0


def test_what_a_pair_does_beyond_its_two_is_believed_the_less_and_leaves_the_mean_alone() -> None:
    """Four effects are clear; two interactions of the same size, measured as badly, may be chance."""
    effects, errors = [0.02, 0.03, 0.04, 0.03], [0.005] * 4
    alone, (*found, one, other) = (
        alike(effects, errors)[0],
        alike([*effects, 0.01, -0.01], [0.005] * 4 + [0.01] * 2, pairs=2)[0],
    )
    assert [b.gain for b in found] == pytest.approx([b.gain for b in alone], rel=0.1)
    assert one.gain == pytest.approx(-other.gain)
    assert 0 < one.gain < 0.005
    assert alike([], [], 0)[0] == []
