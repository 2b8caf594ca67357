"""The images that stand beside those of a step, of which no label is looked at."""

from functools import lru_cache

import torch
from torch import Tensor

from trickbag.engine.loader import Keys, Loader, Slice
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
        views = [self.view(v, Keys(self._seed(v), epoch, rows.flatten(), copies.flatten()), part.size) for v in self._views]
        return Unlabelled(self.loader.pinned(torch.stack(views, 1).view(*rows.shape, len(views), *views[0].shape[1:])), rows)

    def rows(self, part: Slice, epoch: int) -> tuple[Tensor, Tensor]:
        """Rows of what stands beside a step's images, and how often each stood in this epoch before: [B, each] both."""
        count, each = len(self.loader.labels), self.beside.each
        numbers = each * (part.position + torch.arange(len(part.rows)))[:, None] + torch.arange(each)
        rows, turns = torch.empty_like(numbers), numbers // count
        for turn in range(int(turns[0, 0]), int(turns[-1, -1]) + 1):
            own = turns == turn
            rows[own] = order(self.loader.seed, self.name, epoch, turn, count)[numbers[own] % count]
        return rows, turns

    def view(self, number: int, keys: Keys, size: int) -> Tensor:
        """One of the views of these images [n, C, size, size], uint8."""
        images = [
            self.loader.transformed(image, keys, i, size, 0) for i, image in enumerate(self.loader.in_windows(keys, size))
        ]
        for place, transform in enumerate(self.beside.views[number]):
            images = [transform(image, size, keys.generator(self.name, i, place)) for i, image in enumerate(images)]
        return torch.stack(images)

    @property
    def _views(self) -> range:
        return range(len(self.beside.views))

    def _seed(self, view: int) -> int:
        """Of all draws of a view, so that none is that of another view or of a training image."""
        return key(self.loader.seed, self.name, view)
