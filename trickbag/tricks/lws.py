"""LWS, learnable weight scaling: after training, one factor on each class's logit is learned from equally frequent classes.

Formula: w_k and b_k times f_k; from f = 1, epochs * N / B steps of SGD with momentum 0.9 on the mean CE(f z, y) over batches of
  B training images, z the trained network's logits, weights and features fixed. Each image is of any class with the same
  probability, then any of the class. The rate falls to 0 as half a cosine and counts for logits scaled to a mean square of 1,
  so that one rate suits every network. The logits are computed once without augmentation, where the paper augments.
Paper: Kang et al., "Decoupling Representation and Classifier for Long-Tailed Recognition", ICLR 2020,
  arXiv:1910.09217, section 4.
Helps: macro recall and rare classes on imbalanced data; with K numbers to learn, even from classes of a handful of images.
Hurts: top-1 over all images where frequent classes are as frequent when judged.
Costs: one pass over the training images, then seconds.
"""

import math
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Generator, Tensor, nn

from trickbag.ground.errors import UsageError
from trickbag.trick import Fit, Stage, Trick

MOMENTUM = 0.9


def balanced_factors(z: Tensor, y: Tensor, epochs: int, batch_size: int, rate: float, rng: Generator) -> Tensor:
    """Logits and targets [N, K] -> factors on the logits [K].

    >>> z = torch.tensor([[1.0, 0.5], [1.0, 0.5], [1.0, 0.5], [1.0, 0.9]])
    >>> factors = balanced_factors(z, torch.eye(2)[[0, 0, 0, 1]], 10, 4, 1.0, torch.Generator().manual_seed(0))
    >>> (z * factors).argmax(1)
    tensor([0, 0, 0, 1])
    """
    length = z.square().mean().sqrt().clamp_min(torch.finfo(z.dtype).tiny)
    inputs, factors = z / length, length.expand(z.shape[1])
    velocity = torch.zeros_like(factors)
    labels = y.argmax(1).cpu()
    chances = 1 / labels.bincount()[labels].double()
    steps = epochs * math.ceil(len(z) / batch_size)
    for step in range(steps):
        rows = torch.multinomial(chances, batch_size, replacement=True, generator=rng).to(z.device)
        gap = (inputs[rows] * factors).softmax(1) - y[rows]
        velocity = MOMENTUM * velocity + (gap * inputs[rows]).mean(0)
        factors = factors - rate * (1 + math.cos(math.pi * step / steps)) / 2 * velocity
    return factors / length


class Lws(Trick):
    """Learn a factor on each class's weights from equally frequent classes."""

    stage = Stage.WEIGHT
    slot = "retrained"
    alters = "classifier"
    neutral = {"epochs": 0}
    epochs: Annotated[int, Field(ge=0, le=1000)] = 10
    """As many draws as there are training images, so often; 0: the classifier stays as trained."""
    rate: Annotated[float, Field(gt=0, le=10)] = 1.0
    """Learning rate at the start."""

    def setup(self, model: Any, fit: Fit) -> None:
        """Raise UsageError where the classifier is no linear layer with a bias, before anything is trained."""
        head = model.classifier
        if self.epochs and (not isinstance(head, nn.Linear) or head.bias is None):
            raise UsageError(
                f"lws scales a linear layer with a bias; this network ends with {type(head).__name__}. Remove lws."
            )

    def finish(self, model: Any, fit: Fit, rng: Generator) -> Any:
        """Scale the classifier's weights and biases."""
        if self.epochs:
            head = model.classifier
            x, y = (values.float().to(head.weight.device) for values in fit.features("train"))
            with torch.no_grad():
                factors = balanced_factors(head(x), y, self.epochs, fit.facts.batch_size, self.rate, rng)
                head.weight.mul_(factors[:, None])
                head.bias.mul_(factors)
        return model
