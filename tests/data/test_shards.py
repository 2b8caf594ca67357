"""Shards of WebDataset become the same table as folders, whole samples or a sentence: nothing is read in part."""

import io
import json
import os
import tarfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import album
import numpy as np
import pytest
from PIL import Image
from tables import table

import trickbag as tb
from trickbag.data import archives, shards
from trickbag.data.audit import audit
from trickbag.data.images import Images
from trickbag.data.reading import read
from trickbag.ground.cache import cache_dir
from trickbag.ground.errors import UsageError

pytestmark = pytest.mark.usefixtures("cache")


def shard(path: Path, members: Mapping[str, Any], mode: Any = "w") -> Path:
    """A tar of these members in order: bytes, text, or objects that are written as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:
        for name, value in members.items():
            content = value if isinstance(value, bytes) else (value if isinstance(value, str) else json.dumps(value)).encode()
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


def png(kind: int, rng: np.random.Generator) -> bytes:
    """A texture of the album as a PNG file."""
    out = io.BytesIO()
    Image.fromarray(album.texture(kind, rng)).save(out, "png")
    return out.getvalue()


def images_of(folder: Path, pattern: str = "*.tar") -> Images:
    return read(f"{folder}/{pattern}")


def test_a_pattern_names_shards_and_their_splits(tmp_path: Path) -> None:
    """Braces, lists and globs reach the same shards, in any order; the split comes from the name of each."""
    for split in ("train", "val"):
        for number in range(8, 11):
            members = {f"{number}{row}.{kind}": f"{row % 2}" for row in range(4) for kind in ("jpg", "cls")}
            shard(tmp_path / f"{split}-{number:04d}.tar", members)
    whole = images_of(tmp_path, "{train,val}-{0008..0010}.tar")
    assert Counter(whole.splits.tolist()) == {"train": 12, "val": 12}
    assert whole.classes == ("0", "1")
    assert table(whole)["val-0009.tar/93.jpg"] == ("1", "val")
    assert whole.path(0).read_text() == "0"
    for pattern in (
        "*.tar",
        "{val,train}-*.tar",
        f"train-*.tar::{tmp_path}/val-00[01][0-9].tar",
        "*{8..10}.tar",
        "{train-{0008..0010},val-*}.tar",
    ):
        assert images_of(tmp_path, pattern).fingerprint == whole.fingerprint
    assert images_of(tmp_path, "train-*.tar").splits.tolist() == ["train"] * 12
    assert len(images_of(tmp_path, "train-0008.tar")) == 4


def test_split_folders_around_shards_count_where_their_own_names_say_nothing(tmp_path: Path) -> None:
    for name in ("train/0", "Validation/0", "testing/birds_train-0", "more/0"):
        shard(tmp_path / f"{name}.tar", {"a.jpg": name, "a.cls": "x"})
    assert table(images_of(tmp_path, "{train,Validation,testing,more}/*0.tar")) == {
        "Validation/0.tar/a.jpg": ("x", "val"), "more/0.tar/a.jpg": ("x", ""),
        "testing/birds_train-0.tar/a.jpg": ("x", "train"), "train/0.tar/a.jpg": ("x", "train"),
    }  # fmt: skip


def test_numbers_of_a_range_keep_the_width_of_its_first(tmp_path: Path) -> None:
    assert list(shards.spelled("a{098..101}b")) == ["a098b", "a099b", "a100b", "a101b"]
    assert list(shards.spelled("{9..11}")) == ["9", "10", "11"]
    assert list(shards.spelled("{3..1}")) == []
    assert list(shards.spelled("plain")) == ["plain"]


LABELS = [
    ({"k.cls": "3"}, "3"), ({"k.cls": "03\n"}, "3"), ({"k.cls": " a/red \n"}, "a/red"), ({"k.cls": b"caf\xe9"}, "caf\udce9"),
    ({"k.json": {"label": 3}}, "3"), ({"k.json": {"cls": "3"}}, "3"), ({"k.json": {"class": "owl"}}, "owl"),
    ({"k.json": {"class_name": "owl", "label": 3, "url": "x"}}, "owl"), ({"k.cls": "3", "k.json": {"class": "owl"}}, "owl"),
    ({"k.cls": "3", "k.json": {"label": "3", "license": 7}}, "3"), ({"k.cls": "3", "k.json": ["a"], "k.txt": "a bird"}, "3"),
]  # fmt: skip


@pytest.mark.parametrize(("label", "name"), LABELS)
def test_a_label_may_be_told_in_each_usual_form(tmp_path: Path, label: Mapping[str, Any], name: str) -> None:
    """In the forms that WebDataset's users write, before or after the image, with other members beside it."""
    for order in (1, -1):
        members = dict([*label.items(), ("k.JPG", "pixels"), ("k.seg.png", "mask")][::order])
        found = read(shard(tmp_path / "d.tar", members))
        assert table(found) == {"k.JPG": (name, "")}
        assert ("k.seg.png", "side file") in found.ignored
        assert not set(label) & {path for path, reason in found.ignored if reason != "side file"}


def test_a_key_ends_at_the_first_dot_of_the_name(tmp_path: Path) -> None:
    members = {"v1.0/a.jpg": "1", "v1.0/a.cls": "x", "v2.0/a.jpg": "2", "v2.0/a.cls": "y", "v2.0/a.left.jpg": "3"}
    found = read(shard(tmp_path / "d.tar", members))
    assert table(found) == {"v1.0/a.jpg": ("x", ""), "v2.0/a.jpg": ("y", "")}
    assert found.ignored == (("v2.0/a.left.jpg", "side file"),)


def test_dots_in_the_names_of_samples_lose_none_of_them(tmp_path: Path) -> None:
    """39 samples whose names have dots: beside plain ones, several that share all up to their first dot, and one that extends
    the key of another; an image with dots and no label is an image without a label, no side file."""
    names = [f"{n:04d}" for n in range(13)] + [f"IMG.2021.{n:02d}" for n in range(13)] + [f"{n:04d}.v1.5" for n in range(13)]
    members = {f"{name}.{kind}": f"{n % 3}" for n, name in enumerate(names) for kind in ("jpg", "cls")}
    members |= {"x.y.jpg": "no label", "0000.mask.png": "a mask"}
    found = read(shard(tmp_path / "d.tar", members))
    assert table(found) == {f"{name}.jpg": (f"{n % 3}", "") for n, name in enumerate(names)}
    assert set(found.ignored) == {("x.y.jpg", "image without a label"), ("0000.mask.png", "side file")}


@pytest.mark.parametrize("name", ["classes.txt", "classnames.txt"])
def test_a_file_of_names_gives_numbers_their_classes(tmp_path: Path, name: str) -> None:
    """All names are classes, in one map, with images or without; without the file a number is the name."""
    members = {
        "a.jpg": "a",
        "a.cls": "2",
        "b.jpg": "b",
        "b.cls": "ant",
        "c.jpg": "c",
        "c.json": {"label": 1, "class_name": "bee"},
    }
    shard(tmp_path / "test/0.tar", members)
    shard(tmp_path / "train/0.tar", {"a.jpg": "A", "a.cls": "0"})
    assert set(images_of(tmp_path, "{train,test}/*.tar").classes) == {"0", "2", "ant", "bee"}
    (tmp_path / name).write_text("\ufeffant\r\nbee\r\nnew zealand owl\r\nyak\r\n\n")
    found = images_of(tmp_path, "{train,test}/*.tar")
    assert found.classes == ("ant", "bee", "new zealand owl", "yak")
    assert [found.classes[label] for label in found.labels] == ["new zealand owl", "ant", "bee", "ant"]
    (tmp_path / "test" / name).write_text("one\ntwo\nthree\nant\nbee\n")
    with pytest.raises(UsageError, match=r"0.tar: the sample 'c' has two labels, 'bee' and 'two'. Keep one"):
        read(tmp_path / "test/0.tar")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\n\nb", r"classes.txt, line 2: '' is not a name"),
        ("a\nb\na", r"classes.txt, line 3: 'a' is already in line 1"),
        ("a\nb", r"d.tar: the sample 'k' has the label 2, and only 0 to 1 have names"),
        ("", r"classes.txt, line 1: '' is not a name"),
    ],
)
def test_a_wrong_file_of_names_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "classes.txt").write_text(text)
    with pytest.raises(UsageError, match=message):
        read(shard(tmp_path / "d.tar", {"k.jpg": "x", "k.cls": "2"}))
    with pytest.raises(UsageError, match=message if "line" in message else "'owl', which is not in the file of class names"):
        read(shard(tmp_path / "d.tar", {"k.jpg": "xy", "k.cls": "owl"}))


TWO = [
    ({"k.cls": "3", "k.json": {"label": 4}}, "two labels, 3 and 4"),
    ({"k.cls": "owl", "k.json": {"class_name": "yak"}}, "two labels, 'owl' and 'yak'"),
    ({"k.json": {"label": 3, "cls": 4}}, "two labels, 3 and 4"),
    ({"k.cls": "3", "k.CLS": "4"}, "two labels, [34] and [34]"),
    ({"k.cls": "3", "k.png": "other pixels"}, "two images, 'k.jpg' and 'k.png'"),
    ({"k.cls": "3", "./k.cls": "4"}, "k.cls' is in it twice"),
    ({"k.cls": "3", "k.jpg/../k.jpg": "4"}, "would be written elsewhere"),
    ({"k.json": {"label": 3, "class": "emu"}, "m.jpg": "y", "m.json": {"label": 4, "class": "emu"}}, "3 is already called"),
]  # fmt: skip


@pytest.mark.parametrize(("members", "message"), TWO)
def test_labels_that_do_not_agree_are_an_error(tmp_path: Path, members: Mapping[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read(shard(tmp_path / "d.tar", {"k.jpg": "x"} | dict(members)))


def test_two_numbers_with_one_name_are_an_error_across_shards_too(tmp_path: Path) -> None:
    for number in range(2):
        shard(tmp_path / f"{number}.tar", {"k.jpg": "x", "k.json": {"label": number, "class_name": "crane"}})
    with pytest.raises(UsageError, match=r"1.tar: the sample 'k' calls label 1 'crane', as label 0 is already called"):
        images_of(tmp_path)


def test_what_is_no_whole_sample_is_listed(tmp_path: Path) -> None:
    good = {"a.jpg": "x", "a.cls": "0"}
    bad: dict[str, tuple[Any, str]] = {
        "b.jpg": ("y", "image without a label"), "c.cls": ("1", "label without an image"),
        "d.json": ({"label": 1}, "label without an image"), "e.txt": ("a bird", "side file"), "README": ("hello", "side file"),
        "._a.jpg": ("x", "system file"), "f.json": ({"url": "x"}, "side file"), "f.jpg": ("z", "image without a label"),
    }  # fmt: skip
    for number, label in enumerate(
        ["", b"\0", {"label": True}, {"label": [1, 2]}, {"cls": 1.5}, "[" * 100_000, {"cls": 1, "x": "x" * (1 << 20)}]
    ):
        bad[f"u{number}.jpg"] = f"u{number}", "image with an unreadable label"
        good[f"u{number}.cls" if isinstance(label, bytes) or label == "" else f"u{number}.json"] = label
    members = good | {name: content for name, (content, _) in bad.items()}
    shard(tmp_path / "train-0.tar", members)
    found = images_of(tmp_path)
    assert table(found) == {"train-0.tar/a.jpg": ("0", "train")}
    assert dict(found.ignored) == {f"train-0.tar/{name}": reason for name, (_, reason) in bad.items()}
    told = {f.message: f.severity for f in audit(found).findings if f.kind == "ignored"}
    assert told["7 ignored: image with an unreadable label."] == told["2 ignored: label without an image."] == "warning"


def test_shards_without_labels_are_folders_of_classes(tmp_path: Path) -> None:
    """By the rule of archives for each: with a folder around them, splits above, JSON about other things beside the images."""
    shard(tmp_path / "train-0.tar", {"food/pie/1.jpg": "1", "food/pie/1.png": "2", "food/soup/1.jpg": "3"}, "w:gz")
    shard(tmp_path / "train-1.tar", {"val/pie/1.jpg": "4", "train/pie/2.jpg": "5", "train/pie/2.json": {"url": "x"}})
    shard(tmp_path / "other.tar", {"soup/2.jpg": "6", "soup/2.json": "no JSON"})
    found = images_of(tmp_path)
    assert table(found) == {
        "other.tar/soup/2.jpg": ("soup", ""),
        "train-0.tar/pie/1.jpg": ("pie", "train"), "train-0.tar/pie/1.png": ("pie", "train"),
        "train-0.tar/soup/1.jpg": ("soup", "train"),
        "train-1.tar/train/pie/2.jpg": ("pie", "train"), "train-1.tar/val/pie/1.jpg": ("pie", "val"),
    }  # fmt: skip
    assert all(found.path(row).is_file() for row in range(len(found)))
    with pytest.raises(UsageError, match="lies in no class folder"):
        read(shard(tmp_path / "other.tar", {"1.jpg": "x", "2.jpg": "y"}))


def test_copies_in_two_shards_are_found(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    members = {
        f"{row}.{kind}": png(row % 3, rng) if kind == "png" else str(row % 3) for row in range(6) for kind in ("png", "cls")
    }
    shard(tmp_path / "train-0.tar", members)
    os.link(tmp_path / "train-0.tar", tmp_path / "val-0.tar")
    shard(tmp_path / "train-1.tar", {"x.png": members["0.png"], "x.cls": "2"})
    found = {finding.kind: finding for finding in audit(images_of(tmp_path)).findings}
    assert (found["leak"].severity, len(found["leak"].pairs)) == ("error", 6 + 1)
    assert ("train-0.tar/0.png", "train-1.tar/x.png") in found["conflict"].pairs
    assert len(images_of(tmp_path, "{train,train}-0.tar")) == 6


MISSING = [
    ("train-{0..2}.tar", "there is no shard .*train-2.tar"), ("nothing-*.tar", "there is no shard .*nothing"),
    ("train-{0..1.tar", "there is no shard"), ("train-{1..0}.tar", "names no shard"), ("*-0.*", "notes-0.txt' is not a tar"),
    ("{train-0.tar,}", "there is no shard"), ("train-val-[0].tar", "names the splits train and val"),
    ("train-{0..999999999999}.tar", "there is no shard .*train-2.tar"), ("dir.tar*", "there is no shard"),
]  # fmt: skip


@pytest.mark.parametrize(("pattern", "message"), MISSING)
def test_a_pattern_that_does_not_name_shards_is_refused(tmp_path: Path, pattern: str, message: str) -> None:
    for name in ("train-0", "train-1", "train-val-0"):
        shard(tmp_path / f"{name}.tar", {"a.jpg": "x", "a.cls": "0"})
    (tmp_path / "notes-0.txt").write_text("no tar")
    (tmp_path / "dir.tar").mkdir()
    os.mkfifo(tmp_path / "pipe-0.tar")
    with pytest.raises(UsageError, match=message):
        images_of(tmp_path, pattern)


def test_a_folder_whose_name_looks_like_a_pattern_is_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "birds [2024] {new}"
    (folder / "owl").mkdir(parents=True)
    (folder / "owl/1.jpg").write_text("x")
    assert read(folder).classes == ("owl",)
    assert read(shard(folder / "a*.tar", {"k.jpg": "x", "k.cls": "x"})).paths == ("k.jpg",)


@pytest.mark.parametrize("cut", [512, 1024, 512 + 700, 2048])
def test_a_shard_that_is_cut_off_is_refused(tmp_path: Path, cut: int) -> None:
    """Within a member and, what the reader of tars takes for the end, between two or within a header."""
    path = shard(tmp_path / "train-0.tar", {"a.jpg": "x" * 512, "a.cls": "0", "b.jpg": "y", "b.cls": "1"})
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(UsageError, match=r"train-0.tar cannot be unpacked .*Fetch or pack it again"):
        images_of(tmp_path)
    assert not [file for file in cache_dir().rglob("*") if file.suffix in (".jpg", ".part")]


def test_a_shard_that_is_broken_in_the_middle_or_joined_is_refused(tmp_path: Path) -> None:
    members = {f"{n}.{kind}": f"{n}" for n in range(4) for kind in ("jpg", "cls")}
    path = shard(tmp_path / "train-0.tar", members)
    whole = path.read_bytes()
    path.write_bytes(whole + whole)
    with pytest.raises(UsageError, match=r"cannot be unpacked .*several were joined"):
        images_of(tmp_path)
    path.write_bytes(whole[:2048] + b"\1" * 512 + whole[2560:])
    with pytest.raises(UsageError, match=r"cannot be unpacked .*broken in the middle"):
        images_of(tmp_path)


def test_a_member_that_would_fill_the_disk_is_refused_before_it_is_written(tmp_path: Path) -> None:
    """A sparse member: 8 terabytes of zeros in a tar of 10 kilobytes."""
    entry = tarfile.TarInfo("k.jpg")
    entry.pax_headers = {
        "GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "k.jpg", "GNU.sparse.realsize": str(8 << 40),
    }  # fmt: skip
    entry.size = 512
    with tarfile.open(tmp_path / "train-0.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(entry, io.BytesIO(b"1\n0\n0\n".ljust(512, b"\0")))
    with tarfile.open(tmp_path / "train-0.tar") as tar:
        assert tar.getmembers()[0].size == 8 << 40
    with pytest.raises(UsageError, match=r"'k.jpg' unpacks to 8796.1 GB and is not an image"):
        images_of(tmp_path)


def test_a_shard_is_unpacked_once_and_shared_by_patterns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image is then a file of its own, so that no read of one scans a tar; only a shard that changed is unpacked anew."""
    calls: list[Path] = []
    real = archives._extract
    monkeypatch.setattr(archives, "_extract", lambda archive, folder: (calls.append(archive), real(archive, folder)))
    paths = [shard(tmp_path / f"{n}.tar", {"a.jpg": f"{n}", "a.cls": f"{n}"}) for n in range(3)]
    first = images_of(tmp_path)
    assert [first.path(row).read_text() for row in range(3)] == ["0", "1", "2"]
    assert images_of(tmp_path, "{0..2}.tar").root == first.root
    images_of(tmp_path, "{0..1}.tar")
    assert calls == paths
    shard(paths[1], {"a.jpg": "new", "a.cls": "1"})
    second = images_of(tmp_path)
    assert (second.root != first.root, second.path(1).read_text(), calls) == (True, "new", [*paths, paths[1]])


def test_a_set_is_called_by_the_last_plain_folder_of_its_pattern() -> None:
    assert shards.title("a/birds/*.tar::b/{0..1}.tar") == "birds"
    assert shards.title("birds/{train,val}/*.tar") == "birds"
    assert shards.title("{train,val}-{0..9}.tar") == shards.title("/*.tar") == "shards"


def test_shards_train_what_their_images_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole run over shards ends with the weights and the score of a run over the same files and a manifest, bit for bit."""
    recipe, rng = album.recipe_file(tmp_path / "tiny.toml"), np.random.default_rng(0)
    lines = ["path,label,split"]
    for split, count in {"train": 10, "val": 3, "test": 3}.items():
        for number in range(2):
            name, members = f"{split}-{number:06d}.tar", dict[str, Any]()
            for row in range(3 * count // 2):
                content = png(row % 3, rng)
                members |= {f"{row:02d}.png": content, f"{row:02d}.cls": str(row % 3)}
                file = tmp_path / "files" / name / f"{row:02d}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
                lines.append(f"{name}/{row:02d}.png,{'abc'[row % 3]},{split}")
            shard(tmp_path / "shards" / name, members)
    (tmp_path / "shards/classes.txt").write_text("a\nb\nc\n")
    (tmp_path / "files/all.csv").write_text("\n".join(lines))
    run = tb.train(f"{tmp_path}/shards/{{train,val,test}}-{{000000..000001}}.tar", recipe, out=tmp_path / "run")
    monkeypatch.setenv("TRICKBAG_CACHE", str(tmp_path / "other"))
    plain = tb.train(tmp_path / "files/all.csv", recipe, out=tmp_path / "plain")
    assert run.record["test"] == plain.record["test"]
    assert run.record["test"]["n"] == 8
    assert (run.folder / "model.safetensors").read_bytes() == (plain.folder / "model.safetensors").read_bytes()
    assert run.classifier.classes == ("a", "b", "c")
