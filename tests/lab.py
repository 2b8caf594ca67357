"""The laboratory of the laws, by a short name."""

from trickbag.ground.streams import generator
from trickbag.laboratory.lab import (
    CLASSES,
    COUNTS,
    SIZE,
    Trained,
    dataset,
    example,
    fingerprint,
    follow,
    loop,
    network,
    recipe,
    same,
    train,
)

__all__ = [
    "CLASSES",
    "COUNTS",
    "SIZE",
    "Trained",
    "dataset",
    "example",
    "fingerprint",
    "follow",
    "generator",
    "loop",
    "network",
    "recipe",
    "same",
    "train",
]
