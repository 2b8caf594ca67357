"""Which folders are splits and which are classes, by names alone: one answer for folders, archives and shards.

What has one meaning is read, what can be left out is left out with a reason, and what has two meanings is refused with a
command for each: a wrong guess would train on test images, or on classes that are none.
"""

import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from typing import NamedTuple

from trickbag.data.images import Rows
from trickbag.data.listing import (
    BESIDE_SPLITS,
    IMAGE_SUFFIXES,
    SIDE,
    SPLITS,
    TABLE_SUFFIXES,
    UNLABELLED,
    Ignored,
    Listing,
    suffix,
)
from trickbag.ground.errors import UsageError

CONTAINERS = {"images", "image", "img", "imgs", "jpegimages", "photos", "pictures", "data"}
"""Names of folders between a split and its classes that say nothing of either."""
MASKS = {"masks", "mask", "labels", "label", "annotations", "annotation", "segmentation", "groundtruth", "ground_truth", "gt"}
"""Names of folders that hold answers for each pixel or box, not a class."""
OUTSIDE = "file outside the class folders"

Folder = tuple[str, ...]
"""A folder's path, part by part."""


class Home(NamedTuple):
    """What a folder is to the images in it."""

    split: str = ""
    label: Folder = ()
    """Empty: no class."""
    reason: str = ""
    """Why its images are left out; empty where they are not."""


Meaning = Callable[[Folder], Home]


def arrange(listing: Listing, depth: int = 0, data: str = "DATA") -> tuple[str, Rows]:
    """The folder that wraps everything ("" for none), and the rows of the images below it, with paths that start there.

    ``depth``: how many folders make a class; 0 for all. ``data`` is what errors call the folder.
    Raises UsageError where an image lies in no class folder, and where the names allow more than one answer.

    >>> listing = Listing(["food/train/pie/1.jpg", "food/val/pie/2.jpg", "food/README"], [], [])
    >>> base, rows = arrange(listing)
    >>> base, rows.paths, rows.labels, rows.splits
    ('food', ['train/pie/1.jpg', 'val/pie/2.jpg'], ['pie', 'pie'], ['train', 'val'])
    """
    above = {path: _parts(path)[:-1] for path in listing.files}
    empty = [_parts(folder) for folder in listing.empty if folder]
    shown = {above[path] for path in listing.files if suffix(path) in IMAGE_SUFFIXES | {".npy", ""}}
    wrapper = _wrapper({*above.values(), *empty}, {above[path] for path in listing.files if suffix(path) in IMAGE_SUFFIXES})
    base, here = "/".join(wrapper), "/".join((data, *wrapper))
    start = len(base) + bool(base)
    if not depth:
        marks = _marks(listing)
        _refuse_masks(shown, marks, data if marks else here)
    meaning = _meaning({folder[len(wrapper) :] for folder in shown if folder[: len(wrapper)] == wrapper}, depth, here)
    homes = {folder: meaning(folder[len(wrapper) :]) for folder in {*above.values(), *empty}}
    rows, ignored, stray = Rows([], [], [], []), list(listing.ignored), ""
    for path, folder in above.items():
        split, label, reason = homes[folder]
        if label and not reason:
            for column, value in zip(rows[:4], (path[start:], _class(label, depth), split, ""), strict=True):
                column.append(value)
            continue
        stray = stray or (path if not reason and suffix(path) in IMAGE_SUFFIXES else "")
        ignored.append(Ignored(path, reason or OUTSIDE))
    _check(rows, stray, [path for path, _ in listing.ignored if suffix(path) in TABLE_SUFFIXES], depth, data)
    classes = {_class(homes[folder].label, depth) for folder in empty if homes[folder].label and not homes[folder].reason}
    return base, rows._replace(empty=sorted(classes), ignored=ignored)


def _parts(path: str) -> Folder:
    return tuple(path.split("/"))


def _class(label: Folder, depth: int) -> str:
    """A class's name: its folders without the spaces around their names, as labels in a manifest lose theirs."""
    return "/".join(part.strip() or part for part in label[: depth or None])


def _wrapper(folders: set[Folder], holding: set[Folder]) -> Folder:
    """The folder around all ``folders``: a split's folder, and one that is ``holding`` images itself, wraps nothing."""
    around: Folder = ()
    while around not in holding:
        inside = {folder[len(around)] for folder in folders if len(folder) > len(around)}
        inner = (*around, *inside)
        if len(inside) != 1 or inner in holding or inner[-1].lower() in SPLITS or not any(len(f) > len(inner) for f in folders):
            break
        around = inner
    return around


def _meaning(folders: set[Folder], depth: int, data: str) -> Meaning:
    """What the folders below the wrapper are; ``folders`` are those that hold images."""
    tops: dict[str, set[Folder]] = defaultdict(set)
    for folder in folders:
        if folder:
            tops[folder[0]].add(folder[1:])
    splits = _split_folders(tops, depth, data)
    if splits:
        return lambda folder: _below_split(folder, splits, tops)
    if _all_end_in_splits(folders):
        return lambda folder: Home(SPLITS.get(folder[-1].lower(), ""), folder[:-1]) if folder else Home()
    if not depth:
        _refuse_splits_further_down(folders, data)
    return lambda folder: Home(label=folder)


def _split_folders(tops: Mapping[str, set[Folder]], depth: int, data: str) -> dict[str, str]:
    """Top folder -> split, for those that are splits; nothing where folders at the top are classes."""
    exact = {top: SPLITS[top.lower()] for top in tops if top.lower() in SPLITS}
    classes = {top: {label for label in _labels(top, tops) if label} for top in tops}
    if exact and exact.keys() == tops.keys() and ("train" in exact.values() or set.intersection(*classes.values())):
        return exact
    words = Counter([*exact.values(), *(split_word(top) for top in tops if top not in exact)])
    others = {top: word for top in tops if top not in exact and (word := split_word(top))}
    named = exact | {top: word for top, word in others.items() if words[word] == 1}
    train = [top for top in named if named[top] == "train"]
    learned = set().union(*(classes[top] for top in train))
    if not learned:
        return named if not any(classes.values()) and "train" in exact.values() and all(map(split_word, tops)) else {}
    judged = [top for top in named if top not in train and classes[top] & learned]
    splits = {top: named[top] for top in named if top in {*exact, *train, *judged} or not classes[top]}
    rest = [top for top in tops if top not in splits and (classes[top] or not split_word(top))]
    if rest and not judged:
        if depth or exact.keys().isdisjoint(train):
            return {}
        raise UsageError(_two_meanings(data, train[0], rest))
    return splits


def split_word(name: str) -> str:
    """The split that a folder's name speaks of, as ``seg_train`` and ``test1`` do; "" for none or several."""
    found = {SPLITS[word] for word in re.split(r"[^a-z]+", name.lower()) if word in SPLITS}
    return found.pop() if len(found) == 1 else ""


def _labels(top: str, tops: Mapping[str, set[Folder]]) -> set[Folder]:
    """The classes below a split's folder, past folders around all of them that say nothing; () for images in no class."""
    below = tops[top]
    return {folder[_around(top, below) :] for folder in below}


def _around(top: str, below: set[Folder]) -> int:
    around = 0
    while True:
        inside = {folder[around : around + 1] for folder in below}
        name = "".join(*inside) if len(inside) == 1 else ""
        if name.lower() not in CONTAINERS and not (name and split_word(name) and split_word(name) == split_word(top)):
            return around
        around += 1


def _below_split(folder: Folder, splits: Mapping[str, str], tops: Mapping[str, set[Folder]]) -> Home:
    if not folder:
        return Home()
    top = folder[0]
    if top not in splits:
        return Home(reason=UNLABELLED if split_word(top) and not any(_labels(top, tops)) else BESIDE_SPLITS)
    if splits[top] != "train" and top in tops and not any(_labels(top, tops)):
        return Home(reason=UNLABELLED)
    return Home(splits[top], folder[1 + _around(top, tops[top]) :] if top in tops else folder[1:])


def _all_end_in_splits(folders: set[Folder]) -> bool:
    """Whether each class has folders of its own for the splits: ``cat/train``, ``cat/test``."""
    ends = {folder[-1].lower() for folder in folders if folder}
    return bool(ends) and ends <= SPLITS.keys() and "train" in {SPLITS[end] for end in ends} and all(
        len(folder) > 1 for folder in folders
    )  # fmt: skip


def _refuse_splits_further_down(folders: set[Folder], data: str) -> None:
    found = sorted(
        {folder[:at] for folder in folders for at in range(1, len(folder) - 1) if SPLITS.get(folder[at].lower()) == "train"}
    )
    if found:
        choices = [f"trickbag check {_quoted(data, *folder)}" for folder in found[:5]]
        raise UsageError(
            f"{data} holds split folders beside others, as in {'/'.join(found[0])!r}. Give the folder that holds the splits: "
            f"{' or '.join(choices)}. If the folders are classes: trickbag check {_quoted(data)} --depth 1."
        )


def _marks(listing: Listing) -> set[str]:
    """Names of folders with answers that are no images: boxes are written into texts."""
    texts = [path for path, reason in listing.ignored if reason == SIDE and suffix(path) not in TABLE_SUFFIXES]
    return {part for path in texts for part in _parts(path.lower())[:-1] if part in MASKS}


def _refuse_masks(folders: set[Folder], marks: set[str], data: str) -> None:
    ends = marks | {name for folder in folders if (name := _end(folder))}
    if (marks or len(ends) > 1) and ends <= CONTAINERS | MASKS and ends & MASKS:
        option = "--boxes" if marks else "--regions, or --boxes"
        raise UsageError(
            f"{data} holds folders named {' and '.join(map(repr, sorted(ends)))}, as sets for segmentation or detection do. "
            f"To check it as one: trickbag check {_quoted(data)} {option}. To classify whole images: put each "
            "class into a folder of its own, or write a manifest with the columns path,label. If these are the classes: "
            f"trickbag check {_quoted(data)} --depth 1."
        )


def _end(folder: Folder) -> str:
    """The name of the innermost folder that is no split's, in lower case; empty where there is none."""
    return next((part.lower() for part in reversed(folder) if not split_word(part)), "")


def _two_meanings(data: str, train: str, others: list[str]) -> str:
    named = ", ".join(map(repr, sorted(others)[:5]))
    return (
        f"{data} holds {train!r}, which reads as a split, beside {named}. If the classes lie in {train!r}: trickbag check "
        f"{_quoted(data, train)}. If the folders at the top are the classes: trickbag check {_quoted(data)} --depth 1. If "
        f"{min(others)!r} is a split too, name it val or test."
    )


def _quoted(*parts: str) -> str:
    return shlex.quote("/".join(parts))


def _check(rows: Rows, stray: str, tables: list[str], depth: int, data: str) -> None:
    """Raise UsageError where an image lies in no class folder, or where a table beside the images tells the classes."""
    if tables and not depth and (stray or len(set(rows.labels)) == 1):
        choices = " or ".join(f"trickbag check {_quoted(data, table)}" for table in tables[:3])
        joined = " To use several, write one with a column split." if len(tables) > 1 else ""
        raise UsageError(f"the folders of {data} name no classes, but a table lies beside the images: {choices}.{joined}")
    if stray:
        raise UsageError(f"{stray!r} in {data!r} lies in no class folder. Put it into a folder named like its class.")
