"""Pascal VOC: an XML file for each image, and lists of the images of each split.

``Annotations/*.xml``, ``JPEGImages``, ``ImageSets/Main/{train,val,trainval,test}.txt``; XML files beside their images, in
folders of splits, are read as well. Coordinates are whole pixels counted from 1, the last one included (Everingham et al., "The
PASCAL Visual Object Classes Challenge", development kit of 2007, section 4). Boxes are 0-based here, and end where the last
pixel ends: left = xmin - 1, top = ymin - 1, right = xmax, bottom = ymax.
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from trickbag.data.listing import Listing
from trickbag.ground import files, signals
from trickbag.ground.text import brief
from trickbag.scenes.found import Found, Labelled, Mark, images_of, normal, paired, side_files, split_of
from trickbag.scenes.table import Fault

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_MOST_BYTES = 1 << 24
"""Of one annotation or list."""
_LISTS = {"train": "train", "val": "val", "trainval": "train", "test": "test"}
"""Lists in the order in which they are read -> split; trainval gives what the other two leave."""


def fits(_: Path, listing: Listing) -> bool:
    """Whether XML files lie in folders of annotations, or beside images."""
    images = {PurePosixPath(path).with_suffix("") for path in listing.files}
    names = [PurePosixPath(path) for path in side_files(listing, ".xml")]
    return any("annotations" in map(str.lower, name.parts[:-1]) or name.with_suffix("") in images for name in names)


def read(root: Path, listing: Listing) -> Found:
    """The boxes of a folder; what cannot be read is among the faults."""
    found = Found()
    pairs = paired(images_of(listing), side_files(listing, ".xml"))
    found.faults += [Fault("no label", image, "no XML file") for image in pairs.bare]
    found.faults += [Fault("no image", label, "no image") for label in pairs.stray]
    for label, image in pairs.images.items():
        signals.look()
        try:
            found.labelled[image] = annotation(files.content(root / label, _MOST_BYTES), label, found.faults)
        except OSError as error:
            found.faults.append(Fault("damaged", label, files.reason(error)))
        except ValueError as error:
            found.faults.append(Fault("damaged", label, str(error)))
    used = divided(root, listing, "main", list(pairs.images.values()), found)
    found.labelled = {image: found.labelled[image] for image in used if image in found.labelled}
    found.classes = {mark.name for one in found.labelled.values() for mark in one.marks}
    return found


def annotation(content: bytes, file: str, faults: list[Fault]) -> Labelled:
    """What one XML file says; objects that cannot be read become faults. Raises ValueError where it is no annotation."""
    tree = _tree(content)
    if tree.tag != "annotation":
        raise ValueError(f"its root is {brief(tree.tag, 30)}, not annotation")
    marks, things = list[Mark](), tree.findall("object")
    for number, thing in enumerate(things, 1):
        where = f"object {number}"
        try:
            name = (thing.findtext("name") or "").strip()
            if not name:
                raise ValueError("no name")
            left, top, right, bottom = (_number(thing, f"bndbox/{corner}") for corner in _CORNERS)
        except ValueError as error:
            faults.append(Fault("unread", file, f"{where}: {error}"))
            continue
        marks.append(Mark(name, (left - 1, top - 1, right, bottom), (thing.findtext("difficult") or "").strip() == "1", where))
    try:
        size = int(_number(tree, "size/height")), int(_number(tree, "size/width"))
    except (ValueError, OverflowError):
        size = (0, 0)  # many programs leave it out
    return Labelled(file, marks, size if min(size) > 0 else None, len(marks) < len(things))


def divided(root: Path, listing: Listing, folder: str, images: Sequence[str], found: Found) -> list[str]:
    """Put images into splits: those of the lists in ``ImageSets/<folder>``, else those of which their folders speak.

    Returns the images that are used: where there are lists, those in none are left out.
    """
    there = {PurePosixPath(path).stem.lower(): path for path in side_files(listing, ".txt") if _is_list(path, folder)}
    if not there.keys() & _LISTS.keys():
        found.splits |= {image: split for image in images if (split := split_of(image))}
        return list(images)
    by_name: dict[str, list[str]] = defaultdict(list)
    for image in images:
        by_name[normal(PurePosixPath(image).stem)].append(image)
    assigned = set[str]()
    for name, split in _LISTS.items():
        if name not in there:
            continue
        for number, line in enumerate(map(normal, _lines(root, there[name], found.faults)), 1):
            words = line.split()  # a list of one class has a flag behind each name
            if not words:
                continue
            meant = by_name.get(PurePosixPath(line.strip()).name) or by_name.get(PurePosixPath(words[0]).name, [])
            if not meant:
                what = f"line {number}: {brief(words[0], 60)} has no image with a label"
                found.faults.append(Fault("list", there[name], what))
            for image in meant:
                if name != "trainval" or image not in assigned:
                    found.assign(image, split, there[name])
                assigned.add(image)
    found.faults += [Fault("unlisted", image, "in no list") for image in images if image not in assigned]
    return [image for image in images if image in assigned]


def _is_list(path: str, folder: str) -> bool:
    parts = [part.lower() for part in path.split("/")]
    return parts[-3:-1] == ["imagesets", folder]


def _lines(root: Path, path: str, faults: list[Fault]) -> list[str]:
    try:
        return files.text(root / path, _MOST_BYTES).splitlines()
    except OSError as error:
        faults.append(Fault("damaged", path, files.reason(error)))
        return []


def _number(element: Element, place: str) -> float:
    text = (element.findtext(place) or "").strip()
    try:
        return float(text)
    except ValueError:
        field = place.rpartition("/")[2]
        raise ValueError(f"{field} is {brief(text, 30)}, no number" if text else f"no {field}") from None


def _tree(content: bytes) -> Element:
    """The tree of an XML file. Raises ValueError, with the place, where it is none or defines a document type or entities:
    no annotation needs these, and they could grow without bounds or name other files.
    """
    builder, parser = TreeBuilder(), expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = builder.start, builder.end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = _refuse
    try:
        parser.Parse(content, True)
        return builder.close()
    except expat.ExpatError as error:
        said = expat.ErrorString(error.code) or "no XML"
        raise ValueError(f"line {error.lineno}, column {error.offset + 1}: {said}") from None
    except (AssertionError, LookupError) as error:
        raise ValueError(f"no XML: {error}") from None


def _refuse(*_: object) -> None:
    raise ValueError("it defines a document type (DOCTYPE), which is not read")
