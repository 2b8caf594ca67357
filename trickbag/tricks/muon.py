"""Muon: the step of each weight matrix is its momentum made orthogonal, so that all directions move alike.

Formula: m = momentum m + (1 - momentum) g, o = NS5(momentum m + (1 - momentum) g), w -= lr * (0.2 sqrt(max(rows, columns)) * o
  + weight_decay * w). NS5 takes the singular values near 1: five times x -> 3.4445 x - 4.7750 x x'x + 2.0315 x (x'x)^2, of x
  divided by its Frobenius norm, in bfloat16. A convolution [O, I, h, w] is a matrix [O, I h w]. The classifier, vectors,
  embeddings and matrices with a side below 4 or 128 times as long as the other move as in nadamw. This is timm.optim.Muon.
Paper: Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024; its length of steps: Liu et al., "Muon is
  Scalable for LLM Training", 2025, arXiv:2502.16982, eq. 4.
Helps: training from scratch in few epochs, convolutional networks and transformers; learning rates of 0.001 to 0.01 and the
  weight decay of adamw, whose length of steps it has.
Hurts: often, fine-tuning of weights that another optimiser trained. Depthwise convolutions are no matrices and gain nothing.
Costs: 15 products of matrices per weight and step: on a CPU, those of a ResNet-18 take as long as forward and backward pass of
  32 images of 64 pixels. The memory of SGD with momentum.
"""

from typing import Annotated, Any, cast

from pydantic import Field
from timm.optim.muon import Muon as TimmMuon
from torch import nn
from torch.optim import Optimizer

from trickbag.trick import Groups, Stage, Trick, regroup


def hidden(name: str, parameter: nn.Parameter, heads: frozenset[str]) -> bool:
    """Whether a parameter is the weight of a convolution or a linear layer below the classifier, of parameters ``heads``.

    >>> layer = nn.Linear(8, 8)
    >>> hidden("fc.weight", layer.weight, frozenset()), hidden("fc.bias", layer.bias, frozenset())
    (True, False)
    """
    return parameter.ndim > 1 and name.endswith("weight") and name not in heads


class Muon(Trick):
    """Replace the optimiser by Muon, and by NAdamW for what is no hidden matrix."""

    stage = Stage.GRADIENT
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """Share of a matrix's old momentum that each step keeps."""
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Of all else: share of the old first moment that each step keeps."""
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """Of all else: share of the old second moment that each step keeps."""

    def groups(self, groups: Groups, model: Any) -> Groups:
        """Set apart what is no hidden matrix."""
        heads = model.head_names
        return regroup(groups, lambda name, parameter: {} if hidden(name, parameter, heads) else {"use_fallback": True})

    def optimizer(self, groups: Groups, lr: float) -> Optimizer:
        """timm.optim.Muon over these groups."""
        betas, coefficients = (self.beta1, self.beta2), "original"
        made = TimmMuon(groups, lr=lr, momentum=self.momentum, nesterov=True, ns_coefficients=coefficients, betas=betas)
        return cast(Optimizer, made)
