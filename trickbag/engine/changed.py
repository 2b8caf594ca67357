"""What tricks made of the training images: image by image, counted, and in words."""

from collections.abc import Iterable
from typing import NamedTuple

from trickbag.data.images import Images
from trickbag.ground.text import counted

LEFT_OUT = "drop"
"""In place of a class, as corrections of labels have it."""
WORDS = {"left_out": "left out", "relabelled": "given another label", "added": "added"}


class Change(NamedTuple):
    """A training image that is none any more, became one, or has another class."""

    path: str
    old: str
    """Its class; empty where it was added."""
    new: str
    """Its class, or LEFT_OUT."""

    @property
    def kind(self) -> str:
        """Which of WORDS."""
        return "added" if not self.old else "left_out" if self.new == LEFT_OUT else "relabelled"


def changed(before: Images, after: Images) -> list[Change]:
    """The changes between two tables of training images: first of those that were there, in their order."""
    old, new = (dict(zip(table.paths, table.labels.tolist(), strict=True)) for table in (before, after))
    names = before.classes
    kept = [
        Change(path, names[label], names[new[path]] if path in new else LEFT_OUT)
        for path, label in old.items()
        if new.get(path) != label
    ]
    return kept + [Change(path, "", names[label]) for path, label in new.items() if path not in old]


def count(changes: Iterable[Change]) -> dict[str, int]:
    """How many changes there are of each kind.

    >>> count([Change("a.jpg", "cat", "drop"), Change("b.jpg", "", "dog")])
    {'left_out': 1, 'relabelled': 0, 'added': 1}
    """
    kinds = [change.kind for change in changes]
    return {kind: kinds.count(kind) for kind in WORDS}


def told(images: int, changes: Iterable[Change], unlabelled: int = 0) -> str:
    """The changes of so many training images in words; beside them there are images without labels, which may be added.

    >>> told(250, [Change("a.jpg", "cat", "drop")]), told(1, [])
    ('250 training images, 1 left out', '1 training image, all kept as they are')
    >>> told(9, [Change("b.jpg", "", "dog")], 40)
    '9 training images, 1 of 40 without a label added'
    """
    of = {"added": f" of {unlabelled:,} without a label"} if unlabelled else {}
    said = ", ".join(f"{n:,}{of.get(kind, '')} {WORDS[kind]}" for kind, n in count(changes).items() if n or kind in of)
    return f"{counted(images, 'training image')}, {said or 'all kept as they are'}"
