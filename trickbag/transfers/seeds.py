"""Several seeds of one transfer, in one folder: the time they may take, and what they say together."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from trickbag.engine.loop import Step
from trickbag.engine.precision import fabric_for
from trickbag.ground import store
from trickbag.ground.environment import check_alone
from trickbag.ground.errors import TrickbagError, UsageError
from trickbag.ground.events import Note, Tell, silent
from trickbag.ground.records import MALFORMED
from trickbag.ground.shown import Sheet, Shown
from trickbag.ground.text import counted, duration
from trickbag.runs.folder import AGAIN
from trickbag.statistics.detection import Matches, grain
from trickbag.statistics.jackknife import of_overlap, of_precision
from trickbag.statistics.scores import score
from trickbag.statistics.variance import Floats, Ints, Part
from trickbag.transfers.assemble import assemble
from trickbag.transfers.folder import SEEN, TransferBegun, unpacked
from trickbag.transfers.judge import MEASURES, Seen
from trickbag.transfers.recipe import TransferRecipe
from trickbag.transfers.request import TransferRequest
from trickbag.transfers.run import Transferred, carry_out, differences

SUMMARY, REQUEST = "summary.json", "request.json"
SAFETY = 0.85
"""Share of a budget that is planned for."""
TIMED = 6
"""Steps, of which the first is not counted."""


@dataclass(frozen=True, repr=False)
class Transfer(Shown):
    """The detectors or segmenters of some seeds: their folders, and how right they are on the images that are looked at last.

    Examples:
        >>> import trickbag as tb
        >>> small = {"size": 32, "epochs": 1, "head": "fcos"}
        >>> tb.transfer("run", "cells", "detection", set_=small, out="another-detector").folder.name
        'another-detector'

    """

    folder: Path
    runs: tuple[Transferred, ...]
    record: dict[str, Any]
    """The content of ``summary.json``."""

    def _sheet(self) -> Sheet:
        name = MEASURES[self.record["task"]][0]
        value, ends = self.record["measures"][name], self.record["intervals"][name]
        said = ("none" if value is None else f"{100 * value:.1f} %") + (
            f" ({100 * ends[0]:.1f} to {100 * ends[1]:.1f})" if ends else ""
        )
        return Sheet(f"{self.record['task']} {self.folder}", {name: said, "seeds": f"{len(self.runs)}"})


def transfer(wanted: TransferRequest, seeds: int, budget: float, folder: Path, tell: Tell = silent) -> Transfer:
    """Find or make the transfers of so many seeds, from that of the request on; ``budget``: seconds for all, 0 for no limit."""
    began = time.monotonic()
    check_alone("a detector or a segmenter")
    with store.lock(folder):
        recipe, runs = decided(wanted, budget / seeds, folder, tell), []
        for seed in range(wanted.seed, wanted.seed + seeds):
            if seeds > 1:
                tell(Note(f"seed {seed}"))
            runs.append(carry_out(replace(wanted, recipe=recipe, seed=seed), folder / f"seed-{seed}", tell))
        record = summary(runs) | {"seconds": round(sum(run.record["seconds"] for run in runs), 1)}
        store.write(folder / SUMMARY, store.to_json(record, indent=2))
    if budget and (took := time.monotonic() - began) > budget:
        tell(Note(f"this took {duration(took)}, more than the budget of {duration(budget)}"))
    return Transfer(folder, tuple(runs), record)


def decided(wanted: TransferRequest, budget: float, folder: Path, tell: Tell) -> TransferRecipe:
    """The recipe with as many epochs as a budget holds, decided once for a folder. UsageError where it holds something else."""
    place, key = folder / REQUEST, f"{replace(wanted, seed=0).key} {budget:g}"
    if place.exists():
        begun = TransferBegun.load(place)
        if begun.request != key:
            raise UsageError(f"{folder} was begun with {_another(wanted, begun.request, key, folder)}. Choose another --out.")
        return TransferRecipe.build(begun.recipe | {"model": wanted.recipe.model}, str(place))
    if folder.exists() and any(not path.name.startswith(".") for path in folder.iterdir()):
        raise UsageError(f"{folder} is not empty and holds nothing that can be continued. Choose another --out.")
    # Not every network can be a body, nor have every trick: nothing is written then.
    assemble(wanted.recipe, wanted.scenes, wanted.seed, fabric_for(wanted.recipe.precision), tell)
    recipe = within(wanted, budget, tell) if budget else wanted.recipe
    store.write(place, store.to_json(TransferBegun(request=key, recipe=recipe.spelled()).signed()))
    store.write(folder / "recipe.toml", recipe.toml())
    return recipe


def _another(wanted: TransferRequest, held: str, now: str, folder: Path) -> str:
    """What a folder was begun with, where that is not what is asked for now; ``held`` and ``now`` as in ``decided``."""
    (before, budget), (after, each) = held.split(" "), now.split(" ")
    if before == after:
        named = [f"a budget of {duration(float(one))} a seed" if float(one) else "no budget" for one in (budget, each)]
        return f"{named[0]}, and this is {named[1]}"
    known = differences(wanted, folder / f"seed-{wanted.seed}")
    return f"another model, recipe, data set or first seed{f': {known}' if known else ''}"


def within(wanted: TransferRequest, budget: float, tell: Tell) -> TransferRecipe:
    """The recipe with as many epochs as a budget in seconds holds, by a few timed steps and judged images."""
    tell(Note("timing a few steps"))
    began = time.monotonic()
    epoch, last = timed(wanted, tell)
    left = SAFETY * budget - (time.monotonic() - began) - last
    epochs = max(1, int(left / epoch))
    tell(Note(f"{counted(epochs, 'epoch')} of about {duration(epoch)} for a budget of {duration(budget)}"))
    if left < epoch:
        tell(Note("one epoch will take more than the budget: choose smaller images (--set size=…) or a smaller model"))
    return wanted.recipe.edit(epochs=epochs)


def timed(wanted: TransferRequest, tell: Tell) -> tuple[float, float]:
    """About how many seconds an epoch takes, and the last look at all that judges, by a few steps and a judged image."""
    still = wanted.recipe.edit(epochs=1, lr=1e-12)  # what is only timed must not diverge
    loop = assemble(still, wanted.scenes, wanted.seed, fabric_for(wanted.recipe.precision), tell)
    steps, clock = [], time.monotonic()
    for event in loop.train():
        now = time.monotonic()
        if isinstance(event, Step):
            steps.append(now - clock)
        clock = now
        if len(steps) == TIMED:
            break
    judged = next(loop.loader.judged(loop.plan.rows(0)[:1], 1))
    loop.model.eval()
    cast(Any, loop.model).predict(judged.x)  # the first is not counted here either
    clock = time.monotonic()
    cast(Any, loop.model).predict(judged.x)
    look_at = time.monotonic() - clock
    scenes = wanted.scenes
    epoch = loop.plan.steps() * float(np.median(steps[1:] or steps)) + len(scenes.split("val")) * look_at
    return epoch, look_at * (len(scenes.split("val")) + len(scenes.split("test")))


def summary(runs: Sequence[Transferred]) -> dict[str, Any]:
    """What some seeds say together of the images that were looked at last, with intervals for new images."""
    first = runs[0].record
    split = "test" if first["test"] else "val"
    values, least = [per_image(run, split) for run in runs], coarseness(unpacked(runs[0].folder / SEEN, split))
    names = MEASURES[first["task"]]
    classes: Mapping[str, Any] = first[split]["classes"]
    return {
        "task": first["task"],
        "split": split,
        "images": first[split]["n"],
        "seeds": [run.record["seed"] for run in runs],
        "measures": {name: mean([run.record[split]["measures"][name] for run in runs]) for name in names},
        "intervals": {name: interval([one[k] for one in values], least) for k, name in enumerate(names)},
        "classes": {
            label: {name: mean([run.record[split]["classes"][label][name] for run in runs]) for name in measures}
            for label, measures in classes.items()
        },
    }


def mean(values: Sequence[float | None]) -> float | None:
    """Over seeds; None where one has none."""
    held = [value for value in values if value is not None]
    return float(np.mean(held)) if len(held) == len(values) else None


def per_image(run: Transferred, split: str) -> tuple[Floats, Floats]:
    """What each image of a split says of the two measures of a transfer: numbers whose means they are.

    Raises TrickbagError where the file that says so is damaged.
    """
    try:
        return said_by_images(unpacked(run.folder / SEEN, split), len(run.record[split]["classes"]))
    except MALFORMED as error:
        raise TrickbagError(f"{run.folder / SEEN} is damaged ({error}). {AGAIN}") from error


def said_by_images(seen: Sequence[Seen] | Ints, classes: int) -> tuple[Floats, Floats]:
    """The same of images that were looked at."""
    if isinstance(seen[0], Matches):
        return of_precision(cast(Sequence[Matches], seen), classes)
    return of_overlap(np.stack(cast(Sequence[Ints], seen)))


def coarseness(seen: Sequence[Seen] | Ints) -> float:
    """The least variance of a score that rests on so few boxes; nothing for pixels, of which there are many."""
    return grain(cast(Sequence[Matches], seen)) if isinstance(seen[0], Matches) else 0.0


def interval(values: Sequence[Floats], least: float = 0.0) -> list[float] | None:
    """Of the mean over images and seeds, 95 %: for new images, and of several seeds for new seeds too; see ``scores.score``.

    ``values``: of each seed, a number per image; ``least``: a variance that is added. None where a single image, or nothing to
    be found, leaves nothing to judge by.
    """
    if not np.isfinite(values).all():
        return None
    ends = score([Part(one, np.arange(len(one))) for one in values], grain=least)[1]
    return list(ends) if ends else None
