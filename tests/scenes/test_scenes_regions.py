"""Label images keep their numbers, whatever stores them, and what is wrong with them is said."""

import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import marked
import numpy as np
import pytest
from marked import PHOTOS
from PIL import Image

import trickbag as tb
from trickbag.data.decode import Unreadable
from trickbag.ground.errors import UsageError
from trickbag.scenes import levels
from trickbag.scenes.reading import read
from trickbag.scenes.table import Scenes

VALUES = np.arange(40 * 30, dtype=np.uint8).reshape(30, 40) % 7


@pytest.fixture(autouse=True)
def _cache(cache: Path) -> None:
    """Each test has a cache of its own."""


def drawn(name: str) -> np.ndarray:
    """What ``marked.regions`` draws, with the classes' numbers."""
    one = PHOTOS[name]
    values = np.full((one.height, one.width), 255, np.uint8)
    for box in one.boxes:
        values[box.top : box.bottom, box.left : box.right] = marked.CLASSES.index(box.name)
    values[0] = 2
    return values


def same(scenes: Scenes) -> bool:
    return all((scenes.region(row) == drawn(Path(path).stem)).all() for row, path in enumerate(scenes.paths))


@pytest.mark.parametrize("palette", [False, True])
def test_grey_and_palette_give_the_same_regions(palette: bool, tmp_path: Path) -> None:
    scenes = read(marked.regions(tmp_path / "set", palette=palette), "segmentation")
    assert scenes.classes == ("class 0", "class 1", "class 4")
    assert same(scenes)
    assert dict(zip((Path(path).stem for path in scenes.paths), scenes.splits.tolist(), strict=True)) == {
        name: one.split for name, one in PHOTOS.items()
    }
    assert scenes.areas.tolist() == [[int((scenes.region(row) == k).sum()) for k in range(3)] for row in range(5)]
    assert not scenes.faults
    assert scenes.take([4, 0]).regions == (scenes.regions[4], scenes.regions[0])


def beneath(root: Path) -> None:
    for split in ("train", "val", "test"):
        for kind in ("images", "labels"):
            (root / kind).mkdir(exist_ok=True)
            (root / split / kind).rename(root / kind / split)


def beside(root: Path) -> None:
    for split in ("train", "val", "test"):
        (root / split / "labels").rename(root / f"{split}annot")
        for file in (root / split / "images").iterdir():
            file.rename(root / split / file.name)


def endings(root: Path) -> None:
    for file in root.glob("*/labels/*.png"):
        file.rename(file.with_stem(f"{file.stem}_mask"))


def pascal(root: Path) -> None:
    for name in ("ImageSets/Segmentation", "JPEGImages", "SegmentationClass", "SegmentationObject"):
        (root / name).mkdir(parents=True)
    for name, one in PHOTOS.items():
        (root / one.split / "images" / f"{name}.png").rename(root / "JPEGImages" / f"{name}.png")
        (root / one.split / "labels" / f"{name}.png").rename(root / "SegmentationClass" / f"{name}.png")
        shutil.copy(root / "SegmentationClass" / f"{name}.png", root / "SegmentationObject")
        with (root / "ImageSets" / "Segmentation" / f"{one.split}.txt").open("a") as file:
            file.write(f"{name}\n")


@pytest.mark.parametrize("layout", [beneath, beside, endings, pascal])
def test_other_layouts_of_the_folders(layout: Any, tmp_path: Path) -> None:
    before = read(marked.regions(tmp_path / "one"), "segmentation")
    layout(marked.regions(tmp_path / "set"))
    scenes = read(tmp_path / "set", "segmentation")
    assert not scenes.faults
    assert same(scenes)
    assert sorted(zip(scenes.hashes, scenes.splits.tolist(), scenes.region_hashes, strict=True)) == sorted(
        zip(before.hashes, before.splits.tolist(), before.region_hashes, strict=True)
    )


@pytest.mark.parametrize("mode", ["L", "P", "1", "I;16", "RGB", "2 bits", "4 bits", "TIFF", "BMP"])
def test_the_numbers_are_those_of_the_file(mode: str, tmp_path: Path) -> None:
    values = VALUES % {"1": 2, "2 bits": 4}.get(mode, 7)
    path = tmp_path / f"x.{mode.lower() if mode in ('TIFF', 'BMP') else 'png'}"
    if mode in ("2 bits", "4 bits"):
        write_grey(path, values, int(mode[0]))
    elif mode == "1":
        Image.fromarray(values.astype(bool)).save(path)
    elif mode == "RGB":
        Image.fromarray(np.repeat(values[..., None], 3, 2)).save(path)
    elif mode == "P":
        marked.save_region(path, values, palette=True)
    else:
        Image.fromarray(values.astype(np.uint16) if mode == "I;16" else values).save(path)
    assert (levels.raw(path) == values).all()


def write_grey(path: Path, values: np.ndarray, bits: int) -> None:
    """A grey PNG of fewer bits, which Pillow does not write."""
    rows = [np.packbits((row[:, None] >> np.arange(bits)[::-1] & 1).ravel()) for row in values]
    head = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], bits, 0, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))), (b"IEND", b""))
    body = b"".join(struct.pack(">I", len(c)) + kind + c + struct.pack(">I", zlib.crc32(kind + c)) for kind, c in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def colours(path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)).save(path)


def lossy(path: Path) -> None:
    Image.fromarray(VALUES).save(path, "JPEG")


def deep(path: Path) -> None:
    Image.fromarray(np.full((30, 40), 300, np.uint16)).save(path)


def negative(path: Path) -> None:
    Image.fromarray(np.full((30, 40), -1, np.int32)).save(path, "TIFF")


def small(path: Path) -> None:
    Image.fromarray(VALUES[:20]).save(path)


def turned(path: Path) -> None:
    Image.fromarray(VALUES.T.copy()).save(path)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


def beginning(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:20])


def void(path: Path) -> None:
    Image.fromarray(np.full((30, 40), 255, np.uint8)).save(path)


PLANTED = [
    (colours, "damaged", "has colours, not class numbers"),
    (lossy, "damaged", "JPEG alters the values"),
    (deep, "damaged", "has values from 300 to 300"),
    (negative, "damaged", "has values from -1 to -1"),
    (small, "label size", "40 x 20 pixels; train/images/a.png has 40 x 30"),
    (turned, "label size", "has 40 x 30, turned upright"),
    (cut, "damaged", "truncated"),
    (beginning, "damaged", "truncated"),
    (lambda path: path.write_bytes(b""), "damaged", "empty"),
    (void, "no region", "no pixel of a class"),
]


@pytest.mark.parametrize(("plant", "kind", "what"), PLANTED, ids=[what for *_, what in PLANTED])
def test_what_is_planted_is_found_where_it_is(plant: Any, kind: str, what: str, tmp_path: Path, ask: Any) -> None:
    root = marked.regions(tmp_path / "set")
    plant(root / "train/labels/a.png")
    found = tb.check(root, regions=True)
    assert [(one.kind, one.path) for one in found.faults] == [(kind, "train/labels/a.png")]
    assert what in found.faults[0].what
    assert len(found.scenes) == 4
    told = ask("check", str(root), "--regions")
    assert told.code == 0
    assert "train/labels/a.png" in told.out
    assert ask("check", str(root), "--regions", "--on-bad", "error").code == (kind != "no region")


def test_what_has_no_partner_is_told(tmp_path: Path) -> None:
    root = marked.regions(tmp_path / "set")
    (root / "train/labels/a.png").unlink()
    (root / "train/images/b.png").unlink()
    found = tb.check(root, regions=True)
    assert {(one.kind, one.path) for one in found.faults} == {
        ("no label", "train/images/a.png"),
        ("no image", "train/labels/b.png"),
    }


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("classes.txt", "cat\ndog\nvoid\nbird\nground\n"),
        ("classes.json", '["cat", "dog", "void", "bird", "ground"]'),
        ("classes.json", '{"0": "cat", "1": "dog", "2": "void", "3": "bird", "4": "ground"}'),
        ("data.yaml", "names: {0: cat, 1: dog, 2: void, 3: bird, 4: ground}"),
    ],
)
def test_classes_have_the_names_of_a_file_and_some_are_ignored(file: str, text: str, tmp_path: Path, ask: Any) -> None:
    root = marked.regions(tmp_path / "set")
    (root / file).write_text(text)
    scenes = read(root, "segmentation")
    assert scenes.classes == ("cat", "dog", "bird", "ground")
    assert scenes.levels[:6].tolist() == [0, 1, 255, 2, 3, 255]
    by_name, by_value = (read(root, "segmentation", ignore=[word]) for word in ("ground", "4"))
    assert by_name.classes == by_value.classes == ("cat", "dog", "bird")
    assert by_name.fingerprint == by_value.fingerprint != scenes.fingerprint
    assert (by_name.region(0)[0] == 255).all()
    assert [fault.kind for fault in by_name.faults] == ["no region"], "the image on which the ground is all there is"
    told = ask("check", str(root), "--regions", "--ignore", "grond")
    assert told.code == 2
    assert "There are: 0 cat, 1 dog, 2 void, 3 bird, 4 ground." in told.err
    assert "1 class without an image: 'bird'" in ask("check", str(root), "--regions").out


def test_a_value_without_a_name_is_ignored_and_told(tmp_path: Path) -> None:
    root = marked.regions(tmp_path / "set")
    (root / "classes.txt").write_text("cat\ndog\n")
    found = tb.check(root, regions=True)
    assert found.scenes.classes == ("cat", "dog")
    assert ("unknown value", "classes.txt", "4: 192 pixels in 5 images") in found.faults


def test_a_number_that_no_label_image_can_hold_is_told(tmp_path: Path) -> None:
    root = marked.regions(tmp_path / "set")
    (root / "classes.json").write_text('{"0": "cat", "1": "dog", "4": "ground", "300": "sky"}')
    scenes = read(root, "segmentation")
    assert scenes.classes == ("cat", "dog", "ground")
    assert [(one.kind, one.what) for one in scenes.faults] == [("names", "class 300: label images have numbers up to 254")]


def test_masks_of_0_and_255_are_one_class_and_that_is_an_error(tmp_path: Path) -> None:
    root = marked.regions(tmp_path / "set")
    for file in root.glob("*/labels/*.png"):
        values = np.array(Image.open(file))
        Image.fromarray(np.where(values == 0, np.uint8(255), np.uint8(0))).save(file)
    (error,) = tb.check(root, regions=True).errors
    assert "one class, class 0; 255 is ignored" in error.message


def test_shares_of_pixels_are_those_of_the_files(tmp_path: Path, ask: Any) -> None:
    root = marked.regions(tmp_path / "set")
    found = tb.check(root, regions=True)
    pixels = np.concatenate([drawn(name).ravel() for name in PHOTOS])
    for k, name in enumerate(found.scenes.classes):
        assert found.counts[name]["share"] == (pixels == k).sum() / (pixels != 255).sum()
    assert f"{100 * found.counts['class 1']['share']:.2f} %" in ask("check", str(root), "--regions").out


def test_a_label_image_that_is_gone_later_is_a_sentence(tmp_path: Path) -> None:
    root = marked.regions(tmp_path / "set")
    scenes = read(root, "segmentation")
    (root / scenes.regions[0]).unlink()
    with pytest.raises(Unreadable, match="No such file"):
        scenes.region(0)


def test_a_folder_of_nothing_of_use_is_refused(tmp_path: Path) -> None:
    root = marked.regions(tmp_path / "set")
    for file in root.glob("*/labels/*.png"):
        void(file)
    with pytest.raises(UsageError, match=r"no image of .* can be used: "):
        read(root, "segmentation")
