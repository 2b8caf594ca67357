"""L2-SP: weights are drawn towards where they started instead of towards zero.

Formula: alpha / 2 * ||w - w0||^2 + beta / 2 * ||v||^2 is added to the loss, w all weights below the classifier, w0 those before
  the first step, v the classifier's weights and biases. The recipe's weight decay, in whose place this stands, is off.
Paper: Li et al., "Explicit Inductive Bias for Transfer Learning with Convolutional Networks", ICML 2018, arXiv:1802.01483,
  eq. 3.
Helps: few images and pretrained weights that suit the task.
Hurts: training from scratch, whose start is random; data far from what the weights were trained on.
Costs: one more copy of the weights, one pass over them per step.
"""

import copy
from collections.abc import Iterable
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from trickbag.trick import Batch, Fit, Groups, Outputs, Stage, Trick, regroup


def squared_distance(weights: Iterable[Tensor], places: Iterable[Tensor]) -> Tensor:
    """The squared Euclidean distance of tensors, taken as one vector, from others of the same shapes: a scalar.

    >>> squared_distance([torch.tensor([3.0]), torch.tensor([4.0])], [torch.zeros(1), torch.zeros(1)])
    tensor(25.)
    """
    return torch.stack([(weight - place).square().sum() for weight, place in zip(weights, places, strict=True)]).sum()


class L2Sp(Trick):
    """Penalise the distance from the starting weights."""

    stage = Stage.WEIGHT
    neutral = {"alpha": 0.0, "beta": 0.0}
    alpha: Annotated[float, Field(ge=0, le=1000)] = 0.1
    """Weight of the distance of all but the classifier from their start."""
    beta: Annotated[float, Field(ge=0, le=1000)] = 0.01
    """Weight of the classifier's distance from zero."""

    def groups(self, groups: Groups, model: Any) -> Groups:
        """Take the weight decay away."""
        return regroup(groups, lambda *_: {"weight_decay": 0.0}) if self.alpha or self.beta else groups

    def setup(self, model: Any, fit: Fit) -> None:
        """Make room for the start, which the first step finds."""
        self.taken_ = False
        if self.alpha:
            self.start_ = copy.deepcopy(model).requires_grad_(False)

    def penalty(self, batch: Batch, outputs: Outputs, model: Any, t: float) -> Tensor:
        """Both squared distances, weighted."""
        if not self.alpha and not self.beta:
            return outputs.logits.new_zeros(())
        if self.alpha and not self.taken_:
            self.start_.load_state_dict(model.state_dict())
            self.taken_ = True
        head = [parameter for name, parameter in model.named_parameters() if name in model.head_names]
        total = self.beta / 2 * squared_distance(head, map(torch.zeros_like, head))
        if self.alpha:
            pairs = zip(model.named_parameters(), self.start_.parameters(), strict=True)
            body = [(weight, place) for (name, weight), place in pairs if name not in model.head_names]
            total = total + self.alpha / 2 * squared_distance(*zip(*body, strict=True))
        return total
