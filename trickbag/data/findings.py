"""The findings of an audit: what a person should know about the data, each with a suggestion."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from trickbag.data.duplicates import near
from trickbag.data.facts import Facts
from trickbag.data.images import Images, gaps
from trickbag.data.listing import DROPPED, HIDDEN, OURS, SIDE, SYSTEM, UNLABELLED
from trickbag.data.manifests import SLACK
from trickbag.ground.text import counted, show, unshow

Severity = Literal["error", "warning", "note"]

FEW = 10
"""Training images per class below which a class is called very small."""
TINY = 16
"""Pixels of the shorter side below which an image is called very small."""
CUT = 0.5
"""Share of an image, at the median, above which a central crop is said to cut away too much."""
IMBALANCE = 10
"""Ratio of the largest class to the smallest above which classes are called imbalanced."""


class Finding(BaseModel):
    """One thing that a person should know about the data.

    Examples:
        >>> import trickbag as tb
        >>> from PIL import Image
        >>> photo = Image.open("photos/cat/00.png")
        >>> print(tb.check([(photo, "cat"), (photo, "dog")]).findings[0].message)
        1 pair of images are in two classes: 00000000.png and 00000001.png.

    """

    kind: str
    severity: Severity
    message: str
    suggestion: str = ""
    paths: list[str] = []
    """All files concerned, spelled by ``text.show``."""
    pairs: list[tuple[str, str]] = []
    """The files pair by pair, where the finding is about pairs."""

    def as_json(self) -> dict[str, Any]:
        """All of it in plain values; paths are what they are."""
        return self.model_dump() | {"paths": list(map(unshow, self.paths))}


def about_left_out(left_out: dict[str, str], total: int, root: Path) -> Iterable[Finding]:
    """Files without pixels, by reason."""
    by_reason: dict[str, list[str]] = defaultdict(list)
    for path, reason in left_out.items():
        by_reason[reason.partition(":")[0] if reason.startswith(("broken", "too large")) else reason].append(show(path))
    for reason, paths in sorted(by_reason.items()):
        message = f"{len(paths):,} of {counted(total, 'file')} left out: {reason}."
        remedy = reason.partition("; ")[2].capitalize()
        yield Finding(
            kind="left out",
            severity="warning",
            message=message,
            suggestion=f"{remedy or 'Repair or remove the files'}; they are not used.",
            paths=paths,
        )
    if len(left_out) == total:
        first, reason = next(iter(left_out.items()))
        missing, where = not (root / first).exists(), show(str(root))
        first_one = f"{show(first)} in {where}: {'missing' if missing else reason}"
        yield Finding(
            kind="nothing",
            severity="error",
            message=f"None of the files is a readable image; the first is {first_one}.",
            suggestion=f"Write paths that start at {where}." if missing else "Give a folder of images that can be read.",
        )


def about_duplicates(images: Images, same: list[int], on_conflict: Severity, on_leak: Severity) -> Iterable[Finding]:
    """Exact copies: in two classes, in two given splits, or harmless; ``same`` [N] tells which rows are equal."""
    members: dict[int, list[int]] = defaultdict(list)
    for row, group in enumerate(same):
        members[group].append(row)
    copies = [rows for rows in members.values() if len(rows) > 1]
    labels, splits = images.labels.tolist(), images.splits.tolist()
    conflicts = [pair for rows in copies for pair in _pairs(rows, labels)]
    if conflicts:
        yield _about_pairs(
            images,
            conflicts,
            "conflict",
            on_conflict,
            "images are in two classes",
            "Decide which class is right and delete the other file.",
        )
    leaks = [pair for rows in copies for pair in _pairs([row for row in rows if splits[row]], splits)]
    if leaks:
        yield _about_pairs(
            images,
            leaks,
            "leak",
            on_leak,
            "images are in two splits, which inflates the scores",
            "Delete them from the training split.",
        )
    kept_together = [(rows[0], row) for rows in copies for row in rows[1:] if splits[row] == splits[rows[0]]]
    if kept_together:
        yield _about_pairs(
            images,
            kept_together,
            "duplicate",
            "note",
            "images are exact copies and are kept in the same split",
            "Delete the copies, unless they should count more than once.",
        )


def _pairs(rows: Sequence[int], labels: Sequence[Any]) -> list[tuple[int, int]]:
    """Each row beside the first one that is labelled differently, every pair once; no pairs where all labels agree."""
    first: dict[Any, int] = {}
    for row in rows:
        first.setdefault(labels[row], row)
    if len(first) < 2:
        return []
    one, other = list(first.values())[:2]
    return sorted({tuple(sorted((row, other if labels[row] == labels[one] else one))) for row in rows})  # type: ignore[misc]


def _about_pairs(
    images: Images, pairs: Sequence[tuple[int, int]], kind: str, severity: Severity, what: str, suggestion: str
) -> Finding:
    named = [(show(images.paths[left]), show(images.paths[right])) for left, right in pairs]
    paths = list(dict.fromkeys(chain.from_iterable(named)))
    shown = f"{named[0][0]} and {named[0][1]}"
    message = f"{counted(len(pairs), 'pair')} of {what}: {shown}{', …' if len(pairs) > 1 else ''}."
    return Finding(kind=kind, severity=severity, message=message, suggestion=suggestion, paths=paths, pairs=named)


def about_near_duplicates(images: Images, facts: Sequence[Facts], same: NDArray[Any]) -> Iterable[Finding]:
    """Images that look the same in two given splits."""
    rows = [row for row, fact in enumerate(facts) if fact.copy and images.splits[row]]
    likenesses = [like for row in rows if (like := facts[row].likeness)]
    pairs = [(rows[left], rows[right]) for left, right in near(likenesses, images.splits[rows], same[rows])]
    if pairs:
        yield _about_pairs(
            images,
            pairs,
            "near duplicate",
            "warning",
            "images that look the same are in two splits",
            "Compare them. Delete one of each pair, or give both the same group in a manifest.",
        )


def about_classes(images: Images, counts: dict[str, dict[str, int]], imbalance: float) -> Iterable[Finding]:
    """Empty, small and unequal classes, and those that a split lacks."""
    for sentence in gaps(images):
        yield Finding(kind="class", severity="warning", message=sentence)
    training = {
        name: sum(count for split, count in row.items() if split in ("train", "unassigned")) for name, row in counts.items()
    }
    learned = [name for name, count in training.items() if count]
    if len(learned) == 1:
        yield Finding(
            kind="one class",
            severity="error",
            message=f"All images to train on are of one class, {show(learned[0])}; a classifier needs two.",
            suggestion="Put each class into a folder of its own, or write a manifest with the columns path,label.",
        )
    few = [show(name) for name, count in training.items() if 0 < count < FEW]
    if few:
        yield Finding(
            kind="few",
            severity="warning",
            message=f"{len(few):,} of {len(training):,} classes with fewer than {FEW} images to train on: {some(few)}.",
            suggestion="Add images, or train on frozen features (recipe linear-probe or one-nn).",
        )
    if imbalance > IMBALANCE:
        yield Finding(
            kind="imbalance",
            severity="warning",
            message=f"The largest class has {imbalance:.0f} times as many images as the smallest.",
            suggestion="Use class_weights or balanced_sampling, and look at macro recall rather than at accuracy.",
        )


def about_files(images: Images, facts: Sequence[Facts]) -> Iterable[Finding]:
    """What was done to read files, and images that are very small or grey among coloured ones."""
    by_note: dict[str, list[str]] = defaultdict(list)
    for path, fact in zip(images.paths, facts, strict=True):
        for note in fact.notes:
            by_note["extension" if " named ." in note or note.endswith("without an extension") else note].append(show(path))
    wrong = by_note.pop("extension", [])
    if wrong:
        yield Finding(
            kind="extension",
            severity="note",
            message=f"{counted(len(wrong), 'file')} with a wrong or missing extension, recognised by content.",
            suggestion="Rename them if other programs need to read them.",
            paths=wrong,
        )
    for note, paths in sorted(by_note.items()):
        yield Finding(kind="decoded", severity="note", message=f"{counted(len(paths), 'file')}: {note}.", paths=paths)
    tiny = [show(path) for path, fact in zip(images.paths, facts, strict=True) if min(fact.height, fact.width) < TINY]
    if tiny:
        yield Finding(
            kind="tiny",
            severity="note",
            message=f"{counted(len(tiny), 'image')} less than {TINY} pixels high or wide.",
            suggestion="Thumbnails contain little information. Use the originals if you have them.",
            paths=tiny,
        )
    grey = [show(path) for path, fact in zip(images.paths, facts, strict=True) if fact.channels == 1]
    if 0 < len(grey) < len(facts):
        yield Finding(
            kind="grey",
            severity="note",
            message=f"Some images are grey and others in colour: {len(grey):,} of {len(facts):,} are grey.",
            suggestion="If whole classes are grey, the network may learn only that. Convert all images to grey then.",
            paths=grey,
        )


def about_shapes(images: Images) -> Iterable[Finding]:
    """Images so long that a central crop shows the smaller part of them."""
    if (cut := images.cut_away()) > CUT:
        yield Finding(
            kind="shape",
            severity="warning",
            message=f"A central crop cuts away {100 * cut:.0f} % of an image at the median.",
            suggestion="Where it matters what lies at the ends, show images whole: --set fit=pad, as the recipe auto does.",
        )


def about_boxes(images: Images) -> Iterable[Finding]:
    """Boxes that reach outside of their images, and how many images have one."""
    if not len(images.boxes):
        return
    beyond = np.flatnonzero((images.boxes[:, 2:] > images.sizes[:, ::-1] + SLACK).any(1))  # no NaN is beyond anything
    if len(beyond):
        first = beyond[0]
        (right, bottom), (height, width) = images.boxes[first, 2:], images.sizes[first]
        said = f"{show(images.paths[first])}, {width} x {height} pixels, has one to right {right:g}, bottom {bottom:g}"
        yield Finding(
            kind="box",
            severity="error",
            message=f"{counted(len(beyond), 'box', 'boxes')} outside the image: {said}{', …' if len(beyond) > 1 else ''}.",
            suggestion="Write left, top, right, bottom in the manifest in pixels of the upright image, as a viewer shows it.",
            paths=[show(images.paths[row]) for row in beyond],
        )
    boxed = int(np.isfinite(images.boxes).all(1).sum())
    yield Finding(
        kind="boxes",
        severity="note",
        message=f"Images with a box: {boxed:,} of {len(images):,}.",
        suggestion="Only the trick box_crop uses boxes.",
    )


HARMLESS = {
    SYSTEM: "",
    SIDE: "",
    HIDDEN: "",
    OURS: "",
    DROPPED: "",
    UNLABELLED: "They have no labels: trickbag predict RUN names their classes.",
}
"""Reasons why something is ignored that need no mending -> what to do with it."""


def about_ignored(images: Images) -> Iterable[Finding]:
    """What the listing left aside, by reason."""
    by_reason: dict[str, list[str]] = defaultdict(list)
    for path, reason in images.ignored:
        by_reason[reason].append(show(path))
    for reason, paths in sorted(by_reason.items()):
        yield Finding(
            kind="ignored",
            severity="note" if reason in HARMLESS else "warning",
            message=f"{len(paths)} ignored: {reason}.",
            suggestion=HARMLESS.get(reason, "It is not used. Make it readable, or remove it."),
            paths=paths,
        )


def about_reading(images: Images) -> Iterable[Finding]:
    """How the reader understood the data, where that may surprise."""
    for message, suggestion, warning in images.remarks:
        yield Finding(kind="reading", severity="warning" if warning else "note", message=message, suggestion=suggestion)


def some(names: Sequence[str], most: int = 5) -> str:
    """The first of these, and how many more."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
