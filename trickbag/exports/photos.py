"""The images at hand on which a file is compared with its run, and those of training by which whole numbers are calibrated."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from trickbag.engine.assemble import regions
from trickbag.engine.pixels import Cache, Files, Pixels, Rows, place
from trickbag.ground.cache import altered
from trickbag.ground.errors import TrickbagError
from trickbag.ground.events import Tell
from trickbag.runs import seen
from trickbag.runs.classifier import Classifier
from trickbag.runs.evaluation import labels_of, readable
from trickbag.runs.folder import UNREADABLE, RunRecord, kept_table
from trickbag.statistics.variance import Ints
from trickbag.trick import having

WHOLE = 1_000_000
"""A shorter side that no image has: it is decoded as it is."""
OTHERS = "Give photos of these classes alone."
GENERATED = 64
SIDES = (24, 640)


@dataclass(frozen=True)
class Photos:
    """Images in the order in which they are compared."""

    what: str
    """Which they are, for a sentence."""
    judged: Pixels
    """Decoded as they are."""
    predicted: Pixels | None = None
    """The same as ``predict`` decodes them, where that may be another way."""
    labels: Tensor | None = None
    """[N] by the classes of the run; None where an accuracy would say nothing of new images."""
    groups: Ints | None = None
    """[N], as in ``Images``."""
    training: Pixels | None = None


def given(run: Path, classifier: Classifier, data: str | Path, tell: Tell) -> Photos:
    """Those of a data set: the run's validation and test images, or else all that it has not seen, or else all.

    Raises UsageError where the data set has a class that the run does not know, or no image that can be read.
    """
    images = readable(data, classifier.card.channels, 0, tell)
    labels = labels_of(data, images, classifier.classes, open_set=False, tell=tell, otherwise=OTHERS)
    known = seen.together([run, *seen.asked(classifier.tricks)]).splits(images)
    accounted = os.path.isfile(run / seen.IMAGES)
    rows, what = next(
        (found, said)
        for found, said in (
            (np.flatnonzero(np.isin(known, ("val", "test"))), "validation and test images of the run"),
            (np.flatnonzero(known != "train"), "images that the run " + ("has not seen" if accounted else "may have seen")),
            (np.arange(len(images)), "images that the run was trained on"),
        )
        if len(found)
    )
    trained = np.flatnonzero(known == "train")

    def pixels(of: np.ndarray, shorter: int, fit: bool = False) -> Pixels:
        files = Files(images, classifier.card.channels, shorter, classifier.fit if fit else "crop")
        own = images.take(of)
        return Rows(own, files, of, regions(own, classifier.tricks, judged=True))

    return Photos(
        f"{len(rows):,} {what}",
        pixels(rows, WHOLE),
        pixels(rows, classifier.card.kept, fit=True),
        labels[torch.from_numpy(rows)] if accounted and not np.array_equal(rows, trained) else None,
        images.groups[rows],
        pixels(trained, WHOLE) if len(trained) else None,
    )


def remembered(run: Path, classifier: Classifier) -> Photos | None:
    """Those of a run's own, decoded as they are kept in the cache; None where they no longer lie there."""
    card = classifier.card
    folder = place(RunRecord.load(run).data_fingerprint, card.channels, card.kept, card.fit)
    try:
        table = list(kept_table(run).values())
    except UNREADABLE:
        return None
    if having(classifier.tricks, "region") or altered(folder):
        return None
    cache = Cache(folder, _Gone())
    splits = np.array([row[1] for row in table])
    rows, trained = np.flatnonzero(np.isin(splits, ("val", "test"))), np.flatnonzero(splits == "train")
    if len(cache) != len(table) or not len(rows):
        return None
    labels = torch.tensor([classifier.classes.index(table[row][0]) for row in rows])
    groups = np.array([row[3] if len(row) > 3 else str(number) for number, row in enumerate(table)])[rows]
    return Photos(
        f"{len(rows):,} validation and test images of the run, as small as the cache keeps them",
        _Some(cache, rows),
        labels=labels,
        groups=np.unique(groups, return_inverse=True)[1],
        training=_Some(cache, trained),
    )


class _Some(NamedTuple):
    """Some rows of pixels."""

    pixels: Pixels
    rows: Ints

    def __getitem__(self, row: int) -> Tensor:  # type: ignore[override]
        return self.pixels[int(self.rows[row])]

    def __len__(self) -> int:
        return len(self.rows)


class _Gone:
    """In place of the files, of which a finished run does not say where they lie."""

    def __getitem__(self, row: int) -> Tensor:
        raise TrickbagError("the decoded images in the cache are damaged. Say with --data where the photos lie.")

    def __len__(self) -> int:
        return 0


def generated(classifier: Classifier) -> Photos:
    """Coloured clouds of many sizes, where no image is at hand."""
    return Photos(f"{GENERATED} generated images, as no photo is at hand", clouds(classifier.card.channels, GENERATED))


def clouds(channels: int, count: int) -> list[Tensor]:
    """Images uint8 [C, h, w] of many sizes, coloured softly."""
    rng = np.random.default_rng(0)
    sides = rng.integers(*SIDES, (count, 2)).tolist()
    coarse = rng.integers(0, 256, (count, channels, 6, 6), dtype=np.uint8)
    return [F.resize(torch.from_numpy(one), size, antialias=True) for one, size in zip(coarse, sides, strict=True)]
