"""Images in plain tars are read where they lie: the same bytes, no copy, and a sentence where the tar is another by now."""

import io
import os
import shutil
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import album
import numpy as np
import pytest
from PIL import Image

import trickbag as tb
from trickbag.data import members
from trickbag.data.audit import audit
from trickbag.data.decode import Unreadable, decode, opened
from trickbag.data.images import Images
from trickbag.data.reading import read
from trickbag.engine.pixels import Data, Files, pixels
from trickbag.ground.cache import cache_dir, stamp
from trickbag.ground.errors import TrickbagError
from trickbag.ground.events import Note

pytestmark = pytest.mark.usefixtures("cache")
SIDE = 48


def png(kind: int, rng: np.random.Generator) -> bytes:
    """A texture with so much noise that its file fills some blocks of a disk."""
    wave = album.texture(kind, rng).astype(float)
    large = np.kron(wave, np.ones((-(-SIDE // wave.shape[0]), -(-SIDE // wave.shape[1]), 1)))[:SIDE, :SIDE]
    out = io.BytesIO()
    Image.fromarray((0.8 * large + rng.integers(0, 50, large.shape)).clip(0, 255).astype(np.uint8)).save(out, "png")
    assert len(out.getvalue()) > members.LEAST
    return out.getvalue()


def tar(path: Path, content: Mapping[str, bytes], mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as file:  # type: ignore[call-overload]
        for name, data in content.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            file.addfile(entry, io.BytesIO(data))
    return path


@pytest.fixture
def content() -> dict[str, bytes]:
    """Four images with their labels."""
    rng = np.random.default_rng(0)
    files = {f"{n}.png": png(n % 3, rng) for n in range(4)}
    return files | {f"{n}.cls": b"%d" % (n % 3) for n in range(4)}


def bytes_of(images: Images) -> dict[str, bytes]:
    return {Path(path).name: read_bytes(images.path(row)) for row, path in enumerate(images.paths)}


def read_bytes(path: Path) -> bytes:
    with opened(path) as file:
        return file.read()


def cached() -> int:
    """Bytes of all files that were unpacked into the cache."""
    unpacked = (path for folder in ("archives", "shards") for path in (cache_dir() / folder).rglob("*"))
    return sum(path.stat().st_size for path in unpacked if path.is_file() and not path.is_symlink())


@pytest.mark.parametrize("many", [False, True])
def test_an_image_in_a_plain_tar_is_read_where_it_lies(many: bool, content: dict[str, bytes], tmp_path: Path) -> None:
    archive = tar(tmp_path / "train-0.tar", content)
    found = read(f"{tmp_path}/*.tar" if many else archive)
    assert bytes_of(found) == {name: data for name, data in content.items() if name.endswith(".png")}
    assert cached() < archive.stat().st_size / 20
    for row, path in enumerate(found.paths):
        own = decode(found.path(row))
        plain = decode(content[Path(path).name])
        assert np.array_equal(own.pixels.numpy(), plain.pixels.numpy())
        assert own.notes == plain.notes
    assert not audit(found).left_out


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_a_compressed_tar_is_unpacked(mode: str, content: dict[str, bytes], tmp_path: Path) -> None:
    archive = tar(tmp_path / "all.tar", content, mode)
    found = read(archive)
    archive.unlink()
    assert bytes_of(found) == {name: data for name, data in content.items() if name.endswith(".png")}
    assert cached() >= sum(map(len, content.values()))


def test_a_zip_is_unpacked(content: dict[str, bytes], tmp_path: Path) -> None:
    """Also one that is not compressed: its members are read through its own table of contents."""
    with zipfile.ZipFile(tmp_path / "all.zip", "w", zipfile.ZIP_STORED) as file:
        for name, data in content.items():
            file.writestr(name, data)
    found = read(tmp_path / "all.zip")
    (tmp_path / "all.zip").unlink()
    assert bytes_of(found) == {name: data for name, data in content.items() if name.endswith(".png")}


def test_a_sparse_member_is_copied_with_its_holes(tmp_path: Path) -> None:
    """In the archive it lies without them, so that its bytes are not there in one piece."""
    path = tar(tmp_path / "all.tar", {"k.cls": b"1"})
    entry = tarfile.TarInfo("k.png")
    entry.pax_headers = {
        "GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "k.png", "GNU.sparse.realsize": "16384",
    }  # fmt: skip
    data, places = b"x" * 8192, b"1\n8192\n8192\n".ljust(512, b"\0")
    entry.size = len(places + data)
    with tarfile.open(path, "a", format=tarfile.PAX_FORMAT) as file:
        file.addfile(entry, io.BytesIO(places + data))
    assert bytes_of(read(path)) == {"k.png": bytes(8192) + data}


def test_links_and_small_members_are_copied(content: dict[str, bytes], tmp_path: Path) -> None:
    archive = tar(tmp_path / "all.tar", content | {"small.jpg": b"x" * (members.LEAST - 1), "small.cls": b"1"})
    with tarfile.open(archive, "a") as file:
        for name, kind in (("hard", tarfile.LNKTYPE), ("soft", tarfile.SYMTYPE)):
            entry = tarfile.TarInfo(f"{name}.png")
            entry.type, entry.linkname = kind, "0.png"
            file.addfile(entry)
            label = tarfile.TarInfo(f"{name}.cls")
            label.size = 1
            file.addfile(label, io.BytesIO(b"0"))
    found = bytes_of(read(archive))
    assert found["hard.png"] == found["soft.png"] == content["0.png"]
    assert found["small.jpg"] == b"x" * (members.LEAST - 1)


def test_a_tar_that_changed_or_went_away_is_said(content: dict[str, bytes], tmp_path: Path) -> None:
    archive = tar(tmp_path / "all.tar", content)
    found = read(archive)
    before = archive.read_bytes()
    archive.write_bytes(before + b"\0" * 512)
    with pytest.raises(Unreadable, match=r"its archive .*all.tar has changed since it was listed"):
        opened(found.path(0))
    archive.unlink()
    with pytest.raises(Unreadable, match=r"its archive .*all.tar: No such file or directory"):
        opened(found.path(0))
    assert set(audit(found).left_out) == set(found.paths)
    rng = np.random.default_rng(9)
    other = {name: png(1, rng) if name.endswith(".png") else data for name, data in content.items()}
    again = read(tar(archive, other))
    assert bytes_of(again) == {name: data for name, data in other.items() if name.endswith(".png")}
    assert set(audit(again).images.hashes).isdisjoint(audit(found).images.hashes)


def test_a_tar_of_other_content_under_the_same_size_and_time_is_unpacked_anew(
    content: dict[str, bytes], tmp_path: Path
) -> None:
    archive = tar(tmp_path / "all.tar", content)
    found, times = read(archive), archive.stat()
    other = {name: data[:-20] + b"\0" * 8 + data[-12:] if name.endswith(".png") else data for name, data in content.items()}
    archive.write_bytes(tar(tmp_path / "other.tar", other).read_bytes())
    os.utime(archive, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert archive.stat().st_size == times.st_size
    with pytest.raises(Unreadable, match="has changed since it was listed"):
        opened(found.path(0))
    assert bytes_of(read(archive)) == {name: data for name, data in other.items() if name.endswith(".png")}


@pytest.mark.parametrize("kind", ["tar", "gz", "zip", "shards"])
@pytest.mark.parametrize("damage", ["changed", "cut", "gone", "added", "folder", "all gone"])
def test_an_unpacked_archive_that_was_altered_is_unpacked_again(
    kind: str, damage: str, content: dict[str, bytes], tmp_path: Path
) -> None:
    """And says so, once."""
    archive = tar(tmp_path / f"all.{kind}", content, "w:gz" if kind == "gz" else "w")
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as file:
            for name, data in content.items():
                file.writestr(name, data)
    source = f"{tmp_path}/all.shard[s]" if kind == "shards" else archive
    notes: list[object] = []
    first = read(source, notes.append)
    path = first.path(0)
    match damage:
        case "changed":
            path.write_bytes(path.read_bytes()[::-1])
        case "cut":
            path.write_bytes(path.read_bytes()[:-1])
        case "added":
            path.with_name("more.png").write_bytes(content["0.png"])
        case "all gone":
            shutil.rmtree(path.parent.resolve())
        case _:
            path.unlink()
            if damage == "folder":
                path.mkdir()
    assert notes == []
    again = read(source, notes.append)
    assert again.paths == first.paths
    assert bytes_of(again) == {name: data for name, data in content.items() if name.endswith(".png")}
    assert [isinstance(note, Note) and "damaged" in note.text for note in notes] == [True] * (damage != "all gone")
    read(source, notes.append)
    assert len(notes) == (damage != "all gone")


def test_a_shard_that_changed_is_looked_at_anew(content: dict[str, bytes], tmp_path: Path) -> None:
    """Of images of the same size too, whose files that stand for them are of the same size."""
    for number in range(2):
        tar(tmp_path / f"train-{number}.tar", content)
    first = audit(read(f"{tmp_path}/*.tar")).images
    other = {name: data[:-20] + b"\0" * 8 + data[-12:] for name, data in content.items() if name.endswith(".png")}
    tar(tmp_path / "train-1.tar", content | other)
    found = read(f"{tmp_path}/*.tar")
    assert bytes_of(found.take([path.startswith("train-1") for path in found.paths])) == other
    broken = {path for path in found.paths if path.startswith("train-1")}
    assert set(audit(found).left_out) == broken
    assert not broken & set(audit(found).images.paths)
    assert broken < set(first.paths)


def test_an_image_that_goes_away_while_a_set_is_streamed_is_named(
    content: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And that a set is streamed is said, with the trick that reads it nearly in order."""
    archive = tar(tmp_path / "all.tar", content)
    data = Data(read(archive), "f" * 32, 3)
    monkeypatch.setenv("TRICKBAG_CACHE_LIMIT", "0")
    told: list[object] = []
    streamed = pixels(data, 32, told.append)
    assert isinstance(streamed, Files)
    assert [isinstance(event, Note) and "--with shuffle_buffer" in event.text for event in told] == [True]
    archive.unlink()
    with pytest.raises(TrickbagError, match=r"0.png can no longer be decoded: .*all.tar: No such file or directory"):
        streamed[0]


def test_what_a_data_set_brings_stands_for_no_other_file(content: dict[str, bytes], tmp_path: Path) -> None:
    """Otherwise a photo from a stranger could show what lies in another file; in a folder, or in an archive."""
    secret = tar(tmp_path / "secret.tar", content)
    read(secret)
    file = tmp_path / "photos/cat/1.png"
    file.parent.mkdir(parents=True)
    members.stand_in(file, secret, 1024, len(content["0.png"]))
    archive = tar(tmp_path / "all.tar", content | {"x.png": file.read_bytes(), "x.cls": b"1", "y.png": b"", "y.cls": b"1"})
    found = read(archive)
    unpacked = found.path(found.paths.index("x.png"))
    link = members.place_of(str(secret.resolve()), stamp(secret.stat())) / "link.png"
    link.symlink_to(file)
    for one in (file, unpacked, link):
        assert read_bytes(one) == file.read_bytes()
        with pytest.raises(Unreadable, match="not an image"):
            decode(one)
    assert set(audit(found).left_out) == {"x.png", "y.png"}


@pytest.mark.parametrize("told", [b"", b"[", b"[1]", b'["a", 1, 2, 3]', b'["a", 1, 2, 3, "4"]', b"[" * 100_000, b"\xff"])
def test_a_broken_one_is_no_image(told: bytes, tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(members._MAGIC + told)
    with pytest.raises(Unreadable, match="not an image"):
        decode(tmp_path / "1.png")


def test_plain_shards_train_what_their_images_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoded once, and again streamed in each epoch, with the weights of a run over files, bit for bit."""
    recipe, rng, lines = album.recipe_file(tmp_path / "tiny.toml"), np.random.default_rng(0), ["path,label,split"]
    for split, count in {"train": 24, "val": 6, "test": 6}.items():
        images = {f"{row:02d}.png": png(row % 3, rng) for row in range(count)}
        tar(tmp_path / f"shards/{split}-0.tar", images | {f"{n:02d}.cls": "abc"[n % 3].encode() for n in range(count)})
        for row, (name, data) in enumerate(images.items()):
            file = tmp_path / f"files/{split}-0.tar" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
            lines.append(f"{split}-0.tar/{name},{'abc'[row % 3]},{split}")
    (tmp_path / "files/all.csv").write_text("\n".join(lines))
    plain = tb.train(tmp_path / "files/all.csv", recipe, out=tmp_path / "plain")
    for limit in ("1", "0"):
        monkeypatch.setenv("TRICKBAG_CACHE", str(tmp_path / f"cache{limit}"))
        monkeypatch.setenv("TRICKBAG_CACHE_LIMIT", limit)
        run = tb.train(f"{tmp_path}/shards/{{train,val,test}}-0.tar", recipe, out=tmp_path / f"run{limit}")
        assert run.record["test"] == plain.record["test"]
        assert run.record["test"]["n"] == 6
        assert (run.folder / "model.safetensors").read_bytes() == (plain.folder / "model.safetensors").read_bytes()
    assert cached() < (tmp_path / "shards/train-0.tar").stat().st_size / 4
