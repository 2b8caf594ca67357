"""Images or labels that lie in memory, as a manifest that every later step can read, go on from and hand to other processes."""

import csv
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from PIL import Image

from trickbag.data.columns import COLUMNS, columns
from trickbag.data.decode import upright
from trickbag.data.sheets import Sheet
from trickbag.ground.cache import cache_dir, made_once
from trickbag.ground.errors import UsageError
from trickbag.ground.events import Doing, Tell, silent
from trickbag.ground.text import brief

PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
"""What a PNG file holds as it is."""
PAIR = ("path", "label")
FORMS = "a path, a list of (path or image, label), arrays of images and labels, a table, a Dataset, or a dict of splits"


@runtime_checkable
class Indexed(Protocol):
    """What has a length and gives its items: a list, a map-style Dataset of torch, a table of pandas or pyarrow."""

    def __len__(self) -> int:
        """The number of items."""
        ...

    def __getitem__(self, key: Any, /) -> Any:
        """An item."""
        ...


Data = Annotated[str | Path | Indexed | Mapping[str, Any], FORMS]
"""DATA as a person has it: see ``kept``."""


class Part(NamedTuple):
    """Some rows of a manifest to be."""

    header: Sequence[str]
    path: int
    """The place of the images in a row; other cells are texts."""
    rows: Callable[[], Iterable[Sequence[Any]]]
    length: int


def kept(data: Data, tell: Tell = silent) -> str | Path:
    """The data set as the readers take it: what lies in memory is kept in the cache, a manifest and PNG files.

    A path stays as it is. In memory are a list of (path or image, label); two arrays, of images and of labels; a map-style
    Dataset that gives (image, label); a table of pandas or pyarrow with the columns of a manifest; or a dict of
    these by split. For images see ``picture``. The same content has the same place, so that a training goes on where it was
    stopped. Raises UsageError for anything else, and where a Dataset gives other images each time.

    >>> kept("photos")
    'photos'
    """
    if isinstance(data, str | Path):
        return data
    parts = {split: _part(given) for split, given in (data.items() if isinstance(data, Mapping) else [("", data)])}
    if wrong := parts.keys() - {"", "train", "val", "test"}:
        raise UsageError(f"{min(wrong)!r} is no split. Name the parts train, val and test.")
    count = sum(part.length for part in parts.values())
    if not count:
        raise UsageError("the data set is empty. Give images with their labels.")
    found = list[str]()
    for row in _rows(parts):
        found.append(_content(row))
        tell(Doing("reading images from memory", len(found), count))
    together = hashlib.blake2b("\0".join(found).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()

    def build(folder: Path) -> None:
        header = list(dict.fromkeys(name for part in parts.values() for name in (*part.header, "split")))
        with (folder / "manifest.csv").open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            lines = csv.DictWriter(file, header)
            lines.writeheader()
            for number, row in enumerate(_rows(parts)):
                if _content(row) != found[number]:
                    raise UsageError("the Dataset gives other images each time it is asked. Give it without random transforms.")
                if not isinstance(row.image, str):
                    picture(row.image).save(folder / f"{number:08d}.png")
                    tell(Doing("keeping images as files, once", number + 1, count))
                path = row.image if isinstance(row.image, str) else f"{number:08d}.png"
                lines.writerow(row.cells | {row.column: path})

    return made_once(cache_dir() / "given" / together, build, tell) / "manifest.csv"


def picture(image: Any) -> Image.Image:
    """An image in memory as Pillow has it.

    Of Pillow, upright where it still has the camera's note (``ImageOps.exif_transpose`` takes it away); an array [H, W] or
    [H, W, C] or a tensor [C, H, W] with 1, 3 or 4 channels, uint8, or floats from 0 to 1, which are multiplied by 255 and
    rounded. Raises UsageError for other shapes, numbers and types.

    >>> picture(np.full((2, 3, 3), 0.5)).getpixel((0, 0))
    (128, 128, 128)
    """
    if isinstance(image, Image.Image):
        held = upright(image, [])
        return held if held.mode in PNG_MODES else held.convert("RGB")
    if not isinstance(image, np.ndarray | torch.Tensor):
        raise UsageError(f"{brief(repr(image))} is no image. Give a path, an image of Pillow, an array or a tensor.")
    found = image.detach().cpu().numpy() if isinstance(image, torch.Tensor) else image
    if isinstance(image, torch.Tensor) and found.ndim == 3:
        found = np.moveaxis(found, 0, -1)
    if found.ndim == 3 and found.shape[-1] == 1:
        found = found[..., 0]
    if found.ndim not in (2, 3) or not found.size or (found.ndim == 3 and found.shape[-1] not in (3, 4)):
        wanted = "[C, H, W]" if isinstance(image, torch.Tensor) else "[H, W] or [H, W, C]"
        raise UsageError(f"an image has the shape {list(image.shape)}: give {wanted} with 1, 3 or 4 channels.")
    if found.dtype.kind == "f":
        if not (found.min() >= 0 and found.max() <= 1):
            raise UsageError("an image of floats has numbers outside of 0 to 1. Give uint8, or floats that are not normalised.")
        found = np.rint(255 * found).astype(np.uint8)
    if found.dtype != np.uint8:
        raise UsageError(f"an image has numbers of type {found.dtype}. Give uint8, or floats from 0 to 1.")
    return Image.fromarray(np.ascontiguousarray(found))


class _Row(NamedTuple):
    image: Any
    """An absolute path as text, or what ``picture`` takes."""
    column: str
    cells: dict[str, str]
    """All others, by column."""


def _rows(parts: Mapping[str, Part]) -> Iterator[_Row]:
    for split, part in parts.items():
        for row in part.rows():
            image = row[part.path]
            if isinstance(image, str | Path):
                image = str(Path(image).expanduser().absolute())
            cells = {name: _text(cell) for name, cell in zip(part.header, row, strict=True) if name != part.header[part.path]}
            yield _Row(image, part.header[part.path], cells | ({"split": split} if split else {}))


def _content(row: _Row) -> str:
    """A hash of a row, or what it says itself where it names a file: that is read later."""
    said = [row.column, *(f"{name}={cell}" for name, cell in row.cells.items())]
    if isinstance(row.image, str):
        return "\0".join([row.image, *said])
    found = picture(row.image)
    shape = f"{found.mode} {found.size} {found.getpalette()}"
    return "\0".join([hashlib.blake2b(shape.encode() + found.tobytes(), digest_size=16).hexdigest(), *said])


def _part(data: Any) -> Part:
    """What was given for a split, or for all of them."""
    if isinstance(data, tuple) and len(data) == 2 and getattr(data[0], "ndim", 0) > 2:
        return _arrays(*data)
    if hasattr(data, "itertuples"):
        return _table(list(map(str, data.columns)), lambda: data.itertuples(index=False, name=None), len(data))
    if hasattr(data, "itercolumns"):
        cells = [column.to_pylist() for column in data.itercolumns()]
        return _table(list(data.column_names), lambda: zip(*cells, strict=True), len(data))
    if isinstance(data, str | bytes | Path | Mapping) or not hasattr(data, "__getitem__") or not hasattr(data, "__len__"):
        raise UsageError(f"{brief(repr(data))} is no data set. Give {FORMS}.")
    names = getattr(data, "classes", None)
    return Part(PAIR, 0, lambda: (_pair(data[number], number, names) for number in range(len(data))), len(data))


def _arrays(images: Any, labels: Any) -> Part:
    if len(images) != len(labels):
        raise UsageError(f"there are {len(images):,} images and {len(labels):,} labels. Give as many of both.")
    return Part(PAIR, 0, lambda: zip(images, map(_plain, labels), strict=True), len(images))


def _table(header: Sequence[str], rows: Callable[[], Iterable[Sequence[Any]]], count: int) -> Part:
    found = columns(Sheet("the table", "row", list(header), lambda _: iter(())))
    known = {place: name for name, place in zip(COLUMNS, found.places, strict=True) if place is not None}
    named = [known.get(place, name) for place, name in enumerate(header)]
    return Part(named, named.index("path"), rows, count)


def _pair(item: Any, number: int, names: Sequence[Any] | None) -> tuple[Any, Any]:
    """The image and the label of an item."""
    try:
        image, label = item
    except (TypeError, ValueError):
        raise UsageError(f"item {number} is no pair of an image and its label: {brief(repr(item))}. Give {FORMS}.") from None
    label = _plain(label)
    named = names is not None and isinstance(label, int) and 0 <= label < len(names)
    return image, names[label] if names is not None and named else label


def _plain(label: Any) -> Any:
    """A number or a text, out of an array or a tensor of no dimension."""
    return label.item() if hasattr(label, "item") and getattr(label, "ndim", 1) == 0 else label


def _text(cell: Any) -> str:
    return "" if cell is None or cell != cell else str(cell)
