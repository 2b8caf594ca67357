"""Distillation: learn from the soft answers of a trained network as well as from the labels.

Formula: (1 - alpha) * CE + alpha * T^2 * KL(softmax(r / T) || softmax(z / T)), r the teacher's logits on the same mixed crop,
  z the student's; the mean over the batch.
Paper: Hinton et al., "Distilling the Knowledge in a Neural Network", 2015, arXiv:1503.02531; teacher "self": Furlanello et al.,
  "Born-Again Neural Networks", ICML 2018, arXiv:1805.04770.
Helps: small networks, label noise, fine-grained classes.
Hurts: a teacher no better than the student, or one trained with strong label smoothing.
Costs: the teacher's forward pass at every step, and its training where it is a recipe. Cached: the teacher's forward pass over
  the training images once a version, for all arms and seeds together; each epoch then shows one of those versions.
"""

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from trickbag.ground.softened import divergence
from trickbag.trick import Batch, Fit, Outputs, Stage, Trick


class Distill(Trick):
    """Pull the network's answers towards a teacher's.

    >>> divergence(torch.tensor([[0.0, 4.0]]), torch.tensor([[0.0, 4.0]]), 4.0).item()
    0.0
    """

    stage = Stage.LABEL
    networks = "teacher"
    neutral = {"alpha": 0.0}
    teacher: str = "self"
    """A run's folder, a recipe's name or file, or self: this recipe without distillation, trained first."""
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.9
    """Weight of the teacher; the labels have the rest."""
    T: Annotated[float, Field(gt=0)] = 4.0
    """Temperature that softens both answers."""
    cached: bool = False
    """Whether the teacher answers once for all runs, to a few fixed versions of each image, which no trick may mix."""
    fixed: Annotated[int, Field(ge=1, le=1000)] = 4
    """How many versions, where cached."""

    def setup(self, model: Any, fit: Fit) -> None:
        """Fetch the teacher, which is no state of this run."""
        if self.versions():
            self._answers = fit.answers(self.teacher)
        elif self.alpha:
            self._teacher = fit.network(self.teacher)

    def versions(self) -> int:
        """As many as the teacher has answered to."""
        return self.fixed if self.cached and self.alpha else 0

    def weights(self, y: Tensor, t: float) -> Tensor:
        """The labels' weight, the same for all samples."""
        return y.new_full((len(y),), 1 - self.alpha)

    def penalty(self, batch: Batch, outputs: Outputs, model: Any, t: float) -> Tensor:
        """The teacher's part of the loss."""
        if not self.alpha:
            return outputs.logits.new_zeros(())
        return self.alpha * divergence(outputs.logits, self._asked(batch).float(), self.T)

    @torch.no_grad()
    def _asked(self, batch: Batch) -> Tensor:
        if self.versions():
            return self._answers[batch.version, batch.rows].to(batch.x.device, non_blocking=True)
        logits: Tensor = self._teacher(batch.x).logits
        return logits
