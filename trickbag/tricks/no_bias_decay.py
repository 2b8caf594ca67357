"""No bias decay: weight decay acts on the weights of convolutions and linear layers alone.

Formula: weight_decay = 0 for each parameter that is a vector or a scalar, or whose name does not end with "weight": biases,
  norms, position embeddings, class tokens, layer scales.
Paper: He et al., CVPR 2019, arXiv:1812.01187, section 3.1; Jia et al., 2018, arXiv:1807.11205.
Helps: large batches; costs no accuracy elsewhere.
Hurts: hardly ever; strong overfitting of very small data.
Costs: nothing.
"""

from typing import Any

from torch import nn

from trickbag.trick import Groups, Stage, Trick, regroup


def decays(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter is the weight of a convolution or a linear layer.

    >>> conv = nn.Conv2d(3, 4, 1)
    >>> decays("conv.weight", conv.weight), decays("conv.bias", conv.bias), decays("pos_embed", conv.weight)
    (True, False, False)
    """
    return parameter.ndim > 1 and name.endswith("weight")


class NoBiasDecay(Trick):
    """Take the weight decay from everything but convolutions and linear layers."""

    stage = Stage.GRADIENT

    def groups(self, groups: Groups, model: Any) -> Groups:
        """Split each group into decayed and undecayed parameters."""
        return regroup(groups, lambda name, parameter: {} if decays(name, parameter) else {"weight_decay": 0.0})
