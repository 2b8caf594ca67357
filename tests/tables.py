"""Folders of images and tables for the tests of the data set."""

from pathlib import Path

import numpy as np

from trickbag.data.images import Images


def fill(root, *names):
    """Files with distinct bytes; nothing here is ever opened."""
    for name in names:
        path = Path(root, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(ascii(name))
    return root


def table(images):
    """The rows by path, without any number that could shift."""
    labels = [images.classes[label] for label in images.labels]
    return {p: (c, str(s)) for p, c, s in zip(images.paths, labels, images.splits, strict=True)}


def make(labels, groups=None, splits=None, names=None):
    n = len(labels)
    return Images(
        root=Path("data"),
        paths=tuple(names or (f"{row:05d}.png" for row in range(n))),
        labels=np.array(labels, dtype=np.int64),
        splits=np.array(splits or [""] * n, dtype="<U5"),
        groups=np.arange(n) if groups is None else np.array(groups, dtype=np.int64),
        classes=tuple("abcdefgh"[: max(labels) + 1]),
    )
