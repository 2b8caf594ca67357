"""What other networks say of images before training: of unlabelled ones, and of augmented versions that all runs share."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from trickbag import plugins
from trickbag.engine.judge import predictor
from trickbag.engine.loader import Loader
from trickbag.engine.scores import finite
from trickbag.ground import store
from trickbag.ground.cache import cache_dir, key_of, made_once
from trickbag.ground.events import Tell, silent
from trickbag.ground.state import digest
from trickbag.recipe import Recipe
from trickbag.trick import Batch, having


def logits(network: nn.Module, batches: Iterator[Batch], fabric: Fabric) -> Iterator[Tensor]:
    """The logits [B, K] of each batch, on the CPU."""
    predict = predictor(network, (), fabric.autocast)
    return (predict(batch.x).logits.cpu() for batch in batches)


def kept(
    network: nn.Module, loader: Loader, recipe: Recipe, shorter: int, fabric: Fabric, tell: Tell = silent
) -> tuple[Tensor, float]:
    """The network's logits [V, N, K] of every version of every training image, and the seconds that finding them has spared.

    ``shorter``: side at which decoded images are kept, in pixels. Safe against two makers.
    """
    shown: list[Any] = [recipe.size, recipe.fit, shorter, loader.view, loader.normal, recipe.precision]
    shown += [str(trick) for point in ("region", "window", "mirror", "augment") for trick in having(recipe.tricks, point)]
    shown += [plugin.digest for plugin in plugins.of(recipe.tricks).values()]
    asked = digest(network.state_dict()), loader.pixels.images.fingerprint, loader.versions, *shown
    took = 0.0

    def build(folder: Path) -> None:
        nonlocal took
        began = time.perf_counter()
        versions = (loader.fixed(version, recipe.size, recipe.batch_size) for version in range(loader.versions))
        names = loader.pixels.images.paths
        table = torch.stack([finite(torch.cat(list(logits(network, batches, fabric))), names) for batches in versions])
        with (folder / "logits.npy").open("wb") as file:
            np.save(file, table.numpy())
            file.flush()
            os.fsync(file.fileno())
        took = time.perf_counter() - began
        store.write(folder / "seconds.json", store.to_json(took))

    folder = made_once(cache_dir() / f"answers-{key_of(*asked)}", build, tell)
    spared = 0.0 if took else json.loads((folder / "seconds.json").read_text("utf-8"))
    # Read rather than mapped: where the file is cut short under a training, a map would end the process.
    return torch.from_numpy(np.load(folder / "logits.npy", allow_pickle=False)), spared
