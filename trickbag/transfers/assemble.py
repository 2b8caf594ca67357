"""From a recipe and a data set to a loop that is ready to train: that of classifiers, with another loss."""

from collections.abc import Callable
from typing import NoReturn, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from trickbag.engine.assemble import CACHE_MARGIN
from trickbag.engine.loader import Loader, Plan
from trickbag.engine.loop import Loop
from trickbag.engine.pixels import Data, pixels
from trickbag.ground.events import Tell, silent
from trickbag.ground.norms import batch_norms
from trickbag.ground.streams import key, seed_layers
from trickbag.scenes.table import Scenes
from trickbag.transfers import heads
from trickbag.transfers.body import Norms
from trickbag.transfers.detectors import Detector, Target
from trickbag.transfers.judge import SceneJudge
from trickbag.transfers.loading import NONE, SceneLoader
from trickbag.transfers.moving import canvas
from trickbag.transfers.recipe import TransferRecipe
from trickbag.transfers.segmenters import Segmenter
from trickbag.trick import Batch, Facts, having

SPLITS = ("train", "val", "test")


class TransferLoop(Loop):
    """The loop, in which a network says its loss itself."""

    def objective(self, t: float) -> Callable[[Batch], Tensor]:
        """The loss of a part of a step's batch, a scalar."""
        del t  # the same at all times

        def loss(part: Batch) -> Tensor:
            with self.fabric.autocast():
                if isinstance(self.model, Detector):
                    return self.model.loss(part.x, targets(part.y))
                return cast(Segmenter, self.model).loss(part.x, part.y)

        return loss


def targets(y: Tensor) -> list[Target]:
    """Boxes and labels [B, M, 5], of which some are none -> those of each image."""
    kept = [rows[rows[:, 4] != NONE] for rows in y]
    return [Target(rows[:, :4], rows[:, 4].long()) for rows in kept]


def build_model(recipe: TransferRecipe, scenes: Scenes, seed: int) -> Detector | Segmenter:
    """The network before the first step; every draw is keyed."""
    started = recipe.weights != "none" or recipe.from_run
    norms: Norms = recipe.norms if recipe.norms != "auto" else "frozen" if started else "trained"
    seed_layers(key(seed, "init"))
    size = canvas(scenes.sizes, recipe.size)
    return heads.build(recipe.task, recipe.head, recipe.model, len(scenes.classes), recipe.weights, size, norms)


def assemble(recipe: TransferRecipe, scenes: Scenes, seed: int, fabric: Fabric, tell: Tell = silent) -> Loop:
    """A loop before its first step."""
    tricks = tuple(trick.fresh() for trick in recipe.tricks)
    model = build_model(recipe, scenes, seed).to(fabric.device)
    data = Data(scenes.images, scenes.fingerprint, len(model.body.mean))
    table = pixels(data, round(CACHE_MARGIN * recipe.size), tell)
    loaders: dict[str, Loader] = {
        split: SceneLoader(
            scenes,
            table,
            np.flatnonzero(scenes.splits == split),
            tricks,
            recipe.size,
            canvas(scenes.sizes, recipe.size),
            (model.body.mean, model.body.std),
            seed,
            fabric.device,
            fabric.global_rank,
            fabric.world_size,
        )
        for split in SPLITS
    }
    train = loaders["train"]
    each = 2 if any(norm.training for norm in batch_norms(model)) else 1  # a batch of one has no statistics
    plan = Plan(train.labels, tricks, seed, recipe.epochs, recipe.batch_size, recipe.size, fabric.world_size, each)
    counts = torch.from_numpy(scenes.split("train").per_image().sum(0))
    facts = Facts(scenes.classes, counts, plan.steps(), recipe.batch_size, recipe.size, data.channels, seed, recipe.epochs)
    judge = SceneJudge(facts, loaders, plan, tricks, fabric, _no_network, _no_network)
    judge.see(model)
    for trick in having(tricks, "setup"):
        trick.setup(model, judge)
    return TransferLoop(recipe, model, tricks, plan, train, judge, fabric)


def _no_network(run: str) -> NoReturn:
    raise NotImplementedError(run)  # no trick that acts here asks for one
