"""Clean labels: training images whose labels are probably wrong are found before training, and left out or corrected.

Formula: p_i is what a logistic regression on the features of the network as training finds it says of image i, fitted to the
  images of the other four of five folds, which keep groups together; where these have none of its class, its label is believed.
  Confident learning chooses the wrong labels by it: an image of label j counts as class k where p_ik reaches the mean p_k of
  those labelled k; of each pair of classes as many are chosen as so counted, those with the largest p_ik - p_ij. Validation and
  test keep their labels; the file changed.csv in the run's folder lists what was chosen.
Paper: Northcutt et al., "Confident Learning: Estimating Uncertainty in Dataset Labels", JAIR 2021, arXiv:1911.00068, eq. 1 to 3
  and section 3.2 (prune by noise rate).
Helps: label noise, with pretrained weights that fit the task.
Hurts: clean labels, of which hard ones are taken for wrong; networks from scratch, whose features tell little; rare classes.
Costs: one pass over the training images, then seconds.
"""

from dataclasses import replace
from typing import Any, Literal

import numpy as np
from torch import Generator

from trickbag.statistics.label_errors import suspects
from trickbag.trick import Answers, Stage, Trick


def believed(labels: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Labels [N] and probabilities [N, K] by others -> labels [N], the most probable class where one is probably wrong.

    >>> p = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.1, 0.9], [0.2, 0.8], [0.9, 0.1]])
    >>> believed(np.array([0, 0, 0, 1, 1, 1]), p)
    array([0, 0, 0, 1, 1, 0])
    """
    return np.where(suspects(labels, p), p.argmax(1), labels)


class CleanLabels(Trick):
    """Leave out training images whose labels are probably wrong, or correct them."""

    stage = Stage.SHAPE
    kind: Literal["drop", "correct"] = "drop"
    """drop: they are left out; correct: they get the class that is most probable instead."""

    def data(self, train: Any, unlabelled: Any, answers: Answers, rng: Generator) -> Any:
        """The training images with labels that others believe. Raises UsageError where there are too few to judge them."""
        labels = believed(train.labels, answers.out_of_fold(train).numpy())
        return replace(train, labels=labels) if self.kind == "correct" else train.take(labels == train.labels)
