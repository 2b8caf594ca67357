"""Scales at test time: an image is judged at several sizes.

Formula: p = the mean of p over the image at ``sizes``, shares of the judged size; the logits are log p. The image is cut once
  at the largest size and made smaller from there (bilinear, antialiased). The maps are those of the first size.
Paper: Simonyan and Zisserman, ICLR 2015, arXiv:1409.1556, section 4.2.
Helps: objects that are larger or smaller than in training; most networks a little at sizes above 1.
Hurts: sizes far from those that the network was trained on.
Costs: the sum of the squares of the sizes: 3.8 times the time per judged image with the defaults.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import interpolate

from trickbag.ground.errors import UsageError
from trickbag.trick import Fit, Outputs, Predict, Stage, Trick, View


def resized(x: Tensor, side: int) -> Tensor:
    """Images [B, C, H, H] -> the same [B, C, side, side]; the very images where they have that size.

    >>> resized(torch.tensor([[[[0.0, 2.0], [4.0, 6.0]]]]), 1)
    tensor([[[[3.]]]])
    """
    return x if x.shape[-1] == side else interpolate(x, (side, side), mode="bilinear", antialias=True)


def mean_outputs(views: Sequence[Outputs]) -> Outputs:
    """Outputs at all sizes -> mean features, logarithms of the mean probabilities as logits; the maps are those of the first.

    >>> sure, unsure = torch.tensor([[0.9, 0.1]]).log(), torch.tensor([[0.5, 0.5]]).log()
    >>> mean_outputs([Outputs(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1), z) for z in (sure, unsure)]).logits.exp()
    tensor([[0.7000, 0.3000]])
    """
    log_p = torch.stack([view.logits.log_softmax(1) for view in views])
    features = torch.stack([view.features for view in views]).mean(0)
    return Outputs(views[0].maps, features, log_p.logsumexp(0) - math.log(len(views)))


class ScaleTta(Trick):
    """Judge each image at several sizes."""

    stage = Stage.EVAL
    positional = "sizes"
    sizes: Annotated[tuple[Annotated[float, Field(ge=0.5, le=2)], ...], Field(min_length=1)] = (1.0, 1.125, 1.25)
    """Shares of the judged size, each from 0.5 to 2."""

    def setup(self, model: Any, fit: Fit) -> None:
        """Raise UsageError where the network reads one size alone."""
        if side := getattr(model, "fixed_size", 0):
            raise UsageError(
                f"scale_tta judges at several sizes; this network reads {side} x {side} pixels only. Remove scale_tta."
            )

    def view(self, view: View) -> View:
        """What the largest size needs; never less than before."""
        return View(*(round(side * max(1.0, *self.sizes)) for side in view))

    def predict(self, predict: Predict) -> Predict:
        """The mean over the sizes, judged one after the other."""
        largest = max(1.0, *self.sizes)

        def several(x: Tensor) -> Outputs:
            return mean_outputs([predict(resized(x, round(x.shape[-1] * share / largest))) for share in self.sizes])

        return several
