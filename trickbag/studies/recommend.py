"""Which recipe a study recommends: the tricks that proved their worth at a price that the user pays; not the best mean."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from trickbag.ground.errors import UsageError
from trickbag.ground.spec import Spec
from trickbag.recipe import Recipe
from trickbag.report.findings import CONTROLS, Arm, Effect
from trickbag.statistics.verdicts import Estimate
from trickbag.studies.arms import Arm as Planned
from trickbag.studies.arms import Bench
from trickbag.studies.record import Study
from trickbag.tricks import find, parse

DECIDING = ("midpoint", "main", "dropped", "alone", "step", "varied")
"""Kinds of questions that decide on a trick or a value; of several the first counts."""
RUNNERS_UP = 3

Compare = Callable[[Sequence[str], str], Sequence[Estimate]]
"""Names of arms, and of one -> what each has over that one, as one family."""


@dataclass(frozen=True)
class Choice:
    """The recommended recipe."""

    arm: Planned
    gain: float
    """Accuracy over the reference's in the study; 0 for the reference itself."""
    taken: tuple[str, ...]
    """Tricks and values that were taken in."""
    dear: tuple[str, ...]
    """Those that help and cost more than the user pays."""
    proved: bool
    """Whether the recipe was itself trained in the study."""
    rival: bool = False
    """Whether a runner-up took the place of the combination of what helps, having beaten it."""


def choose(study: Study, effects: Sequence[Effect], arms: Sequence[Arm], compare: Compare) -> Choice:
    """The reference with every trick and value whose adjusted lower limit is above 0 and whose price the user pays.

    Up to three runners-up, those with the best means, are compared with it: one that beats it beyond doubt takes its place.
    """
    known = {arm.name: arm for arm in arms}
    limit = study.facts["options"]["price"]
    helping = _helping(effects)
    dear = [e.name for e in helping if (ratio := _ratio(e, study, known)) is not None and ratio > limit]
    recipe, taken = _combined(study, [e for e in helping if e.name not in dear], effects)
    chosen = next((a for a in study.arms if a.recipe.key == recipe.key and a.role not in CONTROLS), None)
    arm = chosen or Planned("recommended", "recommended", " ".join(taken), recipe)
    choice = Choice(arm, _gain(arm.name, known), tuple(taken), tuple(dear), arm.name in known)
    if not choice.proved:
        return choice
    affordable = [
        a for a in arms if a.role not in (*CONTROLS, "reference") and a.price and a.price.ratio <= limit and a.name != arm.name
    ]
    rivals = [a.name for a in sorted(affordable, key=lambda a: -(a.accuracy or 0))[:RUNNERS_UP]]
    for name, estimate in zip(rivals, compare(rivals, arm.name), strict=True):
        if estimate.verdict in ("helps", "worthwhile"):
            rival = next(a for a in study.arms if a.name == name)
            return replace(choice, arm=rival, gain=_gain(name, known), taken=(rival.edits,), rival=True)
    return choice


def _helping(effects: Sequence[Effect]) -> list[Effect]:
    """The effects that speak for their trick or value, the largest first."""
    best: dict[str, Effect] = {}
    for effect in sorted((e for e in effects if e.kind in DECIDING), key=lambda e: DECIDING.index(e.kind)):
        best.setdefault(effect.name, effect)
    return sorted((e for e in best.values() if e.verdict in ("helps", "worthwhile")), key=lambda e: -e.difference)


def _combined(study: Study, helping: Sequence[Effect], effects: Sequence[Effect]) -> tuple[Recipe, list[str]]:
    """The reference with what helps, the largest effects first where two conflict, and without what hurts it."""
    bench = Bench(study.arms[0].recipe, map(parse, study.facts["tricks"]))
    hurting = {e.name for e in effects if e.kind in DECIDING and e.verdict == "hurts"}
    on = [trick for trick in bench.held if str(trick) not in hurting]
    recipe, taken = bench.recipe(on), [f"-{trick.name()}" for trick in bench.held if str(trick) in hurting]
    for trick in (parse(e.name) for e in helping if e.name in map(str, bench.tricks)):
        try:
            recipe = bench.recipe([*on, trick])
        except UsageError:
            continue
        taken += [f"+{trick}"] if trick not in on else []
        on += [trick] if trick not in on else []
    fields: set[str] = set()
    for path, value in ((p, v) for e in helping for p, v in _varied(study, e.name)):
        if path not in fields:
            fields.add(path)
            recipe = _at(recipe, path, value)
            taken.append(f"{path}={value}")
    return recipe, taken


def _varied(study: Study, name: str) -> list[tuple[str, Any]]:
    """The field and the value that a question's name speaks of; nothing where it is of a trick."""
    return [(path, value) for path, values in study.facts["vary"].items() for value in values if name.startswith(f"{path}=")
            and study.named(path, value) == name]  # fmt: skip


def _at(recipe: Recipe, path: str, value: Any) -> Recipe:
    """The recipe with a field, or a trick's field, at a value."""
    name, _, field = path.partition(".")
    if field and name not in {trick.name() for trick in recipe.tricks}:
        return recipe.edit([str(find(name).build(Spec(name, (), {field: value})))])
    return recipe.edit(**{path: value})


def _ratio(effect: Effect, study: Study, known: dict[str, Arm]) -> float | None:
    """The price of what an effect is about, as a multiple of the price without it."""
    pairs = [dict(q.weights) for q in study.questions if q.name == effect.name and q.kind in ("alone", "varied", "dropped")]
    for weights in pairs:
        ours, theirs = (next((known.get(n) for n, w in weights.items() if sign * w > 0), None) for sign in (1, -1))
        if ours and theirs and ours.price and theirs.price:
            return ours.price.seconds / theirs.price.seconds
    return effect.seconds_ratio


def _gain(name: str, known: dict[str, Arm]) -> float:
    """Accuracy of an arm over the reference's; 0 where it was not trained."""
    ours, base = (known[n].accuracy if n in known else None for n in (name, "reference"))
    return ours - base if ours is not None and base is not None else 0.0
