"""Head learning rate: the fresh classifier learns faster than the pretrained layers below it.

Formula: lr_scale *= times for the parameters of the classifier.
Paper: Girshick et al., "R-CNN", CVPR 2014, arXiv:1311.2524, supplementary; common in fine-tuning since.
Helps: fine-tuning on few epochs.
Hurts: training from scratch, where all layers are fresh.
Costs: nothing.
"""

from typing import Annotated, Any

from pydantic import Field

from trickbag.trick import Groups, Stage, Trick, regroup


def head_scales(scales: dict[str, float], head: frozenset[str], times: float) -> dict[str, float]:
    """Factor on the learning rate by parameter name -> the same, the head's multiplied.

    >>> head_scales({"conv.weight": 1.0, "fc.weight": 0.5}, frozenset({"fc.weight"}), 10)
    {'conv.weight': 1.0, 'fc.weight': 5.0}
    """
    return {name: scale * times if name in head else scale for name, scale in scales.items()}


class HeadLr(Trick):
    """Multiply the classifier's learning rate."""

    stage = Stage.GRADIENT
    neutral = {"times": 1.0}
    times: Annotated[float, Field(gt=0)] = 10.0
    """Learning rate of the classifier over that of the rest."""

    def groups(self, groups: Groups, model: Any) -> Groups:
        """Put the classifier into groups of its own."""
        now = {name: group["lr_scale"] for group in groups for name in group["names"]}
        scales = head_scales(now, model.head_names, self.times)
        return regroup(groups, lambda name, _: {"lr_scale": scales[name]})
