"""Attention crop: an image is judged a second time, cut to where the network saw its class.

Formula: p = (p(x) + p(c)) / 2; the logits are log p. M = max(0, sum_d W_kd maps_d) is the map of the most probable class k by
  the classifier's weights W, scaled up to the image (bilinear); c is the smallest box that holds all places with
  M >= share * max M, scaled up to the image's size (bilinear), width and height each by a factor of their own.
Paper: the map: Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016, arXiv:1512.04150, section 2;
  the second look: Hu et al., "See Better Before Looking Closer", 2019, arXiv:1901.09891, section 3.4.
Helps: fine-grained classes, objects that fill a part of the image.
Hurts: scenes, and images of which the first look sees the wrong class. Exact where features are the mean of the maps.
Costs: twice the time per judged image.
"""

import math
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Generator, Tensor, nn
from torch.nn.functional import grid_sample, interpolate

from trickbag.ground.errors import UsageError
from trickbag.trick import Fit, Outputs, Predict, Stage, Trick


def boxes(activation: Tensor, share: float) -> Tensor:
    """Maps [B, H, W] -> [B, 4] left, top, right, bottom, as edges in pixels, of all that is at least ``share`` of the maximum.

    Values below 0 count as 0, so that a map without any above has the whole image.

    >>> boxes(torch.tensor([[[0.0, 0.1, 0.0], [0.0, 0.9, 0.5]], [[-1.0, -2.0, -3.0], [-4.0, -5.0, -6.0]]]), 0.5)
    tensor([[1, 1, 3, 2],
            [0, 0, 3, 2]])
    """
    positive = activation.clamp_min(0)
    inside = positive >= share * positive.amax((1, 2), keepdim=True)
    edges = []
    for lit in (inside.any(1), inside.any(2)):
        places = torch.arange(lit.shape[1], device=lit.device)
        edges.append((torch.where(lit, places, lit.shape[1]).amin(1), torch.where(lit, places + 1, 0).amax(1)))
    (left, right), (top, bottom) = edges
    return torch.stack([left, top, right, bottom], 1)


def cut(x: Tensor, box: Tensor) -> Tensor:
    """Images [B, C, H, W] and a box [B, 4] of each -> what is inside, scaled up to [B, C, H, W].

    >>> cut(torch.arange(16.0).view(1, 1, 4, 4), torch.tensor([[0, 0, 4, 4]])).equal(torch.arange(16.0).view(1, 1, 4, 4))
    True
    """
    (left, top), (right, bottom) = box[:, :2].T.to(x.dtype), box[:, 2:].T.to(x.dtype)

    def places(first: Tensor, last: Tensor, count: int) -> Tensor:
        steps = (torch.arange(count, device=x.device, dtype=x.dtype) + 0.5) / count
        return (first[:, None] + (last - first)[:, None] * steps) * 2 / count - 1

    across, down = places(left, right, x.shape[-1]), places(top, bottom, x.shape[-2])
    size = (x.shape[0], *x.shape[-2:])  # len would make a number of it where a graph is traced
    grid = torch.stack([across[:, None, :].expand(size), down[:, :, None].expand(size)], 3)
    return grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def mean_outputs(a: Outputs, b: Outputs) -> Outputs:
    """Outputs of two looks -> mean features, logarithms of the mean probabilities as logits; the maps are those of the first.

    >>> sure, unsure = torch.tensor([[0.9, 0.1]]).log(), torch.tensor([[0.5, 0.5]]).log()
    >>> a, b = (Outputs(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1), z) for z in (sure, unsure))
    >>> mean_outputs(a, b).logits.exp()
    tensor([[0.7000, 0.3000]])
    """
    logits = torch.logaddexp(a.logits.log_softmax(1), b.logits.log_softmax(1)) - math.log(2)
    return Outputs(a.maps, (a.features + b.features) / 2, logits)


class AttentionCropTta(Trick):
    """Judge each image and the part of it that its class was seen in."""

    stage = Stage.EVAL
    share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of the map's maximum that belongs to the object, between 0 and 1; the larger, the closer the cut."""

    def setup(self, model: Any, fit: Fit) -> None:
        """Begin without weights. Raises UsageError where the classifier does not act on the channels of a map."""
        head, place = model.classifier, next(model.parameters()).device
        self.weight_ = torch.empty(0, 0, device=place)
        with torch.no_grad():
            maps = model.eval()(torch.zeros(1, fit.facts.channels, fit.facts.size, fit.facts.size, device=place)).maps
        if not isinstance(head, nn.Linear) or head.in_features != maps.shape[1] or maps[0, 0].numel() == 1:
            raise UsageError(
                "attention_crop_tta lays the weights of a linear classifier over the last map; this network ends with a map "
                f"{list(maps.shape[1:])} and {head}. Remove attention_crop_tta, or use larger images or a ResNet."
            )

    def finish(self, model: Any, fit: Fit, rng: Generator) -> Any:
        """Remember the classifier's weights."""
        self.weight_ = model.classifier.weight.detach().clone()
        return model

    def predict(self, predict: Predict) -> Predict:
        """The mean of both looks; the first alone while there are no weights, during training."""

        def twice(x: Tensor) -> Outputs:
            first = predict(x)
            if not len(self.weight_):
                return first
            weight = self.weight_[first.logits.argmax(1)].to(first.maps.dtype)
            activation = torch.einsum("bd,bdhw->bhw", weight, first.maps)
            scaled = interpolate(activation[:, None], x.shape[-2:], mode="bilinear")[:, 0]
            return mean_outputs(first, predict(cut(x, boxes(scaled, self.share))))

        return twice
