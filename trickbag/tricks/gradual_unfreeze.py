"""Gradual unfreezing: the classifier learns first, then one more layer at a time from the top down.

Formula: of n layers the one k below the classifier learns from t = until * k / (n - 1) on. Before, it has no gradient, and its
  norms use and keep their running statistics; norms without weights do so up to t = until. Layers are timm's, by depth.
Paper: Howard and Ruder, "ULMFiT", ACL 2018, arXiv:1801.06146, section 3.3 (one layer more per epoch).
Helps: little data and pretrained weights.
Hurts: training from scratch, and data far from what the weights were trained on.
Costs: less than nothing: a step has no backward pass below the lowest layer that learns.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor

from trickbag.ground.norms import frozen
from trickbag.trick import Compute, Fit, Stage, Trick


def thaw_moments(depths: Mapping[str, int], until: float) -> dict[str, float]:
    """Depth of each parameter's layer -> the share of training from which it learns, 0 for the deepest.

    >>> thaw_moments({"stem": 0, "conv": 4, "norm": 4, "fc": 9}, 0.5)
    {'stem': 0.5, 'conv': 0.25, 'norm': 0.25, 'fc': 0.0}
    """
    layers = sorted(set(depths.values()), reverse=True)
    return {name: until * layers.index(depth) / max(len(layers) - 1, 1) for name, depth in depths.items()}


class GradualUnfreeze(Trick):
    """Let the layers join in one by one over the first share of training."""

    stage = Stage.GRADIENT
    neutral = {"until": 0.0}
    until: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of training from which all layers learn; 1: the first one never does."""

    def setup(self, model: Any, fit: Fit) -> None:
        """Find out when each parameter begins to learn."""
        self.moments_ = thaw_moments(model.depths, self.until)

    def gradient(self, compute: Compute, model: Any, t: float) -> Compute:
        """Compute the gradient of the layers that learn."""
        waiting = {name for name, moment in self.moments_.items() if t < moment}
        if not waiting:
            return compute

        def upper_alone() -> Tensor:
            with frozen(model, waiting):
                return compute()

        return upper_alone
