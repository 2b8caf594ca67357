"""What a trick does, to be drawn: the curve of a schedule, a photo after an augmentation."""

from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor

from trickbag.engine.cutting import cut
from trickbag.engine.loader import Loader
from trickbag.ground.errors import UsageError
from trickbag.report import figures
from trickbag.trick import Facts, Trick, View
from trickbag.tricks import bag, parse

STEPS = 1000
BATCH = 256
AUGMENTING = frozenset({"window", "mirror", "augment"})
SHOWN, SIDE = 7, 160
"""Pictures of an augmentation beside the photo itself, and their side in pixels."""


def schedule(trick: Trick) -> list[float]:
    """The factor on the learning rate [STEPS + 1] at evenly spread shares of training, 0 to 1.

    >>> from trickbag.tricks import parse
    >>> [round(schedule(parse("cosine"))[step], 2) for step in (0, 500, 1000)]
    [1.0, 0.5, 0.0]
    """
    fresh = started(trick)
    return [float(fresh.lr(step / STEPS)) if fresh.acts(step / STEPS) else 1.0 for step in range(STEPS + 1)]


def augmented(trick: Trick, image: Tensor, count: int, size: int) -> list[Tensor]:
    """An image uint8 [C, H, W], ``count`` times as the trick shows it in training, each [C, size, size]."""
    shown = image if "window" in trick.plugs() else cut(image, View(size, size))
    pixels, rows, plain = cast(Any, [shown]), torch.zeros(count, dtype=torch.int64), ((0.0,), (1.0,))
    loader = Loader(pixels, rows[:1], 1, [started(trick)], View(size, size), plain, 0, torch.device("cpu"), False)
    return list(loader.augmented(rows, torch.arange(count), 0, size, trick.span[0])[-1])


def started(trick: Trick) -> Trick:
    """A fresh copy that knows a run of STEPS steps, of a small network."""
    from trickbag.models.networks import build

    fresh = trick.fresh()
    if "setup" in trick.plugs():
        facts, rows = Facts(("a", "b"), torch.tensor([5, 5]), STEPS, BATCH, 224, 3, 0), torch.arange(10)
        fit = SimpleNamespace(facts=facts, groups=lambda: (rows, rows % 2))
        fresh.setup(build("cifar_resnet8", len(facts.classes), size=SIDE), cast(Any, fit))
    return fresh


def photo() -> Tensor:
    """A photo that scikit-learn brings, uint8 [3, 427, 427]: a flower, by dany13 (CC BY 2.0)."""
    from sklearn.datasets import load_sample_image

    pixels = torch.from_numpy(load_sample_image("flower.jpg").copy())
    return pixels.permute(2, 0, 1)[:, :, 170:597]


def picture(spec: str) -> bytes:
    """A PNG of what a trick does. Raises UsageError for one that is neither a schedule nor an augmentation."""
    trick = parse(bag()[spec].example or spec if spec in bag() else spec)
    if "lr" in trick.plugs():
        return figures.schedule(schedule(trick), str(trick))
    if AUGMENTING & set(trick.plugs()):
        image = photo()
        return figures.gallery([cut(image, View(SIDE, SIDE)), *augmented(trick, image, SHOWN, SIDE)], str(trick))
    raise UsageError(f"{spec} is neither a schedule nor an augmentation: there is nothing to draw.")
