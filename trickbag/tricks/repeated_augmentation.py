"""Repeated augmentation: a batch holds several copies of each image, each augmented anew.

Formula: an epoch of N draws shows ceil(N / n) different images n times each (the last as often as there is room), drawn anew
  each epoch; copies follow one another. A batch size that n divides keeps them together. As ``timm``'s RepeatAugSampler
  without its rounding to multiples of 256; on several ranks the copies of an image are shared out, as there.
Paper: Hoffer et al., "Augment your batch", CVPR 2020, arXiv:1901.09335; Berman et al., "MultiGrain", 2019, arXiv:1902.05509.
Helps: strong augmentation, large batches, long training from scratch, transformers.
Hurts: short training: an epoch sees one in n of the images.
Costs: nothing.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Generator, Tensor

from trickbag.trick import Stage, Trick


def repeated_order(count: int, n: int, rng: Generator) -> Tensor:
    """``count`` rows [N] int64 in which each that occurs stands ``n`` times in a row, the last as often as there is room.

    >>> repeated_order(5, 2, Generator()).bincount().sort().values
    tensor([0, 0, 1, 2, 2])
    """
    return torch.randperm(count, generator=rng).repeat_interleave(n)[:count]


class RepeatedAugmentation(Trick):
    """Show fewer images per epoch, each several times in a row."""

    stage = Stage.LABEL
    n: Annotated[int, Field(ge=2)] = 3
    """Copies of each image, at least 2."""

    def order(self, labels: Tensor, epoch: int, rng: Generator) -> Tensor:
        """The epoch's rows [N]: as many draws as images."""
        return repeated_order(len(labels), self.n, rng)
