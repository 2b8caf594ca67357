"""Freeze norms: batch norms keep the statistics, scales and shifts that the weights came with.

Formula: y = gamma (x - mean) / sqrt(variance + eps) + beta, all four of the start, while t < until.
Paper: He et al., "Mask R-CNN", ICCV 2017, arXiv:1703.06870, whose code trains detectors so; Kumar et al., ICLR 2022,
  arXiv:2202.10054, on features that training distorts.
Helps: fine-tuning on few images, or in small batches, whose own statistics are noise.
Hurts: training from scratch, where there is nothing to keep.
Costs: nothing.
"""

from typing import Annotated, Any

from pydantic import Field
from torch import Tensor, nn

from trickbag.ground.errors import UsageError
from trickbag.ground.norms import batch_norms, frozen
from trickbag.trick import Compute, Fit, Stage, Trick


def of_norms(model: nn.Module) -> set[str]:
    """Names of the parameters of a network's batch norms.

    >>> sorted(of_norms(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))))
    ['1.bias', '1.weight']
    """
    own = {id(parameter) for norm in batch_norms(model) for parameter in norm.parameters(recurse=False)}
    return {name for name, parameter in model.named_parameters() if id(parameter) in own}


class FreezeNorms(Trick):
    """Leave the batch norms as they are for the first share of training."""

    stage, slot = Stage.GRADIENT, "norms"
    neutral = {"until": 0.0}
    until: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of training up to which they are frozen; 1: all of it."""

    def setup(self, model: Any, fit: Fit) -> None:
        """Raise UsageError where the network has no batch norms that it trains."""
        if not any(model.get_parameter(name).requires_grad for name in of_norms(model)):
            raise UsageError("freeze_norms freezes batch norms, and this network trains none. Remove freeze_norms.")

    def gradient(self, compute: Compute, model: Any, t: float) -> Compute:
        """While frozen, compute the gradient of all else."""
        if t >= self.until:
            return compute

        def without_norms() -> Tensor:
            with frozen(model, of_norms(model)):
                return compute()

        return without_norms
