"""From the last epoch to the files of a finished run: finishing tricks, the one look at the test split, the export."""

import copy
import io
import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from trickbag.data.images import Images
from trickbag.engine.assemble import kept_pixels
from trickbag.engine.loop import Loop
from trickbag.engine.scores import Scores, finite, interval, score
from trickbag.ground import store
from trickbag.ground.streams import generator
from trickbag.models.networks import Net
from trickbag.recipe import Recipe
from trickbag.report import figures
from trickbag.runs.classifier import export
from trickbag.runs.request import Request
from trickbag.runs.seen import IMAGES, Seen
from trickbag.trick import Trick, having, judged_weights

PACKAGES = ("trickbag", "torch", "torchvision", "timm", "numpy", "lightning-fabric")


class Spent(NamedTuple):
    """What a run took so far, over all its processes."""

    seconds: float = 0.0
    """For training and validation."""
    step_seconds: float = 0.0
    """For training steps alone."""
    images: int = 0
    """Trained on."""


class Finished(NamedTuple):
    """What is deployed: a network and the tricks that judge with it."""

    model: Net
    tricks: Sequence[Trick]


def finish(loop: Loop, recipe: Recipe) -> Finished:
    """The kept epoch's network after the finishing tricks of a recipe, which the loop trained or followed."""
    judge, model = loop.judge, cast(Net, copy.deepcopy(loop.model))
    model.load_state_dict(loop.best[judged_weights(recipe.tricks)]["model"])
    trained = {str(trick): trick for trick in [*loop.tricks, *loop.watching]}
    tricks = [_own(trick, trained, loop) for trick in recipe.tricks]
    judge.begin()
    for place, trick in enumerate(tricks):
        if "finish" in trick.plugs():
            judge.see(model, tricks[:place])
            model = cast(Net, trick.finish(model, judge, generator(judge.facts.seed, trick.name())))
    return Finished(model, tricks)


def _own(trick: Trick, trained: Mapping[str, Trick], loop: Loop) -> Trick:
    """A trick as training left it, or a fresh one where it acts only now; a copy where finishing changes it."""
    found = trained.get(str(trick))
    if found is None:
        fresh = trick.fresh()
        for one in having([fresh], "setup"):
            one.setup(loop.model, loop.judge)
        return fresh
    return copy.deepcopy(found) if "finish" in found.plugs() else found


def judge_splits(loop: Loop, finished: Finished, splits: Sequence[str]) -> tuple[dict[str, Scores], dict[str, Tensor]]:
    """Scores of some splits with all tricks, and the logits and labels they come from. The test is looked at once."""
    scores: dict[str, Scores] = {}
    arrays: dict[str, Tensor] = {}
    for split in splits:
        loader = loop.judge.loaders[split]
        labels, names = loader.labels, loader.pixels.images.paths
        logits = finite(loop.judge.outputs(finished.model, split, finished.tricks)[1], names)
        scores[split] = score(logits, labels)
        arrays |= {f"{split}_logits": logits, f"{split}_labels": labels}
    return scores, arrays


def write_result(folder: Path, wanted: Request, recipe: Recipe, loop: Loop, spent: Spent, clock: float) -> dict[str, Any]:
    """Finish, score, write every file of the run's folder, the manifest last; return the record.

    ``clock`` is when this began, by the monotonic clock.
    """
    finished = finish(loop, recipe)
    scores, arrays = judge_splits(loop, finished, [split for split in ("val", "test") if len(wanted.data.images.split(split))])
    images, trained = wanted.data.images, wanted.data.images.split("train").counts().tolist()
    tensors, card = export(finished.model, finished.tricks, recipe, images.classes, loop.loader.normal, kept_pixels(recipe))
    record = {
        "test": None,
        **{
            split: s.as_json() | s.by_frequency(trained) | {"top1_interval": interval(round(s.top1 * s.n), s.n)}
            for split, s in scores.items()
        },
        "seconds": round(spent.seconds + time.monotonic() - clock, 2),
        "images_per_second": round(spent.images / spent.step_seconds, 2) if spent.step_seconds else 0.0,
        "epochs": recipe.epochs,
        "trained": loop.share if recipe.epochs else 1.0,
        "kept_epoch": loop.best[judged_weights(recipe.tricks)]["epoch"],
        "recipe_key": recipe.key,
        "data_fingerprint": wanted.data.fingerprint,
        "seed": wanted.seed,
        "splits": divided(wanted),
        "request": wanted.key,
        "environment": environment(),
    }
    files: dict[str, bytes | str] = {
        "model.safetensors": save({name: value.cpu().contiguous() for name, value in tensors.items()}),
        "model.json": json.dumps(card, indent=2),
        "predictions.npz": packed(arrays, images),
        "curves.png": figures.curves(store.lines(folder / "log.jsonl")),
        "confusion.png": figures.confusion(scores["test" if "test" in scores else "val"].confusion, images.classes),
        IMAGES: Seen.of(loop.loader.pixels.images, images).also(wanted.before).packed(),
        "result.json": store.to_json(record, indent=2),
    }
    for name, content in files.items():
        store.write(folder / name, content)
    store.seal(folder)
    return record


def divided(wanted: Request) -> dict[str, dict[str, Any]]:
    """Of each split how many images it has, whether the user gave it, and how many of them the runs before trained on."""
    images, given = wanted.data.images, wanted.audit.images.splits
    met = wanted.before.splits(images) == "train"
    return {
        split: {"images": int(own.sum()), "given": bool((given == split).any()), "trained_before": int((own & met).sum())}
        for split in ("train", "val", "test")
        for own in [images.splits == split]
    }


def packed(arrays: Mapping[str, Tensor], images: Images) -> bytes:
    """The content of ``predictions.npz``: logits and labels of each split, and which images they are of."""
    rows = {f"{split}_rows": np.flatnonzero(images.splits == split) for split in {name.partition("_")[0] for name in arrays}}
    file = io.BytesIO()
    np.savez_compressed(file, **{name: value.numpy() for name, value in arrays.items()}, **rows)  # type: ignore[arg-type]
    return file.getvalue()


def environment() -> dict[str, Any]:
    """What a reader needs to know of the machine that a figure comes from."""
    return {
        **{name: version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }
