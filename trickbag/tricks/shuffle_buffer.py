"""Shuffle buffer: images are read nearly in the order in which they lie on the disk, and still come at random.

Formula: the table is cut into runs of ``run`` neighbours, which are read in random order, each from its beginning to its end,
  into a buffer; the next image is any of the ``buffer`` images there, each with the same probability, and the next one that
  is read takes its place. An image is shown at most ``buffer`` - 1 places before its place in the reading order.
Paper: Murray et al., "tf.data: A Machine Learning Data Processing Framework", VLDB 2021, arXiv:2101.12127; Aizman et al., "High
  Performance I/O For Large Scale Deep Learning", IEEE Big Data 2019, arXiv:2001.01858 (shards in random order, then a buffer).
Helps: sets that are larger than the cache, on disks and networks that are slow at reading here and there.
Hurts: where images lie class by class and runs and buffer are small beside a class: batches then hold few classes.
Costs: nothing.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Generator, Tensor

from trickbag.trick import Stage, Trick


def through_buffer(count: int, run: int, buffer: int, rng: Generator) -> Tensor:
    """The rows 0 to ``count`` - 1 [count] int64, run by run through a buffer.

    >>> through_buffer(6, 3, 1, Generator().manual_seed(0)).tolist()
    [0, 1, 2, 3, 4, 5]
    """
    runs = torch.randperm(-(-count // run), generator=rng).tolist()
    reading = [row for first in runs for row in range(first * run, min((first + 1) * run, count))]
    held, unread = reading[:buffer], iter(reading[buffer:])
    shown = []
    for draw in torch.rand(count, generator=rng, dtype=torch.float64).tolist():
        place = int(draw * len(held))
        shown.append(held[place])
        last = held.pop() if (following := next(unread, None)) is None else following
        if place < len(held):
            held[place] = last
    return torch.tensor(shown, dtype=torch.int64)


class ShuffleBuffer(Trick):
    """Shuffle within a buffer that runs of neighbouring images go through."""

    stage = Stage.LABEL
    run: Annotated[int, Field(ge=1)] = 1_000
    """Images that lie beside one another and are read in one go, as many as a shard holds."""
    buffer: Annotated[int, Field(ge=1)] = 10_000
    """Images among which the next one is drawn."""

    def order(self, labels: Tensor, epoch: int, rng: Generator) -> Tensor:
        """The epoch's rows [N]: every image once."""
        return through_buffer(len(labels), self.run, self.buffer, rng)
