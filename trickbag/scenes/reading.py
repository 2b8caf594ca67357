"""The one door for images with boxes or regions: a folder becomes a table, whichever form it has."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trickbag.data import archives
from trickbag.data.listing import Listing, list_folder
from trickbag.data.reading import MOST_SHOWN, Place
from trickbag.ground.errors import UsageError
from trickbag.ground.events import Tell, silent
from trickbag.ground.text import brief, show
from trickbag.scenes import coco, regions, voc, yolo
from trickbag.scenes.found import Found, said, set_aside
from trickbag.scenes.looking import copies, looked_at
from trickbag.scenes.marks import boxes_of
from trickbag.scenes.table import Boxes, Fault, Scenes, Task

FORMS = {
    "detection": "Give a folder in the form of Pascal VOC (XML), COCO (JSON) or YOLO (text and data.yaml).",
    "segmentation": regions.WRITE,
}


def read(data: str | Path, task: Task, tell: Tell = silent, ignore: Sequence[str] = ()) -> Scenes:
    """The images of a folder, or of an archive of one, with their boxes (detection) or regions (segmentation).

    Every file is opened: images that cannot be read or have no labels, and boxes of no use, are left out and are among the
    table's ``faults``. ``ignore``: classes of regions, by name or by value in the label images, whose pixels do not count.

    Raises UsageError where there is no such folder, it has none of the forms or more than one, or nothing in it can be used.
    """
    place = Place.of(str(data))
    if place.kind == "file" and archives.is_archive(place.path):
        root = archives.unpack(place.path, tell)
    elif place.kind == "folder":
        root = place.path
    else:
        kinds = {"": "does not exist", "file": "is neither a folder nor an archive"}
        raise UsageError(f"{brief(str(data), MOST_SHOWN)} {kinds.get(place.kind, f'is {place.kind}')}. {FORMS[task]}")
    listing = list_folder(root)
    if task == "segmentation":
        return regions.read(root, listing, ignore, tell)
    if ignore:
        raise UsageError("ignore is for regions: classes whose pixels do not count. Leave it out.")
    return _with_boxes(root, listing, tell)


@dataclass(frozen=True)
class Form:
    """A way in which boxes are written down."""

    name: str
    fits: Callable[[Path, Listing], bool]
    read: Callable[[Path, Listing], Found]


BOXES = (
    Form("Pascal VOC", voc.fits, voc.read),
    Form("COCO", coco.fits, coco.read),
    Form("YOLO", yolo.fits, yolo.read),
)


def _with_boxes(root: Path, listing: Listing, tell: Tell) -> Scenes:
    forms = [form for form in BOXES if form.fits(root, listing)]
    if not forms:
        raise UsageError(f"{str(root)!r} holds no boxes in a form that is known. {FORMS['detection']}")
    if len(forms) > 1:
        names = " and ".join(form.name for form in forms)
        raise UsageError(f"{str(root)!r} holds boxes as {names}. Move the labels of one form elsewhere.")
    found = forms[0].read(root, listing)
    facts, faults = looked_at(root, sorted(found.labelled), tell)
    classes = tuple(sorted(found.classes))
    numbers = {name: number for number, name in enumerate(classes)}
    boxes = dict[str, Boxes]()
    for path in (path for path, fact in facts.items() if not fact.error):
        one, size = found.labelled[path], (facts[path].height, facts[path].width)
        if one.size and one.size != size:
            told = f"is for an image of {one.size[1]} x {one.size[0]} pixels; {show(path)} has {size[1]} x {size[0]}"
            faults.append(Fault("size", one.file, told))
        own, more = boxes_of(one.marks, size, numbers, one.file, found.relative)
        faults += more
        if len(own.labels) or not (one.marks or one.lost):
            boxes[path] = own
        else:  # it would teach that there is nothing on it
            faults.append(Fault("no box", path, "none of its boxes can be used"))
    faults, paths = [*found.faults, *faults], tuple(boxes)
    if not paths:
        raise UsageError(f"no image of {str(root)!r} can be used{': ' if faults else ''}{said(faults)}. {FORMS['detection']}")
    return Scenes(
        "detection",
        root,
        paths,
        np.array([found.splits.get(path, "") for path in paths], "<U5"),
        classes,
        np.array([(facts[path].height, facts[path].width) for path in paths], np.int64),
        tuple(facts[path].content for path in paths),
        copies([facts[path] for path in paths]),
        tuple(boxes.values()),
        faults=tuple(faults),
        ignored=set_aside(listing),
    )
