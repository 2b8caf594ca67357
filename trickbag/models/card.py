"""``model.json``, the card of a trained network: all that prediction needs besides the weights."""

import os
from collections.abc import Sequence
from glob import glob
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from trickbag.ground import records
from trickbag.ground.errors import UsageError
from trickbag.ground.records import Record

CARD, WEIGHTS = "model.json", "model.safetensors"
TRANSFER = "transfer.json"
"""What lies in the place of the card where the network is a detector or a segmenter."""

Mean = list[Annotated[float, Field(ge=-1e6, le=1e6)]]
Std = list[Annotated[float, Field(gt=0, le=1e6)]]


def check_classes(classes: Sequence[str]) -> None:
    """Raise ValueError where a class is named twice."""
    if len(set(classes)) < len(classes):
        raise ValueError("classes: a class is named twice")


def check_channels(mean: Sequence[float], std: Sequence[float], channels: int) -> None:
    """Raise ValueError where the images of so many channels have another number of means or deviations."""
    for name, values in {"mean": mean, "std": std}.items():
        if len(values) != channels:
            raise ValueError(f"{name}: there are {len(values)} values for {channels} channels")


class Card(Record):
    """The content of ``model.json``."""

    model: str
    """A timm model, or cifar_resnet8, 20, 32, 56."""
    channels: Annotated[int, Field(ge=1, le=4096)]
    """Of the images."""
    classes: Annotated[list[str], Field(min_length=1)]
    """Full class paths, in the order of the logits."""
    size: Annotated[int, Field(ge=8, le=4096)]
    """Pixels of a side of the central crop that the network sees."""
    fit: Literal["crop", "pad", "squash"] = "crop"
    """What becomes of images that are no squares."""
    crop_share: Annotated[float, Field(gt=0.01, le=1)]
    """Images are resized so that the shorter side is size / crop_share."""
    kept: Annotated[int, Field(ge=1, le=1_000_000)]
    """Pixels of the shorter side to which decoded images are made smaller first."""
    mean: Mean
    """Of each channel; 0 is black, 1 is white."""
    std: Std
    """Of each channel."""
    precision: Literal["auto", "fp32", "bf16", "fp16"]
    """Arithmetic of the network."""
    channels_last: bool | Literal["auto"]
    """Memory layout of images and convolutions."""
    tricks: list[str]
    """Spellings of those that act at prediction."""
    state: dict[str, dict[str, Any]]
    """Their numbers, by trick and name."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        check_classes(self.classes)
        check_channels(self.mean, self.std, self.channels)
        return self

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The card in a run's folder. Raises TrickbagError where it is damaged."""
        return records.read(folder / CARD, cls, "Train the run again, or restore the file from a copy.")


def transferred(folder: Path) -> bool:
    """Whether a folder holds a detector or a segmenter, or such of several seeds."""
    patterns = (TRANSFER, f"seed-*/{TRANSFER}")
    return os.path.isdir(folder) and any(glob(pattern, root_dir=folder) for pattern in patterns)  # noqa: PTH207  any name will do


def check_trained(folder: Path) -> None:
    """Raise UsageError where a folder holds no trained classifier."""
    if os.path.isfile(folder / CARD):
        return
    what = "a detector or a segmenter, no classifier of whole images" if transferred(folder) else ""
    what = what or f"no trained classifier: there is no {CARD}"
    raise UsageError(f"{folder} holds {what}. Give the folder that train wrote.")
