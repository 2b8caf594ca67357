"""From the last epoch to the files of a finished run: finishing tricks, the one look at the test split, the export."""

import io
import json
import os
import platform
import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import save

from trickbag import store
from trickbag.classifier import export
from trickbag.engine.assemble import kept_pixels
from trickbag.engine.loop import Loop
from trickbag.engine.scores import interval, score
from trickbag.report import figures
from trickbag.streams import generator
from trickbag.trick import having

if TYPE_CHECKING:
    from trickbag.run import Run

PACKAGES = ("trickbag", "torch", "torchvision", "timm", "numpy", "lightning-fabric")


def finish(loop: Loop) -> torch.nn.Module:
    """The kept epoch's network after the finishing tricks."""
    judge, model = loop.judge, loop.model
    model.load_state_dict(loop.best["model"])
    for trick in having(loop.tricks, "finish"):
        judge.see(model)
        judge.before = loop.tricks[: loop.tricks.index(trick)]
        model = trick.finish(model, judge, generator(judge.facts.seed, trick.name()))
    return model


def write_result(run: "Run", loop: Loop, began: float) -> dict[str, Any]:
    """Finish, score validation and test, write every file of the run's folder, the manifest last; return the record."""
    model = finish(loop)
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    scores = {}
    splits = run.wanted.data.images.splits
    for split in ("val", "test"):
        labels = loop.judge.loaders[split].labels
        _, logits = loop.judge.outputs(model, split, loop.tricks)
        scores[split] = score(logits, labels)
        arrays |= {
            f"{split}_logits": logits.numpy(),
            f"{split}_labels": labels.numpy(),
            f"{split}_rows": np.flatnonzero(splits == split),
        }
    seconds = run.seconds + time.monotonic() - began
    record = {
        **{split: s.as_json() | {"top1_interval": interval(round(s.top1 * s.n), s.n)} for split, s in scores.items()},
        "seconds": round(seconds, 2),
        "images_per_second": round(run.images / run.step_seconds, 2) if run.step_seconds else 0.0,
        "epochs": run.recipe.epochs,
        "kept_epoch": loop.best["epoch"],
        "recipe_key": run.recipe.key,
        "data_fingerprint": run.wanted.data.fingerprint,
        "seed": run.wanted.seed,
        "request": run.wanted.key,
        "environment": environment(),
    }
    images = run.wanted.data.images
    normal = tuple((v / 255).flatten().tolist() for v in (loop.loader.mean, loop.loader.std))
    trained = export(model, loop.tricks, run.recipe, images.classes, normal, kept_pixels(run.recipe))
    packed = io.BytesIO()
    np.savez_compressed(packed, **arrays)
    write = {
        "model.safetensors": save({k: v.cpu().contiguous() for k, v in trained["tensors"].items()}),
        "model.json": json.dumps(trained["card"], indent=2),
        "predictions.npz": packed.getvalue(),
        "curves.png": figures.curves(store.lines(run.log)),
        "confusion.png": figures.confusion(scores["test"].confusion, images.classes),
        "result.json": store.to_json(record, indent=2),
    }
    for name, content in write.items():
        store.write(run.folder / name, content)
    store.seal(run.folder)
    store.remove(run.folder / ".work")
    return record


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
