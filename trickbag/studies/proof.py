"""The proof: the nominated recipe against the reference, on images that have chosen nothing, and how likely it succeeds."""

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy

from trickbag.report.findings import CONTROLS, Proof
from trickbag.statistics.belief import Belief
from trickbag.statistics.effects import seeds_add, spread_of
from trickbag.statistics.power import GRAIN, assurance, elsewhere, evenly, expected
from trickbag.statistics.variance import UNKNOWN, Share, Spread, together
from trickbag.studies.arms import Arm as Planned
from trickbag.studies.arms import Question, differences, kept
from trickbag.studies.plan import ProofPlan
from trickbag.studies.questions import Table, dearer, effect, estimates, met, samples, weighted
from trickbag.studies.recommend import NOMINEE, Nomination
from trickbag.studies.record import Judged, Study, table

ROUNDING = 1e-9
"""A sum of weights below this is what rounding leaves of 0."""
SAYS = "the nominated recipe minus the reference"


def rests_on(study: Study, runs: Table, nominated: Nomination) -> Belief:
    """What is believed of a nomination, the less sure the more restless the few arms are on which it rests.

    An effect is a mean over many arms, and its error one over these. The sum of effects that makes a recipe out of the
    reference speaks mostly of the two; it is a contrast as well, whose own error shows where they are unlike the others.
    """
    parts = [(part, factor) for part, factor in nominated.parts if part.error]
    asked = {(question.name, question.kind): question for question in study.questions}
    sums = defaultdict[str, float](float)
    for part, factor in parts:
        for arm, weight in asked[part.name, part.kind].weights:
            sums[arm] += factor * weight
    weights = tuple((arm, weight) for arm, weight in sums.items() if abs(weight) > ROUNDING)
    if not weights:
        return nominated.belief
    question = Question(NOMINEE, "sum", SAYS, weights, False)
    own = estimates(study, runs, [*dict(weights)], [question], before=seeds_here(study))[0]
    apart = math.hypot(*(factor * (part.error or 0.0) for part, factor in parts))
    return nominated.belief._replace(sd=nominated.belief.sd * max(1.0, (own.error or 0.0) / apart))


def proof(study: Study, nominated: Nomination) -> Proof | None:
    """The nominated recipe against the reference on images that chose nothing; None before it was put to the proof."""
    if nominated.arm.recipe.key not in study.nominees:
        return None
    pair = {NOMINEE: nominated.arm, study.arms[0].name: study.arms[0]}
    cells = {name: study.proofs(arm) for name, arm in pair.items()}
    runs: Table = {name: [study.judged(cell) for cell in row] for name, row in cells.items()}
    if not all(judged for row in runs.values() for judged in row):
        return None
    question = Question(NOMINEE, "combination", SAYS, tuple(zip(pair, (1.0, -1.0), strict=True)), True)
    level = level_of(study, nominated)
    here, there = judged_here(study, nominated.arm), judgements(study, runs[NOMINEE], nominated.arm)
    found, loss = (
        estimates(study, runs, [*pair], [question], of, level, seeds_here(study, of).carried(here, there))[0]
        for of in ("correct", "calibrated")
    )
    results = {name: [study.result(cell) for cell in row] for name, row in cells.items()}
    told = effect(question, found, loss, dearer(question, results), study.arms[0].name)
    assert told is not None
    reference, nominee = (tuple(float(j.correct.mean()) for j in runs[name] if j) for name in (study.arms[0].name, NOMINEE))
    return Proof(
        seeds=tuple(study.facts["proof_seeds"]),
        images=met(study, runs)[0],
        level=level,
        reference=reference,
        nominee=nominee,
        effect=told,
        expected=nominated.belief.gain,
    )


class Foreseen(NamedTuple):
    """What a proof will find, by the runs of its study."""

    half: float
    """Half the width of its interval."""
    likely: float
    """The probability that it proves the nominated recipe, over all that is believed of its gain."""

    def words(self) -> str:
        """The end of a sentence on how the proof judges the gain."""
        return (
            f", to about ±{100 * self.half:.2f} points, and prove it with a probability of {100 * self.likely:.0f} %, over all "
            "that it may be"
        )


def foreseen(study: Study, nominated: Nomination, plan: ProofPlan) -> Foreseen | None:
    """What a proof with fresh seeds will find; None where too few seeds say nothing of it.

    How far the proof may be off is taken from the arm that is most like the recipe.
    """
    near, reference = nearest(study, nominated.arm), study.arms[0]
    pair = [reference.name, near.name]
    found = spread_of(samples(study, table(study, study.arms), pair, "correct"), [-1.0, 1.0])
    if not found:
        return None
    here, there = judged_here(study, nominated.arm), plan.spread(kept(nominated.arm.recipe, reference.recipe))
    known, grain = seeds_here(study), GRAIN / plan.groups**2
    error, df = elsewhere(found.images, seeds_by_all(study, known), known, here, there, grain)
    level = level_of(study, nominated)
    half = -float(scipy.special.stdtrit(df, level / 2)) * error
    return Foreseen(half, assurance(*nominated.belief, error, df, level))


def level_of(study: Study, nominated: Nomination) -> float:
    """The level of the test of a nomination: each further recipe on the same images has a stricter one."""
    before, own = study.nominees, nominated.arm.recipe.key
    number = before.index(own) if own in before else len(before)
    # A recipe with another content of a plugin is another nominee, though it is spelled alike.
    edited = [departure for departure in study.facts["departures"] if departure.startswith("plugin ")]
    return 0.05 / (1 + number + len(edited))


def against_reference(study: Study, runs: Table) -> list[Question]:
    """Every arm that has runs against the reference."""
    reference = study.arms[0].name
    pairs = {arm.name: ((arm.name, 1.0), (reference, -1.0)) for arm in study.arms[1:] if any(runs[arm.name])}
    return [Question(name, "alone", SAYS, weights, True) for name, weights in pairs.items()]


def seeds_here(study: Study, of: str = "correct") -> Share:
    """What seeds add to an arm against the reference, which may be more restless than any arm, by the runs of the study."""
    runs, arms = tried(study)
    asked = [question for question in against_reference(study, runs) if question.name in arms]
    return seeds_add(samples(study, runs, arms, of), weighted(asked, arms)) if asked else UNKNOWN


def seeds_by_all(study: Study, known: Share) -> Share:
    """What seeds add to an arm against the reference, by ``seeds_here`` and by what all differences of arms say besides."""
    runs, arms = tried(study)
    if len(arms) < 2:
        return known
    among = seeds_add(samples(study, runs, arms, "correct"), scipy.linalg.helmert(len(arms)))
    return together(known, among._replace(df=max(among.df - known.df, 0.0)))


def tried(study: Study) -> tuple[Table, list[str]]:
    """All runs, and the arms that have any, without controls."""
    runs = table(study, study.arms)
    return runs, [arm.name for arm in study.arms if any(runs[arm.name]) and arm.role not in CONTROLS]


def judged_here(study: Study, wanted: Planned) -> Spread:
    """How images judge the arm that is most like another in the study itself."""
    near = nearest(study, wanted)
    return judgements(study, table(study, [near])[near.name], near)


def judgements(study: Study, runs: Sequence[Judged | None], arm: Planned) -> Spread:
    """The expected spread of an arm against the reference where images judge as in these runs."""
    judges = [np.unique(study.groups[one.rows]) for one in runs if one]
    images, judged = evenly(np.unique(np.concatenate(judges), return_counts=True)[1])
    return expected(images, judged, len(judges), kept=kept(arm.recipe, study.arms[0].recipe))


def nearest(study: Study, wanted: Planned) -> Planned:
    """The arm with runs, not a control unless it is wanted, whose recipe differs least from another."""
    runs = table(study, study.arms[1:])
    arms = [arm for arm in study.arms[1:] if any(runs[arm.name]) and (arm.role not in CONTROLS or arm == wanted)]
    return min(arms, key=lambda arm: differences(arm.recipe, wanted.recipe))
