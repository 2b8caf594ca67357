"""Growing batches: the batch grows where the learning rate would have dropped.

Formula: the recipe's batch times factor ^ (how many of the moments ``at`` lie at or before t), never above what is left of the
  epoch. The noise of SGD goes with lr / batch, so factor = 4 stands for a drop of the learning rate to a quarter.
  Schedules multiply the learning rate as ever: leave step_decay out where this takes its place.
Paper: Smith et al., "Don't Decay the Learning Rate, Increase the Batch Size", ICLR 2018, arXiv:1711.00489, section 4.
Helps: many devices, which large batches keep busy; fewer steps for the same images.
Hurts: a single device that is busy already; batches near the size of the data set.
Costs: the memory of the largest batch, unless micro_batch bounds it.
"""

from itertools import pairwise
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from trickbag.trick import Stage, Trick


def grown_batch(t: float, base: int, at: tuple[float, ...], factor: int) -> int:
    """Images per step at share ``t``; growth holds from its moment on.

    >>> [grown_batch(t, 32, (0.25, 0.5), 4) for t in (0.2, 0.25, 0.9)]
    [32, 128, 512]
    """
    return int(base * factor ** sum(t >= moment for moment in at))


def _several(at: Any) -> Any:
    return (at,) if isinstance(at, int | float) else at


def _rising(at: tuple[float, ...]) -> tuple[float, ...]:
    if any(a >= b for a, b in pairwise(at)):
        raise ValueError("the moments must rise")
    return at


class GrowBatch(Trick):
    """Multiply the batch by ``factor`` at each of the moments."""

    stage = Stage.GRADIENT
    neutral = {"factor": 1}
    at: Annotated[
        tuple[Annotated[float, Field(gt=0, lt=1)], ...],
        Field(min_length=1, max_length=100),
        BeforeValidator(_several),
        AfterValidator(_rising),
    ] = (0.25, 0.5, 0.75)
    """Rising shares of training, each between 0 and 1; a single one may be given bare."""
    factor: Annotated[int, Field(ge=1, le=1000)] = 2
    """What the batch is multiplied by at each moment."""

    def batch_size(self, t: float, base: int) -> int:
        """Images per step over all ranks."""
        return grown_batch(t, base, self.at, self.factor)
