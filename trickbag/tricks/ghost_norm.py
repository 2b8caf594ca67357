"""Ghost norm: in training, batch norms take their statistics over parts of a batch, as if the batch were small.

Formula: a batch of B images is cut into B / images parts, rounded down and as equal as can be; each part is normalised by its
  own mean and variance. Running statistics follow the mean over the parts, so that judging is as usual; the paper lets them
  follow each part in turn.
Paper: Hoffer et al., "Train longer, generalize better: closing the generalization gap in large batch training of neural
  networks", NIPS 2017, arXiv:1705.08741, algorithm 1.
Helps: large batches, whose statistics lack the noise that regularises small ones; parts of 16 to 128 images.
Hurts: parts of few images, whose statistics are mostly noise. Micro-batches are parts already.
Costs: as many calls of each norm as there are parts, and a copy of what they say.
"""

from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Generator, Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from trickbag.ground.errors import UsageError
from trickbag.ground.norms import batch_norms
from trickbag.trick import Fit, Stage, Trick


def momenta(momentum: float, counts: list[int]) -> list[float]:
    """A momentum in [0, 1] for each part of ``counts`` images, by which running statistics, updated with one part after the
    other, move by ``momentum`` towards the mean over images.

    >>> momenta(1.0, [2, 2]), momenta(0.5, [3])
    ([1.0, 0.5], [0.5])
    """
    seen = [sum(counts[: place + 1]) for place in range(len(counts))]
    return [momentum * n / ((1 - momentum) * seen[-1] + momentum * so_far) for n, so_far in zip(counts, seen, strict=True)]


class Ghost(_BatchNorm):
    """Put before a class of batch norms, makes it take a batch in parts."""

    ghost: ClassVar[int]
    """Least images of a part."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, ...] -> the same, normalised in parts when training."""
        if not self.training or len(x) < 2 * self.ghost:
            return super().forward(x)
        parts = x.tensor_split(len(x) // self.ghost)
        whole = self.momentum
        said: list[Tensor] = []
        for part, share in zip(parts, momenta(whole or 0.0, list(map(len, parts))), strict=True):
            self.momentum = whole and share
            said.append(super().forward(part))
        self.momentum = whole
        return torch.cat(said)


class GhostNorm(Trick):
    """Let batch norms see parts of a batch."""

    stage = Stage.GRADIENT  # after all surgery, which may bring norms
    alters, stilled, undone = "training", "norms", True
    example = "ghost_norm(images=2)"
    images: Annotated[int, Field(ge=2)] = 16
    """How many of them a part has at least."""

    def model(self, model: Any) -> Any:
        """Change the class of each batch norm, which keeps its values and names. Raises UsageError where there is none."""
        norms = batch_norms(model)
        if not norms:
            raise UsageError(f"{self} changes batch norms, and this network has none. Remove {self.name()}.")
        for norm in norms:
            kind: Any = type(norm)
            norm.__class__ = type(f"Ghost{kind.__name__}", (Ghost, kind), {"ghost": self.images})
        return model

    def finish(self, model: Any, fit: Fit, rng: Generator) -> Any:
        """Give each norm its class back: whatever takes statistics of judged images takes them of whole batches."""
        for norm in batch_norms(model):
            norm.__class__ = type(norm).__bases__[1]
        return model

    def setup(self, model: Any, fit: Fit) -> None:
        """Raise UsageError where no batch has two parts."""
        if fit.facts.batch_size < 2 * self.images:
            raise UsageError(
                f"{self} cuts batches of {2 * self.images} images or more, and batch_size is {fit.facts.batch_size}. "
                "Set fewer images, or a larger batch_size."
            )
