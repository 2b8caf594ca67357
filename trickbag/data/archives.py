"""Archives: folders that are unpacked once, but for images that are read where they lie."""

import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from io import BufferedReader
from lzma import LZMAError
from pathlib import Path
from typing import IO, NamedTuple

from trickbag.data import members
from trickbag.data.listing import IMAGE_SUFFIXES, suffix
from trickbag.ground import files, signals
from trickbag.ground.cache import cache_dir, key_of, made_once, stamp
from trickbag.ground.errors import UsageError
from trickbag.ground.events import Tell, silent

MOST_BYTES = 1 << 30
"""Of one member of an archive: a larger one is no image, and could fill the disk."""
_MOST_ZEROS = 1 << 26
"""Bytes that may follow the last member of a tar: programs fill up its last block."""

_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0")
"""How gzip, bzip2 and xz begin."""


def is_archive(path: Path) -> bool:
    """Whether a file is a tar (plain or compressed) or a zip, by its content. Raises UsageError where it cannot be read."""
    try:
        with files.regular(path) as file:
            return _is_tar(file) or zipfile.is_zipfile(file)
    except OSError as error:
        raise UsageError(f"{str(path)!r} cannot be read: {files.reason(error)}. Make it readable.") from None


def _is_tar(file: IO[bytes]) -> bool:
    """By the first block: tarfile takes zeros for endless empty streams of LZMA, and would read all of a sparse file."""
    block = file.read(tarfile.BLOCKSIZE)
    file.seek(0)
    if block.startswith(_COMPRESSED):
        return tarfile.is_tarfile(file)
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def unpack(archive: Path, tell: Tell = silent) -> Path:
    """The folder with what an archive holds: unpacked once into the cache.

    Images of a plain tar are not copied, but read where they lie (``members``).

    Raises UsageError where a member would be written outside, stands twice, is too large or is no plain file, or where the
    archive is damaged.
    """
    place = members.place_of(str(archive.resolve()), stamp(archive.stat()))
    return made_once(place, lambda part: _extract(archive, part), tell)


def side_by_side(folders: Mapping[str, Path], tell: Tell = silent) -> Path:
    """One folder in the cache where each of these lies under its name, as a link."""

    def build(part: Path) -> None:
        for name, folder in folders.items():
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            (part / name).symlink_to(folder, target_is_directory=True)

    return made_once(cache_dir() / "shards" / key_of(*(fact for pair in folders.items() for fact in pair)), build, tell)


class _Member(NamedTuple):
    name: str
    size: int
    content: IO[bytes] | None
    """None for a folder."""
    offset: int = 0
    """Where the bytes lie in the archive as they are; 0 where they do not."""


def _extract(archive: Path, folder: Path) -> None:
    try:
        for name, size, content, offset in _members(archive):
            signals.look()
            inside = Path(name)
            if inside.is_absolute() or inside.drive or ".." in inside.parts:
                raise UsageError(f"{archive.name}: {name!r} would be written elsewhere. Pack it again with relative paths.")
            if content is None:
                (folder / inside).mkdir(parents=True, exist_ok=True)
                continue
            if size > MOST_BYTES:
                raise UsageError(
                    f"{archive.name}: {name!r} unpacks to {size / 1e9:.1f} GB and is not an image. Pack it without."
                )
            if (folder / inside).exists():
                raise UsageError(f"{archive.name}: {name!r} is in it twice. Pack it again with one of them.")
            (folder / inside).parent.mkdir(parents=True, exist_ok=True)
            if offset and suffix(name) in IMAGE_SUFFIXES and members.LEAST <= size <= members.MOST:
                members.stand_in(folder / inside, archive, offset, size)
                continue
            with content, (folder / inside).open("wb") as file:
                shutil.copyfileobj(content, file)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, LZMAError, RuntimeError) as error:
        raise UsageError(f"{archive.name} cannot be unpacked ({error}). Fetch or pack it again.") from error


def _members(archive: Path) -> Iterator[_Member]:
    """A link inside of a tar is read as the file it points to."""
    if tarfile.is_tarfile(archive):
        with tarfile.open(archive) as tar:
            plain = type(tar.fileobj) is BufferedReader
            for entry in tar:
                bare = plain and entry.isreg() and not entry.issparse()
                content = None if entry.isdir() else _content(archive, tar, entry)
                yield _Member(entry.name, entry.size, content, entry.offset_data if bare else 0)
            _check_end(tar)
    else:
        with zipfile.ZipFile(archive) as zipped:
            for file in zipped.infolist():
                yield _Member(file.filename, file.file_size, None if file.is_dir() else zipped.open(file))


def _check_end(tar: tarfile.TarFile) -> None:
    """Raise ReadError unless zeros, and they alone, follow the last member: the reader takes anything else for the end too."""
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    zeros = 0
    while block := tar.fileobj.read(1 << 20):
        zeros += len(block)
        if block.strip(b"\0"):
            raise tarfile.ReadError("it is broken in the middle, or several were joined")
        if zeros > _MOST_ZEROS:
            raise tarfile.ReadError("it ends in more zeros than a tar has")
    if not zeros:
        raise tarfile.ReadError("it is cut off")


def _content(archive: Path, tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    try:
        content = tar.extractfile(member)
    except (KeyError, RecursionError):
        content = None
    if content is None:
        raise UsageError(f"{archive.name}: {member.name!r} is neither a file nor a link to one inside. Pack the files.")
    return content
