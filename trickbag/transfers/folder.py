"""What lies in the folder of a detector or a segmenter: the models of its JSON files."""

import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from trickbag.ground import records
from trickbag.ground.errors import TrickbagError, UsageError
from trickbag.ground.records import MALFORMED, Count, Record, Seconds, Share, Signed
from trickbag.models.card import TRANSFER, WEIGHTS, Card, Mean, Std, check_channels, check_classes
from trickbag.runs.folder import AGAIN, Line
from trickbag.scenes.table import Scenes, Task
from trickbag.statistics.detection import Matches
from trickbag.statistics.variance import Ints
from trickbag.transfers.body import CANVAS, Norms
from trickbag.transfers.judge import MEASURES, Marks

RESULT, SEEN, ASKED = "result.json", "judged.npz", "asked.json"
FINISHED = (TRANSFER, WEIGHTS, RESULT, SEEN)
"""What the manifest of a finished transfer lists at least."""
Side = Annotated[int, Field(ge=32, le=4096)]


class TransferCard(Record):
    """The content of ``transfer.json``: what a detector or a segmenter is built from, and what it wants to see."""

    task: Task
    head: str
    body: str | Card
    """A timm network, or the run whose network it is."""
    norms: Norms
    classes: Annotated[list[str], Field(min_length=1)]
    size: Side
    """Pixels of the longer side of an image."""
    canvas: Annotated[list[Annotated[Side, Field(multiple_of=CANVAS)]], Field(min_length=2, max_length=2)]
    """Height and width that every image is padded to, at its right and below, with the mean colour."""
    mean: Mean
    std: Std
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Arithmetic of the network."""
    trickbag: str

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        check_classes(self.classes)
        check_channels(self.mean, self.std, len(self.mean))
        return self

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The card in a folder. Raises TrickbagError where it is damaged."""
        return records.read(folder / TRANSFER, cls, AGAIN)


class Measured(Record):
    """How right it is on a split; null where there was nothing to find."""

    n: Count
    measures: dict[str, Share | None]
    """map50 and map, or miou and accuracy."""
    intervals: dict[str, list[Share]] = {}
    """Of these, 95 %, on new images."""
    classes: dict[str, dict[str, Share | None]]
    """By class, what there is by class of these."""


class TransferRecord(Record):
    """The content of ``result.json``."""

    task: Task
    val: Measured
    test: Measured | None
    seconds: Seconds
    epochs: Count
    kept_epoch: Count
    seed: Count
    recipe_key: str
    data_fingerprint: str
    request: str
    images: dict[Literal["train", "val", "test"], Count]
    environment: dict[str, str | int | None]

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if len(self.images) < 3:
            raise ValueError("images: a split is missing")
        for name, one in {"val": self.val, "test": self.test}.items():
            if one and (set(one.measures) != set(MEASURES[self.task]) or not one.classes):
                raise ValueError(f"{name}: there are no {' and '.join(MEASURES[self.task])} of its classes")
        return self

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The record in a folder. Raises TrickbagError where it is damaged."""
        return records.read(folder / RESULT, cls, AGAIN)


class TransferBegun(Signed):
    """The content of ``.work/request.json`` of a run, and of ``request.json`` of several seeds."""

    request: str
    recipe: dict[str, Any]

    @classmethod
    def load(cls, file: Path) -> Self:
        """What was begun. Raises TrickbagError where the file is damaged."""
        return records.read(file, cls, "Remove the folder, or choose another --out.")


class TransferLine(Line):
    """A line of a detector's or a segmenter's ``log.jsonl``."""

    val: dict[str, Any] | None = None
    raw: dict[str, Any] | None = None


def place(folder: Path) -> Path | None:
    """The one detector or segmenter that a folder is or holds; None where there is none. UsageError where there are several."""
    if (folder / TRANSFER).is_file():
        return folder
    seeds = sorted(path.parent for path in folder.glob(f"seed-*/{TRANSFER}"))
    if len(seeds) > 1:
        raise UsageError(f"{folder} holds {len(seeds)} seeds. Choose one of them, for example {seeds[0]}.")
    return seeds[0] if seeds else None


def packed(found: Mapping[str, Marks], scenes: Scenes) -> bytes:
    """The content of ``judged.npz``: of each split its images, and what each says of the network (see ``unpacked``)."""
    arrays: dict[str, Any] = {}
    for split, one in found.items():
        arrays[f"{split}_paths"] = np.array(json.dumps(scenes.split(split).paths))
        if one.task == "segmentation":
            arrays[f"{split}_confusions"] = np.stack(one.seen)
            continue
        seen: list[Matches] = list(one.seen)  # type: ignore[arg-type]
        arrays[f"{split}_counts"] = np.array([len(image.labels) for image in seen])
        arrays[f"{split}_truths"] = np.stack([image.truths for image in seen])
        for name in ("labels", "scores", "right", "wrong"):
            arrays[f"{split}_{name}"] = np.concatenate([getattr(image, name) for image in seen], axis=-1)
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def unpacked(file: Path, split: str) -> list[Matches] | Ints:
    """What each image of a split says of a detector, or counts [images, K, K] of a segmenter. TrickbagError where damaged."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            if f"{split}_confusions" in arrays:
                return np.asarray(arrays[f"{split}_confusions"])
            places = np.cumsum(arrays[f"{split}_counts"])[:-1]
            columns = [np.split(arrays[f"{split}_{name}"], places, axis=-1) for name in ("labels", "scores", "right", "wrong")]
            return [Matches(*row) for row in zip(*columns, arrays[f"{split}_truths"], strict=True)]
    except OSError as error:
        raise TrickbagError(f"{file} cannot be read: {error.strerror or error}. {AGAIN}") from None
    except (*MALFORMED, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise TrickbagError(f"{file} is damaged: {error}. {AGAIN}") from None
