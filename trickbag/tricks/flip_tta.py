"""Flip at test time: an image is judged together with its mirror image.

Formula: p = (p(x) + p(mirror of x)) / 2; the logits are log p.
Paper: Simonyan and Zisserman, ICLR 2015, arXiv:1409.1556, section 3.2.
Helps: nearly always a little, where left and right mean the same.
Hurts: text, digits, and classes that differ by handedness.
Costs: twice the time per judged image.
"""

import math

import torch
from torch import Tensor

from trickbag.trick import Outputs, Predict, Stage, Trick


def mean_outputs(a: Outputs, b: Outputs) -> Outputs:
    """Outputs of two views of the same images -> their means; the logits [B, K] are the logarithms of the mean probabilities.

    >>> sure, unsure = torch.tensor([[0.9, 0.1]]).log(), torch.tensor([[0.5, 0.5]]).log()
    >>> a, b = (Outputs(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1), z) for z in (sure, unsure))
    >>> mean_outputs(a, b).logits.exp()
    tensor([[0.7000, 0.3000]])
    """
    logits = torch.logaddexp(a.logits.log_softmax(1), b.logits.log_softmax(1)) - math.log(2)
    return Outputs((a.maps + b.maps) / 2, (a.features + b.features) / 2, logits)


class FlipTta(Trick):
    """Judge each image and its mirror image."""

    stage = Stage.EVAL
    slot = "orientation"

    def predict(self, predict: Predict) -> Predict:
        """The mean over both; feature maps are laid back over each other."""

        def both(x: Tensor) -> Outputs:
            mirrored = predict(x.flip(-1))
            return mean_outputs(predict(x), mirrored._replace(maps=mirrored.maps.flip(-1)))

        return both
