"""The rows of anybody's tables in numbers: which columns are used, and each cell checked where it stands."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trickbag.comparison.sheets import Part, Sheet, Text
from trickbag.ground import memory
from trickbag.ground.errors import UsageError
from trickbag.ground.text import brief, clipped
from trickbag.statistics.variance import Ints

FORMS = "method,seed,image,correct or method,seed,image,label,p_CLASS,… or method,seed,score"
COLUMNS = ("method", "seed", "image", "group", "label", "predicted", "correct", "score")
PROBABILITY = "p_"
LEAST = 1e-12
"""Probabilities below count as this."""
SLACK = 0.01
"""By which the probabilities of a row may miss 1: they are often rounded."""
TRUTH = {"1": 1, "1.0": 1, "true": 1, "0": 0, "0.0": 0, "false": 0, "": -1}
FAILED = -1
"""In place of right or wrong, where the cell is empty."""
ROW = 60
"""Bytes that a row takes while the table is sorted, besides its probabilities."""
NAME = 120
"""Bytes that the name of an image takes."""
Columns = dict[str, NDArray[Any]]


class Form(NamedTuple):
    """Which columns of a table are used."""

    texts: tuple[str, ...]
    numbers: tuple[str, ...]
    unused: tuple[str, ...]

    @property
    def kind(self) -> str:
        """What its rows say, in words."""
        return {"score": "scores", "correct": "right and wrong answers", "predicted": "predicted classes"}.get(
            self.texts[-1], "probabilities"
        )


def known(name: str) -> bool:
    """Whether a column has a name that is used.

    >>> known("Method"), known("p_cat"), known("epoch")
    (True, True, False)
    """
    return name.lower() in COLUMNS or name.startswith(PROBABILITY)


def form(sheet: Sheet) -> Form:
    """Which columns hold what. Raises UsageError where some are missing, or stand there twice."""
    given = sheet.header
    lower = [name.lower() if name.lower() in COLUMNS else name for name in given]
    classes = tuple(name for name in lower if name.startswith(PROBABILITY))
    has = set(lower)
    if twice := next((name for name in lower if known(name) and lower.count(name) > 1), ""):
        raise UsageError(f"{sheet.path}, line 1: the column {brief(twice)} stands there twice. Keep one.")
    if "image" not in has:
        tail, needed = ["score"], {"score"}
    elif classes:
        tail, needed = ["label"], {"label"}
    elif "correct" in has:
        tail, needed = [*(("label",) if "label" in has else ()), "correct"], {"correct"}
    else:
        tail, needed = ["label", "predicted"], {"label", "predicted"}
    if missing := [name for name in ("method", "seed", *sorted(needed)) if name not in has]:
        there = ", ".join(clipped(name, 40) for name in given[:8]) + (", …" if len(given) > 8 else "")
        raise UsageError(
            f"{sheet.path}, line 1: the column {missing[0]} is missing in {there or 'an empty line'}. Write {FORMS}."
        )
    if len(classes) == 1:
        raise UsageError(f"{sheet.path}, line 1: {classes[0]} is the only class. Write a column p_CLASS for each class.")
    texts = ("method", "seed", *(name for name in ("image", "group") if name in has and "image" in has), *tail)
    used = {*texts, *classes}
    return Form(texts, classes, tuple(own for own, name in zip(given, lower, strict=True) if name not in used))


class Rows:
    """All rows of some tables, in numbers; where each stands is kept for what there is to say of it."""

    def __init__(self, shape: Form) -> None:
        self.shape = shape
        self.classes = {name.removeprefix(PROBABILITY): place for place, name in enumerate(shape.numbers)}
        self.names: dict[str, dict[str, int]] = {name: {} for name in ("method", "seed", "image", "group", "label")}
        self.names["label"] |= self.classes
        self.parts: list[Columns] = []
        self.sheets: list[tuple[Sheet, int]] = []
        """With the number of rows before each."""
        self.count = 0

    def add(self, sheet: Sheet) -> None:
        """Read one more table. Raises UsageError where a cell makes no sense, or memory would not hold it."""
        self.sheets.append((sheet, self.count))
        # Classes may stand in another order than in the first table.
        wanted = [next(own for own in sheet.header if own == name) for name in self.shape.numbers]
        spelled = {name: next(own for own in sheet.header if own.lower() == name) for name in self.shape.texts}
        line = sheet.first
        for part in sheet.parts([*spelled.values()], wanted):
            self._fits(sheet, part.total)
            self._take(part._replace(texts={name: part.texts[own] for name, own in spelled.items()}), line)
            line += len(part.empty)

    def _fits(self, sheet: Sheet, total: float) -> None:
        need = (self.count + total) * (ROW + 10 * len(self.classes)) + NAME * len(self.names["image"])
        if need > (free := memory.available()):
            raise UsageError(
                f"{sheet.path} would take about {need / 1e9:,.1f} GB of memory, and {free / 1e9:,.1f} GB are free. Compare "
                "fewer runs at a time" + (", or write a column correct in place of probabilities." if self.classes else ".")
            )

    def _take(self, part: Part, line: int) -> None:
        blank = np.array([not value for value in part.texts["method"].values], bool)[part.texts["method"].places]
        for name in ("seed", *self.shape.texts[2:3]):
            own = part.texts[name]
            blank &= np.array([not value for value in own.values], bool)[own.places]
        kept = np.flatnonzero(~blank)
        lines = (line + kept).astype(np.int64)
        self.parts.append({"line": lines})
        self.count += len(kept)
        found: Columns = {name: self._coded(name, text)[kept] for name, text in part.texts.items() if name in self.names}
        for name in ("method", "seed"):
            none = self.names[name].get("", -1)
            self._refuse(found[name] == none, f"the {name} is empty")
        if self.classes:
            found |= self._probabilities(part, kept, found["label"])
        elif "predicted" in part.texts:
            said = self._coded("label", part.texts["predicted"])[kept]
            none = self.names["label"].get("", -2)
            found["value"] = np.where(said == none, FAILED, said == found["label"]).astype(np.int8)
        elif "correct" in part.texts:
            found["value"] = self._truth(part.texts["correct"], kept)
        else:
            found["score"] = self._score(part.texts["score"], kept)
        self.parts[-1] |= found

    def _coded(self, name: str, text: Text) -> NDArray[np.int32]:
        names = self.names[name]
        own = np.fromiter((names.setdefault(value, len(names)) for value in text.values), np.int32, len(text.values))
        return own[text.places] if len(own) else np.zeros(len(text.places), np.int32)

    def _probabilities(self, part: Part, kept: Ints, labels: NDArray[np.int32]) -> Columns:
        p, empty = part.numbers[kept], part.empty[kept]
        names = list(self.names["label"])
        with np.errstate(invalid="ignore"):
            sums = p.sum(1)
            self._refuse(~empty & np.isnan(p).any(1), "a probability is NaN or empty")
            self._refuse(~empty & ((p < -1e-6) | (p > 1 + 1e-6)).any(1), "a probability is not between 0 and 1")
            self._refuse(
                ~empty & (np.abs(sums - 1) > SLACK), lambda row: f"the probabilities sum to {sums[row]:.4g} instead of 1"
            )
        self._refuse(
            ~empty & (labels >= len(self.classes)),
            lambda row: f"the label {brief(names[labels[row]])} has no column {clipped(PROBABILITY + names[labels[row]])}",
        )
        logits = np.log(np.maximum(p, LEAST)).astype(np.float32)
        return {"value": np.where(empty, FAILED, p.argmax(1) == labels).astype(np.int8), "logits": logits}

    def _truth(self, text: Text, kept: Ints) -> NDArray[np.int8]:
        values = [value.lower() for value in text.values]
        self._refuse(
            np.array([value not in TRUTH for value in values], bool)[text.places][kept],
            lambda row: f"correct is {brief(values[text.places[kept[row]]])}, not 0 or 1",
        )
        return np.array([TRUTH.get(value, 0) for value in values], np.int8)[text.places][kept]

    def _score(self, text: Text, kept: Ints) -> NDArray[np.float64]:
        values = np.array([_number(value) for value in text.values])
        self._refuse(
            np.array([bool(value) for value in text.values], bool)[text.places][kept] & ~np.isfinite(values)[text.places][kept],
            lambda row: f"the score is {brief(text.values[text.places[kept[row]]])}, not a number",
        )
        return values[text.places][kept]

    def _refuse(self, wrong: NDArray[np.bool_], why: str | Callable[[int], str]) -> None:
        """Raise UsageError at the first row of the newest part where something is wrong."""
        if wrong.any():
            row = int(wrong.argmax())
            sheet, said = self.sheets[-1][0], why if isinstance(why, str) else why(row)
            raise UsageError(f"{sheet.path}, {sheet.unit} {self.parts[-1]['line'][row]}: {said}.")

    def columns(self) -> Columns:
        """Each column whole. The parts are given up."""
        parts, self.parts = self.parts, []
        return {name: np.concatenate([part.pop(name) for part in parts]) for name in list(parts[0] if parts else ())}

    def where(self, lines: NDArray[Any], row: int) -> str:
        """Where a row stands, in words."""
        sheet = next(sheet for sheet, before in reversed(self.sheets) if before <= row)
        return f"{sheet.path}, {sheet.unit} {lines[row]}"


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return np.nan
