"""DRW, deferred re-weighting: images of rare classes count more in the loss, late in training.

Formula: from share start on w_k ~ (1 - beta) / (1 - beta^n_k), one over the effective number of images of class k, scaled so
  that the mean over the training images, sum n_k w_k / sum n_k, is 1; 0 for a class without images. Before, every w_k is 1.
  A row of targets y weighs sum y_k w_k. (The paper scales by the sum of the weights in each batch.)
Paper: Cao et al., "Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss", NeurIPS 2019,
  arXiv:1906.07413, section 3.3; weights: Cui et al., CVPR 2019, arXiv:1901.05555, eq. 2.
Helps: macro recall and rare classes on imbalanced data; features are learned from all images alike before.
Hurts: top-1 over all images where frequent classes are as frequent when judged.
Costs: nothing.
"""

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from trickbag.trick import Fit, Stage, Trick


def effective_weights(counts: Tensor, beta: float) -> Tensor:
    """Images per class [K] -> weights of the classes [K], float64; at least one count above 0.

    >>> effective_weights(torch.tensor([1, 2, 0]), 0.5)
    tensor([1.2857, 0.8571, 0.0000], dtype=torch.float64)
    """
    n = counts.double()
    weights = torch.where(n > 0, (1 - beta) / (1 - beta**n), 0.0)
    return weights * n.sum() / (n @ weights)


class Drw(Trick):
    """Weigh each sample by the rarity of its class from a given moment on."""

    stage = Stage.LABEL
    neutral = {"start": 1.0}
    begins = "start"
    start: Annotated[float, Field(ge=0, le=1)] = 0.8
    """Share of training before which all images count alike; 1: they always do."""
    beta: Annotated[float, Field(ge=0, lt=1)] = 0.9999
    """In [0, 1): 0 weighs all classes alike, towards 1 the weight is one over the images of the class."""

    def setup(self, model: Any, fit: Fit) -> None:
        """Weigh the classes by the training images."""
        self.class_weight_ = effective_weights(fit.facts.counts, self.beta).float()

    def weights(self, y: Tensor, t: float) -> Tensor:
        """Targets [B, K] -> weights [B]; a mixed or smoothed row weighs the mean of its classes."""
        if t < self.start:
            return torch.ones_like(y[:, 0])
        if self.class_weight_.device != y.device:
            self.class_weight_ = self.class_weight_.to(y.device)
        return y @ self.class_weight_.to(y.dtype)
