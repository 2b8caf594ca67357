"""The table of images: what counts as an image and its class; no order, root or platform habit moves them."""

import os
import random
import socket
import tempfile
import unicodedata
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tables import fill, table

from trickbag.data import digits
from trickbag.data.images import Images, divide, gaps
from trickbag.data.listing import walk
from trickbag.data.reading import read
from trickbag.ground.errors import UsageError

pytestmark = pytest.mark.usefixtures("cache")


# Folders


def test_a_class_is_its_whole_path(tmp_path):
    images = read(fill(tmp_path / "d", "shoe/red/1.jpg", "bag/red/1.jpg", "shoe/2.jpg", "shoe/3"))
    assert images.classes == ("bag/red", "shoe", "shoe/red")
    assert table(images)["shoe/3"] == ("shoe", "")
    assert list(images.paths) == sorted(images.paths)
    assert images.path(0) == tmp_path / "d/bag/red/1.jpg"
    assert images.counts().tolist() == [1, 2, 1]


@pytest.mark.parametrize(
    "words", [("train", "val", "test"), ("Training", "VALID", "Testing"), ("tr", "dev", "TEST"), ("TRAIN", "eval", "test")]
)
def test_split_folders_in_the_usual_spellings(tmp_path, words):
    images = read(fill(tmp_path / "d", *(f"{word}/{kind}/1.jpg" for word in words for kind in ("cat", "dog/big"))))
    assert images.classes == ("cat", "dog/big")
    assert [Counter(images.splits.tolist())[name] for name in ("train", "val", "test")] == [2, 2, 2]
    assert {images.path(i).parts[-3 if images.labels[i] == 0 else -4] for i in range(len(images))} == set(words)


def test_a_split_that_lacks_a_class_shifts_nothing(tmp_path):
    images = read(
        fill(tmp_path / "d", "train/ant/1.jpg", "train/bee/1.jpg", "train/cow/1.jpg", "val/bee/1.jpg", "val/dog/1.jpg")
    )
    assert images.classes == ("ant", "bee", "cow", "dog")
    assert images.split("val").classes == images.classes
    assert images.split("val").labels.tolist() == [1, 3]


def test_split_words_without_train_or_beside_other_folders_are_classes(tmp_path):
    assert read(fill(tmp_path / "a", "test/x.jpg", "val/x.jpg")).classes == ("test", "val")
    mixed = fill(tmp_path / "b", "train/cat/x.jpg", "train/cat/y.jpg", "bus/x.jpg", "bus/y.jpg")
    assert gaps(read(mixed, depth=2)) == [
        "1 class below a folder named like a split, beside other folders: 'train/cat'. Put only split folders at the top."
    ]


@pytest.mark.parametrize("names", [["a.jpg"], ["cat/a.jpg", "b.PNG"], ["train/a.jpg", "val/b.jpg"]])
def test_an_image_outside_of_the_classes_is_refused(tmp_path, names):
    with pytest.raises(UsageError, match="lies in no class folder"):
        read(fill(tmp_path / "d", *names))


def test_an_empty_folder_and_a_missing_one_are_refused(tmp_path):
    (tmp_path / "d").mkdir()
    fill(tmp_path / "d", "cat/.DS_Store")
    with pytest.raises(UsageError, match=r"holds no image \(ignored: 1 x system file\)"):
        read(tmp_path / "d")
    with pytest.raises(UsageError, match="there is no folder"):
        read(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="neither a manifest nor an archive"):
        read(fill(tmp_path, "notes.jpg") / "notes.jpg")
    with pytest.raises(UsageError, match="is not a folder"):
        walk(tmp_path / "nowhere")


def test_junk_is_counted_and_never_a_class(tmp_path):
    junk = {".DS_Store", "cat/._1.jpg", "cat/Thumbs.db", "__MACOSX", "cat/.ipynb_checkpoints"}
    side = {"labels.csv", "cat/readme.txt", "cat/1.xml", "LICENSE"}
    root = fill(tmp_path / "d", "cat/1.jpg", "dog/1.jpg", "dog/2.html.jpg", "__MACOSX/cat/._1.jpg")
    fill(root, "cat/.ipynb_checkpoints/1.jpg", *(side | junk) - {"__MACOSX", "cat/.ipynb_checkpoints"})
    images = read(root)
    assert images.classes == ("cat", "dog")
    assert set(images.paths) == {"cat/1.jpg", "dog/1.jpg", "dog/2.html.jpg"}
    assert {i.path for i in images.ignored} == junk | side
    assert Counter(i.reason for i in images.ignored)["system file"] == 5
    assert walk(root) == [root / p for p in ("LICENSE", "cat/1.jpg", "dog/1.jpg", "dog/2.html.jpg")]


def test_what_is_no_file_is_never_opened(tmp_path):
    root = fill(tmp_path / "d", "cat/1.jpg", "dog/1.jpg", "cat/dir.jpg/x")
    os.mkfifo(root / "cat/fifo.jpg")
    (root / "cat/loop.jpg").symlink_to("loop.jpg")
    (root / "cat/gone.jpg").symlink_to("nowhere")
    (root / "cat/pipe.jpg").symlink_to("fifo.jpg")
    (root / "cat/up").symlink_to("..")
    (root / "cat/self").symlink_to(root / "cat")
    (root / "cat/far").symlink_to(tmp_path.parent)
    (root / "good.jpg").symlink_to("cat/1.jpg")
    (root / "good.jpg").rename(root / "dog/link.jpg")
    (root / "dog/link.jpg").unlink()
    (root / "dog/link.jpg").symlink_to("../cat/1.jpg")
    (root / "owl").symlink_to(fill(tmp_path / "elsewhere", "a.jpg"))
    with socket.socket(socket.AF_UNIX) as plug:
        here = Path.cwd()
        os.chdir(root / "dog")
        plug.bind("socket.jpg")
        os.chdir(here)
        images = read(root)
    assert images.paths == ("cat/1.jpg", "dog/1.jpg", "dog/link.jpg", "owl/a.jpg")
    assert {i.path: i.reason for i in images.ignored} == {
        "cat/dir.jpg": "folder named like an image",
        "cat/fifo.jpg": "neither a file nor a folder",
        "cat/pipe.jpg": "neither a file nor a folder",
        "dog/socket.jpg": "neither a file nor a folder",
        "cat/loop.jpg": "link loop",
        "cat/gone.jpg": "dangling link",
        "cat/up": "link to a folder that is listed already",
        "cat/self": "link to a folder that is listed already",
        "cat/far": "link to a folder that is listed already",
    }


def test_folders_that_link_to_each_other_take_no_time(tmp_path):
    names = [f"c{i}" for i in range(12)]
    root = fill(tmp_path / "d", *(f"{name}/1.jpg" for name in names))
    for a in names:
        for b in names:
            (root / a / f"to-{b}").symlink_to(root / b)
    assert len(read(root)) == 12


def test_an_unreadable_folder_is_listed():
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as folder:
        root = fill(Path(folder) / "d", "cat/1.jpg", "dog/1.jpg")
        Path(folder).chmod(0o755)
        (root / "dog").chmod(0o000)
        os.seteuid(user or 65534)  # root reads everything
        try:
            images = read(root)
        finally:
            os.seteuid(user)
            (root / "dog").chmod(0o755)
    assert images.paths == ("cat/1.jpg",)
    assert images.ignored == (("dog", "unreadable folder"),)


NAMES = [
    "😀.jpg",
    "a\nb.jpg",
    "-rf",
    "'\"`$(x).jpg",
    "<img onerror=x>.jpg",
    "\u202egpj.exe",
    "=1+1.jpg",
    "ü.jpg",
    "x" * 251 + ".jpg",
]


def test_any_name_is_usable(tmp_path):
    latin = os.fsdecode(b"\xff\xfe.jpg")
    nfc, nfd = unicodedata.normalize("NFC", "é"), unicodedata.normalize("NFD", "é")
    names, kinds = [*NAMES, latin, nfc, nfd], [nfc, nfd, latin.removesuffix(".jpg"), "-rf"]
    root = fill(tmp_path / "d", *(f"{kind}/{name}" for kind in kinds for name in names))
    images = divide(read(root), 0)
    assert len(images.classes) == 4
    assert sorted(images.paths) == sorted(f"{kind}/{name}" for kind in kinds for name in names)
    assert all(images.path(i).read_text() == ascii(p) for i, p in enumerate(images.paths))
    assert len(images.fingerprint) == 32
    assert [s for s in gaps(images) if "normalisation" in s] == [
        f"2 classes that differ only in Unicode normalisation: {nfd!r}, {nfc!r}. Rename them if they are one class."
    ]
    assert all(sentence.isprintable() for sentence in gaps(replace(images, classes=(*images.classes, "zz\n\x1b[31m" + latin))))


def test_ten_thousand_classes_with_one_photo_each_are_one_finding(tmp_path):
    root = tmp_path / "d"
    for k in range(10_000):
        (root / f"{k:05d}").mkdir(parents=True)
        (root / f"{k:05d}/1.jpg").touch()
    images = divide(read(root), 0)
    sentences = gaps(images)
    assert len(images.classes) == 10_000
    assert len(sentences) == 1
    assert sentences[0].startswith("10,000 classes with one image, so that training or scoring gets none: '00000', '00001', ")
    assert "'00004' and 9995 more. " in sentences[0]


# The fingerprint


def test_the_fingerprint_knows_no_order_no_root_and_no_group_number(tmp_path):
    names = [f"{k}/{i}.jpg" for k in "abc" for i in range(5)]
    one = read(fill(tmp_path / "x", *names))
    two = read(fill(tmp_path / "deep/y", *random.Random(1).sample(names, len(names))))
    assert one.fingerprint == two.fingerprint
    assert one.take(np.random.default_rng(0).permutation(15)).fingerprint == one.fingerprint
    assert replace(one, groups=one.groups[::-1] + 7).fingerprint == one.fingerprint


def test_the_fingerprint_of_a_folder_stays_what_it_was(tmp_path):
    """Runs and decoded pixels are found again by it: it was taken before images could have boxes."""
    assert read(fill(tmp_path, "a/1.jpg", "b/2.jpg")).fingerprint == "772a0686c79f2ae2580e2c9198844208"


def test_the_fingerprint_sees_every_change(tmp_path):
    base = read(fill(tmp_path / "x", "a/1.jpg", "a/2.jpg", "b/1.jpg"))
    others = [
        replace(base, splits=np.array(["val", "", ""])),
        replace(base, groups=np.array([0, 0, 2])),
        replace(base, groups=np.array([0, 1, 1])),
        replace(base, labels=np.array([0, 1, 1])),
        replace(base, classes=("a", "b", "c")),
        replace(base, paths=("a/1.jpg", "a/2.jpg", "b/2.jpg")),
        replace(base, hashes=("x", "y", "z")),
        replace(base, hashes=("x", "z", "y")),
        replace(base, boxes=np.array([[0, 0, 1, 1], [np.nan] * 4, [np.nan] * 4])),
        replace(base, boxes=np.array([[np.nan] * 4, [0, 0, 1, 1], [np.nan] * 4])),
        replace(base, boxes=np.array([[0, 0, 1, 2], [np.nan] * 4, [np.nan] * 4])),
        base.take([0, 1]),
        divide(base, 0),
    ]
    assert len({images.fingerprint for images in (base, *others)}) == len(others) + 1


# The digits


def test_the_digits(tmp_path):
    from sklearn.datasets import load_digits

    root = digits.write(tmp_path / "deep/digits")
    images, known = read(root), load_digits()
    assert images.classes == tuple("0123456789")
    assert images.counts().tolist() == np.bincount(known.target).tolist()
    row = images.paths.index(f"{known.target[1000]}/1000.png")
    with Image.open(images.path(row)) as image:
        assert (image.mode, image.size) == ("L", (8, 8))
        assert np.abs(np.asarray(image) / 255 - known.images[1000] / 16).max() <= 0.5 / 255
    stamp = images.path(0).stat().st_mtime_ns
    assert digits.write(root) == root
    assert images.path(0).stat().st_mtime_ns == stamp
    images.path(0).unlink()
    with pytest.raises(UsageError, match="Choose a new folder"):
        digits.write(root)
    assert [p.name for p in root.parent.iterdir()] == ["digits"]


@pytest.mark.parametrize(("kind", "last"), [("exponential", 3), ("step", 3)])
def test_a_long_tail_keeps_other_splits_and_as_many_images_as_the_literature(kind: str, last: int) -> None:
    """Cui et al.: the number of training images of class k is n mu^k; Buda et al.: half the classes have n / ratio."""
    labels = np.repeat(np.arange(4), 40)
    splits = np.array((["train"] * 30 + ["val"] * 4 + ["test"] * 6) * 4)
    paths = tuple(f"{k}/{n}.png" for n, k in enumerate(labels))
    images = Images(Path("x"), paths, labels, splits, np.arange(160), tuple("abcd"))
    tailed = images.long_tailed(10, kind)
    expected = [30, int(30 * 10 ** (-1 / 3)), int(30 * 10 ** (-2 / 3)), last] if kind == "exponential" else [30, 30, 3, 3]
    assert tailed.split("train").counts().tolist() == expected
    for split in ("val", "test"):
        assert tailed.split(split).paths == images.split(split).paths
    assert set(tailed.paths) <= set(paths)
    assert images.long_tailed(10, kind).paths == tailed.paths
    assert images.long_tailed(10, kind, seed=1).paths != tailed.paths
    assert images.long_tailed(1, kind).paths == paths
    with pytest.raises(UsageError, match=r"a ratio is 1 or more, a kind exponential or step"):
        images.long_tailed(0.5, kind)
