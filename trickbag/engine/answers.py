"""What networks say of images before training: of unlabelled and of labelled ones, and of versions that all runs share."""

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from trickbag import plugins
from trickbag.data.images import Images
from trickbag.engine.crossfit import out_of_fold
from trickbag.engine.judge import at_once, collect, predictor
from trickbag.engine.loader import Loader
from trickbag.engine.scores import finite
from trickbag.ground import store
from trickbag.ground.cache import cache_dir, key_of, made_once
from trickbag.ground.events import Tell, silent
from trickbag.ground.state import digest
from trickbag.recipe import Recipe
from trickbag.trick import Batch, having


class Asked:
    """Networks asked before there are training images; implements ``trick.Answers``.

    Arguments: what loads the judged views of a table's images, the unlabelled images, the run's own network, where others are
    found, the images of a training step.
    """

    def __init__(
        self,
        loader: Callable[[Images], Loader],
        unlabelled: Images,
        model: nn.Module,
        network: Callable[[str], nn.Module],
        fabric: Fabric,
        batch_size: int,
        tell: Tell,
    ) -> None:
        self.loader, self.unlabelled, self.model, self.network = loader, unlabelled, model, network
        self.fabric, self.batch_size, self.tell = fabric, batch_size, tell

    def __call__(self, run: str, images: Images | None = None) -> Tensor:
        """What another run's network says of images, None: of the unlabelled ones; probabilities [M, K]."""
        asked = self.unlabelled if images is None else images
        batches = self._judged(asked, self.batch_size)
        return finite(torch.cat(list(logits(self.network(run), batches, self.fabric))), asked.paths).softmax(1)

    def out_of_fold(self, images: Images) -> Tensor:
        """What classifiers on this run's network say of images that they were not fitted to: probabilities [N, K]."""
        batches = self._judged(images, at_once(self.fabric.device, self.batch_size))
        features, _ = collect(predictor(self.model, (), self.fabric.autocast), batches)
        return torch.from_numpy(out_of_fold(features.double().numpy(), images, self.tell))

    def _judged(self, images: Images, batch_size: int) -> Iterator[Batch]:
        return self.loader(images).judged(torch.arange(len(images)), batch_size)


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
