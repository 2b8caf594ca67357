"""The designs of a study: which arms are trained, and which contrasts between them answer which question.

Pure values: recipes and tricks in, arms and questions out. A trick's effect is always *with minus without*. For a trick that
the reference lacks, "with" is an arm of its own and "without" the reference; of one that the reference holds as spelled it is
asked what it is worth there, and "without" is an arm. A trick of another spelling than the reference's takes its place, and
"without" is then the reference's own. What cannot be built is listed with the reason and not run.

The declared questions give one verdict for each trick, step or value, and one for the combination; their intervals are adjusted
together. Two-sided designs declare the midpoint, which has the smallest standard error.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from trickbag.ground.errors import UsageError
from trickbag.ground.spec import Spec, spell
from trickbag.recipe import Recipe
from trickbag.report.findings import CONTROLS
from trickbag.studies import factorial
from trickbag.studies.arms import Arm, Bench, Design, Question, Weights, ask, blend, minus
from trickbag.trick import Trick
from trickbag.tricks import find

__all__ = ["Arm", "Design", "Question", "design", "matched"]

WEAKNESS = {
    "add-one": "It cannot show interactions: a trick that helps only beside another looks useless.",
    "leave-one-out": "It hides substitutes: of two tricks that do the same, each looks useless beside the other.",
    "two-sided": "It shows how much the effect of a trick depends on all others together, but not on which of them.",
    "stack": "Each step depends on those before it. Two orders are run; where they differ, neither is the trick's own effect.",
    "factorial": "A main effect is a mean over many combinations, most of which nobody would use.",
}
"""What each design cannot tell."""
DEAR = 1.05
"""Price, as a multiple of the reference's, above which a compute-matched reference is trained."""
MATCHED = ("alone", "full")
"""Roles of the arms that get one."""
FRACTION = (
    "Not all combinations are run: a main effect stands for itself and interactions of {order} or more tricks{pairs}. "
    "Confirm with leave-one-out around the chosen recipe."
)
UNTRAINED_KEEP = (
    "model", "weights", "size", "fit", "crop_share", "precision", "channels_last", "compile", "mean", "std",
    "val_share", "test_share",
)  # fmt: skip
"""Fields of the reference that the rows of 1-NN and of the classifier alone share: the same images, judged by its network."""
PROBE = "classifier alone"
"""The control that says whether training the network is worth anything: a classifier on its features as they are."""


def design(
    reference: Recipe,
    tricks: Sequence[Trick],
    *,
    kind: str = "auto",
    vary: Mapping[str, Sequence[Any]] = {},
    combine: Sequence[Sequence[Trick]] = (),
    same: int = 0,
) -> Design:
    """The arms and questions of a study around a reference.

    ``kind``: auto, add-one, leave-one-out, two-sided, stack or factorial. ``vary``: field of the recipe, or of a trick
    ("mixup.alpha"; the trick is put in where the reference lacks it) -> values, an arm for each but the reference's own.
    ``combine``: tricks that are put in together, an arm for each list.
    ``same``: A/A arms, the reference with other seeds. A placebo always runs, and where the reference starts from weights a row
    of 1-NN and one of a classifier on the features of these weights. Equal recipes are one arm. Raises UsageError for an
    unknown kind or field and where nothing is asked.

    >>> from trickbag.tricks import parse
    >>> [arm.name for arm in design(Recipe(), [parse("mixup"), parse("ema")], kind="leave-one-out").arms]
    ['reference', 'all', 'all without mixup', 'all without ema', 'placebo']
    """
    bench = Bench(reference, tricks)
    check_asked(bench.tricks, vary, combine, same)
    if kind not in ("auto", *WEAKNESS):
        raise UsageError(f"there is no design {kind!r}. Choose auto, {', '.join(WEAKNESS)}.")
    kind, reason = _chosen(bench) if kind == "auto" else (kind, "")
    shaping = sum(trick.begin() < 1.0 for trick in bench.tricks)
    if kind == "factorial" and max(shaping, len(bench.tricks) - shaping) > factorial.MOST:
        raise UsageError(
            f"factorial: {len(bench.tricks)} tricks, {shaping} of which shape the training; the limit is {factorial.MOST} of "
            "these, and of the others. Name fewer, or use --design add-one."
        )
    asked = [*_QUESTIONS[kind](bench), *_varied(bench, vary), *_combined(bench, combine), *_controls(bench, same)]
    if not same and all(arm.role in ("reference", *CONTROLS) for arm in bench.arms.values()):
        why = "; ".join(text for name, text in bench.not_run.items() if name not in CONTROLS)
        why = why or "each value to try is the reference's own"
        raise UsageError(f"There is nothing to study: {why}. Name other tricks (--tricks) or values (--vary).")
    aliases = tuple((question.name, *question.aliases) for question in asked if question.aliases)
    weakness = WEAKNESS[kind] + (_fraction_says(bench.together()) if kind == "factorial" else "")
    return Design(kind, tuple(bench.arms.values()), _once(asked), weakness, tuple(bench.not_run.values()), aliases, reason)


def check_asked(
    tricks: Sequence[Trick], vary: Mapping[str, Sequence[object]], combine: Sequence[Sequence[Trick]], same: int
) -> None:
    """Raise UsageError where nothing is asked."""
    if not tricks and not any(vary.values()) and not combine and not same:
        raise UsageError("There is nothing to study: name tricks (--tricks) or values (--vary) to try.")


def matched(reference: Recipe, ratio: float) -> Arm:
    """The reference trained ``ratio`` times as long, in whole epochs: it pays what a trick of that price costs.

    The recipe equals the reference's, and need not be run, where the ratio adds no epoch.

    >>> matched(Recipe(epochs=40), 1.3).edits
    'epochs=52'
    """
    epochs = round(reference.epochs * ratio)
    return Arm(f"reference, {epochs} epochs", "matched", f"epochs={epochs}", reference.edit(epochs=epochs))


def untrained(reference: Recipe, name: str) -> Recipe:
    """A built-in recipe that trains no network, with the network and images of the reference."""
    return Recipe.load(name).edit(**{field: getattr(reference, field) for field in UNTRAINED_KEEP})


def _alone(bench: Bench, trick: Trick, weights: Weights, declared: bool = True) -> Question:
    held = trick in bench.held
    says = "the reference minus the reference without it" if held else "the reference with it minus the reference"
    return ask(trick, "alone", says, weights, declared)


def _dropped(trick: Trick, weights: Weights, declared: bool = True) -> Question:
    return ask(trick, "dropped", "all that go together minus all without it", weights, declared)


def _add_one(bench: Bench) -> list[Question]:
    return [_alone(bench, trick, weights) for trick, weights in bench.alone().items()]


def _leave_one_out(bench: Bench) -> list[Question]:
    return [*(_dropped(trick, weights) for trick, weights in bench.dropped().items()), bench.combination()]


def _two_sided(bench: Bench) -> list[Question]:
    alone, dropped = bench.alone(), bench.dropped()
    middle = (
        "the mean of what it adds to the reference and to all the others, its Shapley value if tricks interact in pairs only"
    )
    gap = "what it adds to all the others minus what it adds to the reference"
    return [
        *(_alone(bench, trick, weights, trick not in dropped) for trick, weights in alone.items()),
        *(_dropped(trick, weights, False) for trick, weights in dropped.items()),
        *(ask(t, "midpoint", middle, blend(alone[t], 0.5, dropped[t], 0.5)) for t in dropped),
        *(ask(t, "interaction", gap, blend(dropped[t], 1.0, alone[t], -1.0), False) for t in dropped),
        bench.combination(),
    ]


def _stack(bench: Bench) -> list[Question]:
    together, asked = bench.together(), []
    for order, label in ((together, ""), (together[::-1], " (reversed order)")):
        arm = bench.add("start", "stack", bench.recipe([]))
        for n, trick in enumerate(order, 1):
            recipe, before = bench.recipe(order[:n]), arm
            arm = bench.full() if n == len(order) else bench.add(f"step {n}: +{trick}{label}", "stack", recipe)
            says = f"step {n} of {len(order)}{label}: with it minus the step before"
            asked.append(ask(f"{trick}{label}", "step", says, minus(arm, before), not label))
    return [*asked, bench.combination()]


def _factorial(bench: Bench) -> list[Question]:
    """A fraction of all combinations of what shapes the training, each judged with all combinations of what does not."""
    tricks = tuple(sorted(bench.together(), key=lambda trick: trick.begin() == 1.0))
    apart = [_alone(bench, trick, weights) for trick, weights in bench.alone(set(bench.tricks) - set(tricks)).items()]
    if not tricks:
        return apart
    shaping = sum(trick.begin() < 1.0 for trick in tricks)
    on = factorial.crossed(shaping, len(tricks) - shaping) * [-1.0 if trick in bench.held else 1.0 for trick in tricks]
    rows = [[trick for trick, sign in zip(tricks, row, strict=True) if sign > 0] for row in on]
    whole = [len(row) == len(tricks) for row in rows]
    cells = [bench.full() if all_on else _cell(bench, row) for row, all_on in zip(rows, whole, strict=True)]

    def contrast(column: factorial.Signs) -> Weights:
        return dict(zip(cells, column.tolist(), strict=True))

    def name(pair: factorial.Pair) -> str:
        return f"{tricks[pair[0]]} × {tricks[pair[1]]}"

    mean, twice = (
        "the mean of the cells with it minus the mean of those without",
        "the effect of one with the other minus without it",
    )
    asked = [ask(t, "main", mean, contrast(w)) for t, w in zip(tricks, factorial.main(on).T, strict=True)]
    for (first, _), *others in factorial.chains(on):
        aliases = tuple(f"minus {name(pair)}" if sign < 0 else name(pair) for pair, sign in others)
        asked.append(ask(name(first), "pair", twice, contrast(factorial.pair(on, *first)), False, aliases))
    if len(cells) == 2 ** len(tricks):
        orders = "the mean over all orders of adding the tricks of what it adds when it comes"
        values = zip(tricks, factorial.shapley(on).T, strict=True)
        asked += [ask(trick, "shapley", orders, contrast(weights), False) for trick, weights in values]
    return [*asked, *apart, *([bench.combination()] if any(whole) else [])]


def _cell(bench: Bench, on: list[Trick]) -> str:
    """The arm with these of the tried tricks, and named after them."""
    return bench.add(", ".join(map(str, on)) or "none of the tricks", "cell", bench.recipe(on))


_QUESTIONS: dict[str, Callable[[Bench], list[Question]]] = {
    "add-one": _add_one,
    "leave-one-out": _leave_one_out,
    "two-sided": _two_sided,
    "stack": _stack,
    "factorial": _factorial,
}


def _chosen(bench: Bench) -> tuple[str, str]:
    """What auto takes, and why."""
    if not bench.tricks:
        return "add-one", "there are only values to try, each compared with the reference"
    shaping = sum(trick.begin() < 1.0 for trick in bench.together())
    if len(bench.tricks) == 1:
        return "add-one", "there is one trick to try"
    if shaping > factorial.MOST:
        return "add-one", f"a factorial design takes at most {factorial.MOST} tricks that shape the training, not {shaping}"
    return "factorial", "every run then informs on every trick"


def _fraction_says(together: Sequence[Trick]) -> str:
    k = sum(trick.begin() < 1.0 for trick in together)
    if k <= 4:
        return ""
    if k == 5:
        return " " + FRACTION.format(order="four", pairs="")
    return " " + FRACTION.format(order="three", pairs=", and interactions of two tricks come in groups that no arm tells apart")


def _varied(bench: Bench, vary: Mapping[str, Sequence[Any]]) -> Iterable[Question]:
    names = {trick.name() for trick in bench.reference.tricks}
    for path, value in ((path, value) for path, values in vary.items() for value in values):
        label = f"{path}={value if isinstance(value, str) else spell(value)}"
        name, _, field = path.partition(".")
        if field and name not in names:
            trick = find(name).build(Spec(name, (), {field: value}))
            try:
                recipe = bench.reference.edit([str(trick)])
            except UsageError as why:
                bench.not_run[label] = f"{label}: {why}"
                continue
        else:
            whole = dict(bench.reference) | {path: value}
            recipe = bench.reference.edit(**{path: value}) if field else Recipe.build(whole)
        arm = bench.add(label, "varied", recipe)
        yield ask(label, "varied", "with this value minus the reference", minus(arm, "reference"))


def _combined(bench: Bench, combine: Sequence[Sequence[Trick]]) -> Iterable[Question]:
    for tricks in combine:
        label = " + ".join(map(str, tricks))
        try:
            arm = bench.add(label, "full", bench.recipe(tricks))
        except UsageError as why:
            bench.not_run[label] = f"{label}: {why}"
        else:
            yield ask(label, "combination", "these tricks together minus the reference", minus(arm, "reference"))


def _controls(bench: Bench, same: int) -> Iterable[Question]:
    reference = bench.reference
    arm = bench.add("placebo", "placebo", reference.edit(["placebo"]))
    yield ask("placebo", "control", "a trick that does nothing, so the difference must be 0", minus(arm, "reference"), False)
    if reference.weights == "none":
        bench.not_run["one-nn"] = "one-nn: the reference starts from scratch, so there are no features to compare images by yet"
    else:
        yield _untrained(bench, "one-nn", "one-nn", "the nearest training image's class minus the reference")
        if reference.epochs:
            yield _untrained(
                bench, PROBE, "linear-probe", "a classifier on the features of the initial weights minus the reference"
            )
    for n in range(1, same + 1):
        arm = bench.add(f"same {n}", "same", reference, "other seeds", 1000 * n)
        yield ask(arm, "control", "the reference with other seeds minus itself", minus(arm, "reference"), False)


def _untrained(bench: Bench, role: str, name: str, says: str) -> Question:
    """What the reference's initial features are worth."""
    arm = bench.add(role, role, untrained(bench.reference, name), f"the recipe {name}")
    return ask(role, "control", says, minus(arm, "reference"), False)


def _once(asked: Iterable[Question]) -> tuple[Question, ...]:
    """Those that compare anything; of two with the same weights the first, declared if either is."""
    found: dict[frozenset[tuple[str, float]], Question] = {}
    for question in asked:
        first = found.setdefault(frozenset(question.weights), question)
        found[frozenset(question.weights)] = replace(first, declared=first.declared or question.declared)
    found.pop(frozenset(), None)
    return tuple(found.values())
