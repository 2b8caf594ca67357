"""Where the marks of the charts stand: on one scale, in order, and never on one another."""

import dataclasses
import math

import numpy as np
from findings import effect, sample

from trickbag.report.charts import MARGIN, Axis, strips
from trickbag.report.forest import forest
from trickbag.report.times import labels, pareto, times
from trickbag.statistics.intervals import Interval


def test_the_forest_has_one_scale_and_an_outlier_does_not_flatten_it() -> None:
    plot = forest(sample().effects, 0.002)
    for row in plot.rows:
        if row.left:
            assert (row.point, row.interval, row.dots) == (None, None, ())
            continue
        assert row.point == plot.axis.at(row.effect.difference)
        assert row.dots == tuple(plot.axis.at(point) for point in row.effect.points)
        assert row.interval == tuple(plot.axis.at(end) for end in row.effect.interval or ())
        assert row.ends == row.interval
    assert [row.effect.name for row in plot.rows if row.left] == ["lighting"]
    assert plot.axis.high - plot.axis.low < 0.1
    assert plot.axis.at(-0.002) == plot.band[0] < plot.zero < plot.band[1]


def test_an_interval_that_reaches_beyond_the_axis_is_cut_there() -> None:
    effects = [effect(f"e{n}", np.array([0.001, 0.002, 0.003])) for n in range(5)]
    far = dataclasses.replace(effects[0], interval=Interval(-0.5, 0.004))
    (row, *others) = forest([far, *effects[1:]], 0.002).rows
    assert (row.left, row.right) == (True, False)
    assert row.interval
    assert row.interval[0] == MARGIN
    assert row.ends == (row.interval[1],)
    assert row.point is not None
    assert not any(other.left for other in others)


def test_places_rise_with_values_and_ticks_are_round() -> None:
    for low, high in ((-0.031, 0.047), (0, 1), (-1e-6, 1e-6), (0.84, 0.841), (3, 4000)):
        axis = Axis(low, high)
        ticks = axis.ticks()
        assert 1 <= len(ticks) <= 5
        places = [axis.at(tick) for tick in ticks]
        assert places == sorted(places)
        assert all(MARGIN - 0.01 <= place <= 100 - MARGIN + 0.01 for place in places)


def test_the_front_is_what_no_other_arm_beats() -> None:
    pairs = [(1.0, 5.0), (2.0, 4.0), (3.0, 9.0), (3.0, 8.0), (1.0, 5.0), (9.0, -math.inf)]
    front = pareto(pairs)
    for i, (cost, gain) in enumerate(pairs):
        beaten = any(c <= cost and g >= gain and (c, g) != (cost, gain) for c, g in pairs)
        assert (i in front) == (not beaten and gain > -math.inf)


def test_an_arm_that_failed_is_on_no_front() -> None:
    full = sample()
    arms = [dataclasses.replace(a, accuracy=0.99, failed=1) if a.name == "+sam" else a for a in full.arms]
    chart = times(arms)
    assert chart
    assert [spot.front for spot in chart.spots if spot.arm.name == "+sam"] == [False]
    assert any(spot.front for spot in chart.spots)


def test_numbers_in_the_chart_of_times_do_not_cover_one_another() -> None:
    dots = [(150.0 + n % 3, 100.0 + n // 3) for n in range(12)]
    places = [(x + dx, y + dy) for (x, y), (dx, dy) in zip(dots, labels(dots), strict=True)]
    for i, (x, y) in enumerate(places):
        assert all(abs(x - u) >= 17 or abs(y - v) >= 14 for u, v in places[:i])


def test_classes_stand_by_their_largest_change() -> None:
    findings = sample()
    _, shown = strips(findings)
    size = [max(abs(s.best[0]) if s.best else 0, abs(s.worst[0]) if s.worst else 0) for s in shown]
    assert size == sorted(size, reverse=True)
    for strip in shown:
        k = findings.classes.index(strip.name)
        gains = [arm.recalls[k] - findings.arms[0].recalls[k] for arm in findings.arms[1:] if not arm.failed]
        assert strip.images == findings.class_counts[k]
        assert strip.best is None or strip.best[0] == max(gains)
        assert strip.worst is None or strip.worst[0] == min(gains)
