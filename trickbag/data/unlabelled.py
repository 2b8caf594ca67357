"""Images without labels: a folder, whatever it is sorted by."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from trickbag.data.audit import reasons
from trickbag.data.facts import look_at_all
from trickbag.data.images import Images
from trickbag.data.listing import walk
from trickbag.ground.errors import UsageError


def read_unlabelled(
    folder: str | Path, channels: int | None = None, progress: Callable[[int, int], None] | None = None
) -> Images:
    """The images of a folder and of all below it, in the split "unlabelled" and one class that says nothing.

    Files without pixels, or with other channels than the model takes, are left aside. Raises UsageError where there is no such
    folder or no image in it.
    """
    root = Path(folder).expanduser().absolute()
    paths = tuple(path.relative_to(root).as_posix() for path in walk(root))
    facts = look_at_all(root, paths, channels, progress)
    found = np.flatnonzero([not reason for reason in reasons(facts, channels)])
    if not len(found):
        raise UsageError(f"{str(folder)!r} holds no image that can be read. Give a folder with unlabelled images.")
    table = Images(
        root,
        paths,
        labels=np.zeros(len(paths), np.int64),
        splits=np.full(len(paths), "unlabelled"),
        groups=np.arange(len(paths)),
        classes=("",),
        hashes=tuple(fact.content for fact in facts),
        sizes=np.array([(fact.height, fact.width) for fact in facts]),
    )
    return table.take(found)
