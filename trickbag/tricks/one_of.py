"""One of: for each batch, one of several mixing tricks.

Formula: the trick i of a batch ~ U{1 .. n}; it draws from the same generator as the choice.
Paper: Wightman et al., "ResNet strikes back", 2021, arXiv:2110.00476 (mixup and CutMix by turns).
Helps: long schedules, where mixup and CutMix are each good for something.
Hurts: short schedules, as its choices do.
Costs: nothing.
"""

from typing import Annotated

import torch
from pydantic import AfterValidator, Field, InstanceOf, SerializeAsAny
from torch import Generator

from trickbag.trick import Batch, Stage, Trick


def _mixing(choices: tuple[Trick, ...]) -> tuple[Trick, ...]:
    for choice in choices:
        if choice.slot != "mix" or choice.plugs() != ("batch",) or choice.core is not choice:
            raise ValueError(f"{choice} cannot be chosen batch by batch; give tricks that mix a batch, one_of(mixup, cutmix)")
    return choices


class OneOf(Trick):
    """Hand each batch to one of ``choices``, all equally likely; a choice named twice is twice as likely.

    >>> from trickbag.tricks import parse
    >>> str(parse("one_of(mixup, cutmix(alpha=0.5))"))
    'one_of(mixup, cutmix(alpha=0.5))'
    """

    stage = Stage.MIX
    slot = "mix"
    positional = "choices"
    example = "one_of(mixup, cutmix)"
    choices: Annotated[tuple[SerializeAsAny[InstanceOf[Trick]], ...], Field(min_length=2), AfterValidator(_mixing)]
    """The mixing tricks to choose from, at least two."""

    def batch(self, batch: Batch, t: float, rng: Generator) -> Batch:
        """What the chosen trick makes of the batch."""
        chosen = int(torch.randint(len(self.choices), (), generator=rng))
        return self.choices[chosen].batch(batch, t, rng)
