"""The findings of an audit of scenes, each with a suggestion; those about files and copies are the same for all images."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import replace
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from trickbag.data.findings import Finding, Severity
from trickbag.data.images import gaps
from trickbag.ground.text import counted, show
from trickbag.scenes.marks import LEAST
from trickbag.scenes.table import Boxes, Fault, Scenes


class Kind(NamedTuple):
    """What a kind of fault means to the user."""

    severity: Severity
    noun: str
    plural: str
    message: str
    """What is said of so many of these."""
    suggestion: str


_BOX = ("box", "boxes")
_FILE = ("label file", "label files")
_IMAGE = ("image", "images")
_LABEL = ("label image", "label images")
_PIXELS = "Write pixels of the upright image, as a viewer shows it."
KINDS = {
    "damaged": Kind("warning", *_FILE, "of no use: left out, and the images with it", "Repair or remove what is damaged."),
    "no label": Kind("warning", *_IMAGE, "without labels: left out", "Label what is there. An empty label file says: nothing."),
    "no image": Kind("warning", *_FILE, "without an image", "Add an image of the same name, or remove the file."),
    "missing": Kind("warning", *_IMAGE, "of a JSON file not found", "Add the image, or correct file_name."),
    "list": Kind("warning", "line", "lines", "of lists of splits without a labelled image", "Add the image, or remove it."),
    "unlisted": Kind("note", *_IMAGE, "in no list or JSON file: left out", "List what is to be used."),
    "two splits": Kind("warning", *_IMAGE, "given to two splits: used in one", "Name it in one split only."),
    "two labels": Kind("warning", *_IMAGE, "with other boxes in a second file", "Keep one of the files."),
    "size": Kind("warning", *_FILE, "for an image of another size: boxes may be off", _PIXELS),
    "unread": Kind("warning", "entry", "entries", "of label files not understood: dropped", "Correct what is written there."),
    "unknown class": Kind("warning", *_BOX, "of an unknown class: dropped", "Name the class, or correct its number."),
    "not finite": Kind("warning", *_BOX, "with infinite or undefined sides: dropped", "Draw it again."),
    "reversed": Kind("warning", *_BOX, "whose right or lower edge comes first: dropped", "Swap the corners."),
    "no area": Kind("warning", *_BOX, f"at most {LEAST:g} pixel wide or high: dropped", "Draw it again, or remove it."),
    "outside": Kind("warning", *_BOX, "outside of the image: dropped", _PIXELS),
    "clipped": Kind("warning", *_BOX, "reaching past the image: clipped", _PIXELS),
    "double": Kind("warning", *_BOX, "drawn twice: used once", "Remove the copy."),
    "no box": Kind("warning", *_IMAGE, "with boxes of which none can be used: left out", "Correct the boxes, or remove all."),
    "label size": Kind("warning", *_LABEL, "of another size than the image: left out, with the image", "Export labels anew."),
    "no region": Kind("warning", *_LABEL, "without a pixel of a class: left out, with the image", "Label what is there."),
    "unknown value": Kind("warning", "value", "values", "of label images without a name: ignored", "Name what is a class."),
    "names": Kind("warning", "file of names", "files of names", "not understood: not used", "Correct what is written there."),
}
"""Of ``trickbag.scenes.table.Fault``, in the order in which they are told."""


def about_faults(scenes: Scenes) -> Iterable[Finding]:
    """What was clipped, dropped and left out, by kind."""
    by_kind: dict[str, list[Fault]] = defaultdict(list)
    for fault in scenes.faults:
        by_kind[fault.kind].append(fault)
    for kind, said in KINDS.items():
        if faults := by_kind.get(kind):
            yield Finding(
                kind=kind,
                severity=said.severity,
                message=f"{counted(len(faults), said.noun, said.plural)} {said.message}.",
                suggestion=said.suggestion,
                paths=list(dict.fromkeys(show(fault.path) for fault in faults)),
            )


def about_copies(scenes: Scenes) -> Iterable[Finding]:
    """Exact copies that are labelled differently."""
    marks: dict[int, tuple[int, Any]] = {}
    pairs = []
    for row, group in enumerate(scenes.groups.tolist()):
        own = _content(scenes.boxes[row]) if scenes.boxes else scenes.region_hashes[row]
        first, other = marks.setdefault(group, (row, own))
        if own != other:
            pairs.append((show(scenes.paths[first]), show(scenes.paths[row])))
    if pairs:
        yield Finding(
            kind="conflict",
            severity="warning",
            message=f"{counted(len(pairs), 'pair')} of exact copies with different labels: {' and '.join(pairs[0])}.",
            suggestion="Decide which labels are right and delete the other copy.",
            paths=list(dict.fromkeys(chain.from_iterable(pairs))),
            pairs=pairs,
        )


def _content(boxes: Boxes) -> set[tuple[Any, ...]]:
    return {(label, *xyxy) for xyxy, label in zip(boxes.xyxy.tolist(), boxes.labels.tolist(), strict=True)}


def about_classes(scenes: Scenes) -> Iterable[Finding]:
    """No class at all, empty ones, those that a split lacks or that are spelled alike, and images with nothing on them."""
    rows, labels = np.nonzero(scenes.per_image())
    if not len(labels):
        yield Finding(kind="nothing", severity="error", message="There is no box.", suggestion="Draw some on the images.")
        return
    if scenes.task == "segmentation" and len(scenes.classes) == 1:
        yield Finding(
            kind="one class",
            severity="error",
            message=f"All pixels that count are of one class, {show(scenes.classes[0])}; 255 is ignored.",
            suggestion="Give each pixel the number of its class: 0 and 1, say, for the background and one kind of thing.",
        )
    table = replace(scenes.images, groups=np.arange(len(scenes))).take(rows)
    for sentence in gaps(replace(table, labels=labels.astype(np.int64), classes=scenes.classes), folders=False):
        yield Finding(kind="class", severity="warning", message=sentence)
    bare = [show(scenes.paths[row]) for row in sorted(set(range(len(scenes))) - set(rows.tolist()))]
    if bare:
        yield Finding(
            kind="bare",
            severity="note",
            message=f"{counted(len(bare), 'image')} labelled as having nothing on them.",
            suggestion="They teach what is none of the classes.",
            paths=bare,
        )


def about_splits(scenes: Scenes) -> Iterable[Finding]:
    """Which splits are given and which will be made."""
    counts = Counter(scenes.splits.tolist())
    given = [f"{name} {counts[name]:,}" for name in ("train", "val", "test") if counts[name]]
    made = [name for name in ("val", "test") if not counts[name]]
    told = f"Splits given: {', '.join(given)}." if given else "No split is given."
    if not counts["train"] and not counts[""]:
        yield Finding(kind="splits", severity="error", message=told, suggestion="Give images to train on.")
    elif made:
        cure = f"Training takes {' and '.join(made)} out of the images that are in no other split."
        yield Finding(kind="splits", severity="note", message=told, suggestion=cure)
    if given and counts[""]:
        unsaid = f"{counted(counts[''], 'image')} in no split."
        yield Finding(kind="unassigned", severity="note", message=unsaid, suggestion="They are used for training.")
