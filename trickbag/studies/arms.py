"""Arms and the contrasts between them: what a design is made of, and the bench on which it is laid out."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from trickbag.ground.errors import UsageError
from trickbag.recipe import Recipe, idle
from trickbag.statistics.power import PERSISTENT, UNTRAINED
from trickbag.trick import Trick, conflict

Weights = dict[str, float]
"""Arm -> weight in a contrast."""


@dataclass(frozen=True)
class Arm:
    """A recipe of the study."""

    name: str
    """Unique, for people."""
    role: str
    """reference, alone, dropped, full, stack, varied, cell, placebo, one-nn, classifier alone, same (A/A) or matched."""
    edits: str
    """What differs from the reference, as spelled: "+mixup(alpha=0.4) -warmup batch_size=16"."""
    recipe: Recipe
    seed_offset: int = 0
    """Added to every seed of the study."""


@dataclass(frozen=True)
class Question:
    """A contrast between arms."""

    name: str
    kind: str
    """alone, dropped, midpoint, interaction, step, varied, main, pair, shapley, combination or control."""
    says: str
    weights: tuple[tuple[str, float], ...]
    """Arm and weight; the weights sum to 0."""
    declared: bool
    """Whether it belongs to the family whose intervals are adjusted together."""
    aliases: tuple[str, ...] = ()
    """Effects that the design cannot tell from this one; "minus" where they enter with the other sign."""


@dataclass(frozen=True)
class Design:
    """The arms and questions of a study. Raises ValueError where a question's weights do not fit the arms."""

    kind: str
    arms: tuple[Arm, ...]
    """The reference first."""
    questions: tuple[Question, ...]
    weakness: str
    """What the design cannot tell."""
    not_run: tuple[str, ...]
    """Arms that cannot be built, with the reason."""
    aliases: tuple[tuple[str, ...], ...]
    """Interactions that the design cannot tell apart, a row each."""
    reason: str = ""
    """Why auto chose this design; empty where the user did."""

    def __post_init__(self) -> None:
        names = {arm.name for arm in self.arms}
        if len(names) < len(self.arms):
            raise ValueError(f"two arms have one name: {[arm.name for arm in self.arms]}")
        for question in self.questions:
            if abs(sum(weight for _, weight in question.weights)) > 1e-9:
                raise ValueError(f"{question.kind} of {question.name}: the weights do not sum to 0")
            if missing := {arm for arm, _ in question.weights} - names:
                raise ValueError(f"{question.kind} of {question.name}: there is no arm {', '.join(sorted(missing))}")


def differences(one: Recipe, other: Recipe) -> int:
    """In how many fields and tricks two recipes differ."""
    ours, theirs = (
        {name: value for name, value in recipe if name != "tricks"} | {f"+{trick.name()}": trick for trick in recipe.tricks}
        for recipe in (one, other)
    )
    return sum(bool(ours.get(name) != theirs.get(name)) for name in ours.keys() | theirs.keys())


def kept(one: Recipe, other: Recipe) -> float:
    """What one recipe does to an image beside another in every training: its variance, as a multiple of the churn."""
    return UNTRAINED if (one.epochs == 0) != (other.epochs == 0) else PERSISTENT * differences(one, other)


class Bench:
    """Where a design is laid out: the arms so far, and what could not be one."""

    def __init__(self, reference: Recipe, tricks: Iterable[Trick]) -> None:
        self.reference = reference
        self.tricks = tuple(dict.fromkeys(tricks))
        self.held = tuple(trick for trick in self.tricks if trick in reference.tricks)
        self.arms: dict[tuple[str, int], Arm] = {}
        self.not_run: dict[str, str] = {}
        self.add("reference", "reference", reference)

    def recipe(self, on: Collection[Trick]) -> Recipe:
        """The reference with those of the tricks that are on and without the others. Raises UsageError where they conflict.

        A trick of the reference that is not tried itself makes room for one that is, as its optimiser for another one.
        """
        own = [trick for trick in self.reference.tricks if trick in on or trick not in self.tricks]
        kept = [trick for trick in own if trick in on or not any(conflict(trick, other) for other in on)]
        return self.reference.edit(tricks=[*kept, *(trick for trick in on if trick not in kept)])

    def add(self, name: str, role: str, recipe: Recipe, edits: str | None = None, seed_offset: int = 0) -> str:
        """The name of the arm of that recipe, which is made where there is none."""
        edits = _edits(self.reference, recipe) if edits is None else edits
        return self.arms.setdefault((recipe.key, seed_offset), Arm(name, role, edits, recipe, seed_offset)).name

    def together(self) -> tuple[Trick, ...]:
        """The tricks that go together, as ordered; the reference's own before others, else the earlier before the later."""
        on = self.held
        for trick in self.tricks:
            if trick not in on:
                try:
                    recipe = self.recipe([*on, trick])
                except UsageError as why:
                    self.not_run.setdefault(str(trick), f"{trick} with the others: {why}")
                    continue
                if why_idle := idle(trick, recipe) or unmeasured(trick):
                    self.not_run.setdefault(str(trick), why_idle)
                else:
                    on = (*on, trick)
        return tuple(trick for trick in self.tricks if trick in on)

    def full(self) -> str:
        """The arm of the tricks that go together."""
        return self.add("all", "full", self.recipe(self.together()))

    def alone(self, among: Collection[Trick] | None = None) -> dict[Trick, Weights]:
        """What each trick that can be tried adds to the reference, or the reference would lack without it."""
        found = {}
        for trick in self.tricks if among is None else [trick for trick in self.tricks if trick in among]:
            if trick in self.held:
                arm = self.add(f"without {trick}", "dropped", self.recipe([t for t in self.held if t != trick]))
                found[trick] = minus("reference", arm)
                continue
            try:
                recipe = self.recipe([t for t in self.held if t.name() != trick.name()] + [trick])
            except UsageError as why:
                self.not_run[str(trick)] = f"{trick}: {why}"
                continue
            if why_idle := idle(trick, recipe) or unmeasured(trick):
                self.not_run[str(trick)] = why_idle
            else:
                found[trick] = minus(self.add(str(trick), "alone", recipe), "reference")
        return found

    def dropped(self) -> dict[Trick, Weights]:
        """What all tricks that go together lack without each."""
        together, full = self.together(), self.full()
        rest = {trick: self.recipe([t for t in together if t != trick]) for trick in together}
        return {t: minus(full, self.add(f"{full} without {t}", "dropped", recipe)) for t, recipe in rest.items()}

    def combination(self) -> Question:
        """What all tricks that go together add to the reference."""
        return ask("all", "combination", "all tricks that go together minus the reference", minus(self.full(), "reference"))


def unmeasured(trick: Trick) -> str:
    """Why a study has nothing to measure of a trick, as a sentence; an empty string where it has."""
    if "sets" not in trick.plugs() or set(trick.plugs()) - {"doubt", "setup", "finish", "sets"}:
        return ""
    return f"{trick} leaves all predictions as they are, which are what a study measures. Train with it: --with {trick.name()}."


def minus(arm: str, other: str) -> Weights:
    """One arm minus another; nothing where they are the same."""
    return {arm: 1.0, other: -1.0} if arm != other else {}


def blend(first: Weights, a: float, second: Weights, b: float) -> Weights:
    """``a`` times the first contrast plus ``b`` times the second, without weights of 0."""
    mixed = {arm: a * first.get(arm, 0.0) + b * second.get(arm, 0.0) for arm in first | second}
    return {arm: weight for arm, weight in mixed.items() if weight}


def ask(name: object, kind: str, says: str, weights: Weights, declared: bool = True, aliases: tuple[str, ...] = ()) -> Question:
    """The question with these weights."""
    return Question(str(name), kind, says, tuple(weights.items()), declared, aliases)


def _edits(reference: Recipe, recipe: Recipe) -> str:
    """What differs: tricks put in, tricks taken out, fields."""
    names, old = {trick.name() for trick in recipe.tricks}, reference.spelled()
    put = [f"+{trick}" for trick in recipe.tricks if trick not in reference.tricks]
    gone = [f"-{trick.name()}" for trick in reference.tricks if trick.name() not in names]
    fields = [f"{name}={value}" for name, value in recipe.spelled().items() if name != "tricks" and value != old[name]]
    return " ".join([*put, *gone, *fields])
