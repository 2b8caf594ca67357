"""Layer decay: early layers learn more slowly than late ones.

Formula: lr_scale *= rate ^ (the last layer's number - that of the parameter's layer). Layers are those of timm's
  param_groups_layer_decay: a norm between the last block and the classifier counts to the classifier's.
Paper: Howard and Ruder, "ULMFiT", ACL 2018, arXiv:1801.06146, section 3.2; Bao et al., "BEiT", ICLR 2022, arXiv:2106.08254.
Helps: fine-tuning, above all of transformers and on little data.
Hurts: training from scratch; data far from what the weights were trained on.
Costs: nothing.
"""

from typing import Annotated, Any

from pydantic import Field

from trickbag.trick import Groups, Stage, Trick, regroup


def depth_factor(depth: int, deepest: int, rate: float) -> float:
    """The factor on the learning rate of a layer; ``deepest`` is the depth of the classifier, the input is at 0.

    >>> [depth_factor(depth, 2, 0.5) for depth in (0, 1, 2)]
    [0.25, 0.5, 1.0]
    """
    return float(rate ** (deepest - depth))


class LayerDecay(Trick):
    """Shrink the learning rate by ``rate`` with each layer away from the classifier."""

    stage = Stage.GRADIENT
    neutral = {"rate": 1.0}
    rate: Annotated[float, Field(gt=0, le=1)] = 0.75
    """Learning rate of a layer over that of the layer after it."""

    def groups(self, groups: Groups, model: Any) -> Groups:
        """Scale the learning rates by depth."""
        deepest = max(model.layers.values())
        scales = {name: group["lr_scale"] for group in groups for name in group["names"]}
        return regroup(
            groups, lambda name, _: {"lr_scale": scales[name] * depth_factor(model.layers[name], deepest, self.rate)}
        )
