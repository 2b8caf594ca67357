"""The data set as a table: images with their boxes, or with the label image that gives every pixel a class."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from trickbag.data.images import Floats, Images
from trickbag.data.listing import Ignored
from trickbag.data.splits import Ints, Words
from trickbag.ground.arguments import public
from trickbag.ground.shown import Sheet, Shown
from trickbag.ground.text import counted
from trickbag.scenes.levels import IGNORED, raw

Bools = npt.NDArray[np.bool_]
Task = Literal["detection", "segmentation"]


class Boxes(NamedTuple):
    """What is marked on one image."""

    xyxy: Floats
    """[n, 4] left, top, right, bottom in pixels of the upright image, 0 <= left < right <= width: a pixel is 1 wide."""
    labels: Ints
    """[n], places in the classes."""
    ignored: Bools
    """[n]: neither trained on nor, when judged, found or missed: VOC's difficult, COCO's iscrowd."""


class Fault(NamedTuple):
    """Something that a reader clipped, dropped, left out or had to guess."""

    kind: str
    """A key of ``trickbag.scenes.findings.KINDS``."""
    path: str
    """The file that is wrong, relative to the root."""
    what: str
    """What is wrong with it, and where in it."""


@dataclass(frozen=True, eq=False, repr=False)
class Scenes(Shown):
    """N images with boxes or regions of K classes.

    Examples:
        >>> boxes = Boxes(np.array([[0.0, 0.0, 9.0, 4.0]]), np.array([0]), np.array([False]))
        >>> rows = {"splits": np.array(["train"]), "sizes": np.array([[8, 12]]), "hashes": ("c0ffee",), "groups": np.array([0])}
        >>> Scenes("detection", Path("cells"), ("1.jpg",), classes=("white",), boxes=(boxes,), **rows)
        <1 image with 1 box of 1 class: train 1>

    """

    task: Task
    root: Path
    """Relative paths start here."""
    paths: tuple[str, ...]
    """Of the images, sorted; bytes that are not UTF-8 are kept by surrogateescape."""
    splits: Words
    """[N] "train", "val", "test", or "" where the data set does not say."""
    classes: tuple[str, ...]
    """Without a background: those of boxes sorted by name, those of regions by their value in the label images."""
    sizes: Ints
    """[N, 2] height and width of the upright image in pixels."""
    hashes: tuple[str, ...]
    """[N] of the content of each image file."""
    groups: Ints
    """[N]: exact copies, of the file or of its pixels, have one number."""
    boxes: tuple[Boxes, ...] = ()
    """[N]; nothing for segmentation."""
    regions: tuple[str, ...] = ()
    """[N] label images, relative to the root; nothing for detection."""
    levels: Ints = field(default_factory=lambda: np.full(256, IGNORED))
    """[256]: the value of a grey label image, or the place in its palette -> the number of a class, or 255 for ignored."""
    areas: Ints = field(default_factory=lambda: np.empty((0, 0), np.int64))
    """[N, K] pixels of each class; nothing for detection."""
    region_hashes: tuple[str, ...] = ()
    """[N] of the content of each label image."""
    faults: tuple[Fault, ...] = ()
    """What was wrong, of the whole data set."""
    ignored: tuple[Ignored, ...] = ()
    """What the listing left aside, with the reason."""

    def _sheet(self) -> Sheet:
        counts = Counter(self.splits.tolist())
        splits = {name or "to be split": f"{counts[name]:,}" for name in ("train", "val", "test", "") if counts[name]}
        marks = counted(sum(len(boxes.labels) for boxes in self.boxes), "box", "boxes") if self.boxes else "regions"
        return Sheet(f"{counted(len(self), 'image')} with {marks} of {counted(len(self.classes), 'class', 'classes')}", splits)

    def __len__(self) -> int:
        return len(self.paths)

    def path(self, row: int) -> Path:
        """Where the image of a row lies."""
        return self.root / self.paths[row]

    def region(self, row: int) -> npt.NDArray[np.uint8]:
        """The classes [H, W] of a row's pixels, 255 where they are ignored; upright, as large as the image.

        Raises ``Unreadable`` where the label image is no longer what it was.
        """
        return self.levels.astype(np.uint8)[raw(self.root / self.regions[row])]

    def take(self, rows: Sequence[int] | npt.NDArray[np.integer] | Bools) -> Self:
        """These rows, in this order (or those where a mask is true); the classes stay."""
        index = np.arange(len(self))[np.asarray(rows) if len(rows) else []]
        return replace(
            self,
            paths=tuple(self.paths[row] for row in index),
            hashes=tuple(self.hashes[row] for row in index),
            boxes=tuple(self.boxes[row] for row in index) if self.boxes else (),
            regions=tuple(self.regions[row] for row in index) if self.regions else (),
            region_hashes=tuple(self.region_hashes[row] for row in index) if self.region_hashes else (),
            splits=self.splits[index],
            sizes=self.sizes[index],
            groups=self.groups[index],
            areas=self.areas[index] if len(self.areas) else self.areas,
        )

    @public
    def split(self, name: str) -> Self:
        """The rows of a split."""
        return self.take(np.flatnonzero(self.splits == name))

    def per_image(self) -> Bools:
        """[N, K]: whether a class is on an image."""
        if self.task == "segmentation":
            return self.areas > 0
        there = np.zeros((len(self), len(self.classes)), bool)
        for row, boxes in enumerate(self.boxes):
            there[row, boxes.labels] = True
        return there

    @cached_property
    def images(self) -> Images:
        """The images without what is marked on them, all of one class."""
        return Images(
            self.root,
            self.paths,
            np.zeros(len(self), np.int64),
            self.splits,
            self.groups,
            ("",),
            self.hashes,
            self.ignored,
            sizes=self.sizes,
        )

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the classes and of every image's path, split, content and labels, in any order of rows."""
        digest = hashlib.blake2b(digest_size=16)
        rows = [[self.task, *self.classes]]
        for row in sorted(range(len(self)), key=self.paths.__getitem__):
            own = [self.paths[row], str(self.splits[row]), self.hashes[row]]
            if self.boxes:
                columns = (column.tolist() for column in self.boxes[row])
                own += map(str, sorted(zip(*columns, strict=True)))
            else:
                own += [self.region_hashes[row], str(self.levels.tolist())]
            rows.append(own)
        for texts in rows:
            digest.update(("\0".join(texts) + "\0\0").encode("utf-8", "surrogatepass"))
        return digest.hexdigest()
