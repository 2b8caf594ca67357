"""Batches: which images, cut and augmented how, on which device. Every draw is keyed, so workers and ranks change nothing."""

import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from trickbag.engine.cutting import Resident, cut, cuts_of, cuts_to, framed
from trickbag.engine.pixels import Rows, ahead
from trickbag.ground import signals
from trickbag.ground.environment import whole
from trickbag.ground.errors import UsageError
from trickbag.ground.streams import generator, key, uniforms
from trickbag.trick import Batch, Draw, Trick, Unlabelled, View, deciding, having

DEPTH = 3
"""Batches made ahead of the one in training."""
IDLE = 0.05
"""Share of an epoch that training may wait for batches before later ones get more workers."""
A = TypeVar("A")


class Slice(NamedTuple):
    """One step of an epoch: the images of all ranks, and when it happens."""

    rows: Tensor
    """[B] int64."""
    copies: Tensor
    """[B] int64: how often the row stood in this epoch before."""
    size: int
    t: float
    after: float
    """Share of training done after the step."""
    position: int
    """Images of the epoch that stand before it."""


class Plan:
    """Which training images each epoch shows, cut into steps.

    Arguments: labels [N] of the training images, tricks in order, the recipe's numbers, how many ranks share each step, and
    how many of its images each rank needs at least. The plan is that of one process, but for what ``_end`` says.
    """

    def __init__(
        self,
        labels: Tensor,
        tricks: Sequence[Trick],
        seed: int,
        epochs: int,
        batch_size: int,
        size: int,
        ranks: int = 1,
        each: int = 1,
    ) -> None:
        self.labels, self.seed, self.epochs, self.ranks, self.each = labels, seed, epochs, ranks, each
        self.tricks = [trick for trick in tricks if {"order", "batch_size", "size"} & set(trick.plugs())]
        self.base, self.full = batch_size, size
        self._counts: dict[str, int] = {}

    def batch_size(self, t: float) -> int:
        """Images per step over all ranks."""
        growing = deciding(self.tricks, "batch_size", t)
        return growing.batch_size(t, self.base) if growing else self.base

    def size(self, t: float) -> int:
        """Pixels of a side of a training image."""
        resizing = deciding(self.tricks, "size", t)
        return resizing.size(t) if resizing else self.full

    def rows(self, epoch: int) -> Tensor:
        """The rows of an epoch [M], in order."""
        order = deciding(self.tricks, "order", self._share(epoch))
        if order:
            return order.order(self.labels, epoch, generator(self.seed, order.name(), epoch))
        return torch.randperm(len(self.labels), generator=generator(self.seed, "order", epoch))

    def count(self, epoch: int) -> int:
        """How many images an epoch shows, known before ``Trick.setup``: a trick shows as many in each of its epochs."""
        order = deciding(self.tricks, "order", self._share(epoch))
        if not order:
            return len(self.labels)
        if str(order) not in self._counts:
            self._counts[str(order)] = len(order.order(self.labels, 0, generator(self.seed, order.name(), 0)))
        return self._counts[str(order)]

    def epoch(self, epoch: int, position: int = 0) -> Iterator[Slice]:
        """The steps of an epoch from the given position on. Raises UsageError as ``steps`` does."""
        rows = self.rows(epoch)
        copies = _copies(rows)
        while position < len(rows):
            t = self._share(epoch + position / len(rows))
            end = self._end(position, len(rows), t)
            part = slice(position, end)
            yield Slice(rows[part], copies[part], self.size(t), t, self._share(epoch + end / len(rows)), position)
            position = end

    def last(self, share: float) -> Iterator[Slice]:
        """The steps of the epoch after the last one, whose images are made by the tricks that act at a share of training."""
        return (part._replace(t=share) for part in self.epoch(self.epochs))

    def _share(self, epochs: float) -> float:
        """The share of training done; the epoch after the last one, which estimates norm statistics, counts as its end."""
        return min(epochs / self.epochs, 1.0) if self.epochs else 0.0

    def _end(self, position: int, count: int, t: float) -> int:
        """Where the step that begins at a position ends, of ``count`` images.

        It takes in what would be left over for a last step where that is a single image, since a batch of one has no batch
        statistics, or too few for every rank to have its share.
        """
        images, needed = min(self.batch_size(t), count - position), self.ranks * self.each
        if self.ranks > 1 and images < needed:
            share = "one" if self.each == 1 else f"{self.each}, since one alone has no batch statistics"
            raise UsageError(
                f"a step with {images} of the {count} training images is too small for {self.ranks} ranks: each needs {share}. "
                f"Set batch_size to {needed} or more, train on more images, or start fewer ranks."
            )
        end = position + images
        return end if count - end >= max(2, needed) else count

    def steps(self) -> int:
        """Steps of the whole training. Raises UsageError where a step has too few images for the ranks."""
        steps = 0
        for epoch in range(self.epochs):
            position, count = 0, self.count(epoch)
            while position < count:
                position = self._end(position, count, self._share(epoch + position / count))
                steps += 1
        return steps


def _copies(rows: Tensor) -> Tensor:
    """How often each entry stood before it in the same list.

    >>> _copies(torch.tensor([4, 2, 4, 4]))
    tensor([0, 0, 1, 2])
    """
    values = rows.numpy()
    order = np.argsort(values, kind="stable")
    ranks = np.arange(len(values))
    starts = np.concatenate([[True], values[order][1:] != values[order][:-1]])
    copies = np.empty(len(values), np.int64)
    copies[order] = ranks - np.maximum.accumulate(np.where(starts, ranks, 0))
    return torch.from_numpy(copies)


class Keys(NamedTuple):
    """What names the draws of a batch's training images."""

    seed: int
    epoch: int
    rows: Tensor
    """[B]."""
    copies: Tensor
    """[B]."""
    t: float = 0.0
    """Share of training done, which says what tricks are asked."""

    def draw(self, name: str) -> Draw:
        """A stream of draws for all images at once."""
        point, places = key(self.seed, name, self.epoch), torch.stack([self.rows, self.copies], 1)
        return lambda count: uniforms(point, places, count)

    def generator(self, name: str, i: int, *more: int) -> torch.Generator:
        """A stream for one image of the batch."""
        return generator(self.seed, name, self.epoch, int(self.rows[i]), int(self.copies[i]), *more)


class Loader:
    """Turns pixels into batches on a device; ``seen`` are those that judged views are cut from, where they are others.

    What lies in the device's memory (``resident``) is cut there, unless a trick augments images one by one.
    """

    def __init__(
        self,
        pixels: Rows,
        labels: Tensor,
        classes: int,
        tricks: Sequence[Trick],
        view: View,
        normal: tuple[tuple[float, ...], tuple[float, ...]],
        seed: int,
        device: torch.device,
        channels_last: bool,
        rank: int = 0,
        ranks: int = 1,
        seen: Rows | None = None,
        resident: Resident | None = None,
    ) -> None:
        self.seen = pixels if seen is None else seen
        self.pixels, self.labels, self.classes, self.view, self.seed, self.device = pixels, labels, classes, view, seed, device
        self.tricks = tricks
        self.transforms = [(trick, f) for trick in having(tricks, "augment") for f in trick.augment()]
        self.versions = max((trick.versions() for trick in having(tricks, "versions")), default=0)
        self.normal = normal
        self.mean, self.std = (torch.tensor(v, device=device).mul(255)[:, None, None] for v in normal)
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.rank, self.ranks, self.resident = rank, ranks, resident
        self.beside: Callable[[Slice, int, slice], Unlabelled] | None = None
        given = whole("TRICKBAG_WORKERS", 0)
        self.workers = given or max(1, (os.cpu_count() or 2) // 2)
        self.most_workers = given or os.cpu_count() or 1

    def train(self, slices: Iterator[Slice], epoch: int) -> Iterator[tuple[Slice, Batch]]:
        """Augmented batches of this rank's share of each step, with what stands ``beside`` them."""

        def make(part: Slice) -> tuple[Slice, Tensor, Tensor, Unlabelled | None]:
            mine = slice(self.rank, None, self.ranks)
            x = self.pinned(self.augmented(part.rows[mine], part.copies[mine], epoch, part.size, part.t))
            return part, part.rows[mine], x, self.beside(part, epoch, mine) if self.beside else None

        for part, rows, x, others in self._paced(ahead(make, slices, self.workers, DEPTH)):
            batch, *more = (self.batch(view, rows) for view in x)
            views = torch.stack([view.x for view in more], 1) if more else None
            version = epoch % self.versions if self.versions else 0
            unlabelled = others and others._replace(x=self.normalised(others.x.flatten(0, 2)).view(others.x.shape))
            yield part, batch._replace(views=views, version=version, unlabelled=unlabelled)

    def _paced(self, batches: Iterator[A]) -> Iterator[A]:
        """Pass on an epoch's batches; where training waited for them too long, later epochs have twice as many workers."""
        yield from itertools.islice(batches, 1)  # which is waited for in any case
        began = asked = time.perf_counter()
        waited = 0.0
        for batch in batches:
            waited += time.perf_counter() - asked
            yield batch
            asked = time.perf_counter()
        if waited > IDLE * (time.perf_counter() - began):
            self.workers = min(2 * self.workers, self.most_workers)

    def fixed(self, version: int, size: int, batch_size: int) -> Iterator[Batch]:
        """All training images in order, in one of the versions that a trick fixes."""
        rows = torch.arange(len(self.labels))
        return self._in_order(rows, batch_size, lambda part: self.augmented(part, torch.zeros_like(part), version, size)[0])

    def augmented(self, rows: Tensor, copies: Tensor, epoch: int, size: int, t: float = 0.0) -> Tensor:
        """Training images [1 + views, B, C, size, size], uint8; or float32 on the device where they are resident."""
        keys = Keys(0, epoch % self.versions, rows, 0 * copies, t) if self.versions else Keys(self.seed, epoch, rows, copies, t)
        if self.resident and not any(trick.acts(t) for trick, _ in self.transforms):
            return self._on_device(self.resident, keys, size)[None]
        images = self.in_windows(keys, size)
        viewer = deciding(self.tricks, "views", t)
        numbers = range(1 + (viewer.views() if viewer else 0))
        views = [[self.transformed(image, keys, i, size, v) for i, image in enumerate(images)] for v in numbers]
        return torch.stack([torch.stack(view) for view in views])

    def in_windows(self, keys: Keys, size: int) -> list[Tensor]:
        """The images [C, h, w] of these keys in their windows and mirrored, as far as tricks say."""
        images = [self.pixels[row] for row in keys.rows.tolist()]
        windows, mirrored = self.frames(torch.tensor([image.shape[-2:] for image in images]), keys)
        return [
            framed(image, None if windows is None else windows[i], 0 if mirrored is None else int(mirrored[i]), size)
            for i, image in enumerate(images)
        ]

    def frames(self, sizes: Tensor, keys: Keys) -> tuple[Tensor | None, Tensor | None]:
        """The windows [B, 4] of images of these heights and widths [B, 2] and how each is mirrored [B]; None: no trick says."""
        window, mirror = (deciding(self.tricks, point, keys.t) for point in ("window", "mirror"))
        windows = window.window(sizes, keys.draw(window.name())) if window else None
        return windows, mirror.mirror(keys.draw(mirror.name())) if mirror else None

    def transformed(self, image: Tensor, keys: Keys, i: int, size: int, view: int) -> Tensor:
        """The ``i``-th image of a batch [C, h, w] after all transforms [C, size, size]; of further views the first is 1."""
        viewer = deciding(self.tricks, "views", keys.t)
        for trick, transform in self.transforms:
            own = trick is viewer and viewer.views() > 0
            if not trick.acts(keys.t) or (own and not view):
                continue
            image = transform(image, size, keys.generator(trick.name(), i, *([view] if own else [])))
        return image if image.shape[-2:] == (size, size) else cut(image, self.plain(size))

    def plain(self, size: int) -> View:
        """How a training image is cut where no trick draws a window."""
        return View(round(size * self.view.resize / self.view.crop), size)

    def _on_device(self, resident: Resident, keys: Keys, size: int) -> Tensor:
        rows = torch.from_numpy(self.pixels.rows)[keys.rows]
        sizes = resident.sizes[rows]
        windows, mirrored = self.frames(sizes, keys)
        cuts = cuts_of(sizes, self.plain(size), mirrored) if windows is None else cuts_to(windows, size)
        return resident.cut(rows, cuts, mirrored, size)

    def judged(self, rows: Tensor, batch_size: int, view: View | None = None) -> Iterator[Batch]:
        """Judged views of these rows, in order, the last batch as long as it comes."""
        shown, resident = view or self.view, self.resident
        if resident and shown.crop <= shown.resize:
            places = torch.from_numpy(self.seen.rows)
            return self._in_order(rows, batch_size, lambda part: resident.judged(places[part], shown))
        return self._in_order(rows, batch_size, lambda part: torch.stack([cut(self.seen[row], shown) for row in part.tolist()]))

    def _in_order(self, rows: Tensor, batch_size: int, images: Callable[[Tensor], Tensor]) -> Iterator[Batch]:
        def make(part: Tensor) -> tuple[Tensor, Tensor]:
            return part, self.pinned(images(part))

        for part, x in ahead(make, list(torch.split(rows, batch_size)), self.workers, DEPTH):
            signals.look()
            yield self.batch(x, part)

    def pinned(self, x: Tensor) -> Tensor:
        """A tensor from where it can be copied to a GPU while training goes on."""
        return x.pin_memory() if self.device.type == "cuda" and not x.is_cuda else x

    def batch(self, x: Tensor, rows: Tensor) -> Batch:
        """Images [B, C, H, W] of levels from 0 to 255 -> a normalised batch on the device."""
        y = self.pinned(one_hot(self.labels[rows], self.classes).float())
        return Batch(self.normalised(x), y.to(self.device, non_blocking=True), rows)

    def normalised(self, x: Tensor) -> Tensor:
        """Images [B, C, H, W] of levels from 0 to 255 -> normalised on the device."""
        x = x.to(self.device, non_blocking=True).to(torch.float32, memory_format=self.format)
        return x.sub_(self.mean).div_(self.std)
