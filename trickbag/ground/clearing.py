"""What the cache holds, and room made there; what a process works with stays, and so does what trickbag did not make."""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from trickbag.ground import files
from trickbag.ground.cache import BESIDE, cache_dir, locked, remove, seal_of
from trickbag.ground.errors import TrickbagError

KINDS = {
    "pixels": "decoded images",
    "answers": "answers of other networks",
    "archives": "unpacked archives",
    "shards": "shards side by side",
    "named": "exported data sets",
    "given": "images from memory",
    "facts": "what checks found",
    "speed": "measured speeds",
    "downloads": "downloaded data sets",
}
"""What lies in the cache, by the folder that it is in or the beginning of its name."""
_HASH = "[0-9a-f]{32}"
_FOLDERS = re.compile(rf"(pixels-[\w-]+|answers-{_HASH}|(?:archives|shards|named|given)/{_HASH})(?:\.\w+)*")
"""Those of ``made_once``, and what lies beside them."""
_NOTES = re.compile(rf"facts/{_HASH}\.sqlite|speed/{_HASH}\.json")
"""Files without which work takes longer, and nothing else."""


class Cleared(NamedTuple):
    """What was removed."""

    freed: int
    """Bytes."""
    in_use: tuple[Path, ...]
    """Folders that a process works with or makes; they were left."""


def sizes() -> dict[str, int]:
    """Bytes in the cache, for each of KINDS of which there are any."""
    found = dict.fromkeys(KINDS, 0)
    for path in _below(cache_dir()):
        if (kind := path.name.partition("-")[0]) in KINDS and not path.is_symlink():
            found[kind] += _bytes(path)
    return {kind: count for kind, count in found.items() if count}


def clear() -> Cleared:
    """Remove all that this machine can make again; downloaded data sets stay, which need a network.

    Raises TrickbagError where the disk refuses.
    """
    home = cache_dir()
    names = [path.relative_to(home).as_posix() for top in _below(home) for path in (top, *_below(top))]
    freed, in_use = 0, []
    try:
        for target in sorted({home / match[1] for name in names if (match := _FOLDERS.fullmatch(name))}):
            try:
                freed += _removed(target)
            except (Timeout, BlockingIOError, ImportError):
                in_use.append(target)
        for note in (home / name for name in names if _NOTES.fullmatch(name)):
            freed += _bytes(note)
            remove(note)
    except OSError as error:
        raise TrickbagError(f"{error.filename or home} cannot be removed: {files.reason(error)}.") from None
    return Cleared(freed, tuple(in_use))


def _removed(target: Path) -> int:
    """Bytes that a folder and what lies beside it took, and take no longer. Raises where a process works with it or makes it.

    The files of the locks stay: who waits for one would hold a file that others no longer see.
    """
    with FileLock(f"{target}.lock", timeout=0):
        held = locked(target, alone=True)
        try:
            left = (seal_of(target), target, *(target.with_name(target.name + ending) for ending in BESIDE))
            count = sum(map(_bytes, left))
            remove(*left)
        finally:
            os.close(held)
    return count


def _below(folder: Path) -> Iterator[Path]:
    """What lies in a folder, not in one that a link leads to; nothing where it cannot be read."""
    with suppress(OSError):
        yield from sorted(folder.iterdir()) if not folder.is_symlink() else ()


def _bytes(path: Path) -> int:
    """Of a file, or of all files below a folder, links not followed."""
    if path.is_dir() and not path.is_symlink():
        return sum(_bytes(Path(home, name)) for home, _, names in os.walk(path) for name in names)
    with suppress(OSError):
        return path.lstat().st_size
    return 0
