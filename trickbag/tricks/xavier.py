"""Xavier: weights drawn so that signals and gradients keep their variance from layer to layer.

Formula: w ~ U[-a, a], a = sqrt(6 / (d_in + d_out)), in every convolution and linear layer; biases 0; norms gamma 1, beta 0.
  d_in counts the inputs of an output, d_out the outputs of an input: channels x kernel area / groups.
Paper: Glorot and Bengio, AISTATS 2010, eq. 16; as used by He et al., CVPR 2019, arXiv:1812.01187, section 2.1.
Helps: comparison with that paper's baseline from scratch.
Hurts: pretrained weights, which it would destroy and which are refused; networks whose own initialisation is tuned, such as
  transformers.
Costs: nothing.
"""

from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from trickbag.ground.errors import UsageError
from trickbag.trick import Stage, Trick

NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm)


def bound(weight: Tensor, groups: int = 1) -> float:
    """The ``a`` of the formula for a weight [out, in / groups, *kernel].

    >>> import torch
    >>> bound(torch.zeros(4, 2))
    1.0
    """
    per_out, area = weight.shape[1], weight[0, 0].numel()
    return float((6 / (area * (per_out + weight.shape[0] / groups))) ** 0.5)


class Xavier(Trick):
    """Draw the weights of a network from scratch as Glorot and Bengio do."""

    stage = Stage.SHAPE  # before whatever changes the weights that training starts from

    def model(self, model: Any) -> Any:
        """Draw the weights; parameters of other kinds of layers stay. Raises UsageError for pretrained weights."""
        if getattr(model, "pretrained", False):
            raise UsageError("xavier would destroy pretrained weights. Remove it, or train from scratch with weights=none.")
        for module in model.modules():
            if isinstance(module, NORMS) and module.weight is not None:
                nn.init.ones_(module.weight)
            elif isinstance(module, _ConvNd | nn.Linear):
                a = bound(module.weight, getattr(module, "groups", 1))
                nn.init.uniform_(module.weight, -a, a)
            if isinstance(module, (*NORMS, _ConvNd, nn.Linear)) and module.bias is not None:
                nn.init.zeros_(module.bias)
        return model
