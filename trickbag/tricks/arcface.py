"""ArcFace: classify by the angle between features and classes, and demand a margin of the angle to the own class.

Formula: z_k = scale * cos_k, cos_k the largest cosine of the features with one of the class's sub_centers weights, in training
  and when judged. The loss of class k is CE with z_k replaced by scale * cos(angle_k + margin), or where the angle exceeds
  pi - margin by scale * (cos_k - margin * sin(margin)), so that it keeps falling; that of a row of targets y is sum y_k CE_k.
Paper: Deng et al., "ArcFace: Additive Angular Margin Loss for Deep Face Recognition", CVPR 2019, arXiv:1801.07698, eq. 3;
  sub-centres: Deng et al., "Sub-center ArcFace", ECCV 2020; beyond pi - margin as in the authors' code.
Helps: many similar classes with few images each, as faces or products; features that are compared by the cosine, as by knn and
  ncm. Sub-centres: label noise, and classes of several looks.
Hurts: a pretrained classifier, which is replaced; calibration; a margin too large to begin with. Use warmup; and leave
  fit_head out, which fits a linear classifier.
Costs: nothing; sub_centers times the classifier's weights.
"""

import math
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import linear, normalize

from trickbag.ground.errors import UsageError
from trickbag.ground.margins import margin_loss
from trickbag.trick import Outputs, Stage, Trick

NEARLY = 1 - 1e-7
"""Cosines nearer to 1 have no angle of which float32 knows the slope."""


def turned(cosines: Tensor, margin: float) -> Tensor:
    """Cosines [B, K] -> those of angles that are larger by ``margin`` in [0, pi / 2], in radians; see the formula.

    >>> turned(torch.tensor([[0.0, -1.0]]), math.pi / 6)
    tensor([[-0.5000, -1.2618]])
    """
    angles = cosines.clamp(-NEARLY, NEARLY).acos()
    return torch.where(angles <= math.pi - margin, torch.cos(angles + margin), cosines - margin * math.sin(margin))


class CosineLinear(nn.Linear):
    """The logits of the formula: [B, D] -> [B, K], the rows of a class's weights side by side."""

    def __init__(self, inside: int, outside: int, scale: float, centers: int) -> None:
        super().__init__(inside, outside * centers, bias=False)
        self.scale, self.shape = scale, (outside, centers)

    def forward(self, x: Tensor) -> Tensor:
        """The largest cosine of each class, times ``scale``."""
        with torch.autocast(x.device.type, enabled=False):  # bf16 tells small angles from no other
            cosines = linear(normalize(x.float(), dim=1), normalize(self.weight.float(), dim=1))
        nearest: Tensor = cosines.unflatten(1, self.shape).amax(2)  # type: ignore[no-untyped-call]
        return self.scale * nearest


class ArcFace(Trick):
    """Classify by angles and demand a margin."""

    stage = Stage.LABEL
    alters = "classifier"
    margin: Annotated[float, Field(ge=0, le=math.pi / 2)] = 0.5
    """Of the angle, in radians; 0: the cross-entropy of the cosines."""
    scale: Annotated[float, Field(gt=0, le=1000)] = 30.0
    """Cosines are multiplied by it; the larger, the surer can the network be. The paper's, for thousands of faces, is 64."""
    sub_centers: Annotated[int, Field(ge=1, le=100)] = 1
    """Weights per class, of which the nearest counts; the second paper's number is 3."""

    def model(self, model: Any) -> Any:
        """Put a cosine classifier in the place of the linear one. Raises UsageError where that has no bias."""
        head = model.classifier
        if not isinstance(head, nn.Linear) or head.bias is None:
            raise UsageError(
                f"arcface replaces a linear layer with a bias; this network ends with {type(head).__name__}. Remove arcface."
            )
        model.classifier = CosineLinear(head.in_features, head.out_features, self.scale, self.sub_centers)
        return model

    def loss(self, outputs: Outputs, y: Tensor) -> Tensor:
        """The cross-entropy with margins [B]."""
        cosines = outputs.logits / self.scale
        return margin_loss(outputs.logits, y, self.scale * (cosines - turned(cosines, self.margin)))
