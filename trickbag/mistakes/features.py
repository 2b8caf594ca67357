"""Features of images by a network, and the labels that classifiers on them do not believe."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from trickbag.data.audit import Audit, LabelError
from trickbag.data.images import Images
from trickbag.engine.assemble import assemble, kept_pixels
from trickbag.engine.crossfit import FOLDS, out_of_fold
from trickbag.engine.judge import predictor
from trickbag.engine.pixels import Data, Files, ahead
from trickbag.engine.precision import fabric_for
from trickbag.ground.errors import UsageError
from trickbag.ground.events import Doing, Note, Tell
from trickbag.recipe import Recipe
from trickbag.runs import auto, seen
from trickbag.runs.classifier import BATCH, Classifier
from trickbag.runs.request import Request, edited, started
from trickbag.statistics.label_errors import quality, ranked
from trickbag.statistics.variance import Floats, Ints
from trickbag.studies.design import untrained


def of_run(folder: Path, images: Images, tell: Tell) -> Floats:
    """Features [N, D] by the network of a run."""
    found, parts = Classifier.load(folder), list[torch.Tensor]()
    files = Files(images, found.card.channels, found.card.kept, found.fit)
    found = found.adapted(len(images), lambda order: ahead(files.__getitem__, order, 2, BATCH))
    for outputs in found.outputs(ahead(files.__getitem__, range(len(images)), 2, BATCH)):
        parts.append(outputs.features.cpu())
        tell(Doing("computing features", sum(map(len, parts)), len(images)))
    return np.asarray(torch.cat(parts).double())


def of_start(recipe: Recipe, images: Images, channels: int, tell: Tell) -> Floats:
    """Features [N, D] by the network that a recipe begins with. Raises UsageError where its weights cannot be had."""
    plain: dict[str, Any] = {"tricks": (), "precision": "fp32", "channels_last": True, "compile": False}
    probe = untrained(recipe, "linear-probe").edit(**plain)
    data = Data(replace(images, splits=np.full(len(images), "train")), "", channels)
    files = Files(data.images, channels, kept_pixels(probe), probe.fit)
    loop = assemble(probe, data, files, 0, fabric_for(probe.precision), lambda *_: nn.Identity())
    predict, parts = predictor(loop.model, (), loop.fabric.autocast), list[torch.Tensor]()
    for batch in loop.judge.judged("train"):
        parts.append(predict(batch.x).features.cpu())
        tell(Doing("computing features", sum(map(len, parts)), len(images)))
    return np.asarray(torch.cat(parts).double())


def errors(paths: list[str], classes: tuple[str, ...], labels: Ints, p: Floats) -> tuple[LabelError, ...]:
    """The probable label errors among images, the worst first."""
    fits, best = quality(labels, p), p.argmax(1)
    return tuple(
        LabelError(paths[row], classes[labels[row]], classes[best[row]], float(p[row, best[row]]), float(fits[row]))
        for row in ranked(labels, p).tolist()
    )


def checked(audit: Audit, data: str | Path, model: str | None, weights: str | Path | None, tell: Tell) -> Audit:
    """An audit with the probable label errors by the features of a network that was trained on other images.

    The network is the one that the recipe auto would begin with. Raises UsageError where there are no weights for it, or too
    few images.
    """
    recipe, chosen = started(*edited("auto", model, weights), auto=True, tell=tell)
    table = Data(audit.images, "", audit.sizes.get("channels", 3))
    wanted = Request(table, audit, recipe, True, chosen, 0.0, 0, str(data), time.monotonic())
    recipe, reasons = auto.with_weights(wanted)
    if recipe.weights == "none":
        why = reasons[0].partition(". ")[0] if reasons else "--weights none leaves the network untrained"
        raise UsageError(f"{why}. Labels are judged by a network that was trained on other photos: give --weights FILE.")
    recipe = recipe.edit(fit="pad") if auto.padded(wanted) else recipe
    tell(Note(f"labels are judged by a classifier on features of {recipe.model} at {recipe.size} pixels, {FOLDS}-fold"))
    images = audit.images
    if trained := int((seen.together(list(seen.runs(recipe))).splits(images) == "train").sum()):
        tell(Note(f"{recipe.weights} was trained on {trained:,} of these images: it may have learned their wrong labels"))
    p = out_of_fold(of_start(recipe, images, table.channels, tell), images, tell)
    return replace(audit, label_errors=errors(list(images.paths), images.classes, images.labels, p))
