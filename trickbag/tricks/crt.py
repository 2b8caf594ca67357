"""cRT, classifier re-training: after training, the classifier is learned anew from equally frequent classes.

Formula: from W = b = 0, epochs * N / B steps of SGD with momentum 0.9 on the mean CE(W x' + b, y) + decay / 2 * ||W||^2 over
  batches of B training images. Each image is of any class with the same probability, then any of the class. The rate falls
  to 0 as half a cosine. x' are the features of the frozen network, computed once without augmentation, centred, and
  scaled to a mean squared length of 1, so that one rate suits every network; in the network W and b act on the bare features.
  The paper begins at random weights and augments; a convex problem needs no luck, and stored features take seconds.
Paper: Kang et al., "Decoupling Representation and Classifier for Long-Tailed Recognition", ICLR 2020,
  arXiv:1910.09217, section 4.1.
Helps: macro recall and rare classes on imbalanced data, with features learned from all images alike.
Hurts: top-1 over all images where frequent classes are as frequent when judged; classes of a handful of images.
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


def balanced_head(
    x: Tensor, y: Tensor, epochs: int, batch_size: int, rate: float, decay: float, rng: Generator
) -> tuple[Tensor, Tensor]:
    """Features [N, D] and targets [N, K] -> weights [K, D] and biases [K] of a linear layer on the bare features.

    >>> x = torch.tensor([[-1.0], [1.0], [1.0], [1.0], [1.0]])
    >>> y = torch.eye(2)[[0, 1, 1, 1, 1]]
    >>> weight, bias = balanced_head(x, y, epochs=20, batch_size=2, rate=1.0, decay=0.0, rng=torch.Generator())
    >>> (x @ weight.T + bias).argmax(1)
    tensor([0, 1, 1, 1, 1])
    """
    mean = x.mean(0)
    scale = (x - mean).square().sum(1).mean().sqrt().clamp_min(torch.finfo(x.dtype).tiny)
    inputs = torch.cat([(x - mean) / scale, torch.ones_like(x[:, :1])], 1)
    decays = torch.full_like(inputs[0], decay)[:, None]
    decays[-1] = 0
    labels = y.argmax(1).cpu()
    chances = 1 / labels.bincount()[labels].double()
    head = velocity = x.new_zeros(inputs.shape[1], y.shape[1])
    each = math.ceil(len(x) / batch_size)
    for step in range(epochs * each):
        rows = torch.multinomial(chances, batch_size, replacement=True, generator=rng).to(x.device)
        gap = (inputs[rows] @ head).softmax(1) - y[rows]
        velocity = MOMENTUM * velocity + inputs[rows].T @ gap / batch_size + decays * head
        head = head - rate * (1 + math.cos(math.pi * step / (epochs * each))) / 2 * velocity
    weight = head[:-1].T / scale
    return weight, head[-1] - weight @ mean


class Crt(Trick):
    """Learn the classifier anew from equally frequent classes."""

    stage = Stage.WEIGHT
    slot = "retrained"
    alters = "classifier"
    neutral = {"epochs": 0}
    epochs: Annotated[int, Field(ge=0, le=1000)] = 10
    """As many draws as there are training images, so often; 0: the classifier stays as trained."""
    rate: Annotated[float, Field(gt=0, le=10)] = 1.0
    """Learning rate at the start."""
    decay: Annotated[float, Field(ge=0, le=1)] = 1e-4
    """Weight decay; biases have none."""

    def setup(self, model: Any, fit: Fit) -> None:
        """Raise UsageError where the classifier is no linear layer with a bias, before anything is trained."""
        head = model.classifier
        if self.epochs and (not isinstance(head, nn.Linear) or head.bias is None):
            raise UsageError(
                f"crt retrains a linear layer with a bias; this network ends with {type(head).__name__}. Remove crt."
            )

    def finish(self, model: Any, fit: Fit, rng: Generator) -> Any:
        """Replace the classifier's weights."""
        if self.epochs:
            head = model.classifier
            x, y = (values.float().to(head.weight.device) for values in fit.features("train"))
            with torch.no_grad():
                weight, bias = balanced_head(x, y, self.epochs, fit.facts.batch_size, self.rate, self.decay, rng)
                head.weight.copy_(weight)
                head.bias.copy_(bias)
        return model
