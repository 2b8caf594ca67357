"""Bootstrapping: a label is believed in part, and the network's own answer for the rest.

Formula: CE(beta y + (1 - beta) r, p), p the softmax of the logits; r is the most probable class ("hard"), or p itself ("soft"),
  through which the gradient goes too: the soft form adds (1 - beta) times the entropy of p, which is thereby made smaller.
Paper: Reed et al., "Training Deep Neural Networks on Noisy Labels with Bootstrapping", ICLR Workshop 2015, arXiv:1412.6596,
  eq. 6 and 7; beta is 0.8 there for hard, 0.95 for soft.
Helps: label noise, once the network is mostly right: pretrained weights, or long training.
Hurts: the first epochs from scratch, in which the network believes its own guesses; NLL and calibration, since it grows surer.
Costs: nothing.
"""

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy

from trickbag.trick import Outputs, Stage, Trick


def bootstrap_loss(logits: Tensor, y: Tensor, beta: float, kind: str) -> Tensor:
    """Logits and targets [B, K] -> the loss [B]; beta in [0, 1], at 1 the cross-entropy.

    >>> import torch
    >>> bootstrap_loss(torch.tensor([[0.0, 2.0]]), torch.tensor([[1.0, 0.0]]), 0.5, "hard")
    tensor([1.1269])
    """
    own = logits.argmax(1) if kind == "hard" else logits.softmax(1)
    return beta * cross_entropy(logits, y, reduction="none") + (1 - beta) * cross_entropy(logits, own, reduction="none")


class Bootstrap(Trick):
    """Mix the network's own answers into the targets of the loss."""

    stage = Stage.LABEL
    neutral = {"beta": 1.0}
    beta: Annotated[float, Field(ge=0, le=1)] = 0.8
    """Weight of the label, the rest being the network's own answer; the paper takes 0.95 for kind="soft"."""
    kind: Literal["hard", "soft"] = "hard"
    """hard: the answer is the most probable class; soft: all classes by their probabilities."""

    def loss(self, outputs: Outputs, y: Tensor) -> Tensor:
        """The loss against labels and own answers [B]."""
        return bootstrap_loss(outputs.logits, y, self.beta, self.kind)
