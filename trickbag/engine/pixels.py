"""Pixels of a data set, decoded once into a file that all runs on a machine share."""

import os
import shutil
import weakref
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from trickbag.data.decode import Unreadable, decode, opened
from trickbag.data.facts import content_of, forget
from trickbag.data.images import Images
from trickbag.ground import signals
from trickbag.ground.cache import altered, cache_dir, made_once, spoil
from trickbag.ground.environment import number
from trickbag.ground.errors import TrickbagError
from trickbag.ground.events import Doing, Note, Tell, silent
from trickbag.recipe import Fit

AHEAD = 64
GREY = 128
"""Of the borders of padded images, 0 to 255: about what normalisation turns into zero."""
A = TypeVar("A")
B = TypeVar("B")


class Data(NamedTuple):
    """A data set that is ready for training: good files only, every image in a split."""

    images: Images
    fingerprint: str
    """Of the data set as the user gave it."""
    channels: int


class Pixels(Protocol):
    """Row -> uint8 image [C, h, w]."""

    def __getitem__(self, row: int) -> Tensor: ...
    def __len__(self) -> int: ...


def shrink(image: Tensor, shorter: int) -> Tensor:
    """An image [C, H, W], made smaller where its shorter side is above ``shorter`` pixels, never larger.

    >>> shrink(torch.zeros(3, 40, 60, dtype=torch.uint8), 20).shape
    torch.Size([3, 20, 30])
    """
    if min(image.shape[-2:]) <= shorter:
        return image
    smaller: Tensor = F.resize(image, [shorter], antialias=True)
    return smaller


def crop(image: Tensor, region: Tensor) -> Tensor:
    """What is inside of a region [4] of an image [C, H, W], edges at the nearest pixels, at least a pixel: [C, h, w].

    Left, top, right, bottom in 0..1 of the image's width and height.

    >>> crop(torch.arange(12).view(1, 3, 4), torch.tensor([0.25, 0.0, 0.75, 0.6]))
    tensor([[[1, 2],
             [5, 6]]])
    """
    height, width = image.shape[-2:]
    left, top, right, bottom = region.tolist()
    x, y = min(round(left * width), width - 1), min(round(top * height), height - 1)
    return image[:, y : max(y + 1, round(bottom * height)), x : max(x + 1, round(right * width))]


def fitted(image: Tensor, fit: Fit, side: int) -> Tensor:
    """An image [C, H, W] as it is kept: with ``crop`` as ``shrink`` makes it, else a square of at most ``side`` pixels.

    With ``pad`` the whole image lies in the middle of a grey square, with ``squash`` it is resized to the square.

    >>> fitted(torch.zeros(1, 2, 4, dtype=torch.uint8), "pad", 9)[0, :, 0]
    tensor([128,   0,   0, 128], dtype=torch.uint8)
    >>> fitted(torch.zeros(3, 40, 60, dtype=torch.uint8), "squash", 20).shape
    torch.Size([3, 20, 20])
    """
    if fit == "crop":
        return shrink(image, side)
    height, width = image.shape[-2:]
    side = min(side, max(height, width))
    if fit == "pad":
        scale = side / max(height, width)
        height, width = max(1, round(scale * height)), max(1, round(scale * width))
    else:
        height = width = side
    if image.shape[-2:] != (height, width):
        image = F.resize(image, [height, width], antialias=True)
    top, left = (side - height) // 2, (side - width) // 2
    square: Tensor = F.pad(image, [left, top, side - width - left, side - height - top], fill=GREY)
    return square


class Files:
    """Pixels decoded anew each time: for sets that are larger than the cache may be.

    Each time a file's content must be what it was when the set was checked, so that no training mixes two states of its photos.
    """

    def __init__(self, images: Images, channels: int, shorter: int, fit: Fit = "crop") -> None:
        self.images, self.channels, self.shorter, self.fit = images, channels, shorter, fit

    def __getitem__(self, row: int) -> Tensor:
        path = self.images.path(row)
        try:
            with opened(path) as file:
                if self.images.hashes and content_of(file) != self.images.hashes[row]:
                    raise self._changed(path)
                return fitted(decode(file, self.channels, shorter=self.shorter).pixels, self.fit, self.shorter)
        except (Unreadable, OSError) as error:
            raise TrickbagError(f"{path} can no longer be decoded: {error}.") from None

    def _changed(self, path: Path) -> TrickbagError:
        forget(self.images.root, self.channels)  # which may have taken another content for this one
        return TrickbagError(
            f"{path} has changed since the images were checked. Restore it and give the same command to go on, or begin "
            "another run with the images as they are now."
        )

    def __len__(self) -> int:
        return len(self.images)


class Cache:
    """Pixels in one file, made by ``build``, from which each image is compared with its checksum when first read.

    The file is read rather than mapped: where it is cut short under a training, a map would end the process. An image that is
    no longer what was kept is taken from ``source``.
    """

    def __init__(self, folder: Path, source: Pixels, tell: Tell = silent) -> None:
        self.folder, self.source, self.tell = folder, source, tell
        index = np.load(folder / "index.npy", allow_pickle=False)
        self.shapes, self.sums = index[:, :3], index[:, 3]
        self.offsets = np.concatenate([[0], np.cumsum(self.shapes.prod(1))])
        self.seen = np.zeros(len(index), bool)
        self.whole = True
        self.file = os.open(folder / "pixels.bin", os.O_RDONLY)
        weakref.finalize(self, os.close, self.file)

    @property
    def nbytes(self) -> int:
        """Of all pixels."""
        return int(self.offsets[-1])

    def __getitem__(self, row: int) -> Tensor:
        image = torch.empty(tuple(map(int, self.shapes[row])), dtype=torch.uint8)
        self._fill(row, image.view(-1))
        return image

    def joined(self) -> Tensor:
        """The pixels of all images, one after another."""
        pixels = torch.empty(self.nbytes, dtype=torch.uint8)
        for row in range(len(self)):
            self._fill(row, pixels[self.offsets[row] : self.offsets[row + 1]])
        return pixels

    def _fill(self, row: int, pixels: Tensor) -> None:
        if self._read(row, pixels.numpy()):
            return
        if self.whole:
            self.whole = False
            spoil(self.folder)
            self.tell(
                Note(
                    f"{self.folder} in the cache is damaged: the damaged images are decoded again, and the next run rebuilds it"
                )
            )
        pixels.copy_(self.source[row].flatten())

    def _read(self, row: int, into: NDArray[np.uint8]) -> bool:
        """Whether the file gave the pixels that were kept."""
        try:
            count = os.preadv(self.file, [into.data], int(self.offsets[row]))
        except OSError:
            return False
        if count == len(into) and not self.seen[row]:
            self.seen[row] = zlib.crc32(into.data) == self.sums[row]
        return count == len(into) and bool(self.seen[row])

    def __len__(self) -> int:
        return len(self.shapes)


class Joined:
    """The pixels of one table, then those of another."""

    def __init__(self, first: Pixels, second: Pixels) -> None:
        self.first, self.second = first, second

    def __getitem__(self, row: int) -> Tensor:
        return self.first[row] if row < len(self.first) else self.second[row - len(self.first)]

    def __len__(self) -> int:
        return len(self.first) + len(self.second)


class Rows:
    """Some rows of a table's pixels, cut to their ``regions`` [N, 4] where there are any, and the table of these rows."""

    def __init__(self, images: Images, pixels: Pixels, rows: np.ndarray, regions: Tensor | None = None) -> None:
        self.images, self.pixels, self.rows, self.regions = images, pixels, rows, regions

    def __getitem__(self, row: int) -> Tensor:
        image = self.pixels[int(self.rows[row])]
        return image if self.regions is None else crop(image, self.regions[row])

    def __len__(self) -> int:
        return len(self.rows)


def size_limit() -> int:
    """Bytes that a cache may take: TRICKBAG_CACHE_LIMIT (gigabytes), else half of the free disk."""
    return int(1e9 * number("TRICKBAG_CACHE_LIMIT", shutil.disk_usage(cache_dir()).free / 2e9))


def place(fingerprint: str, channels: int, shorter: int, fit: Fit) -> Path:
    """The folder in the cache for the pixels of a data set."""
    return cache_dir() / f"pixels-{fingerprint[:16]}-{channels}x{shorter}{'' if fit == 'crop' else f'-{fit}'}"


def pixels(data: Data, shorter: int, tell: Tell, fit: Fit = "crop") -> Pixels:
    """The pixels of a data set, shorter side at most ``shorter``, from the cache, which is built where missing or damaged.

    Safe against two builders. A set that would exceed the size limit is streamed from its files instead.
    """
    plain = Files(data.images, data.channels, shorter, fit)
    folder = place(data.fingerprint, data.channels, shorter, fit)
    if altered(folder) and (need := expected_bytes(plain)) > (limit := size_limit()):
        tell(
            Note(
                f"the decoded images need {need / 1e9:.1f} GB and the cache is limited to {limit / 1e9:.1f} GB, so images are "
                "decoded again in each epoch, which is slower. Raise TRICKBAG_CACHE_LIMIT (gigabytes), or set "
                "TRICKBAG_CACHE to a folder on a larger disk. On disks that are slow at random access, add "
                "--with shuffle_buffer, which reads files nearly in order."
            )
        )
        return plain
    return Cache(made_once(folder, lambda part: build(plain, part, tell), tell), plain, tell)


def expected_bytes(files: Files) -> int:
    """About how much the decoded images take, from a sample of them."""
    sample = [files[int(row)].numel() for row in np.linspace(0, len(files) - 1, min(len(files), 32))]
    return int(np.mean(sample) * len(files))


def build(source: Pixels, folder: Path, tell: Tell = silent) -> None:
    """Write the pixels one after another, and of each its shape and checksum [N, 4]."""
    index = np.zeros((len(source), 4), np.int64)
    with (folder / "pixels.bin").open("wb") as out:
        for row, image in enumerate(ahead(source.__getitem__, range(len(source)), os.cpu_count() or 1, AHEAD)):
            signals.look()
            written = image.contiguous().numpy()
            index[row] = *image.shape, zlib.crc32(written.data)
            out.write(written.data)
            if row % 100 == 99 or row + 1 == len(source):
                tell(Doing("decoding images, once", row + 1, len(source)))
        out.flush()
        os.fsync(out.fileno())
    np.save(folder / "index.npy", index)


def ahead(work: Callable[[A], B], items: Iterable[A], workers: int, depth: int) -> Iterator[B]:
    """``map`` in threads, in order, at most ``depth`` results ahead of the reader, who does not wait for them on stopping.

    >>> list(ahead(lambda x: x * x, [1, 2, 3], 2, 2))
    [1, 4, 9]
    """
    torch.get_num_threads()  # settles this thread's number, which the workers' would otherwise become
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    waiting: deque[Future[B]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        # Not to wait: a reader that was left in the middle ends where the garbage collector finds it, which may be in the start
        # of a thread, under a lock that waiting for threads takes too.
        pool.shutdown(wait=False, cancel_futures=True)
