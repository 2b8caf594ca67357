"""Formulas in float64, and an image, for tests of several rooms."""

from collections.abc import Sequence

import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from trickbag.ground.streams import generator


def norm_statistics(model: nn.Module, batches: Sequence[Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Batch norm -> means over images of the means and unbiased variances of its batches, all else in evaluation mode."""
    total = sum(map(len, batches))
    norms = {name: module for name, module in model.eval().named_modules() if isinstance(module, _BatchNorm)}
    sums = {name: torch.zeros(2, norm.num_features, dtype=torch.float64) for name, norm in norms.items()}

    def adds(name: str) -> object:
        def add(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            x = args[0].double().transpose(0, 1).flatten(1)
            sums[name] += torch.stack([x.mean(1), x.var(1)]) * (len(args[0]) / total)

        return add

    for name, norm in norms.items():
        norm.train().register_forward_pre_hook(adds(name))
    with torch.no_grad():
        for x in batches:
            model(x)
    return {name: (found[0], found[1]) for name, found in sums.items()}


def joined(share: float, df: float, other: float, most: float) -> tuple[float, float]:
    """A share taken together with another, which counts the less, the rarer chance would make the first so much larger."""
    counted = most * min(1.0, 2 * stats.f.sf((1 + share) / (1 + max(other, 0.0)), df, most))
    return (df * share + counted * other) / (df + counted), df + counted


def satterthwaite(images: float, within: float, seeds: int, groups: int, share: float, df: float) -> tuple[float, float]:
    """The standard error of a mean and its degrees of freedom: two variances, of which one is known by the groups.

    ``within`` is that of a seed's mean, without what images do alike with every seed; seeds add a share of it, of which a tenth
    is common to all.
    """
    whole, alike = images + max(share, 0.0) * within * (1 / seeds + 0.1), max(images - within / seeds, 0.0)
    return whole**0.5, whole**2 / (alike**2 / (groups - 1) + (whole - alike) ** 2 / df)


def photo(channels: int = 3, height: int = 30, width: int = 40) -> Tensor:
    """A smooth uint8 image with some noise, all levels in use."""
    rng = generator(7, "photo", channels, height, width)
    coarse = 255 * torch.rand(1, channels, 5, 5, generator=rng)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")[0]
    return (smooth + 20 * torch.randn(channels, height, width, generator=rng)).clamp(0, 255).to(torch.uint8)
