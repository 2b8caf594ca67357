"""Images to be looked at, in whatever form a person has them: an endless stream of names and contents, in order."""

import io
import os
import re
from collections.abc import Iterable, Iterator, Sized
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from trickbag.data import archives
from trickbag.data.decode import decode, opened
from trickbag.data.given import picture
from trickbag.data.listing import IMAGE_SUFFIXES, list_folder, suffix
from trickbag.data.sniff import HEAD, Unreadable, sniff
from trickbag.ground.errors import UsageError
from trickbag.ground.events import Doing, Note, Tell, silent
from trickbag.ground.text import brief, counted

URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
OFTEN = 32
"""Images after which progress is told."""
ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz")


class Source(NamedTuple):
    """An image that nobody has looked at yet."""

    name: str
    content: Path | bytes
    found: bool = False
    """Whether it was found in a folder, and not named by itself."""

    def pixels(self, channels: int, shorter: int) -> Tensor:
        """uint8 [C, H, W], see ``decode``. Raises Unreadable or OSError."""
        return decode(self.content, channels, shorter=shorter).pixels

    def is_other(self) -> bool:
        """Whether it was found in a folder and is plainly no image, by name and content: text, a table, a film, nothing."""
        if not self.found or suffix(self.name) in IMAGE_SUFFIXES:
            return False
        try:
            with opened(cast(Path, self.content)) as file:
                sniff(file.read(HEAD))
        except Unreadable as error:
            return str(error).startswith(("not an image", "empty"))
        except OSError:
            return False
        return False


def sources(images: Any, tell: Tell = silent) -> Iterator[Source]:
    """The images that are meant, in order, as they are asked for.

    A path of an image, a folder or an archive of images, a pattern such as ``photos/*.jpg``; bytes or an open file; an image of
    Pillow, an array or a tensor (``trickbag.data.given.picture``); a batch, a list or an iterator of these. Files in folders
    that are plainly no images are passed over, and counted at the end; progress is told as far as the end is known.

    Raises UsageError for addresses on the web, for folders and patterns without an image, and for anything else.
    """
    counts = _Counts()
    for source in _sources(images, counts, tell):
        counts.taken += 1
        if counts.bounded and (counts.taken % OFTEN == 0 or counts.taken == counts.known):
            tell(Doing("looking at images", counts.taken, counts.known))
        yield source
    if passed := counts.passed_over:
        tell(Note(f"{counted(passed, 'file')} in folders {'is' if passed == 1 else 'are'} no image and passed over"))


@dataclass
class _Counts:
    """Of images so far."""

    taken: int = 0
    known: int = 1
    """To be taken in all, as far as folders have been listed."""
    bounded: bool = True
    """Whether there is an end that can be known."""
    passed_over: int = 0
    unnamed: int = 0


def _sources(images: Any, counts: _Counts, tell: Tell) -> Iterator[Source]:
    if isinstance(images, Source):
        yield images
    elif isinstance(images, str | Path):
        yield from _named(str(images), counts, tell)
    elif isinstance(images, bytes | bytearray | memoryview):
        yield Source(_number(counts), bytes(images))
    elif hasattr(images, "read"):
        yield Source(str(getattr(images, "name", "") or _number(counts)), cast(BinaryIO, images).read())
    elif isinstance(images, Image.Image | np.ndarray | torch.Tensor) and not _is_batch(images):
        yield Source(_number(counts), _encoded(picture(images)))
    elif isinstance(images, Iterable):
        if isinstance(images, Sized):
            counts.known += len(images) - 1
        else:
            counts.bounded = False
        for image in images:
            yield from _sources(image, counts, tell)
    else:
        raise UsageError(f"{brief(repr(images))} is no image. Give a path, bytes, an open file, a Pillow image or an array.")


def _named(text: str, counts: _Counts, tell: Tell) -> Iterator[Source]:
    path = Path(text)
    if not text:  # as of an empty variable; pathlib takes it for the folder that one stands in
        raise UsageError("'' is no image. Give a path; . is the folder that you stand in.")
    if os.path.isdir(path):
        yield from _below(path, text, counts)
    elif os.path.isfile(path) and path.suffix.lower() in ARCHIVES and archives.is_archive(path):
        yield from _below(archives.unpack(path, tell), text, counts)
    elif os.path.exists(path) or not any(sign in text for sign in "*?[") or URL.match(text):
        if URL.match(text):
            raise UsageError(f"{brief(text)} is an address on the web, which is not read. Download it, and give the file.")
        yield Source(text, path)
    else:
        there = sorted(glob(text, recursive=True))  # noqa: PTH207  the pattern may begin anywhere
        if not there:
            raise UsageError(f"{brief(text)} matches no file. Give a pattern that does, or a path.")
        counts.known += len(there) - 1
        for name in there:
            yield from _named(name, counts, tell)


def _below(root: Path, shown: str, counts: _Counts) -> Iterator[Source]:
    listing, any_image = list_folder(root), False
    counts.passed_over += len(listing.ignored)
    counts.known += len(listing.files) - 1
    for name in listing.files:
        source = Source(f"{shown}/{name}", root / name, found=True)
        if source.is_other():
            counts.passed_over += 1
            counts.known -= 1
        else:
            any_image = True
            yield source
    if not any_image:
        raise UsageError(f"{shown!r} holds no image. Give a folder with images.")


def _is_batch(images: Any) -> bool:
    """Whether an array is a table of images: [N, H, W, C] or, of a tensor, [N, C, H, W]."""
    return getattr(images, "ndim", 0) == 4


def _number(counts: _Counts) -> str:
    counts.unnamed += 1
    return f"image {counts.unnamed - 1}"


def _encoded(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()
