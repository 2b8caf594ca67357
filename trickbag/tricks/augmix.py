"""AugMix: several chains of mild operations, mixed with the image, and answers that agree on two such views.

Formula: x <- m x + (1 - m) sum_i w_i chain_i(x), m ~ Beta(1, 1), w ~ Dirichlet(1, ..., 1), rounded; chain_i is 1 to 3
  operations drawn uniformly from 9 (shears, translations, rotation, posterise, solarise, autocontrast, equalise), each at one
  of the first ``severity`` of 10 magnitudes, its sign, if it has one, drawn evenly. With jsd above 0 the image x stays as it
  is, two views of it are made so, and jsd * (KL(p || M) + KL(p_1 || M) + KL(p_2 || M)) / 3 is added to the loss, p the
  softmax of the logits of x and of the views, M their mean; norms see one view at a time (the paper's see all three at once).
  Operations and magnitudes are those of ``torchvision.transforms.v2.AugMix(all_ops=False)``, which cuts decimals off where
  this rounds; only the draws are keyed. Images without three channels are treated channel by channel.
  It sits in the slot of mixup and CutMix, whose mixed images have no such views.
Paper: Hendrycks et al., "AugMix: A Simple Data Processing Method to Improve Robustness and Uncertainty", ICLR 2020,
  arXiv:1912.02781, algorithm 1 and section 3.
Helps: images that are blurred, noisy or compressed when judged; calibration.
Hurts: clean accuracy in short training; classes told apart by direction.
Costs: three passes per step instead of one, and loader time, about six operations per view; with jsd=0 the latter alone.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Generator, Tensor
from torchvision.transforms import v2

from trickbag.ground.operations import operated
from trickbag.ground.streams import uniform
from trickbag.trick import Batch, Outputs, Stage, Transform, Trick

BINS = 10
DEPTHS = 3
VIEWS = 2
_TORCHVISION = v2.AugMix(all_ops=False)
OPERATIONS: tuple[str, ...] = tuple(_TORCHVISION._PARTIAL_AUGMENTATION_SPACE)


def operate(image: Tensor, operation: str, m: int, sign: int) -> Tensor:
    """A uint8 image [C, H, W] after one of OPERATIONS at magnitude ``m`` in 0 .. 9; ``sign``, 1 or -1, where it has one.

    >>> operate(torch.tensor([[[10, 200]]], dtype=torch.uint8), "Solarize", 4, 1)
    tensor([[[10,  55]]], dtype=torch.uint8)
    """
    return operated(_TORCHVISION, _TORCHVISION._PARTIAL_AUGMENTATION_SPACE, BINS, image, operation, m, sign)


def blend(image: Tensor, chains: Sequence[Tensor], shares: Tensor, kept: float) -> Tensor:
    """A uint8 image, of which a share ``kept`` stays, mixed with uint8 chains by their shares [W], which sum to 1.

    >>> one, nine = (torch.full((1, 1, 1), value, dtype=torch.uint8) for value in (1, 9))
    >>> blend(one, [one, nine], torch.tensor([0.5, 0.5]), 0.25).item()
    4
    """
    mixed = sum((share * chain for share, chain in zip(shares.tolist(), chains, strict=True)), torch.zeros(image.shape))
    return (kept * image + (1 - kept) * mixed).round_().clamp_(0, 255).to(torch.uint8)


def jensen_shannon(logits: Tensor) -> Tensor:
    """Logits [V, B, K] of V views -> the divergence of their V distributions, the mean over the batch, a scalar in nats.

    >>> round(jensen_shannon(torch.tensor([[[100.0, 0.0]], [[0.0, 100.0]]])).item(), 4)
    0.6931
    """
    logs = logits.log_softmax(2)
    mean = logs.logsumexp(0) - math.log(len(logs))
    return (logs.exp() * (logs - mean)).sum(2).mean()


class AugMix(Trick):
    """Mix chains of operations into each image, or into two more views of it that shall be answered alike."""

    stage = Stage.PIXEL
    slot = "mix"
    severity: Annotated[int, Field(ge=1, le=BINS)] = 3
    """How many of the 10 magnitudes, from the mildest, are drawn."""
    width: Annotated[int, Field(ge=1, le=10)] = 3
    """Chains per image."""
    depth: Annotated[int, Field(ge=0, le=10)] = 0
    """Operations per chain; 0: 1, 2 or 3, drawn for each chain."""
    jsd: Annotated[float, Field(ge=0)] = 12.0
    """Weight of the divergence between the answers to an image and to its two views; 0: the images themselves are mixed."""

    def augment(self) -> list[Transform]:
        """Shares, then each chain's length, operations, magnitudes and signs, per image or view."""

        def draw(high: int, rng: Generator) -> int:
            return int(torch.randint(high, (), generator=rng))

        def chain(image: Tensor, rng: Generator) -> Tensor:
            for _ in range(self.depth or 1 + draw(DEPTHS, rng)):
                operation, m, sign = (draw(high, rng) for high in (len(OPERATIONS), self.severity, 2))
                image = operate(image, OPERATIONS[operation], m, 2 * sign - 1)
            return image

        def apply(image: Tensor, _size: int, rng: Generator) -> Tensor:
            kept = uniform(rng)
            shares = torch._sample_dirichlet(torch.ones(self.width, dtype=torch.float64), generator=rng)
            return blend(image, [chain(image, rng) for _ in range(self.width)], shares, kept)

        return [apply]

    def views(self) -> int:
        """Two, where their answers shall agree."""
        return VIEWS if self.jsd else 0

    def penalty(self, batch: Batch, outputs: Outputs, model: Any, t: float) -> Tensor:
        """The weighted divergence of the answers."""
        if batch.views is None:
            return outputs.logits.new_zeros(())
        answers = [outputs.logits, *(model(view).logits for view in batch.views.unbind(1))]
        return self.jsd * jensen_shannon(torch.stack([answer.float() for answer in answers]))
