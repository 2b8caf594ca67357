"""Data that lie in memory train what the same images in a folder train."""

import csv
import io
import os
from pathlib import Path
from typing import Any

import corpus
import numpy as np
import pandas
import pyarrow
import pytest
import torch
from album import fill, recipe_file, texture
from PIL import Image, ImageOps

import trickbag as tb
from trickbag.data.decode import decode
from trickbag.data.given import kept, picture
from trickbag.data.reading import read
from trickbag.ground.errors import UsageError

KINDS = {"a": 0, "b": 1, "c": 2}


@pytest.fixture
def place(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    fill(Path("photos"), KINDS, 14)
    recipe_file(Path("tiny.toml"))
    return tmp_path


def files() -> list[tuple[Path, str]]:
    """All photos, in an order that is not that of their names."""
    return [(path, path.parent.name) for path in sorted(Path("photos").rglob("*.png"), reverse=True)]


class Photos:
    """A map-style Dataset, as torch's and torchvision's are."""

    classes = tuple(KINDS)

    def __init__(self, wrap: Any = lambda image: image) -> None:
        self.rows, self.wrap = files(), wrap

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> tuple[Any, int]:
        path, label = self.rows[number]
        return self.wrap(Image.open(path)), self.classes.index(label)


def arrays() -> tuple[np.ndarray, list[str]]:
    return np.stack([np.asarray(Image.open(path)) for path, _ in files()]), [label for _, label in files()]


def tensor(image: Image.Image) -> torch.Tensor:
    found = torch.from_numpy(np.array(image)).float().div(255)
    return found.movedim(-1, 0) if found.ndim == 3 else found[None]


def table(kind: str) -> Any:
    """Paths and labels in a table, under names of columns that are usual elsewhere."""
    columns = {"file_name": [str(path) for path, _ in files()], "class": [label for _, label in files()]}
    if kind == "pyarrow":
        return pyarrow.table(columns)
    return pandas.DataFrame(columns)


FORMS = {
    "paths": files,
    "images": lambda: [(Image.open(path), label) for path, label in files()],
    "arrays": arrays,
    "tensors": lambda: (torch.from_numpy(arrays()[0]).movedim(-1, 1), np.array(arrays()[1])),
    "a Dataset": Photos,
    "a Dataset of tensors": lambda: Photos(tensor),
    "pyarrow": lambda: table("pyarrow"),
    "pandas": lambda: table("pandas"),
}


def pixels(data: Any) -> list[tuple[str, str, bytes]]:
    """What a data set shows: class, split and pixels of each image, in any order."""
    found = read(kept(data))
    rows = zip(found.labels.tolist(), found.splits.tolist(), range(len(found)), strict=True)
    return sorted((found.classes[k], split, Image.open(found.path(row)).convert("RGB").tobytes()) for k, split, row in rows)


@pytest.mark.parametrize("form", FORMS)
def test_what_lies_in_memory_is_what_the_folder_holds(place: Path, form: str) -> None:
    assert pixels(FORMS[form]()) == pixels("photos")


@pytest.mark.parametrize("form", ["paths", "arrays", "a Dataset"])
def test_the_same_content_has_the_same_place_and_goes_on(place: Path, form: str) -> None:
    result = tb.train(FORMS[form](), "tiny.toml", out="run")
    written = (result.folder / "result.json").stat().st_mtime_ns
    again = tb.train(FORMS[form](), "tiny.toml", out="run")
    assert (again.folder / "result.json").stat().st_mtime_ns == written
    other = FORMS["paths"]()[1:]
    with pytest.raises(UsageError, match="another run"):
        tb.train(other, "tiny.toml", out="run")
    assert tb.evaluate("run", FORMS[form]()).trained_on > 0


def test_a_dict_names_the_splits_of_any_forms(place: Path) -> None:
    images, labels = arrays()
    found = read(kept({"train": (images[:30], labels[:30]), "val": Photos(), "test": table("pyarrow")}))
    assert [int((found.splits == split).sum()) for split in ("train", "val", "test")] == [30, 42, 42]
    with pytest.raises(UsageError, match="'valid' is no split"):
        kept({"train": files(), "valid": files()})


def test_relative_paths_begin_where_python_works_and_strange_names_are_kept(place: Path) -> None:
    Path("odd").mkdir()
    names = ["odd/ü.png", "odd/a,b.png", 'odd/say "cheese".png', "odd/new\nline.png", os.fsdecode(b"odd/\xff.png")]
    for name, (path, _) in zip(names, files(), strict=False):
        os.link(path, name)
    found = read(kept([(name, "x") for name in names] + files()))
    assert {found.path(row) for row in range(len(found))} >= {Path.cwd() / name for name in names}


def test_cells_of_a_table_stay_beside_their_image(place: Path) -> None:
    columns = {"image": [str(path) for path, _ in files()], "label": [label for _, label in files()]}
    groups = [f"patient {number // 3}" for number in range(len(files()))]
    made = kept(pyarrow.table(columns | {"split": ["train", None] * 21, "group": groups}))
    found = read(made)
    assert len(set(found.groups.tolist())) == 14
    assert set(found.splits.tolist()) == {"train", ""}
    with Path(made).open(encoding="utf-8", newline="") as file:
        assert [row["group"] for row in csv.DictReader(file)] == groups


class Restless(Photos):
    """A Dataset with a random transform."""

    def __getitem__(self, number: int) -> tuple[Any, int]:
        image, label = super().__getitem__(number)
        return np.asarray(image) ^ np.random.default_rng().integers(0, 255, dtype=np.uint8), label


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (list, "is empty"),
        (dict, "is empty"),
        (lambda: 5, "is no data set"),
        (lambda: {"train": "photos"}, "is no data set"),
        (lambda: [1, 2], "item 0 is no pair"),
        (lambda: [(3, "a")], "is no image"),
        (lambda: (np.zeros((4, 8, 8)), ["a"]), "4 images and 1 labels"),
        (lambda: [(np.zeros((8, 8, 7), np.uint8), "a")], r"shape \[8, 8, 7\]"),
        (lambda: [(torch.zeros(8, 8, 3), "a")], r"shape \[8, 8, 3\]: give \[C, H, W\]"),
        (lambda: [(np.zeros((8, 8), np.int64), "a")], "type int64"),
        (lambda: [(np.full((8, 8), 1.5), "a")], "outside of 0 to 1"),
        (lambda: [(np.full((8, 8), np.nan), "a")], "outside of 0 to 1"),
        (lambda: pyarrow.table({"label": ["a"]}), "path"),
        (Restless, "other images each time"),
    ],
)
def test_what_is_no_data_set_is_refused_in_a_sentence(place: Path, data: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        kept(data())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_in_memory_is_held_as_its_file_is(orientation: int) -> None:
    file = corpus.encoded(Image.fromarray(texture(0, np.random.default_rng(0))), "PNG", exif=corpus.exif(orientation))
    expected = decode(file).pixels
    photo = Image.open(io.BytesIO(file))
    for held in (photo, photo.convert("RGBA").convert("RGB"), ImageOps.exif_transpose(photo)):
        assert (np.moveaxis(np.asarray(picture(held)), -1, 0) == expected.numpy()).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "F", "I;16"])
def test_images_of_every_mode_can_be_kept(place: Path, mode: str) -> None:
    image = Image.new("I;16", (6, 5)) if mode == "I;16" else Image.new("RGB", (6, 5), "teal").convert(mode)
    picture(image).save("one.png")
    with Image.open("one.png") as made:
        assert made.size == (6, 5)
