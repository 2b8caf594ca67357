"""Supervised contrastive loss: features of images of one class are drawn together, and away from those of others.

Formula: weight times the mean over images and views i of -sum_j w_ij log p_ij / max(1, sum_j w_ij) is added to the loss,
  p_ij = exp(z_i . z_j / temperature) / sum_{k != i} exp(z_i . z_k / temperature), w_ij = y_i . y_j for j != i, which for
  unmixed targets is 1 within a class and 0 else. z are the features after a layer of as many, a ReLU and a layer of projection
  outputs, scaled to length 1. The further views are random squares of 20 to 100 % of what is shown of an image before it is
  mixed with others, and count to its own class alone.
  The paper trains the classifier after the features; here both learn at once.
Paper: Khosla et al., "Supervised Contrastive Learning", NeurIPS 2020, arXiv:2004.11362, eq. 2.
Helps: features that are compared, as by knn and ncm; label noise; large batches.
Hurts: batches so small that few images share a class; classes told apart by what a small part of an image does not show.
Costs: a pass per view: one doubles the time of a step.
"""

import math
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Generator, Tensor, nn
from torch.nn.functional import normalize, one_hot
from torchvision.transforms.v2.functional import resized_crop

from trickbag.ground.streams import generator, uniform
from trickbag.trick import Batch, Fit, Outputs, Stage, Transform, Trick

LEAST_AREA = 0.2
"""Of a view, as a share of the image: that of the authors' code."""


def contrast(z: Tensor, y: Tensor, temperature: float) -> Tensor:
    """Rows z [N, D] of length 1 and targets [N, K] -> the formula's mean, a scalar; of a single row it is 0.

    >>> z = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> contrast(z, torch.eye(2)[[0, 0, 1]], 1.0)
    tensor(0.2088)
    """
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    similar = (z @ z.T / temperature).masked_fill(itself, -torch.inf)
    alike = (y @ y.T).masked_fill(itself, 0.0)
    surprise = -similar.log_softmax(1).masked_fill(itself, 0.0)
    return ((alike * surprise).sum(1) / alike.sum(1).clamp_min(1)).mean()


def square(image: Tensor, area: float, y: float, x: float) -> Tensor:
    """A part of an image [C, H, W] with its shape and a share ``area`` in (0, 1] of it, at ``y`` and ``x`` in [0, 1) of the
    room there is, resized to the whole.

    >>> square(torch.arange(16).view(1, 4, 4).byte(), 0.25, 0.9, 0.0).shape
    torch.Size([1, 4, 4])
    """
    height, width = image.shape[1:]
    h, w = (max(1, round(side * math.sqrt(area))) for side in (height, width))
    found: Tensor = resized_crop(image, int(y * (height - h + 1)), int(x * (width - w + 1)), h, w, [height, width])
    return found


class SupervisedContrastive(Trick):
    """Draw the features of a class together."""

    stage = Stage.LABEL
    neutral = {"weight": 0.0}
    brings = True
    weight: Annotated[float, Field(ge=0, le=1000)] = 0.5
    """Weight beside the cross-entropy's, which is 1."""
    temperature: Annotated[float, Field(gt=0, le=100)] = 0.1
    """Similarities are divided by it; the smaller, the more do the nearest count."""
    projection: Annotated[int, Field(ge=0, le=65536)] = 128
    """Outputs of the two layers between features and loss, which training alone has; 0: the features themselves."""
    crops: Annotated[int, Field(ge=0, le=8)] = 1
    """Further views of each image, which count to its class; 0: only other images do."""

    def augment(self) -> list[Transform]:
        """Area and place of each further view."""

        def apply(image: Tensor, _size: int, rng: Generator) -> Tensor:
            return square(image, uniform(rng, LEAST_AREA, 1), uniform(rng), uniform(rng))

        return [apply] if self.views() else []

    def views(self) -> int:
        """As many as there are crops."""
        return self.crops if self.weight else 0

    def setup(self, model: Any, fit: Fit) -> None:
        """Put the two layers beside the network, and note of which class each image is, which is no state of this run."""
        if not self.weight:
            return
        place = next(model.parameters()).device
        self._labels = fit.groups()[1].to(place)
        if not self.projection:
            return
        with torch.no_grad():
            width = model.eval()(torch.zeros(1, *model.shape, device=place)).features.shape[1]
        layers = nn.Linear(width, width), nn.Linear(width, self.projection)
        rng = generator(fit.facts.seed, self.name())
        for layer in layers:
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu", generator=rng)
            nn.init.zeros_(layer.bias)
        model.companions[self.name()] = nn.Sequential(layers[0], nn.ReLU(), layers[1]).to(place)

    def penalty(self, batch: Batch, outputs: Outputs, model: Any, t: float) -> Tensor:
        """The weighted loss of the images and their views."""
        if not self.weight:
            return outputs.logits.new_zeros(())
        views = () if batch.views is None else batch.views.unbind(1)
        features = torch.cat([outputs.features, *(model(view).features.float() for view in views)])
        z = model.companions[self.name()](features) if self.projection else features
        own = one_hot(self._labels[batch.rows.to(z.device, non_blocking=True)], batch.y.shape[1]).to(batch.y.dtype)
        with torch.autocast(z.device.type, enabled=False):
            y = torch.cat([batch.y, own.repeat(len(views), 1)])
            return self.weight * contrast(normalize(z.float(), dim=1), y, self.temperature)
