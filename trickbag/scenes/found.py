"""What a reader makes of a folder before any image is opened, and what all readers ask: which label belongs to which image."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import NamedTuple

from trickbag.data.layout import CONTAINERS, MASKS, split_word
from trickbag.data.listing import IMAGE_SUFFIXES, SIDE, SPLITS, Ignored, Listing, suffix
from trickbag.scenes.table import Fault

LABELS = {*MASKS, "annot", "annots", "segmentations", "segmentationclass"}
"""Names of folders that hold labels, in lower case."""
INSTANCES = "segmentationobject"
"""The folder of Pascal VOC whose label images number objects, not classes."""
_OF_LABELS, _OF_EITHER = (
    re.compile(f"({'|'.join(SPLITS)})[_ -]*(?:{'|'.join(ends)})") for ends in (LABELS, LABELS | CONTAINERS)
)
"""Names of folders of a split's labels, or of its labels or images."""
_ENDINGS = re.compile(r"(?i)[_-](masks?|labels?|gt|seg|segmentation|l)$")
"""What the names of label images have after those of their images."""
ORDER = ("", "train", "val", "test")
"""Splits, the one first that an image gives up which stands in several."""


class Mark(NamedTuple):
    """A box as a label file has it."""

    name: str
    xyxy: tuple[float, float, float, float]
    """In pixels from the upper left corner of the image, or in shares of its sides."""
    ignored: bool = False
    where: str = ""
    """In the label file."""


class Labelled(NamedTuple):
    """An image and what is marked on it."""

    file: str
    """The label file."""
    marks: list[Mark]
    size: tuple[int, int] | None = None
    """Height and width that the label file tells."""
    lost: bool = False
    """Whether there is a box of which nothing can be made."""


@dataclass
class Found:
    """What a reader made of a folder."""

    labelled: dict[str, Labelled] = field(default_factory=dict)
    """Image -> what is marked on it."""
    splits: dict[str, str] = field(default_factory=dict)
    """Image -> its split; those that are missing are in none."""
    classes: set[str] = field(default_factory=set)
    """All that are known, whether they have a box or not."""
    faults: list[Fault] = field(default_factory=list)
    relative: bool = False
    """Whether boxes are shares of the image's sides."""

    def assign(self, image: str, split: str, where: str) -> None:
        """Put an image into a split; of two, the later of ``ORDER`` keeps it."""
        before = self.splits.get(image, "")
        if before and before != split:
            self.faults.append(Fault("two splits", image, f"in {before} and in {split} ({where})"))
        self.splits[image] = max(before, split, key=ORDER.index)


class Pairs(NamedTuple):
    """Labels and images that belong together, and those that stand alone."""

    images: dict[str, str]
    """Label -> image."""
    bare: list[str]
    """Images without a label."""
    stray: list[str]
    """Labels without an image."""


def split_of(path: str) -> str:
    """The split of which a path's folders speak: those named exactly like one, else those of a word in a name.

    >>> split_of("images/train/a.jpg"), split_of("train2017/a.jpg"), split_of("seg_test/train.jpg"), split_of("a/b.jpg")
    ('train', 'train', 'test', '')
    """
    folders = path.split("/")[:-1]
    exact = [SPLITS[part.lower()] for part in folders if part.lower() in SPLITS]
    return next(iter([*exact, *filter(None, map(split_word, map(_split_name, folders)))]), "")


def images_of(listing: Listing) -> list[str]:
    """The files that are images by their names and lie in no folder of labels."""
    return [path for path in listing.files if suffix(path) in IMAGE_SUFFIXES and not is_label(path)]


def side_files(listing: Listing, end: str) -> list[str]:
    """The files with this suffix that are no images."""
    return [path for path, reason in listing.ignored if reason == SIDE and suffix(path) == end]


def set_aside(listing: Listing) -> tuple[Ignored, ...]:
    """What the listing left aside and no reader looks into."""
    return tuple(one for one in listing.ignored if one.reason != SIDE)


def is_label(path: str) -> bool:
    """Whether a file lies in a folder of labels.

    >>> is_label("train/labels/a.png"), is_label("trainannot/a.png"), is_label("labels.png")
    (True, True, False)
    """
    folders = [part.lower() for part in path.split("/")[:-1]]
    return any(part in LABELS or part == INSTANCES or _split_part(part, _OF_LABELS) for part in folders)


def paired(images: Iterable[str], labels: Iterable[str]) -> Pairs:
    """Each label with its image: of one name, in folders that differ only in being those of images or of labels.

    What is then left is paired by its name alone, where that stands once on both sides.

    >>> paired(["images/train/a.jpg", "photos/b.jpg", "c.jpg"], ["labels/train/a.txt", "boxes/b.txt", "d.txt"])
    Pairs(images={'labels/train/a.txt': 'images/train/a.jpg', 'boxes/b.txt': 'photos/b.jpg'}, bare=['c.jpg'], stray=['d.txt'])
    """
    found: dict[str, str] = {}
    free, alone = sorted(images), sorted(labels)
    for key in (_key, _stripped, _stem):
        by_key: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for image in free:
            by_key[_stem(image) if key is _stem else _key(image)].append(image)
        wanted = Counter(map(key, alone))
        for label in alone:
            there = by_key[key(label)]
            if there and (key is _key or (len(there) == 1 and wanted[key(label)] == 1)):
                found[label] = there.pop(0)
        taken = set(found.values())
        free, alone = [image for image in free if image not in taken], [label for label in alone if label not in found]
    return Pairs(found, free, alone)


def said(faults: Iterable[Fault], most: int = 3) -> str:
    """The first of some faults, for an error."""
    return "; ".join(f"{path}: {what}" for _, path, what in list(faults)[:most])


def _key(path: str) -> tuple[str, ...]:
    """A path without its suffix, and without folders that only say whether images or labels lie in them."""
    *folders, name = path.split("/")
    parts = [_split_part(part.lower()) or part for part in folders if part.lower() not in CONTAINERS | LABELS]
    return (*parts, *_stem(name))


def _stripped(path: str) -> tuple[str, ...]:
    *folders, stem = _key(path)
    return (*folders, _ENDINGS.sub("", stem))


def _stem(path: str) -> tuple[str, ...]:
    return (normal(PurePosixPath(path).stem),)


def normal(name: str) -> str:
    """A name in the spelling of its letters that most systems use; one of them, and archives made there, have another."""
    return unicodedata.normalize("NFC", name)


def _split_name(folder: str) -> str:
    return _split_part(folder.lower()) or folder


def _split_part(folder: str, pattern: re.Pattern[str] = _OF_EITHER) -> str:
    """The split's part of a folder's name such as ``trainannot``, ``val_labels``, ``test-images``; "" for others."""
    match = pattern.fullmatch(folder)
    return match[1] if match else ""
