"""LDAM, label-distribution-aware margins: the rarer its class, the more clearly must an image be classified.

Formula: z_k = scale * cos(w_k, x), in training and when judged; the loss of class k is CE with z_k lowered by scale * D_k, and
  that of a row of targets y is sum y_k CE_k. D_k ~ n_k^(-1/4), scaled so that the largest is max_margin; 0 for a class without
  images.
Paper: Cao et al., "Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss", NeurIPS 2019, arXiv:1906.07413,
  section 3.2; the cosine classifier as in the authors' code.
Helps: macro recall and rare classes on imbalanced data; together with drw, as in the paper.
Hurts: a pretrained classifier, which is replaced; balanced data; a scale too small for many classes.
Costs: nothing.
"""

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import linear, normalize

from trickbag.ground.errors import UsageError
from trickbag.ground.margins import margin_loss
from trickbag.trick import Fit, Outputs, Stage, Trick


def margins(counts: Tensor, largest: float) -> Tensor:
    """Images per class [K] -> margins of their cosines [K], float64.

    >>> margins(torch.tensor([1, 16, 0]), 0.5)
    tensor([0.5000, 0.2500, 0.0000], dtype=torch.float64)
    """
    n = counts.double()
    found = torch.where(n > 0, n**-0.25, 0.0)
    return found * (largest / found.max().clamp_min(torch.finfo(found.dtype).tiny))


class CosineLinear(nn.Linear):
    """A linear layer without bias whose rows and inputs count by their direction alone; [B, D] -> [B, K]."""

    def __init__(self, inside: int, outside: int, scale: float) -> None:
        super().__init__(inside, outside, bias=False)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """The cosines, times ``scale``."""
        return self.scale * linear(normalize(x, dim=1), normalize(self.weight, dim=1))


class Ldam(Trick):
    """Classify by cosines and demand margins that are larger for rare classes."""

    stage = Stage.LABEL
    alters = "classifier"
    max_margin: Annotated[float, Field(ge=0, le=2)] = 0.5
    """The rarest class's margin, of a cosine."""
    scale: Annotated[float, Field(gt=0, le=1000)] = 30.0
    """Cosines are multiplied by it; the larger, the surer can the network be."""

    def model(self, model: Any) -> Any:
        """Put a cosine classifier in the place of the linear one. Raises UsageError where that has no bias."""
        head = model.classifier
        if not isinstance(head, nn.Linear) or head.bias is None:
            raise UsageError(
                f"ldam replaces a linear layer with a bias; this network ends with {type(head).__name__}. Remove ldam."
            )
        model.classifier = CosineLinear(head.in_features, head.out_features, self.scale)
        return model

    def setup(self, model: Any, fit: Fit) -> None:
        """Set the margins by the training images."""
        found = self.scale * margins(fit.facts.counts, self.max_margin)
        self.margin_ = found.float().to(next(model.parameters()).device)

    def loss(self, outputs: Outputs, y: Tensor) -> Tensor:
        """The cross-entropy with margins [B]."""
        return margin_loss(outputs.logits, y, self.margin_)
