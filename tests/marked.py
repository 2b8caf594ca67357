"""Small data sets with boxes or regions, written in every form that is read."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

import numpy as np
from PIL import Image


class Box(NamedTuple):
    """Left, top, right, bottom in whole pixels, 0-based, the right and lower edge where the last pixel ends."""

    name: str
    left: int
    top: int
    right: int
    bottom: int
    ignored: bool = False


class Photo(NamedTuple):
    split: str
    boxes: Sequence[Box] = ()
    width: int = 40
    height: int = 30


PHOTOS = {
    "a": Photo("train", [Box("cat", 0, 0, 12, 9), Box("dog", 5, 4, 40, 30)]),
    "b": Photo("train", [Box("dog", 3, 3, 9, 20)], 32, 48),
    "c": Photo("train", []),
    "d": Photo("val", [Box("cat", 10, 10, 30, 22)]),
    "e": Photo("test", [Box("cat", 1, 2, 3, 4), Box("cat", 20, 20, 39, 29)]),
}
CLASSES = ("cat", "dog")


def photo(path: Path, width: int = 40, height: int = 30, seed: int = 0) -> Path:
    """A picture of noise, which is no near copy of another."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def _photos(folder: Path, photos: Mapping[str, Photo], place: str) -> None:
    for number, (name, one) in enumerate(photos.items()):
        photo(folder / place.format(name=name, split=one.split), one.width, one.height, number)


def xml(one: Photo, name: str = "") -> str:
    """The annotation of Pascal VOC."""
    things = "".join(
        f"<object><name>{escape(box.name)}</name><difficult>{int(box.ignored)}</difficult><bndbox><xmin>{box.left + 1}</xmin>"
        f"<ymin>{box.top + 1}</ymin><xmax>{box.right}</xmax><ymax>{box.bottom}</ymax></bndbox></object>\n"
        for box in one.boxes
    )
    size = f"<size><width>{one.width}</width><height>{one.height}</height><depth>3</depth></size>"
    return f"<annotation><folder>JPEGImages</folder><filename>{escape(name)}.png</filename>{size}\n{things}</annotation>"


def voc(root: Path, photos: Mapping[str, Photo] = PHOTOS) -> Path:
    """Pascal VOC."""
    _photos(root, photos, "JPEGImages/{name}.png")
    for place in ("Annotations", "ImageSets/Main"):
        (root / place).mkdir(parents=True, exist_ok=True)
    for name, one in photos.items():
        (root / "Annotations" / f"{name}.xml").write_text(xml(one, name), "utf-8")
    for split in {one.split for one in photos.values() if one.split}:
        names = [name for name, one in photos.items() if one.split == split]
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names), "utf-8")
    return root


def coco_table(photos: Mapping[str, Photo]) -> dict:
    """What a JSON file of COCO holds."""
    names = sorted({box.name for one in photos.values() for box in one.boxes} | set(CLASSES))
    images = [
        {"id": number, "file_name": f"{name}.png", "height": one.height, "width": one.width}
        for number, (name, one) in enumerate(photos.items(), 100)
    ]
    boxes = [
        (number, box, [box.left, box.top, box.right - box.left, box.bottom - box.top])
        for number, one in enumerate(photos.values(), 100)
        for box in one.boxes
    ]
    annotations = [
        {"id": at, "image_id": number, "category_id": 7 + names.index(box.name), "bbox": bbox, "iscrowd": int(box.ignored)}
        for at, (number, box, bbox) in enumerate(boxes)
    ]
    categories = [{"id": 7 + k, "name": name} for k, name in enumerate(names)]
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories}


def coco(root: Path, photos: Mapping[str, Photo] = PHOTOS) -> Path:
    """COCO, a JSON file for each split."""
    _photos(root, photos, "{split}2017/{name}.png")
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    for split in {one.split for one in photos.values()}:
        table = coco_table({name: one for name, one in photos.items() if one.split == split})
        (root / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(table), "utf-8")
    return root


def yolo(root: Path, photos: Mapping[str, Photo] = PHOTOS) -> Path:
    """YOLO, with data.yaml."""
    _photos(root, photos, "images/{split}/{name}.png")
    names = sorted({box.name for one in photos.values() for box in one.boxes} | set(CLASSES))
    for name, one in photos.items():
        file = root / "labels" / one.split / f"{name}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        lines = []
        for box in one.boxes:
            x, y = (box.left + box.right) / 2 / one.width, (box.top + box.bottom) / 2 / one.height
            size = (box.right - box.left) / one.width, (box.bottom - box.top) / one.height
            lines.append(f"{names.index(box.name)} {x} {y} {size[0]} {size[1]}")
        file.write_text("\n".join(lines), "utf-8")
    (root / "data.yaml").write_text(f"train: images/train\nval: images/val\nnames: {json.dumps(names)}\n", "utf-8")
    return root


FORMS = {"voc": voc, "coco": coco, "yolo": yolo}


def regions(root: Path, photos: Mapping[str, Photo] = PHOTOS, *, palette: bool = False) -> Path:
    """Images and label images: 0 for cats, 1 for dogs, 255 elsewhere but for the upper row, which is the ground, 4."""
    _photos(root, photos, "{split}/images/{name}.png")
    for name, one in photos.items():
        values = np.full((one.height, one.width), 255, np.uint8)
        for box in one.boxes:
            values[box.top : box.bottom, box.left : box.right] = CLASSES.index(box.name)
        values[0] = 4
        save_region(root / one.split / "labels" / f"{name}.png", values, palette=palette)
    return root


def save_region(path: Path, values: np.ndarray, *, palette: bool = False) -> Path:
    """A label image, uint8 [H, W]."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values)
    if palette:
        image = image.copy()
        image.putpalette(np.random.default_rng(0).integers(0, 256, 768, dtype=np.uint8).tobytes())
    image.save(path)
    return path


def cells(root: Path) -> Path:
    """The data set of the examples: red and white cells, without a test split."""
    photos = {
        "1": Photo("train", [Box("red", 2, 2, 12, 10), Box("red", 20, 5, 29, 13), Box("white", 10, 12, 34, 29)]),
        "2": Photo("train", [Box("red", 4, 8, 13, 16), Box("white", 14, 2, 38, 18)]),
        "3": Photo("val", [Box("red", 15, 15, 25, 23), Box("white", 1, 1, 20, 14)]),
    }
    return voc(root, photos)
