r"""WebDataset shards: tars in which the members that share a key are one image and its label.

The key is a member's path up to the first dot of its name, the rest is its kind; where names have dots of their own, so that
nothing or another sample stands at that key, it is the path up to the last dot. A sample is one image (``.jpg``, ``.png``,
``.webp`` …) and its label: in ``.cls`` a number or a name, or in ``.json`` an object with one of ``FIELDS``. Both may stand
there, and a number beside a name, as long as they agree. A file ``classes.txt`` or ``classnames.txt`` beside the shards
gives the numbers their names, a line each from 0; without it a number is the name.
Format: github.com/webdataset/webdataset.
"""

import json
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from glob import glob
from pathlib import Path
from typing import NamedTuple

from trickbag.data.archives import is_archive
from trickbag.data.images import Rows
from trickbag.data.listing import IMAGE_SUFFIXES, SIDE, SPLITS, Ignored, Listing
from trickbag.ground import files
from trickbag.ground.errors import UsageError

FIELDS = ("label", "cls", "class", "class_name")
NAMES = ("classes.txt", "classnames.txt")
LABEL_SUFFIXES = {".cls", ".json"}
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"([0-9]{1,18})\.\.([0-9]{1,18})")
_SPECIAL = set("{*?[")
_MOST_BYTES = 1 << 20
_MOST_BYTES_OF_NAMES = 1 << 26
_MOST_BRACES = 64

Label = int | str


class Sample(NamedTuple):
    """The members of one key, each kind by its path."""

    images: list[str]
    labels: dict[str, list[Label]]
    """What each member tells that tells a label; an empty text where it cannot be read."""


def is_pattern(data: str) -> bool:
    """Whether a text is the pattern of shards."""
    return "::" in data or not _SPECIAL.isdisjoint(data)


def title(pattern: str) -> str:
    """What a set is called: the last folder that its pattern spells out.

    >>> title("data/birds/{train,val}-{0..9}.tar")
    'birds'
    """
    parts = Path(pattern.partition("::")[0]).parts[:-1]
    return next((part for part in reversed(parts) if _SPECIAL.isdisjoint(part)), "shards").strip("/") or "shards"


def expand(pattern: str) -> tuple[Path, list[str]]:
    """The shards of a pattern: the folder around them all, and their paths below it, sorted.

    ``{a,b}`` and ``{000..012}`` are spelled out, ``*``, ``?``, ``[ab]`` and ``**`` are looked up, ``::`` joins patterns.
    Raises UsageError where a shard is missing or is no tar.
    """
    if pattern.count("{") > _MOST_BRACES:
        raise UsageError(f"the pattern of shards has more than {_MOST_BRACES} braces. Write a shorter one, as shards/*.tar.")
    found = {file: None for one in pattern.split("::") for text in spelled(one) for file in _files(text)}
    if not found:
        raise UsageError(f"{pattern!r} names no shard. Write its ranges upwards, as {{000000..000003}}.")
    for file in found:
        if not is_archive(file):
            raise UsageError(f"{str(file)!r} is not a tar. Write a pattern of tars only, as shards/*.tar.")
    home = Path(os.path.commonpath([file.parent for file in found]))
    return home, sorted(file.relative_to(home).as_posix() for file in found)


def spelled(text: str) -> Iterator[str]:
    """The text with each choice in its braces.

    >>> list(spelled("{train,val}-{08..10}.tar"))[2:4]
    ['train-10.tar', 'val-08.tar']
    """
    found = _BRACES.search(text)
    if found is None:
        yield text
        return
    choices: Iterable[str] = found[1].split(",")
    if ends := _RANGE.fullmatch(found[1]):
        choices = (f"{number:0{len(ends[1])}d}" for number in range(int(ends[1]), int(ends[2]) + 1))
    for choice in choices:
        yield from spelled(text[: found.start()] + choice + text[found.end() :])


def _files(text: str) -> list[Path]:
    try:
        path = Path(os.path.abspath(Path(text).expanduser()))  # noqa: PTH100  resolve would lose the names of links
        there = [path] if path.is_file() else map(Path, glob(str(path), recursive=True))  # noqa: PTH207  the pattern is absolute
        found = sorted(file for file in there if file.is_file())
    except (OSError, RuntimeError) as error:
        raise UsageError(
            f"the shard {text[:200]!r} cannot be read: {error}. Write a pattern of tars, as shards/*.tar."
        ) from None
    if not found:
        raise UsageError(f"there is no shard {text!r}. Write a pattern of tars, as shards/train-{{000000..000003}}.tar.")
    return found


def split_of(name: str) -> str:
    """The split whose word stands in a shard's name, else in the name of the nearest folder; "" for none.

    Raises UsageError where one name holds words of two.

    >>> split_of("birds-Training-000000.tar"), split_of("valid/0.tar"), split_of("0.tar")
    ('train', 'val', '')
    """
    for part in reversed(name.split("/")):
        found = sorted({SPLITS[word] for word in re.split(r"[^a-z]+", part.lower()) if word in SPLITS})
        if len(found) > 1:
            raise UsageError(f"the shard {name!r} names the splits {' and '.join(found)}. Give it the name of one.")
        if found:
            return found[0]
    return ""


def class_names(folder: Path) -> list[str]:
    """The lines of ``classes.txt`` or ``classnames.txt`` in a folder: the names of the labels 0, 1, …; none without a file.

    Raises UsageError where a line is empty or a name stands twice.
    """
    for file in (folder / name for name in NAMES):
        try:
            text = files.content(file, _MOST_BYTES_OF_NAMES).decode("utf-8-sig", "surrogateescape")
        except FileNotFoundError:
            continue
        except OSError as error:
            raise UsageError(
                f"{str(file)!r} cannot be read: {files.reason(error)}. Write the name of a class in each line."
            ) from None
        names, lines = [line.strip() for line in text.rstrip().split("\n")], dict[str, int]()
        for line, name in enumerate(names, 1):
            if not name or "\0" in name:
                raise UsageError(f"{file.name}, line {line}: {name!r} is not a name. Write the name of a class in each line.")
            if (first := lines.setdefault(name, line)) != line:
                raise UsageError(f"{file.name}, line {line}: {name!r} is already in line {first}. Rename one of them.")
        return names
    return []


def samples(folder: Path, listing: Listing, shard: str, names: Sequence[str], numbers: dict[str, int]) -> Rows | None:
    """The labelled images in an unpacked shard; None where no image has a label, so that folders must be the classes.

    ``names`` are those of the labels 0, 1, …, and all become classes; ``numbers`` is for ``class_of``, one for all
    shards. An image without a label and a label without an image are listed as ignored.
    Raises UsageError where a key has two images, or labels that do not agree.
    """
    side = [path for path, reason in listing.ignored if reason == SIDE]
    found = _grouped(folder, [*listing.files, *side])
    if not any(sample.images and any(told != [""] for told in sample.labels.values()) for sample in found.values()):
        return None
    used = {path for sample in found.values() for path in (*sample.images, *sample.labels)}
    rows = Rows([], [], [], [], names, [entry for entry in listing.ignored if entry.path not in used])
    ignored = [Ignored(path, SIDE) for path in listing.files if path not in used]
    for key, (images, labels) in sorted(found.items()):
        where = f"{shard}: the sample {key!r}"
        told = [value for values in labels.values() for value in values]
        if len(images) > 1:
            raise UsageError(f"{where} has two images, {images[0]!r} and {images[1]!r}. Keep one.")
        if not images:
            ignored += [Ignored(path, "label without an image") for path in labels]
        elif "" in told:
            ignored += [Ignored(path, "image with an unreadable label") for path in images]
        elif not told:
            ignored += [Ignored(path, "image without a label") for path in images]
        else:
            for column, value in zip(rows[:4], (images[0], class_of(told, names, numbers, where), "", ""), strict=True):
                column.append(value)
    return rows._replace(ignored=[*rows.ignored, *ignored])


def class_of(told: Sequence[Label], names: Sequence[str], numbers: dict[str, int], where: str) -> str:
    """The class that a sample's labels tell: a name if one does, else the number's name, else the number.

    ``numbers`` keeps the number of each class that was told both. Raises UsageError where the labels do not agree.

    >>> class_of([1], ["cat", "dog"], {}, ""), class_of([7, "owl"], [], {}, ""), class_of([7], [], {}, "")
    ('dog', 'owl', '7')
    """
    given = [value for value in dict.fromkeys(told) if isinstance(value, int)]
    for number in given if names else ():
        if number >= len(names):
            raise UsageError(f"{where} has the label {number}, and only 0 to {len(names) - 1} have names. Add its name.")
    texts = [value for value in told if isinstance(value, str)] + [names[number] for number in given if names]
    texts = list(dict.fromkeys(texts))
    for labels in (given, texts):
        if len(labels) > 1:
            raise UsageError(f"{where} has two labels, {labels[0]!r} and {labels[1]!r}. Keep one.")
    if not texts:
        return str(given[0])
    if names and texts[0] not in names:
        raise UsageError(f"{where} has the label {texts[0]!r}, which is not in the file of class names. Add it there.")
    if given and (first := numbers.setdefault(texts[0], given[0])) != given[0]:
        raise UsageError(
            f"{where} calls label {given[0]} {texts[0]!r}, as label {first} is already called. Rename one of them."
        )
    return texts[0]


def placed(rows: Rows, shard: str) -> Rows:
    """The rows of a shard in a table of many: paths below the shard's name, and its split where none is given."""
    split = split_of(shard)
    return rows._replace(
        paths=[f"{shard}/{path}" for path in rows.paths],
        splits=[given or split for given in rows.splits],
        ignored=[Ignored(f"{shard}/{path}", reason) for path, reason in rows.ignored],
    )


def parted(path: str, last: bool = False) -> tuple[str, str]:
    """The key and the kind of a member, parted at the first dot of its name or at the last.

    >>> parted("a.b/0001.Seg.PNG"), parted("a.b/0001.Seg.PNG", last=True)
    (('a.b/0001', '.seg.png'), ('a.b/0001.Seg', '.png'))
    """
    folder, slash, name = path.rpartition("/")
    key, dot, kind = (name.rpartition if last and "." in name else name.partition)(".")
    return folder + slash + key, (dot + kind).lower()


def _grouped(folder: Path, paths: Sequence[str]) -> dict[str, Sample]:
    found: dict[str, Sample] = defaultdict(lambda: Sample([], {}))
    for path, (key, kind) in zip(paths, _keys(paths), strict=True):
        if kind in IMAGE_SUFFIXES:
            found[key].images.append(path)
        elif kind in LABEL_SUFFIXES and (told := _told(folder / path, kind)):
            found[key].labels[path] = told
    return found


def _keys(paths: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The key and the kind of each member. ``0001.seg.png`` is a part of the sample ``0001`` where there is one, unless a
    label of its own makes it a sample: then, and where there is none, the dot belongs to the name."""
    firsts, lasts = [parted(path) for path in paths], [parted(path, last=True) for path in paths]
    kinds: dict[str, set[str]] = defaultdict(set)
    for key, kind in lasts:
        kinds[key].add(kind)
    whole = {key for key, those in kinds.items() if those & IMAGE_SUFFIXES and those & LABEL_SUFFIXES}
    for first, last in zip(firsts, lasts, strict=True):
        apart = kinds[first[0]] & (IMAGE_SUFFIXES | LABEL_SUFFIXES)
        yield first if apart and last[0] not in whole else last


def _told(file: Path, kind: str) -> list[Label]:
    """The labels in a member; none in JSON that is about something else, an empty text where they cannot be read."""
    with file.open("rb") as member:
        content = member.read(_MOST_BYTES)
        if member.read(1):
            return [""]
    if kind == ".cls":
        return [_label(os.fsdecode(content))]
    try:
        told = json.loads(content)
    except (ValueError, RecursionError):
        return [""]
    return [_label(told[field]) for field in FIELDS if told.get(field) is not None] if isinstance(told, dict) else []


def _label(value: object) -> Label:
    text = str(value).strip() if isinstance(value, int | str) and not isinstance(value, bool) else ""
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else "" if "\0" in text else text
