"""Members of plain tars, read where they lie: in the folder of an unpacked tar a small file stands for each."""

import json
import os
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from trickbag.data.sniff import Unreadable

LEAST, MOST = 1 << 12, 1 << 26
"""Bytes of a member for which a small file may stand: one below is no larger itself, one above is not read in one piece."""
_MAGIC = b"\x89trickbag member\n"


class Member(BytesIO):
    """The bytes of a member, named like the file that stands for it."""

    def __init__(self, content: bytes, name: str) -> None:
        super().__init__(content)
        self.name = name


def stand_in(file: Path, archive: Path, offset: int, size: int) -> None:
    """Write the file that stands for ``size`` bytes of an archive from ``offset`` on."""
    facts = archive.stat()
    place = [str(archive.resolve()), facts.st_size, facts.st_mtime_ns, offset, size]
    file.write_bytes(_MAGIC + json.dumps(place).encode("ascii"))


def followed(file: BinaryIO, home: Path) -> BinaryIO:
    """An open file, or what it stands for where it lies below ``home``: no data set can have files of others read.

    Raises ``Unreadable`` where the archive is gone or was changed.
    """
    path = Path(file.name)
    if file.read(len(_MAGIC)) != _MAGIC or not path.resolve().is_relative_to(home.resolve()):
        file.seek(0)
        return file
    with file:
        archive, bytes_, changed, offset, size = json.loads(file.read())
    try:
        with Path(archive).open("rb") as tar:
            facts = os.fstat(tar.fileno())
            if (facts.st_size, facts.st_mtime_ns) != (bytes_, changed):
                raise Unreadable(f"its archive {archive} has changed since it was listed")
            tar.seek(offset)
            return Member(tar.read(size), file.name)
    except OSError as error:
        raise Unreadable(f"unreadable: its archive {archive}: {error.strerror}") from error
