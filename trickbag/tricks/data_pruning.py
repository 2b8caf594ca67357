"""Data pruning: training leaves out the images of each class that teach the least.

Formula: the score of an image by a trained network with probabilities p on its judged view, y its class: ||p - onehot(y)||_2
  (el2n), -log p_y (loss) or max_{k != y} p_k - p_y (margin). Of the n_k images of a class stay the max(1, round(keep n_k)) with
  the largest scores, or with the smallest where easy ones shall stay.
Paper: Paul et al., "Deep Learning on a Data Diet", NeurIPS 2021, arXiv:2107.07075 (EL2N, early in training); which to keep, and
  classes in balance: Sorscher et al., "Beyond Neural Scaling Laws", NeurIPS 2022, arXiv:2206.14486.
Helps: speed, where images are many; where they are fewer, prefer='easy' is the better choice.
Hurts: label noise, since images with wrong labels are the hard ones that stay; small shares; few images.
Costs: the short run that scores, one pass over the training images, and then less: epochs are shorter.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor
from torch.nn.functional import one_hot

from trickbag.trick import Answers, Stage, Trick

Score = Literal["el2n", "loss", "margin"]


def el2n(p: Tensor, labels: Tensor) -> Tensor:
    """Probabilities [N, K] and labels [N] -> the length of the error vector [N], between 0 and the root of 2.

    >>> el2n(torch.tensor([[0.9, 0.1], [0.0, 1.0]]), torch.tensor([0, 0]))
    tensor([0.1414, 1.4142])
    """
    return (p - one_hot(labels, p.shape[1])).square().sum(1).sqrt()


def loss(p: Tensor, labels: Tensor) -> Tensor:
    """Probabilities [N, K] and labels [N] -> the cross-entropy [N], of the least probability above 0 where there is none."""
    return -p.gather(1, labels[:, None])[:, 0].clamp_min(torch.finfo(p.dtype).tiny).log()


def margin(p: Tensor, labels: Tensor) -> Tensor:
    """Probabilities [N, K] and labels [N] -> by how much the likeliest other class is likelier [N], between -1 and 1."""
    others = p.masked_fill(one_hot(labels, p.shape[1]).bool(), -torch.inf)
    return others.amax(1) - p.gather(1, labels[:, None])[:, 0]


SCORES: dict[Score, Callable[[Tensor, Tensor], Tensor]] = {"el2n": el2n, "loss": loss, "margin": margin}


def kept(scores: Tensor, labels: Tensor, keep: float) -> Tensor:
    """Scores [N] and labels [N] -> the rows that stay, rising: the share of each class with the largest scores, one at least.

    >>> kept(torch.tensor([0.1, 0.9, 0.5, 0.2]), torch.tensor([0, 0, 0, 1]), 0.6)
    tensor([1, 2, 3])
    """
    rows = []
    for label in range(len(labels.bincount())):
        own = (labels == label).nonzero()[:, 0]
        rows.append(own[scores[own].argsort(descending=True, stable=True)[: max(1, round(keep * len(own)))]])
    return torch.cat(rows).sort().values


class DataPruning(Trick):
    """Train on a share of the images alone, chosen by how hard they are."""

    stage = Stage.SHAPE
    networks = "teacher"
    keeps = "keep"
    neutral = {"keep": 1.0}
    keep: Annotated[float, Field(gt=0, le=1)] = 0.7
    """Share of each class's training images that stay; 1: all."""
    score: Score = "el2n"
    """What says how hard an image is."""
    prefer: Literal["hard", "easy"] = "hard"
    """Which images stay: hard ones suit many images, easy ones suit few."""
    teacher: str = "self:0.2"
    """Who says it: a run's folder, a recipe's name or file, or self: this recipe without it, trained first; self:0.2 trains it
    for a fifth of the epochs."""

    def data(self, train: Any, unlabelled: Any, answers: Answers, rng: Generator) -> Any:
        """The images that stay."""
        if self.keep == 1:
            return train
        labels = torch.from_numpy(train.labels)
        scores = SCORES[self.score](answers(self.teacher, train), labels)
        return train.take(kept(scores if self.prefer == "hard" else -scores, labels, self.keep).numpy())
