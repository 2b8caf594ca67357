"""Data sets together: against formulas in other forms, against published figures, and on simulated data sets."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, optimize, stats

from trickbag.ground.errors import UsageError
from trickbag.statistics.belief import belief
from trickbag.statistics.meta import expected, paule_mandel, pooled

BCG = [
    (4, 119, 11, 128), (6, 300, 29, 274), (3, 228, 11, 209), (62, 13536, 248, 12619), (33, 5036, 47, 5761),
    (180, 1361, 372, 1079), (8, 2537, 10, 619), (505, 87886, 499, 87892), (29, 7470, 45, 7232), (17, 1699, 65, 1600),
    (186, 50448, 141, 27197), (5, 2493, 3, 2338), (27, 16886, 29, 17825),
]  # fmt: skip
"""Thirteen trials of a vaccine (Colditz et al., JAMA 1994): vaccinated ill and well, others ill and well."""


def log_odds() -> tuple[list[float], list[float]]:
    cells = np.array(BCG, float)
    return list(np.log(cells[:, 0] * cells[:, 3] / cells[:, 1] / cells[:, 2])), list(np.sqrt((1 / cells).sum(1)))


def log_risks() -> tuple[list[float], list[float]]:
    a, b, c, d = np.array(BCG, float).T
    return list(np.log(a / (a + b) / (c / (c + d)))), list(np.sqrt(1 / a - 1 / (a + b) + 1 / c - 1 / (c + d)))


def squares(tau2: float, b: np.ndarray, v: np.ndarray) -> float:
    """The weighted squares by all pairs, without a mean."""
    w = 1 / (v + tau2)
    return float((np.outer(w, w) * (b[:, None] - b) ** 2).sum() / 2 / w.sum())


def by_hand(b: np.ndarray, v: np.ndarray, target: float) -> float:
    """Where the squares fall to a target, by bisection."""
    if squares(0.0, b, v) <= target:
        return 0.0
    low, high = 0.0, 1.0
    while squares(high, b, v) > target:
        high *= 2
    for _ in range(60):
        low, high = (middle, high) if squares(middle := (low + high) / 2, b, v) > target else (low, middle)
    return high


def test_the_published_figures_of_the_vaccine_trials() -> None:
    """Log odds ratios: the Q-profile interval of tau^2, 0.1302 to 1.1812, is metafor's for van Houwelingen et al. (2002)."""
    b, errors = log_odds()
    assert [round(value, 4) for value in b[:4]] == [-0.9387, -1.6662, -1.3863, -1.4564]
    assert [round(value**2, 4) for value in errors[:4]] == [0.3571, 0.2081, 0.4334, 0.0203]
    assert [end**2 for end in pooled(b, errors).tau_interval] == pytest.approx([0.1302, 1.1812], abs=1e-4)


@pytest.mark.parametrize(
    "data", [log_odds(), log_risks(), ([0.01, -0.02, 0.03], [0.005, 0.01, 0.004]), ([1.0, 3.0], [0.5, 1.0])]
)
def test_every_figure_by_another_formula(data: tuple[list[float], list[float]]) -> None:
    found, b, v = pooled(*data), np.array(data[0]), np.array(data[1]) ** 2
    n, tau2 = len(b), by_hand(b, v, len(b) - 1)
    assert tau2 > 0
    assert found.tau**2 == pytest.approx(tau2, rel=1e-5)
    assert squares(found.tau**2, b, v) == pytest.approx(n - 1, rel=1e-5)
    # The mean and its error by generalised least squares.
    inverse, ones = np.linalg.inv(np.diag(v + tau2)), np.ones(n)
    mean = ones @ inverse @ b / (ones @ inverse @ ones)
    assert found.mean == pytest.approx(mean, rel=1e-5)
    # Hartung and Knapp's own variance, which is not set to 1 / sum w: their q is 1 where tau^2 is Paule and Mandel's.
    own = (b - mean) @ inverse @ (b - mean) / (n - 1) / (ones @ inverse @ ones)
    low, high = stats.t.interval(0.95, n - 1, mean, math.sqrt(own))
    assert found.interval == pytest.approx((low, high), rel=1e-4)
    assert found.error == pytest.approx(math.sqrt(own), rel=1e-4)
    for end, tail in zip(found.tau_interval, (0.975, 0.025), strict=True):
        assert end**2 == pytest.approx(by_hand(b, v, stats.chi2.ppf(tail, n - 1)), rel=1e-5, abs=1e-10)
    assert (found.prediction is None) == (n == 2)


def test_with_equal_errors_i2_is_that_of_cochrans_q() -> None:
    """There the typical variance is the common one and tau^2 the moment estimator: I^2 = (Q - (n - 1)) / Q."""
    b, error = np.array([0.01, -0.02, 0.03, 0.015]), 0.008
    q = float(((b - b.mean()) ** 2).sum()) / error**2
    found = pooled(b.tolist(), [error] * 4)
    assert found.i2 == pytest.approx((q - 3) / q, rel=1e-6)
    assert found.tau**2 == pytest.approx(b.var(ddof=1) - error**2, rel=1e-6)


def test_sets_that_agree_by_chance_do_not_shorten_the_interval() -> None:
    """Hartung and Knapp's q would be 0 here and the interval a point."""
    found = pooled([0.01, 0.01, 0.01], [0.005, 0.005, 0.005])
    assert (found.tau, found.i2, found.tau_interval.low) == (0.0, 0.0, 0.0)
    assert found.interval == pytest.approx(stats.t.interval(0.95, 2, 0.01, 0.005 / math.sqrt(3)))


effects = st.lists(st.tuples(st.floats(-0.3, 0.3), st.floats(1e-3, 0.1)), min_size=2, max_size=9)


@given(effects, st.floats(-0.2, 0.2))
def test_laws(pairs: list[tuple[float, float]], shift: float) -> None:
    b, errors = map(list, zip(*pairs, strict=True))
    found = pooled(b, errors)
    assert min(b) - 1e-9 <= found.mean <= max(b) + 1e-9
    assert found.interval.low <= found.mean <= found.interval.high
    assert 0 <= found.i2 < 1
    assert found.error >= min(errors) / math.sqrt(len(b)) * (1 - 1e-9)
    assert found.tau_interval.low <= found.tau <= found.tau_interval.high + 1e-5
    if found.prediction:
        assert found.prediction.low <= found.interval.low <= found.interval.high <= found.prediction.high
    order = np.random.default_rng(0).permutation(len(b))
    assert pooled([b[k] for k in order], [errors[k] for k in order]).mean == pytest.approx(found.mean, abs=1e-7)
    moved = pooled([value + shift for value in b], errors)
    assert (moved.mean - shift, moved.tau) == pytest.approx((found.mean, found.tau), abs=1e-5)
    turned = pooled([-value for value in b], errors)
    assert (-turned.interval.high, -turned.mean) == pytest.approx((found.interval.low, found.mean), abs=1e-7)


def by_quantiles(b: np.ndarray, v: np.ndarray, share: float, count: int = 400) -> float:
    """The end of the prediction interval from quantiles of the confidence distribution of tau^2, found one by one."""
    tau2 = np.array([by_hand(b, v, stats.chi2.isf((k + 0.5) / count, len(b) - 1)) for k in range(count)])
    w = 1 / (v + tau2[:, None])
    means, sds = (w * b).sum(1) / w.sum(1), np.sqrt(tau2 + 1 / w.sum(1))
    return optimize.brentq(lambda x: stats.norm.cdf(x, means, sds).mean() - share, -9, 9)


@pytest.mark.parametrize("b", [[0.01, 0.02, 0.03], [0.01, 0.012, 0.01, 0.011], [0.05, -0.03, 0.0, 0.01, 0.02, 0.02]])
def test_the_prediction_is_the_mixture_over_what_is_known_of_tau(b: list[float]) -> None:
    errors = np.linspace(0.004, 0.009, len(b))
    found = pooled(b, errors.tolist())
    ends = [by_quantiles(np.array(b), errors**2, share) for share in (0.025, 0.975)]
    ends = [min(ends[0], found.interval.low), max(ends[1], found.interval.high)]
    assert found.prediction == pytest.approx(ends, abs=0.02 * (ends[1] - ends[0]))


@pytest.mark.parametrize("tau", [0.0, 0.01, 0.03])
@pytest.mark.parametrize("sets", [3, 6, 10])
def test_intervals_cover_the_mean_and_the_next_set(sets: int, tau: float) -> None:
    """By simulation, sets of unequal precision: Student's t with n - 2 degrees of freedom and one tau covers 88 % where tau is
    0.01."""
    rng, draws, covered, met = np.random.default_rng(7), 1000, 0, 0
    for _ in range(draws):
        errors = rng.uniform(0.003, 0.02, sets)
        found = pooled(rng.normal(0.01, tau, sets) + rng.normal(0, errors), errors)
        covered += found.interval.low <= 0.01 <= found.interval.high
        assert found.prediction
        met += found.prediction.low <= rng.normal(0.01, tau) <= found.prediction.high
    assert covered / draws >= 0.95 - 3 * math.sqrt(0.05 * 0.95 / draws)
    assert met / draws >= 0.95 - 3 * math.sqrt(0.05 * 0.95 / draws)


def test_what_is_expected_is_the_prediction_and_more_sets_say_more() -> None:
    rng, widths = np.random.default_rng(3), []
    b, errors = rng.normal(0.01, 0.005, 30), np.full(30, 0.004)
    for count in (3, 5, 30):
        found = pooled(b[:count], errors[:count])
        prior = expected(found, "sets")
        assert prior
        assert found.prediction
        low, high = stats.norm.interval(0.95, prior.mean, math.sqrt(prior.variance))
        assert found.prediction.high - found.prediction.low == pytest.approx(high - low)
        assert prior.mean == found.mean
        widths.append(high - low)
    assert widths[0] > 2 * widths[1] > 2 * widths[2]
    assert expected(pooled([0.1, 0.2], [0.1, 0.1]), "two sets") is None


def test_a_new_measurement_is_joined_with_what_is_expected_by_bayes_rule() -> None:
    prior = expected(pooled([0.01, 0.02, 0.03, 0.0], [0.005] * 4), "four sets")
    assert prior

    def weight(theta: float) -> float:
        return stats.norm.pdf(theta, prior.mean, math.sqrt(prior.variance)) * stats.norm.pdf(-0.01, theta, 0.008)

    whole = integrate.quad(weight, -0.2, 0.2, points=[-0.01, prior.mean])[0]
    mean = integrate.quad(lambda theta: theta * weight(theta), -0.2, 0.2, points=[-0.01, prior.mean])[0] / whole
    known = belief(-0.01, 0.008, prior)
    assert known.gain == pytest.approx(mean, rel=1e-5)
    helps = integrate.quad(weight, 0, 0.2, points=[prior.mean])[0] / whole
    assert known.helps == pytest.approx(helps, rel=1e-5)


@pytest.mark.parametrize(
    ("b", "errors"),
    [
        ([0.1], [0.1]),
        ([], []),
        ([0.1, 0.2], [0.1]),
        ([0.1, 0.2], [0.1, 0.0]),
        ([0.1, math.nan], [0.1, 0.1]),
        ([0, 1], [1, math.inf]),
    ],
)
def test_what_cannot_be_combined_is_refused(b: list[float], errors: list[float]) -> None:
    with pytest.raises(UsageError, match="two data sets or more"):
        pooled(b, errors)


def test_tau_squared_makes_the_weighted_spread_what_it_is_expected_to_be() -> None:
    rng = np.random.default_rng(1)
    b, v = rng.normal(0, 2, 9), rng.uniform(0.2, 1.5, 9) ** 2
    tau2 = paule_mandel(b, v)
    weights = 1 / (v + tau2)
    mean = (weights * b).sum() / weights.sum()
    assert tau2 > 0
    assert (weights * (b - mean) ** 2).sum() == pytest.approx(len(b) - 1)


def test_equal_errors_give_the_variance_less_what_the_errors_explain() -> None:
    b, v = np.array([-1.0, 0.0, 4.0]), np.full(3, 0.5)
    assert paule_mandel(b, v) == pytest.approx(b.var(ddof=1) - 0.5)


def test_no_more_spread_than_the_errors_explain_is_none() -> None:
    assert paule_mandel(np.array([0.1, -0.1, 0.0]), np.ones(3)) == 0
    assert paule_mandel(np.array([3.0]), np.ones(1)) == 0
