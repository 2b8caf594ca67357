"""Decisions at the start of a run: what the recipe leaves open, and how a budget becomes a number of epochs.

They are taken once, with a reason for each, and stored with the run; a resumed run reads them there.
"""

import math
import os
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trickbag import tricks
from trickbag.data.findings import CUT
from trickbag.data.images import Images
from trickbag.data.unlabelled import read_unlabelled
from trickbag.engine.loader import Plan
from trickbag.engine.pixels import Files
from trickbag.engine.speed import Timing, compiled, fastest
from trickbag.ground.errors import UsageError
from trickbag.ground.events import Note, Tell
from trickbag.ground.norms import batch_norms
from trickbag.ground.text import counted, duration
from trickbag.models import networks
from trickbag.recipe import Recipe
from trickbag.runs.request import Request
from trickbag.trick import conflict, having

SAFETY = 0.88
"""Share of the budget that is planned for: a machine has other things to do at times."""
TRIAL_SECONDS = 20.0
"""The most that is spent on timing before a training."""
TRIAL_SHARE = 0.05
"""The most of a budget that is spent on timing."""
FIT, FIT_EACH = 0.5, 0.0003
"""Seconds of fitting a classifier to features, and of each training image among them (``python -m benchmarks.fitting``)."""
SMALL_IMAGES = 64
"""Shorter side in pixels up to which networks for small images are taken."""
FEW_IMAGES = 8
"""Training images per class below which only the classifier is trained."""
LEAST_EPOCHS = 6
"""Of fine-tuning: larger images are chosen only where the budget holds as many."""
FEW_EPOCHS = 2
"""Of fine-tuning: with a budget for fewer, fitting the classifier alone to larger images is the better use of it."""
SOME_IMAGES = 60
"""Training images per class below which fine-tuning augments strongly and takes longer."""
NORM_IMAGES = 400
"""Training images per class below which fine-tuning leaves batch norms as they are; more were not measured."""
SCRATCH_STEPS = 1_000
"""From scratch."""
SIZES = (224, 192, 160)
"""Of images in fine-tuning."""


@dataclass(frozen=True)
class Decision:
    """A recipe with nothing left open, why it is so, and what it will take."""

    recipe: Recipe
    reasons: tuple[str, ...]
    timing: Timing
    seconds: float
    """Expected for training and scoring."""
    short: str = ""
    """The reason where the budget leaves an epoch or none of more; else empty."""


def decide(wanted: Request, tell: Tell) -> Decision:
    """Turn what was asked for into a recipe with nothing left open."""
    recipe, reasons = choose(wanted) if wanted.auto else (wanted.recipe, [])
    short = ""
    if recipe.precision == "fp16" and not torch.cuda.is_available():
        tell(Note("fp16 is very slow on a CPU. To avoid it: --set precision=bf16"))
    tell(Note(f"timing a few steps of {recipe.model} at {recipe.size} pixels"))
    until = time.monotonic() + min(TRIAL_SECONDS, TRIAL_SHARE * wanted.budget or TRIAL_SECONDS)
    recipe, timing, reason = fastest(recipe, wanted.data, wanted.seed, until)
    reasons.append(reason)
    if wanted.auto and wanted.budget and "size" not in wanted.chosen and recipe.weights != "none":
        recipe, timing, reason = sized(recipe, wanted, timing, until)
        reasons.append(reason)
    if wanted.budget and "epochs" not in wanted.chosen and recipe.epochs:
        whole = recipe.epochs
        recipe, reason = shortened(recipe, wanted, timing)
        reasons.append(reason)
        short = reason if recipe.epochs <= 1 < whole else ""
    if recipe.compile == "auto":
        recipe, timing, reason = compiled(recipe, timing, wanted.data, wanted.seed)
        reasons += [reason] if reason else []
    reasons += uncertain(recipe, wanted)
    seconds = expected(recipe, wanted, timing)
    if wanted.budget and (over := seconds - wanted.budget + time.monotonic() - wanted.began) > 0:
        shorter = "fewer --set epochs, " if "epochs" in wanted.chosen else ""
        reasons.append(
            f"this will exceed the budget of {duration(wanted.budget)} by about {duration(over)}. To shorten it, choose "
            f"{shorter}a smaller --model or smaller images (--set size=…)"
        )
    return Decision(recipe, tuple(reasons), timing, seconds, short)


def uncertain(recipe: Recipe, wanted: Request) -> list[str]:
    """What is learned from too few validation images, and what that does."""
    images = int((wanted.data.images.splits == "val").sum())
    return [why for trick in having(recipe.tricks, "doubt") if (why := trick.doubt(images))]


def choose(wanted: Request) -> tuple[Recipe, list[str]]:
    """The recipe that fits the data, and why; fields that the user set stay."""
    recipe, reasons = _trained(wanted)
    if not padded(wanted):
        return recipe, reasons
    cut = wanted.data.images.cut_away()
    return recipe.edit(fit="pad"), [
        *reasons,
        f"images are padded to squares, since a central crop would cut away {100 * cut:.0f} % of them at the median",
    ]


def padded(wanted: Request) -> bool:
    """Whether images are so long that they are better shown whole, where neither the user nor a box says what to show."""
    images = wanted.data.images
    return "fit" not in wanted.chosen and not len(images.boxes) and images.cut_away() > CUT


def _trained(wanted: Request) -> tuple[Recipe, list[str]]:
    """Network, size, length and tricks for the data, and why."""
    images = wanted.data.images
    train = images.split("train")
    per_class = len(train) / len(images.classes)
    side = typical_side(wanted)
    if side <= SMALL_IMAGES and wanted.recipe.weights == "none":
        return _from_scratch(wanted, side, len(train))
    recipe, reasons = with_weights(wanted)
    if recipe.weights == "none":
        return _from_scratch(wanted, side, len(train), reasons)
    if per_class < FEW_IMAGES and "epochs" not in wanted.chosen:
        return recipe.edit(epochs=0), [
            *reasons,
            f"{per_class:.0f} training images per class: too few to train more than the classifier",
        ]
    said = f"{per_class:.0f} training images per class: the classifier is trained first, then all layers as far as time allows"
    if per_class < SOME_IMAGES and _may_add(wanted, recipe, "trivialaugment"):
        recipe = _put(wanted, recipe.edit(["trivialaugment"]), epochs=2 * recipe.epochs)
        longer = "" if "epochs" in wanted.chosen else "twice as long and "
        said += f", {longer}with strong augmentation because images are few"
    reasons = [*reasons, said]
    if per_class < NORM_IMAGES and _may_add(wanted, recipe, "freeze_norms") and _has_batch_norms(wanted, recipe):
        recipe = recipe.edit(["freeze_norms"])
        reasons.append("batch norms stay as they are: images are too few to measure their statistics anew")
    return recipe, reasons


def _may_add(wanted: Request, recipe: Recipe, name: str) -> bool:
    """Whether the user neither said what becomes of a trick nor asked for one that it cannot stand beside."""
    added = tricks.parse(name)
    return not wanted.chosen & {name, "tricks"} and not any(conflict(trick, added) for trick in recipe.tricks)


def _has_batch_norms(wanted: Request, recipe: Recipe) -> bool:
    images, channels = wanted.data.images, wanted.data.channels
    return bool(batch_norms(networks.build(recipe.model, len(images.classes), channels, recipe.size)))


def typical_side(wanted: Request) -> int:
    """The median side of a sample of the images, in pixels: the shorter one, the longer where they are to be padded."""
    images, side = wanted.data.images, max if padded(wanted) else min
    files = Files(images, wanted.data.channels, 1_000)
    return int(np.median([side(files[int(row)].shape[-2:]) for row in np.linspace(0, len(images) - 1, min(25, len(images)))]))


def _put(wanted: Request, recipe: Recipe, **fields: Any) -> Recipe:
    return recipe.edit(**{name: value for name, value in fields.items() if name not in wanted.chosen})


def _keeping(wanted: Request, base: Recipe) -> Recipe:
    """Another recipe with the fields and tricks that the user named."""
    named = {name.partition(".")[0] for name in wanted.chosen}
    own = {trick.name(): str(trick) for trick in wanted.recipe.tricks if trick.name() in named}
    gone = [trick.name() for trick in base.tricks if trick.name() in named - own.keys()]
    return base.edit(own.values(), gone, **{name: getattr(wanted.recipe, name) for name in named & Recipe.model_fields.keys()})


def with_weights(wanted: Request) -> tuple[Recipe, list[str]]:
    """The network to start from, with published weights where neither the user names some nor they are out of reach; why."""
    recipe = wanted.recipe
    if "model" not in wanted.chosen:
        recipe = recipe.edit(model="resnet50" if torch.cuda.is_available() else "mobilenetv3_large_100")
    if "weights" in wanted.chosen:
        return recipe, []
    try:
        networks.build(recipe.model, len(wanted.data.images.classes), wanted.data.channels, recipe.size, "hub")
    except UsageError as error:
        return recipe, [f"no published weights: {error} The network is trained from scratch"]
    return recipe.edit(weights="hub"), [f"{recipe.model} with published weights is a good start for photos on this machine"]


def _from_scratch(wanted: Request, side: int, images: int, reasons: list[str] | None = None) -> tuple[Recipe, list[str]]:
    small = side <= SMALL_IMAGES
    size = max(16, side) if small else min(160, side)
    model = "cifar_resnet20" if small else wanted.recipe.model if "model" in wanted.chosen else "resnet18"
    steps = -(-images // 64)
    epochs = min(200, max(10, round(SCRATCH_STEPS / steps)))
    recipe = _keeping(wanted, Recipe.load("cifar"))
    recipe = _put(wanted, recipe, model=model, size=size, epochs=epochs, crop_share=1.0 if small else 0.875, batch_size=64)
    said = [
        *(reasons or []),
        f"images of {side} pixels: {recipe.model} from scratch at {recipe.size} pixels, {recipe.epochs} epochs",
    ]
    if small and wanted.data.channels == 1 and not wanted.chosen & {"flip", "flip.p", "tricks"}:
        recipe = recipe.edit(without=["flip"])
        said.append("small grey images may be letters or digits, so they are not mirrored: no flips")
    return recipe, said


def expected(recipe: Recipe, wanted: Request, timing: Timing) -> float:
    """Seconds that training and scoring take."""
    splits = wanted.data.images.splits
    train, val, test = (int((splits == name).sum()) for name in ("train", "val", "test"))
    fits = sum(bool({"data", "prepare", "finish"} & set(trick.plugs())) for trick in recipe.tricks)
    once = ((fits > 0) * (train + val) + val + test) * timing.judge + fits * (FIT + FIT_EACH * train)
    once += before(recipe, train) * timing.train
    once += len(splits) * timing.decode / (os.cpu_count() or 1)
    return once + recipe.epochs * epoch_seconds(timing, shown(recipe, wanted), val, recipe)


def before(recipe: Recipe, train: int) -> int:
    """Views of images, ``train`` of them labelled, that are trained on before the first step."""
    return sum(
        getattr(trick, trick.before) * len(trick.beside().views) * (train + len(read_unlabelled(folder) if folder else ()))
        for trick in recipe.tricks
        if trick.before
        for folder in [trick.place()]
    )


def shown(recipe: Recipe, wanted: Request) -> float:
    """Training images that an epoch shows in the mean; 0 where there is none."""
    labels, tricks = left_labels(recipe, wanted.data.images), [trick.fresh() for trick in recipe.tricks]
    plan = Plan(labels, tricks, wanted.seed, recipe.epochs, recipe.batch_size, recipe.size)
    return sum(map(plan.count, range(recipe.epochs))) / max(1, recipe.epochs)


def left_labels(recipe: Recipe, images: Images) -> Tensor:
    """The labels of as many training images as tricks leave, of each class its share, sorted."""
    labels = torch.from_numpy(images.labels[images.splits == "train"]).sort().values
    share = math.prod(getattr(trick, trick.keeps) for trick in recipe.tricks if trick.keeps)
    left = min(len(labels), max(1, round(share * len(labels))))
    return labels[((torch.arange(left).double() + 0.5) * len(labels) / max(1, left)).long()]


def epoch_seconds(timing: Timing, train: float, val: int, recipe: Recipe) -> float:
    """Seconds of one epoch with its validation."""
    averaged = any("eval_model" in trick.plugs() for trick in recipe.tricks)
    return train * timing.train + val * timing.judge * (1 + averaged) + averaged * min(train, 2048) * timing.judge


def left(wanted: Request) -> float:
    """Seconds of the budget that may still be planned for."""
    return SAFETY * wanted.budget - (time.monotonic() - wanted.began)


def sized(recipe: Recipe, wanted: Request, timing: Timing, until: float) -> tuple[Recipe, Timing, str]:
    """The largest images with which the budget holds enough epochs; where it holds too few, those for the classifier alone.

    What other sizes take is reckoned from the timing of the recipe's, and timed only for the one that is chosen, unless the
    monotonic clock has passed ``until``.
    """
    head = any("prepare" in trick.plugs() for trick in recipe.tricks)
    for epochs, sizes in ((LEAST_EPOCHS, SIZES), (FEW_EPOCHS, SIZES[-1:]), *([(0, SIZES)] if head else [])):
        for size in sizes:
            tried = recipe.edit(size=size)
            reckoned = timing.scaled((size / recipe.size) ** 2)
            if expected(tried.edit(epochs=epochs), wanted, reckoned) <= left(wanted):
                if size != recipe.size and time.monotonic() < until:
                    reckoned = fastest(tried, wanted.data, wanted.seed, until)[1]
                what = f"{epochs} epochs fit the budget" if epochs else "training the classifier alone fits the budget"
                return tried, reckoned, f"{size} pixels: the largest images with which {what}"
    return recipe, timing, f"{recipe.size} pixels: the budget is too short for a choice"


def shortened(recipe: Recipe, wanted: Request, timing: Timing) -> tuple[Recipe, str]:
    """As many of the recipe's epochs as the budget holds."""
    fixed = expected(recipe.edit(epochs=0), wanted, timing)
    each = expected(recipe.edit(epochs=1), wanted, timing) - fixed
    epochs = int((left(wanted) - fixed) / each)
    least = 0 if any("prepare" in trick.plugs() for trick in recipe.tricks) else 1
    made, budget = min(recipe.epochs, max(epochs, least)), f"the budget of {duration(wanted.budget)}"
    if epochs < max(least, 1):
        done = "1 epoch is trained all the same" if made else "0 epochs, only the classifier is fitted"
        said = f"an epoch of about {duration(each)} does not fit {budget}: {done}"
    else:
        said = f"{budget} allows {counted(made, 'epoch')} of about {duration(each)}"
    return recipe.edit(epochs=made), said
