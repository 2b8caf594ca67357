"""Data sets by name, ``torchvision:MNIST`` or ``timm:torch/cifar10``: loaded by those libraries' own code, exported once."""

import csv
import inspect
import operator
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import redirect_stdout
from http.client import HTTPException
from pathlib import Path
from typing import Any

from PIL import Image

from trickbag.data.given import picture
from trickbag.ground import spec
from trickbag.ground.cache import cache_dir, key_of, made_once
from trickbag.ground.errors import UsageError
from trickbag.ground.events import Tell, silent

HOMES = ("torchvision:", "timm:")
SPLIT_WORDS = {"train": ("train", "trainval", "train-standard"), "val": ("val", "valid"), "test": ("test",)}
"""What torchvision's classes call the splits, in order of preference."""

TRAIN_OR_TEST = ("cifar10", "cifar100", "mnist", "kmnist", "fashion_mnist", "qmnist")
"""The sets whose held-out half is a test set; timm hands it out for every word but train."""


def is_named(data: str) -> bool:
    """Whether a text names a set of torchvision or timm."""
    return data.startswith(HOMES)


def export(data: str, tell: Tell = silent) -> Path:
    """The manifest of a named set, exported once as PNG files into the cache; delete that folder to export it again.

    The set is looked for in $TRICKBAG_DATA, else in the cache, and downloaded where it is missing and its class can do so.
    ``torchvision:EMNIST(split="letters")`` passes arguments on.
    Raises UsageError where it cannot be loaded or is no set of classified images.
    """
    root = Path(os.environ.get("TRICKBAG_DATA") or cache_dir() / "downloads").expanduser().absolute()
    home, _, name = data.partition(":")
    parts = (_torchvision if home == "torchvision" else _timm)(name, root)

    def build(folder: Path) -> None:
        try:
            with redirect_stdout(sys.stderr):  # what a loader prints is no result of ours
                _write(parts, folder)
        except (OSError, RuntimeError, ValueError, TypeError, ImportError, AssertionError, HTTPException) as error:
            raise UsageError(
                f"{data} could not be loaded into {str(root)!r}: {error}. "
                "Go online once, put a copy there or name its folder by TRICKBAG_DATA, or give a folder of images."
            ) from error

    return made_once(cache_dir() / "named" / key_of(data, root), build, tell) / "manifest.csv"


def _write(parts: Iterable[tuple[str, Any]], folder: Path) -> None:
    number = 0
    with (folder / "manifest.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("path", "label", "split"))
        for split, dataset in parts:
            names = getattr(dataset, "classes", None) or getattr(dataset, "categories", None)
            for image, target in (dataset[i] for i in range(len(dataset))) if hasattr(dataset, "__getitem__") else dataset:
                if not isinstance(image, Image.Image):
                    raise UsageError(f"{type(dataset).__name__} yields no images. Give a set of classified images.")
                label = _label(dataset, names, target)
                path = f"{number:08d}.png"
                picture(image).save(folder / path)
                rows.writerow((path, label, split))
                number += 1


def _label(dataset: Any, names: Any, target: Any) -> str:
    try:
        label = operator.index(target)
    except TypeError:
        raise UsageError(f"{type(dataset).__name__} gives an image no single class. Give a set of classified images.") from None
    name = names[label] if names else label
    return ", ".join(name) if isinstance(name, tuple) else str(name)


def _torchvision(text: str, root: Path) -> Iterator[tuple[str, Any]]:
    from torchvision import datasets

    known = {name.lower(): name for name in datasets.__all__}
    try:
        given = spec.parse(text)
    except UsageError:
        given = spec.Spec(text)
    if given.name.lower() not in known or given.args:
        raise UsageError(f"torchvision has no data set {text!r}. Write torchvision:MNIST, or another of torchvision.datasets.")
    kind = getattr(datasets, known[given.name.lower()])
    takes = _arguments(kind)
    fixed = {name: value for name, value in {"root": str(root), "download": True}.items() if name in takes} | given.fields
    return _torchvision_splits(kind, takes - set(given.fields), fixed)


def _torchvision_splits(kind: Any, free: set[str], fixed: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    if "split" in free:
        for split, words in SPLIT_WORDS.items():
            loaded = (_if_known(kind, fixed | {"split": word}) for word in words)
            dataset = next((one for one in loaded if one is not None), None)
            if dataset is not None:
                yield split, dataset
            elif split == "train":
                kind(**fixed, split="train")  # says which splits there are
    elif "train" in free:
        yield "train", kind(**fixed, train=True)
        yield "test", kind(**fixed, train=False)
    else:
        yield "", kind(**fixed)


def _if_known(kind: Any, values: dict[str, Any]) -> Any:
    try:
        return kind(**values)
    except ValueError as error:
        if "Unknown value" not in str(error):
            raise
        return None


def _arguments(kind: type) -> set[str]:
    """The names that a class takes, those included that it hands to its base by ``**kwargs``."""
    names: set[str] = set()
    for base in kind.__mro__:
        parameters = inspect.signature(base).parameters
        names |= set(parameters)
        if all(p.kind is not p.VAR_KEYWORD for p in parameters.values()):
            break
    return names


def _timm(name: str, root: Path) -> Iterator[tuple[str, Any]]:
    from timm.data.dataset_factory import create_dataset

    if "/" not in name or name.lower() in ("torch/folder", "torch/image_folder"):
        raise UsageError(f"timm:{name} reads a folder as it is. Give the path of that folder instead.")
    held_out = "test" if name.lower().removeprefix("torch/") in TRAIN_OR_TEST else "val"
    for split, word in (("train", "train"), (held_out, "validation")):
        yield split, create_dataset(name, root=str(root), split=word, download=True)
