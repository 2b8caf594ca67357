"""The table of images: what counts as an image, its class, its split; and that no order, root or platform habit moves them."""

import csv
import gzip
import io
import os
import random
import socket
import struct
import tarfile
import tempfile
import time
import unicodedata
import zipfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pyarrow import parquet

from trickbag.data import digits, sources
from trickbag.data.images import Images, cache_dir, divide, gaps, read, walk
from trickbag.errors import TrickbagError, UsageError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TRICKBAG_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TRICKBAG_DATA", raising=False)
    return tmp_path / "cache"


def fill(root, *names):
    """Files with distinct bytes; nothing here is ever opened."""
    for name in names:
        path = Path(root, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(ascii(name))
    return root


def table(images):
    """The rows by path, without any number that could shift."""
    labels = [images.classes[label] for label in images.labels]
    return {p: (c, str(s)) for p, c, s in zip(images.paths, labels, images.splits, strict=True)}


def make(labels, groups=None, splits=None, names=None):
    n = len(labels)
    return Images(
        root=Path("data"),
        paths=tuple(names or (f"{row:05d}.png" for row in range(n))),
        labels=np.array(labels, dtype=np.int64),
        splits=np.array(splits or [""] * n, dtype="<U5"),
        groups=np.arange(n) if groups is None else np.array(groups, dtype=np.int64),
        classes=tuple("abcdefgh"[: max(labels) + 1]),
    )


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
    mixed = read(fill(tmp_path / "b", "train/cat/x.jpg", "train/cat/y.jpg", "bus/x.jpg", "bus/y.jpg"))
    assert mixed.classes == ("bus", "train/cat")
    assert gaps(mixed) == [
        "classes 'train/cat' begin with a split's name, beside other folders. Put only split folders at the top."
    ]


@pytest.mark.parametrize("names", [["a.jpg"], ["cat/a.jpg", "b.PNG"], ["train/a.jpg", "val/b.jpg"]])
def test_an_image_outside_of_the_classes_is_refused(tmp_path, names):
    with pytest.raises(UsageError, match="lies in no class folder"):
        read(fill(tmp_path / "d", *names))


def test_an_empty_folder_and_a_missing_one_are_refused(tmp_path):
    (tmp_path / "d").mkdir()
    fill(tmp_path / "d", "cat/.DS_Store")
    with pytest.raises(UsageError, match=r"holds no image \(left aside: 1 x system file\)"):
        read(tmp_path / "d")
    with pytest.raises(UsageError, match="there is no folder"):
        read(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="neither a manifest nor an archive"):
        read(fill(tmp_path, "notes.jpg") / "notes.jpg")
    with pytest.raises(UsageError, match="is no folder"):
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
        start = time.monotonic()
        images = read(root)
        assert time.monotonic() - start < 2
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
        f"classes {nfd!r}, {nfc!r} look alike and differ in Unicode normalisation alone. Rename them if one class is meant."
    ]
    assert all(sentence.isprintable() for sentence in gaps(replace(images, classes=(*images.classes, "zz\n\x1b[31m" + latin))))


def test_ten_thousand_classes_are_quick(tmp_path):
    root = tmp_path / "d"
    for k in range(10_000):
        (root / f"{k:05d}").mkdir(parents=True)
        (root / f"{k:05d}/1.jpg").touch()
    start = time.process_time()
    images = divide(read(root), 0)
    sentences = gaps(images)
    assert time.process_time() - start < 5
    assert len(images.classes) == 10_000
    assert len(sentences) == 1
    assert sentences[0].startswith("classes '00000', '00001', '00002', '00003', '00004' and 9995 more have one image")


# The fingerprint


def test_the_fingerprint_knows_no_order_no_root_and_no_group_number(tmp_path):
    names = [f"{k}/{i}.jpg" for k in "abc" for i in range(5)]
    one = read(fill(tmp_path / "x", *names))
    two = read(fill(tmp_path / "deep/y", *random.Random(1).sample(names, len(names))))
    assert one.fingerprint == two.fingerprint
    assert one.take(np.random.default_rng(0).permutation(15)).fingerprint == one.fingerprint
    assert replace(one, groups=one.groups[::-1] + 7).fingerprint == one.fingerprint


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
        base.take([0, 1]),
        divide(base, 0),
    ]
    assert len({images.fingerprint for images in (base, *others)}) == len(others) + 1


# Splits


@st.composite
def tables(draw):
    n = draw(st.integers(1, 60))
    labels = draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
    groups = draw(st.lists(st.integers(0, draw(st.integers(0, 40))), min_size=n, max_size=n))
    words = draw(st.sampled_from([[""], ["train"], ["train", "val"], ["train", "test"], ["", "test"], ["", "train", "val"]]))
    of_group = draw(st.lists(st.sampled_from(words), min_size=41, max_size=41))
    return make(labels, groups, [of_group[g] for g in groups])


@given(tables(), st.integers(0, 5), st.randoms())
def test_laws_of_division(images, seed, shuffler):
    done = divide(images, seed)
    assert set(done.splits.tolist()) <= {"train", "val", "test"}
    homes = {(g, s) for g, s in zip(done.groups.tolist(), done.splits.tolist(), strict=True)}
    assert len(homes) == len({g for g, _ in homes}), "a group crosses"
    held = np.isin(images.splits, ["val", "test"])
    assert (done.splits[held] == images.splits[held]).all(), "what is given stays"
    for name in ("val", "test"):
        if (images.splits == name).any():
            assert ((done.splits == name) == (images.splits == name)).all()
    for k in set(images.labels[~held].tolist()):
        assert ((done.splits == "train") & (images.labels == k)).any(), "a class left train"
    order = shuffler.sample(range(len(images)), len(images))
    other = divide(replace(images, groups=images.groups * 3 + 1).take(order), seed)
    assert (other.splits == done.splits[order]).all(), "the order of rows matters"


@given(st.lists(st.integers(1, 60), min_size=1, max_size=5), st.integers(0, 9))
def test_division_is_stratified(sizes, seed):
    labels = np.repeat(np.arange(len(sizes)), sizes).tolist()
    done = divide(make(labels), seed)
    for name, share, least in (("val", 0.1, 2), ("test", 0.2, 3)):
        want = [max(1, int(share * n + 0.5)) if n >= least else 0 for n in sizes]
        assert done.split(name).counts().tolist() == want


@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=8), min_size=1, max_size=3), st.integers(0, 3))
def test_every_class_reaches_the_held_out_splits_when_it_has_the_groups(classes, seed):
    labels = [k for k, sizes in enumerate(classes) for size in sizes for _ in range(size)]
    groups = [100 * k + g for k, sizes in enumerate(classes) for g, size in enumerate(sizes) for _ in range(size)]
    done = divide(make(labels, groups), seed)
    for k, sizes in enumerate(classes):
        have = [done.split(name).counts()[k] > 0 for name in ("train", "val", "test")]
        assert have == [True, len(sizes) >= 2, len(sizes) >= 3]


def test_a_huge_group_does_not_fill_a_small_split():
    labels = [0] * 103
    done = [divide(make(labels, [0] * 100 + [1, 2, 3]), seed) for seed in range(8)]
    assert all((one.splits[:100] == "train").all() for one in done)


def test_the_seed_decides_and_nothing_else():
    images = make([0, 1] * 50)
    draws = {tuple(divide(images, seed).splits) for seed in (0, 1, 2)}
    assert len(draws) == 3
    assert "".join(s[1] for s in divide(make([0] * 12), 0).splits.tolist()) == "rrrerrrrrare"


def test_rows_without_a_split_follow_their_group():
    done = divide(make([0] * 6, [0, 0, 1, 1, 2, 3], ["test", "", "val", "", "", "train"]), 0)
    assert done.splits.tolist() == ["test", "test", "val", "val", "train", "train"]


def test_a_group_that_the_user_tore_stays_as_given():
    torn = make([0] * 12, [g // 2 for g in range(12)], ["train", "val"] * 5 + ["train"] * 2)
    for seed in range(5):
        done = divide(torn, seed)
        assert done.splits[:10].tolist() == ["train", "val"] * 5
        assert set(done.splits[10:].tolist()) == {"test"}


def test_shares_are_checked_and_zero_takes_nothing():
    assert set(divide(make([0] * 9), 0, val=0, test=0).splits.tolist()) == {"train"}
    assert Counter(divide(make([0] * 100), 0, val=0.25, test=0.5).splits.tolist()) == {"train": 25, "val": 25, "test": 50}
    for val, test in ((-0.1, 0.2), (0.5, 0.5), (float("nan"), 0.1)):
        with pytest.raises(UsageError, match="together below 1"):
            divide(make([0] * 9), 0, val, test)


def test_gaps_say_where_a_class_is_missing():
    images = make(
        [0, 0, 0, 1, 1, 2, 2, 3, 4, 4, 4], splits=["train", "val", "test"] + ["train"] * 2 + ["val"] * 2 + ["train"] * 4
    )
    images = replace(images, classes=("a", "b", "c", "d", "e", "f"), groups=np.array([0, 0, 2, 3, 4, 5, 6, 7, 8, 9, 10]))
    assert gaps(images) == [
        "classes 'f' hold no image. Add some, or remove the folder.",
        "classes 'd' have one image, so that either training or judging goes without. Add more.",
        "classes 'c' lie in val only and cannot be learned. Add images to train and test.",
        "classes 'b', 'e' lie in train only and are not judged in val and test. Add images to val and test.",
        "groups: 1 cross splits, so that the score is too good. Give each group one split.",
    ]
    assert gaps(divide(make([0] * 10 + [1] * 3), 0)) == []


def test_an_empty_class_stays_in_the_map(tmp_path):
    root = fill(tmp_path / "d", "train/cat/1.jpg", "train/cat/2.jpg", "notes/a.txt")
    (root / "train/ape").mkdir()
    (root / "val").mkdir()
    images = read(root)
    assert images.classes == ("ape", "cat")
    assert "classes 'ape' hold no image. Add some, or remove the folder." in gaps(images)


def test_taking_rows():
    images = replace(make([0, 1, 2, 1]), hashes=("p", "q", "r", "s"))
    some = images.take([3, 0])
    assert (some.paths, some.labels.tolist(), some.groups.tolist(), some.hashes) == (
        ("00003.png", "00000.png"),
        [1, 0],
        [3, 0],
        ("s", "p"),
    )
    assert images.take(images.labels == 1).paths == ("00001.png", "00003.png")
    assert len(images.take([])) == 0
    assert images.take([]).counts().tolist() == [0, 0, 0]


# Manifests

ROWS = [
    {"path": "img/2.jpg", "label": "dog", "split": "Validation", "group": ""},
    {"path": "./img/1.jpg", "label": "cat", "split": "train", "group": "anna"},
    {"path": "img/a,\n3.jpg", "label": "cat", "split": "", "group": "anna"},
    {"path": "/abs/4.jpg", "label": "bird/blue", "split": "testing", "group": "bob"},
]


def manifest(path, rows):
    if path.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(rows), path)
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)
    return path


@pytest.mark.parametrize("name", ["m.csv", "m.parquet"])
def test_manifests(tmp_path, name):
    images = read(manifest(tmp_path / name, ROWS))
    assert images.classes == ("bird/blue", "cat", "dog")
    assert table(images) == {
        "/abs/4.jpg": ("bird/blue", "test"),
        "img/1.jpg": ("cat", "train"),
        "img/2.jpg": ("dog", "val"),
        "img/a,\n3.jpg": ("cat", ""),
    }
    assert images.groups.tolist() == [0, 1, 2, 1]
    assert images.path(0) == Path("/abs/4.jpg")
    assert images.path(1) == tmp_path / "img/1.jpg"
    assert read(manifest(tmp_path / name, ROWS[::-1])).fingerprint == images.fingerprint


def test_a_manifest_needs_two_columns_only_and_keeps_bytes(tmp_path):
    (tmp_path / "m.csv").write_bytes(b"\xef\xbb\xbfLabel, PATH\r\nx,caf\xe9.jpg\r\n\r\ny,b.jpg\r\n")
    images = read(tmp_path / "m.csv")
    assert [os.fsencode(p) for p in images.paths] == [b"b.jpg", b"caf\xe9.jpg"]
    assert [images.classes[k] for k in images.labels] == ["y", "x"]
    assert images.splits.tolist() == ["", ""]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,split\na,train\n", "m.csv, line 1: one column label is needed"),
        ("", "m.csv, line 1: one column path"),
        ("path,label,label\na,b,c\n", "m.csv, line 1: one column label"),
        ("path,label,split\na,b,train\nc,d,tset\n", "m.csv, line 3: there is no split 'tset'"),
        ('path,label\n"a\nb",x\nc, \n', "m.csv, line 4: 'c' has the label ''"),
        ("path,label\n,x\n", "m.csv, line 2: the path '' names no file"),
        ("path,label\na,x\nb,x\n./a,y\n", "m.csv, line 4: 'a' stands in line 2 already"),
        ("path,label\na,x,y\n", "m.csv, line 2: 3 fields, not 2"),
        ('path,label\na,"x\n', "m.csv, line 2: this is no CSV"),
        ("path,label\n", "holds no image"),
    ],
)
def test_a_wrong_manifest_is_refused_with_its_line(tmp_path, text, message):
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(UsageError, match=message):
        read(tmp_path / "m.csv")


def test_a_wrong_parquet_is_refused_with_its_row(tmp_path):
    path = tmp_path / "m.parquet"
    with pytest.raises(UsageError, match="row 2: 'b' has the label ''"):
        read(manifest(path, [{"path": "a", "label": 1}, {"path": "b", "label": None}]))
    with pytest.raises(UsageError, match="row 3: 'a' stands in row 1 already"):
        read(manifest(path, [{"path": p, "label": "x"} for p in "aba"]))
    with pytest.raises(UsageError, match="one column label is needed"):
        read(manifest(path, [{"path": "a"}]))
    path.write_bytes(b"no parquet at all")
    with pytest.raises(UsageError, match="no Parquet file"):
        read(path)


def test_a_large_manifest_is_read_without_looking_at_its_files(tmp_path):
    n = 50_000
    lines = (f"train/{i % 1000:04d}/{i:08d}.jpg,{i % 1000:04d},train\n" for i in range(n))
    (tmp_path / "m.csv").write_text("path,label,split\n" + "".join(lines))
    start = time.process_time()
    images = divide(read(tmp_path / "m.csv"), 0)
    assert time.process_time() - start < 60 * n / 1.3e6 * 2
    assert len(images) == n


# Archives


def tar(path, *members, mode="w:gz"):
    with tarfile.open(path, mode) as file:
        for name, kind, target in members:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target if kind != tarfile.REGTYPE else ""
            content = target.encode() if kind == tarfile.REGTYPE else b""
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize("name", ["d.tar", "d.tar.gz", "d.tgz", "d.zip"])
@pytest.mark.parametrize("top", ["", "food/", "a/b/"])
def test_an_archive_is_read_as_the_folder_in_it(tmp_path, name, top):
    names = [f"{s}/{k}/{i}.jpg" for s in ("train", "val") for k in ("cat", "dog") for i in range(2)]
    folder = fill(tmp_path / "d", *names)
    if name.endswith("zip"):
        with zipfile.ZipFile(tmp_path / name, "w") as file:
            for member in [*names, "__MACOSX/x/._1.jpg"]:
                file.writestr(member if member[0] == "_" else top + member, ascii(member))
    else:
        tar(tmp_path / name, *((top + n, tarfile.REGTYPE, ascii(n)) for n in names), mode="w:" if name == "d.tar" else "w:gz")
    images = read(tmp_path / name)
    assert images.fingerprint == read(folder).fingerprint
    assert images.path(3).read_text() == ascii(images.paths[3])
    assert images.root.is_relative_to(cache_dir())


def test_a_single_split_or_class_is_no_wrapping(tmp_path):
    only = tar(tmp_path / "a.tar", ("train/cat/1.jpg", tarfile.REGTYPE, "x"))
    assert read(only).splits.tolist() == ["train"]
    assert read(tar(tmp_path / "b.tar", ("cat/1.jpg", tarfile.REGTYPE, "x"))).classes == ("cat",)


def test_an_archive_is_unpacked_once_even_by_two(tmp_path, monkeypatch):
    path = tar(tmp_path / "d.tar", *((f"cat/{i}.jpg", tarfile.REGTYPE, "x") for i in range(200)))
    calls, real = [], sources._extract
    monkeypatch.setattr(sources, "_extract", lambda *a: (calls.append(1), real(*a)))
    with ThreadPoolExecutor(4) as pool:
        roots = {images.root for images in pool.map(read, [path] * 4)}
    assert (len(roots), len(calls)) == (1, 1)
    os.utime(path, (1, 1))
    assert read(path).root not in roots


def test_a_killed_unpacking_leaves_nothing_that_counts(tmp_path, cache):
    path = tar(tmp_path / "d.tar", ("cat/1.jpg", tarfile.REGTYPE, "x"))
    root = read(path).root
    root.rename(root.with_name(root.name + ".part"))
    fill(root.with_name(root.name + ".part"), "cat/half.jpg")
    assert read(path).paths == ("cat/1.jpg",)


EVIL = [
    ("../evil", tarfile.REGTYPE, "x"),
    ("cat/../../evil", tarfile.REGTYPE, "x"),
    ("/tmp/trickbag-evil", tarfile.REGTYPE, "x"),
    ("cat/link", tarfile.SYMTYPE, "/etc/passwd"),
    ("cat/link", tarfile.SYMTYPE, "../../../../etc/passwd"),
    ("cat/link", tarfile.LNKTYPE, "/etc/passwd"),
    ("cat/link", tarfile.SYMTYPE, ".."),
    ("cat/link", tarfile.SYMTYPE, "link"),
    ("cat/fifo", tarfile.FIFOTYPE, ""),
    ("cat/null", tarfile.CHRTYPE, ""),
]


@pytest.mark.parametrize("member", EVIL)
def test_an_archive_writes_nothing_outside(tmp_path, cache, member):
    path = tar(tmp_path / "d.tar", ("cat/1.jpg", tarfile.REGTYPE, "x"), member, ("cat/2.jpg", tarfile.REGTYPE, "x"))
    with pytest.raises(UsageError, match=r"would be written outside|is no file, nor a link|cannot be unpacked"):
        read(path)
    assert not Path("/tmp/trickbag-evil").exists()
    assert [p.name for p in tmp_path.rglob("*") if p.suffix != ".lock" and p.is_file()] == ["d.tar"]


def test_an_evil_zip_and_links_through_folders(tmp_path):
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as file:
        file.writestr("cat/1.jpg", "x")
        file.writestr("../evil", "x")
    with pytest.raises(UsageError, match="outside"):
        read(tmp_path / "d.zip")
    outside = tar(tmp_path / "e.tar", ("cat", tarfile.SYMTYPE, str(tmp_path)), ("cat/evil", tarfile.REGTYPE, "x"))
    with pytest.raises(UsageError, match="is no file, nor a link"):
        read(outside)
    assert not list(tmp_path.rglob("evil"))


def test_a_link_inside_of_an_archive_is_the_file(tmp_path):
    path = tar(
        tmp_path / "d.tar",
        ("cat/1.jpg", tarfile.REGTYPE, "miau"),
        ("cat/2.jpg", tarfile.LNKTYPE, "cat/1.jpg"),
        ("dog/3.jpg", tarfile.SYMTYPE, "../cat/1.jpg"),
    )
    images = read(path)
    assert [images.path(i).read_text() for i in range(3)] == ["miau"] * 3
    assert not any(images.path(i).is_symlink() for i in range(3))


@pytest.mark.parametrize("name", ["d.tar.gz", "d.zip"])
def test_a_damaged_archive_is_refused(tmp_path, name):
    noise = random.Random(0).randbytes(50_000).hex()
    if name == "d.zip":
        with zipfile.ZipFile(tmp_path / name, "w") as file:
            file.writestr("cat/1.jpg", noise)
        content = bytearray((tmp_path / name).read_bytes())
        content[5000] ^= 255
    else:
        content = tar(tmp_path / name, ("cat/1.jpg", tarfile.REGTYPE, noise)).read_bytes()[:20_000]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match="cannot be unpacked"):
        read(tmp_path / name)


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setenv("TRICKBAG_CACHE", str(fill(tmp_path, "file") / "file"))
    with pytest.raises(TrickbagError, match="Set TRICKBAG_CACHE"):
        read(tar(tmp_path / "d.tar", ("cat/1.jpg", tarfile.REGTYPE, "x")))


def test_where_the_cache_is(monkeypatch):
    assert cache_dir() == Path(os.environ["TRICKBAG_CACHE"])
    monkeypatch.delenv("TRICKBAG_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_dir() == Path("/x/trickbag")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_dir() == Path.home() / ".cache/trickbag"


# Named sets


def pixels(images, row):
    with Image.open(images.path(row)) as image:
        return np.asarray(image)


def idx(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(b"\0\0\x08" + bytes([array.ndim]) + shape + array.tobytes())
    with gzip.open(f"{path}.gz", "wb") as file:
        file.write(path.read_bytes())


@pytest.fixture
def mnist(tmp_path, monkeypatch):
    """The files of MNIST with 30 training and 20 test images of noise; returns their pixels and labels by split."""
    rng, parts = np.random.default_rng(0), {}
    for split, word, n in (("train", "train", 30), ("test", "t10k", 20)):
        known, labels = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8), (np.arange(n) % 10).astype(np.uint8)
        idx(tmp_path / f"data/MNIST/raw/{word}-images-idx3-ubyte", known)
        idx(tmp_path / f"data/MNIST/raw/{word}-labels-idx1-ubyte", labels)
        parts[split] = known, labels
    monkeypatch.setenv("TRICKBAG_DATA", str(tmp_path / "data"))
    return parts


@pytest.mark.parametrize("name", ["torchvision:MNIST", "torchvision:mnist", "timm:torch/mnist"])
def test_a_set_on_disk_is_read_by_its_library(mnist, name, capsys):
    images = read(name)
    assert images.classes[:2] == ("0 - zero", "1 - one")
    for split, (known, labels) in mnist.items():
        part = images.split(split)
        assert part.labels.tolist() == labels.tolist()
        assert all((pixels(part, i) == known[i]).all() for i in range(len(part)))
    assert capsys.readouterr().out == ""
    assert read(name).fingerprint == images.fingerprint


def test_arguments_reach_the_class():
    images = read("torchvision:FakeData(size=12, image_size=(3, 8, 9), num_classes=3)")
    assert (len(images), set(images.splits.tolist()), set(images.classes) <= {"0", "1", "2"}) == (12, {""}, True)
    assert pixels(images, 0).shape == (8, 9, 3)


def test_a_folder_set_of_torchvision(tmp_path, monkeypatch):
    monkeypatch.setenv("TRICKBAG_DATA", str(tmp_path))
    for kind, level in (("Forest", 10), ("River", 200)):
        (tmp_path / f"eurosat/2750/{kind}").mkdir(parents=True)
        Image.new("RGB", (4, 4), (level, 0, 0)).save(tmp_path / f"eurosat/2750/{kind}/{kind}_1.jpg")
    images = read("torchvision:EuroSAT")
    assert images.classes == ("Forest", "River")
    assert [pixels(images, row)[0, 0, 0] > 190 for row in range(2)] == [False, True]


def test_a_set_with_named_splits(tmp_path, monkeypatch):
    monkeypatch.setenv("TRICKBAG_DATA", str(tmp_path))
    for split in ("train", "valid", "test"):
        (tmp_path / f"country211/{split}/FR").mkdir(parents=True)
        Image.new("L", (4, 4)).save(tmp_path / f"country211/{split}/FR/1.jpg")
    assert sorted(read("torchvision:Country211").splits.tolist()) == ["test", "train", "val"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("torchvision:Nothing", "torchvision has no data set 'Nothing'"),
        ("torchvision:", "torchvision has no data set ''"),
        ("torchvision:FakeData(sise=3)", "could not be loaded"),
        ("torchvision:FER2013", "could not be loaded into .*Go online once"),
        ("torchvision:CocoDetection", "could not be loaded"),
        ("timm:torch/nothing", "could not be loaded"),
        ("timm:folder", "Give the path of that folder"),
    ],
)
def test_a_set_that_cannot_be_loaded_is_a_usage_error(name, message, cache):
    with pytest.raises(UsageError, match=message):
        read(name)
    assert not list(cache.rglob("manifest.csv"))


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
