"""Power, smallest detectable effects and seeds needed: against scipy's noncentral t, and turned round."""

import math

import numpy as np
import pytest
from scipy import integrate, stats

from trickbag.ground.errors import UsageError
from trickbag.studies.power import assumed_sd, detectable, floor, power, seeds_needed, seeds_within

SD = assumed_sd(0.08, 2000)


def by_integration(effect: float, sd: float, seeds: int, k: int, df: float, alpha: float = 0.05) -> float:
    """P(|t| > critical) by integrating the normal numerator over the distribution of the variance."""
    critical, shift = stats.t.isf(alpha / (2 * k), df), effect / sd * math.sqrt(seeds)

    def given(ratio: float) -> float:
        limit = critical * math.sqrt(ratio)
        return (stats.norm.sf(limit - shift) + stats.norm.cdf(-limit - shift)) * stats.chi2.pdf(ratio * df, df) * df

    return integrate.quad(given, 0, 1 + 40 / math.sqrt(df), limit=400, epsabs=1e-12)[0]


@pytest.mark.parametrize(("seeds", "points"), [(3, 1.48), (5, 1.08), (10, 0.73)])
def test_the_specified_example_is_reproduced(seeds: int, points: float) -> None:
    # At five seeds the exact value is 1.0748: 1.08 comes from an sd rounded to 0.633 points.
    assert 100 * detectable(SD, seeds, k=8) == pytest.approx(points, abs=0.0053)
    assert round(100 * detectable(0.00633, seeds, k=8), 2) == points


@pytest.mark.parametrize("seeds", [3, 5, 10, 20])
@pytest.mark.parametrize(("k", "per_seed"), [(1, 1.0), (8, 8.0), (8, 1.0), (20, 11.0)])
@pytest.mark.parametrize("effect", [0.0, 0.005, 0.012])
def test_power_is_that_of_the_t_test(seeds: int, k: int, per_seed: float, effect: float) -> None:
    expected = by_integration(effect, SD, seeds, k, per_seed * (seeds - 1))
    assert power(effect, SD, seeds, k, per_seed=per_seed) == pytest.approx(expected, abs=1e-7)


def test_without_an_effect_power_is_the_level() -> None:
    assert power(0.0, SD, 5, 8) == pytest.approx(0.05 / 8, abs=1e-12)


@pytest.mark.parametrize("seeds", [2, 3, 5, 10, 20])
@pytest.mark.parametrize("share", [0.3, 0.8, 0.95])
def test_the_detectable_effect_has_the_power_asked_for(seeds: int, share: float) -> None:
    assert power(detectable(SD, seeds, 8, share=share), SD, seeds, 8) == pytest.approx(share, abs=1e-9)


@pytest.mark.parametrize("effect", [0.003, 0.0073, 0.0108, 0.05, 10.0])
@pytest.mark.parametrize("per_seed", [None, 1.0])
def test_seeds_needed_are_the_fewest(effect: float, per_seed: float | None) -> None:
    seeds = seeds_needed(effect, SD, 8, per_seed=per_seed)
    reached = [power(effect, SD, n, 8, per_seed=per_seed) >= 0.8 for n in (seeds - 1, seeds)]
    assert reached == [False, True]


def test_an_effect_that_no_number_of_seeds_finds_needs_none() -> None:
    assert seeds_needed(0.0, SD, 8) is None
    assert seeds_needed(1e-5, SD, 8) is None


def test_more_seeds_and_fewer_tricks_resolve_more() -> None:
    by_seeds = [detectable(SD, seeds, 8) for seeds in range(2, 30)]
    by_tricks = [detectable(SD, 5, k, per_seed=8) for k in range(1, 30)]
    assert by_seeds == sorted(by_seeds, reverse=True)
    assert by_tricks == sorted(by_tricks)


def test_power_stays_a_probability_at_the_edges() -> None:
    every = [power(e, SD, s, k) for e in (0.0, 1e-9, 0.01, 1.0, 1e6) for s in (1, 2, 3, 100) for k in (1, 100)]
    assert np.isfinite(every).all()
    assert min(every) >= 0
    assert max(every) <= 1
    assert (detectable(SD, 1, 8), detectable(0.0, 3, 8), power(0.1, 0.0, 3, 8), power(0.0, 0.0, 3, 8)) == (None, 0.0, 1.0, 0.0)


@pytest.mark.parametrize(("k", "per_seed"), [(1, 1.0), (8, 1.0), (8, 8.0), (8, 500.0)])
def test_power_rises_with_the_effect_where_the_series_of_scipy_gives_nan(k: int, per_seed: float) -> None:
    every = [power(effect, 1.0, 3, k, per_seed=per_seed, alpha=0.006) for effect in np.linspace(0, 50, 2000)]
    assert (np.diff(every) > -1e-9).all()
    assert every[-1] > 0.99


def test_the_floor_is_what_a_normal_test_with_endless_seeds_finds() -> None:
    least = floor(0.05, 2000)
    assert stats.norm.sf(stats.norm.isf(0.025) - least / math.sqrt(0.05 / 2000)) == pytest.approx(0.8, abs=1e-9)
    assert least == pytest.approx(2.8 * math.sqrt(0.05 / 2000), rel=1e-3)


def test_a_budget_holds_the_seeds_it_says() -> None:
    assert [seeds_within(budget, 1350) for budget in (0, 1349, 1350, 7200)] == [0, 0, 1, 5]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: assumed_sd(1.2, 10), "share from 0 to 1"),
        (lambda: assumed_sd(0.1, 0), "at least one image"),
        (lambda: power(0.1, -1.0, 3, 8), "not negative"),
        (lambda: power(0.1, math.nan, 3, 8), "not negative"),
        (lambda: power(0.1, 1.0, 3, 0), "at least one contrast"),
        (lambda: power(0.1, 1.0, 3, 8, alpha=1.0), "between 0 and 1"),
        (lambda: detectable(1.0, 3, 8, share=1.0), "below 1"),
        (lambda: floor(-1.0, 5), "negative"),
        (lambda: seeds_within(10, 0), "takes time"),
    ],
)
def test_mistakes_are_refused_with_a_sentence(call, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        call()
