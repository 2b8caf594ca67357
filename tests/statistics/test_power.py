"""Power, smallest detectable effects, seeds and images needed: against scipy's noncentral t, and turned round."""

import math

import numpy as np
import pytest
from reference import joined, satterthwaite
from scipy import integrate, stats

from trickbag.ground.errors import UsageError
from trickbag.statistics.power import (
    BESIDE,
    MOST,
    OWN,
    churn,
    detectable,
    elsewhere,
    expected,
    images_for,
    power,
    seeds_for,
    seeds_within,
    squares,
    variance,
    variance_for,
)
from trickbag.statistics.variance import PRIOR, Part, Share, Spread, off, spread

ERROR = 0.004


def by_integration(effect: float, error: float, df: float, alpha: float = 0.05) -> float:
    """P(|t| > critical) by integrating the normal numerator over the distribution of the variance."""
    critical, shift = stats.t.isf(alpha / 2, df), effect / error

    def given(ratio: float) -> float:
        limit = critical * math.sqrt(ratio)
        return (stats.norm.sf(limit - shift) + stats.norm.cdf(-limit - shift)) * stats.chi2.pdf(ratio * df, df) * df

    return integrate.quad(given, 0, 1 + 40 / math.sqrt(df), limit=400, epsabs=1e-12)[0]


@pytest.mark.parametrize("df", [2, 8, 64])
@pytest.mark.parametrize("alpha", [0.05, 0.05 / 8])
@pytest.mark.parametrize("effect", [0.0, 0.005, 0.012])
def test_power_is_that_of_the_t_test(df: float, alpha: float, effect: float) -> None:
    assert power(effect, ERROR, df, alpha) == pytest.approx(by_integration(effect, ERROR, df, alpha), abs=1e-7)


def test_without_an_effect_power_is_the_level() -> None:
    assert power(0.0, ERROR, 5, 0.05 / 8) == pytest.approx(0.05 / 8, abs=1e-12)


@pytest.mark.parametrize("df", [2, 3, 5, 100, math.inf])
@pytest.mark.parametrize("share", [0.3, 0.8, 0.95])
def test_the_detectable_effect_has_the_power_asked_for(df: float, share: float) -> None:
    assert power(detectable(ERROR, df, share=share), ERROR, df) == pytest.approx(share, abs=1e-9)


def test_the_variance_for_an_effect_gives_it_the_power_where_degrees_of_freedom_abound() -> None:
    assert power(0.01, math.sqrt(variance_for(0.01, 0.05 / 8)), 1e7, 0.05 / 8) == pytest.approx(0.8, abs=1e-4)


FIXED = Spread(images=2e-5, within=1.5e-5, seed=1e-5, seeds=3, groups=500, persistent=1.5e-5)
ROTATED = Spread(images=2e-5, within=6e-5, seed=0.0, seeds=3, groups=900, persistent=2e-5)


def test_seeds_on_the_same_images_lower_all_but_what_persists() -> None:
    assert variance(FIXED, 1e-5, 3, 500) == pytest.approx(2e-5 + 1e-5 / 3 + 0.1e-5)
    assert variance(FIXED, 1e-5, 3000, 500) == pytest.approx(1.5e-5 + 0.1e-5, rel=0.01)


def test_seeds_on_other_images_lower_all_until_the_images_end() -> None:
    assert variance(ROTATED, 0.0, 6, 1800) == pytest.approx(1e-5)
    assert variance(ROTATED, 0.0, 60, 1800) == pytest.approx(1e-5)


@pytest.mark.parametrize("wanted", [1.9e-5, 1.7e-5])
def test_seeds_needed_are_the_fewest(wanted: float) -> None:
    seeds = seeds_for(wanted, FIXED, 1e-5, 500)
    assert [variance(FIXED, 1e-5, n, 500) <= wanted for n in (seeds - 1, seeds)] == [False, True]


def test_what_no_number_of_seeds_reaches_needs_none() -> None:
    assert seeds_for(1.4e-5, FIXED, 1e-5, 500) is None
    assert seeds_for(0.0, FIXED, 0.0, 500) is None
    assert variance(FIXED, 1e-5, MOST, 500) > 1.4e-5


def test_images_needed_bring_the_variance_down_to_what_the_seeds_leave() -> None:
    images = images_for(1e-5, FIXED, 1e-5)
    assert 2e-5 * 500 / images + 1e-5 / 3 + 0.1e-5 == pytest.approx(1e-5, rel=1e-3)
    assert images_for(1e-6, FIXED, 1e-5) is None


@pytest.mark.parametrize("rotating", [False, True])
def test_the_expected_error_is_that_of_answers_with_so_much_churn(rotating: bool) -> None:
    """A share of the variance of a difference stays with the image, the rest is drawn anew by each run."""
    rng, churn, images, seeds = np.random.default_rng(0), 0.1, 200, 3
    means = []
    for _ in range(4000):
        kept = rng.normal(0, math.sqrt(0.1 * churn), (seeds if rotating else 1, images))
        means.append((kept + rng.normal(0, math.sqrt(churn), (seeds, images))).mean())
    pool = seeds * images if rotating else images
    assert squares(np.array([1.0, -1.0]), np.arange(2)) == 1
    assert math.sqrt(churn * expected(pool, seeds * images, seeds, kept=0.1).images) == pytest.approx(np.std(means), rel=0.04)


@pytest.mark.parametrize("trick", ["shaping", "beside"])
def test_arms_of_one_training_err_together(trick: str) -> None:
    """Four trainings of which each is judged with and without a trick that acts beside it."""
    rng, churn, images = np.random.default_rng(1), 0.2, 500
    trainings, beside = np.repeat(np.arange(4), 2), np.tile([1.0, -1.0], 4) / 4
    weights = beside if trick == "beside" else np.repeat([1.0, -1.0], 4) / 4
    means = []
    for _ in range(4000):
        training = rng.normal(0, math.sqrt((1 - BESIDE) * churn / 2), (4, images))
        judged = training[trainings] + rng.normal(0, math.sqrt(BESIDE * churn / 2), (8, images))
        means.append((weights @ judged).mean())
    assert math.sqrt(churn * squares(weights, trainings) / images) == pytest.approx(np.std(means), rel=0.04)


@pytest.mark.parametrize("turns", [1, 2, 5])
def test_the_expected_spread_is_the_one_that_is_measured(turns: int) -> None:
    """Of a contrast of which a part is the same with every seed, over many draws; the images are judged in turn."""
    rng, found = np.random.default_rng(3), []
    for _ in range(400):
        kept = rng.normal(0, math.sqrt(0.3), 60 * turns)
        rows = [np.arange(60) + 60 * (seed % turns) for seed in range(5)]
        found.append(spread([Part(kept[own] + rng.normal(0, math.sqrt(0.7), 60), own) for own in rows])[:2])
    assert np.mean(found, 0) == pytest.approx(expected(60 * turns, 300, 5, 0.7, 0.3)[:2], rel=0.05)


def test_an_error_is_carried_to_other_judgements() -> None:
    """Images add what these do; what seeds add is drawn to nothing, and what they will say of that to what was known."""
    here, there, images = expected(900, 900, 3, 0.8, 0.2), expected(500, 3000, 5, 0.8, 0.2), 2e-5
    known, ratio = Share(0.5, 6.0), (1 / 300) / (0.8 / 600)  # each image is judged anew by every seed, so that kept cancels
    believed = Share(0.3, 30.0)

    def carried(share: float, df: float) -> tuple[float, float]:
        return share * ratio, df * min((1 + share * ratio) / ((1 + share) * ratio), 1.0) ** 2

    error, df = elsewhere(images, believed, known, here, there, grain=1e-6)
    truth = joined(*carried(*believed), 0.0, PRIOR)[0]
    squares = (1 + truth) * stats.chi2.rvs(4, size=20_000, random_state=1) / 4
    each = np.array([joined(*joined(one - 1, 4, *carried(*known)), 0.0, PRIOR) for one in squares])
    later = np.maximum(each[:, 0], 0.0).mean(), each[:, 1].mean()
    times = images / (1 / 900)
    by_images, by_seed = times * (0.8 + 0.2 * 6) / 3000 + 1e-6, times * 0.8 / 600
    assert (error, df) == pytest.approx(satterthwaite(by_images, by_seed, 5, 500, *later), rel=0.02)
    assert error < elsewhere(images, Share(2.0, 30.0), known, here, there)[0]
    assert error < elsewhere(images, believed, Share(2.0, 6.0), here, there)[0]


def test_a_share_below_nothing_is_carried_too() -> None:
    here, there = expected(900, 900, 3), expected(500, 3000, 5)
    low, none = (elsewhere(2e-5, Share(share, 6.0), Share(share, 6.0), here, there)[0] for share in (-0.5, 0.0))
    assert 0 < low < none


@pytest.mark.parametrize("accuracy", [0.6, 0.9])
def test_trainings_disagree_as_often_as_images_are_hard_to_say(accuracy: float) -> None:
    """Each image has its own probability of being right, drawn from the beta distribution with the assumed variance."""
    rng, more = np.random.default_rng(2), 1 / OWN - 1
    right = rng.beta(accuracy * more, (1 - accuracy) * more, 400_000)
    one, other = rng.random((2, len(right))) < right
    assert churn(accuracy) == pytest.approx((one != other).mean(), rel=0.02)


def test_power_stays_a_probability_at_the_edges() -> None:
    every = [power(e, ERROR, df, a) for e in (0.0, 1e-9, 0.01, 1.0, 1e6) for df in (1, 2, 3, 100) for a in (0.05, 0.0005)]
    assert np.isfinite(every).all()
    assert min(every) >= 0
    assert max(every) <= 1
    assert (detectable(0.0, 8), power(0.1, 0.0, 8), power(0.0, 0.0, 8)) == (0.0, 1.0, 0.0)


@pytest.mark.parametrize("df", [2, 16, 1000])
def test_power_rises_with_the_effect_where_the_series_of_scipy_gives_nan(df: float) -> None:
    every = [power(effect, 0.6, df, 0.006) for effect in np.linspace(0, 50, 2000)]
    assert (np.diff(every) > -1e-9).all()
    assert every[-1] > 0.99


def test_a_budget_holds_the_seeds_it_says() -> None:
    assert [seeds_within(budget, 1350) for budget in (0, 1349, 1350, 7200)] == [0, 0, 1, 5]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: power(0.1, -1.0, 8), "not negative"),
        (lambda: power(0.1, math.nan, 8), "not negative"),
        (lambda: power(0.1, 1.0, 8, alpha=1.0), "between 0 and 1"),
        (lambda: detectable(1.0, 8, share=1.0), "below 1"),
        (lambda: seeds_within(10, 0), "takes time"),
    ],
)
def test_mistakes_are_refused_with_a_sentence(call, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        call()


@pytest.mark.parametrize(("images", "judged", "seeds"), [(30, 300, 3), (2, 18, 3), (48, 384, 3), (3, 23, 3)])
def test_an_expected_spread_is_one_whatever_is_asked(images: int, judged: int, seeds: int) -> None:
    """More judgements of each image than there are seeds: nothing is left that differs, and nothing is below 0."""
    one = expected(images, judged, seeds, kept=0.1)
    assert one.within > 0
    assert off(one, Share(0.5, 10.0)).variance > off(one, Share(0.0, 10.0)).variance
    assert Share(0.5, 10.0).carried(one, expected(90, 90, 3)).share > 0
