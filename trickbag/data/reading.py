"""The one door for data: a folder, a manifest, an archive, shards or a name becomes a table of images."""

import stat
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from trickbag.data import archives, manifests, named, shards
from trickbag.data.corrections import corrected
from trickbag.data.images import Images, Rows
from trickbag.data.layout import arrange
from trickbag.data.listing import Listing, is_run, list_folder, suffix
from trickbag.ground import files
from trickbag.ground.errors import UsageError
from trickbag.ground.events import Tell, silent

FORMS = (
    "Give a folder with a folder per class, a CSV or Parquet manifest, a tar or zip, the pattern of WebDataset shards as "
    "shards/train-{000000..000003}.tar, torchvision:NAME or timm:NAME."
)


MOST_SHOWN = 200
"""Characters of DATA that an error repeats."""
UNPACKED = "UNPACKED_FOLDER"
"""What errors call the folder in an archive: commands cannot reach into it."""


class Found(NamedTuple):
    """What a reader made of DATA."""

    root: Path
    """Relative paths start here."""
    rows: Rows


def read(data: str | Path, tell: Tell = silent, depth: int = 0, corrections: str | Path = "") -> Images:
    """The data set that a folder, a manifest, an archive, a pattern of shards or a name spells; see FORMS.

    ``depth``: how many folders make a class, where folders name the classes; 0 for all of them. ``corrections``: a file, or
    nothing, for ``corrected``.
    Raises UsageError where there is nothing of that kind, no image in it, or more than one way to read it, and for corrections
    that do not fit.
    """
    if not str(data):
        raise UsageError(f"no data set is named. {FORMS}")
    source = str(named.export(str(data), tell) if named.is_named(str(data)) else data)
    place = Place.of(source)
    for reader in (_folder, _manifest, _archive, _shards):
        if found := reader(place, depth, tell):
            images = _table(found)
            return corrected(images, corrections) if str(corrections) else images
    if place.kind == "file":
        raise UsageError(f"{source!r} is neither a manifest nor an archive. {FORMS}")
    if place.kind:
        raise UsageError(f"{source!r} is {place.kind}, neither a file nor a folder. {FORMS}")
    raise UsageError(f"there is no folder and no file {source!r}. {FORMS}")


class Place(NamedTuple):
    """What DATA spells, and what lies there."""

    text: str
    path: Path
    kind: str
    """"folder", "file", another kind in words, or "" for nothing."""

    @classmethod
    def of(cls, text: str) -> "Place":
        """Raises UsageError where the system does not let us look, and for no name at all."""
        if not text:  # as of an empty variable; pathlib takes it for the folder that one stands in
            raise UsageError(f"'' is no data set. {FORMS}")
        try:
            path = Path(text).expanduser().absolute()
            mode = path.stat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            return cls(text, path, "")
        except (OSError, RuntimeError, ValueError) as error:  # a name too long, a folder that is closed, ~nobody, a NUL
            if shards.is_pattern(text):
                return cls(text, Path(), "")
            shown = text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}… ({len(text):,} characters)"
            reason = files.reason(error) if isinstance(error, OSError) else str(error)
            raise UsageError(f"{shown!r} cannot be read: {reason}. {FORMS}") from None
        kinds = {stat.S_IFDIR: "folder", stat.S_IFREG: "file", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
        return cls(text, path, kinds.get(stat.S_IFMT(mode), "a device"))


def _folder(place: Place, depth: int, _: Tell) -> Found | None:
    if place.kind != "folder":
        return None
    if is_run(place.path):
        raise UsageError(f"{place.text!r} is a run or a study of trickbag, not a data set. Give the folder of images.")
    return _class_folders(place.path, list_folder(place.path), depth, place.text)


def _manifest(place: Place, depth: int, _: Tell) -> Found | None:
    if place.kind == "file" and suffix(place.path.name) in manifests.OTHER_TABLES:
        raise UsageError(f"{place.text!r} is a table that cannot be read. Save it as CSV in UTF-8 with the columns path,label.")
    if place.kind != "file" or suffix(place.path.name) not in manifests.SUFFIXES:
        return None
    _check_depth(depth, place.text)
    return Found(place.path.parent, manifests.read_manifest(place.path))


def _archive(place: Place, depth: int, tell: Tell) -> Found | None:
    if place.kind != "file" or not archives.is_archive(place.path):
        return None
    folder, names = archives.unpack(place.path, tell), shards.class_names(place.path.parent)
    return _shard(folder, place.path.name, names, {}, depth)


def _shards(place: Place, depth: int, tell: Tell) -> Found | None:
    if place.kind or not shards.is_pattern(place.text):
        return None
    home, found = shards.expand(place.text)
    names, numbers = shards.class_names(home), dict[str, int]()
    parts = {shard: _shard(archives.unpack(home / shard, tell), shard, names, numbers, depth) for shard in found}
    rows = [shards.placed(part.rows, shard) for shard, part in parts.items()]
    folder = archives.side_by_side({shard: part.root for shard, part in parts.items()}, tell)
    return Found(folder, Rows(*(list(chain(*columns)) for columns in zip(*rows, strict=True))))


def _shard(folder: Path, shard: str, names: Sequence[str], numbers: dict[str, int], depth: int) -> Found:
    """What an unpacked archive holds: samples that bring their labels, else folders of classes."""
    listing = list_folder(folder)
    if rows := shards.samples(folder, listing, shard, names, numbers):
        _check_depth(depth, shard)
        return Found(folder, rows)
    return _class_folders(folder, listing, depth, UNPACKED)


def _class_folders(root: Path, listing: Listing, depth: int, data: str) -> Found:
    base, rows = arrange(listing, depth, data)
    return Found(root / base, rows)


def _check_depth(depth: int, data: str) -> None:
    if depth:
        raise UsageError(f"--depth {depth}: {data!r} names the class of each image itself, not by folders. Remove --depth.")


def _table(found: Found) -> Images:
    if not found.rows.paths:
        left = Counter(reason for _, reason in found.rows.ignored)
        aside = f" (ignored: {', '.join(f'{n} x {reason}' for reason, n in left.items())})" if left else ""
        raise UsageError(f"{str(found.root)!r} holds no image{aside}. {FORMS}")
    return Images.of(*found)
