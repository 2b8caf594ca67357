"""A laboratory for studies: a data set of tiny PNG files, a recipe of a few steps, and what a study's folder holds."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from trickbag.ground import store
from trickbag.studies.arms import Arm
from trickbag.studies.conduct import study
from trickbag.studies.finished import Finished, report
from trickbag.studies.record import Study

SIDE = 12
COUNTS = {"a": 70, "b": 70, "c": 70}
RECIPE = """\
model = "cifar_resnet8"
size = {size}
crop_share = 1.0
epochs = {epochs}
batch_size = {batch_size}
lr = {lr}
precision = "fp32"
channels_last = false
mean = [0.5]
std = {std}
val_share = 0.3
keep = "{keep}"
tricks = [{tricks}]
"""
SMALL = {"size": 8, "epochs": 2, "batch_size": 16, "lr": 0.05, "std": "[0.25]", "keep": "last", "tricks": ""}


def album(root: Path, counts: Mapping[str, int], noise: float = 25.0, seed: int = 0) -> Path:
    """Grey PNG files of 12 x 12 pixels in a folder for each class: waves along x, along y or across, and noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    for kind, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            wave = np.sin((x, y, x + y)[kind] * 1.2 + rng.uniform(0, 6))
            pixels = 128 + 60 * wave + rng.normal(0, noise, (SIDE, SIDE))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / name / f"{number:03d}.png")
    return root


def recipe(place: Path, **fields: Any) -> str:
    """A file with a recipe of a few steps."""
    text = RECIPE.format(**SMALL | fields)
    path = place / f"{hash(text):x}.toml".replace("-", "n")
    path.write_text(text, "utf-8")
    return str(path)


def done(place: Path, out: str, fields: Mapping[str, Any] | None = None, **options: Any) -> Finished:
    """A study of the album at a place, without a proof where none is asked for."""
    return study(place / "album", recipe=recipe(place, **(fields or {})), out=place / out, **{"proof": False} | options)


def held(finished: Finished | Path) -> Study:
    """What the folder of a study holds."""
    return Study.load(finished if isinstance(finished, Path) else finished.folder)


def runs(finished: Finished | Path) -> dict[tuple[str, int], dict[str, Any]]:
    """``result.json`` of every run of the declared arms, by arm and seed."""
    found = held(finished)
    return {(a.name, s): r for a in found.arms for t, s in enumerate(found.seeds) if (r := found.result(found.cell(a, t)))}


def predictions(finished: Finished | Path) -> dict[tuple[str, int], dict[str, bytes]]:
    """The arrays of every run's ``predictions.npz``, as bytes."""
    found, arrays = held(finished), {}
    for arm in found.arms:
        for turn, seed in enumerate(found.seeds):
            path = found.place.run(found.cell(arm, turn).key) / "predictions.npz"
            if path.exists():
                with np.load(path, allow_pickle=False) as file:
                    arrays[arm.name, seed] = {name: file[name].tobytes() for name in file.files}
    return arrays


def answered(finished: Finished, place: Path, chance: Callable[[Arm], float]) -> Finished:
    """The findings of a copy of a study, whatever was trained: an arm's answers are drawn anew, right by ``chance``."""
    shutil.copytree(finished.folder, place)
    found = held(place)
    for number, arm in enumerate(found.arms):
        for turn, seed in enumerate(found.seeds):
            run = found.place.run(found.cell(arm, turn).key)
            with np.load(run / "predictions.npz", allow_pickle=False) as file:
                arrays = dict(file)
            labels, classes = arrays["test_labels"], arrays["test_logits"].shape[1]
            right = np.random.default_rng((number, seed)).random(len(labels)) < chance(arm)
            arrays["test_logits"] = 3 * np.eye(classes, dtype=np.float32)[np.where(right, labels, (labels + 1) % classes)]
            np.savez(run / "predictions.npz", **arrays)
            store.seal(run)
    return report(place)


def ledger(folder: Path) -> list[tuple[str, tuple[str, ...], int]]:
    """Event, arms and seed of every line of the ledger."""
    lines = (json.loads(line) for line in (folder / "ledger.jsonl").read_text("utf-8").splitlines())
    return [(line["event"], tuple(line["arms"]), line["seed"]) for line in lines]


def manifests(folder: Path) -> dict[str, int]:
    """When the manifest of every finished run and training was written."""
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.glob("*/*/MANIFEST.json")}


def effect(finished: Finished, name: str, kind: str = "alone") -> Any:
    """One effect of the findings."""
    (found,) = (e for e in finished.effects if (e.name, e.kind) == (name, kind))
    return found


__all__ = ["album", "answered", "effect", "held", "ledger", "manifests", "predictions", "recipe", "runs", "study"]
