"""Decoded images in the cache: what was altered there is found and made again, and changes no pixel of a training."""

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from album import fill
from torch import Tensor

from trickbag.data.audit import audit
from trickbag.data.images import divide
from trickbag.data.reading import read
from trickbag.engine import pixels as room
from trickbag.engine.pixels import Cache, Data, Files, pixels
from trickbag.ground.cache import altered
from trickbag.ground.errors import TrickbagError
from trickbag.ground.events import Event, Note


class Album:
    """A data set on disk, and what opening its decoded images says."""

    def __init__(self, root: Path) -> None:
        fill(root, {"cat": 0, "dog": 1}, 6)
        self.images = divide(audit(read(root)).images, 0)
        self.data = Data(self.images, self.images.fingerprint, 3)
        self.notes: list[str] = []
        self.seen = [Files(self.images, 3, 20)[row] for row in range(len(self.images))]

    def tell(self, event: Event) -> None:
        if isinstance(event, Note):
            self.notes.append(event.text)

    def open(self) -> Cache:
        found = pixels(self.data, 20, self.tell)
        assert isinstance(found, Cache)
        return found

    def same(self, found: Cache) -> bool:
        """Whether the cache gives every image, one by one and all at once."""
        one_by_one = all(torch.equal(found[row], image) for row, image in enumerate(self.seen))
        return one_by_one and torch.equal(found.joined(), torch.cat([image.flatten() for image in self.seen]))


@pytest.fixture
def album(cache: Path, tmp_path: Path) -> Album:
    del cache
    return Album(tmp_path / "photos")


def noise(path: Path) -> None:
    """Other bytes in the middle, as many."""
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 20] = bytes(value ^ 0xFF for value in content[middle : middle + 20])
    path.write_bytes(content)


def times_as_before(path: Path) -> None:
    """Noise under the same time of change."""
    times = path.stat()
    noise(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def extend(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"more")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "file").touch()


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def link(path: Path) -> None:
    path.rename(path.with_name("moved"))
    path.symlink_to(path.with_name("moved"))


DAMAGES = [noise, times_as_before, cut, extend, empty, Path.unlink, folder, fifo, link]


@pytest.mark.parametrize("name", ["pixels.bin", "index.npy", "../list"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_cache_is_made_again_and_said(album: Album, name: str, damage: Callable[[Path], None]) -> None:
    place = album.open().folder
    assert album.notes == []
    path = place.with_name(place.name + ".files.json") if name == "../list" else place / name
    (Path.unlink if (name, damage) == ("../list", link) else damage)(path)  # a link to the list would do
    assert album.same(album.open())
    assert [str(place) in note and "is damaged" in note for note in album.notes] == [True]
    assert album.same(album.open())
    assert len(album.notes) == 1


@pytest.mark.parametrize("damage", [folder, fifo, link, empty])
def test_a_cache_folder_that_is_something_else_is_made_again(album: Album, damage: Callable[[Path], None]) -> None:
    place = album.open().folder
    shutil.move(place, place.with_name("moved"))
    if damage is link:
        place.symlink_to(place.with_name("moved"))
    else:
        place.touch()
        damage(place)
    assert album.same(album.open())
    assert len(album.notes) == 1


def test_a_file_that_was_added_to_the_cache_is_no_part_of_it(album: Album) -> None:
    place = album.open().folder
    (place / "more.bin").touch()
    assert altered(place) == "more.bin was added"
    assert album.same(album.open())


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("damage", [noise, cut, empty])
def test_a_training_under_way_sees_no_damage(album: Album, damage: Callable[[Path], None], first: bool) -> None:
    """Not even where the file is cut under it, which would end a process that has it mapped."""
    if first:
        album.open()
    found = album.open()
    damage(found.folder / "pixels.bin")
    assert album.same(found)
    assert len(album.notes) == 1
    assert album.same(album.open())
    assert [("decoded again" in note, "is rebuilt" in note) for note in album.notes] == [(True, False), (False, True)]


def test_a_training_under_way_reads_on_while_another_makes_the_cache_again(album: Album) -> None:
    found = album.open()
    (found.folder / "index.npy").unlink()
    again = album.open()
    assert os.fstat(found.file).st_ino != os.fstat(again.file).st_ino
    assert album.same(found)
    assert album.same(again)


def test_a_copied_cache_is_read_once_and_then_known(album: Album, monkeypatch: pytest.MonkeyPatch) -> None:
    place = album.open().folder
    shutil.copytree(place, place.with_name("copy"))
    shutil.rmtree(place)
    place.with_name("copy").rename(place)
    hashed: list[object] = []
    real = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda file, kind: hashed.append(file) or real(file, kind))  # type: ignore[func-returns-value]
    assert altered(place) == ""
    assert len(hashed) == 2
    assert altered(place) == ""
    assert len(hashed) == 2
    assert album.notes == []


def changed(path: Path) -> None:
    """Another photo under the same size and time."""
    times_as_before(path)


@pytest.mark.parametrize("streamed", [False, True])
def test_photos_that_change_after_the_check_are_never_trained_on(
    album: Album, streamed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if streamed:
        monkeypatch.setenv("TRICKBAG_CACHE_LIMIT", "0")
        found = pixels(album.data, 20, album.tell)
        assert torch.equal(found[3], album.seen[3])
    changed(album.images.path(3))

    def shown() -> Tensor:
        return found[3] if streamed else album.open()[3]

    with pytest.raises(TrickbagError, match=r"cat/03.png has changed since the images were checked\. Restore it"):
        shown()


def test_a_memory_of_hashes_that_missed_a_change_is_forgotten(album: Album) -> None:
    """Where a file system keeps no time of its own that a program cannot set."""
    stale = room.Files(album.images, 3, 20)
    changed(album.images.path(3))
    with pytest.raises(TrickbagError, match="has changed"):
        stale[3]
    assert not list((room.cache_dir() / "facts").iterdir())
