"""Cosine classifier: logits are cosines between features and the weights of the classes, times a learned scale.

Formula: z_k = s * <x / ||x||, w_k / ||w_k||>, no bias; s is learned and starts at scale.
Paper: Gidaris and Komodakis, "Dynamic Few-Shot Visual Learning without Forgetting", CVPR 2018, arXiv:1804.09458, section 3.2.
Helps: few images per class, and imbalanced data: no class has longer weights or a bias for being frequent.
Hurts: what the length of a feature tells; a scale that is too small, which bounds the confidence. The weights of a pretrained
  classifier are drawn anew. What refits a linear layer with a bias, as crt and fit_head, refuses this one.
Costs: nothing.
"""

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import linear, normalize

from trickbag.ground.errors import UsageError
from trickbag.trick import Stage, Trick


def cosines(x: Tensor, weight: Tensor) -> Tensor:
    """Features [B, D] and weights of the classes [K, D] -> [B, K] in [-1, 1].

    >>> cosines(torch.tensor([[3.0, 4.0]]), torch.tensor([[2.0, 0.0], [0.0, 5.0]]))
    tensor([[0.6000, 0.8000]])
    """
    return linear(normalize(x, dim=1), normalize(weight, dim=1))


class CosineLinear(nn.Linear):
    """A linear layer without bias whose input and rows of weights are scaled to length 1, and the output by a learned scale."""

    def __init__(self, inside: int, outside: int, scale: float) -> None:
        super().__init__(inside, outside, bias=False)
        self.scale = nn.Parameter(torch.tensor([scale]))

    def forward(self, x: Tensor) -> Tensor:
        """[B, D] -> [B, K]."""
        return self.scale * cosines(x, self.weight)


class CosineClassifier(Trick):
    """Classify by the cosine."""

    stage = Stage.SHAPE
    alters = "classifier"
    scale: Annotated[float, Field(gt=0, le=1000)] = 10.0
    """The scale at the start; at most it sets two logits of an image apart by twice as much."""

    def model(self, model: Any) -> Any:
        """Replace the classifier. Raises UsageError where it is no linear layer."""
        head = model.classifier
        if not isinstance(head, nn.Linear):
            raise UsageError(f"{self} replaces a linear layer; this network ends with {type(head).__name__}. Remove it.")
        model.classifier = CosineLinear(head.in_features, head.out_features, self.scale)
        return model
