"""The statistics of a study: against scipy and independent formulas, at the edges, and on simulated studies."""

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import joined, satterthwaite
from scipy import stats
from scipy.optimize import brentq
from scipy.special import digamma, polygamma

from trickbag.ground.errors import UsageError
from trickbag.statistics.effects import UNMOVED, Sample, by_arms, effects, independent, seeds_add
from trickbag.statistics.intervals import clopper_pearson, holm, ratio
from trickbag.statistics.looks import LOOKS, decide, planned
from trickbag.statistics.variance import ONCE, PRIOR, Part, Share, spread, taken

NONE = np.nan


def study(
    arms: int, seeds: int, images: int = 300, *, seed: int = 0, rotating: bool = True, share: float = 0.9
) -> list[Sample]:
    """Right and wrong answers on images that differ in difficulty, without any effect."""
    rng = np.random.default_rng(seed)
    chance = rng.beta(8 * share, 8 * (1 - share), size=images * seeds)
    made = []
    for turn in range(seeds):
        rows = np.arange(images) + (images * turn if rotating else 0)
        made.append(Sample((rng.random((arms, images)) < chance[rows]).astype(float), rows))
    return made


def with_values(samples: list[Sample], change) -> list[Sample]:
    """The samples with other values."""
    return [Sample(change(turn, sample.values.copy()), sample.groups) for turn, sample in enumerate(samples)]


def against(arms: int) -> np.ndarray:
    return np.hstack([-np.ones((arms - 1, 1)), np.eye(arms - 1)])


def parts(samples: list[Sample], row: list[float]) -> list[Part]:
    return [Part(np.asarray(row) @ sample.values, sample.groups) for sample in samples]


# Agreement with independent formulas


def test_on_the_same_images_the_spread_is_the_crossed_components() -> None:
    samples = study(2, 4, 50, rotating=False)
    gap = np.array([sample.values[1] - sample.values[0] for sample in samples])
    grand, by_seed, by_image = gap.mean(), gap.mean(1), gap.mean(0)
    ms_s = 50 * sum((m - grand) ** 2 for m in by_seed) / 3
    ms_i = 4 * sum((m - grand) ** 2 for m in by_image) / 49
    ms_e = sum((gap[s, i] - by_seed[s] - by_image[i] + grand) ** 2 for s in range(4) for i in range(50)) / (3 * 49)
    found = spread(parts(samples, [-1, 1]))
    assert found.images == pytest.approx(ms_i / 200, rel=1e-12)
    assert found.within == pytest.approx(ms_e / 50, rel=1e-12)
    assert found.seed == pytest.approx((ms_s - ms_e) / 50, rel=1e-12)
    assert found.persistent == pytest.approx(max(ms_i - ms_e, 0.0) / 200, abs=0.03 * found.images)
    assert (found.seeds, found.groups) == (4, 50)


def test_on_other_images_for_each_seed_the_spread_is_the_nested_components() -> None:
    samples = study(2, 4, 50)
    gap = [sample.values[1] - sample.values[0] for sample in samples]
    within, between = np.mean([g.var(ddof=1) for g in gap]), np.var([g.mean() for g in gap], ddof=1)
    found = spread(parts(samples, [-1, 1]))
    assert found.images == pytest.approx(within / 200, rel=1e-12)
    assert found.within == pytest.approx(within / 50, rel=1e-12)
    assert found.seed == pytest.approx(between - within / 50, rel=1e-12)
    assert found.persistent == ONCE * found.images  # no image says what is the same in every seed


@pytest.mark.parametrize(("seeds", "turns"), [(5, 1), (5, 5), (5, 3), (8, 3)])
def test_the_variance_of_a_mean_is_right_wherever_images_are_judged_again(seeds: int, turns: int) -> None:
    """Against the spread of the mean over many draws of images and seeds."""
    rng, means, found = np.random.default_rng(0), [], []
    for _ in range(1500):
        image = rng.normal(0, 1, 30 * turns)
        made = []
        for seed in range(seeds):
            rows = np.arange(30) + 30 * (seed % turns)
            made.append(Part(image[rows] + rng.normal(0, 0.7, 30) + rng.normal(0, 0.1), rows))
        one = spread(made)
        means.append(np.mean([part.values.mean() for part in made]))
        found.append((one.images + one.seed / seeds, one.seed))
    assert np.mean(found, axis=0)[0] == pytest.approx(np.var(means), rel=0.1)
    assert np.mean(found, axis=0)[1] == pytest.approx(0.01, abs=0.002)


@pytest.mark.parametrize("rotating", [True, False])
@pytest.mark.parametrize("noise", [0.0, 0.05, 0.5])
def test_the_interval_is_that_of_a_moderated_t(noise: float, rotating: bool) -> None:
    """What says that seeds add nothing counts the less, the more they do; what every seed sees alike is known well."""
    kept = np.zeros((2, 300)) if rotating else np.random.default_rng(9).normal(0, [[0.0], [0.3]], (2, 300))
    samples = study(2, 5, rotating=rotating)
    samples = with_values(samples, lambda turn, v: v + kept + np.random.default_rng(turn).normal(0, noise, (2, 1)))
    found, one = spread(parts(samples, [-1, 1])), effects(samples, [[-1, 1]])[0]
    share, known = joined(found.seed / found.within, 4, 0.0, PRIOR)
    assert known >= 4 + PRIOR / 2 if not noise else 4 < known < 4 + PRIOR * (0.1 if noise < 0.1 else 0.01)
    grain = 2 / found.groups**2
    error, df = satterthwaite(found.images + grain, found.within, 5, found.groups, share, known)
    assert df == pytest.approx(known, rel=0.02) if rotating else df >= (1.0 if noise else 2.0) * known
    half = stats.t.isf(0.025, df) * error
    assert one.error == pytest.approx(error, rel=1e-12)
    ends = np.clip([one.difference - half, one.difference + half], -1, 1)  # of shares no difference is larger
    assert one.interval == pytest.approx(tuple(ends), rel=1e-9)
    assert one.p == pytest.approx(2 * stats.t.sf(abs(one.difference) / error, df), rel=1e-9)


def test_the_interval_over_seeds_is_the_paired_t_test() -> None:
    samples = study(2, 5, rotating=False)
    means = np.array([sample.values.mean(1) for sample in samples])
    expected, found = stats.ttest_rel(means[:, 1], means[:, 0]), effects(samples, [[-1, 1]])[0]
    assert found.over_seeds == pytest.approx(tuple(expected.confidence_interval(0.95)), abs=1e-10)
    assert found.correlation == pytest.approx(stats.pearsonr(*means.T).statistic, abs=1e-10)
    assert found.difference == pytest.approx((means[:, 1] - means[:, 0]).mean(), abs=1e-12)


def freedom(samples: list[Sample], contrasts: np.ndarray) -> float:
    """The degrees of freedom of what all contrasts say together of what seeds add, by their correlations over images."""
    values = np.hstack([s.values - s.values.mean(1, keepdims=True) for s in samples])
    alike = np.corrcoef(contrasts @ values)
    return float(len(contrasts) ** 2 / (alike**2).sum() * (len(samples) - 1))


def squeezed(shares: list[float], freedom_of_one: float, most: float) -> list[tuple[float, float]]:
    """Each share drawn to the family's, and its degrees of freedom: Smyth 2004, section 6.2, solved by root finding."""
    logs = np.log(1 + np.array(shares))
    varies = logs.var(ddof=1) - polygamma(1, freedom_of_one / 2)
    if varies <= 0:
        typical, df = 1 + np.mean(shares), most
    else:
        df = 2 * brentq(lambda y: polygamma(1, y) - varies, 1e-8, 1e8)
        offsets = [digamma(half) - math.log(half) for half in (freedom_of_one / 2, df / 2)]
        typical = math.exp(logs.mean() - offsets[0] + offsets[1])
        df = min(df, most)
    return [joined(share, freedom_of_one, typical - 1, df) for share in shares]


@pytest.mark.parametrize("agree", [True, False])
def test_the_share_of_a_contrast_is_drawn_to_its_familys_as_far_as_that_agrees(agree: bool) -> None:
    """Whatever the unit of each contrast; where one is moved far more by seeds than the others, the family says less."""
    noise = np.full((8, 1), 0.05) if agree else np.array([[0.0]] * 6 + [[0.6]] * 2)
    samples = with_values(study(8, 5), lambda turn, v: v + noise * np.random.default_rng(turn).normal(size=(8, 1)))
    contrasts = np.kron(np.diag([1.0, 0.5, 3.0, 1.0]), [[-1, 1]])
    found = [spread(parts(samples, row)) for row in contrasts]
    most = freedom(samples, contrasts) - 4
    assert most == pytest.approx(3 * 4, rel=0.03)
    expected = squeezed([one.seed / one.within for one in found], 4, most)
    assert agree or expected[0][1] < 4 + most / 2
    for one, estimate, (share, df) in zip(found, effects(samples, contrasts, shares=False), expected, strict=True):
        share, df = joined(share, df, 0.0, PRIOR)
        assert estimate.df == pytest.approx(df, rel=1e-6)
        assert estimate.error == pytest.approx(satterthwaite(*one[:2], 5, one.groups, share, df)[0], rel=1e-6)


def test_contrasts_against_a_noisy_reference_say_the_same_thing_often() -> None:
    """Of seven they count as 4 * 7 / (7 + 3) where all arms are alike, and as one where only the reference is noisy."""
    star = np.hstack([-np.ones((7, 1)), np.eye(7)])
    for noise, counted in ((1.0, 4 * 7 / (7 + 3)), (100.0, 1.0)):
        samples = with_values(study(8, 3, 2000), lambda turn, v, noise=noise: v * np.array([[noise], *[[1.0]] * 7]))
        assert freedom(samples, star) == pytest.approx(2 * counted, rel=0.05)
        assert all(one.df <= freedom(samples, star) + PRIOR + 1e-9 for one in effects(samples, star, shares=False))
    assert independent(by_arms(star)) == pytest.approx(4 * 7 / (7 + 3))


@pytest.mark.parametrize(("noise", "counts"), [(0.02, 1.0), (0.1, 0.5), (0.5, 0.01)])
def test_what_is_known_before_of_what_seeds_add_counts_by_its_degrees_of_freedom(noise: float, counts: float) -> None:
    """Unless seeds move the contrast by far more than that."""
    samples = with_values(study(2, 4), lambda turn, v: v + np.random.default_rng(turn).normal(0, noise, (2, 1)))
    found = spread(parts(samples, np.array([-1.0, 1.0])))
    share, df = joined(found.seed / found.within, 3, 0.3, 12.0)
    assert df - 3 <= 12 * counts
    share, df = joined(share, df, 0.0, PRIOR)
    one = effects(samples, [[-1, 1]], shares=False, before=Share(0.3, 12.0))[0]
    assert one.error == pytest.approx(satterthwaite(*found[:2], 4, found.groups, share, df)[0], rel=1e-9)
    assert one.p == pytest.approx(2 * stats.t.sf(abs(one.difference) / one.error, df), rel=1e-9)


def test_what_seeds_add_is_carried_to_other_seeds_and_images() -> None:
    """Seeds of the same kind on more images each: their part of the variance stays, that of the images falls."""
    contrasts = np.kron(np.eye(4), [[-1, 1]])
    sizes = [
        [
            Sample(s.values + np.random.default_rng((turn, 1)).normal(0, 0.05, (8, 1)), s.groups)
            for turn, s in enumerate(study(8, 40, images))
        ]
        for images in (100, 400)
    ]
    few, many = (seeds_add(samples, contrasts) for samples in sizes)
    here, there = (spread(parts(samples, contrasts[0])) for samples in sizes)
    assert few.carried(here, there).share == pytest.approx(many.share, rel=0.25)
    assert few.df == pytest.approx(freedom(sizes[0], contrasts))


@pytest.mark.parametrize("share", [0.0, 1.5])
def test_what_is_carried_is_known_as_well_as_its_spread_over_studies_says(share: float) -> None:
    """A mean square of which the part of the images is known, so that only that of the seeds is carried; never the better."""
    squares, times = (1 + share) * stats.chi2.rvs(20, size=200_000, random_state=0) / 20, 2.5
    carried = 1 + (squares - 1) * times
    more, less = (
        spread([Part(w * np.array([0.0, 1.0, 2.0]), np.arange(3) + 3 * s) for s in range(3)]) for w in (times**0.5, 1)
    )
    known = Share(share, 20.0).carried(more, less)
    assert known.share == pytest.approx(carried.mean() - 1, abs=0.02)
    assert 2 / known.df == pytest.approx(carried.var() / carried.mean() ** 2, rel=0.03)
    assert Share(share, 20.0).carried(less, more) == pytest.approx((share / times, 20.0))
    assert Share(-0.5, 20.0).carried(more, less) == pytest.approx((-1.25, 20.0 / times**2))


@pytest.mark.parametrize("known", [Share(0.0, 2.0), Share(0.0, 12.0), Share(0.8, 6.0)])
def test_what_will_be_taken_for_what_seeds_add_is_the_mean_of_what_is_taken(known: Share) -> None:
    """Less than nothing is taken for nothing, and nothing is known of it before."""
    squares = (1 + known.share) * stats.chi2.rvs(known.df, size=20_000, random_state=1) / known.df
    each = np.array([joined(one - 1, known.df, 0.0, PRIOR) for one in squares])
    assert taken(known) == pytest.approx((np.maximum(each[:, 0], 0.0).mean(), each[:, 1].mean()), rel=0.04)
    assert taken(Share(0.0, 0.0)) == Share(0.0, PRIOR)


@pytest.mark.parametrize("unit", [1.0, 1e-9])
def test_what_rounding_leaves_is_no_difference_in_any_unit_and_no_number_of_seeds_decides_it(unit: float) -> None:
    rng = np.random.default_rng(0)
    values = [unit * rng.exponential(2, (1, 50)) * (1 + 1e-8 * rng.normal(size=(2, 50))) for _ in range(3)]
    samples = [Sample(one, np.arange(50)) for one in values]
    found = effects(samples, [[-1, 1]], same=[False], shares=False)[0]
    assert UNMOVED in found.note
    assert found.interval is None
    right = [Sample((one > unit).astype(float), np.arange(50)) for one in values]
    found = effects(right, [[-1, 1]], same=[False])[0]
    assert (found.verdict, found.more_seeds, found.more_images) == ("open", None, None)
    assert found.interval is not None
    assert found.interval.low < 0 < found.interval.high, "of shares, two images more are counted"
    moved = [Sample(one * np.array([[1.0], [1.001]]), np.arange(50)) for one in values]
    assert UNMOVED not in effects(moved, [[-1, 1]], same=[False], shares=False)[0].note


def test_groups_of_one_change_nothing_and_copies_count_once() -> None:
    samples = study(3, 4, 60)
    order = np.random.default_rng(1).permutation(240)
    named = [Sample(sample.values, order[sample.groups]) for sample in samples]
    copied = [Sample(np.repeat(s.values, 4, axis=1), np.repeat(s.groups, 4)) for s in samples]
    apart = [Sample(s.values, 240 * turn + np.arange(240)) for turn, s in enumerate(copied)]
    plain, other, together = (effects(s, against(3))[0] for s in (samples, named, copied))
    assert other == plain
    assert together.error == pytest.approx(plain.error, rel=1e-9)
    right, wrong = (spread(parts(s, against(3)[0])).images for s in (samples, apart))
    assert wrong == pytest.approx(right / 4, rel=0.02)


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
    means = [[0.5, 0.6], [0.5, 0.7], [0.5, 0.5], [0.5, 0.5], [0.5, 0.4]]
    found = effects([Sample(np.tile(np.array([m]).T, 2), np.arange(2)) for m in means], [[-1, 1]])[0]
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


# Verdicts


def shifted(*gains: float, sd: float = 0.02, seeds: int = 5, images: int = 400, seed: int = 0) -> list[Sample]:
    """Measures of a reference and of arms better by exactly the gains, over noise in each image."""
    rng = np.random.default_rng(seed)
    made = []
    for turn in range(seeds):
        noise = sd * rng.normal(size=(len(gains) + 1, images))
        noise -= noise.mean(1, keepdims=True)
        made.append(Sample(0.8 + np.array([0.0, *gains])[:, None] + noise, np.arange(images) + images * turn))
    return made


def found_in(samples: list[Sample], arms: int, **options):
    return effects(samples, against(arms), shares=False, **options)


def test_each_verdict_is_reached() -> None:
    found = found_in(shifted(0.05, 0.003, -0.05, 0.0, 0.0012), 6)
    assert [e.verdict for e in found] == ["worthwhile", "helps", "hurts", "equivalent", "open"]
    slight = found_in(shifted(0.001, sd=0.006), 2)[0]
    assert slight.verdict == "helps"
    assert "too small a difference to count" in slight.note


def test_what_holm_rejects_has_the_bonferroni_interval_and_the_rest_share_the_level() -> None:
    for e, share in zip(found_in(shifted(0.05, 0.003, -0.05, 0.0, 0.0012), 6), (5, 5, 5, 2, 2), strict=True):
        half = stats.t.isf(0.05 / 2 / share, e.df) * e.error
        assert e.interval == pytest.approx((e.difference - half, e.difference + half), abs=1e-10)


@pytest.mark.parametrize("seed", range(30))
def test_an_interval_excludes_0_exactly_where_holm_rejects(seed: int) -> None:
    gains = np.random.default_rng(seed).choice([0, 0, 0.001, 0.002, 0.01], size=7)
    for e in found_in(shifted(*gains, seed=seed), 8):
        low, high = e.interval
        assert (low >= 0 or high <= 0) == (e.p <= 0.05) == (e.verdict in ("helps", "worthwhile", "hurts"))
        assert low <= e.difference <= high


@pytest.mark.parametrize("seed", range(10))
def test_equivalent_is_two_one_sided_tests(seed: int) -> None:
    e = found_in(shifted(0.0005, sd=0.018, seed=seed), 2)[0]
    below, above = (stats.t.sf((0.002 + sign * e.difference) / e.error, 4 + PRIOR) for sign in (1, -1))
    if e.p > 0.05:
        assert (e.verdict == "equivalent") == (max(below, above) <= 0.05)


def test_the_same_network_is_identical_and_agreement_by_chance_is_not() -> None:
    """Six photos that both sides get right say nothing of the seventh."""
    alike = [Sample(np.ones((2, 6)), np.arange(6) + 6 * turn) for turn in range(3)]
    same, other = (effects(alike, [[-1, 1]], same=[flag])[0] for flag in (True, False))
    assert (same.verdict, same.interval, same.p) == ("identical", (0.0, 0.0), 1.0)
    assert other.verdict == "open"
    assert other.difference == 0
    assert other.interval.low < -0.1 < 0.1 < other.interval.high


def test_thirds_of_equal_arms_are_identical_and_not_a_rounding_apart() -> None:
    nll = np.random.default_rng(0).exponential(size=(4, 50))
    samples = [Sample(np.tile(nll[turn], (4, 1)), np.arange(50)) for turn in range(4)]
    assert effects(samples, [[1, -1 / 3, -1 / 3, -1 / 3]], shares=False)[0].verdict == "identical"


def test_a_contrast_that_seeds_move_far_more_leaves_the_others_nearly_as_they_were() -> None:
    wild = with_values(study(6, 5, 400), lambda turn, v: v + np.array([0, 0, 0, 0, 0, 0.2 * (-1) ** turn])[:, None])
    contrasts = np.kron(np.eye(3), [[-1, 1]])
    found, alone = effects(wild, contrasts), effects(wild, contrasts[:2])
    assert found[2].error > 4 * found[0].error
    assert all(one.error < 1.5 * other.error for one, other in zip(found, alone, strict=False))


def test_a_seed_that_changes_nothing_is_said_and_the_images_still_speak() -> None:
    one = study(2, 1, 400)[0]
    found = effects([one] * 4, [[-1, 1]])[0]
    assert "the seed changes nothing here" in found.note
    gap = one.values[1] - one.values[0]
    assert found.error == pytest.approx(math.sqrt(gap.var(ddof=1) / 400 + 2 / 400**2), rel=1e-9)


def test_open_effects_say_what_would_decide_them() -> None:
    rotating = effects(with_values(study(2, 3, 400, seed=2), gain(0.02)), [[-1, 1]], pool=100_000)[0]
    assert rotating.verdict == "open"
    assert rotating.more_seeds > 0
    far = abs(rotating.difference) / rotating.error
    needed = ((1.96 + 0.8416) / far) ** 2
    assert (rotating.more_seeds + 3) / 3 == pytest.approx(needed, rel=0.35)
    fixed = effects(with_values(study(2, 3, 400, seed=2, rotating=False), gain(0.004)), [[-1, 1]])[0]
    assert (fixed.verdict, fixed.more_seeds) == ("open", None)
    assert fixed.more_images > 400


def gain(share: float):
    """Make a share of the second arm's wrong answers right."""

    def change(turn: int, values: np.ndarray) -> np.ndarray:
        values[1][np.random.default_rng(turn).random(values.shape[1]) < share] = 1.0
        return values

    return change


# Edges


def broken(*gone: tuple[int, int]) -> list[Sample]:
    samples = study(3, 5)
    for arm, seed in gone:
        samples[seed].values[arm] = NONE
    return samples


EDGES = {
    "one seed": (study(3, 1), "descriptive"),
    "two seeds": (study(3, 2), "descriptive"),
    "one image": ([Sample(np.array([[1.0], [0.0], [1.0]]), np.arange(1))] * 3, "descriptive"),
    "all right": ([Sample(np.ones((3, 20)), np.arange(20))] * 4, "identical"),
    "always better by the same": ([Sample(np.array([[0.0] * 3, [1.0] * 3, [0.0] * 3]), np.arange(3))] * 4, "open"),
    "no result at all": ([Sample(np.full((3, 9), NONE), np.arange(9))] * 4, "descriptive"),
    "an arm without results": (broken(*((1, s) for s in range(5))), "descriptive"),
    "three seeds left": (broken((0, 1), (1, 4)), "open"),
    "two seeds left": (broken((0, 1), (1, 4), (1, 0)), "descriptive"),
}


@pytest.mark.parametrize("name", EDGES)
def test_degenerate_input_gives_a_sentence_and_no_nan(name: str) -> None:
    samples, verdict = EDGES[name]
    found = effects(samples, against(3))
    assert found[0].verdict == verdict
    for e in found:
        numbers = [e.difference, e.sd, e.p, e.better, e.correlation, *e.points, *(e.interval or ()), *(e.over_seeds or ())]
        assert np.isfinite([number for number in numbers if number is not None]).all()
        assert e.note or e.verdict in ("identical", "open")
        assert (e.verdict == "descriptive") == (e.p is None)


def test_a_missing_run_leaves_its_seed_out_of_its_own_contrasts() -> None:
    first, second = effects(broken((1, 4)), against(3))
    assert (len(first.points), len(second.points)) == (4, 5)
    assert "1 of 5 seeds left out" in first.note


def bad(values: np.ndarray) -> list[Sample]:
    return [Sample(values, np.arange(values.shape[-1]))] * 3


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: effects([], [[-1, 1]]), "no seed with a result"),
        (lambda: effects(bad(np.ones(3)), [[-1, 1]]), "arms x images"),
        (lambda: effects(bad(np.where(np.arange(5) == 2, NONE, np.ones((2, 5)))), [[-1, 1]]), "arm 0, seed 0: some images"),
        (lambda: effects(bad(np.full((2, 5), np.inf)), [[-1, 1]]), "no finite value"),
        (lambda: effects(study(2, 3), [[-1, 2]]), "sum to 0"),
        (lambda: effects(study(2, 3), [[0, 0]]), "not all be 0"),
        (lambda: effects(study(2, 3), [[-1, 1, 0]]), "one weight per arm"),
        (lambda: effects(study(2, 3), [[-1, 1]], delta=-1), "not negative"),
        (lambda: effects([Sample(np.ones((2, 3)), np.arange(2))], [[-1, 1]]), "one group per image"),
        (lambda: clopper_pearson(3, 2), "between 0 and the number"),
        (lambda: ratio([1.0], [0.0]), "above 0"),
        (lambda: decide(study(2, 2), [[-1, 1]], LOOKS), "no look is planned after 2 seeds, only after 3, 5, 10, 20"),
    ],
)
def test_mistakes_are_refused_with_a_sentence(call, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        call()


# Looking early


def test_looks_spend_five_percent_whatever_the_seeds() -> None:
    assert sum(LOOKS.values()) == pytest.approx(0.05)
    for seeds in (1, 3, 4, 5, 7, 10, 20, 100):
        looks = planned(seeds)
        assert max(looks) == seeds
        assert sum(looks.values()) == pytest.approx(0.05)
        assert all(LOOKS[count] == spent for count, spent in looks.items() if count < seeds)


def test_a_look_ends_what_is_clear_and_what_is_futile() -> None:
    found = decide(shifted(0.05, -0.002, 0.004, sd=0.01, seeds=5), against(4), LOOKS)
    assert [one.open for one in found] == [False] * 3
    doubtful = decide(shifted(-0.003, 0.003, sd=0.015, seeds=3), against(3), LOOKS)
    assert [one.open for one in doubtful] == [False, True]
    assert doubtful[0].estimate.verdict == "open"
    assert "no gain that counts is left possible" in doubtful[0].estimate.note
    assert "level 0.5 %, the look after 3 of 20 seeds" in doubtful[1].estimate.note


def test_what_a_look_decided_stays_as_it_was_while_the_rest_goes_on() -> None:
    samples = shifted(0.05, 0.0015, sd=0.015, seeds=5)
    early, late = decide(samples[:3], against(3), planned(5)), decide(samples, against(3), planned(5))
    assert late[0] == early[0]
    assert (early[1].open, late[1].open) == (True, False)
    stopped = with_values(samples, lambda turn, v: np.where((np.arange(3) == 1)[:, None] & (turn >= 3), NONE, v))
    assert decide(stopped, against(3), planned(5))[0] == early[0]
    last = effects(samples, against(3), alpha=0.045)[1]
    assert late[1].estimate.interval == last.interval


# Simulated studies; the whole of it is benchmarks/population.py


@pytest.mark.parametrize("rotating", [True, False])
@pytest.mark.parametrize("seeds", [3, 10])
def test_false_findings_stay_below_five_percent(rotating: bool, seeds: int) -> None:
    """Of eight tricks that do nothing; plain t tests over seeds find one in many of the same studies."""
    ours, plain, studies = 0, 0, 150
    for number in range(studies):
        samples = study(9, seeds, 100, seed=number, rotating=rotating)
        ours += any(e.verdict in ("helps", "worthwhile", "hurts") for e in effects(samples, against(9)))
        means = np.array([sample.values.mean(1) for sample in samples])
        gaps = means[:, 1:] - means[:, :1]
        critical = stats.t.isf(0.025, seeds - 1) / math.sqrt(seeds)
        plain += (abs(gaps.mean(0)) > critical * gaps.std(0, ddof=1)).any()
    assert ours / studies <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / studies)
    assert plain / studies > 0.15


def test_planned_looks_keep_the_level_that_a_test_after_every_seed_loses() -> None:
    planned_looks, every, studies = 0, 0, 150
    for number in range(studies):
        samples = study(2, max(LOOKS), 60, seed=number)
        planned_looks += decide(samples, [[-1, 1]], LOOKS)[0].estimate.verdict in ("helps", "worthwhile", "hurts")
        each = (effects(samples[:seeds], [[-1, 1]])[0].p for seeds in range(3, max(LOOKS) + 1))
        every += any(p <= 0.05 for p in each)
    by_chance = 0.05 + 3 * math.sqrt(0.05 * 0.95 / studies)
    assert planned_looks / studies <= by_chance < every / studies


def test_nothing_that_varies_gives_a_spread_of_zero() -> None:
    found = spread([Part(np.zeros(5), np.arange(5))] * 3)
    assert (found.images, found.seed) == (0.0, 0.0)


@pytest.mark.parametrize("kept", [0.0, 0.1])
def test_seeds_that_move_all_images_alike_are_not_taken_for_nothing(kept: float) -> None:
    """Each seed shifts every image by another amount, and nothing else differs from seed to seed."""
    images = np.random.default_rng(0).normal(0, kept, 100)
    points = np.array([0.0, 1.0, 2.0])
    samples = [Sample(np.vstack([np.zeros(100), images + point]), np.arange(100)) for point in points]
    found = effects(samples, [[-1, 1]], shares=False)[0]
    assert found.verdict == "open"
    assert found.df == pytest.approx(2, abs=0.1)
    assert found.error == pytest.approx(math.sqrt(images.var(ddof=1) / 100 + points.var(ddof=1) * (1 / 3 + 0.1)), rel=0.03)
