"""Manifests, archives and named sets become the same table as a folder."""

import csv
import gzip
import io
import os
import random
import struct
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet
from tables import fill, table

from trickbag.data import archives, manifests
from trickbag.data.images import divide
from trickbag.data.reading import read
from trickbag.ground.cache import cache_dir
from trickbag.ground.errors import TrickbagError, UsageError

pytestmark = pytest.mark.usefixtures("cache")


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
        ("path,label\na,x\nb,x\n./a,y\n", "m.csv, line 4: 'a' is already in line 2"),
        ("path,label\na,x,y\n", "m.csv, line 2: 3 fields, not 2"),
        ('path,label\na,"x\n', "m.csv, line 2: this is not CSV"),
        ("path,label\n", "holds no image"),
    ],
)
def test_a_wrong_manifest_is_refused_with_its_line(tmp_path, text, message):
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(UsageError, match=message):
        read(tmp_path / "m.csv")


BOXED = [
    {"path": "1.jpg", "label": "cat", "left": 1, "top": 2.5, "right": 30, "bottom": 40},
    {"path": "0.jpg", "label": "cat", "left": None, "top": None, "right": None, "bottom": None},
    {"path": "2.jpg", "label": "dog", "left": 0, "top": 0, "right": 0.5, "bottom": 1e-3},
]


@pytest.mark.parametrize("name", ["m.csv", "m.parquet"])
def test_boxes_go_with_their_images(tmp_path, name):
    images = read(manifest(tmp_path / name, BOXED))
    boxes = [[np.nan] * 4, [1, 2.5, 30, 40], [0, 0, 0.5, 1e-3]]
    assert images.paths == ("0.jpg", "1.jpg", "2.jpg")
    np.testing.assert_array_equal(images.boxes, boxes)
    np.testing.assert_array_equal(images.take([2, 0]).boxes, [boxes[2], boxes[0]])
    np.testing.assert_array_equal(divide(images, 0, val=0, test=0).split("train").take([False, True, False]).boxes, [boxes[1]])


@pytest.mark.parametrize("name", ["m.csv", "m.parquet"])
def test_columns_without_a_box_change_nothing(tmp_path, name):
    bare = [{key: row[key] for key in ("path", "label")} for row in BOXED]
    empty = [row | dict.fromkeys(manifests.BOX) for row in bare]
    plain, boxless = (read(manifest(tmp_path / f"{i}{name}", rows)) for i, rows in enumerate((bare, empty)))
    assert plain.boxes.shape == boxless.boxes.shape == (0, 4)
    assert plain.fingerprint == boxless.fingerprint
    assert plain.fingerprint != read(manifest(tmp_path / name, BOXED)).fingerprint


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        ("left,top,right", "1,2,3", "m.csv, line 1: one column bottom is needed"),
        ("left,top,right,right,bottom", "1,2,3,3,4", "m.csv, line 1: one column right"),
        ("left,top,right,bottom", "1,2,3,", "m.csv, line 3: the box has .* bottom ''"),
        ("left,top,right,bottom", "1,2,x,4", "m.csv, line 3: the box has .* right 'x'"),
        ("left,top,right,bottom", "nan,nan,nan,nan", "m.csv, line 3: the box has left 'nan'"),
        ("left,top,right,bottom", "1,2,inf,4", "m.csv, line 3: the box has"),
        ("left,top,right,bottom", "3,2,3,4", "m.csv, line 3: the box is empty"),
        ("bottom,right,top,left", "1,9,4,2", "m.csv, line 3: the box is empty: left '2', top '4', right '9', bottom '1'"),
        ("left,top,right,bottom", "1,-1,3,4", "m.csv, line 3: the box begins outside"),
    ],
)
def test_a_wrong_box_is_refused_with_its_line(tmp_path, header, row, message):
    empty = "," * header.count(",")
    (tmp_path / "m.csv").write_text(f"path,label,{header}\na.jpg,x,{empty}\nb.jpg,x,{row}\n")
    with pytest.raises(UsageError, match=message):
        read(tmp_path / "m.csv")


def test_a_wrong_box_in_parquet_is_refused_with_its_row(tmp_path):
    with pytest.raises(UsageError, match=r"m\.parquet, row 2: the box has left '', top '0.0'"):
        read(manifest(tmp_path / "m.parquet", [BOXED[0], BOXED[2] | {"left": None}]))


def test_a_wrong_parquet_is_refused_with_its_row(tmp_path):
    path = tmp_path / "m.parquet"
    with pytest.raises(UsageError, match="row 2: 'b' has the label ''"):
        read(manifest(path, [{"path": "a", "label": 1}, {"path": "b", "label": None}]))
    with pytest.raises(UsageError, match="row 3: 'a' is already in row 1"):
        read(manifest(path, [{"path": p, "label": "x"} for p in "aba"]))
    with pytest.raises(UsageError, match="one column label is needed"):
        read(manifest(path, [{"path": "a"}]))
    path.write_bytes(b"no parquet at all")
    with pytest.raises(UsageError, match="cannot be read as Parquet"):
        read(path)


def test_a_large_manifest_is_read_without_looking_at_its_files(tmp_path):
    n = 50_000
    lines = (f"train/{i % 1000:04d}/{i:08d}.jpg,{i % 1000:04d},train\n" for i in range(n))
    (tmp_path / "m.csv").write_text("path,label,split\n" + "".join(lines))
    images = divide(read(tmp_path / "m.csv"), 0)
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
    calls, real = [], archives._extract
    monkeypatch.setattr(archives, "_extract", lambda *a: (calls.append(1), real(*a)))
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
    with pytest.raises(UsageError, match=r"would be written elsewhere|is neither a file nor a link|cannot be unpacked"):
        read(path)
    assert not Path("/tmp/trickbag-evil").exists()
    assert [p.name for p in tmp_path.rglob("*") if p.suffix not in (".lock", ".used") and p.is_file()] == ["d.tar"]


def test_an_evil_zip_and_links_through_folders(tmp_path):
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as file:
        file.writestr("cat/1.jpg", "x")
        file.writestr("../evil", "x")
    with pytest.raises(UsageError, match="elsewhere"):
        read(tmp_path / "d.zip")
    outside = tar(tmp_path / "e.tar", ("cat", tarfile.SYMTYPE, str(tmp_path)), ("cat/evil", tarfile.REGTYPE, "x"))
    with pytest.raises(UsageError, match="is neither a file nor a link"):
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
