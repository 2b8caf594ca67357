"""Balanced softmax: the loss takes account of how many images each class has.

Formula: CE(z + log n, y), n_k the training images of class k (1 for a class without any). The network is judged by z alone, as
  if all classes were equally frequent. It is logit_adjustment at tau = 1 but for a constant, which no softmax sees.
Paper: Ren et al., "Balanced Meta-Softmax for Long-Tailed Visual Recognition", NeurIPS 2020, arXiv:2007.10740, section 3.1.
Helps: macro recall and rare classes on imbalanced data, without a number to choose.
Hurts: top-1 over all images where frequent classes are as frequent when judged; together with a sampler, which balances twice.
Costs: nothing.
"""

from typing import Any

from torch import Tensor
from torch.nn.functional import cross_entropy

from trickbag.trick import Fit, Outputs, Stage, Trick


def log_counts(counts: Tensor) -> Tensor:
    """Images per class [K] -> their logarithms [K], float64; a class without images counts as one with a single image.

    >>> import torch
    >>> log_counts(torch.tensor([0, 1, 10]))
    tensor([0.0000, 0.0000, 2.3026], dtype=torch.float64)
    """
    return counts.clamp_min(1).double().log()


class BalancedSoftmax(Trick):
    """Let frequent classes start ahead in the loss by the logarithm of their images."""

    stage = Stage.LABEL

    def setup(self, model: Any, fit: Fit) -> None:
        """Count the training images."""
        self.ahead_ = log_counts(fit.facts.counts).float().to(next(model.parameters()).device)

    def loss(self, outputs: Outputs, y: Tensor) -> Tensor:
        """The cross-entropy [B] of the shifted logits."""
        return cross_entropy(outputs.logits + self.ahead_, y, reduction="none")
