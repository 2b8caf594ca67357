"""Stochastic depth: in training, whole residual branches are left out at random, deep ones more often.

Formula: in the l-th of L residual blocks, each image's branch is 0 with probability rate * l / L in training, otherwise
  divided by 1 - rate * l / L, so that judging needs no factor; the choice is timm's DropPath. (The paper draws once per batch
  and multiplies when judging. timm's own networks count from rate * 0 / (L - 1), so that their first block always stays.)
Paper: Huang et al., "Deep Networks with Stochastic Depth", ECCV 2016, arXiv:1603.09382, section 3, eq. 4.
Helps: deep networks and long training, against overfitting.
Hurts: small networks and short training.
Costs: nothing: branches that are left out are computed all the same.
"""

from typing import Annotated, Any

from pydantic import Field
from timm.layers.drop import DropPath
from torch import nn

from trickbag.ground.errors import UsageError
from trickbag.trick import Stage, Trick

PLACES = ("drop_path", "drop_path1", "drop_path2")
"""Where timm's and this project's blocks keep what drops a branch; blocks of transformers have two branches."""


def rates(rate: float, blocks: int) -> list[float]:
    """The chance of each block, first to last, that its branch is left out; ``rate`` in [0, 1) is the last one's.

    >>> rates(0.5, 4)
    [0.125, 0.25, 0.375, 0.5]
    """
    return [rate * number / blocks for number in range(1, blocks + 1)]


def droppable(block: nn.Module) -> list[str]:
    """The places of a module that may drop a branch; none without a shortcut around it."""
    return [place for place in PLACES if hasattr(block, place)] if getattr(block, "has_skip", True) else []


class StochasticDepth(Trick):
    """Leave out residual branches at random."""

    stage = Stage.SHAPE
    neutral = {"rate": 0.0}
    alters = "training"
    rate: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """The last block's chance to be left out."""

    def model(self, model: Any) -> Any:
        """Give each block its chance. Raises UsageError where timm's network has no place for it."""
        if not self.rate:
            return model
        blocks = [(block, places) for block in model.modules() if (places := droppable(block))]
        if not blocks:
            raise UsageError(f"{self}: the network has no residual blocks that timm can drop. Remove it, or use a ResNet.")
        for (block, places), rate in zip(blocks, rates(self.rate, len(blocks)), strict=True):
            for place in places:
                setattr(block, place, DropPath(rate))
        return model
