"""Box crop: an image is cut to the box that the manifest gives it, and to some of what is around.

Formula: [l - m w, t - m h, r + m w, b + m h] of the image, no further than its edges, for a box of width w = r - l and height
  h = b - t and m = margin. Images without a box stay whole. Other tricks crop what is left.
Paper: Girshick et al., "Rich feature hierarchies for accurate object detection and semantic segmentation", CVPR 2014,
  arXiv:1311.2524, appendix A: a box with 16 pixels of context on each side of 195, a margin of 0.08.
Helps: small objects, fine-grained classes, backgrounds that go with a class by chance.
Hurts: classes that the surroundings tell; images judged whole, on which objects look smaller than in training. New photos have
  no box: `trickbag predict` and `explain` see them whole, whatever the field when says, so that scores on images cut to
  their boxes (when="always") say little about them.
Costs: the columns left, top, right, bottom in the manifest. Small boxes of large photos are enlarged, since decoded images are
  kept at about 1.4 times the training size.
"""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from trickbag.ground.errors import UsageError
from trickbag.trick import Stage, Trick


def enlarged(boxes: Tensor, margin: float) -> Tensor:
    """Boxes [N, 4] left, top, right, bottom in 0..1 of the image -> the same with ``margin`` of their sides more on each side.

    They end at the image's edges; a row of NaN is the whole image.

    >>> enlarged(torch.tensor([[0.2, 0.0, 0.6, 0.5], [torch.nan] * 4]), 0.25)
    tensor([[0.1000, 0.0000, 0.7000, 0.6250],
            [0.0000, 0.0000, 1.0000, 1.0000]])
    """
    first, last = boxes[:, :2], boxes[:, 2:]
    around = margin * (last - first)
    grown = torch.cat([first - around, last + around], 1).clamp(0, 1)
    return torch.where(grown.isnan(), grown.new_tensor([0, 0, 1, 1]), grown)


class BoxCrop(Trick):
    """Show what is inside of the box, in training alone or always."""

    stage = Stage.SHAPE
    margin: Annotated[float, Field(ge=0)] = 0.1
    """Share of the box's sides that is shown around it, on each side."""
    when: Literal["train", "always"] = "train"
    """Which images are cut: those trained on, or judged ones that have a box too."""

    @property
    def alters(self) -> Literal["", "training"]:  # type: ignore[override]
        """Judged images stay as they are unless they are cut always."""
        return "training" if self.when == "train" else ""

    def region(self, boxes: Tensor, judged: bool) -> Tensor:
        """The enlarged boxes. Raises UsageError where no image that is trained on has one."""
        if not judged and boxes.isnan().all():
            raise UsageError(
                "box_crop cuts training images to their boxes, and none has one. Give a manifest with the columns left, top, "
                "right, bottom in pixels, or remove box_crop."
            )
        return enlarged(boxes.new_full(boxes.shape, torch.nan) if judged and self.when == "train" else boxes, self.margin)
