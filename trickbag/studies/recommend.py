"""Which recipe a study nominates for the proof: what is believed of each trick and value, and the best they make together."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

from trickbag.ground.errors import UsageError
from trickbag.ground.spec import Spec
from trickbag.recipe import Recipe
from trickbag.report.findings import Effect
from trickbag.statistics.belief import Belief, Prior, alike, belief, off_by
from trickbag.statistics.effects import UNMOVED
from trickbag.statistics.nominate import Option, Term, nominee
from trickbag.studies.arms import Arm, Bench
from trickbag.studies.design import PROBE
from trickbag.studies.record import Study
from trickbag.tricks import find, parse

DECIDING = ("midpoint", "main", "dropped", "alone", "step", "varied")
"""Kinds of questions that decide on a trick or a value; of several the first counts."""
FREE = 1.05
"""Price, as a multiple of the reference's, up to which a recipe costs nothing more."""
NOMINEE = "nominee"
"""The name of a nominated recipe that is no arm of the study."""


@dataclass(frozen=True)
class Nomination:
    """The recipe of the largest expected gain, of those that the user pays for."""

    arm: Arm
    """One of the study, or a new one; the reference where no change is expected to gain."""
    changes: tuple[str, ...]
    """From the reference, as spelled: "+mixup", "-warmup", "batch_size=16"."""
    parts: tuple[tuple[Effect, float], ...]
    """Effects of which its gain is made, with the factor of each."""
    belief: Belief
    price: float
    """Expected, as a multiple of the reference's."""
    dear: tuple[str, ...]
    """Changes that would have been among them, but cost more than the user pays."""


@dataclass(frozen=True)
class Change:
    """One step from the reference: a trick in or out, a field at another value, or another recipe."""

    says: str
    trick: Any = None
    held: bool = False
    """Whether the reference has the trick, so that the change takes it out."""
    field: tuple[str, Any] | None = None
    whole: Recipe | None = None
    """A recipe that takes the reference's place."""


def deciding(effects: Sequence[Effect]) -> dict[str, Effect]:
    """The effect that decides on each trick and value."""
    found: dict[str, Effect] = {}
    for effect in sorted((e for e in effects if e.kind in DECIDING), key=lambda e: DECIDING.index(e.kind)):
        found.setdefault(effect.name, effect)
    return {effect.name: found[effect.name] for effect in effects if found.get(effect.name) is effect}


class Beliefs(NamedTuple):
    """What is believed of tricks and values, and of interactions of two, by the names of effects."""

    of: dict[str, Belief]
    """Each."""
    together: dict[frozenset[str], float]
    """Covariances of two."""


def clear(study: Study) -> set[str]:
    """The interactions of two that the design tells from all others, by name."""
    return {question.name for question in study.questions if question.kind == "pair" and not question.aliases}


def believed(effects: Sequence[Effect], priors: Mapping[str, Prior], pairs: Collection[str] = ()) -> Beliefs:
    """What is believed of each trick and value that was measured, and of these ``pairs``; those in ``priors`` were expected.

    The others are shrunk together, towards the mean of them all, and interactions towards nothing.
    """
    measured = {name: e for name, e in deciding(effects).items() if e.error and UNMOVED not in e.note}
    both = measured | {e.name: e for e in effects if e.name in pairs and e.error and measured}
    shrunk, covariances = alike(*known(both.values()), pairs=len(both) - len(measured))
    found = {
        name: belief(e.difference, sd(e), priors[name]) if name in priors else own
        for (name, e), own in zip(both.items(), shrunk, strict=True)
    }
    together = {
        frozenset({a, b}): float(covariances[i, j])
        for (i, a), (j, b) in combinations(enumerate(both), 2)
        if a not in priors and b not in priors
    }
    # What changed no answer gains nothing: the others' effects say nothing of it.
    same = {name: Belief(0.0, sd(e)) for name, e in deciding(effects).items() if e.verdict == "identical" or UNMOVED in e.note}
    # Training nothing is no trick among others: what was measured of it stands for itself.
    probe = {e.name: Belief(e.difference, sd(e)) for e in effects if e.name == PROBE and e.error}
    return Beliefs(found | same | probe, together)


def known(effects: Iterable[Effect]) -> tuple[list[float], list[float]]:
    """What was measured of effects, and how far each may be off."""
    own = list(effects)
    return [e.difference for e in own], [sd(e) for e in own]


def sd(effect: Effect) -> float:
    """How far an effect may be off, 0 of one and the same network."""
    return off_by(effect.error, effect.df) if effect.error and effect.df else 0.0


def source(effects: Sequence[Effect], priors: Mapping[str, Prior]) -> str:
    """What the expected gains lean on, in words."""
    names = deciding(effects)
    given = [name for name in names if name in priors]
    own = "the mean of all of this study's effects, the more so the less certain it is"
    if not given:
        return own
    files = ", ".join(dict.fromkeys(priors[name].source for name in given))
    return f"{files}, for {', '.join(given)}" + (f"; for the others {own}" if len(given) < len(names) else "")


def nominate(study: Study, effects: Sequence[Effect], beliefs: Beliefs) -> Nomination:
    """The recipe that is worth a proof: the reference itself where no change is expected to gain."""
    bench = Bench(study.arms[0].recipe, map(parse, study.facts["tricks"]))
    changes = changed(study, bench, beliefs.of)
    measured = {effect.name: effect for effect in [*effects, *deciding(effects).values()]}
    terms = {name: Term({name}) for name in changes} | paired(changes, beliefs.of)
    sign = {name: math.prod(-1.0 if changes[change].held else 1.0 for change in term) for name, term in terms.items()}
    own = {name: Belief(sign[name] * beliefs.of[name].gain, beliefs.of[name].sd) for name in terms}
    options = [Option(name, own[name], (measured[name].seconds_ratio or 1.0) ** sign[name]) for name in changes]
    pairs = {term: own[name] for name, term in terms.items() if name not in changes}
    together = {
        frozenset({terms[a], terms[b]}): sign[a] * sign[b] * value
        for (a, b), value in beliefs.together.items()
        if {a, b} <= terms.keys()
    }
    excluded = excluding(bench, changes)
    chosen = nominee(options, pairs, excluded, study.facts["options"]["price"], together)
    free = nominee(options, pairs, excluded)
    recipe = made(bench, [changes[name] for name in chosen.options])
    arm = next((arm for arm in study.arms if arm.recipe.key == recipe.key and arm.seed_offset == 0), None)
    says, factors = tuple(changes[name].says for name in chosen.options), dict(chosen.terms)
    return Nomination(
        arm or Arm(NOMINEE, NOMINEE, " ".join(says), recipe),
        says,
        tuple((measured[name], sign[name] * factors[term]) for name, term in terms.items() if term in factors),
        chosen.belief,
        chosen.price,
        tuple(changes[name].says for name in free.options if name not in chosen.options),
    )


def changed(study: Study, bench: Bench, beliefs: Mapping[str, Belief]) -> dict[str, Change]:
    """The changes that the effects speak of, by the names of these."""
    held = {str(trick) for trick in bench.held}
    tricks = {
        str(trick): Change(f"-{trick.name()}" if str(trick) in held else f"+{trick}", trick, str(trick) in held)
        for trick in bench.tricks
    }
    fields = {
        study.named(path, value): Change(study.named(path, value), field=(path, value))
        for path, values in study.facts["vary"].items()
        for value in values
    }
    probe = {arm.name: Change("the classifier alone", whole=arm.recipe) for arm in study.arms if arm.role == PROBE}
    return {name: change for name, change in (tricks | fields | probe).items() if name in beliefs}


def paired(changes: Collection[str], beliefs: Collection[str]) -> dict[str, Term]:
    """The interactions of two changes, by name."""
    return {name: Term({a, b}) for a in changes for b in changes if (name := f"{a} × {b}") in beliefs}


def excluding(bench: Bench, changes: Mapping[str, Change]) -> frozenset[frozenset[str]]:
    """The pairs of changes that cannot stand together: tricks that conflict, two values of a field, and another recipe."""
    found = set()
    for (a, one), (b, other) in combinations(changes.items(), 2):
        fields = [change.field[0] for change in (one, other) if change.field]
        try:
            made(bench, [one, other])
        except UsageError:
            found.add(frozenset({a, b}))
        if len(fields) > len(set(fields)) or one.whole or other.whole:
            found.add(frozenset({a, b}))
    return frozenset(found)


def made(bench: Bench, changes: Sequence[Change]) -> Recipe:
    """The reference with these changes. Raises UsageError where they conflict."""
    if whole := next((change.whole for change in changes if change.whole), None):
        return whole
    out = {change.trick for change in changes if change.held}
    put = [change.trick for change in changes if change.trick is not None and not change.held]
    recipe = bench.recipe([*(trick for trick in bench.held if trick not in out), *put])
    for path, value in (change.field for change in changes if change.field):
        name, _, field = path.partition(".")
        if field and name not in {trick.name() for trick in recipe.tricks}:
            recipe = recipe.edit([str(find(name).build(Spec(name, (), {field: value})))])
        else:
            recipe = recipe.edit(**{path: value})
    return recipe


def after_proof(nomination: Nomination, seen: Effect) -> Belief:
    """What is believed of a nominated recipe once the proof has measured its gain."""
    return belief(seen.difference, sd(seen), Prior(nomination.belief.gain, max(nomination.belief.sd, math.ulp(1.0)) ** 2))
