"""Pseudo-labels: images without labels join the training where a trained network is sure of them.

Formula: an unlabelled image x joins with the class argmax p(x) where max p(x) >= threshold, p the teacher's softmax on the
  judged view; from then on it is a training image like any other. For a second round the teacher is the run of the first.
Paper: Lee, "Pseudo-Label: The Simple and Efficient Semi-Supervised Learning Method", ICML Workshop 2013; a trained teacher and
  rounds: Xie et al., "Self-training with Noisy Student", CVPR 2020, arXiv:1911.04252.
Helps: few labelled and many unlabelled images of the same kind.
Hurts: unlabelled images of other classes; a teacher that is sure of its mistakes, which are then learned.
Costs: the teacher's training where it is a recipe, one pass over the unlabelled images, and longer epochs.
"""

from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field
from torch import Generator, Tensor

from trickbag.trick import Answers, Stage, Trick


def sure(p: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Probabilities [M, K] -> the rows whose largest is at least the threshold, and their classes.

    >>> import torch
    >>> sure(torch.tensor([[0.9, 0.1], [0.5, 0.5], [0.0, 1.0]]), 0.9)
    (tensor([0, 2]), tensor([0, 1]))
    """
    largest, classes = p.max(1)
    rows = (largest >= threshold).nonzero()[:, 0]
    return rows, classes[rows]


class PseudoLabel(Trick):
    """Train on unlabelled images too, labelled by a trained network."""

    stage = Stage.SHAPE
    networks = "teacher"
    folder = "unlabelled"
    example = "pseudo_label(unlabelled='more', threshold=0.3)"
    unlabelled: str
    """A folder with images that have no labels; a copy of a labelled image is left out."""
    teacher: str = "self"
    """A run's folder, a recipe's name or file, or self: this recipe without pseudo-labels, trained first."""
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.95
    """The least probability, above 0, at which an image joins."""

    def data(self, train: Any, unlabelled: Any, answers: Answers, rng: Generator) -> Any:
        """The labelled images, then those that the teacher is sure of."""
        if not len(unlabelled):
            return train
        rows, classes = sure(answers(self.teacher), self.threshold)
        taken = unlabelled.take(rows.numpy())
        return train.joined(replace(taken, labels=classes.numpy()))
