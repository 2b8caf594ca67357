"""FixRes: judge at a larger size than was trained on, with the end of the network tuned to it.

Formula: judged images are resized and cut as before, times test_size / size. After training, on training images judged so:
  norm, the running statistics of all batch norms become the means over batches of 1024 random images; head, 10 epochs of SGD
  with momentum 0.9 on the classifier, from its trained weights, with CE on features that are computed once, centred, and
  scaled to a mean squared length of 1, the rate falling from 1 to 0 as half a cosine. The paper tunes on augmented images.
Paper: Touvron et al., "Fixing the train-test resolution discrepancy", NeurIPS 2019, arXiv:1906.06423, section 4.2.
Helps: networks trained with random_resized_crop, which shows objects larger than they are when judged; test_size of 1.15 to
  1.3 times the training size.
Hurts: networks of a fixed input size, which are refused; test sizes far from those trained on.
Costs: (test_size / size)^2 times the time per judged image; two passes over the training images after training.
"""

import math
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor, nn

from trickbag.ground.errors import UsageError
from trickbag.ground.norms import batch_norms, estimate_norms
from trickbag.trick import Batch, Fit, Stage, Trick, View

IMAGES = 1024
EPOCHS = 10
MOMENTUM = 0.9


def picked(batches: Iterator[Batch], rows: Tensor) -> Tensor:
    """The images [M, C, H, W] of ``rows`` [M], in their order, out of batches that show all rows in ascending order."""
    found = torch.cat([batch.x[torch.isin(batch.rows, rows).to(batch.x.device)] for batch in batches])
    return found[rows.argsort().argsort().to(found.device)]


def tuned_head(x: Tensor, y: Tensor, weight: Tensor, bias: Tensor, batch_size: int, rng: Generator) -> tuple[Tensor, Tensor]:
    """Features [N, D], targets [N, K] and a linear layer on the features, [K, D] and [K] -> the same layer, tuned.

    >>> x, y = torch.tensor([[-1.0], [1.0]]), torch.eye(2)
    >>> weight, bias = tuned_head(x, y, torch.zeros(2, 1), torch.tensor([9.0, 0.0]), 1, torch.Generator().manual_seed(0))
    >>> (x @ weight.T + bias).argmax(1)
    tensor([0, 1])
    """
    mean = x.mean(0)
    scale = (x - mean).square().sum(1).mean().sqrt().clamp_min(torch.finfo(x.dtype).tiny)
    inputs = torch.cat([(x - mean) / scale, torch.ones_like(x[:, :1])], 1)
    head = torch.cat([weight.T * scale, (bias + weight @ mean)[None]])
    velocity = torch.zeros_like(head)
    each = math.ceil(len(x) / batch_size)
    for epoch in range(EPOCHS):
        for place, rows in enumerate(torch.split(torch.randperm(len(x), generator=rng).to(x.device), batch_size)):
            gap = (inputs[rows] @ head).softmax(1) - y[rows]
            velocity = MOMENTUM * velocity + inputs[rows].T @ gap / len(rows)
            head = head - (1 + math.cos(math.pi * (epoch + place / each) / EPOCHS)) / 2 * velocity
    weight = head[:-1].T / scale
    return weight, head[-1] - weight @ mean


class Fixres(Trick):
    """Judge at ``test_size`` pixels, with norms and classifier tuned to it."""

    stage = Stage.CLIP  # after soup makes the weights, before whatever learns from features of judged images
    example = "fixres(test_size=20)"
    test_size: Annotated[int, Field(ge=1)]
    """Pixels of a side of judged images."""
    tune: Literal["none", "norm", "head+norm"] = "head+norm"
    """What is tuned to the size after training."""

    def setup(self, model: Any, fit: Fit) -> None:
        """Raise UsageError where the network reads one size alone or the classifier cannot be tuned."""
        if side := getattr(model, "fixed_size", 0):
            raise UsageError(f"fixres judges at another size; this network reads {side} x {side} pixels only. Remove fixres.")
        head = model.classifier if "head" in self.tune else None
        if head is not None and (not isinstance(head, nn.Linear) or head.bias is None):
            raise UsageError(
                f"fixres tunes a linear layer with a bias; this network ends with {type(head).__name__}. "
                f"Write fixres(test_size={self.test_size}, tune='norm')."
            )

    def finish(self, model: Any, fit: Fit, rng: Generator) -> Any:
        """Tune norms, then the classifier."""
        if "norm" in self.tune and (norms := batch_norms(model)):
            rows = torch.randperm(int(fit.facts.counts.sum()), generator=rng)[:IMAGES]
            x = picked(fit.judged("train", self.test_size), rows)
            estimate_norms(model, norms, x.tensor_split(max(1, len(x) // fit.facts.batch_size)))
        if "head" in self.tune:
            head = model.eval().classifier
            with torch.no_grad():
                seen = [(model(batch.x).features.float(), batch.y) for batch in fit.judged("train", self.test_size)]
                x, y = (torch.cat(values) for values in zip(*seen, strict=True))
                weight, bias = tuned_head(x, y, head.weight, head.bias, fit.facts.batch_size, rng)
                head.weight.copy_(weight)
                head.bias.copy_(bias)
        return model

    def view(self, view: View) -> View:
        """The same part of the image at the test size."""
        return View(round(view.resize * self.test_size / view.crop), self.test_size)
