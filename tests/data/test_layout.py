"""Layouts of folders as people publish them: one meaning, whether the names come from a folder, a zip or a tar."""

import io
import json
import os
import tarfile
import zipfile
from pathlib import Path

import album
import pytest
from answers import Here
from hypothesis import given
from hypothesis import strategies as st
from tables import fill, table

from trickbag.data.audit import audit
from trickbag.data.images import Images, gaps
from trickbag.data.layout import arrange
from trickbag.data.listing import BESIDE_SPLITS, HIDDEN, OURS, UNLABELLED, Listing
from trickbag.data.reading import UNPACKED, read
from trickbag.ground.errors import UsageError

pytestmark = pytest.mark.usefixtures("cache")

Layout = tuple[str, ...]

PETS = ("train/cat/1.jpg", "train/dog/2.jpg")
# fmt: off
READ: dict[str, tuple[Layout, dict[str, str]]] = {
    # layout -> what each image is, as "split class" with its path in the set, or why it is left out with its path in DATA
    "unlabelled test images beside labelled splits": (
        (*PETS, "test1/3.jpg", "test1/4.jpg"),
        {"train/cat/1.jpg": "train cat", "train/dog/2.jpg": "train dog", "test1/3.jpg": UNLABELLED, "test1/4.jpg": UNLABELLED},
    ),
    "unlabelled test images in folders of their own": (
        (*PETS, "val/cat/3.jpg", "test/test/4.jpg", "unlabeled/5.jpg"),
        {
            "train/cat/1.jpg": "train cat", "train/dog/2.jpg": "train dog", "val/cat/3.jpg": "val cat",
            "test/test/4.jpg": UNLABELLED, "unlabeled/5.jpg": BESIDE_SPLITS,
        },
    ),
    "splits three folders down": (
        ("archive/archive/dataset/train/cat/1.jpg", "archive/archive/dataset/validation/dog/2.jpg", "archive/README"),
        {"train/cat/1.jpg": "train cat", "validation/dog/2.jpg": "val dog"},
    ),
    "Training and Testing": (
        ("Training/glioma/1.jpg", "Training/no tumor/2.jpg", "Testing/glioma/1.jpg"),
        {
            "Training/glioma/1.jpg": "train glioma", "Training/no tumor/2.jpg": "train no tumor",
            "Testing/glioma/1.jpg": "test glioma",
        },
    ),
    "each split wrapped in a folder of its name": (
        (
            "seg_train/seg_train/sea/1.jpg", "seg_train/seg_train/street/2.jpg", "seg_test/seg_test/sea/3.jpg",
            "seg_pred/seg_pred/4.jpg",
        ),
        {
            "seg_train/seg_train/sea/1.jpg": "train sea", "seg_train/seg_train/street/2.jpg": "train street",
            "seg_test/seg_test/sea/3.jpg": "test sea", "seg_pred/seg_pred/4.jpg": BESIDE_SPLITS,
        },
    ),
    "train, valid, test and a README": (
        (*PETS, "valid/cat/3.jpg", "test/dog/4.jpg", "README", "README.txt", "data.yaml"),
        {
            "train/cat/1.jpg": "train cat", "train/dog/2.jpg": "train dog", "valid/cat/3.jpg": "val cat",
            "test/dog/4.jpg": "test dog",
        },
    ),
    "a copy of the set within itself, and what a Mac adds": (
        (
            "xray/train/NORMAL/1.jpg", "xray/test/NORMAL/2.jpg", "xray/xray/train/NORMAL/1.jpg",
            "__MACOSX/xray/train/NORMAL/._1.jpg", "xray/__MACOSX/._x.jpg",
        ),
        {
            "train/NORMAL/1.jpg": "train NORMAL", "test/NORMAL/2.jpg": "test NORMAL",
            "xray/xray/train/NORMAL/1.jpg": BESIDE_SPLITS,
        },
    ),
    "images in a folder of that name within each split": (
        ("train/images/cat/1.jpg", "train/images/dog/2.jpg", "val/images/cat/3.jpg"),
        {"train/images/cat/1.jpg": "train cat", "train/images/dog/2.jpg": "train dog", "val/images/cat/3.jpg": "val cat"},
    ),
    "split folders with a word more": (
        ("train_set/cat/1.jpg", "train_set/dog/2.jpg", "Test-Set/cat/3.jpg"),
        {"train_set/cat/1.jpg": "train cat", "train_set/dog/2.jpg": "train dog", "Test-Set/cat/3.jpg": "test cat"},
    ),
    "split folders within class folders": (
        ("cat/train/1.jpg", "dog/train/2.jpg", "cat/test/3.jpg"),
        {"cat/train/1.jpg": "train cat", "dog/train/2.jpg": "train dog", "cat/test/3.jpg": "test cat"},
    ),
    "a test split alone": (
        ("d/test/cat/1.jpg", "d/test/dog/2.jpg"), {"test/cat/1.jpg": "test cat", "test/dog/2.jpg": "test dog"},
    ),
    "classes in classes": (
        ("shoe/red/1.jpg", "shoe/2.jpg", "bag/red/3.jpg", "bag/.thumbnails/3.jpg", ".Trash-1000/files/old/1.jpg"),
        {
            "shoe/red/1.jpg": " shoe/red", "shoe/2.jpg": " shoe", "bag/red/3.jpg": " bag/red",
            "bag/.thumbnails": HIDDEN, ".Trash-1000": HIDDEN,
        },
    ),
    "trains and tests that are classes": (
        ("bus/1.jpg", "train/2.jpg", "train_station/3.jpg", "test_tube/4.jpg"),
        {
            "bus/1.jpg": " bus", "train/2.jpg": " train", "train_station/3.jpg": " train_station",
            "test_tube/4.jpg": " test_tube",
        },
    ),
    "class folders with spaces around their names": (
        ("cat /1.jpg", " hot dog/2.jpg"),
        {"cat /1.jpg": " cat", " hot dog/2.jpg": " hot dog"},
    ),
    "a single class folder": (("d/cat/1.jpg", "d/cat/2.jpg"), {"cat/1.jpg": " cat", "cat/2.jpg": " cat"}),
}

REFUSED: dict[str, tuple[Layout, tuple[str, ...]]] = {
    # layout -> what the error says, every candidate with its command
    "train beside a class": (
        ("train/cat/1.jpg", "train/dog/2.jpg", "bus/3.jpg"),
        ("'train', which reads as a split, beside 'bus'", "trickbag check {data}/train.", "trickbag check {data} --depth 1"),
    ),
    "train beside a split of another name": (
        (*PETS, "holdout/cat/3.jpg"), ("trickbag check {data}/train.", "'holdout' is a split too, name it val or test"),
    ),
    "two data sets side by side": (
        ("my set/train/cat/1.jpg", "my set/test/cat/2.jpg", "b/train/cat/3.jpg"),
        ("trickbag check {data}/b or trickbag check '{data}/my set'", "trickbag check {data} --depth 1"),
    ),
    "tables beside one folder": (
        ("train.csv", "val.csv", "img/1.jpg", "img/2.jpg"),
        ("trickbag check {data}/train.csv or trickbag check {data}/val.csv", "one with a column split"),
    ),
    "a table within each split": (
        ("train/1.jpg", "train/metadata.csv", "test/2.jpg"), ("trickbag check {data}/train/metadata.csv",),
    ),
    "images and masks": (
        ("images/1.png", "masks/1.png"), ("'images' and 'masks'", "{data} --regions", "trickbag check {data} --depth 1"),
    ),
    "images and masks in splits": (
        ("train/images/1.jpg", "train/labels/1.png", "test/images/2.jpg", "test/labels/2.png"), ("'images' and 'labels'",),
    ),
    "images and boxes of Pascal VOC": (
        ("Annotations/1.xml", "ImageSets/Main/train.txt", "JPEGImages/1.jpg"),
        ("'annotations' and 'jpegimages'", "{data} --boxes"),
    ),
    "images and boxes of COCO": (("train2017/1.jpg", "annotations/train.json"), ("'annotations'", "{data} --boxes")),
    "images and masks of each class": (("a/images/1.png", "a/masks/1.png", "b/images/2.png"), ("'images' and 'masks'",)),
    "images and boxes of YOLO": (
        ("images/train/1.jpg", "images/val/2.jpg", "labels/train/1.txt"), ("'images' and 'labels'", "{data} --boxes"),
    ),
    "images and boxes in splits": (("train/images/1.jpg", "train/labels/1.txt", "test/images/2.jpg"), ("{data} --boxes",)),
    "unlabelled images alone": (("train/cat.1.jpg", "test1/2.jpg"), ("lies in no class folder",)),
    "an image above the classes": (("cat/1.jpg", "2.jpg"), ("lies in no class folder",)),
}
# fmt: on


def packed(folder: Path, kind: str) -> Path:
    """The folder's files in an archive beside it."""
    path = folder.with_name(f"packed.{kind}")
    files = {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return path
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def meanings(images: Images) -> dict[str, str]:
    """What each image is, and each folder that was left aside."""
    return {path: f"{split} {name}" for path, (name, split) in table(images).items()} | {
        path: reason for path, reason in images.ignored if reason in (UNLABELLED, BESIDE_SPLITS, HIDDEN)
    }


@pytest.mark.parametrize("name", READ)
def test_a_layout_means_the_same_in_a_folder_and_in_an_archive(tmp_path: Path, name: str) -> None:
    layout, meant = READ[name]
    folder = read(fill(tmp_path / "d", *layout))
    for one in (folder, *(read(packed(tmp_path / "d", kind)) for kind in ("zip", "tar"))):
        assert meanings(one) == meant
        assert one.fingerprint == folder.fingerprint
        assert set(one.ignored) == set(folder.ignored)
        assert all(one.path(row).read_text().strip("'\"").endswith(one.paths[row]) for row in range(len(one)))


@pytest.mark.parametrize("name", REFUSED)
def test_a_layout_with_two_meanings_is_refused_with_a_command_for_each(tmp_path: Path, name: str) -> None:
    layout, said = REFUSED[name]
    folder = fill(tmp_path / "d", *layout)
    for source, data in (
        (folder, str(folder)),
        (packed(folder, "zip"), UNPACKED),
        (packed(folder, "tar"), UNPACKED),
    ):
        with pytest.raises(UsageError) as refused:
            read(source)
        for part in said:
            assert part.format(data=data) in str(refused.value)


def test_the_depth_of_classes_decides_what_the_names_leave_open(tmp_path: Path) -> None:
    mixed = fill(tmp_path / "a", "train/cat/1.jpg", "bus/2.jpg", "bus/london/3.jpg")
    assert read(mixed, depth=1).classes == ("bus", "train")
    assert read(mixed, depth=2).classes == ("bus", "bus/london", "train/cat")
    assert read(fill(tmp_path / "b", "images/1.png", "masks/1.png"), depth=1).classes == ("images", "masks")
    split = fill(
        tmp_path / "c", *(f"{s}/{k}/{n}.jpg" for s in ("train", "val") for k in ("cat/kaggle", "cat", "dog/own") for n in "12")
    )
    assert read(split).classes == ("cat", "cat/kaggle", "dog/own")
    assert read(split, depth=1).classes == ("cat", "dog")
    assert set(read(split, depth=1).splits) == {"train", "val"}
    assert read(split, depth=1).fingerprint != read(split).fingerprint
    assert read(packed(split, "zip"), depth=1).fingerprint == read(split, depth=1).fingerprint
    (tmp_path / "m.csv").write_text("path,label\na.jpg,x\n")
    with pytest.raises(UsageError, match=r"--depth 1: .* names the class of each image itself"):
        read(tmp_path / "m.csv", depth=1)


def test_classes_that_hold_images_and_folders_are_named(tmp_path: Path) -> None:
    images = read(
        fill(tmp_path / "d", "cats/1.jpg", "cats/2.jpg", "cats/kaggle/3.jpg", "cats/kaggle/4.jpg", "dogs/5.jpg", "dogs/6.jpg")
    )
    cure = "The folders are classes of their own. Give --depth 1 if the top folder is the class."
    assert gaps(images) == [f"1 class with images and folders side by side: 'cats'. {cure}"]


NAMES = st.sampled_from(["train", "val", "test", "test1", "Train", "seg_train", "images", "cat", "dog", "cat ", "x"])
TREES = st.lists(
    st.tuples(st.lists(NAMES, min_size=1, max_size=4), st.sampled_from(["1.jpg", "2.jpg", "README"])), min_size=1, max_size=8
)


def arranged(paths: list[str]) -> object:
    """The rows below the wrapper, or that the names have no one meaning."""
    try:
        _, rows = arrange(Listing(paths, [], []))
    except UsageError:
        return "refused"
    return sorted(zip(*rows[:3], strict=True))


@given(TREES, st.randoms())
def test_no_wrapper_and_no_order_changes_a_layout(tree: list[tuple[list[str], str]], random: object) -> None:
    paths = sorted({"/".join([*folders, name]) for folders, name in tree})
    found = arranged(paths)
    if any(path.endswith(".jpg") for path in paths):
        assert arranged([f"some/wrapper/{path}" for path in paths]) == found
    random.shuffle(paths)  # type: ignore[attr-defined]
    assert arranged(paths) == found


@given(TREES)
def test_every_image_is_used_or_listed_or_the_set_refused(tree: list[tuple[list[str], str]]) -> None:
    paths = sorted({"/".join([*folders, name]) for folders, name in tree})
    try:
        base, rows = arrange(Listing(paths, [], []))
    except UsageError:
        return
    prefix = f"{base}/" if base else ""
    assert sorted([*(prefix + path for path in rows.paths), *(path for path, _ in rows.ignored)]) == paths
    assert all(name.strip() for name in rows.labels)


# What trickbag writes itself


def test_a_set_that_trickbag_has_written_into_is_the_same_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ask: Here
) -> None:
    """Trained twice from within, the cache there too: the second call finds the data as they were, hence the first run."""
    recipe = album.recipe_file(tmp_path / "tiny.toml")
    photos = tmp_path / "photos"
    for seed, split in enumerate(("train", "val", "test")):
        album.fill(photos / split, {"a": 0, "b": 1}, 6, seed)
    monkeypatch.chdir(photos)
    monkeypatch.setenv("TRICKBAG_CACHE", "cache")
    before = read(".")
    first, again = (ask("train", ".", "--recipe", str(recipe)) for _ in range(2))
    assert (first.code, again.code) == (0, 0)
    assert "lies within the data set '.': trickbag ignores its own output there" in " ".join(first.out.split())
    after = read(".")
    assert (after.fingerprint, set(after.splits)) == (before.fingerprint, {"train", "val", "test"})
    (run,) = (path for path in Path("runs").iterdir() if not path.name.startswith("."))
    assert {path for path, reason in after.ignored if reason == OURS} == {"cache", str(run)}
    with pytest.raises(UsageError, match="is a run or a study of trickbag, not a data set"):
        read(run)


SEAL = {"files": {"curves.png": {"sha256": "0" * 64, "bytes": 3}}}
OUTPUTS = {
    "finished": {"MANIFEST.json": json.dumps(SEAL), "result.json": "{}"},
    "under way": {".work/request.json": '{"request": "0123"}', "recipe.toml": ""},
    "study": {"study.json": '{"request": "0123", "arms": []}', "runs/0/curves.png": ""},
    "export": {"MANIFEST.json": json.dumps(SEAL)},
    "cache of others": {"CACHEDIR.TAG": "Signature: 8a477f597d28d172789f06886806bc55\n# made by another program"},
}
ALIKE = {
    "list of others": {"MANIFEST.json": '{"files": ["1.jpg"]}'},
    "study of others": {"study.json": '{"patients": 7}'},
    "no JSON": {"MANIFEST.json": "[" * 100_000},
    "a tag of others": {"CACHEDIR.TAG": "mine"},
}


def test_folders_of_trickbag_are_known_by_what_it_writes_into_them(tmp_path: Path) -> None:
    root = fill(tmp_path / "d", "cat/1.jpg", "dog/2.jpg")
    for name, files in (OUTPUTS | ALIKE).items():
        for file, content in files.items():
            fill(root / "dog" / name, file, "3.jpg")
            (root / "dog" / name / file).write_text(content)
    os.mkfifo(fill(root / "dog/pipe", "4.jpg") / "MANIFEST.json")
    images = read(root)
    assert images.classes == ("cat", "dog", *sorted(f"dog/{name}" for name in (*ALIKE, "pipe")))
    assert {path for path, reason in images.ignored if reason == OURS} == {f"dog/{name}" for name in OUTPUTS}
    (note,) = (finding for finding in audit(images).findings if finding.message == f"5 ignored: {OURS}.")
    assert note.severity == "note"
