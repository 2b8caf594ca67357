"""What a detector or a segmenter got wrong: the worst of the images that judged it, truth beside prediction."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from PIL.Image import Image

from trickbag.data.decode import decode
from trickbag.engine.pixels import fitted
from trickbag.ground import store
from trickbag.ground.arguments import public
from trickbag.ground.errors import UsageError
from trickbag.ground.events import Tell
from trickbag.ground.shown import Sheet, Shown
from trickbag.ground.text import counted
from trickbag.report import marked
from trickbag.scenes.table import Scenes, Task
from trickbag.statistics.detection import Found, Matches
from trickbag.statistics.segmentation import overlap
from trickbag.statistics.variance import Floats, Ints
from trickbag.transfers.evaluation import found_in, judging, right_on
from trickbag.transfers.folder import Measured
from trickbag.transfers.judge import Regions, Seen, beside
from trickbag.transfers.predictor import Predictor
from trickbag.transfers.seeds import said_by_images

MOST = 40
"""Images on the page."""
SIDE = 360
"""Pixels of the shorter side of a picture, at most."""
RIGHT, WRONG, EXCUSED = "#22863f", "#d0431a", "#6b7480"
"""Of boxes that were found; those in ignored ones are neither right nor wrong."""


class Worst(NamedTuple):
    """One of the images that are furthest from right."""

    path: str
    score: float
    """What it says of mAP at an overlap of 0.5 (``statistics.jackknife``): the lower, the more it pulls that down; or its own
    mean IoU."""
    said: str
    """What is wrong with it, in words."""
    truth: Image
    """The image with what is marked on it."""
    found: Image
    """The image with what was found."""


class Row(NamedTuple):
    """A class on the page."""

    name: str
    measures: tuple[float | None, ...]
    """As the head of the table names them, 0 to 1."""
    counts: tuple[str, ...]
    """Further cells."""


@dataclass(frozen=True, repr=False)
class SceneReview(Shown):
    """The mistakes of a detector or a segmenter; ``html`` shows them.

    Examples:
        >>> import trickbag as tb
        >>> found = tb.review("detector", out="cells.html")
        >>> found.task, found.split, found.measures.n, len(found.worst)
        ('detection', 'test', 1, 1)

    """

    folder: Path
    task: Task
    split: str
    """By which images it was judged: test, or val where there is no test."""
    measures: Measured
    """Over all these images."""
    threshold: float
    """The least score of a box that counts as found on the page; 0 for regions."""
    classes: tuple[Row, ...]
    worst: tuple[Worst, ...]
    """The worst first, at most MOST."""

    def _sheet(self) -> Sheet:
        facts = {"judged": counted(self.measures.n, f"{self.split} image")}
        return Sheet(f"review of {self.folder}", facts, ("worst", "what"), [(one.path, one.said) for one in self.worst])

    @property
    def answer(self) -> tuple[str, ...]:
        """The whole in sentences."""
        images = counted(self.measures.n, f"{self.split} image")
        name, value = next(iter(self.measures.measures.items()))
        what = {"map50": "Mean average precision at an overlap of 0.5", "miou": "Mean IoU"}[name]
        score = "none: nothing was to be found" if value is None else f"{100 * value:.1f} %"
        lines = [f"{what} on {images}: {score}."]
        if self.task == "detection":
            lines.append(f"Boxes count from a score of {self.threshold:.2f} on, where the F1 of these images is highest.")
        return tuple(lines)

    def html(self) -> str:
        """A page that needs nothing else."""
        from trickbag.mistakes.scenes_page import page

        return page(self)

    @public
    def write(self, file: str | Path) -> Path:
        """Write the page, and return where it lies."""
        store.write(Path(file), self.html())
        return Path(file)


def review(folder: Path, data: Any, tell: Tell) -> SceneReview:
    """Look at the images that judged a detector or a segmenter at last.

    Raises UsageError where their data set is not where it was, or holds none of them.
    """
    model = Predictor.load(folder)
    held = judging(model, data, tell)
    if held is None:
        raise UsageError("The images are not where they were. Say where with --data DATA.")
    split, scenes = held
    judged = [beside(scenes, row, found) for row, found in found_in(model, scenes, tell)]
    least = balanced(cast(Sequence[Matches], judged)) if model.task == "detection" else 0.0
    order = np.argsort(scores := each(model, judged), kind="stable")[:MOST].tolist()
    shown = zip(order, (found for _, found in found_in(model, scenes.take(order), lambda _: None)), strict=True)
    worst = [_worst(model, scenes, row, judged[row], found, float(scores[row]), least) for row, found in shown]
    measures = right_on(model, judged)
    return SceneReview(folder, model.task, split, measures, least, _rows(judged, measures, least), tuple(worst))


def each(model: Predictor, judged: Sequence[Seen]) -> Floats:
    """How right each image is: the lowest is the worst."""
    if model.task == "detection":
        return np.nan_to_num(said_by_images(judged, len(model.classes))[0])
    own: Floats = np.nan_to_num([float(overlap([cast(Ints, one)]).miou) for one in judged], nan=1.0)
    return own


def balanced(judged: Sequence[Matches]) -> float:
    """The score from which on boxes have the highest F1 at an overlap of 0.5: 2 right / (found + to be found), of all classes.

    >>> right = np.array([[True, False]])
    >>> balanced([Matches(np.array([0, 0]), np.array([0.9, 0.2]), right, ~right, np.array([1]))])
    0.9
    """
    scores = np.concatenate([one.scores for one in judged])
    order = np.argsort(-scores, kind="stable")
    right = np.cumsum(np.concatenate([one.right[0] for one in judged])[order])
    wrong = np.cumsum(np.concatenate([one.wrong[0] for one in judged])[order])
    if not len(scores) or not right[-1]:
        return 0.5
    f1 = 2 * right / (right + wrong + sum(int(one.truths.sum()) for one in judged))
    return float(scores[order][int(f1.argmax())])


def _counts(one: Matches, least: float, classes: slice | int = slice(None)) -> tuple[int, int, int]:
    """Boxes that were found, that are wrong, and that are missed; of a class, or of all."""
    sure = one.scores >= least
    if isinstance(classes, int):
        sure = sure & (one.labels == classes)
    right, wrong = int(one.right[0][sure].sum()), int(one.wrong[0][sure].sum())
    return right, wrong, int(np.sum(one.truths[classes])) - right


def _rows(judged: Sequence[Seen], measures: Measured, least: float) -> tuple[Row, ...]:
    rows = []
    for k, (name, values) in enumerate(measures.classes.items()):
        if isinstance(judged[0], Matches):
            own = np.sum([_counts(cast(Matches, one), least, k) for one in judged], axis=0).tolist()
            counts = tuple(f"{n:,}" for n in own)
        else:
            sums = np.sum(judged, axis=0)
            others = np.where(np.arange(len(sums)) == k, 0, sums[k])
            most = int(others.argmax())
            taken = f"{list(measures.classes)[most]} ({100 * others[most] / sums[k].sum():.1f} %)" if others[most] else "–"
            counts = (f"{100 * sums[k].sum() / sums.sum():.1f} %", taken)
        rows.append(Row(name, tuple(values.values()), counts))
    return tuple(sorted(rows, key=lambda row: (row.measures[0] is None, row.measures[0])))


def _worst(model: Predictor, scenes: Scenes, row: int, said: Seen, found: Found | Regions, score: float, least: float) -> Worst:
    pixels = fitted(decode(scenes.path(row), len(model.card.mean), shorter=SIDE).pixels, "crop", SIDE)
    if isinstance(found, Found):
        right, wrong, missed = _counts(cast(Matches, said), least)
        words = f"{counted(right, 'box', 'boxes')} found, {missed} missed, {wrong} wrong"
        return Worst(scenes.paths[row], score, words, *_boxes(model, scenes, row, pixels, cast(Matches, said), found, least))
    pictures = (marked.with_regions(pixels, regions, model.classes, model.colours) for regions in (scenes.region(row), found))
    return Worst(scenes.paths[row], score, f"mean IoU {100 * score:.1f} %", *pictures)


def _boxes(
    model: Predictor, scenes: Scenes, row: int, pixels: object, said: Matches, found: Found, least: float
) -> tuple[Image, Image]:
    """The image with the boxes that there are, and with those that were found: right ones green, wrong ones red."""
    height, width = scenes.sizes[row].tolist()
    scale = np.array([pixels.shape[-1] / width, pixels.shape[-2] / height] * 2)  # type: ignore[attr-defined]
    truth = scenes.boxes[row]
    names = [model.classes[k] for k in truth.labels]
    there = marked.with_boxes(pixels, truth.xyxy * scale, names, [model.colours[k] for k in truth.labels])
    rows, inks = inked(found, said, least)
    texts = [f"{model.classes[found.labels[row]]} {100 * found.scores[row]:.0f} %" for row in rows]
    return there, marked.with_boxes(pixels, found.xyxy[rows] * scale, texts, inks)


def inked(found: Found, said: Matches, least: float) -> tuple[list[int], list[str]]:
    """Rows of the boxes that count, and the colour of each.

    >>> right = np.array([[True, False]])
    >>> alike = Found(np.zeros((2, 4)), np.array([0, 0]), np.array([0.9, 0.9]))
    >>> inked(alike, Matches(alike.labels, alike.scores, right, ~right, np.array([1])), 0.5) == ([0, 1], [RIGHT, WRONG])
    True
    """
    order = np.lexsort((-found.scores, found.labels))  # as those that were matched stand, whose scores may be alike
    colours = np.where(said.right[0], RIGHT, np.where(said.wrong[0], WRONG, EXCUSED))
    sure = found.scores[order] >= least
    return order[sure].tolist(), colours[sure].tolist()
