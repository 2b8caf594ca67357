"""Members of plain tars, read where they lie: in the folder of an unpacked tar a small file stands for each."""

import json
import os
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from trickbag.data.sniff import Unreadable
from trickbag.ground.cache import Stamp, cache_dir, key_of, stamp
from trickbag.ground.files import reason, regular

LEAST, MOST = 1 << 12, 1 << 26
"""Bytes of a member for which a small file may stand: one below is no larger itself, one above is not read in one piece."""
_MAGIC = b"\x89trickbag member\n"


class Member(BytesIO):
    """The bytes of a member, named like the file that stands for it."""

    def __init__(self, content: bytes, name: str) -> None:
        super().__init__(content)
        self.name = name


def place_of(archive: str, stamps: Stamp) -> Path:
    """The folder in the cache for what the archive at a place with this stamp holds."""
    return cache_dir() / "archives" / key_of(archive, *stamps)


def stand_in(file: Path, archive: Path, offset: int, size: int) -> None:
    """Write the file that stands for ``size`` bytes of an archive from ``offset`` on."""
    file.write_bytes(_MAGIC + json.dumps([str(archive.resolve()), *stamp(archive.stat()), offset, size]).encode("ascii"))


def followed(file: BinaryIO) -> BinaryIO:
    """An open file, or the member for which it stands.

    A file only stands for bytes of the archive in whose folder it lies: what a data set brings along cannot have others read.
    Raises ``Unreadable`` where the archive is gone or was changed.
    """
    if file.read(len(_MAGIC)) != _MAGIC or not (told := _told(file)):
        file.seek(0)
        return file
    file.close()
    archive, stamps, offset, count = told
    try:
        with regular(Path(archive)) as tar:
            if stamp(os.fstat(tar.fileno())) != stamps:
                raise Unreadable(f"its archive {archive} has changed since it was listed")
            tar.seek(offset)
            return Member(tar.read(count), file.name)
    except OSError as error:
        raise Unreadable(f"unreadable: its archive {archive}: {reason(error)}") from error


def _told(file: BinaryIO) -> tuple[str, Stamp, int, int] | None:
    """The archive's stamp, and where the bytes lie in it; None where the file stands for nothing."""
    try:
        match json.loads(file.read(MOST)):
            case [str() as archive, int() as a, int() as b, int() as c, int() as d, int() as offset, int() as count]:
                home = place_of(archive, (a, b, c, d)).resolve()
                return (archive, (a, b, c, d), offset, count) if Path(file.name).resolve().is_relative_to(home) else None
    except (ValueError, RecursionError):
        pass
    return None
