"""Every planted fault has its finding, with the file and the place, and costs no more than what is wrong."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import marked
import numpy as np
import pytest
from marked import PHOTOS, Box, Photo
from PIL import Image

import trickbag as tb
from trickbag.ground.errors import TrickbagError, UsageError
from trickbag.scenes.audit import ScenesAudit
from trickbag.scenes.reading import read
from trickbag.scenes.splits import divide


@pytest.fixture(autouse=True)
def _cache(cache: Path) -> None:
    """Each test has a cache of its own."""


def checked(root: Path) -> ScenesAudit:
    return tb.check(root, boxes=True, progress=False)


def found(result: ScenesAudit) -> dict[str, list[tuple[str, str]]]:
    kinds: dict[str, list[tuple[str, str]]] = {}
    for kind, path, what in result.faults:
        kinds.setdefault(kind, []).append((path, what))
    return kinds


def kinds(result: ScenesAudit) -> set[str]:
    return {finding.kind for finding in result.findings}


def boxes(result: ScenesAudit) -> int:
    return sum(len(one.labels) for one in result.scenes.boxes)


def with_boxes(*marks: Box) -> dict[str, Photo]:
    return {**PHOTOS, "a": PHOTOS["a"]._replace(boxes=[*PHOTOS["a"].boxes, *marks])}


BAD = {
    "outside": Box("cat", 50, 4, 60, 12),
    "clipped": Box("cat", 30, 4, 60, 12),
    "reversed": Box("cat", 30, 4, 10, 12),
    "no area": Box("cat", 30, 4, 30, 12),
    "double": PHOTOS["a"].boxes[0],
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("form", marked.FORMS)
def test_a_bad_box_is_said_and_costs_no_other(form: str, kind: str, tmp_path: Path) -> None:
    result = checked(marked.FORMS[form](tmp_path / "set", with_boxes(BAD[kind])))
    ((path, what),) = found(result)[kind]
    assert Path(path).stem in ("a", "instances_train2017")
    assert "cat" in what
    assert any(place in what for place in ("object 3", "annotations[2]", "line 3"))
    assert boxes(result) == 6 + (kind == "clipped")
    assert len(result.scenes) == 5
    assert [finding.severity for finding in result.findings if finding.kind == kind] == ["warning"]
    for one, (height, width) in zip(result.scenes.boxes, result.scenes.sizes.tolist(), strict=True):
        left, top, right, bottom = one.xyxy.T
        assert (left >= 0).all()
        assert (top >= 0).all()
        assert (left < right).all()
        assert (top < bottom).all()
        assert (right <= width).all()
        assert (bottom <= height).all()


@pytest.mark.parametrize("first", [False, True])
def test_of_a_box_that_is_drawn_twice_the_one_that_counts_is_kept(first: bool, tmp_path: Path) -> None:
    twice = [Box("cat", 0, 0, 12, 9, first), Box("cat", 0, 0, 12, 9, not first)]
    result = checked(marked.voc(tmp_path / "set", {**PHOTOS, "a": Photo("train", twice)}))
    assert found(result)["double"]
    assert result.scenes.boxes[0].ignored.tolist() == [False]


def test_a_box_that_ends_with_its_image_is_whole_and_rounding_is_no_fault(tmp_path: Path) -> None:
    root = marked.yolo(tmp_path / "set", {"a": Photo("train", [Box("cat", 0, 0, 640, 480)], 640, 480), **PHOTOS})
    assert not found(checked(root))
    (root / "labels" / "train" / "a.txt").write_text("0 0.500001 0.5 1.000000 1.000000\n")
    result = checked(root)
    assert not found(result)
    assert result.scenes.boxes[result.scenes.paths.index("images/train/a.png")].xyxy.max(initial=0) <= 40


Plant = Callable[[Path], Any]


def edit(path: str, old: str, new: str) -> Plant:
    def plant(root: Path) -> None:
        text = (root / path).read_text("utf-8")
        assert old in text
        (root / path).write_text(text.replace(old, new), "utf-8")

    return plant


def write(path: str, content: str | bytes) -> Plant:
    def plant(root: Path) -> None:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content.encode() if isinstance(content, str) else content)

    return plant


def remove(path: str) -> Plant:
    return lambda root: (root / path).unlink()


LAUGHS = '<!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;&b;">]><annotation><object><name>&c;</name></object></annotation>'
BILLION = LAUGHS.encode("utf-16")
A_XML, A_TXT, TRAIN = "Annotations/a.xml", "labels/train/a.txt", "annotations/instances_train2017.json"

PLANTED: list[tuple[str, Plant, str, str, str]] = [
    ("voc", edit(A_XML, "<xmin>1<", "<xmin>one<"), "unread", A_XML, "object 1: xmin is 'one', no number"),
    ("voc", edit(A_XML, "<ymax>9</ymax>", ""), "unread", A_XML, "object 1: no ymax"),
    ("voc", edit(A_XML, "<name>cat</name>", "<name> </name>"), "unread", A_XML, "object 1: no name"),
    ("voc", edit(A_XML, "<xmin>1<", "<xmin>nan<"), "not finite", A_XML, "object 1: cat, nan"),
    ("voc", edit(A_XML, "</object>", ""), "damaged", A_XML, "line 4, column"),
    ("voc", edit(A_XML, "annotation>", "html>"), "damaged", A_XML, "its root is 'html', not annotation"),
    ("voc", write(A_XML, ""), "damaged", A_XML, "line 1, column 1: no element found"),
    ("voc", write(A_XML, LAUGHS), "damaged", A_XML, "DOCTYPE"),
    ("voc", write(A_XML, BILLION), "damaged", A_XML, "DOCTYPE"),
    ("voc", edit(A_XML, "<width>40<", "<width>400<"), "size", A_XML, "400 x 30 pixels; JPEGImages/a.png has 40 x 30"),
    ("voc", remove(A_XML), "no label", "JPEGImages/a.png", "no XML file"),
    ("voc", remove("JPEGImages/a.png"), "no image", A_XML, "no image"),
    ("voc", write("JPEGImages/a.png", "no image"), "unreadable", "JPEGImages/a.png", "not an image"),
    ("voc", write("ImageSets/Main/val.txt", "a\nd\n"), "two splits", "JPEGImages/a.png", "in train and in val"),
    ("voc", write("ImageSets/Main/train.txt", "a\nb\nc\nz\n"), "list", "ImageSets/Main/train.txt", "line 4: 'z'"),
    ("voc", write("ImageSets/Main/train.txt", "b\nc\n"), "unlisted", "JPEGImages/a.png", "in no list"),
    ("voc", write("ImageSets/Main/test.txt", b"\xff\xfe\x00"), "damaged", "ImageSets/Main/test.txt", "not UTF-8"),
    ("coco", write(TRAIN, '{"info": {}, "images": [\n{"id": 1,]}'), "damaged", TRAIN, "line 2, column 10"),
    ("coco", write(TRAIN, '{"info": {}, "images": []}'), "damaged", TRAIN, "it has no list annotations"),
    ("coco", write(TRAIN, '{"images": ' + "[" * 200_000), "damaged", TRAIN, "nested too deeply"),
    ("coco", edit(TRAIN, '"category_id": 7', '"category_id": 99'), "unknown class", TRAIN, "annotations[0]: category_id '99'"),
    ("coco", edit(TRAIN, '"bbox": [0, 0, 12, 9]', '"bbox": [0, 0, 12]'), "unread", TRAIN, "bbox is no list of four numbers"),
    ("coco", edit(TRAIN, '"bbox": [0, 0, 12, 9], ', ""), "unread", TRAIN, "annotations[0]: bbox is missing"),
    ("coco", edit(TRAIN, '"bbox": [0, 0, 12, 9]', '"bbox": [0, 0, NaN, 9]'), "not finite", TRAIN, "annotations[0]: cat"),
    ("coco", edit(TRAIN, '"bbox": [0, 0, 12, 9]', f'"bbox": [0, 0, 1{"0" * 400}, 9]'), "unread", TRAIN, "too large"),
    ("coco", edit(TRAIN, '"image_id": 101', '"image_id": 55'), "unread", TRAIN, "image_id '55' is no image"),
    ("coco", edit(TRAIN, '"file_name": "a.png"', '"file_name": "../../z.png"'), "missing", TRAIN, "images[0]: '../../z.png'"),
    ("coco", edit(TRAIN, '"file_name": "a.png"', '"file_name": 5'), "unread", TRAIN, "images[0]: no id, or no file_name"),
    ("coco", edit(TRAIN, '"name": "cat"', '"name": ""'), "unread", TRAIN, "categories[0]"),
    ("coco", write("train2017/z.png", "x"), "unlisted", "train2017/z.png", "in no JSON file"),
    ("coco", remove("train2017/a.png"), "missing", TRAIN, "images[0]: 'a.png' is not there"),
    ("yolo", write(A_TXT, "0 .5 .5 .2 .2\n0 0.5 0.5 0.2\n"), "unread", A_TXT, "line 2: 4 fields"),
    ("yolo", write(A_TXT, "0 .5 .5 .2 .2\n0 .1 .1 .2 .2 .3 .3\n"), "unread", A_TXT, "line 2: 7 fields, which is a polygon"),
    ("yolo", write(A_TXT, "0 .5 .5 .2 wide\n"), "unread", A_TXT, "line 1: '0 .5 .5 .2 wide' has what is no number"),
    ("yolo", write(A_TXT, "-1 .5 .5 .2 .2\n"), "unread", A_TXT, "line 1: class '-1' is no whole number"),
    ("yolo", write(A_TXT, "7 .5 .5 .2 .2\n"), "unknown class", A_TXT, "line 1: class 7 has no name; there are 2 names"),
    ("yolo", write(A_TXT, "0 20 15 12 9\n"), "outside", A_TXT, "line 1: cat"),
    ("yolo", write(A_TXT, "0 nan .5 .2 .2\n"), "not finite", A_TXT, "line 1: cat"),
    ("yolo", write(A_TXT, b"\xff\xfe0\x00"), "damaged", A_TXT, "not UTF-8"),
    ("yolo", write("data.yaml", "names: [cat, dog\ntrain: x"), "names", "data.yaml", "line 2, column 6"),
    ("yolo", write("data.yaml", "nc: 2"), "names", "data.yaml", "it has no list of names"),
    ("yolo", write("data.yaml", "names: [cat, cat]"), "names", "data.yaml", "it has a name twice"),
    ("yolo", write("data.yaml", "names: !!python/object/apply:os.system [ls]"), "names", "data.yaml", "line 1, column 8"),
    ("yolo", remove(A_TXT), "no label", "images/train/a.png", "no text file"),
    ("yolo", write("labels/train/z.txt", ""), "no image", "labels/train/z.txt", "no image"),
]


@pytest.mark.parametrize(("form", "plant", "kind", "path", "what"), PLANTED, ids=[f"{one[0]} {one[4]}" for one in PLANTED])
def test_what_is_planted_is_found_where_it_is(
    form: str, plant: Plant, kind: str, path: str, what: str, tmp_path: Path, ask: Any
) -> None:
    root = marked.FORMS[form](tmp_path / "set")
    plant(root)
    result = checked(root)
    assert any(at == path and what in said for at, said in found(result)[kind])
    assert len(found(result)) == 1 or (kind, path) != ("damaged", A_XML), "nothing else is said of it"
    assert kind in kinds(result) or kind == "unreadable"
    assert len(result.scenes) >= 2, "the other images are used"
    told = ask("check", str(root), "--boxes")
    assert told.code == 0
    assert path.rpartition("/")[2] in told.out
    assert "Traceback" not in told.err


def test_on_bad_stops_for_what_cannot_be_read(tmp_path: Path, ask: Any) -> None:
    root = marked.voc(tmp_path / "set")
    (root / A_XML).write_text("<annotation>")
    told = ask("check", str(root), "--boxes", "--on-bad", "error")
    assert told.code == 1
    assert "1 file cannot be read (Annotations/a.xml: line 1, column 13" in told.err
    with pytest.raises(TrickbagError):
        tb.check(root, boxes=True, on_bad="error")


def test_copies_in_two_splits_are_an_error_and_leave_training(tmp_path: Path) -> None:
    root = marked.voc(tmp_path / "set")
    shutil.copy(root / "JPEGImages/a.png", root / "JPEGImages/e.png")
    Image.open(root / "JPEGImages/a.png").save(root / "JPEGImages/c.bmp")  # the same pixels in another file
    (root / "JPEGImages/c.png").unlink()
    result = checked(root)
    (leak,) = (finding for finding in result.findings if finding.kind == "leak")
    assert leak.severity == "error"
    assert set(leak.pairs) == {(f"JPEGImages/{one}", "JPEGImages/e.png") for one in ("a.png", "c.bmp")}
    assert "conflict" in kinds(result)
    milder = result.without_leaks()
    assert not milder.errors
    assert sorted(milder.scenes.paths) == ["JPEGImages/b.png", "JPEGImages/d.png", "JPEGImages/e.png"]
    assert ("leak", "JPEGImages/a.png", "a copy of JPEGImages/e.png") in milder.faults


def test_splits_that_are_not_given_are_made_of_training_images_and_copies_stay_together(tmp_path: Path) -> None:
    photos = {f"{n:02d}": Photo("", [Box("cat", 0, 0, 9, 9)] + [Box("rare", 2, 2, 9, 9)] * (n < 6)) for n in range(30)}
    root = marked.voc(tmp_path / "set", photos)
    for n in (11, 12, 13):
        shutil.copy(root / "JPEGImages/10.png", root / f"JPEGImages/{n}.png")
    result = checked(root)
    assert {"splits", "duplicate"} <= kinds(result)
    splits = [divide(result.scenes, seed).splits.tolist() for seed in range(8)]
    assert splits[0] == divide(read(root, "detection"), 0).splits.tolist()
    assert len({tuple(one) for one in splits}) > 1, "a seed of its own"
    for one in splits:
        assert set(one) == {"train", "val", "test"} == set(one[:6]), "a rare class is in every split"
        assert len(set(one[10:14])) == 1
        assert 2 <= one.count("val") <= 6
        assert 4 <= one.count("test") <= 9
    backwards = divide(result.scenes.take(np.arange(30)[::-1]), 3).splits[::-1]
    assert backwards.tolist() == splits[3]


def test_given_splits_stay(tmp_path: Path) -> None:
    scenes = read(marked.voc(tmp_path / "set"), "detection")
    assert divide(scenes, 0).splits.tolist() == scenes.splits.tolist()
    with pytest.raises(UsageError, match="together below 1"):
        divide(scenes, 0, 0.5, 0.5)


def test_classes_are_counted_and_those_that_a_split_lacks_or_that_are_spelled_alike_are_told(tmp_path: Path, ask: Any) -> None:
    photos = with_boxes(Box("Cat", 1, 1, 9, 9))
    result = checked(marked.voc(tmp_path / "set", photos))
    told = " ".join(finding.message for finding in result.findings if finding.kind == "class")
    assert "differ only in case, spaces or hyphens: 'Cat', 'cat'" in told
    assert "in train only, so not scored in val and test: 'dog'" in told
    assert result.counts["dog"] == {"boxes": 2, "images": {"train": 2}, "width": 20.5, "height": 21.5}
    shown = ask("check", str(tmp_path / "set"), "--boxes").out
    assert "dog" in shown
    assert "20.5 x 21.5" in shown
    whole = json.loads(ask("check", str(tmp_path / "set"), "--boxes", "--json").out)
    assert whole["classes"]["dog"]["boxes"] == 2
    assert whole["splits"] == {"train": 3, "val": 1, "test": 1}


NO_BOX: dict[str, Plant] = {
    "voc": edit("Annotations/b.xml", "<xmin>4<", "<xmin>four<"),
    "coco": edit(TRAIN, '"image_id": 101, "category_id": 8', '"image_id": 101, "category_id": 99'),
    "yolo": write("labels/train/b.txt", "1 .5 .5 nothing .2\n"),
}


@pytest.mark.parametrize("bad", [False, True])
@pytest.mark.parametrize("form", NO_BOX)
def test_an_image_that_lost_all_boxes_is_left_out_and_one_that_has_none_is_kept(form: str, bad: bool, tmp_path: Path) -> None:
    """Or else it would teach that nothing is there."""
    photos = PHOTOS if bad else PHOTOS | {"b": PHOTOS["b"]._replace(boxes=[Box("dog", 3, 3, 4, 20)])}
    root = marked.FORMS[form](tmp_path / "set", photos)
    if bad:
        NO_BOX[form](root)
    result = checked(root)
    assert sorted(Path(path).stem for path in result.scenes.paths) == [*"acde"]
    assert [Path(path).stem for path, _ in found(result)["no box"]] == ["b"]
    assert [finding.paths for finding in result.findings if finding.kind == "bare"] == [
        [path for path in result.scenes.paths if Path(path).stem == "c"]
    ]


def test_of_names_without_a_box_no_folder_is_told(tmp_path: Path) -> None:
    photos = with_boxes(Box("cat/small", 1, 1, 9, 9))
    root = marked.yolo(tmp_path / "set", photos)
    (root / "data.yaml").write_text('names: ["cat", "cat/small", "dog", "train/x"]')
    told = [finding.message for finding in checked(root).findings if finding.kind == "class"]
    assert "1 class without an image: 'train/x'. Add some, or remove the name." in told
    assert not any("folder" in sentence for sentence in told), told


def test_no_box_at_all_is_an_error(tmp_path: Path) -> None:
    result = checked(marked.coco(tmp_path / "set", {name: one._replace(boxes=[]) for name, one in PHOTOS.items()}))
    assert [finding.message for finding in result.errors] == ["There is no box."]


def test_boxes_are_those_of_the_upright_image(tmp_path: Path) -> None:
    root = marked.voc(tmp_path / "set")
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = Image.open(root / "JPEGImages" / "a.png").transpose(Image.Transpose.ROTATE_90)
    lying.save(root / "JPEGImages" / "a.jpg", exif=exif)
    (root / "JPEGImages" / "a.png").unlink()
    result = checked(root)
    assert not result.faults
    assert result.scenes.sizes[0].tolist() == [30, 40]


REFUSED = [
    (["--boxes"], "nowhere", "does not exist"),
    (["--boxes"], "empty", "holds no boxes in a form that is known"),
    (["--regions"], "empty", "has no folder of label images"),
    (["--boxes"], "photos", "holds no boxes in a form that is known"),
    (["--boxes", "--regions"], "set", "Ask for one of them at a time"),
    (["--boxes", "--depth", "1"], "set", "depth is for images of classes"),
    (["--boxes", "--ignore", "cat"], "set", "ignore is for regions"),
    (["--ignore", "cat"], "set", "Give --regions too"),
    (["--regions"], "set", "has no folder of label images"),
    (["--boxes"], "both", "as Pascal VOC and YOLO. Move the labels of one form elsewhere"),
    (["--boxes"], "file", "neither a folder nor an archive"),
    (["--boxes"], "bare", "no image of"),
]


@pytest.mark.parametrize(("flags", "data", "said"), REFUSED)
def test_what_cannot_be_read_is_refused_in_a_sentence(flags: list[str], data: str, said: str, tmp_path: Path, ask: Any) -> None:
    (tmp_path / "empty").mkdir()
    marked.voc(tmp_path / "set")
    marked.yolo(marked.voc(tmp_path / "both"))
    marked.photo(tmp_path / "photos" / "cat" / "1.png")
    shutil.rmtree(marked.voc(tmp_path / "bare") / "JPEGImages")
    (tmp_path / "file").write_text("no archive")
    told = ask("check", str(tmp_path / data), *flags)
    assert told.code == 2
    assert said in told.err
    assert told.err.count("\n") == 1


def test_an_archive_is_read_like_its_folder(tmp_path: Path) -> None:
    for form, writer in marked.FORMS.items():
        root = writer(tmp_path / form / "inside")
        packed = shutil.make_archive(str(tmp_path / f"{form}-packed"), "zip" if form == "coco" else "tar", tmp_path / form)
        first, second = read(root, "detection"), read(packed, "detection")
        assert [Path(path).name for path in second.paths] == [Path(path).name for path in first.paths]
        assert second.splits.tolist() == first.splits.tolist()
        assert not second.faults


def test_names_of_all_kinds_stay_what_they_are(tmp_path: Path, ask: Any) -> None:
    odd = ["e\u0301 nfd", "<img src=x>", "a 'b\" c", "🐱", "مرحبا", "-rf", "n" * 200, "per%cent", "x.y.z"]
    for form, writer in marked.FORMS.items():
        root = writer(tmp_path / form, {name: Photo("train", [Box("cat", 1, 1, 9, 9)]) for name in odd})
        scenes = read(root, "detection")
        assert {Path(path).stem for path in scenes.paths} == set(odd)
        assert not scenes.faults
        told = ask("check", str(root), "--boxes")
        assert told.code == 0
    renamed = tmp_path / "yolo" / "images" / "train" / "e\u0301 nfd.png"
    renamed.rename(renamed.with_name("\u00e9 nfd.png"))
    assert not read(tmp_path / "yolo", "detection").faults, "systems spell letters in two ways"
