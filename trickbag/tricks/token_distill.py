"""Token distillation: of a network with two classifiers one learns the labels and the other what a trained network says.

Formula: (1 - alpha) * CE(z, y) + alpha * D(r, z'), z and z' the logits of the two classifiers, r the teacher's on the same
  mixed crop; D is the cross-entropy of z' and the class that r names (hard), or T^2 * KL(softmax(r / T) || softmax(z' / T))
  (soft). Judged is the mean of z and z'. The losses are those of timm's TokenDistillationTask.
Paper: Touvron et al., "Training Data-Efficient Image Transformers & Distillation through Attention", ICML 2021,
  arXiv:2012.12877, eqs. 2 and 3.
Helps: vision transformers on few images; convolutional networks as teachers.
Hurts: a teacher no better than the student.
Costs: the teacher's forward pass at every step, and its training where it is a recipe. Tricks that want one classifier refuse
  networks with two.
"""

from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor
from torch.nn.functional import cross_entropy

from trickbag.ground.errors import UsageError
from trickbag.ground.softened import divergence
from trickbag.trick import Batch, Fit, Forward, Outputs, Stage, Trick


def lost(own: Tensor, wanted: Tensor, kind: str, temperature: float) -> Tensor:
    """How far logits [B, K] are from a teacher's: the mean, a scalar.

    >>> says = torch.tensor([[1.0, 2.0]])
    >>> float(lost(says, says, "soft", 3.0)), round(float(lost(says, says, "hard", 3.0)), 4)
    (0.0, 0.3133)
    """
    return divergence(own, wanted, temperature) if kind == "soft" else cross_entropy(own, wanted.argmax(1))


class TokenDistill(Trick):
    """Let the second classifier learn a teacher's answers.

    The features are those of the class token and of the distillation token, side by side.
    """

    stage = Stage.LABEL
    networks = "teacher"
    neutral = {"alpha": 0.0}
    alters, undone = "training", True
    teacher: str = "self"
    """A run's folder, a recipe's name or file, or self: this recipe without distillation, trained first."""
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Weight of the teacher; the labels have the rest."""
    kind: Literal["hard", "soft"] = "hard"
    """What is learned: the class that the teacher names, or its softened answer."""
    T: Annotated[float, Field(gt=0)] = 3.0
    """Temperature that softens both answers, where soft."""

    def model(self, model: Any) -> Any:
        """Change nothing. Raises UsageError where there is no second classifier for a teacher."""
        if self.alpha and not (hasattr(model.net, "head") and hasattr(model.net, "head_dist")):
            raise UsageError(
                f"{self}: {model.name} has no second classifier for a teacher's answers. Choose a distilled transformer, such "
                "as deit_small_distilled_patch16_224, or distill."
            )
        return model

    def setup(self, model: Any, fit: Fit) -> None:
        """Fetch the teacher, which is no state of this run."""
        if self.alpha:
            self._teacher = fit.network(self.teacher)

    def forward(self, forward: Forward, model: Any, t: float, rng: Generator) -> Forward:
        """In training the logits are those of the first classifier alone."""

        def first(batch: Batch) -> tuple[Batch, Outputs]:
            batch, outputs = forward(batch)
            return batch, outputs._replace(logits=model.net.head(outputs.features.chunk(2, 1)[0]))

        return first if self.alpha else forward

    def weights(self, y: Tensor, t: float) -> Tensor:
        """The labels' weight, the same for all samples."""
        return y.new_full((len(y),), 1 - self.alpha)

    def penalty(self, batch: Batch, outputs: Outputs, model: Any, t: float) -> Tensor:
        """The teacher's part of the loss."""
        if not self.alpha:
            return outputs.logits.new_zeros(())
        with torch.no_grad():
            wanted = self._teacher(batch.x).logits.float()
        own = model.net.head_dist(outputs.features.chunk(2, 1)[1]).float()
        return self.alpha * lost(own, wanted, self.kind, self.T)
