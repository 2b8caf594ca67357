"""Gradient centralisation: the gradient of each unit's weights has a mean of zero.

Formula: g_i -= mean(g_i), i a row of a weight's first dimension; weights of one dimension and rows of a single weight, which
  would never move, keep their gradient. Weight decay acts beside it, on the whole weight.
Paper: Yong et al., "Gradient Centralization: A New Optimization Technique for Deep Neural Networks", ECCV 2020,
  arXiv:2004.01461, eq. 1.
Helps: training from scratch and fine-tuning of convolutional networks, a little; steadier steps.
Hurts: hardly; layers whose inputs have a mean that matters learn it through their bias alone.
Costs: one pass over the gradients per step.
"""

from typing import Any

from torch import Tensor

from trickbag.trick import Compute, Stage, Trick


def row_means(grad: Tensor) -> Tensor:
    """The mean of each row [O, 1, ...] of a gradient [O, ...] of two or more dimensions.

    >>> import torch
    >>> row_means(torch.tensor([[1.0, 3.0], [5.0, 5.0]]))
    tensor([[2.],
            [5.]])
    """
    return grad.mean(tuple(range(1, grad.ndim)), keepdim=True)


class GradientCentralisation(Trick):
    """Take the mean out of each unit's gradient."""

    stage = Stage.GRADIENT

    def gradient(self, compute: Compute, model: Any, t: float) -> Compute:
        """Centralise what is computed."""

        def centralised() -> Tensor:
            loss = compute()
            for parameter in model.parameters():
                if parameter.grad is not None and parameter.ndim > 1 and parameter[0].numel() > 1:
                    parameter.grad.sub_(row_means(parameter.grad))
            return loss

        return centralised
