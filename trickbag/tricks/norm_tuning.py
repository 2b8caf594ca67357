"""Norm tuning: of a network, only the scales and shifts of its norms learn, and the classifier.

Formula: no gradient for all weights but those of norms, of the pooling and of the classifier while t < until; the statistics of
  batch norms move as ever.
Paper: Frankle et al., "Training BatchNorm and Only BatchNorm: On the Expressive Power of Random Features in CNNs", ICLR 2021,
  arXiv:2003.00152; akin to BitFit, Ben Zaken et al., ACL 2022, arXiv:2106.10199, where the biases learn.
Helps: few images and pretrained weights: less than one weight in a hundred learns, and features can still adapt.
Hurts: large data sets, and data far from what the weights were trained on.
Costs: less than nothing: the gradients of frozen weights are not computed; those of what flows through them are.
"""

from typing import Annotated, Any

from pydantic import Field
from torch import Tensor, nn

from trickbag.ground.errors import UsageError
from trickbag.ground.norms import frozen
from trickbag.trick import Compute, Fit, Stage, Trick


def of_norms(model: nn.Module) -> set[str]:
    """Names of the scales and shifts of a network's norms, which torch and timm call so.

    >>> sorted(of_norms(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), nn.BatchNorm1d(2, affine=False))))
    ['1.bias', '1.weight']
    """
    norms = [(name, module) for name, module in model.named_modules() if "norm" in type(module).__name__.lower()]
    return {f"{name}.{own}" for name, module in norms for own, p in module.named_parameters(recurse=False) if p.ndim == 1}


class NormTuning(Trick):
    """Let the norms and the classifier learn alone for the first share of training."""

    stage, slot, stilled = Stage.GRADIENT, "tuned", "norms"
    neutral = {"until": 0.0}
    until: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of training up to which all else is frozen; 1: all of it."""

    def setup(self, model: Any, fit: Fit) -> None:
        """Raise UsageError where the network has no norms that learn."""
        if not of_norms(model):
            raise UsageError("norm_tuning trains the scales of norms, and this network has none. Use freeze or lora instead.")

    def gradient(self, compute: Compute, model: Any, t: float) -> Compute:
        """While frozen, compute the gradient of norms and classifier."""
        if t >= self.until:
            return compute
        learning = of_norms(model) | model.head_names
        waiting = {
            name
            for name, _ in model.named_parameters()
            if name not in learning and ".global_pool." not in name and not name.startswith("companions.")
        }

        def norms_alone() -> Tensor:
            with frozen(model, waiting):
                return compute()

        return norms_alone
