"""The images that stand beside those of a step, of which no label is looked at."""

from collections.abc import Iterator
from functools import lru_cache

import torch
from torch import Tensor

from trickbag.engine.loader import DEPTH, Keys, Loader, Slice
from trickbag.engine.pixels import ahead
from trickbag.ground import signals
from trickbag.ground.streams import generator, key
from trickbag.trick import Trick, Unlabelled


@lru_cache(maxsize=8)
def order(seed: int, name: str, epoch: int, turn: int, count: int) -> Tensor:
    """The rows 0 .. ``count`` - 1 as an epoch shows them in its ``turn``-th pass over all."""
    return torch.randperm(count, generator=generator(seed, name, epoch, turn))


class Crowd:
    """What a trick wants beside the images of a step: of those that ``loader`` has, in an order that is new in each epoch.

    Within an epoch all images come once before any comes again. The place in its epoch alone decides what stands beside a
    training image, so steps of any size, ranks and a resumed run see the same.
    """

    def __init__(self, loader: Loader, trick: Trick) -> None:
        self.loader, self.name, self.beside = loader, trick.name(), trick.beside()

    def __call__(self, part: Slice, epoch: int, mine: slice) -> Unlabelled:
        """What stands beside those images of a step that are ``mine``, with levels from 0 to 255."""
        rows, copies = (own[mine] for own in self.rows(part, epoch))
        x = self.views(Keys(self.loader.seed, epoch, rows.flatten(), copies.flatten(), part.t), part.size)
        return Unlabelled(self.loader.pinned(x.view(*rows.shape, *x.shape[1:])), rows)

    def alone(self, epoch: int, batch_size: int, size: int) -> Iterator[Tensor]:
        """The views [B, V, C, size, size] of all images in the order of an epoch, on the device, but for an image that is left
        over."""

        def make(rows: Tensor) -> Tensor:
            return self.loader.pinned(self.views(Keys(self.loader.seed, epoch, rows, torch.zeros_like(rows)), size))

        rows = order(self.loader.seed, self.name, epoch, 0, len(self.loader.labels))
        for x in ahead(make, self.parts(rows, batch_size), self.loader.workers, DEPTH):
            signals.look()
            yield self.loader.normalised(x.flatten(0, 1)).view(x.shape)

    @staticmethod
    def parts(rows: Tensor, batch_size: int) -> list[Tensor]:
        """Rows in batches of at least two."""
        return [part for part in torch.split(rows, batch_size) if len(part) > 1]

    def rows(self, part: Slice, epoch: int) -> tuple[Tensor, Tensor]:
        """Rows of what stands beside a step's images, and how often each stood in this epoch before: [B, each] both."""
        count, each = len(self.loader.labels), self.beside.each
        numbers = each * (part.position + torch.arange(len(part.rows)))[:, None] + torch.arange(each)
        rows, turns = torch.empty_like(numbers), numbers // count
        for turn in range(int(turns[0, 0]), int(turns[-1, -1]) + 1):
            own = turns == turn
            rows[own] = order(self.loader.seed, self.name, epoch, turn, count)[numbers[own] % count]
        return rows, turns

    def views(self, keys: Keys, size: int) -> Tensor:
        """All views of these images [n, V, C, size, size], uint8."""
        seeds = [key(keys.seed, self.name, number) for number in range(len(self.beside.views))]
        return torch.stack([self.view(v, keys._replace(seed=seed), size) for v, seed in enumerate(seeds)], 1)

    def view(self, number: int, keys: Keys, size: int) -> Tensor:
        """One of them [n, C, size, size]. Its keys have a seed of their own, so that no draw is that of another view."""
        images = [
            self.loader.transformed(image, keys, i, size, 0) for i, image in enumerate(self.loader.in_windows(keys, size))
        ]
        for place, transform in enumerate(self.beside.views[number]):
            images = [transform(image, size, keys.generator(self.name, i, place)) for i, image in enumerate(images)]
        return torch.stack(images)
