"""From a recipe and a data set to a loop that is ready to train."""

import os
from collections.abc import Callable, Sequence
from copy import copy
from pathlib import Path
from typing import cast

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from trickbag.data.images import Images
from trickbag.engine.answers import Asked, kept
from trickbag.engine.changed import changed, told
from trickbag.engine.crowd import Crowd
from trickbag.engine.cutting import resident
from trickbag.engine.judge import Judge, judged_view
from trickbag.engine.loader import Loader, Plan
from trickbag.engine.loop import Loop
from trickbag.engine.pixels import Data, Pixels, Rows
from trickbag.ground.errors import UsageError
from trickbag.ground.events import Note, Tell, silent
from trickbag.ground.streams import generator, key, seed_layers
from trickbag.models import networks
from trickbag.models.card import CARD, Card
from trickbag.recipe import Recipe
from trickbag.trick import Answers, Facts, Stage, Trick, View, having, judged_weights, watchers
from trickbag.tricks import parse

Normal = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of each channel, 0 to 1."""
CACHE_MARGIN = 1.4
"""Pixels are kept at this times the training size: a crop of the mean area of He et al. (54 %) then needs no enlarging."""


def plain_view(recipe: Recipe) -> View:
    """How judged images are cut where no trick has a say."""
    return View(round(recipe.size / recipe.crop_share) if recipe.fit == "crop" else recipe.size, recipe.size)


def kept_pixels(recipe: Recipe) -> int:
    """The shorter side at which decoded images are kept."""
    shown = judged_view(plain_view(recipe), [trick.fresh() for trick in recipe.tricks])
    return max(shown.resize, round(CACHE_MARGIN * recipe.size))


def normal(recipe: Recipe, model: networks.Net, channels: int) -> Normal:
    """Mean and standard deviation of each channel: the recipe's, else those that the weights were trained with."""
    if recipe.mean and len(recipe.mean) not in (1, 3, channels):
        raise UsageError(f"mean has {len(recipe.mean)} values and the images have {channels} channels. Give one per channel.")
    return networks.per_channel(recipe.mean or model.mean, channels), networks.per_channel(recipe.std or model.std, channels)


def build_model(recipe: Recipe, tricks: Sequence[Trick], classes: int, channels: int, seed: int, weights: str) -> networks.Net:
    """The network with the tricks' surgery; every draw is keyed.

    The weights of a run go in after the surgery that the run had too. Raises UsageError where it had some that is lacking here.
    """
    start = "" if weights == "none" else weights
    first = surgery(Path(start), tricks) if start else []
    seed_layers(key(seed, "init"))
    model = networks.build(recipe.model, classes, channels, recipe.size, "" if first else start)
    for trick in [*first, *(t for t in having(tricks, "model") if t not in first)]:
        seed_layers(key(seed, trick.name()))
        model = cast(networks.Net, trick.model(model))
        if first and trick is first[-1]:
            networks.restore(model, start)
    for module in model.modules():
        if isinstance(module, _BatchNorm) and module.num_batches_tracked is not None:
            module.num_batches_tracked.zero_()
    return model


def surgery(run: Path, tricks: Sequence[Trick]) -> list[Trick]:
    """Those of the tricks with which the network of a run was rebuilt; none where ``run`` is no run's folder."""
    known = [parse(text) for text in Card.load(run).tricks] if os.path.isfile(run / CARD) else []
    rebuilt = [trick for trick in known if trick.rebuilds]
    for trick in rebuilt:
        if trick not in tricks:
            raise UsageError(f"{run} was trained with {trick}, without which its weights are of no use. Add --with '{trick}'.")
    return [trick for trick in tricks if trick in rebuilt]


def training(images: Images, tricks: Sequence[Trick], seed: int, answers: Answers, tell: Tell) -> Images:
    """The training images after the tricks had their say, each of whom is told of by what it changed."""
    train, unlabelled = images.split("train"), images.split("unlabelled")
    for trick in having(tricks, "data"):
        before, train = train, trick.data(train, unlabelled, answers, generator(seed, trick.name()))
        added = len(unlabelled) if trick.folder else 0
        tell(Note(f"{trick}: {told(len(before), changed(before, train), added)}"))
    return train


def load(
    recipe: Recipe,
    data: Data,
    pixels: Pixels,
    tricks: Sequence[Trick],
    normal: Normal,
    seed: int,
    fabric: Fabric,
    network: Callable[[str], nn.Module],
    model: nn.Module,
    tell: Tell,
) -> dict[str, Loader]:
    """The loader of each split, and of what may stand beside training images where a trick wants any."""
    images, view = data.images, plain_view(recipe)
    held = None if having(tricks, "region") else resident(pixels, fabric.device)

    place = {path: row for row, path in enumerate(images.paths)}

    def loader(own: Images, judged: bool = True) -> Loader:
        rows = np.array([place[path] for path in own.paths], np.int64)
        return Loader(
            Rows(own, pixels, rows, regions(own, tricks, judged)),
            torch.from_numpy(own.labels),
            len(own.classes),
            tricks,
            view,
            normal,
            seed,
            fabric.device,
            bool(recipe.channels_last),
            fabric.global_rank,
            fabric.world_size,
            Rows(own, pixels, rows, regions(own, tricks, judged=True)),
            held,
        )

    asked = Asked(loader, images.split("unlabelled"), model, network, fabric, recipe.batch_size, tell)
    loaders = {name: loader(images.split(name)) for name in ("val", "test", "unlabelled")}
    train = training(images, tricks, seed, asked, tell)
    loaders["train"] = loader(train, judged=False)
    if having(tricks, "beside"):
        shown = [place[path] for path in train.paths]
        loaders["beside"] = loader(images.take(np.union1d(shown, np.flatnonzero(images.splits == "unlabelled"))), judged=False)
    return loaders


def regions(images: Images, tricks: Sequence[Trick], judged: bool) -> Tensor | None:
    """The part of each image that is seen [N, 4], in shares of its sides; None where all are seen whole."""
    asked = (trick.region(torch.from_numpy(images.relative_boxes()), judged) for trick in having(tricks, "region"))
    return next(asked, None)


def assemble(
    recipe: Recipe,
    data: Data,
    pixels: Pixels,
    seed: int,
    fabric: Fabric,
    network: Callable[[str, Normal], nn.Module],
    follow: Sequence[Recipe] = (),
    tell: Tell = silent,
) -> Loop:
    """A loop before its first step; ``network`` finds or trains the runs that tricks ask for.

    The watchers of the recipes in ``follow``, which differ from this one in nothing that shapes the training, look on too.
    """
    check_compile(recipe)
    check_fixed(recipe)
    check_fit(recipe)
    tricks = tuple(trick.fresh() for trick in recipe.tricks)
    watching = {str(trick): trick.fresh() for other in follow for trick in watchers(other.tricks) if trick not in tricks}
    classes = data.images.classes
    model = build_model(recipe, tricks, len(classes), data.channels, seed, recipe.weights)
    model = model.to(fabric.device).to(memory_format=torch.channels_last if recipe.channels_last else torch.contiguous_format)
    mean_std = normal(recipe, model, data.channels)

    def named(run: str) -> nn.Module:
        return network(run, mean_std)

    loaders = load(recipe, data, pixels, tricks, mean_std, seed, fabric, named, model, tell)
    train = loaders["train"]
    each = 2 if any(isinstance(module, _BatchNorm) for module in model.modules()) else 1  # a batch of one has no statistics
    plan = Plan(train.labels, tricks, seed, recipe.epochs, recipe.batch_size, recipe.size, fabric.world_size, each)
    counts = torch.bincount(train.labels, minlength=len(classes))
    beside = len(loaders["beside"].labels) if "beside" in loaders else 0
    facts = Facts(classes, counts, plan.steps(), recipe.batch_size, recipe.size, data.channels, seed, recipe.epochs, beside)
    shorter = kept_pixels(recipe)
    judge = Judge(
        facts, loaders, plan, tricks, fabric, named, lambda run: kept(named(run), train, recipe, shorter, fabric, tell), tell
    )
    judge.see(model)
    for trick in having([*tricks, *watching.values()], "setup"):
        trick.setup(model, judge)
    check_sizes(model, tricks, recipe, data.channels)
    weights = frozenset(judged_weights(other.tricks) for other in follow)
    looking = tuple(watching.values())
    crowded = copy(train)  # what estimates norms needs nothing beside it
    crowded.beside = next((Crowd(loaders["beside"], trick) for trick in having(tricks, "beside") if trick.beside().each), None)
    return Loop(recipe, model, tricks, plan, crowded, judge, fabric, looking, weights, recipe.compile is True)


def check_compile(recipe: Recipe) -> None:
    """Raise UsageError where a trick reaches into a forward pass that is compiled."""
    for trick in having(recipe.tricks, "forward"):
        if recipe.compile is True:
            raise UsageError(f"{trick} reaches into the network's layers, which compile=true closes. Choose one of the two.")


def check_fixed(recipe: Recipe) -> None:
    """Raise UsageError where a trick mixes images whose versions another has fixed."""
    for trick in having(recipe.tricks, "versions"):
        for other in recipe.tricks:
            if not trick.versions():
                continue
            if other.stage is Stage.MIX:
                raise UsageError(
                    f"{trick} has answers to fixed images, which {other} mixes. Remove one, or write cached=False."
                )
            if other.core is not other and {"window", "mirror", "augment"} & set(other.plugs()):
                raise UsageError(
                    f"{trick} has answers to fixed images, which {other} does not show alike throughout training. Remove one, "
                    "or write cached=False."
                )


def check_fit(recipe: Recipe) -> None:
    """Raise UsageError where a trick shows parts of images that are to be shown whole."""
    for trick in having(recipe.tricks, "region"):
        if recipe.fit != "crop":
            raise UsageError(f'{trick} shows parts of images and fit="{recipe.fit}" all of them. Remove one of the two.')


def check_sizes(model: nn.Module, tricks: Sequence[Trick], recipe: Recipe, channels: int) -> None:
    """Raise UsageError where a trick shows the network images of a size that it cannot read."""
    for trick in having(tricks, "size"):
        least = min((trick.size(step / 100) for step in range(100) if trick.acts(step / 100)), default=recipe.size)
        place = next(model.parameters()).device
        try:
            with torch.no_grad():
                model.eval()(torch.zeros(1, channels, least, least, device=place))
        except RuntimeError as error:
            raise UsageError(
                f"{trick} shows {recipe.model} images of {least} pixels, which are too small for it ({error})."
            ) from None
