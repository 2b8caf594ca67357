"""Every form of boxes is read to the same table, which is what was written and what other readers make of the folder."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import marked
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from marked import CLASSES, FORMS, PHOTOS, Box, Photo

from trickbag.scenes.reading import read
from trickbag.scenes.table import Scenes


def told(scenes: Scenes) -> dict[str, tuple]:
    """Image by its bare name -> split, size and boxes."""
    found = {}
    for row, path in enumerate(scenes.paths):
        boxes = zip(*(column.tolist() for column in scenes.boxes[row]), strict=True)
        marks = {(scenes.classes[label], *xyxy, ignored) for xyxy, label, ignored in boxes}
        found[Path(path).stem] = (scenes.splits[row], *scenes.sizes[row].tolist(), marks)
    return found


def meant(photos: dict[str, Photo], *, crowds: bool = True) -> dict[str, tuple]:
    """The same of what was written."""
    return {
        name: (one.split, one.height, one.width, {(*map(float_or_text, box[:5]), box.ignored and crowds) for box in one.boxes})
        for name, one in photos.items()
    }


def float_or_text(value: str | int) -> str | float:
    return value if isinstance(value, str) else float(value)


@pytest.mark.parametrize("form", FORMS)
def test_each_form_is_read_as_it_was_written(form: str, tmp_path: Path, cache: Path) -> None:
    scenes = read(FORMS[form](tmp_path / "set"), "detection")
    assert told(scenes) == meant(PHOTOS)
    assert scenes.classes == CLASSES
    assert not scenes.faults
    assert list(scenes.paths) == sorted(scenes.paths)
    assert len(scenes.take([1, 0])) == 2
    assert told(scenes.split("val")) == {"d": meant(PHOTOS)["d"]}


coordinates = st.tuples(st.integers(0, 37), st.integers(0, 27), st.integers(2, 40), st.integers(2, 30))
boxes = st.builds(
    lambda name, at, ignored: Box(name, at[0], at[1], min(40, at[0] + at[2]), min(30, at[1] + at[3]), ignored),
    st.sampled_from([*CLASSES, "猫 & <b>", "a b"]),
    coordinates,
    st.booleans(),
)
photos = st.dictionaries(
    st.sampled_from(["a", "b", "ü x", "c.d"]),
    st.builds(
        Photo,
        st.sampled_from(["train", "val"]),
        st.lists(boxes, max_size=4, unique_by=lambda b: b[:5]),
        st.just(40),
        st.just(30),
    ),
    min_size=1,
)


@settings(max_examples=12, deadline=None)
@given(photos)
def test_random_boxes_are_the_same_in_all_forms(tmp_path_factory: pytest.TempPathFactory, photos: dict[str, Photo]) -> None:
    place = tmp_path_factory.mktemp("forms")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRICKBAG_CACHE", str(place / "cache"))
        assert told(read(marked.voc(place / "voc", photos), "detection")) == meant(photos)
        assert told(read(marked.coco(place / "coco", photos), "detection")) == meant(photos)
        assert told(read(marked.yolo(place / "yolo", photos), "detection")) == meant(photos, crowds=False)
    shutil.rmtree(place)


def test_torchvision_reads_the_same_boxes_of_pascal_voc(tmp_path: Path, cache: Path) -> None:
    from torchvision.datasets import VOCDetection

    root = marked.voc(tmp_path / "VOCdevkit" / "VOC2012")
    for file in (root / "JPEGImages").iterdir():
        file.rename(file.with_suffix(".jpg"))
    scenes = read(root, "detection")
    for split in ("train", "val"):
        own, theirs = told(scenes.split(split)), {}
        for _, target in VOCDetection(str(tmp_path), year="2012", image_set=split):
            marks = set()
            for thing in target["annotation"].get("object", []):
                corners = {name: float(value) for name, value in thing["bndbox"].items()}
                left, top = corners["xmin"] - 1, corners["ymin"] - 1
                marks.add((thing["name"], left, top, corners["xmax"], corners["ymax"], thing["difficult"] == "1"))
            theirs[Path(target["annotation"]["filename"]).stem] = marks
        assert {name: one[3] for name, one in own.items()} == theirs


def test_the_readers_of_coco_read_the_same_boxes(tmp_path: Path, cache: Path) -> None:
    from torchvision.datasets import CocoDetection

    photos = {**PHOTOS, "f": Photo("val", [Box("dog", 4, 4, 20, 20, ignored=True)])}
    root = marked.coco(tmp_path / "set", photos)
    own, theirs = told(read(root, "detection")), {}
    for split in ("train", "val", "test"):
        file = root / "annotations" / f"instances_{split}2017.json"
        data = CocoDetection(str(root / f"{split}2017"), str(file))
        for number, (_, target) in zip(data.ids, data, strict=True):
            name = Path(data.coco.loadImgs(number)[0]["file_name"]).stem
            marks = set()
            for one in target:
                left, top, width, height = map(float, one["bbox"])
                kind = data.coco.loadCats(one["category_id"])[0]["name"]
                marks.add((kind, left, top, left + width, top + height, bool(one["iscrowd"])))
            theirs[name] = marks
    assert {name: one[3] for name, one in own.items()} == theirs


def one_json(root: Path) -> None:
    marked.coco(root)
    shutil.rmtree(root / "annotations")
    table = marked.coco_table(PHOTOS)
    for image, one in zip(table["images"], PHOTOS.values(), strict=True):
        image["file_name"] = f"{one.split}2017/{image['file_name']}"
    (root / "labels.json").write_text(json.dumps(table))


def json_beside(root: Path) -> None:
    marked.coco(root)
    for split in ("train", "val", "test"):
        (root / f"{split}2017").rename(root / split)
        (root / "annotations" / f"instances_{split}2017.json").rename(root / split / "_annotations.coco.json")


def captions_too(root: Path) -> None:
    marked.coco(root)
    (root / "annotations" / "captions_train2017.json").write_text('{"info": {}, "images": [], "annotations": [{"caption": 1}]}')
    (root / "package.json").write_text('{"name": "set"}')
    (root / "annotations" / "README.txt").write_text("Made in 2017.")


def lists(root: Path) -> None:
    marked.yolo(root, {name: one._replace(split="all") for name, one in PHOTOS.items()})
    for split in ("train", "val", "test"):
        names = [f"/home/me/set/images/all/{name}.png" for name, one in PHOTOS.items() if one.split == split]
        (root / f"{split}.txt").write_text("\n".join(names))
    (root / "data.yaml").write_text("path: /home/me/set\ntrain: train.txt\nval: val.txt\ntest: test.txt\nnames: [cat, dog]")


def xml_beside(root: Path) -> None:
    marked.voc(root)
    for name, one in PHOTOS.items():
        (root / one.split).mkdir(exist_ok=True)
        (root / "Annotations" / f"{name}.xml").rename(root / one.split / f"{name}.xml")
        (root / "JPEGImages" / f"{name}.png").rename(root / one.split / f"{name}.png")
    shutil.rmtree(root / "ImageSets")


def darknet(root: Path) -> None:
    marked.yolo(root)
    for name, one in PHOTOS.items():
        (root / "labels" / one.split / f"{name}.txt").rename(root / "images" / one.split / f"{name}.txt")
    (root / "data.yaml").unlink()
    (root / "obj.names").write_text("cat\ndog\n")


def named_folders(root: Path) -> None:
    named = {"train": "first", "val": "holdout", "test": "unseen"}
    marked.yolo(root, {name: one._replace(split=named[one.split]) for name, one in PHOTOS.items()})
    places = "train: ../images/first\nval: [./images/holdout]\ntest: images/unseen"
    (root / "data.yaml").write_text(f"{places}\nnames: {{0: cat, 1: dog}}\nnc: 2")


def trainval(root: Path) -> None:
    marked.voc(root)
    sets = root / "ImageSets" / "Main"
    sets.joinpath("trainval.txt").write_text("a\nb\nc\nd\n")
    sets.joinpath("train.txt").unlink()
    sets.joinpath("cat_train.txt").write_text("a  1\nb -1\n")


LAYOUTS = (one_json, json_beside, captions_too, lists, xml_beside, darknet, named_folders, trainval)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_other_layouts_of_the_forms(layout: Callable[[Path], None], tmp_path: Path, cache: Path) -> None:
    layout(tmp_path / "set")
    scenes = read(tmp_path / "set", "detection")
    assert told(scenes) == {name: ("" if layout is one_json else one[0], *one[1:]) for name, one in meant(PHOTOS).items()}
    assert not scenes.faults


def test_the_fingerprint_follows_images_and_labels_alone(tmp_path: Path, cache: Path) -> None:
    first = read(marked.voc(tmp_path / "one"), "detection").fingerprint
    assert read(marked.voc(tmp_path / "two"), "detection").fingerprint == first
    scenes = read(tmp_path / "two", "detection")
    assert scenes.take(np.arange(5)[::-1]).fingerprint == first
    assert scenes.take([0, 1]).fingerprint != first
    moved = {**PHOTOS, "a": PHOTOS["a"]._replace(boxes=[*PHOTOS["a"].boxes[:1], Box("dog", 5, 4, 40, 29)])}
    assert read(marked.voc(tmp_path / "three", moved), "detection").fingerprint != first
    marked.photo(tmp_path / "two" / "JPEGImages" / "a.png", seed=77)
    assert read(tmp_path / "two", "detection").fingerprint != first
