"""Bi-tempered logistic loss: a loss with a ceiling, on probabilities with a heavy tail.

Formula: log_t x = (x^(1-t) - 1) / (1 - t), exp_t its inverse, at t = 1 the usual ones. p_k = exp_t2(z_k - c), with the c that
  makes them sum to 1; the loss of class k is -log_t1 p_k - (1 - sum_j p_j^(2-t1)) / (2 - t1), and that of a row of targets is
  sum_k y_k times it, which differs from the paper's by a term of the targets alone. t1 < 1 bounds the loss by 1 / (1 - t1), so
  that far outliers pull no more; t2 > 1 gives wrong answers near the boundary more room. Networks are judged by the softmax.
Paper: Amid et al., "Robust Bi-Tempered Logistic Loss Based on Bregman Divergences", NeurIPS 2019, arXiv:1906.03361, eq. 4, 5
  and 7. c is found by Newton's method on (sum_k exp_t2(z_k - c))^(1-t2), which six steps solve.
Helps: label noise, of whole classes and of single images.
Hurts: NLL, since the softmax is not what learns (calibrate mends it); clean labels with t1 far from 1.
Costs: nothing to speak of: eight passes over the logits.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from trickbag.trick import Outputs, Stage, Trick

NEWTON = 6
"""Steps, after which no more changes anything in float64, for 2 to 20,000 classes and logits of any size."""


def tempered_log_softmax(logits: Tensor, t: float) -> Tensor:
    """Logits [B, K] -> logarithms of the probabilities exp_t(z - c) [B, K]; t at least 1, at 1 the softmax's.

    >>> tempered_log_softmax(torch.zeros(1, 2), 1.5).exp()
    tensor([[0.5000, 0.5000]])
    """
    if t == 1:
        return logits.log_softmax(1)
    z = logits - logits.max(1, keepdim=True).values.detach()

    def log_exp_t(c: Tensor) -> Tensor:
        return -((t - 1) * (c - z)).log1p() / (t - 1)

    with torch.no_grad():
        c = torch.zeros_like(z[:, :1])
        for _ in range(NEWTON):
            logs = log_exp_t(c)
            total = logs.logsumexp(1, keepdim=True)
            c = c + total.exp() * ((t - 1) * total).expm1() / ((t - 1) * (t * logs).exp().sum(1, keepdim=True))
    # One more step of the usual kind, whose slope in the logits is that of the solution.
    p = log_exp_t(c).exp()
    return log_exp_t(c + (p.sum(1, keepdim=True) - 1) / (p.detach() ** t).sum(1, keepdim=True))


def bi_tempered_loss(logits: Tensor, y: Tensor, t1: float, t2: float) -> Tensor:
    """Logits and targets [B, K] -> the loss [B]; t1 in [0, 1], t2 at least 1, at 1 and 1 the cross-entropy.

    >>> bi_tempered_loss(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), 0.0, 1.0)
    tensor([0.2500])
    """
    logs = tempered_log_softmax(logits, t2)
    if t1 == 1:
        return -(y * logs).sum(1)
    own = -(y * ((1 - t1) * logs).expm1()).sum(1) / (1 - t1)
    return own - (1 - ((2 - t1) * logs).exp().sum(1)) / (2 - t1)


class BiTempered(Trick):
    """Bound the loss, and give its probabilities a heavy tail."""

    stage = Stage.LABEL
    neutral = {"t1": 1.0, "t2": 1.0}
    t1: Annotated[float, Field(ge=0, le=1)] = 0.8
    """1: the loss has no ceiling; below, it is at most 1 / (1 - t1)."""
    t2: Annotated[float, Field(ge=1, le=4)] = 1.2
    """1: the softmax; the larger, the heavier the tail of the probabilities."""

    def loss(self, outputs: Outputs, y: Tensor) -> Tensor:
        """The bi-tempered loss [B]."""
        return bi_tempered_loss(outputs.logits, y, self.t1, self.t2)
