"""Manifold mixup: mix pairs of images, and their labels, inside the network.

Formula: for each step one place of three, drawn uniformly: the input, and the ends of a quarter and of half of the network's
  layers behind the first, blocks counting as one (the paper's: the input and the ends of the first two of four stages). There
  h <- l h_i + (1 - l) h_j, and y <- l y_i + (1 - l) y_j, one l ~ Beta(alpha, alpha) per step, j a random permutation of the
  batch. Where something goes past a layer, as in a DenseNet, the next one is taken that all goes through.
Paper: Verma et al., "Manifold Mixup: Better Representations by Interpolating Hidden States", ICML 2019, arXiv:1806.05236.
Helps: long schedules, noisy labels, small data from scratch; smoother boundaries between classes than with mixup.
Hurts: short schedules; with distillation and multi_scale, which go by the images, since those are not the mixed ones.
Costs: nothing.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import accumulate
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Generator, Tensor

from trickbag.ground.errors import UsageError
from trickbag.ground.streams import beta
from trickbag.trick import Batch, Fit, Forward, Outputs, Stage, Trick

INPUT = ""


def mix(values: Tensor, partners: Tensor, share: float) -> Tensor:
    """Rows [B, …] -> share * rows + (1 - share) * rows[partners]; ``partners`` [B] int64.

    >>> mix(torch.tensor([[0.0], [4.0]]), torch.tensor([1, 0]), 0.75)
    tensor([[1.],
            [3.]])
    """
    return torch.lerp(values[partners], values, share)


def ends(depths: Mapping[str, int]) -> list[str]:
    """For each depth of parameters between the first and the last, the outermost module that ends there, from the input on.

    >>> ends({"stem.w": 0, "body.0.a.w": 1, "body.0.b.w": 1, "body.1.w": 2, "head.w": 3})
    ['body.0', 'body']
    """
    deepest: dict[str, int] = {}
    for name, depth in depths.items():
        for module in accumulate(name.split(".")[:-1], "{}.{}".format):
            deepest[module] = max(depth, deepest.get(module, depth))
    inwards = sorted(deepest, key=lambda module: module.count("."), reverse=True)
    outermost = {deepest[module]: module for module in inwards}
    return [outermost[depth] for depth in sorted(outermost)[1:-1]]


@contextmanager
def changed(model: Any, place: str, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Inside, what the module at ``place`` says is changed."""

    def hook(*told: Any) -> Tensor | None:
        return change(told[-1]) if isinstance(told[-1], Tensor) else None

    handle = model.get_submodule(place).register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@torch.no_grad()
def all_goes_through(model: Any, place: str, x: Tensor) -> bool:
    """Whether nothing goes past a module: exchanging two images [2, C, H, W] there exchanges their features."""
    plain = model(x).features
    with changed(model, place, lambda h: h.flip(0)):
        exchanged = model(x).features
    return bool((exchanged - plain.flip(0)).abs().max() < 0.01 * (plain - plain.flip(0)).abs().max())


class ManifoldMixup(Trick):
    """Mix every image of a batch with another of the batch, in the input or behind a layer."""

    stage = Stage.MIX
    slot = "mix"
    neutral = {"alpha": 0.0}
    alpha: Annotated[float, Field(ge=0)] = 2.0
    """Parameter of Beta(alpha, alpha), at least 0: 0 mixes nothing, 1 draws all shares alike."""

    def setup(self, model: Any, fit: Fit) -> None:
        """Choose the places. Raises UsageError where the network has none but the input."""
        self.places_ = [INPUT]
        if not self.alpha:
            return
        shape = 2, fit.facts.channels, fit.facts.size, fit.facts.size
        x = torch.arange(math.prod(shape)).sin().view(shape).to(next(model.parameters()).device)
        model.eval()
        modules = ends(model.depths)
        for parts in (4, 2):
            later = modules[max(0, math.ceil(len(modules) / parts) - 1) :]
            place = next((module for module in later if all_goes_through(model, module, x)), INPUT)
            if place == INPUT:
                raise UsageError("manifold_mixup: this network has no layer that everything passes through. Use mixup instead.")
            self.places_.append(place)

    def forward(self, forward: Forward, model: Any, t: float, rng: Generator) -> Forward:
        """One place and one share for the step; partners within each of its parts."""
        if not self.alpha:
            return forward
        share = beta(rng, self.alpha, self.alpha)
        place = self.places_[int(torch.randint(len(self.places_), (), generator=rng))]

        def mixed(batch: Batch) -> tuple[Batch, Outputs]:
            partners = torch.randperm(len(batch.x), generator=rng).to(batch.x.device, non_blocking=True)
            batch = batch._replace(y=mix(batch.y, partners, share))
            if place == INPUT:
                return forward(batch._replace(x=mix(batch.x, partners, share)))
            with changed(model, place, lambda h: mix(h, partners, share)):
                return forward(batch)

        return mixed
