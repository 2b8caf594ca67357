"""Features of images by a network, and what a classifier on them says of images that it was not fitted to."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trickbag.data.audit import Audit, LabelError
from trickbag.data.images import Images
from trickbag.engine.assemble import assemble, kept_pixels
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
from trickbag.studies.folds import partitioned
from trickbag.tricks.fit_head import FitHead, regression

FOLDS = 5


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


def out_of_fold(features: Floats, images: Images, tell: Tell) -> Floats:
    """Probabilities [N, K] by logistic regressions, each fitted to images of other groups than those that it judges.

    There are five folds, stratified by class. The penalty is that with the smallest NLL on the first fold.
    Raises UsageError where no class has as many images as there are folds, or all have fewer groups.
    """
    labels, classes = images.labels, len(images.classes)
    if images.counts().max(initial=0) < FOLDS or len(np.unique(images.groups)) < FOLDS:
        raise UsageError(
            f"No class has {FOLDS} images, or all are of few groups: too few to tell which labels are wrong. Add images."
        )
    x, y = torch.from_numpy(features).float(), nn.functional.one_hot(torch.from_numpy(labels), classes).float()
    x = (x - x.mean(0)) / x.var(0, correction=0).mean().sqrt().clamp_min(torch.finfo(x.dtype).tiny)
    p, l2 = np.zeros((len(labels), classes)), 0.0
    for number, judged in enumerate(partitioned(images, np.arange(len(images)), FOLDS, 0), 1):
        learned = np.setdiff1d(np.arange(len(images)), judged)
        l2 = l2 or penalty((x[learned], y[learned]), (x[judged], y[judged]))
        found = regression(x[learned], y[learned], l2, x.new_zeros(x.shape[1] + 1, classes))
        p[judged] = (x[judged] @ found[:-1] + found[-1]).double().softmax(1).numpy()
        tell(Doing("judging labels", number, FOLDS))
    return p


def penalty(learned: tuple[Tensor, Tensor], judged: tuple[Tensor, Tensor]) -> float:
    """Which of the penalties of ``fit_head`` suits others best than those that are learned from, the strongest tried first."""
    best, lowest, found = 0.0, float("inf"), learned[0].new_zeros(learned[0].shape[1] + 1, learned[1].shape[1])
    for l2 in sorted(FitHead().l2, reverse=True):
        found = regression(*learned, l2, found)
        nll = float(nn.functional.cross_entropy(judged[0] @ found[:-1] + found[-1], judged[1]))
        if nll >= lowest:
            break
        best, lowest = l2, nll
    return best


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
