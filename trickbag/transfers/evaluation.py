"""A finished detector or segmenter on other marked images: how right it is, with intervals, and which images it has seen."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from trickbag.data.findings import some
from trickbag.ground.errors import UsageError
from trickbag.ground.events import Doing, Note, Tell, silent
from trickbag.ground.shown import Sheet, Shown
from trickbag.ground.text import counted, show
from trickbag.runs import seen
from trickbag.runs.provenance import remembered
from trickbag.runs.stream import batches
from trickbag.scenes.audit import check
from trickbag.scenes.levels import IGNORED
from trickbag.scenes.table import Scenes, Task
from trickbag.statistics.detection import Found
from trickbag.transfers.folder import Measured, TransferRecord
from trickbag.transfers.judge import MEASURES, Regions, Seen, beside, marks
from trickbag.transfers.predictor import BATCH, Predictor
from trickbag.transfers.run import measured
from trickbag.transfers.seeds import coarseness, interval, said_by_images


@dataclass(frozen=True, repr=False)
class TransferEvaluation(Shown):
    """How right a detector or a segmenter is on the images of a data set.

    Examples:
        >>> import trickbag as tb
        >>> found = tb.evaluate("segmenter", "streets")
        >>> found.whole.n, list(found.whole.measures), found.trained_on
        (5, ['miou', 'accuracy'], 3)

    """

    task: Task
    whole: Measured
    """On all images."""
    trained_on: int
    """Images among them that it, or the run that its body is of, was trained on."""
    chosen_on: int
    """Images among them by which its epoch was chosen, or could have been."""
    unseen: Measured | None
    """On the others, where there are both."""

    def _sheet(self) -> Sheet:
        facts = {name: "none" if value is None else f"{100 * value:.1f} %" for name, value in self.whole.measures.items()}
        rows = [
            (label, *("none" if value is None else f"{100 * value:.1f} %" for value in measures.values()))
            for label, measures in self.whole.classes.items()
        ]
        head = ("class", *next(iter(self.whole.classes.values())))
        return Sheet(f"{self.task} on {self.whole.n:,} images", facts, head, rows)

    def as_json(self) -> dict[str, Any]:
        """All of it in plain values."""
        return {
            "task": self.task,
            **self.whole.plain(),
            "trained_on": self.trained_on,
            "chosen_on": self.chosen_on,
            "unseen": self.unseen.plain() if self.unseen else None,
        }


def evaluate(folder: str | Path, data: Any, tell: Tell = silent) -> TransferEvaluation:
    """Score a detector or a segmenter on all images of a data set.

    Raises UsageError where the data set has no marks of its kind, or boxes of a class that it does not know.
    """
    model = Predictor.load(folder)
    scenes = known_classes(check(data, model.task, tell=tell).scenes, model, tell)
    judged = [beside(scenes, row, found) for row, found in found_in(model, scenes, tell)]
    if not (model.folder / seen.IMAGES).is_file():
        tell(Note(f"{model.folder} keeps no account of the images that it was trained on: these may be among them"))
    before = seen.Seen.load(model.folder).splits(scenes.images)
    new = [one for one, split in zip(judged, before.tolist(), strict=True) if split not in ("train", "val")]
    return TransferEvaluation(
        model.task,
        right_on(model, judged),
        int((before == "train").sum()),
        int((before == "val").sum()),
        right_on(model, new) if 0 < len(new) < len(judged) else None,
    )


def right_on(model: Predictor, judged: Sequence[Seen]) -> Measured:
    """The measures of some images, with intervals for new ones."""
    classes = len(model.classes)
    values, least = said_by_images(judged, classes), coarseness(judged)
    ends = zip(MEASURES[model.task], (interval([one], least) for one in values), strict=True)
    found = {name: pair for name, pair in ends if pair}
    return measured(marks(model.task, judged, classes), model.classes).model_copy(update={"intervals": found})


def known_classes(scenes: Scenes, model: Predictor, tell: Tell) -> Scenes:
    """The same images with a model's classes. UsageError for boxes of others; regions of others are told and not counted."""
    places = {name: k for k, name in enumerate(model.classes)}
    others = [name for name in scenes.classes if name not in places]
    if len(others) == len(scenes.classes) or (others and scenes.task == "detection"):
        raise UsageError(
            f"{scenes.root} has the class {show(others[0])}, which is not known here. Known are: {some(model.classes, 10)}."
        )
    if others:
        tell(Note(f"pixels of {some(others)} are not counted: these classes are not known here"))
    ours = np.array([places.get(name, IGNORED) for name in scenes.classes], np.int64)
    return replace(
        scenes,
        classes=model.classes,
        boxes=tuple(boxes._replace(labels=ours[boxes.labels]) for boxes in scenes.boxes),
        levels=np.append(ours, np.full(IGNORED + 1 - len(ours), IGNORED))[scenes.levels],
        areas=np.empty((0, 0), np.int64),
    )


def judging(model: Predictor, data: Any, tell: Tell) -> tuple[str, Scenes] | None:
    """The split whose images judged a model at last, and these images; None where nobody says where they are.

    ``data`` is the data set, by default where it lay when this machine trained on it. Raises UsageError where it holds none.
    """
    record = TransferRecord.load(model.folder).plain()
    root = remembered(record["data_fingerprint"]) if data is None else data
    if root is None or (data is None and not root.is_dir()):
        return None
    split = "test" if record["test"] else "val"
    scenes = known_classes(check(root, model.task, tell=tell).scenes, model, tell)
    scenes = scenes.take(np.flatnonzero(seen.Seen.load(model.folder).splits(scenes.images) == split))
    if not len(scenes):
        raise UsageError(f"{root} holds none of the images that judged {model.folder}. Give the data set of its training.")
    if gone := record["images"][split] - len(scenes):
        tell(Note(f"{counted(gone, 'image is', 'images are')} gone or changed, of {record['images'][split]:,}"))
    return split, scenes


def found_in(model: Predictor, scenes: Scenes, tell: Tell) -> Iterator[tuple[int, Found | Regions]]:
    """Rows of a table, and all that is found in each image."""
    images, row = map(scenes.path, range(len(scenes))), 0
    for batch in batches(images, model.photo, BATCH, tell=silent):
        for found in model.look([photo for _, photo in batch]):
            yield row, found
            row += 1
        tell(Doing("evaluating", row, len(scenes)))
