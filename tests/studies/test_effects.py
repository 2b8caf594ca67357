"""The statistics of a study: against scipy and independent formulas, at the edges, and on simulated studies."""

import math
import time
from dataclasses import astuple
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from benchmarks import effects as simulated
from trickbag.ground.errors import UsageError
from trickbag.studies.effects import effects, over_folds
from trickbag.studies.intervals import clopper_pearson, holm, ratio
from trickbag.studies.looks import LOOKS, decide, planned
from trickbag.studies.power import seeds_needed
from trickbag.studies.variance import crossed, grouped, pool, residual

AGAINST = simulated.CONTRASTS
NONE = np.nan


def study(arms: int, seeds: int, images: int = 300, seed: int = 0, share: float = 0.9) -> np.ndarray:
    """Right and wrong answers on images that differ in difficulty."""
    rng = np.random.default_rng(seed)
    chance = rng.beta(8 * share, 8 * (1 - share), size=images)
    return (rng.random((arms, seeds, images)) < chance).astype(float)


def against(arms: int) -> np.ndarray:
    return np.hstack([-np.ones((arms - 1, 1)), np.eye(arms - 1)])


def two_way(table: np.ndarray) -> tuple[float, int]:
    """Residual sum of squares and df of arm + seed by least squares on dummies."""
    cells = [(a, s) for a, s in product(*map(range, table.shape)) if np.isfinite(table[a, s])]
    design = np.array(
        [[*(a == i for i in range(table.shape[0])), *(s == j for j in range(table.shape[1]))] for a, s in cells], float
    )
    values = np.array([table[cell] for cell in cells])
    rest = values - design @ np.linalg.lstsq(design, values, rcond=None)[0]
    return float(rest @ rest), len(cells) - int(np.linalg.matrix_rank(design))


# Agreement with independent formulas


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_two_arms_are_the_paired_t_test(seeds: int) -> None:
    values = study(2, seeds)
    found, expected = effects(values, [[-1, 1]])[0], stats.ttest_rel(*values.mean(2)[::-1])
    assert found.p == pytest.approx(expected.pvalue, abs=1e-10)
    assert found.this_set == pytest.approx(tuple(expected.confidence_interval(0.95)), abs=1e-10)
    assert found.difference == pytest.approx(np.diff(values.mean((1, 2))).item(), abs=1e-12)
    assert found.correlation == pytest.approx(stats.pearsonr(*values.mean(2)).statistic, abs=1e-10)


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_many_arms_are_the_randomised_block_anova(seeds: int) -> None:
    values = study(6, seeds, seed=1)
    table = values.mean(2)
    rest = table - table.mean(1, keepdims=True) - table.mean(0) + table.mean()
    df = 5 * (seeds - 1)
    error = math.sqrt((rest**2).sum() / df * 2 / seeds)
    gain = (table[1:] - table[0]).mean(1)
    raw = 2 * stats.t.sf(abs(gain) / error, df)
    found = effects(values, against(6))
    assert not any("own spread" in e.note for e in found)
    assert [e.p for e in found] == pytest.approx(closure(raw).tolist(), abs=1e-10)
    half = stats.t.isf(0.05 / 2 / 5, df) * error
    assert all(e.p > 0.05 for e in found)
    assert [e.this_set for e in found] == [pytest.approx((g - half, g + half), abs=1e-10) for g in gain]


def test_any_weights_have_the_standard_error_of_their_contrast() -> None:
    values = study(4, 6)
    weights = np.array([1, -1, -1, 1])
    found = effects(values, [weights])[0]
    square, df = two_way(values.mean(2))
    expected = abs(weights @ values.mean((1, 2))) / math.sqrt(square / df * 4 / 6)
    assert found.p == pytest.approx(2 * stats.t.sf(expected, df), abs=1e-10)


@pytest.mark.parametrize("missing", [[], [(0, 0)], [(1, 2), (3, 2), (3, 0)], [(0, 0), (1, 0), (2, 0), (3, 0)]])
def test_the_residual_is_least_squares_with_cells_missing(missing: list[tuple[int, int]]) -> None:
    table = np.random.default_rng(3).normal(0.9, 0.01, size=(4, 5))
    for cell in missing:
        table[cell] = NONE
    found = residual(table)
    assert (found.square, found.df) == pytest.approx(two_way(table), abs=1e-12)


def test_new_images_are_the_crossed_components() -> None:
    values = study(2, 4, 50)
    gap = values[1] - values[0]
    grand, by_seed, by_image = gap.mean(), gap.mean(1), gap.mean(0)
    ms_s = 50 * sum((m - grand) ** 2 for m in by_seed) / 3
    ms_i = 4 * sum((m - grand) ** 2 for m in by_image) / 49
    ms_e = sum((gap[s, i] - by_seed[s] - by_image[i] + grand) ** 2 for s in range(4) for i in range(50)) / (3 * 49)
    total = max(ms_s + ms_i - ms_e, ms_i / 2)
    df = max(total**2 / (ms_s**2 / 3 + ms_i**2 / 49 + ms_e**2 / 147), 1)
    half = stats.t.isf(0.025, df) * math.sqrt(total / 200)
    assert effects(values, [[-1, 1]])[0].new_images == pytest.approx((grand - half, grand + half), abs=1e-10)


def test_groups_of_one_size_count_as_images_and_groups_of_one_change_nothing() -> None:
    values, rng = study(3, 4, 60), np.random.default_rng(1)
    gap, order = values[1] - values[0], rng.permutation(60)
    merged = grouped(gap[:, order], np.repeat(np.arange(20), 3)[order])
    assert sorted(merged.mean(0)) == pytest.approx(sorted(gap.reshape(4, 20, 3).mean((0, 2))), abs=1e-12)
    plain = [astuple(e) for e in effects(values, against(3))]
    single = [astuple(e) for e in effects(values, against(3), groups=order)]
    for one, other in zip(plain, single, strict=True):
        assert one[4] == pytest.approx(other[4], abs=1e-10)
        assert one[:4] == other[:4]


def test_copies_of_each_image_widen_the_new_images_interval_only_without_groups() -> None:
    rng = np.random.default_rng(0)
    values = (rng.random((2, 5, 200)) < 0.05 + 0.9 * rng.random((2, 1, 200)).round()).astype(float)
    copied = np.repeat(values, 4, axis=2)
    width = [
        np.diff(e.new_images).item()
        for e in (
            effects(v, [[-1, 1]], groups=g)[0] for v, g in ((values, None), (copied, None), (copied, np.repeat(range(200), 4)))
        )
    ]
    assert width[1] < 0.8 * width[0]
    assert width[2] == pytest.approx(width[0], rel=1e-9)


def closure(p: np.ndarray) -> np.ndarray:
    """Holm's adjusted p by the closure principle: the largest Bonferroni p of all intersections that hold the hypothesis."""
    every = range(len(p))
    sets = [chosen for size in range(1, len(p) + 1) for chosen in combinations(every, size)]
    return np.array([max(min(1, len(c) * min(p[j] for j in c)) for c in sets if i in c) for i in every])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_is_the_closure_of_bonferroni(p: list[float]) -> None:
    assert holm(p).tolist() == pytest.approx(closure(np.array(p)).tolist(), abs=1e-12)


@given(st.integers(1, 25).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_clopper_pearson_is_the_exact_binomial_interval(counts: tuple[int, int]) -> None:
    expected = stats.binomtest(*counts).proportion_ci(0.95, "exact")
    assert clopper_pearson(*counts) == pytest.approx((expected.low, expected.high), abs=1e-10)


def test_ties_widen_the_share_of_seeds_won_to_all_it_may_be() -> None:
    means = np.array([[0.5, 0.5, 0.5, 0.5, 0.5], [0.6, 0.7, 0.5, 0.5, 0.4]])[..., None]
    found = effects(means, [[-1, 1]])[0]
    every = [stats.binomtest(wins, 5).proportion_ci(0.95, "exact") for wins in (2, 3, 4)]
    assert found.better == 3 / 5
    assert found.better_interval == pytest.approx((min(i.low for i in every), max(i.high for i in every)), abs=1e-10)


def test_a_ratio_is_the_paired_t_interval_of_logs() -> None:
    ours, theirs = [61.0, 70.0, 66.0, 80.0], [50.0, 52.0, 51.0, 58.0]
    middle, interval = ratio(ours, theirs)
    expected = np.exp(stats.ttest_rel(np.log(ours), np.log(theirs)).confidence_interval(0.95))
    assert interval == pytest.approx(tuple(expected), abs=1e-10)
    assert middle == pytest.approx(stats.gmean(ours) / stats.gmean(theirs), abs=1e-12)
    assert ratio([2.0], [1.0]) == (2.0, None)


def test_folds_have_the_corrected_variance() -> None:
    means = np.random.default_rng(0).normal(0.9, 0.02, size=(2, 10))
    found, plain = over_folds(means, [[-1, 1]], train=800, test=200)[0], stats.ttest_rel(means[1], means[0])
    statistic = plain.statistic * math.sqrt((1 / 10) / (1 / 10 + 200 / 800))
    assert found.p == pytest.approx(2 * stats.t.sf(abs(statistic), 9), abs=1e-10)
    half = stats.t.isf(0.025, 9) * means_error(means, 0.25)
    assert found.new_images == pytest.approx((found.difference - half, found.difference + half), abs=1e-10)
    assert found.more_seeds is None


def means_error(means: np.ndarray, share: float) -> float:
    return math.sqrt((1 / means.shape[1] + share) * np.var(means[1] - means[0], ddof=1))


# Verdicts


def shifted(*gains: float, sd: float = 0.001, seeds: int = 5, seed: int = 0) -> np.ndarray:
    """Means of a reference and of arms better by exactly the gains, over noise of each run."""
    rng = np.random.default_rng(seed)
    noise = sd * rng.normal(size=(len(gains) + 1, seeds))
    noise -= noise.mean(1, keepdims=True)
    return (0.8 + 0.01 * rng.normal(size=seeds) + np.array([0.0, *gains])[:, None] + noise)[..., None]


def test_each_verdict_is_reached() -> None:
    found = effects(shifted(0.05, 0.003, -0.05, 0.0, 0.0012), against(6))
    assert [e.verdict for e in found] == ["worthwhile", "helps", "hurts", "equivalent", "inconclusive"]
    slight = effects(shifted(0.001, sd=0.0002), against(2))[0]
    assert slight.verdict == "helps"
    assert "too small a difference to count" in slight.note


def test_what_holm_rejects_has_the_bonferroni_interval_and_the_rest_share_the_level() -> None:
    values = shifted(0.05, 0.003, -0.05, 0.0, 0.0012)
    square, df = two_way(values.mean(2))
    error = math.sqrt(square / df * 2 / 5)
    for e, share in zip(effects(values, against(6)), (5, 5, 5, 2, 2), strict=True):
        half = stats.t.isf(0.05 / 2 / share, df) * error
        assert e.this_set == pytest.approx((e.difference - half, e.difference + half), abs=1e-10)


@pytest.mark.parametrize("seed", range(30))
def test_an_interval_excludes_0_exactly_where_holm_rejects(seed: int) -> None:
    gains = np.random.default_rng(seed).choice([0, 0, 0.001, 0.002, 0.01], size=7)
    found = effects(shifted(*gains, seed=seed), against(8))
    for e in found:
        low, high = e.this_set
        assert (low >= 0 or high <= 0) == (e.p <= 0.05) == (e.verdict in ("helps", "worthwhile", "hurts"))
        assert low <= e.difference <= high


@pytest.mark.parametrize("seed", range(10))
def test_equivalent_is_two_one_sided_tests(seed: int) -> None:
    values = shifted(0.0005, sd=0.0008, seed=seed)
    gap = (values[1] - values[0])[:, 0]
    below = stats.ttest_1samp(gap, 0.002, alternative="less").pvalue
    above = stats.ttest_1samp(gap, -0.002, alternative="greater").pvalue
    found = effects(values, [[-1, 1]])[0]
    if found.p > 0.05:
        assert (found.verdict == "equivalent") == (max(below, above) <= 0.05)


def test_the_seeds_that_are_said_to_settle_it_give_the_power() -> None:
    values = simulated.bernoulli_gain(np.random.default_rng(1), 3, 0.006)
    found = effects(values, AGAINST)[0]
    square, df = two_way(values.mean(2))
    needed = seeds_needed(found.difference, math.sqrt(2 * square / df), 8)
    assert (found.verdict, found.more_seeds) == ("inconclusive", needed - 3)


def test_where_images_are_the_limit_no_number_of_seeds_is_named() -> None:
    rng = np.random.default_rng(0)
    chance = 0.05 + 0.9 * rng.random(50).round()
    values = (rng.random((2, 3, 50)) < np.stack([chance, chance[::-1]])[:, None]).astype(float)
    found = effects(values, [[-1, 1]])[0]
    assert (found.verdict, found.more_seeds) == ("inconclusive", None)
    assert seeds_needed(found.difference, found.sd, 1) is not None


# The guard


def test_a_placebo_is_identical_and_does_not_count_in_the_pool() -> None:
    values = study(4, 5)
    with_placebo = np.concatenate([values, values[:1]])
    placebo = effects(with_placebo, against(5))[3]
    assert (placebo.verdict, placebo.difference, placebo.this_set, placebo.p) == ("identical", 0.0, (0.0, 0.0), 1.0)
    assert pool(with_placebo)[:3] == pool(values)[:3]


def test_thirds_of_equal_arms_are_identical_and_not_a_rounding_apart() -> None:
    nll = np.broadcast_to(np.random.default_rng(0).exponential(size=(1, 4, 50)), (4, 4, 50))
    assert effects(nll, [[1, -1 / 3, -1 / 3, -1 / 3]])[0].verdict == "identical"


def test_an_arm_without_seeds_is_judged_by_the_spread_of_the_reference() -> None:
    values = study(5, 5)
    values[4] = values[4, 0]
    found = effects(values, against(5))[3]
    expected = stats.ttest_1samp(values[0].mean(1), values[4, 0].mean())
    assert "the same on every seed" in found.note
    assert found.p == pytest.approx(min(1, 4 * expected.pvalue), abs=1e-10)
    assert pool(values)[:3] == pool(values[:4])[:3]


def test_an_arm_that_varies_far_more_is_judged_alone_and_leaves_the_others_as_they_were() -> None:
    values = simulated.gaussian(np.random.default_rng(0), 10)
    values[8] *= 20
    found = effects(values, AGAINST)
    expected = stats.ttest_rel(values[8, :, 0], values[0, :, 0]).pvalue
    assert [("varies unlike" in e.note) for e in found] == [False] * 7 + [True]
    assert found[7].p == pytest.approx(min(1, 8 * expected), abs=1e-10) or found[7].p >= 8 * expected
    assert pool(values)[:2] == pytest.approx(pool(values[:8])[:2])


def test_the_guard_is_the_f_test_of_an_arm_against_the_others() -> None:
    table = np.random.default_rng(2).normal(size=(5, 6))
    others = np.delete(table, 2, 0)
    lone = table[2] - others.mean(0)
    expected = lone.var(ddof=1) / (1 + 1 / 4) / (two_way(others)[0] / two_way(others)[1])
    whole, rest = residual(table), residual(others)
    assert (whole.square - rest.square) / 5 / (rest.square / rest.df) == pytest.approx(expected, abs=1e-10)


def test_tricks_that_act_after_training_are_judged_by_their_own_small_spread() -> None:
    values, rng = study(5, 4, 1000), np.random.default_rng(9)
    late = np.where(rng.random(values[0].shape) < 0.01, 1.0, values[0])
    found = effects(np.concatenate([values, late[None]]), against(6))
    assert "share their training" in found[4].note
    assert found[4].p == pytest.approx(
        holm([*[1.0] * 4, stats.ttest_rel(late.mean(1), values[0].mean(1)).pvalue])[4], abs=1e-10
    )
    assert pool(np.concatenate([values, late[None]]))[:3] == pytest.approx(pool(values)[:3])


def test_a_tie_on_every_seed_falls_back_on_the_pooled_spread() -> None:
    values = simulated.gaussian(np.random.default_rng(0), 5)
    values[0] *= 20
    values[3] = values[0] + 0.1
    found = effects(values, AGAINST)[2]
    assert "same difference" in found.note
    assert found.this_set is not None


# Edges


def broken(**cells: list[tuple[int, int]]) -> np.ndarray:
    values = study(3, 5)
    for cell in cells["gone"]:
        values[cell] = NONE
    return values


EDGES = {
    "one seed": (study(3, 1), "descriptive"),
    "two seeds": (study(3, 2), "descriptive"),
    "one image": (np.array([[[1.0]] * 3, [[0.0]] * 3, [[1.0]] * 3]), "descriptive"),
    "all right": (np.ones((3, 4, 20)), "identical"),
    "always better by the same": (np.array([[[0.0, 0, 1]] * 4, [[1.0, 1, 1]] * 4, [[0.0, 1, 1]] * 4]), "descriptive"),
    "ties on every seed": (np.stack([np.eye(4), np.eye(4)[::-1], np.eye(4)[[1, 0, 3, 2]]]), "descriptive"),
    "no result at all": (np.full((3, 4, 9), NONE), "descriptive"),
    "an arm without results": (broken(gone=[(1, s) for s in range(5)]), "descriptive"),
    "three seeds left": (broken(gone=[(0, 1), (1, 4)]), "inconclusive"),
    "two seeds left": (broken(gone=[(0, 1), (1, 4), (1, 0)]), "descriptive"),
}


@pytest.mark.parametrize("name", EDGES)
def test_degenerate_input_gives_a_sentence_and_no_nan(name: str) -> None:
    values, verdict = EDGES[name]
    found = effects(values, against(3)) + over_folds(values.mean(2), against(3), train=80, test=20)
    assert found[0].verdict == verdict
    for e in found:
        numbers = [e.difference, e.sd, e.p, e.better, e.correlation, *e.points, *(e.this_set or ()), *(e.new_images or ())]
        assert np.isfinite([number for number in numbers if number is not None]).all()
        assert e.note or e.verdict in ("identical", "inconclusive")
        assert (e.verdict == "descriptive") == (e.p is None)


def test_a_missing_run_leaves_its_seed_out_of_its_own_contrasts() -> None:
    values = broken(gone=[(1, 4)])
    first, second = effects(values, against(3))
    assert (len(first.points), len(second.points)) == (4, 5)
    assert "1 of 5 seeds left out" in first.note
    square, df = two_way(values.mean(2))
    raw = [2 * stats.t.sf(abs(e.difference) / math.sqrt(square / df * 2 / len(e.points)), df) for e in (first, second)]
    assert [first.p, second.p] == pytest.approx(holm(raw).tolist(), abs=1e-10)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: effects(np.ones((2, 3)), [[-1, 1]]), "arms x seeds x judged examples"),
        (lambda: effects(np.where(np.arange(5) == 2, NONE, study(2, 3, 5)), [[-1, 1]]), "arm 0, seed 0: some judged examples"),
        (lambda: effects(np.full((2, 3, 5), np.inf), [[-1, 1]]), "no finite value"),
        (lambda: effects(study(2, 3), [[-1, 2]]), "sum to 0"),
        (lambda: effects(study(2, 3), [[0, 0]]), "not all be 0"),
        (lambda: effects(study(2, 3), [[-1, 1, 0]]), "one weight per arm"),
        (lambda: effects(study(2, 3), [[-1, 1]], delta=-1), "not negative"),
        (lambda: effects(study(2, 3), [[-1, 1]], groups=[1, 2]), "one number per example"),
        (lambda: over_folds(np.ones((2, 3)), [[-1, 1]], train=0, test=3), "judges images"),
        (lambda: clopper_pearson(3, 2), "between 0 and the number"),
        (lambda: ratio([1.0], [0.0]), "above 0"),
        (lambda: decide(study(2, 2), [[-1, 1]], LOOKS), "no look is planned after 2 seeds, only after 3, 5, 10, 20"),
    ],
)
def test_mistakes_are_refused_with_a_sentence(call, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        call()


def test_sixty_runs_on_ten_thousand_images_take_seconds() -> None:
    values, weights = study(12, 5, 10_000), np.vstack([against(12), against(12)[:9]])
    began = time.process_time()
    effects(values, weights)
    assert time.process_time() - began < 5


# Looking early


def test_looks_spend_five_percent_whatever_the_seeds() -> None:
    assert sum(LOOKS.values()) == pytest.approx(0.05)
    for seeds in (1, 3, 4, 5, 7, 10, 20, 100):
        looks = planned(seeds)
        assert max(looks) == seeds
        assert sum(looks.values()) == pytest.approx(0.05)
        assert all(LOOKS[count] == spent for count, spent in looks.items() if count < seeds)


def test_a_look_ends_what_is_clear_and_what_is_futile() -> None:
    found = decide(shifted(0.05, -0.002, 0.004, sd=0.0004, seeds=5), against(4), LOOKS)
    assert [one.open for one in found] == [False] * 3
    doubtful = decide(shifted(-0.0015, 0.0015, sd=0.0006, seeds=3), against(3), LOOKS)
    assert [one.open for one in doubtful] == [False, True]
    assert doubtful[0].estimate.verdict == "inconclusive"
    assert "no gain that counts is left possible" in doubtful[0].estimate.note
    assert "level 0.5 %, the look after 3 of 20 seeds" in doubtful[1].estimate.note


def test_what_a_look_decided_stays_as_it_was_while_the_rest_goes_on() -> None:
    values = shifted(0.05, 0.0015, sd=0.0006, seeds=5)
    early, late = decide(values[:, :3], against(3), planned(5)), decide(values, against(3), planned(5))
    assert late[0] == early[0]
    assert (early[1].open, late[1].open) == (True, False)
    stopped = values.copy()
    stopped[1, 3:] = np.nan
    assert decide(stopped, against(3), planned(5))[0] == early[0]
    assert decide(values, against(3), planned(5))[1].estimate.note == late[1].estimate.note
    last = effects(values, against(3), alpha=0.045)[1]
    assert late[1].estimate.this_set == last.this_set


def test_planned_looks_keep_the_level_that_a_test_after_every_seed_loses() -> None:
    eight, one, every = simulated.early(150)
    assert max(eight, one) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 150)
    assert every > 0.12


# Simulated studies; the whole of it is benchmarks/effects.py


@pytest.mark.parametrize("name", ["Gaussian", "Bernoulli, 500 images", "one arm with twice the sd"])
@pytest.mark.parametrize("seeds", [3, 10])
def test_false_findings_stay_below_five_percent_where_plain_t_tests_do_not(name: str, seeds: int) -> None:
    ours, naive, *_ = simulated.false_findings(simulated.NULLS[name], seeds, 150)
    assert ours <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 150)
    assert naive > 0.15


@pytest.mark.parametrize(("seeds", "points"), [(3, 0.0), (3, 0.4), (5, 0.15)])
def test_both_intervals_cover_the_truth(seeds: int, points: float) -> None:
    found = simulated.coverage(seeds, 500, points / 100, 120)
    error = 3 * math.sqrt(0.05 * 0.95 / 120)
    assert min(found) >= 0.93 - error
    assert found[2] <= 0.99 + error / 3


@pytest.mark.parametrize("name", simulated.GAINS)
def test_achieved_power_is_the_printed_one(name: str) -> None:
    effect = simulated.detectable(simulated.assumed_sd(simulated.ERROR, simulated.IMAGES), 5, simulated.K)
    found = simulated.achieved(simulated.GAINS[name], 5, effect, 300)
    assert found == pytest.approx(0.8, abs=0.05 + 2 * math.sqrt(0.16 / 300))


def test_nothing_that_varies_gives_components() -> None:
    assert crossed(np.zeros((3, 5))) is None
