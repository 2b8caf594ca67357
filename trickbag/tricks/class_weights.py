"""Class weights: images of rare classes count more in the loss.

Formula: w_k ~ 1 / n_k ("inverse") or (1 - beta) / (1 - beta^n_k) ("effective": one over the effective number of images), scaled
  so that the mean over the training images, sum n_k w_k / sum n_k, is 1; 0 for a class without images.
  A row of targets y weighs sum y_k w_k.
Paper: Cui et al., "Class-Balanced Loss Based on Effective Number of Samples", CVPR 2019, arXiv:1901.05555, eq. 2.
Helps: macro recall and rare classes on imbalanced data.
Hurts: top-1 over all images; very rare classes at full weight from the first step make training unsteady.
Costs: nothing.
"""

from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from trickbag.trick import Fit, Stage, Trick


def balanced_weights(counts: Tensor, kind: str, beta: float) -> Tensor:
    """Images per class [K] -> weights of the classes [K], float64; at least one count above 0.

    >>> balanced_weights(torch.tensor([1, 3, 0]), "inverse", 0.0)
    tensor([2.0000, 0.6667, 0.0000], dtype=torch.float64)
    """
    n = counts.double()
    effective = n if kind == "inverse" else (1 - beta**n) / (1 - beta)
    weights = torch.where(n > 0, 1 / effective, 0.0)
    return weights * n.sum() / (n @ weights)


class ClassWeights(Trick):
    """Weigh each sample by the rarity of its class."""

    stage = Stage.LABEL
    example = "class_weights(kind='effective')"
    kind: Literal["inverse", "effective"] = "inverse"
    """inverse: by images per class; effective: by the effective number of images per class."""
    beta: Annotated[float, Field(ge=0, lt=1)] = 0.9999
    """For kind="effective": in [0, 1); 0 weighs all classes alike, towards 1 it becomes "inverse"."""

    @model_validator(mode="after")
    def _beta_has_an_effect(self) -> Self:
        if self.kind == "inverse" and self.beta != 0.9999:
            raise ValueError("beta works only with kind='effective'")
        return self

    def setup(self, model: Any, fit: Fit) -> None:
        """Weigh the classes by the training images."""
        self.class_weight_ = balanced_weights(fit.facts.counts, self.kind, self.beta).float()

    def weights(self, y: Tensor, t: float) -> Tensor:
        """Targets [B, K] -> weights [B]; a mixed or smoothed row weighs the mean of its classes."""
        if self.class_weight_.device != y.device:
            self.class_weight_ = self.class_weight_.to(y.device)
        return y @ self.class_weight_.to(y.dtype)
