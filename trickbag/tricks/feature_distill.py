"""Feature distillation: learn to see what a trained network sees, beside the labels.

Formula: weight * mean((P x - r)^2) is added to the loss, x the features that the classifier sees, r the teacher's on the same
  mixed crop, P a linear layer that is learned where the two are of different size, and nothing else. The loss and the layer are
  those of timm's FeatureDistillationTask.
Paper: Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015, arXiv:1412.6550, eq. 3, here at the last layer alone.
Helps: small networks, few images; teachers whose classifier says less than their features. Add distill for its answers.
Hurts: a student too small to follow; features of very different size, which ask for another weight.
Costs: the teacher's forward pass at every step, and its training where it is a recipe.
"""

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from trickbag.ground.streams import generator
from trickbag.trick import Batch, Fit, Outputs, Stage, Trick


def projection(inside: int, outside: int, rng: torch.Generator) -> nn.Module:
    """What takes features of one size to another, drawn anew; nothing where they are the same.

    >>> projection(4, 2, torch.Generator())(torch.zeros(1, 4))
    tensor([[0., 0.]], grad_fn=<AddmmBackward0>)
    """
    if inside == outside:
        return nn.Identity()
    layer = nn.Linear(inside, outside)
    nn.init.kaiming_uniform_(layer.weight, nonlinearity="linear", generator=rng)
    nn.init.zeros_(layer.bias)
    return layer


class FeatureDistill(Trick):
    """Pull the network's features towards a teacher's."""

    stage = Stage.LABEL
    networks, brings = "teacher", True
    neutral = {"weight": 0.0}
    teacher: str = "self"
    """A run's folder, a recipe's name or file, or self: this recipe without distillation, trained first."""
    weight: Annotated[float, Field(ge=0, le=1e6)] = 1.0
    """Weight beside the loss of the labels, which is 1."""

    def setup(self, model: Any, fit: Fit) -> None:
        """Fetch the teacher, which is no state of this run, and put the projection beside the network."""
        if not self.weight:
            return
        self._teacher = fit.network(self.teacher)
        place = next(model.parameters()).device
        x = torch.zeros(1, *model.shape, device=place)
        with torch.no_grad():
            inside, outside = (network.eval()(x).features.shape[1] for network in (model, self._teacher))
        made = projection(inside, outside, generator(fit.facts.seed, self.name()))
        model.companions[self.name()] = made.to(place)

    def penalty(self, batch: Batch, outputs: Outputs, model: Any, t: float) -> Tensor:
        """The weighted mean squared distance."""
        if not self.weight:
            return outputs.logits.new_zeros(())
        with torch.no_grad():
            wanted = self._teacher(batch.x).features.float()
        return self.weight * mse_loss(model.companions[self.name()](outputs.features).float(), wanted)
