"""What lies in a run's folder besides the network: the models of its JSON files, and its predictions read back."""

import csv
import gzip
import io
import zipfile
import zlib
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, model_validator

from trickbag.ground import records
from trickbag.ground.errors import TrickbagError
from trickbag.ground.records import MALFORMED, Count, Record, Seconds, Share, Signed
from trickbag.models.card import CARD, WEIGHTS

RESULT, PREDICTIONS, LOG = "result.json", "predictions.npz", "log.jsonl"
ASKED, IMAGES = "asked.json", "images.csv.gz"
COLUMNS, GROUP = ("path", "class", "split", "content"), "group"
"""Of images.csv.gz; the last one where images belong together."""
FINISHED = (RESULT, CARD, WEIGHTS, PREDICTIONS)
"""What the manifest of a finished run lists at least."""
SplitName = Literal["train", "val", "test"]
BEGUN, DIVERGED = ".work/request.json", "diverged.json"
AGAIN = "Train the run again, or restore the file from a copy."
Loss = Annotated[float, Field(ge=-1e300, le=1e300)] | None
"""None where it is no finite number."""
Pair = Annotated[list[Share], Field(min_length=2, max_length=2)]
Size = Annotated[float, Field(ge=0, le=1e9)]
"""Classes of a set, in the mean."""
UNREADABLE = (OSError, ValueError, EOFError, zlib.error)
Table = dict[str, tuple[str, ...]]
"""Path -> class, split and hash of the content of an image, and the first image of its group where there are groups."""


class PerClass(Record):
    """Lists over the classes."""

    precision: list[Share]
    recall: list[Share]
    count: list[Count]


class Headline(Record):
    """The scores of an epoch."""

    n: Count
    top1: Share
    macro_recall: Share
    nll: Annotated[float, Field(ge=0, le=1e300)]
    ece: Share


class Scored(Headline):
    """The scores of a split."""

    top5: Share
    macro_f1: Share
    brier: Annotated[float, Field(ge=0, le=2)]
    per_class: PerClass
    many: Share | None = None
    medium: Share | None = None
    few: Share | None = None

    @model_validator(mode="after")
    def _one_number_for_each_class(self) -> Self:
        lists = self.per_class
        if not len(lists.precision) == len(lists.recall) == len(lists.count):
            raise ValueError("per_class: the lists differ in length")
        return self


class Covered(Record):
    """How often sets of classes hold the right one, and how many classes they hold; None where there is no image."""

    n: Count
    held: Share | None
    held_interval: Pair
    size: Size | None
    size_interval: Annotated[list[Size], Field(min_length=2, max_length=2)] | None


class SetsRecord(Record):
    """Sets of classes, of images that did not calibrate them."""

    by: str
    """The spelling of the trick that makes them."""
    chosen: bool
    """Whether the images that calibrated them also chose the epoch, so that what they promise holds nearly, not exactly."""
    whole: Covered
    classes: list[Covered]
    """Of each class's images."""


class Judged(Scored):
    """The scores of a split, with what is known of new images."""

    top1_interval: Pair
    metrics: dict[str, Loss] = {}
    """Of one's own."""
    sets: SetsRecord | None = None
    """Of the test alone; None where no trick makes sets."""


class Divided(Record):
    """Where the images of a split come from."""

    images: Count
    given: bool
    """Whether the user gave the split."""
    trained_before: Count
    """How many of them were trained on by the runs that this one builds on."""


class Corrected(Record):
    """The file of corrections that was applied to the labels."""

    file: str
    sha256: str
    changed: Count
    dropped: Count


class RunRecord(Record):
    """The content of a run's ``result.json``."""

    val: Judged
    test: Judged | None
    """None where there is no test split."""
    seconds: Seconds
    images_per_second: Seconds
    epochs: Count
    trained: Share
    kept_epoch: Count
    chosen: bool = True
    """Whether validation chose that epoch."""
    short: str = ""
    """Why the budget held an epoch or none; empty where it held more, or as much as was asked for."""
    recipe_key: str
    data_fingerprint: str
    seed: Count
    splits: dict[SplitName, Divided]
    training_images: dict[str, Count] = {}
    """How many ``images`` are trained on, and how many the tricks have ``left_out``, ``relabelled`` and ``added``."""
    corrections: Corrected | None = None
    """None where the labels are as the data set has them."""
    request: str
    plugins: dict[str, str] = {}
    """Name -> hash of the content."""
    environment: dict[str, str | int | None]

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The record in a run's folder. Raises TrickbagError where it is damaged."""
        return records.read(folder / RESULT, cls, AGAIN)


class Asked(Record):
    """The content of ``asked.json``: besides these, a key for each field of the recipe and each file that it names."""

    model_config = ConfigDict(extra="allow")

    recipe: str
    budget: Count | Seconds
    """As it was given: the key of a request tells 0 from 0.0."""
    seed: Count
    set_by_you: Annotated[list[str], Field(alias="set by you")]


class Begun(Signed):
    """The content of ``.work/request.json``: whose folder this is, and what was decided for it."""

    request: str
    recipe: dict[str, Any]
    """With nothing left open."""
    reasons: list[str]
    """Of each decision."""
    short: str = ""
    """The one of them that leaves an epoch or none of more, for want of time."""

    @classmethod
    def load(cls, folder: Path) -> Self:
        """What was begun in a run's folder. Raises TrickbagError where the file is damaged."""
        return records.read(folder / BEGUN, cls, "Remove the folder, or choose another --out.")


class Divergence(Record):
    """The content of ``diverged.json``."""

    message: str
    step: Count
    lr: Loss
    files: list[str]

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Of a run that diverged. Raises TrickbagError where the file is damaged."""
        return records.read(folder / DIVERGED, cls, "Remove the folder, or choose another --out.")


class Line(Record):
    """A line of ``log.jsonl``, whatever is trained: an epoch, or one step of fifty."""

    kind: Literal["epoch", "step"]
    step: Count
    t: Share
    loss: Loss
    lr: Loss
    images_per_second: Seconds = 0.0
    epoch: Count = 0
    seconds: Seconds = 0.0
    kept: bool = False


class LogLine(Line):
    """A line of a classifier's ``log.jsonl``."""

    val: Headline | None = None
    raw: Headline | None = None
    weights: dict[str, Headline] = {}

    @model_validator(mode="after")
    def _an_epoch_has_scores(self) -> Self:
        if self.kind == "epoch" and (self.val is None or not {"epoch", "seconds"} <= self.model_fields_set):
            raise ValueError("an epoch has epoch, seconds and val")
        return self


def kept_table(folder: Path) -> Table:
    """The images that a run or a study was asked for, in the listing's order. Raises UNREADABLE where they are not known."""
    text = gzip.decompress((folder / IMAGES).read_bytes()).decode("utf-8", "surrogateescape")
    head, *rows = csv.reader(io.StringIO(text, newline=""))
    if tuple(head) not in (COLUMNS, (*COLUMNS, GROUP)):
        raise ValueError(head)
    return {path: tuple(row) for path, *row in rows}


class Mistake(NamedTuple):
    """A judged image that was classified wrongly."""

    path: str
    """As in the data set: ``predictions.csv`` has all of them."""
    split: str
    true: str
    predicted: str
    probability: float
    """Of the predicted class, 0 to 1."""


def mistakes(folder: Path) -> list[Mistake]:
    """The wrong predictions in a run's folder, the most confident first."""
    text = (folder / "predictions.csv").read_bytes().decode("utf-8", "surrogateescape")
    lines = islice(csv.reader(io.StringIO(text, newline="")), 1, None)
    rows = [Mistake(path, split, true, said, float(p)) for path, split, true, said, p in lines]
    return sorted((row for row in rows if row.true != row.predicted), key=lambda row: -row.probability)


class Predictions(NamedTuple):
    """What a run said of N images of a split."""

    logits: NDArray[np.floating[Any]]
    """[N, K]"""
    labels: NDArray[np.int64]
    """[N]"""
    rows: NDArray[np.int64]
    """[N], places in the listing of the data set."""


def predictions(path: Path, split: str, classes: int) -> Predictions:
    """The predictions in a run's ``predictions.npz``.

    Raises TrickbagError where it is damaged, holds no image of the split, or says what no network says.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = Predictions(*(arrays[f"{split}_{name}"] for name in Predictions._fields))
        _check(found, classes)
    except OSError as error:
        raise TrickbagError(f"{path} cannot be read: {error.strerror or error}. {AGAIN}") from None
    except (*MALFORMED, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise TrickbagError(f"{path} is damaged: {error}. {AGAIN}") from None
    return found


def _check(found: Predictions, classes: int) -> None:
    logits, labels, rows = found
    shapes = f"logits {list(logits.shape)}, labels {list(labels.shape)}, rows {list(rows.shape)}"
    if logits.ndim != 2 or logits.shape[1] != classes or not labels.shape == rows.shape == logits.shape[:1]:
        raise ValueError(f"{shapes} do not fit {classes} classes")
    if not len(labels):
        raise ValueError("it holds no image")
    if logits.dtype.kind != "f" or not np.isfinite(logits).all():
        raise ValueError("some logits are not finite")
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= classes:
        raise ValueError("a label is of no class")
