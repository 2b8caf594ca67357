"""Easy first: training begins with the images that a reference network finds easy, and the others join bit by bit.

Formula: the difficulty of an image is the cross-entropy of a trained network on its judged view. At share t of training an
  epoch draws as many images as there are, of each class as many as it has, from the easiest max(1, round(g(t) n_k)) of its n_k;
  g(t) = min(1, start + (1 - start) t / until).
Paper: Bengio et al., "Curriculum Learning", ICML 2009; classes in balance, by a trained network: Hacohen and Weinshall, "On The
  Power of Curriculum Learning in Training Deep Networks", ICML 2019, arXiv:1904.03626; when it helps: Wu et al., "When Do
  Curricula Work?", ICLR 2021, arXiv:2012.03107.
Helps: label noise and short training.
Hurts: few images, of which it shows fewer; long training, where any order is as good.
Costs: the reference's training where it is a recipe, and one pass over the training images.
"""

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Generator, Tensor
from torch.nn.functional import cross_entropy

from trickbag.trick import Fit, Stage, Trick, drawn


def places(difficulty: Tensor, labels: Tensor) -> Tensor:
    """Difficulties [N] -> how many images of its class are easier than each [N], int64; of equals the earlier is easier.

    >>> places(torch.tensor([0.9, 0.1, 0.5, 0.2]), torch.tensor([0, 0, 0, 1]))
    tensor([2, 0, 1, 0])
    """
    found = torch.empty_like(labels)
    for label in range(len(labels.bincount())):
        own = (labels == label).nonzero()[:, 0]
        found[own[difficulty[own].argsort(stable=True)]] = torch.arange(len(own))
    return found


def pace(t: float, start: float, until: float) -> float:
    """The share of each class's images that are in play at share ``t`` of training.

    >>> [round(pace(t, 0.2, 0.5), 2) for t in (0.0, 0.25, 0.5, 0.9)]
    [0.2, 0.6, 1.0, 1.0]
    """
    return min(1.0, start + (1 - start) * t / until)


def easy_order(labels: Tensor, place: Tensor, share: float, rng: Generator) -> Tensor:
    """Labels [N] and places [N] within classes -> rows [N] of the easiest share of each class, shuffled; all equally often."""
    counts = labels.bincount()
    easy = (place < (share * counts.double()).round().long().clamp_min(1)[labels]).nonzero()[:, 0]
    return easy[drawn(labels[easy], counts, rng)]


class EasyFirst(Trick):
    """Show the easiest images of each class first, and all of them from ``until`` of training on."""

    stage = Stage.LABEL
    networks = "teacher"
    teacher: str = "self"
    """Whose loss says what is easy: a run's folder, a recipe's name or file, or self: this recipe without it, trained first;
    self:0.2 trains it for a fifth of the epochs."""
    start: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Share of each class's images in play at the start; 1: all."""
    until: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of training at which all images are in play."""

    def setup(self, model: Any, fit: Fit) -> None:
        """Ask the reference how hard each image is."""
        network = fit.network(self.teacher)
        with torch.no_grad():
            asked = ((network(batch.x).logits.float(), batch.y) for batch in fit.judged("train"))
            losses, labels = zip(*((cross_entropy(z, y, reduction="none"), y.argmax(1)) for z, y in asked), strict=True)
        self.place_ = places(torch.cat(losses).cpu(), torch.cat(labels).cpu())
        self.epochs_ = fit.facts.epochs

    def order(self, labels: Tensor, epoch: int, rng: Generator) -> Tensor:
        """The epoch's rows [N]; before the setup, when steps are counted, as if all images were as hard."""
        place = self.state().get("place_", torch.zeros_like(labels))
        return easy_order(labels, place, pace(epoch / max(1, self.state().get("epochs_", 1)), self.start, self.until), rng)
