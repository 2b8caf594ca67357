"""WiSE-FT: judge weights between those that training started from and those that it has reached.

Formula: (1 - alpha) * w0 + alpha * w, w0 the weights before the first step, a fitted classifier's included, w those that are
  judged otherwise. Norm statistics are estimated anew.
Paper: Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022, arXiv:2109.01903, eq. 1, whose start is a zero-shot
  classifier; with pretrained weights alone, fit_head makes one.
Helps: fine-tuned networks on images unlike the training images; little data. Use it with fit_head.
Hurts: a start whose classifier is random, and training from scratch: between far weights lies nothing of use. With lora it
  mixes factors, not their products.
Costs: one more copy of the weights, one more judging per epoch.
"""

import copy
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import nn

from trickbag.trick import Fit, Stage, Trick


@torch.no_grad()
def between(start: nn.Module, model: nn.Module, alpha: float) -> nn.Module:
    """A network of the weights that lie ``alpha`` in 0..1 of the way from a start to a model, with the start's buffers.

    >>> start, model = nn.Linear(1, 1), nn.Linear(1, 1)
    >>> start.bias.data, model.bias.data = torch.tensor([1.0]), torch.tensor([5.0])
    >>> between(start, model, 0.75).bias.tolist()
    [4.0]
    """
    mixed = copy.deepcopy(start)
    for weight, first, last in zip(mixed.parameters(), start.parameters(), model.parameters(), strict=True):
        weight.copy_(torch.lerp(first, last, alpha))
    return mixed


class WiseFt(Trick):
    """Have weights judged that lie between the start and the end."""

    stage = Stage.WEIGHT
    neutral = {"alpha": 1.0}
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.5
    """How far from the start; 1: the live weights are judged."""

    def setup(self, model: Any, fit: Fit) -> None:
        """Keep the start."""
        self.begun_ = False
        if self.alpha < 1:
            self.start_ = copy.deepcopy(model).requires_grad_(False).eval()

    def after_step(self, model: Any, t: float) -> None:
        """Note that training has begun."""
        self.begun_ = True

    def eval_model(self, model: Any) -> Any:
        """The weights between; before the first step the live ones, which other tricks may just have prepared."""
        if self.alpha == 1:
            return model
        if not self.begun_:
            self.start_.load_state_dict(model.state_dict())
            return model
        return between(self.start_, model, self.alpha)
