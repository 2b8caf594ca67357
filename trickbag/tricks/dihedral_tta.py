"""Dihedral at test time: an image is judged in all eight ways to lay a square.

Formula: p = the mean of p over the ways that the fields allow: transposed or not, then turned upside down or not, then left to
  right or not; the logits are log p. Turns alone make 4 ways, left_right or up_down alone 2, both 4, turns with either all 8.
Paper: Dieleman et al., "Rotation-invariant convolutional neural networks for galaxy morphology prediction", MNRAS 2015,
  arXiv:1503.07077, section 6; Cohen and Welling, ICML 2016, arXiv:1602.07576, for the group.
Helps: photographs without an up, such as cells, satellites, textures, best after training with dihedral.
Hurts: whatever has an up, and networks that never saw it otherwise.
Costs: 8 times the time per judged image; 4 times with turns alone or without turns.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from trickbag.ground.orientations import Way, laid, ways
from trickbag.trick import Outputs, Predict, Stage, Trick


def laid_back(x: Tensor, way: Way) -> Tensor:
    """What ``laid`` was given.

    >>> laid_back(laid(torch.tensor([[1, 2], [3, 4]]), (True, True, False)), (True, True, False))
    tensor([[1, 2],
            [3, 4]])
    """
    transposed, up_down, left_right = way
    x = laid(x, (False, up_down, left_right))
    return x.transpose(-2, -1) if transposed else x


def mean_outputs(views: Sequence[Outputs]) -> Outputs:
    """Outputs of all ways, their maps laid back -> their means; the logits are the logarithms of the mean probabilities.

    >>> sure, unsure = torch.tensor([[0.9, 0.1]]).log(), torch.tensor([[0.5, 0.5]]).log()
    >>> mean_outputs([Outputs(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1), z) for z in (sure, unsure)]).logits.exp()
    tensor([[0.7000, 0.3000]])
    """
    maps, features, log_p = (
        torch.stack(each) for each in zip(*((v.maps, v.features, v.logits.log_softmax(1)) for v in views), strict=True)
    )
    return Outputs(maps.mean(0), features.mean(0), log_p.logsumexp(0) - math.log(len(views)))


class DihedralTta(Trick):
    """Judge each image in up to eight ways."""

    stage = Stage.EVAL
    slot = "orientation"
    neutral = {"left_right": False, "up_down": False, "turns": False}
    left_right: bool = True
    """Whether left and right may change places."""
    up_down: bool = True
    """Whether up and down may change places."""
    turns: bool = True
    """Whether images may be turned by quarters."""

    def predict(self, predict: Predict) -> Predict:
        """The mean over all ways, judged one after the other; feature maps are laid back over each other."""
        allowed = ways(self.left_right, self.up_down, self.turns)

        def judged(x: Tensor, way: Way) -> Outputs:
            view = predict(laid(x, way))
            return view._replace(maps=laid_back(view.maps, way))

        return (lambda x: mean_outputs([judged(x, way) for way in allowed])) if len(allowed) > 1 else predict
