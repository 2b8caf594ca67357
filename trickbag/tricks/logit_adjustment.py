"""Logit adjustment: the loss takes account of how rare each class is.

Formula: CE(z + tau log pi, y), pi_k = n_k / sum n the share of class k in the training images; a class without images counts as
  one with a single image. The network is judged by z alone. This is the paper's loss, not its correction after training.
Paper: Menon et al., "Long-tail learning via logit adjustment", ICLR 2021, arXiv:2007.07314, eq. 10.
Helps: macro recall and rare classes on imbalanced data; at tau = 1 the loss whose optimum is the best for macro recall.
Hurts: top-1 over all images where frequent classes are as frequent when judged; together with a sampler, which balances twice.
Costs: nothing.
"""

from typing import Annotated, Any

from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy

from trickbag.trick import Fit, Outputs, Stage, Trick


def log_shares(counts: Tensor) -> Tensor:
    """Images per class [K] -> the logarithms of their shares [K], float64; a count of 0 is taken for 1.

    >>> import torch
    >>> log_shares(torch.tensor([1, 1, 2])).exp()
    tensor([0.2500, 0.2500, 0.5000], dtype=torch.float64)
    """
    n = counts.clamp_min(1).double()
    return (n / n.sum()).log()


class LogitAdjustment(Trick):
    """Let frequent classes start ahead in the loss by ``tau`` times the logarithm of their share."""

    stage = Stage.LABEL
    neutral = {"tau": 0.0}
    tau: Annotated[float, Field(ge=0, le=10)] = 1.0
    """0: the cross-entropy; above 1 rare classes are favoured beyond balance."""

    def setup(self, model: Any, fit: Fit) -> None:
        """Count the training images."""
        self.ahead_ = (self.tau * log_shares(fit.facts.counts)).float().to(next(model.parameters()).device)

    def loss(self, outputs: Outputs, y: Tensor) -> Tensor:
        """The cross-entropy [B] of the shifted logits."""
        return cross_entropy(outputs.logits + self.ahead_, y, reduction="none")
