"""A small laboratory: a data set in memory, tiny networks, whole trainings in a fraction of a second."""

import io
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from trickbag.data.images import Images
from trickbag.engine.assemble import assemble, build_model
from trickbag.engine.loop import Loop, Step
from trickbag.engine.pixels import Data
from trickbag.engine.precision import fabric_for
from trickbag.engine.sets import sets_of
from trickbag.ground.errors import UsageError
from trickbag.ground.state import pack
from trickbag.models.networks import build
from trickbag.recipe import Recipe
from trickbag.runs.outcome import finish
from trickbag.trick import Trick, having, ordered
from trickbag.tricks import find, parse

CLASSES = ("a", "b", "c")
COUNTS = {"train": (20, 12, 9), "val": (4, 4, 3), "test": (5, 4, 4), "unlabelled": (3, 3, 3)}
FEW = {"train": (7, 1), "val": (3, 0), "test": (3, 0), "unlabelled": (2, 2)}
"""Two classes, of which one has a single training image."""
SIZE = 16
MISLABELLED = "train/a/19.png"
"""It shows the class b."""
NETWORKS = (
    ("cifar_resnet8", SIZE),
    ("test_resnet", 3 * SIZE),
    ("resnet18", 3 * SIZE),
    ("test_vit", 3 * SIZE),
    ("deit_tiny_distilled_patch16_224", 2 * SIZE),
)
"""Networks and pixels of a side, the smallest first."""
fabric_of = cache(fabric_for)
"""Each new Fabric reads the metadata of every package that is installed."""


def example(name: str) -> Trick:
    """The trick at its defaults, or as its example spells it."""
    return parse(find(name).example or name)


@cache
def dataset(channels: int = 3, few: bool = False) -> tuple[Data, list[Tensor]]:
    """Images of three textures that a network can tell apart, 20 x 24 pixels, and their table; two of three have a box, and
    one has a wrong label. ``few``: of two classes, one of which has a single image."""
    rng, paths, labels, splits, pixels = np.random.default_rng(0), [], [], [], []
    for split, counts in (FEW if few else COUNTS).items():
        for label, count in enumerate(counts):
            for place in range(count):
                y, x = np.mgrid[:20, :24]
                paths.append(f"{split}/{CLASSES[label]}/{place:02d}.png")
                shown = 1 if paths[-1] == MISLABELLED else label
                wave = np.sin((x if shown == 0 else y if shown == 1 else x + y) * 0.9 + rng.uniform(0, 6))
                image = 128 + 70 * wave + rng.normal(0, 25, (channels, 20, 24))
                labels.append(label)
                splits.append(split)
                pixels.append(torch.from_numpy(image.clip(0, 255).astype(np.uint8)))
    number = np.arange(len(paths))
    boxes = np.where(number[:, None] % 3 > 0, np.stack([number % 7, number % 4, 16 + number % 8, 14 + number % 6], 1), np.nan)
    sizes = np.tile((20, 24), (len(paths), 1))
    table = np.array(labels), np.array(splits), number, CLASSES[: len(counts)]
    images = Images(Path(), tuple(paths), *table, boxes=boxes, sizes=sizes)
    return Data(images, "lab", channels), pixels


def network(tricks: Sequence[Trick]) -> dict[str, Any]:
    """The smallest network that takes the tricks' surgery, and its size; a refusal by all is for the test to see."""
    model, size = smallest(tuple(having(tricks, "model")))
    return {"model": model, "size": size}


@cache
def smallest(surgery: tuple[Trick, ...]) -> tuple[str, int]:
    """The smallest network that takes this surgery, and its size."""
    for model, size in NETWORKS if surgery else ():
        with suppress(UsageError):
            net: Any = build(model, len(CLASSES), size=size)
            for trick in ordered(surgery):
                net = trick.model(net)
            return model, size
    return NETWORKS[0]


def with_needed(tricks: Sequence[Trick]) -> list[Trick]:
    """The tricks, and those without which one of them has nothing to act on."""
    names = {trick.name() for trick in tricks}
    needed = {trick.needs: parse(trick.needs) for trick in tricks if trick.needs}
    return [*tricks, *(trick for trick in needed.values() if trick.name() not in names)]


def recipe(*tricks: Any, **fields: Any) -> Recipe:
    """A recipe of a few steps; tricks by spelling or as they are, with those that they act on beside them."""
    chosen = with_needed([trick if isinstance(trick, Trick) else parse(trick) for trick in tricks])
    small = {**network(chosen), "crop_share": 1.0, "epochs": 2, "batch_size": 16, "lr": 0.05}
    numbers = {"precision": "fp32", "channels_last": False, "weight_decay": 0.01, "mean": (0.5,), "std": (0.25,)}
    return Recipe(**{**small, **numbers, **fields}, tricks=chosen)


def loop(made: Recipe, seed: int = 0, channels: int = 3, fabric: Fabric | None = None, few: bool = False) -> Loop:
    """The loop of a recipe on the laboratory's data set. A teacher is an untrained network of another seed."""
    data, pixels = dataset(channels, few)
    fabric = fabric or fabric_of(made.precision)

    @cache
    def untrained() -> torch.nn.Module:
        surgery, classes = [trick.fresh() for trick in having(made.tricks, "model")], len(data.images.classes)
        return build_model(made, surgery, classes, channels, 99, "none").eval().requires_grad_(False).to(fabric.device)

    return assemble(made, data, pixels, seed, fabric, lambda *_: untrained())


@dataclass
class Trained:
    """What came out of a training."""

    loop: Loop
    live: dict[str, Tensor]
    """The weights at the end of training."""
    logits: Tensor
    """Of the test split, with all tricks."""
    losses: list[float]
    sets: Tensor | None
    """Of the test split, where a trick makes sets."""

    def same(self, other: "Trained") -> bool:
        """Whether weights and predictions are equal, bit for bit."""
        return same(self.live, other.live) and self.answers(other)

    def answers(self, other: "Trained") -> bool:
        """Whether predictions are equal, bit for bit."""
        alike = self.sets is other.sets is None or (
            self.sets is not None and other.sets is not None and torch.equal(self.sets, other.sets)
        )
        return alike and torch.equal(self.logits, other.logits)


def follow(made: Loop) -> Trained:
    """Train a loop to its end, finish it and judge the test split."""
    if not made.best:
        list(made.prepare())
    losses = [float(event.loss) for event in made.train() if isinstance(event, Step)]
    live = {name: value.clone() for name, value in made.model.state_dict().items()}
    model, tricks = finish(made, made.recipe)
    logits = made.judge.outputs(model, "test", tricks)[1]
    return Trained(made, live, logits, losses, sets_of(tricks, logits))


def train(*tricks: Any, seed: int = 0, **fields: Any) -> Trained:
    """Train a small recipe with these tricks."""
    return follow(loop(recipe(*tricks, **fields), seed))


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Whether two states hold equal tensors under equal names."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def fingerprint(state: Any) -> tuple[str, list[bytes]]:
    """A nested state as comparable values, bit for bit."""
    tensors, values = pack(state)

    def raw(tensor: Tensor) -> bytes:
        buffer = io.BytesIO()
        np.save(buffer, tensor.numpy(), allow_pickle=False)
        return buffer.getvalue()

    return repr(values), [raw(tensor) for tensor in tensors.values()]
