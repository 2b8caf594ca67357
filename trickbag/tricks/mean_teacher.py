"""Mean teacher: images without labels are answered as an average of the network's weights answers them.

Formula: loss + w(t) * mean ||softmax(z) - softmax(z')||^2 over the images beside a step, z the logits of the network and z'
  those of the teacher, each of its own view of the image; w(t) = weight * exp(-5 (1 - t / ramp)^2) before ramp, then weight.
  After each step teacher <- a * teacher + (1 - a) * network, a = min(1 - 1 / k, 2^(-s / half_life)), k the steps so far and s
  the share of training that a step is. The teacher is judged, its norm statistics estimated anew. The images are the training
  images and those of the folder. (The paper's distance is a mean over classes, its weight 100: for 10 classes the same as 10.)
Paper: Tarvainen and Valpola, "Mean teachers are better role models: Weight-averaged consistency targets improve semi-supervised
  deep learning results", NIPS 2017, arXiv:1703.01780.
Helps: few labelled and many unlabelled images of the same kind.
Hurts: unlabelled images of other classes; short training, in which the teacher knows no more than the network.
Costs: one more copy of the weights and, for each unlabelled image, a pass of the teacher beside its training: with ratio=1 a
  step takes about 2.3 times as long.
"""

import copy
import math
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from trickbag.trick import Batch, Beside, Fit, Outputs, Stage, Trick


def distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Logits [N, K] of both -> the squared distance of their distributions, the mean over the images: a scalar in [0, 2].

    >>> distance(torch.tensor([[90.0, 0.0]]), torch.tensor([[0.0, 90.0]]))
    tensor(2.)
    """
    return (student.softmax(1) - teacher.softmax(1)).square().sum(1).mean()


def ramped(t: float, ramp: float) -> float:
    """The share of the whole weight at ``t``, which rises to 1 at ``ramp`` in [0, 1].

    >>> round(ramped(0.0, 0.25), 4), ramped(0.25, 0.25), ramped(0.0, 0.0)
    (0.0067, 1.0, 1.0)
    """
    return math.exp(-5 * (1 - t / ramp) ** 2) if t < ramp else 1.0


@torch.no_grad()
def follow(teacher: nn.Module, model: nn.Module, share: float) -> None:
    """Move the weights of ``teacher`` by ``share`` in (0, 1] of the way to those of ``model``; its buffers become the same.

    >>> teacher, model = nn.Linear(1, 1), nn.Linear(1, 1)
    >>> follow(teacher, model, 1.0)
    >>> torch.equal(teacher.weight, model.weight)
    True
    """
    for old, new in zip(teacher.parameters(), model.parameters(), strict=True):
        old.lerp_(new, share)
    for kept, moved in zip(teacher.buffers(), model.buffers(), strict=True):
        kept.copy_(moved)


class MeanTeacher(Trick):
    """Pull the answers to images without labels towards those of an average of the weights."""

    stage = Stage.WEIGHT
    folder = "unlabelled"
    example = "mean_teacher(unlabelled='more')"
    unlabelled: str
    """A folder with images that have no labels; a copy of a labelled image is left out."""
    weight: Annotated[float, Field(ge=0)] = 10.0
    """Weight of the distance, once it is whole."""
    ramp: Annotated[float, Field(ge=0, le=1)] = 0.25
    """Share of training over which the weight rises."""
    half_life: Annotated[float, Field(gt=0, le=1)] = 0.02
    """Share of training after which a moment counts half in the teacher."""
    ratio: Annotated[int, Field(ge=1, le=100)] = 1
    """Images without labels beside each training image."""

    def beside(self) -> Beside:
        """Two views: the network's and the teacher's."""
        return Beside(self.ratio, ((), ()))

    def setup(self, model: Any, fit: Fit) -> None:
        """The teacher begins as the network."""
        self.steps_, self.seen_ = 0, 0.0
        self.teacher_ = copy.deepcopy(model).requires_grad_(False)

    def penalty(self, batch: Batch, outputs: Outputs, model: Any, t: float) -> Tensor:
        """The weighted distance; both networks go by the statistics of their view, as in training."""
        if batch.unlabelled is None:
            return outputs.logits.new_zeros(())
        own, other = (view.flatten(0, 1) for view in batch.unlabelled.x.unbind(2))
        for module, like in zip(self.teacher_.modules(), model.modules(), strict=True):
            module.training = like.training  # of which another trick may have frozen some
        with torch.no_grad():
            target = self.teacher_(other).logits.float()
        return self.weight * ramped(t, self.ramp) * distance(model(own).logits.float(), target)

    def update(self, model: Any, t: float) -> None:
        """Let the teacher follow."""
        self.steps_ += 1
        share = max(1 / self.steps_, 1 - 0.5 ** ((t - self.seen_) / self.half_life))
        follow(self.teacher_, model, share)
        self.seen_ = t

    def eval_model(self, model: Any) -> Any:
        """The teacher; the live model before the first step."""
        return self.teacher_ if self.steps_ else model
