"""What a run or a study got wrong, which labels are probably wrong, and which images stand out."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from trickbag.data.audit import LabelError
from trickbag.data.duplicates import near
from trickbag.data.facts import Facts, look_at_all
from trickbag.data.images import Images
from trickbag.data.reading import read
from trickbag.ground import store
from trickbag.ground.arguments import public
from trickbag.ground.errors import UsageError
from trickbag.ground.events import Doing, Note, Tell
from trickbag.ground.shown import Sheet, Shown
from trickbag.ground.text import counted, show
from trickbag.mistakes import features
from trickbag.mistakes.judged import Said, said
from trickbag.runs.folder import Mistake
from trickbag.runs.provenance import remembered
from trickbag.statistics.neighbours import remoteness
from trickbag.statistics.variance import Ints

MOST_UNLIKE = 24
"""Images unlike all others that are listed."""
PAGE = "review.html"


class Copies(NamedTuple):
    """Two images that look the same and have different labels."""

    paths: tuple[str, str]
    labels: tuple[str, str]


class Unlike(NamedTuple):
    """An image that is far from all others."""

    path: str
    label: str
    distance: float
    """Mean cosine distance of its features to those of the ten nearest images, 0 to 2."""


class OfClass(NamedTuple):
    """How the images of a class were judged."""

    name: str
    images: int
    precision: float | None
    """None where no image was said to be of the class."""
    recall: float | None
    """None where it has no image."""
    taken_for: str
    """What most of its images that were wrong were taken for; empty where none was."""
    times: int


@dataclass(frozen=True, repr=False)
class Review(Shown):
    """The mistakes of a run, or of a study's reference, and what may be wrong with the images; ``html`` shows them.

    Examples:
        >>> import trickbag as tb
        >>> found = tb.review("run", "photos")
        >>> found.total, found.classes, [one.path for one in found.label_errors]
        (24, ('cat', 'dog'), [])

    """

    folder: Path
    by: str
    """Who judged, in words."""
    total: int
    """Images of the data set, judged or not."""
    classes: tuple[str, ...]
    confusion: Ints
    """[K, K] images by label (row) and by what was said (column)."""
    label_errors: tuple[LabelError, ...]
    """The worst first."""
    wrong: tuple[Mistake, ...]
    """The most confident first."""
    copies: tuple[Copies, ...]
    unlike: tuple[Unlike, ...]
    """The farthest first."""
    per_class: tuple[OfClass, ...]
    notes: tuple[str, ...]
    """What could not be looked for, and why."""
    root: Path | None
    """Where the images lie; None where it is not known."""
    contents: dict[str, str]
    """Path -> hash of the content that was judged, of all images that are still there."""

    def _sheet(self) -> Sheet:
        facts = {"judged": f"{self.confusion.sum():,} images, by {self.by}", "wrong": f"{len(self.wrong):,}"}
        facts |= {
            "probable label errors": f"{len(self.label_errors):,}",
            "near copies of another class": f"{len(self.copies):,}",
        }
        rows = [(e.path, e.given, f"{e.suggested} ({100 * e.probability:.1f} %)") for e in self.label_errors]
        return Sheet(f"review of {self.folder}", facts, ("probable label error", "label", "rather"), rows)

    @property
    def answer(self) -> tuple[str, ...]:
        """The whole in sentences."""
        images, wrong = int(self.confusion.sum()), len(self.wrong)
        suspects = counted(len(self.label_errors), "label is doubted", "labels are doubted")
        pairs = counted(len(self.copies), "pair of near copies has", "pairs of near copies have")
        return (
            f"{wrong:,} of {counted(images, 'image')} ({100 * wrong / max(images, 1):.1f} %) were classified wrongly.",
            f"{suspects}: a network that is often wrong doubts many a right one. {pairs} different labels.",
        )

    def html(self) -> str:
        """A page that needs nothing else, on which labels can be corrected."""
        from trickbag.mistakes.page import page

        return page(self)

    @public
    def write(self, file: str | Path) -> Path:
        """Write the page, and return where it lies."""
        store.write(Path(file), self.html())
        return Path(file)


def review(folder: Path, data: str | Path | None, tell: Tell) -> Review:
    """Look at what a finished run or a study said of its judged images.

    Raises UsageError where the folder holds neither, or ``data`` is not what it was made from; TrickbagError where it is
    damaged.
    """
    judged = said(folder)
    paths, notes = [*judged.table], list[str]()
    names, best = [paths[row] for row in judged.rows.tolist()], judged.p.argmax(1)
    root = _root(judged, data, notes)
    facts = _facts(root, judged, tell) if root else {}
    if root and (gone := len(paths) - len(facts)):
        notes.append(f"{counted(gone, 'image is', 'images are')} gone or changed, of {len(paths):,}: without picture.")
    unlike = _unlike(folder, root, judged, facts, notes, tell)
    for note in notes:
        tell(Note(note))
    confusion = np.zeros((len(judged.classes),) * 2, np.int64)
    np.add.at(confusion, (judged.labels, best), 1)
    return Review(
        folder,
        judged.by,
        len(paths),
        judged.classes,
        confusion,
        features.errors(names, judged.classes, judged.labels, judged.p),
        _wrong(judged, names, best),
        _copies(judged, facts),
        unlike,
        tuple(_of_class(confusion, judged.classes, k) for k in range(len(judged.classes))),
        tuple(notes),
        root,
        {path: fact.content for path, fact in facts.items()},
    )


def _root(judged: Said, data: str | Path | None, notes: list[str]) -> Path | None:
    """Where the images lie: below what the user names, or where they lay when the run was begun."""
    first = next(iter(judged.table))
    if data is None:
        found = remembered(judged.fingerprint)
        if found is None or not any(os.path.isfile(found / path) for path in judged.table):
            notes.append("The photos are not where they were: no pictures, no near copies. Say where with --data DATA.")
            return None
        return found
    found = Path(data).expanduser().absolute()
    found = found if os.path.isfile(found / first) else read(data).root
    if not any(os.path.isfile(found / path) for path in judged.table):
        raise UsageError(f"{data} holds none of the images that were judged, as {show(first)}. Give the data set of the run.")
    return found


def _facts(root: Path, judged: Said, tell: Tell) -> dict[str, Facts]:
    """What is known of the images that are still what they were."""
    paths = tuple(judged.table)
    found = look_at_all(root, paths, progress=lambda done, total: tell(Doing("looking at images", done, total)))
    return {
        path: fact for path, fact in zip(paths, found, strict=True) if fact.content == judged.table[path][2] and not fact.error
    }


def _wrong(judged: Said, names: list[str], best: Ints) -> tuple[Mistake, ...]:
    rows, classes = np.flatnonzero(best != judged.labels), judged.classes
    order = rows[np.argsort(-judged.p[rows, best[rows]], kind="stable")].tolist()
    return tuple(
        Mistake(name, judged.table[name][1], classes[judged.labels[row]], classes[best[row]], float(judged.p[row, best[row]]))
        for name, row in ((names[row], row) for row in order)
    )


def _copies(judged: Said, facts: dict[str, Facts]) -> tuple[Copies, ...]:
    """Pairs of images of all splits, exact copies included."""
    known = {path: like for path, fact in facts.items() if (like := fact.likeness)}
    paths, sides = [*known], np.array([judged.table[path][0] for path in known])
    pairs = near([*known.values()], sides, np.arange(len(paths))) if paths else []
    return tuple(Copies((paths[a], paths[b]), (str(sides[a]), str(sides[b]))) for a, b in pairs)


def _unlike(
    folder: Path, root: Path | None, judged: Said, facts: dict[str, Facts], notes: list[str], tell: Tell
) -> tuple[Unlike, ...]:
    """The judged images that lie farthest from their neighbours, by the run's network or that which a study begins with."""
    paths = [*judged.table]
    there = [row for row in judged.rows.tolist() if paths[row] in facts]
    if root is None or len(there) < 2:
        return ()
    names = [paths[row] for row in there]
    images = _table(root, names, judged)
    try:
        if judged.start is None:
            found = features.of_run(folder, images, tell)
        elif judged.start.weights != "none":
            found = features.of_start(judged.start, images, _channels(facts), tell)
        else:
            notes.append(
                "Images unlike all others are not listed: the study begins with an untrained network, which cannot tell."
            )
            return ()
    except UsageError as error:
        notes.append(f"Images unlike all others are not listed: {error}")
        return ()
    distance = remoteness(found)
    order = np.argsort(-distance, kind="stable")[:MOST_UNLIKE].tolist()
    return tuple(Unlike(names[row], judged.table[names[row]][0], float(distance[row])) for row in order)


def _table(root: Path, names: list[str], judged: Said) -> Images:
    place = {name: label for label, name in enumerate(judged.classes)}
    return Images(
        root,
        tuple(names),
        labels=np.array([place[judged.table[name][0]] for name in names], np.int64),
        splits=np.full(len(names), "test", "<U5"),
        groups=np.arange(len(names)),
        classes=judged.classes,
        hashes=tuple(judged.table[name][2] for name in names),
    )


def _channels(facts: dict[str, Facts]) -> int:
    channels = [fact.channels for fact in facts.values()]
    return max(set(channels), key=channels.count)


def _of_class(confusion: Ints, classes: tuple[str, ...], k: int) -> OfClass:
    right, images, told = int(confusion[k, k]), int(confusion[k].sum()), int(confusion[:, k].sum())
    others = np.where(np.arange(len(classes)) == k, 0, confusion[k])
    most = int(others.argmax())
    taken = classes[most] if others[most] else ""
    return OfClass(
        classes[k], images, right / told if told else None, right / images if images else None, taken, int(others[most])
    )
