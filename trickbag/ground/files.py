"""Files that users name, opened so that none can make the program wait, and read so that none can fill its memory."""

import os
import stat
from pathlib import Path
from typing import BinaryIO

MOST = 1 << 20
"""Bytes of a text that a person writes: a recipe, a study."""
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def regular(path: Path) -> BinaryIO:
    """A regular file, open for reading in bytes. Raises OSError for anything else; ``reason`` puts it in words.

    A pipe, socket, device or folder is never opened, and a regular file that would wait for its content, as ``/proc/kmsg``
    does, is refused.
    """
    try:
        kind = stat.S_IFMT(path.stat().st_mode)
    except ValueError as error:  # a NUL in the name
        raise OSError(str(error)) from None
    if kind != stat.S_IFREG:
        raise OSError(f"it is {_KINDS.get(kind, 'no file')}, not a file")
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0)))  # noqa: SIM115
    try:
        if file.read(1) is None:
            raise OSError("it is a stream of the system, not a file")
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


def content(path: Path, most: int = MOST) -> bytes:
    """All of a regular file of at most so many bytes. Raises OSError."""
    with regular(path) as file:
        found = file.read(most + 1)
    if len(found) > most:
        raise OSError(f"it is larger than {most / 1e6:,.0f} MB")
    return found


def text(path: Path, most: int = MOST) -> str:
    """The same as text in UTF-8, with or without a byte order mark. Raises OSError."""
    try:
        return content(path, most).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise OSError(f"byte {error.start} is not UTF-8: save it as UTF-8") from None


def reason(error: OSError) -> str:
    """Why a file cannot be read, in words without its name."""
    return error.strerror or str(error)
