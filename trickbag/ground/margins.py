"""The cross-entropy with margins: the true class must win by more than a hair."""

import torch
from torch import Tensor
from torch.nn.functional import softplus


def margin_loss(logits: Tensor, y: Tensor, margin: Tensor) -> Tensor:
    """Logits and targets [B, K], margins [K] or [B, K] of the logits -> sum_k y_k CE_k [B], CE_k with logit k lowered by its
    margin.

    >>> margin_loss(torch.zeros(1, 2), torch.tensor([[0.5, 0.5]]), torch.tensor([1.0, 0.0]))
    tensor([1.0032])
    """
    top, first = logits.max(1, keepdim=True)
    lower = logits.scatter(1, first, -torch.inf)
    rest = lower.logsumexp(1, keepdim=True)
    # log sum_{j != k} exp z_j of every k, without the difference of nearly equal numbers.
    others = (top + ((rest - top).exp() - (lower - top).exp()).log1p()).scatter(1, first, rest)
    return (y * softplus(others - logits + margin)).sum(1)
