"""BCE, binary cross-entropy: each class is a question of its own, answered with yes or no.

Formula: sum_k -y_k log s(z_k) - (1 - y_k) log(1 - s(z_k)), s the sigmoid: torch's ``binary_cross_entropy_with_logits``. Summed
  over classes, where timm takes the mean by default: the slope in z is then s(z) - y, of the size of the softmax's p - y, so
  that a learning rate does not depend on the number of classes. Targets stay soft; the paper's recipes cut mixed ones at 0.2.
Paper: Wightman et al., "ResNet strikes back", 2021, arXiv:2110.00476.
Helps: long training with mixup and cutmix, where an image shows several classes; label noise.
Hurts: short training with many classes, which begins by unlearning "yes" everywhere; NLL, since the softmax is not what learns.
Costs: nothing.
"""

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from trickbag.trick import Outputs, Stage, Trick


def binary_loss(logits: Tensor, y: Tensor) -> Tensor:
    """Logits and targets [B, K] -> the sum over the classes of the binary cross-entropy, [B].

    >>> import torch
    >>> binary_loss(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))
    tensor([1.3863])
    """
    return binary_cross_entropy_with_logits(logits, y, reduction="none").sum(1)


class Bce(Trick):
    """Replace the softmax by one sigmoid for each class in the loss."""

    stage = Stage.LABEL

    def loss(self, outputs: Outputs, y: Tensor) -> Tensor:
        """The binary cross-entropy [B]."""
        return binary_loss(outputs.logits, y)
