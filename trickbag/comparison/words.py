"""What a comparison says, in sentences and in rows of a table."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from trickbag.ground.text import clipped, counted, show
from trickbag.report.findings import Effect
from trickbag.report.wording import DASH, number, percent, points, signed, span, spread, verdict
from trickbag.statistics.intervals import Interval

if TYPE_CHECKING:
    from trickbag.comparison.compare import Comparison, Method, Versus

Write = Callable[[float], str]
HEAD = ("method", "mean ± sd", "runs", "difference", "95 %", "p (Holm)", "verdict")
NAME = 80
"""Characters of a method's name in a sentence."""
MOST = 5
"""Pairs that get a sentence."""
SPEAKS = {
    "methods": "",
    "networks": "This speaks of these trained networks on new photos, not of the methods: other seeds give other networks.",
    "scores": "This speaks of new seeds on the same images, not of new photos, and takes a higher score for a better one.",
}


def answer(kind: str, reference: str, pairs: Sequence["Versus"], delta: float) -> tuple[str, ...]:
    """A sentence for each of the first pairs, and what they speak of."""
    said = [sentence(kind, named(reference), pair, delta) for pair in pairs[:MOST]]
    if len(pairs) > MOST:
        said.append(f"The table has {counted(len(pairs) - MOST, 'more method')}.")
    return tuple(filter(None, [*said, SPEAKS[kind]]))


def named(method: str) -> str:
    """A method in a sentence."""
    return show(clipped(method, NAME))


def sentence(kind: str, reference: str, pair: "Versus", delta: float) -> str:
    """Which of two is better, by how much, and how sure."""
    effect, ours = pair.effect, named(pair.effect.name)
    if effect.verdict == "identical":
        return f"{ours} and {reference} give the same answers on all images ({_basis(kind, pair)})."
    if effect.interval is None:
        why = effect.note or "there is too little to judge it by"
        return f"{ours} minus {reference}: {_measured(kind, pair, effect.difference)}. That is no verdict: {why}."
    if effect.verdict == "equivalent":
        within = f"within ±{number(100 * delta)}, which counts as equal"
        return (
            f"{ours} and {reference} are practically equal on new photos: {_measured(kind, pair, effect.difference)}, {within}."
        )
    better = "scores higher" if kind == "scores" else "is better"
    where = "" if kind == "scores" else " on new photos"
    if effect.verdict == "open":
        measured = _measured(kind, pair, effect.difference)
        return f"It is not decided whether {ours} or {reference} {better}{where}: {measured}.{_more(effect)}"
    best, other, sign = (reference, ours, -1) if effect.verdict == "hurts" else (ours, reference, 1)
    small = max(map(abs, effect.interval)) < delta
    tail = f" That is within ±{number(100 * delta)} points, too small to matter." if small else ""
    return f"{best} {better} than {other}{where} by {_measured(kind, pair, sign * effect.difference, sign)}.{tail}"


def _measured(kind: str, pair: "Versus", difference: float, sign: int = 1) -> str:
    """A difference with its interval, and what both rest on; ``sign`` -1 turns the interval around."""
    write: Write = _score if kind == "scores" else points
    unit = "" if kind == "scores" else " points"
    found = pair.effect.interval
    turned = found if found is None or sign > 0 else Interval(-found.high, -found.low)
    ends = f"{span(turned, write)}; " if turned else ""
    return f"{write(difference)}{unit} ({ends}{_basis(kind, pair)})"


def _score(value: float) -> str:
    return signed(value, 4)


def _basis(kind: str, pair: "Versus") -> str:
    if pair.differing is None:
        return pair.test
    seeds = f"{counted(len(pair.effect.points), 'seed')}, " if kind == "methods" else ""
    exact = f", McNemar's exact p {_p(pair.mcnemar)}" if pair.mcnemar is not None else ""
    return f"{seeds}{counted(pair.differing.shared, 'image')}{exact}"


def _p(value: float) -> str:
    return "below 0.0001" if value < 0.0001 else number(value, 4)


def _more(effect: Effect) -> str:
    if effect.more_seeds is not None:
        return f" About {counted(effect.more_seeds, 'more seed')} would decide it."
    if effect.more_images is not None:
        return f" About {counted(effect.more_images, 'more image')} would decide it."
    return ""


def failures(methods: Sequence["Method"]) -> tuple[str, ...]:
    """Which methods had runs without a result."""
    return tuple(
        f"{named(method.name)}: {method.failed} of {counted(len(method.seeds), 'run')} failed (95 % interval of the share: "
        f"{span(method.failure_interval, percent)}). The differences are those of the other runs."
        for method in methods
        if method.failed
    )


def rows(found: "Comparison") -> Iterator[list[str]]:
    """A line for each method under HEAD, the reference first."""
    mean, wide, gap = (_plain, _plain, _score) if found.kind == "scores" else (percent, spread, points)
    reference, *others = found.methods
    for method, pair in zip([reference, *others], [None, *found.pairs], strict=True):
        failed = f"; {method.failed} failed" if method.failed else ""
        middle = mean(method.score) + (f" ± {wide(method.sd)}" if method.sd is not None else "")
        line = [method.name, middle, f"{len(method.seeds)}{failed}"]
        if pair is None:
            yield [*line, "reference", DASH, DASH, DASH]
        else:
            effect = pair.effect
            p = DASH if effect.p is None else _p(effect.p)
            yield [*line, gap(effect.difference), span(effect.interval, gap), p, verdict(effect)]


def _plain(value: float | None) -> str:
    return number(value, 4)
