"""COCO: a JSON file for each split, or one for all, with images, categories and annotations.

``annotations/instances_train2017.json`` and folders of images; ``train/_annotations.coco.json`` beside its images. The split is
the one of which the file's name speaks, else its folder. A box is left, top, width and height in pixels from the upper left
corner (Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014; format: cocodataset.org, "Object Detection").
"""

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from trickbag.data.layout import split_word
from trickbag.data.listing import Listing
from trickbag.ground import files, signals
from trickbag.ground.text import brief
from trickbag.scenes.found import Found, Labelled, Mark, images_of, normal, side_files, split_of
from trickbag.scenes.table import Fault

_BEGINS = re.compile(rb'(\xef\xbb\xbf)?\s*\{\s*"(info|images|annotations|categories|licenses?|type)"\s*:')
_HEAD = 4096
_MOST_BYTES = 1 << 30


def fits(root: Path, listing: Listing) -> bool:
    """Whether a JSON file begins as those of COCO do."""
    return bool(_files(root, listing))


def read(root: Path, listing: Listing) -> Found:
    """The boxes of a folder; what cannot be read is among the faults."""
    found = Found()
    images = images_of(listing)
    by_name: dict[str, list[str]] = defaultdict(list)
    for image in images:
        by_name[normal(PurePosixPath(image).name)].append(image)
    for file in _files(root, listing):
        signals.look()
        try:
            table = _table(files.text(root / file, _MOST_BYTES))
        except OSError as error:
            found.faults.append(Fault("damaged", file, files.reason(error)))
        except ValueError as error:
            found.faults.append(Fault("damaged", file, str(error)))
        else:
            _Reader(file, split_word(PurePosixPath(file).stem) or split_of(file), by_name, found).read(table)
    found.faults += [Fault("unlisted", image, "in no JSON file") for image in images if image not in found.labelled]
    return found


def _files(root: Path, listing: Listing) -> list[str]:
    """The JSON files of boxes; where some are named after COCO's instances, the others have keypoints, captions or stuff."""
    there = [path for path in side_files(listing, ".json") if _begins(root / path)]
    return [path for path in there if path.rpartition("/")[2].startswith("instances")] or there


def _begins(path: Path) -> bool:
    try:
        with files.regular(path) as file:
            return bool(_BEGINS.match(file.read(_HEAD)))
    except OSError:
        return False


def _table(text: str) -> Mapping[str, Any]:
    """The three lists of a JSON file. Raises ValueError, with the place, where it lacks one."""
    try:
        table = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno}, column {error.colno}: {error.msg}") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    for name in ("images", "annotations", "categories"):
        if not isinstance(table.get(name), list):
            raise ValueError(f"it has no list {name}")
    return dict(table)


class _Reader:
    """One JSON file being read into what was found."""

    def __init__(self, file: str, split: str, by_name: Mapping[str, Sequence[str]], found: Found) -> None:
        self.file, self.split, self.by_name, self.found = file, split, by_name, found

    def read(self, table: Mapping[str, Any]) -> None:
        """Take up images, boxes and classes."""
        names = {}
        for number, category in enumerate(table["categories"]):
            key, name = _key(category, "id"), category.get("name") if isinstance(category, dict) else None
            if key is None or not isinstance(name, str) or not name.strip():
                self._fault("unread", f"categories[{number}]: no id, or no name")
                continue
            names[key] = name.strip()
        self.found.classes |= set(names.values())
        images, marks, lost = self._images(table["images"]), defaultdict[str, list[Mark]](list), set[str]()
        for number, annotation in enumerate(table["annotations"]):
            where, image = f"annotations[{number}]", _key(annotation, "image_id")
            path = images[image][0] if image in images else ""
            try:
                mark = _mark(annotation, names, where)
                if image not in images:
                    raise ValueError(f"image_id {brief(str(annotation.get('image_id')), 30)} is no image of the file")
            except ValueError as error:
                self._fault("unread", f"{where}: {error}")
                lost.add(path)
            except LookupError as error:
                self._fault("unknown class", f"{where}: {error.args[0]}")
                lost.add(path)
            else:
                marks[path].append(mark)
        for path, size in images.values():
            if path:
                self._label(path, Labelled(self.file, marks[path], size, path in lost))

    def _label(self, path: str, one: Labelled) -> None:
        before = self.found.labelled.setdefault(path, one)
        if [mark[:3] for mark in before.marks] != [mark[:3] for mark in one.marks]:
            self._fault("two labels", f"{path}: its boxes differ from those in {before.file}, which are used")
        self.found.assign(path, self.split, self.file)

    def _images(self, given: Sequence[Any]) -> dict[str | int, tuple[str, tuple[int, int] | None]]:
        """Id -> path and the size that the file tells; the path is empty where there is no such image."""
        found: dict[str | int, tuple[str, tuple[int, int] | None]] = {}
        for number, image in enumerate(given):
            key, name = _key(image, "id"), image.get("file_name") if isinstance(image, dict) else None
            if key is None or not isinstance(name, str) or not name:
                self._fault("unread", f"images[{number}]: no id, or no file_name")
                continue
            there = self._paths(normal(name.replace("\\", "/")))
            if len(there) != 1:
                why = "is there several times" if there else "is not there"
                self._fault("missing", f"images[{number}]: {brief(name)} {why}")
            height, width = image.get("height"), image.get("width")
            known = isinstance(height, int) and isinstance(width, int) and min(height, width) > 0
            found[key] = there[0] if len(there) == 1 else "", (height, width) if known else None
        return found

    def _paths(self, name: str) -> list[str]:
        """The images that a file's name may mean, the fewer the better."""
        there = list(self.by_name.get(name.rpartition("/")[2], ()))
        beside = self.file.rpartition("/")[0]
        for nearer in (
            lambda path: normal(f"/{path}").endswith(f"/{name}"),
            lambda path: normal(path) == normal(f"{beside}/{name}" if beside else name),
            lambda path: split_of(path) == self.split,
        ):
            there = list(filter(nearer, there)) or there
        return there

    def _fault(self, kind: str, what: str) -> None:
        self.found.faults.append(Fault(kind, self.file, what))


def _mark(annotation: Any, names: Mapping[str | int, str], where: str) -> Mark:
    """A box. Raises ValueError where it is none, LookupError where its class is unknown."""
    if not isinstance(annotation, dict):
        raise ValueError("no table of fields")
    box = annotation.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(isinstance(value, int | float) for value in box):
        raise ValueError("bbox is missing" if box is None else "bbox is no list of four numbers")
    category = _key(annotation, "category_id")
    if category is None or category not in names:
        raise LookupError(f"category_id {brief(str(annotation.get('category_id')), 30)} is not among the categories")
    try:
        left, top, width, height = map(float, box)
    except OverflowError:
        raise ValueError("bbox has a number that is too large") from None
    return Mark(names[category], (left, top, left + width, top + height), annotation.get("iscrowd") in (1, True), where)


def _key(given: Any, name: str) -> str | int | None:
    value = given.get(name) if isinstance(given, dict) else None
    return value if isinstance(value, str | int) else None
