"""How far answers are from a teacher's, both softened by a temperature."""

from torch import Tensor
from torch.nn.functional import kl_div, log_softmax


def divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Logits [B, K] of both -> KL(teacher || student) at a temperature above 0, times its square: the mean, a scalar.

    >>> import torch
    >>> same = torch.tensor([[1.0, 2.0]])
    >>> float(divergence(same, same, 4.0))
    0.0
    """
    z, r = log_softmax(student / temperature, 1), log_softmax(teacher / temperature, 1)
    return temperature**2 * kl_div(z, r, reduction="batchmean", log_target=True)
