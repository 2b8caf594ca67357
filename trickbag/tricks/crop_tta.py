"""Crops at test time: an image is judged in several cuts.

Formula: p = the mean of p over the four corners and the centre of the image (5), or over these and their mirror images (10);
  the logits are log p. The judged view is the whole central square, at least 8/7 of the network's size wide.
Paper: Krizhevsky et al., "ImageNet Classification with Deep Convolutional Neural Networks", NIPS 2012, section 4.1.
Helps: objects off the centre, single photos that count.
Hurts: corners without the object; crops=10 where left and right differ.
Costs: 5 or 10 times the time per judged image.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from trickbag.trick import Fit, Outputs, Predict, Stage, Trick, View

CENTRE = 4
"""Where the centre stands among the cuts."""


def crops_of(x: Tensor, size: int, crops: int) -> Iterator[Tensor]:
    """Images [B, C, H, W] -> their 5 or 10 cuts [B, C, size, size]: corners, centre, then the same mirrored.

    >>> [int(cut[0, 0, 0, 0]) for cut in crops_of(torch.arange(9).view(1, 1, 3, 3), 1, 5)]
    [0, 2, 6, 8, 4]
    """
    bottom, right = x.shape[-2] - size, x.shape[-1] - size
    corners = [(0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2)]
    for image in (x, x.flip(-1))[: crops // 5]:
        for top, left in corners:
            yield image[..., top : top + size, left : left + size]


def mean_outputs(views: Sequence[Outputs]) -> Outputs:
    """Outputs of the cuts -> mean features, logarithms of the mean probabilities as logits; the maps are those of the centre.

    >>> sure, unsure = torch.tensor([[0.9, 0.1]]).log(), torch.tensor([[0.5, 0.5]]).log()
    >>> views = [Outputs(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1), z) for z in (sure, sure, unsure, unsure, unsure)]
    >>> mean_outputs(views).logits.exp()
    tensor([[0.6600, 0.3400]])
    """
    log_p = torch.stack([view.logits.log_softmax(1) for view in views])
    features = torch.stack([view.features for view in views]).mean(0)
    return Outputs(views[CENTRE].maps, features, log_p.logsumexp(0) - math.log(len(views)))


class CropTta(Trick):
    """Judge each image in 5 or 10 cuts."""

    stage = Stage.EVAL
    crops: Literal[5, 10] = 5
    """5: corners and centre; 10: their mirror images too."""

    def setup(self, model: Any, fit: Fit) -> None:
        """Remember the size of a cut."""
        self.size_ = fit.facts.size

    def view(self, view: View) -> View:
        """The central square of the resized image, wide enough to cut from."""
        self.size_, side = view.crop, max(view.resize, round(view.crop * 8 / 7))
        return View(side, side)

    def predict(self, predict: Predict) -> Predict:
        """The mean over the cuts, judged one after the other."""

        def several(x: Tensor) -> Outputs:
            return mean_outputs([predict(cut) for cut in crops_of(x, min(self.size_, x.shape[-1]), self.crops)])

        return several
