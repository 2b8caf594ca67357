"""Comparisons beside independent references: the statistics of studies, scipy, and variance components in closed form."""

import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reference import joined, satterthwaite
from scipy import stats

from trickbag.comparison.compare import compare
from trickbag.ground.errors import UsageError
from trickbag.statistics.calibration import cross_calibrated
from trickbag.statistics.effects import Sample, effects
from trickbag.statistics.variance import PRIOR

Table = Callable[..., Path]
CLOSE = {"rel": 1e-8, "abs": 1e-12}


@pytest.fixture
def table(tmp_path: Path) -> Table:
    def made(rows: Iterable[tuple[Any, ...]], head: str = "method,seed,image,correct", name: str = "t.csv") -> Path:
        path = tmp_path / name
        path.write_text("\n".join([head, *(",".join(map(str, row)) for row in rows)]))
        return path

    return made


def answers(methods: int = 2, seeds: int = 4, images: int = 300, gain: float = 0.0, seed: int = 0) -> np.ndarray:
    """Right or wrong, [methods, seeds, images]: images differ in difficulty, seeds move all of a run's a little."""
    rng = np.random.default_rng(seed)
    chance = rng.beta(2.0, 0.3, images) + gain * np.arange(methods)[:, None, None] + rng.normal(0, 0.02, (methods, seeds, 1))
    return rng.random((methods, seeds, images)) < chance


def rows(values: np.ndarray) -> list[tuple[Any, ...]]:
    return [
        ("ABCDEF"[m], s, f"im{i}", int(values[m, s, i]))
        for m in range(values.shape[0])
        for s in range(values.shape[1])
        for i in range(values.shape[2])
    ]


# over seeds and images


@pytest.mark.parametrize(("methods", "seeds"), [(2, 3), (2, 8), (4, 3)])
def test_a_table_gives_what_the_statistics_of_studies_give(table: Table, methods: int, seeds: int) -> None:
    values = answers(methods, seeds, gain=0.02)
    found = compare(table(rows(values)))
    samples = [Sample(values[:, s].astype(float), np.arange(values.shape[2])) for s in range(seeds)]
    contrasts = np.hstack([-np.ones((methods - 1, 1)), np.eye(methods - 1)])
    for pair, expected in zip(found.pairs, effects(samples, contrasts, pool=values.shape[2]), strict=True):
        for field in ("points", "difference", "sd", "error", "interval", "over_seeds", "p", "better"):
            assert getattr(pair.effect, field) == pytest.approx(getattr(expected, field), **CLOSE), field
        assert (pair.effect.verdict, pair.effect.more_seeds) == (expected.verdict, expected.more_seeds)
    assert (found.kind, found.images, found.groups, found.seeds) == ("methods", 300, 300, seeds)


@pytest.mark.parametrize("seeds", [3, 6])
def test_the_error_is_that_of_a_model_of_crossed_random_effects(table: Table, seeds: int) -> None:
    """The variance of the mean from the mean squares of a balanced two-way layout, d = mean + seed + image + rest."""
    values = answers(2, seeds, gain=0.03, seed=seeds)
    d = values[1].astype(float) - values[0]
    count, grand = d.shape[1], d.mean()
    of_image, of_seed = d.mean(0), d.mean(1)
    ms_image = seeds * ((of_image - grand) ** 2).sum() / (count - 1)
    ms_seed = count * ((of_seed - grand) ** 2).sum() / (seeds - 1)
    ms_rest = ((d - of_seed[:, None] - of_image + grand) ** 2).sum() / ((seeds - 1) * (count - 1))
    image = ms_image / d.size
    moderated, df = joined(ms_seed / ms_rest - 1, seeds - 1, 0.0, PRIOR)
    grain = 2 / count**2
    expected, df = satterthwaite(image + grain, ms_rest / count, seeds, count, moderated, df)
    effect = compare(table(rows(values))).pairs[0].effect
    assert effect.error == pytest.approx(expected, **CLOSE)
    half = stats.t.isf(0.025, df) * expected
    assert effect.interval == pytest.approx((grand - half, grand + half), **CLOSE)
    assert effect.p == pytest.approx(2 * stats.t.sf(abs(grand) / expected, df), **CLOSE)
    assert effect.over_seeds == pytest.approx(stats.ttest_1samp(of_seed, 0).confidence_interval(0.95), **CLOSE)


def test_grouped_images_count_as_groups(table: Table) -> None:
    one = answers(2, 3, 40, gain=0.1)
    copies = [(m, s, f"{i}-{k}", i, right) for m, s, i, right in rows(one) for k in range(5)]
    alone = compare(table(rows(one))).pairs[0].effect
    grouped = compare(table(copies, "method,seed,image,group,correct"))
    assert (grouped.images, grouped.groups) == (200, 40)
    assert grouped.pairs[0].effect.error == pytest.approx(alone.error, **CLOSE)
    apart = compare(table([(m, s, i, right) for m, s, i, _, right in copies])).pairs[0].effect
    assert apart.error < 0.7 * alone.error


def test_seeds_may_judge_other_images(table: Table) -> None:
    values = answers(2, 4, 400, gain=0.1)
    folds = [row for row in rows(values) if int(row[2][2:]) % 4 == row[1]]
    found = compare(table(folds))
    samples = [Sample(values[:, s, s::4].astype(float), np.arange(s, 400, 4)) for s in range(4)]
    expected = effects(samples, [[-1, 1]], pool=400)[0]
    assert found.pairs[0].effect.interval == pytest.approx(expected.interval, **CLOSE)
    assert (found.images, found.notes) == (400, ())


def test_log_loss_is_the_second_endpoint(table: Table) -> None:
    rng = np.random.default_rng(3)
    labels = np.arange(200) % 3
    logits = rng.normal(size=(2, 3, 200, 3))
    logits[:, :, np.arange(200), labels] += np.array([1.5, 2.5])[:, None, None]
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    lines = [("AB"[m], s, f"im{i}", f"k{labels[i]}", *p[m, s, i]) for m in range(2) for s in range(3) for i in range(200)]
    found = compare(table(lines, "method,seed,image,label,p_k0,p_k1,p_k2"))
    own = np.arange(200)
    right = [Sample((p[:, s].argmax(-1) == labels).astype(float), own) for s in range(3)]
    cooled = [[cross_calibrated(logits[m, s], labels, own)[own, labels] for m in range(2)] for s in range(3)]
    loss = effects([Sample(np.array(one), own) for one in cooled], [[-1, 1]], shares=False, delta=0.0)[0]
    effect = found.pairs[0].effect
    assert effect.interval == pytest.approx(effects(right, [[-1, 1]])[0].interval, **CLOSE)
    assert effect.loss_difference == pytest.approx(-loss.difference, rel=1e-6)
    assert effect.loss_interval == pytest.approx((-loss.interval.high, -loss.interval.low), rel=1e-6)
    assert effect.loss_verdict == loss.verdict == "worthwhile"


def test_the_same_probabilities_are_the_same_network_and_the_same_answers_are_not(table: Table) -> None:
    head = "method,seed,image,label,p_a,p_b"
    same = [(m, s, i, "a", p := (i * 7 % 10) / 10, 1 - p) for m in "AB" for s in range(3) for i in range(30)]
    assert compare(table(same, head)).pairs[0].effect.verdict == "identical"
    other = [(m, s, i, k, p if m == "A" else round(p**1.01, 6), q) for m, s, i, k, p, q in same]
    other = [(m, s, i, k, p, 1 - p) for m, s, i, k, p, _ in other]
    assert compare(table(other, head)).pairs[0].effect.verdict != "identical"


# what is missing


def test_a_failed_run_is_counted_and_its_seed_left_out(table: Table) -> None:
    values = answers(2, 4, gain=0.05)
    lines = [row if row[:2] != ("B", 3) else (*row[:3], "") for row in rows(values)]
    found = compare(table(lines))
    assert found.pairs[0].effect.points == pytest.approx((values[1, :3].mean(1) - values[0, :3].mean(1)).tolist(), **CLOSE)
    assert [(m.failed, m.scores[3]) for m in found.methods] == [(0, values[0, 3].mean()), (1, None)]
    assert found.methods[1].failure_interval == pytest.approx(stats.binomtest(1, 4).proportion_ci(0.95, "exact"), **CLOSE)
    assert found.notes[0].startswith("B: 1 of 4 runs failed")
    assert "1 of 4 seeds left out" in found.pairs[0].effect.note


def test_seeds_and_images_that_one_method_lacks_are_left_out_and_said(table: Table) -> None:
    values = answers(2, 5, 100, gain=0.05)
    lines = [row for row in rows(values) if row[:2] != ("A", 4) and (row[0], row[2]) != ("B", "im7")]
    found = compare(table(lines))
    kept = np.delete(values, 7, axis=2)[:, :4]
    assert found.pairs[0].effect.points == pytest.approx((kept[1].mean(1) - kept[0].mean(1)).tolist(), **CLOSE)
    assert found.notes == ("Left out: 4 of 895 answers, for images that not all methods were judged on with the same seed.",)
    assert (found.seeds, found.images) == (4, 99)


def test_seeds_with_nothing_in_common_are_paired_in_order_and_that_is_said(table: Table) -> None:
    values = answers(2, 3, gain=0.05)
    expected = compare(table(rows(values)))
    moved = compare(table([(m, s + 10 * (m == "B"), i, right) for m, s, i, right in rows(values)]))
    assert moved.pairs[0].effect.interval == expected.pairs[0].effect.interval
    assert "have no seed in common, so their seeds are paired in order" in moved.notes[0]
    assert expected.notes == ()


def test_the_reference_is_the_first_method_or_the_one_that_is_named(table: Table) -> None:
    values = answers(3, 3, gain=0.05)
    path = table(rows(values))
    assert [m.name for m in compare(path).methods] == ["A", "B", "C"]
    found = compare(path, reference="C")
    assert [m.name for m in found.methods] == ["C", "A", "B"]
    assert found.pairs[0].effect.difference == pytest.approx(values[0].mean() - values[2].mean(), **CLOSE)
    with pytest.raises(UsageError, match="reference='D': there is no such method, only 'A', 'B', 'C'"):
        compare(path, reference="D")


# networks


def test_two_networks_are_compared_by_mcnemar_and_over_images(table: Table) -> None:
    values = answers(2, 1, 500, gain=0.1)
    found = compare(table(rows(values)), networks=True)
    one, other = values[0, 0], values[1, 0]
    gained, lost = int((other & ~one).sum()), int((one & ~other).sum())
    (pair,) = found.pairs
    assert (pair.differing.gained, pair.differing.lost) == (gained, lost)
    assert pair.mcnemar == pytest.approx(stats.binomtest(gained, gained + lost, 0.5).pvalue, **CLOSE)
    gap = other.astype(float) - one
    error = math.sqrt(stats.sem(gap) ** 2 + 2 / 500**2)
    assert pair.effect.error == pytest.approx(error, **CLOSE)
    assert pair.effect.interval == pytest.approx(stats.t.interval(0.95, 499, gap.mean(), error), **CLOSE)
    assert "not of the methods" in found.answer[-1]
    assert f"McNemar's exact p {pair.mcnemar:.4f}" in found.answer[0] or "below 0.0001" in found.answer[0]


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (1, 0), (0, 9), (10, 10), (400, 333), (12_000, 11_500)])
def test_mcnemar_is_the_exact_binomial_test(gained: int, lost: int) -> None:
    from trickbag.statistics.one_way import mcnemar

    expected = stats.binomtest(gained, gained + lost, 0.5).pvalue if gained + lost else 1.0
    assert mcnemar(gained, lost) == pytest.approx(expected, rel=1e-8)


def test_networks_of_grouped_images_have_no_mcnemar_and_wider_intervals(table: Table) -> None:
    one = answers(2, 1, 60, gain=0.1)
    copies = [(m, s, f"{i}-{k}", i, right) for m, s, i, right in rows(one) for k in range(4)]
    (grouped,) = compare(table(copies, "method,seed,image,group,correct"), networks=True).pairs
    (alone,) = compare(table(rows(one)), networks=True).pairs
    assert grouped.mcnemar is None
    assert grouped.effect.error == pytest.approx(alone.effect.error, **CLOSE)


# scores


SCORES = np.array([[0.81, 0.79, 0.80, 0.835, 0.82], [0.83, 0.80, 0.81, 0.84, 0.85]])


def scored(values: np.ndarray, shift: int = 0) -> list[tuple[Any, ...]]:
    return [("AB"[m], s + shift * m, values[m, s]) for m in range(2) for s in range(values.shape[1])]


def test_scores_of_equal_seeds_are_compared_by_the_paired_t_test(table: Table) -> None:
    found = compare(table(scored(SCORES), "method,seed,score"))
    expected = stats.ttest_rel(SCORES[1], SCORES[0])
    effect = found.pairs[0].effect
    assert effect.p == pytest.approx(expected.pvalue, **CLOSE)
    assert effect.interval == pytest.approx(tuple(expected.confidence_interval(0.95)), **CLOSE)
    assert (found.kind, found.images, found.pairs[0].test) == ("scores", 0, "Student's paired t over 5 seeds")
    assert "not of new photos" in found.answer[-1]


def test_scores_of_other_seeds_are_compared_by_welch_s_t_test(table: Table) -> None:
    found = compare(table(scored(SCORES, shift=100), "method,seed,score"))
    expected = stats.ttest_ind(SCORES[1], SCORES[0], equal_var=False)
    effect = found.pairs[0].effect
    assert effect.p == pytest.approx(expected.pvalue, **CLOSE)
    assert effect.interval == pytest.approx(tuple(expected.confidence_interval(0.95)), **CLOSE)
    assert effect.difference == pytest.approx(SCORES[1].mean() - SCORES[0].mean(), **CLOSE)
    assert found.pairs[0].test == "Welch's t over 5 and 5 seeds, which are not paired"
    assert effect.points == ()


def test_several_scores_are_adjusted_by_holm(table: Table) -> None:
    lines = [*scored(SCORES), *(("C", s, SCORES[1, s] + 0.01 + 0.003 * (s % 2)) for s in range(5))]
    found = compare(table(lines, "method,seed,score"))
    raw = [stats.ttest_rel([row[2] for row in lines if row[0] == m], SCORES[0]).pvalue for m in "BC"]
    first = int(np.argmin(raw))
    expected = [min(2 * raw[first], 1.0)] * 2
    expected[1 - first] = max(expected[first], raw[1 - first])
    assert [pair.effect.p for pair in found.pairs] == pytest.approx(expected, **CLOSE)


def test_a_failed_score_is_left_out_and_equal_differences_have_no_verdict(table: Table) -> None:
    lines = [*scored(SCORES), ("A", 5, ""), ("B", 5, 0.9)]
    found = compare(table(lines, "method,seed,score"))
    assert found.pairs[0].effect.p == pytest.approx(stats.ttest_rel(SCORES[1], SCORES[0]).pvalue, **CLOSE)
    assert found.notes[0].startswith("A: 1 of 6 runs failed")
    still = compare(table(scored(np.array([[0.5, 0.6, 0.7], [0.6, 0.7, 0.8]])), "method,seed,score"))
    assert (still.pairs[0].effect.verdict, still.pairs[0].effect.p) == ("descriptive", None)
    assert "no spread to judge it by" in still.answer[0]


@pytest.mark.parametrize(("name", "value"), [("networks", True), ("delta", 0.1), ("images", ".")])
def test_what_scores_cannot_use_is_refused(table: Table, name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"has no column image, which {name} needs"):
        compare(table(scored(SCORES), "method,seed,score"), **{name: value})


# refusals and answers


@pytest.mark.parametrize(
    ("lines", "head", "said"),
    [
        (rows(answers(2, 1)), "", "'A' has a result with one seed .0., which says nothing of other seeds. Give at least 3"),
        (rows(answers(1, 3)), "", "a comparison takes at least two methods, and there is only 'A'"),
        ([*rows(answers(1, 3)), ("B", 0, "im0", "")], "", "'B': every run failed"),
        (
            [*rows(answers(1, 3, 5)), *(("B", s, "im0", 1) for s in (0, 9))],
            "",
            "'B' and 'A' share 1 seed with a result, which says nothing of other seeds",
        ),
        (
            [*rows(answers(1, 3, 5)), *(("B", s, "other", 1) for s in range(3))],
            "",
            "'A' and 'B' were judged on other images with seed 0, as 'im0' and 'other'",
        ),
        (
            [(f"image {i}", s, "im0", 1) for i in range(201) for s in range(3)],
            "",
            "201 methods, as 'image 0', are more than 200",
        ),
        (scored(SCORES[:, :1]), "method,seed,score", "'B' has a score with one seed, which says nothing of other seeds"),
    ],
)
def test_what_cannot_be_compared_is_refused(table: Table, lines: list[Any], head: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        compare(table(lines, head or "method,seed,image,correct"))


def test_two_seeds_give_a_description_and_no_verdict(table: Table) -> None:
    found = compare(table(rows(answers(2, 2))))
    assert (found.pairs[0].effect.verdict, found.pairs[0].effect.interval) == ("descriptive", None)
    assert "That is no verdict: descriptive only: a verdict takes 3 seeds." in found.answer[0]


def test_the_first_sentence_answers(table: Table) -> None:
    better = compare(table(rows(answers(2, 3, 2000, gain=0.05))))
    effect = better.pairs[0].effect
    low, high = (f"{100 * end:+.2f}" for end in effect.interval)
    said = (
        f"B is better than A on new photos by {100 * effect.difference:+.2f} points ({low} to {high}; 3 seeds, 2,000 images)."
    )
    assert better.answer == (said,)
    worse = compare(table(rows(answers(2, 3, 2000, gain=0.05))), reference="B")
    assert worse.answer == better.answer, "the better one is named first, whichever is the reference"
    equal = compare(table(rows(np.repeat(answers(1, 3, 300), 2, axis=0))))
    assert equal.answer == ("B and A give the same answers on all images (3 seeds, 300 images).",)
    narrow = answers(1, 3, 4000).repeat(2, axis=0)
    narrow[1, 0, 0] ^= True
    narrow[1, 1, 1] ^= True
    assert "are practically equal on new photos" in compare(table(rows(narrow))).answer[0]
    assert compare(table(rows(answers()))).answer[0].startswith("It is not decided whether B or A is better on new photos")
    small = compare(table(rows(answers(2, 3, 2000, gain=0.05))), delta=50).answer[0]
    assert small.endswith("That is within ±50.00 points, too small to matter.") or "practically equal" in small


def test_the_json_is_strict_and_whole(table: Table) -> None:
    found = compare(table(rows(answers(2, 3))))
    plain = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert plain["pairs"][0]["effect"]["interval"] == list(found.pairs[0].effect.interval)
    assert plain["pairs"][0]["differing"] == {
        "gained": found.pairs[0].differing.gained,
        "lost": found.pairs[0].differing.lost,
        "shared": 300,
    }
    assert [method["name"] for method in plain["methods"]] == ["A", "B"]
