"""The interval of a score: against scipy, against ``effects``, and on populations whose truth is known, in the short form of
``python -m benchmarks.intervals``."""

import numpy as np
import pytest
from reference import joined, satterthwaite
from scipy import stats

from benchmarks import intervals
from benchmarks.intervals import Population
from trickbag.statistics.intervals import Interval
from trickbag.statistics.scores import score
from trickbag.statistics.variance import NOTHING, Part, spread

BOXES = Population("boxes, few of one class", "detection", (3, 0.2), (0.8, 1.0), 0.1)
REGIONS = Population("regions", "segmentation", (1.0, 0.5, 0.3, 0.1), (0.8, 1.0), 0.2)


def test_of_one_network_it_is_students_over_independent_images() -> None:
    values = np.random.default_rng(0).normal(0.5, 0.1, 30)
    found, interval = score([Part(values, np.arange(30))])
    assert found == pytest.approx(values.mean())
    assert interval == pytest.approx(stats.ttest_1samp(values, 0).confidence_interval())
    pairs = score([Part(values.repeat(2), np.arange(30).repeat(2))])
    assert pairs[1] == pytest.approx(interval)  # images of one group are one


def test_of_several_seeds_what_they_add_is_drawn_to_nothing() -> None:
    rng = np.random.default_rng(1)
    parts = [Part(rng.normal(0.5 + 0.1 * rng.normal(), 0.1, 40), np.arange(40)) for _ in range(4)]
    found, (value, interval) = spread(parts), score(parts)
    error, df = satterthwaite(*found[:2], 4, 40, *joined(found.seed / found.within, 3, *NOTHING))
    half = stats.t.isf(0.025, df) * error
    assert value == pytest.approx(np.mean([part.values for part in parts]))
    assert tuple(interval) == pytest.approx((value - half, value + half))


def test_it_is_cut_and_not_given_where_nothing_is_known() -> None:
    values = np.array([1.0, 0.9, 1.0, 0.8])
    one = Part(values, np.arange(4))
    assert score([one])[1] == Interval(pytest.approx(0.7727, abs=1e-4), 1.0)
    assert score([one], ends=Interval(-1.0, 2.0))[1].high > 1
    assert score([Part(values, np.zeros(4, int))]) == (pytest.approx(0.925), None)
    assert score([Part(np.ones(4), np.arange(4))] * 3) == (1.0, None)
    assert np.isnan(score([Part(np.full(4, np.nan), np.arange(4))])[0])


def test_grain_is_a_variance_of_its_own() -> None:
    one = Part(np.array([0.5, 0.4, 0.7, 0.8]), np.arange(4))
    alone, more = score([one])[1], score([one], grain=0.003)[1]
    assert alone is not None
    assert more is not None
    assert (more.high - more.low) ** 2 - (alone.high - alone.low) ** 2 == pytest.approx(4 * stats.t.isf(0.025, 3) ** 2 * 0.003)
    still = [Part(np.full(4, 0.9), np.arange(4))]
    assert score(still * 3)[1] is None
    half = stats.t.isf(0.025, 3) * 0.01
    assert score(still * 3, grain=0.0001)[1] == (pytest.approx(0.9 - half), pytest.approx(0.9 + half))


@pytest.mark.parametrize("population", [BOXES, REGIONS])
def test_intervals_hold_the_truth(population: Population, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of scores and differences 95 % do, within three standard errors of 40 sets; a bootstrap of images alone holds a recipe's
    score less often, the more its seeds differ."""
    monkeypatch.setattr(intervals, "MANY", 2000)
    monkeypatch.setattr(intervals, "NODES", np.linspace(-3, 3, 5))
    monkeypatch.setattr(intervals, "SEEDS", (1, 3))
    monkeypatch.setattr(intervals, "REPLICATES", 39)
    known = intervals.truth(population)
    draws = [intervals.drawn(population, known, 60, number, bootstrap=population is REGIONS) for number in range(40)]
    least = 0.95 - 3 * (0.05 * 0.95 / 40) ** 0.5
    for seeds in (1, 3):
        found = intervals.cells(draws, known, seeds)
        assert found["per-image values"].scores > least
        assert found["per-image values"].differences > least
    if population is REGIONS:
        assert found["bootstrap of images alone"].differences < found["per-image values"].differences
