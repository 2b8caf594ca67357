"""The data set as a table of paths, classes, splits and groups; it holds no pixels and opens no image."""

import hashlib
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import repeat
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch

from trickbag.data import long_tail
from trickbag.data.listing import SPLITS, Ignored
from trickbag.data.splits import Ints, Words, fill, follow
from trickbag.ground.arguments import public
from trickbag.ground.errors import UsageError
from trickbag.ground.shown import Sheet, Shown
from trickbag.ground.streams import generator
from trickbag.ground.text import counted, show

Floats = npt.NDArray[np.float64]
NOWHERE = (math.nan,) * 4
Box = tuple[float, ...]
"""Left, top, right, bottom."""


class Remark(NamedTuple):
    """What a reader has to say of how it understood the data."""

    message: str
    suggestion: str = ""
    warning: bool = False


class Correction(NamedTuple):
    """That a file of corrections was applied to the labels (``trickbag.data.corrections``)."""

    file: str
    sha256: str
    """Of the file."""
    changed: int
    """Labels."""
    dropped: int
    """Images."""

    def __str__(self) -> str:
        changed, dropped = counted(self.changed, "label"), counted(self.dropped, "image")
        return f"{show(self.file)}: {changed} changed, {dropped} dropped"


class Rows(NamedTuple):
    """The columns of a table, all of one length, and what stands beside them; an empty split or group is none given."""

    paths: list[str]
    labels: list[str]
    splits: list[str]
    groups: list[str]
    empty: Sequence[str] = ()
    """Classes that are known and may have no image."""
    ignored: Sequence[Ignored] = ()
    boxes: Sequence[Box] = ()
    """Of each row, in pixels of the upright image, NOWHERE where it has none; or nothing at all."""
    remarks: Sequence[Remark] = ()


@dataclass(frozen=True, eq=False, repr=False)
class Images(Shown):
    """N images of K classes.

    Examples:
        >>> rows = {"labels": np.array([0, 0, 1]), "splits": np.array(["train", "val", "train"]), "groups": np.arange(3)}
        >>> images = Images(Path("photos"), ("cat/1.jpg", "cat/2.jpg", "dog/1.jpg"), **rows, classes=("cat", "dog"))
        >>> len(images.split("train")), images.split("val").counts()
        (2, array([1, 0]))

    """

    root: Path
    """Relative paths start here."""
    paths: tuple[str, ...]
    """POSIX paths; bytes that are not UTF-8 are kept by surrogateescape, so that they open but may not print."""
    labels: Ints
    """[N], places in ``classes``."""
    splits: Words
    """[N], "train", "val", "test", "unlabelled", or "" where none is given."""
    groups: Ints
    """[N]: images of one group stay in one split."""
    classes: tuple[str, ...]
    """Full class paths such as "shoe/red", sorted: one map over all splits, so that no split can shift it."""
    hashes: tuple[str, ...] = ()
    """[N], a hash of each image's content, or nothing as long as nobody looked."""
    ignored: tuple[Ignored, ...] = ()
    """What the listing left aside, with the reason."""
    remarks: tuple[Remark, ...] = ()
    """How the data were understood, where that may surprise."""
    boxes: Floats = field(default_factory=lambda: np.empty((0, 4)))
    """[N, 4] left, top, right, bottom of the object in pixels of the upright image, a row of NaN where there is no box; or
    nothing where no image has one."""
    sizes: Ints = field(default_factory=lambda: np.empty((0, 2), np.int64))
    """[N, 2] height and width of the upright image in pixels, or nothing as long as nobody looked."""
    correction: Correction | None = None
    """What was corrected of the labels that the data set itself has."""

    def _sheet(self) -> Sheet:
        counted_in = {name or "to be split": f"{count:,}" for name, count in Counter(self.splits.tolist()).items()}
        return Sheet(f"{counted(len(self), 'image')} of {counted(len(self.classes), 'class', 'classes')}", counted_in)

    @classmethod
    def of(cls, root: Path, rows: Rows) -> Self:
        """The table of these rows, sorted by path, its class map made over all splits."""
        classes = tuple(sorted({*rows.labels, *rows.empty}))
        place = {name: label for label, name in enumerate(classes)}
        order = sorted(range(len(rows.paths)), key=rows.paths.__getitem__)
        first: dict[str, int] = {}
        ids = [first.setdefault(rows.groups[i], row) if rows.groups[i] else row for row, i in enumerate(order)]
        return cls(
            root=root,
            paths=tuple(rows.paths[i] for i in order),
            labels=np.array([place[rows.labels[i]] for i in order], dtype=np.int64),
            splits=np.array([rows.splits[i] for i in order], dtype="<U5"),
            groups=np.array(ids, dtype=np.int64),
            classes=classes,
            ignored=tuple(rows.ignored),
            remarks=tuple(rows.remarks),
            boxes=np.array([rows.boxes[i] for i in order] if rows.boxes else []).reshape(-1, 4),
        )

    def __len__(self) -> int:
        return len(self.paths)

    def path(self, row: int) -> Path:
        """Where the image of a row lies."""
        return self.root / self.paths[row]

    def take(self, rows: Sequence[int] | npt.NDArray[np.integer] | npt.NDArray[np.bool_]) -> Self:
        """These rows, in this order (or those where a mask is true); the class map stays."""
        index = np.arange(len(self))[np.asarray(rows) if len(rows) else []]
        return replace(
            self,
            paths=tuple(self.paths[row] for row in index),
            labels=self.labels[index],
            splits=self.splits[index],
            groups=self.groups[index],
            hashes=tuple(self.hashes[row] for row in index) if self.hashes else (),
            boxes=self.boxes[index] if len(self.boxes) else self.boxes,
            sizes=self.sizes[index] if len(self.sizes) else self.sizes,
        )

    @public
    def split(self, name: str) -> Self:
        """The rows of a split."""
        return self.take(np.flatnonzero(self.splits == name))

    @public
    def long_tailed(self, ratio: float = 100.0, kind: long_tail.Kind = "exponential", seed: int = 0) -> Self:
        """With as few training images as make a long tail (``trickbag.data.long_tail.tail``); other splits stay.

        The first class is the largest, as in the literature; a class that has fewer images than its share keeps all. Which are
        left is drawn by the seed. Raises UsageError where ``ratio`` is below 1 or there is no such kind.
        """
        train = np.flatnonzero(self.splits == "train")
        counts = np.bincount(self.labels[train], minlength=len(self.classes))
        kept = [np.flatnonzero(self.splits != "train")]
        for k, most in enumerate(long_tail.tail(int(counts.max()), len(self.classes), ratio, kind)):
            own = train[self.labels[train] == k]
            kept.append(own[torch.randperm(len(own), generator=generator(seed, "long_tailed", k)).numpy()[:most]])
        return self.take(np.sort(np.concatenate(kept)))

    def joined(self, other: Self) -> Self:
        """These rows, then those of another table, of whose groups none is one of these; class map and root are these."""
        boxes = np.full((len(other), 4), np.nan) if len(self.boxes) and not len(other.boxes) else other.boxes
        return replace(
            self,
            paths=(*self.paths, *(str(other.path(row)) for row in range(len(other)))),
            labels=np.concatenate([self.labels, other.labels]),
            splits=np.concatenate([self.splits, other.splits]),
            groups=np.concatenate([self.groups, other.groups + self.groups.max(initial=-1) + 1]),
            hashes=(*self.hashes, *other.hashes),
            boxes=np.concatenate([self.boxes, boxes]),
            sizes=np.concatenate([self.sizes, other.sizes]),
        )

    def counts(self) -> Ints:
        """Images per class [K]."""
        return np.bincount(self.labels, minlength=len(self.classes))

    def cut_away(self) -> float:
        """The share of an image that lies outside of its central square, the median; 0 as long as nobody looked."""
        return float(np.median(1 - self.sizes.min(1) / self.sizes.max(1))) if len(self.sizes) else 0.0

    def relative_boxes(self) -> Floats:
        """The boxes [N, 4] as shares of width and height, once the sizes are known; a row of NaN where there is none."""
        return self.boxes / np.tile(self.sizes[:, ::-1], 2) if len(self.boxes) else np.full((len(self), 4), np.nan)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the class map and of every image's path, class, split, group, content and box, in any order of rows.

        The root plays no part; a group counts as what it holds together, whatever its number.
        """
        groups = self.groups.tolist()
        first: dict[int, str] = {}
        for path, group in zip(self.paths, groups, strict=True):
            if path < first.get(group, path + "\0"):
                first[group] = path
        names = (self.classes[label] for label in self.labels.tolist())
        contents: Iterable[str] = self.hashes or repeat("", len(self))
        columns = [self.paths, names, self.splits.tolist(), (first[group] for group in groups), contents]
        if len(self.boxes):
            columns.append(" ".join(map(repr, box)) for box in self.boxes.tolist())
        rows: Iterable[tuple[str, ...]] = zip(*columns, strict=True)
        digest = hashlib.blake2b(digest_size=16)
        for row in (self.classes, *sorted(rows)):
            digest.update(("\0".join(row) + "\0\0").encode("utf-8", "surrogatepass"))
        return digest.hexdigest()


def divide(images: Images, seed: int, val: float = 0.1, test: float = 0.2, met: Words | None = None) -> Images:
    """The images with every row in a split: what is given stays, a missing validation or test split is taken out of train.

    ``val`` and ``test`` are shares of each class's images; see ``splits.fill``. With ``met`` [N], the splits in which images
    were seen before ("" for new ones), a missing split is what it was then, and new images alone are divided by the shares;
    see ``splits.follow``. Raises UsageError where the shares leave nothing to train on.
    """
    if not (val >= 0 and test >= 0 and val + test < 1):
        raise UsageError(f"val={val:g} and test={test:g} are shares of the images: both at least 0, together below 1.")
    shares = {name: share for name, share in (("val", val), ("test", test)) if share and not (images.splits == name).any()}
    splits, left = images.splits, np.ones(len(images), dtype=bool)
    if met is not None:
        splits, left = follow(splits, met, images.groups, list(shares))
    new = images.take(left)
    splits = splits.copy()
    splits[left] = fill(new.paths, new.labels, splits[left], new.groups, seed, shares)
    return replace(images, splits=splits)


def gaps(images: Images, folders: bool = True) -> list[str]:
    """What the table lacks, a sentence for each: classes without images or missing in a split, twin names, split groups.

    ``folders``: whether classes are folders, in whose names a / has a meaning.
    """
    counts = images.counts()
    found = _about(images, counts == 0, "without an image", f"Add some, or remove the {'folder' if folders else 'name'}.")
    found += _about(images, counts == 1, "with one image, so that training or scoring gets none", "Add more.")
    splits = [name for name in ("train", "val", "test") if (images.splits == name).any()]
    if splits:
        table = np.stack([images.split(name).counts() > 0 for name in splits])
        for pattern in np.unique(table[:, counts > 1], axis=1).T:
            there = [name for name, has in zip(splits, pattern, strict=True) if has]
            missing = [name for name in splits if name not in there]
            alike = (table == pattern[:, None]).all(0) & (counts > 1)
            if missing:
                harm = "not learned" if "train" in missing else f"not scored in {' and '.join(missing)}"
                where = " and ".join(there) + (" only" if len(there) == 1 else "") if there else "no split"
                found += _about(images, alike, f"in {where}, so {harm}", f"Add images to {' and '.join(missing)}.")
    pairs = {(group, split) for group, split in zip(images.groups.tolist(), images.splits.tolist(), strict=True) if split}
    torn = len(pairs) - len({group for group, _ in pairs})
    if torn:
        found.append(f"{counted(torn, 'group')} in more than one split, which inflates the scores. Give each group one split.")
    normal = [unicodedata.normalize("NFC", name) for name in images.classes]
    twins = _repeated(normal)
    found += _about(images, twins, "that differ only in Unicode normalisation", "Rename them if they are one class.")
    alike = _repeated([plain(name) for name in images.classes]) & ~twins
    found += _about(images, alike, "that differ only in case, spaces or hyphens", "Rename them if they are one class.")
    return found + (_misplaced(images) if folders else [])


def _misplaced(images: Images) -> list[str]:
    """Classes whose folders may not be what was meant."""
    nested = {name.rpartition("/")[0] for name in images.classes}
    mixed = np.array([name in nested for name in images.classes], dtype=bool)
    cure = "The folders are classes of their own. Give --depth 1 if the top folder is the class."
    found = _about(images, mixed, "with images and folders side by side", cure)
    above = np.array([name.partition("/")[0].lower() in SPLITS and "/" in name for name in images.classes], dtype=bool)
    return found + _about(
        images, above, "below a folder named like a split, beside other folders", "Put only split folders at the top."
    )


def plain(name: str) -> str:
    """A class's name without what people spell in several ways: case, spaces and their stand-ins, forms of one letter.

    >>> plain("Hot_Dog ") == plain("hot-dog") == plain("hot  dog"), plain("hotdog") == plain("hot dog")
    (True, False)
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return "/".join(re.sub(r"[\s_-]+", " ", part).strip() for part in folded.split("/"))


def _repeated(names: Sequence[str]) -> npt.NDArray[np.bool_]:
    counts = Counter(names)
    return np.array([counts[name] > 1 for name in names], dtype=bool)


def _about(images: Images, which: npt.NDArray[np.bool_], what: str, cure: str) -> list[str]:
    names = [repr(images.classes[k]) for k in np.flatnonzero(which)]
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return [f"{counted(len(names), 'class', 'classes')} {what}: {', '.join(names[:5])}{more}. {cure}"] if names else []
