"""Whether a study that nominates and proves ends with a recipe that gains, and how often it proves what is not there.

    OMP_NUM_THREADS=1 python -m benchmarks.nominating

Simulated studies of eight or four tricks in the worlds of ``benchmarks.worlds``, with 1,500 photos that rotate and 375 of a
test: sixteen cells, three seeds, three folds of five that judge, a proof with eight fresh seeds on the other two folds and the
test. Beside it what a two-sided design of as many trainings finds on a fixed tenth of the photos when it recommends what
Holm's method proves. Then how often, over all worlds together, a proof succeeds to which a study gave such a probability
before. Last, recipes of one to eight tricks whose true gain is what the plan of their own study prints as proved with 80 %
power, after two trials of the reference, and how often that is so. Every draw has a fixed seed. Prints Markdown tables.
"""

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, special

from benchmarks.machine import origin
from benchmarks.worlds import ACCURACY, POOL, TEST, TRICKS, WORLDS, Floats, Photos, World, accuracy, gaining, photos
from trickbag.statistics.belief import Belief, Prior, alike, belief, off_by
from trickbag.statistics.effects import Sample, by_arms, effects, independent, seeds_add, spread_of
from trickbag.statistics.nominate import Option, nominee
from trickbag.statistics.power import GRAIN, PERSISTENT, assurance, elsewhere, evenly, expected
from trickbag.statistics.variance import Share, Spread, together
from trickbag.statistics.verdicts import Estimate
from trickbag.studies import factorial
from trickbag.studies.pilot import QUARTER, Expected
from trickbag.studies.plan import PROOF_SEEDS, ProofPlan

BOUNDS = (0, 0.1, 0.25, 0.5, 0.75, 1.01)
FOLDS, JUDGING, SEEDS = 5, 3, 3
PROVING = evenly(np.repeat([PROOF_SEEDS // 2, PROOF_SEEDS], [POOL * 2 // FOLDS, TEST]))
"""As how many photos judge a proof, and how often in all."""


class Ended(NamedTuple):
    """How a study ended."""

    proved: bool
    gain: float
    """True, of the recommended recipe, in points."""
    likely: float
    """Of the proof, as printed before it: the mean over what is believed of the gain."""
    power: float
    """Of the proof at the true gain, with the error that was expected before it."""
    tried: bool
    """Whether there was a nominee."""


def ours(world: World, number: int) -> Ended:
    """Nominate and prove."""
    rng = np.random.default_rng(number)
    data, folds = photos(rng, len(world.gains)), np.array_split(rng.permutation(POOL), FOLDS)
    made = designed(world)
    samples = [Sample(data.right(world, made.cells, folds[s], rng), folds[s]) for s in range(SEEDS)]
    on, gain = nominated(made, world, samples)
    if not on.any():
        return Ended(False, 0.0, 0.0, 0.0, False)
    true = 100 * (accuracy(world, on) - ACCURACY)
    error = foreseen(samples, made.cells, on)
    likely, power = (assurance(*one, *error) for one in (gain, Belief(true / 100, 0.0)))
    seen = proof(data, world, samples, folds, on, rng)
    proved = seen.verdict in ("helps", "worthwhile")
    after = belief(seen.difference or 0.0, off_by(seen.error or 1.0, seen.df or 1.0), Prior(gain.gain, max(gain.sd, 1e-9) ** 2))
    used = proved or (after.gain > 0 and seen.verdict != "hurts")
    return Ended(proved, true if used else 0.0, likely, power, True)


class Designed(NamedTuple):
    """A study's cells and what they are asked."""

    cells: NDArray[np.bool_]
    """[A, K]"""
    mains: list[Floats]
    pairs: dict[frozenset[str], Floats]
    """Those that the cells tell apart."""


def designed(world: World) -> Designed:
    """As ``trickbag.studies.design`` does it: of two that exclude each other the second is tried alone."""
    tricks = len(world.gains)
    names = [f"t{n}" for n in range(tricks)]
    if world.excluded:
        others = np.arange(tricks) != world.excluded[1]
        cells = np.zeros((17, tricks), bool)
        cells[:16, others] = factorial.crossed(tricks - 1, 0) > 0
        cells[16] = ~others
        mains = [np.append(np.where(cells[:16, n], 2.0, -2.0) / 16, 0.0) for n in range(tricks)]
        mains[world.excluded[1]] = np.array([-1.0, *[0.0] * 15, 1.0])
        return Designed(cells, mains, {})
    signs = factorial.crossed(tricks, 0)
    clear = [chain[0][0] for chain in factorial.chains(signs) if len(chain) == 1]
    pairs = {frozenset({names[i], names[j]}): factorial.pair(signs, i, j) for i, j in clear}
    return Designed(signs > 0, list(factorial.main(signs).T), pairs)


def nominated(made: Designed, world: World, samples: Sequence[Sample]) -> tuple[NDArray[np.bool_], Belief]:
    """The recipe that is put to the proof, and what is believed of its gain; see ``trickbag.studies.recommend``."""
    names = [f"t{n}" for n in range(made.cells.shape[1])]
    terms = [*(frozenset({name}) for name in names), *made.pairs]
    contrasts = np.array([*made.mains, *made.pairs.values()])
    pool = JUDGING * POOL // FOLDS
    families = [effects(samples, own, pool=pool) for own in (made.mains, *([row] for row in made.pairs.values()))]
    found = [one for family in families for one in family]
    beliefs, shared = alike(
        [e.difference or 0.0 for e in found], [off_by(e.error or 1.0, e.df or 1.0) for e in found], len(made.pairs)
    )
    chosen = nominee(
        [Option(name, own, 1.0) for name, own in zip(names, beliefs, strict=False)],
        dict(zip(made.pairs, beliefs[len(names) :], strict=True)),
        frozenset({frozenset(names[n] for n in world.excluded)} if world.excluded else set()),
        together={frozenset({terms[i], terms[j]}): float(shared[i, j]) for i, j in combinations(range(len(terms)), 2)},
    )
    on = np.isin(names, chosen.options)
    if not on.any():
        return on, chosen.belief
    factors = np.array([dict(chosen.terms).get(term, 0.0) for term in terms])
    whole = effects(samples, [factors @ contrasts], before=adds(samples))[0].error or 0.0
    apart = math.hypot(*(factor * (e.error or 0.0) for factor, e in zip(factors, found, strict=True)))
    # as trickbag.studies.proof.rests_on has it
    return on, chosen.belief._replace(sd=chosen.belief.sd * max(1.0, whole / apart))


def adds(samples: Sequence[Sample]) -> Share:
    """What seeds add to a cell against the reference."""
    others = len(samples[0].values) - 1
    return seeds_add(samples, np.hstack([-np.ones((others, 1)), np.eye(others)]))


def judging(changes: int) -> tuple[Spread, Spread]:
    """How photos judge a recipe of so many changes in the study, and in the proof."""
    met = POOL * JUDGING // FOLDS
    kept = PERSISTENT * changes
    return expected(met, met, SEEDS, kept=kept), expected(*PROVING, PROOF_SEEDS, kept=kept)


def proof(
    data: Photos,
    world: World,
    samples: Sequence[Sample],
    folds: Sequence[NDArray[np.int64]],
    on: NDArray[np.bool_],
    rng: np.random.Generator,
) -> Estimate:
    """A recipe against the reference with fresh seeds, on photos that chose nothing."""
    pair, test = np.array([np.zeros_like(on), on]), np.arange(POOL, POOL + TEST)
    judges = [np.append(folds[JUDGING + seed % 2], test) for seed in range(PROOF_SEEDS)]
    found = [Sample(data.right(world, pair, rows, rng), rows) for rows in judges]
    return effects(found, [[-1.0, 1.0]], before=adds(samples).carried(*judging(int(on.sum()))))[0]


def foreseen(samples: Sequence[Sample], cells: NDArray[np.bool_], on: NDArray[np.bool_]) -> tuple[float, float]:
    """The standard error of the proof and its degrees of freedom, as ``trickbag.studies.proof.foreseen`` expects them."""
    near = int((cells[1:] != on).sum(1).argmin()) + 1
    row = np.zeros(len(cells))
    row[[0, near]] = -1, 1
    found = spread_of(samples, row)
    assert found
    here, there = judging(int(cells[near].sum()))[0], judging(int(on.sum()))[1]
    known, among = adds(samples), seeds_add(samples, linalg.helmert(len(cells)))
    believed = together(known, among._replace(df=among.df - known.df))
    return elsewhere(found.images, believed, known, here, there, GRAIN / there.groups**2)


def before(world: World, number: int) -> Ended:
    """Each trick alone and left out of all, a fixed tenth that all seeds judge; recommended is what is proved."""
    rng, tricks = np.random.default_rng(number), len(world.gains)
    data, rows = photos(rng, tricks), rng.permutation(POOL)[: POOL // 10]
    eye = np.eye(tricks, dtype=bool)
    cells = np.vstack([np.zeros((1, tricks), bool), eye, np.ones((1, tricks), bool), ~eye])
    seeds = max(3, round(16 * SEEDS / len(cells)))
    samples = [Sample(data.right(world, cells, rows, rng), rows) for _ in range(seeds)]
    contrasts = np.zeros((tricks, len(cells)))
    for n in range(tricks):
        contrasts[n, [1 + n, 0, 1 + tricks, 2 + tricks + n]] = 0.5, -0.5, 0.5, -0.5
    found = effects(samples, contrasts)
    on = np.array([e.verdict in ("helps", "worthwhile") for e in found])
    return Ended(bool(on.any()), 100 * (accuracy(world, on) - ACCURACY), 0.0, 0.0, False)


def kept(ended: Sequence[Ended]) -> Iterator[str]:
    """Rows of a table: of the proofs of which the printed probability lies between two bounds, how many succeed."""
    for low, high in pairwise(BOUNDS):
        own = [e for e in ended if e.tried and low <= e.likely < high]
        likely, proved = (100 * float(np.mean([getattr(e, name) for e in own] or [math.nan])) for name in ("likely", "proved"))
        yield f"| {100 * low:.0f} to {100 * min(high, 1):.0f} | {len(own)} | {likely:.1f} | {proved:.1f} |"


def sized(studies: int) -> Iterator[str]:
    """Rows of a table: how often the gain is proved that a plan prints as proved with 80 % power, by its number of tricks."""
    known = Share(0.0, independent(by_arms(np.hstack([-np.ones((15, 1)), np.eye(15)]))) * (SEEDS - 1)).carried(*judging(0))
    plan = ProofPlan(POOL * 2 // FOLDS + TEST, *PROVING, 0.0, known.df, TRICKS, 1.0)
    cells = factorial.crossed(TRICKS, 0) > 0
    for count in (1, 3, 5, 8):
        on, found = np.arange(TRICKS) < count, list[tuple[float, ...]]()
        for number in range(studies):
            rng = np.random.default_rng(number)
            data, folds = photos(rng), np.array_split(rng.permutation(POOL), FOLDS)
            tried = data.right(WORLDS["null"], np.zeros((2, TRICKS), bool), rng.permutation(POOL)[: POOL // QUARTER], rng) > 0
            gain = plan.least(Expected.counted(*tried).churn, count)
            world = gaining(count, 100 * gain)
            samples = [Sample(data.right(world, cells, folds[s], rng), folds[s]) for s in range(SEEDS)]
            error = foreseen(samples, cells, on)
            seen = proof(data, world, samples, folds, on, rng)
            halves = (100 * half(*one) for one in (error, (seen.error or 0.0, seen.df or 1.0)))
            proved = seen.verdict in ("helps", "worthwhile")
            found.append((100 * gain, 100 * proved, 100 * assurance(gain, 0.0, *error), *halves))
        each = (f"{np.mean(one):.2f} ± {np.std(one, ddof=1):.2f}" for one in np.transpose(found)[[0, 3, 4]])
        shares = (f"{share:.1f}" for share in np.mean(found, axis=0)[1:3])
        yield f"| {count} | {next(each)} | {' | '.join(shares)} | {' | '.join(each)} |"


def half(error: float, df: float) -> float:
    """Half the width of an interval of 95 %."""
    return -float(special.stdtrit(df, 0.025)) * error


def mean(values: Sequence[float]) -> str:
    return f"{np.mean(values):+.2f} ± {np.std(values, ddof=1) / math.sqrt(len(values)):.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--studies", type=int, default=600)
    args = parser.parse_args()
    print(origin(), "", sep="\n", flush=True)
    titles = "what is true", "studies that prove a gain, %", "printed, %", "power at the true gain, %"
    print(f"| {' | '.join(titles)} | true gain of the recommended recipe | before: |  |")
    print(f"|{7 * ' --- |'}")
    ways: tuple[Callable[[World, int], Ended], ...] = (ours, before)
    every = list[Ended]()
    for name, world in WORLDS.items():
        new, old = ([way(world, number) for number in range(args.studies)] for way in ways)
        every += new
        shares = [100 * float(np.mean([getattr(e, field) for e in new])) for field in ("proved", "likely", "power")]
        formerly = 100 * float(np.mean([e.proved for e in old]))
        gains = mean([e.gain for e in new]), mean([e.gain for e in old])
        print(
            f"| {name} | {' | '.join(f'{share:.1f}' for share in shares)} | {gains[0]} | {formerly:.1f} | {gains[1]} |",
            flush=True,
        )
    print("\n| printed, % | proofs | mean, % | of which prove, % |\n|" + 4 * " --- |", *kept(every), sep="\n")
    titles = "tricks", "gain that the plan prints, points", "proved, %", "power of it before the proof, %"
    print(f"\n| {' | '.join(titles)} | ± points, expected before it | ± points, found |\n|{6 * ' --- |'}")
    print(*sized(args.studies), sep="\n")


if __name__ == "__main__":
    main()
