"""Label-aware smoothing: the more images its class has, the more of a target's weight goes to other classes.

Formula: q_k = 1 - e_k on the label k, e_k / (K - 1) elsewhere, applied to whole target rows, so that it commutes with mixing.
  e_k = tail + (head - tail) * g((n_k - n_min) / (n_max - n_min)), n_k the training images of class k; g(s) = sin(pi s / 2) if
  concave, s if linear, 1 - cos(pi s / 2) if convex. Where all classes are alike, e_k = head.
Paper: Zhong et al., "Improving Calibration for Long-Tailed Recognition", CVPR 2021, arXiv:2104.00466, eq. 3 to 6.
Helps: calibration and macro recall on imbalanced data, where networks are surest of frequent classes. The paper has it in its
  second stage alone.
Hurts: distillation from the smoothed network; classes of a handful of images where tail is large.
Costs: nothing.
"""

import math
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor

from trickbag.trick import Batch, Fit, Stage, Trick

Shape = Literal["concave", "linear", "convex"]


def amounts(counts: Tensor, head: float, tail: float, shape: Shape) -> Tensor:
    """Images per class [K] -> e_k of the formula [K], float64.

    >>> amounts(torch.tensor([100, 50, 0]), 0.4, 0.0, "linear")
    tensor([0.4000, 0.2000, 0.0000], dtype=torch.float64)
    """
    n = counts.double()
    room = n.max() - n.min()
    share = (n - n.min()) / room if room else torch.ones_like(n)
    quarter = math.pi / 2 * share
    return tail + (head - tail) * {"concave": quarter.sin(), "linear": share, "convex": 1 - quarter.cos()}[shape]


def smoothing(eps: Tensor) -> Tensor:
    """Amounts [K], K at least 2 -> the matrix [K, K] whose row k is what becomes of a target of class k.

    >>> smoothing(torch.tensor([0.0, 0.2, 0.0]))
    tensor([[1.0000, 0.0000, 0.0000],
            [0.1000, 0.8000, 0.1000],
            [0.0000, 0.0000, 1.0000]])
    """
    rest = eps / (len(eps) - 1)
    return torch.diag(1 - eps - rest) + rest[:, None]


class LabelAwareSmoothing(Trick):
    """Smooth the targets of frequent classes more than those of rare ones."""

    stage, slot = Stage.LABEL, "smoothing"
    neutral = {"head": 0.0, "tail": 0.0}
    head: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Weight that a target of the largest class loses to the others."""
    tail: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """That of the smallest class."""
    shape: Shape = "concave"
    """How the amount rises between the two."""

    def setup(self, model: Any, fit: Fit) -> None:
        """Set the amounts by the training images."""
        matrix = smoothing(amounts(fit.facts.counts, self.head, self.tail, self.shape))
        self.matrix_ = matrix.float().to(next(model.parameters()).device)

    def batch(self, batch: Batch, t: float, rng: Generator) -> Batch:
        """Smooth the targets."""
        return batch._replace(y=batch.y @ self.matrix_)
