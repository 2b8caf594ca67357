"""The body of a classifier: its feature maps, for heads that find boxes or regions. What made its classes is left out."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from trickbag.ground.errors import UsageError
from trickbag.ground.norms import batch_norms
from trickbag.models import networks
from trickbag.models.card import CARD, Card
from trickbag.runs.classifier import Classifier, untrained

Norms = Literal["frozen", "trained"]
CANVAS = 32
"""Both sides of what a body reads are multiples of this many pixels."""
ADVICE = "Choose a convolutional network, such as resnet18."


class Body(nn.Module):
    """Images -> the last map of each stride, finest first.

    ``net`` keeps timm's names. With ``norms="frozen"`` its batch norms change neither statistics nor scales.
    Raises UsageError where the network has no maps of several strides, or reads images of one size alone.

    >>> body = Body(network("cifar_resnet8"), norms="frozen")
    >>> body.strides, [tuple(found.shape) for found in body(torch.zeros(1, 3, 32, 64))]
    ((1, 2, 4), [(1, 16, 32, 64), (1, 32, 16, 32), (1, 64, 8, 16)])
    """

    def __init__(self, net: networks.Net, norms: Norms) -> None:
        super().__init__()
        self.name, self.mean, self.std, self.frozen = net.name, net.mean, net.std, norms == "frozen"
        if net.fixed_size:
            raise UsageError(f"{net.name} reads images of {net.fixed_size} x {net.fixed_size} pixels only. {ADVICE}")
        indices, self.strides, self.channels = _last_of_each_stride(net)
        self.layers = net.layers
        """Parameter name -> its layer as timm's optimisers count, 0 at the input."""
        self.net = net.net
        self._indices: list[int] = net.net.prune_intermediate_layers(indices, prune_norm=True)  # type: ignore[operator]
        self.net.requires_grad_(True)
        for norm in batch_norms(self):
            norm.requires_grad_(not self.frozen)
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked.zero_()
        self.train()

    def train(self, mode: bool = True) -> "Body":
        """As ever, but frozen norms stay in evaluation mode."""
        super().train(mode)
        for norm in batch_norms(self) if self.frozen else ():
            norm.eval()
        return self

    def forward(self, x: Tensor) -> list[Tensor]:
        """[B, C, H, W], normalised, both sides multiples of 32 -> of each stride [B, D, H / stride, W / stride]."""
        return _maps(self.net, x, self._indices)


def _maps(net: Any, x: Tensor, indices: Sequence[int] | None) -> list[Tensor]:
    found: list[Tensor] = net.forward_intermediates(x, indices=indices, output_fmt="NCHW", intermediates_only=True)
    return found


def _last_of_each_stride(net: networks.Net) -> tuple[list[int], tuple[int, ...], tuple[int, ...]]:
    """Places of the maps among timm's, their strides and their channels."""
    if not hasattr(net.net, "forward_intermediates"):
        raise UsageError(f"{net.name} has no forward_intermediates, by which timm's networks give their maps. {ADVICE}")
    side, place = 2 * CANVAS, next(net.parameters()).device
    with torch.no_grad():
        maps = _maps(net.net.eval(), torch.zeros(1, net.shape[0], side, side, device=place), None)
    last = {side // found.shape[-1]: (index, found.shape[1]) for index, found in enumerate(maps)}
    strides = tuple(sorted(last))
    if len(strides) < 2:
        raise UsageError(f"{net.name} has maps of stride {strides[0]} alone, and boxes and regions need several. {ADVICE}")
    return [last[stride][0] for stride in strides], strides, tuple(last[stride][1] for stride in strides)


def network(model: str | Card, weights: str = "none", size: int = 224) -> networks.Net:
    """The classifier whose body is wanted, with the mean and the deviation of the images that it was trained on.

    ``model``: the folder of a run, with its weights and the surgery of its tricks; the card of such a run, for the same network
    before its weights; or the name of a timm network, with ``weights`` "none", "hub", a .safetensors file or a run's folder.
    ``size``: pixels of a side of the images that a timm network is tried on. Raises UsageError as ``networks.build`` and
    ``Classifier.load`` do.
    """
    if isinstance(model, str) and not os.path.isfile(Path(model) / CARD):
        return networks.build(model, 1, size=size, weights="" if weights == "none" else weights)
    if isinstance(model, Card):
        net, card = untrained(model)[0], model
    else:
        run = Classifier.load(model)
        net, card = run.model, run.card
    net.mean, net.std = tuple(card.mean), tuple(card.std)
    return net


class Downstream(nn.Module):
    """A head on a body, as tricks see it."""

    body: Body
    classifier: nn.Module
    """All that is not the body."""

    @property
    def head_names(self) -> frozenset[str]:
        """Names of the parameters above the body, as in ``named_parameters()``."""
        return frozenset(name for name, _ in self.named_parameters()) - self._of_body().keys()

    @property
    def layers(self) -> dict[str, int]:
        """Parameter name -> its layer, 0 at the input; what is above the body has the largest."""
        found = self._of_body()
        top = 1 + max(found.values())
        return {name: found.get(name, top) for name, _ in self.named_parameters()}

    @property
    def depths(self) -> dict[str, int]:
        """The same as ``layers``."""
        return self.layers

    def _of_body(self) -> dict[str, int]:
        """Layers of the body's parameters by their names here."""
        names = {id(parameter): name for name, parameter in self.named_parameters()}
        return {names[id(p)]: self.body.layers[name] for name, p in self.body.named_parameters()}
