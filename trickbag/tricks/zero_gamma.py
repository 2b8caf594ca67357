"""Zero gamma: each residual block starts as the identity.

Formula: gamma = 0 in the norm that ends the residual branch of a block, so that x + branch(x) = x before the first step.
Paper: He et al., CVPR 2019, arXiv:1812.01187, section 3.1; Goyal et al., 2017, arXiv:1706.02677, section 5.1.
Helps: the first steps of deep networks from scratch, at large learning rates.
Hurts: pretrained weights, which it would destroy and which are refused.
Costs: nothing.
"""

from typing import Any

import torch
from torch import nn

from trickbag.ground.errors import UsageError
from trickbag.trick import Stage, Trick

ASIDE = ("downsample", "shortcut", "se")
"""Parts of a block beside the branch's chain of layers: shortcuts, and gates that multiply."""
NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


def is_residual(block: nn.Module) -> bool:
    """Whether a module is a residual block: timm, torchvision and this project give these marks to theirs.

    >>> is_residual(nn.Linear(2, 2))
    False
    """
    marked = hasattr(block, "zero_init_last") or hasattr(block, "downsample")
    return marked or getattr(block, "shortcut", None) is not None or bool(getattr(block, "has_skip", False))


def last_norm(block: nn.Module) -> nn.Module | None:
    """The norm with a scale that ends a block's branch; None where it ends with another layer."""
    last = None
    for name, part in block.named_modules():
        if name.split(".")[0] not in ASIDE and next(part.parameters(recurse=False), None) is not None:
            last = part
    return last if isinstance(last, NORMS) else None


class ZeroGamma(Trick):
    """Start the last norm of each residual block at a scale of zero."""

    stage = Stage.WEIGHT

    def model(self, model: Any) -> Any:
        """Zero the scales. Raises UsageError for pretrained weights and for networks without such blocks."""
        if getattr(model, "pretrained", False):
            raise UsageError("zero_gamma would destroy pretrained weights. Remove it, or train from scratch with weights=none.")
        norms = [norm for block in model.modules() if is_residual(block) and (norm := last_norm(block)) is not None]
        if not norms:
            raise UsageError("zero_gamma: the network has no residual block that ends with a norm. Remove it, or use a ResNet.")
        for norm in norms:
            torch.nn.init.zeros_(norm.get_parameter("weight"))
        return model
