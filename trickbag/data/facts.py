"""What one look at each file tells: its hashes, its size, or why it gives no pixels. Looked at once, then remembered.

The memory is an SQLite file in the cache folder, one per data set folder; an entry holds as long as the file's stamp stays the
same, so a second look opens no image, and one that was stopped goes on where it was. An entry that was altered does not count.
"""

import hashlib
import json
import math
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trickbag.data.decode import Unreadable, decode, opened
from trickbag.data.duplicates import Likeness, likenesses, reduced
from trickbag.ground import signals
from trickbag.ground.cache import Stamp, cache_dir, key_of, remove, stamp, tag_cache

_VERSION = 3
_TABLE = "CREATE TABLE IF NOT EXISTS facts (path BLOB PRIMARY KEY, stamp TEXT, facts TEXT, digest TEXT) WITHOUT ROWID"
_PATIENCE = 2.0
"""Seconds to wait for another process that writes."""
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_SCHEMA, sqlite3.SQLITE_MISMATCH)
_TICK = 0.02
"""Seconds after which a change of a file certainly has another time than the one before."""
_AT_ONCE, _TOGETHER = 1024, 32
"""Files that are remembered with one write, and files that one call looks at."""


class Facts(NamedTuple):
    """One file."""

    content: str = ""
    """BLAKE2b of its bytes, 32 hex digits."""
    pixels: str = ""
    """BLAKE2b of shape and pixels, so that a PNG and a BMP of one picture are told to be the same."""
    bits: int = 0
    copy: str = ""
    """The picture's ``Likeness``; the grey copy in hex digits, empty where there is none."""
    height: int = 0
    width: int = 0
    channels: int = 0
    """1 for grey, whatever the file stores; 3 for colour; more for arrays of bands."""
    notes: tuple[str, ...] = ()
    error: str = ""
    """Why it gives no pixels; empty if it does."""

    @property
    def likeness(self) -> Likeness | None:
        """What near duplicates have in common; None where an image is too small or too even."""
        return Likeness(self.bits, bytes.fromhex(self.copy)) if self.copy else None


def look(paths: Sequence[Path], channels: int | None = None) -> list[Facts]:
    """Facts of files, decoded in ``channels`` if these are more than 3, else as they are; never raises for what they hold."""
    looks = [_look(path, channels) for path in paths]
    alike = likenesses([small for _, small in looks])
    return [
        fact._replace(bits=like.bits, copy=like.copy.hex()) if like else fact
        for (fact, _), like in zip(looks, alike, strict=True)
    ]


def content_of(file: BinaryIO) -> str:
    """A hash of all bytes of an open file."""
    file.seek(0)
    return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()  # type: ignore[arg-type]


def forget(root: Path, channels: int) -> None:
    """Have the next look at the files below ``root`` open them all."""
    with suppress(OSError):
        remove(_memory_of(root, None), _memory_of(root, channels))


def _look(path: Path, channels: int | None) -> tuple[Facts, NDArray[np.float64] | None]:
    """The facts but for the likeness, and what that is made of."""
    content = ""
    try:
        with opened(path) as file:
            content = content_of(file)
            picture, notes, _ = decode(file, channels if channels and channels > 3 else None)
    except (Unreadable, OSError) as error:
        reason = str(error) if isinstance(error, Unreadable) else f"unreadable: {error.strerror}"
        return Facts(content, error=reason), None
    bands, height, width = picture.shape
    digest = hashlib.blake2b(f"{bands} {height} {width} ".encode(), digest_size=16)
    digest.update(picture.numpy().data)
    return Facts(content, digest.hexdigest(), 0, "", height, width, bands, notes), reduced(picture)


def look_at_all(
    root: Path,
    paths: tuple[str, ...],
    channels: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    workers: int | None = None,
) -> list[Facts]:
    """Facts of every path below ``root``, in order; ``progress`` is told how many of how many files are done.

    Only the files that are new or have changed since the last look are opened, ``workers`` at once, and no more pictures are in
    memory. None: as many as processors or one, whichever is the faster, since threads get into each other's way where pictures
    are small.
    """
    memory = _memory_of(root, channels)
    stamps = {path: own for path in paths if (own := _stamp(root / path))}
    found = _recall(memory, stamps)
    new = [path for path in paths if path not in found]
    done = len(paths) - len(new)
    _settle(stamps[path] for path in new if path in stamps)
    rates = dict.fromkeys([workers] if workers else [os.cpu_count() or 1, 1], math.inf)
    for start in range(0, len(new), _AT_ONCE):
        count, began = max(rates, key=rates.__getitem__), time.perf_counter()
        some = new[start : start + _AT_ONCE]
        parts = [some[at : at + _TOGETHER] for at in range(0, len(some), _TOGETHER)]
        pool = ThreadPoolExecutor(count)
        try:
            facts = pool.map(lambda part: look([root / path for path in part], channels), parts)
            for part, seen in zip(parts, facts, strict=True):
                signals.look()
                found |= zip(part, seen, strict=True)
                done += len(part)
                if progress is not None:
                    progress(done, len(paths))
        finally:
            pool.shutdown(cancel_futures=True)
        rates[count] = len(some) / (time.perf_counter() - began)
        _remember(memory, ((path, stamps[path], found[path]) for path in some if path in stamps and found[path].content))
    return [found[path] for path in paths]


def _stamp(path: Path) -> Stamp | None:
    try:
        return stamp(path.stat())
    except (OSError, ValueError):
        return None


def _settle(stamps: Iterable[Stamp]) -> None:
    """Wait until a file that is changed from here on has another stamp: times are counted in ticks of the system's clock."""
    age = time.time() - max((changed for _, _, changed, _ in stamps), default=0) / 1e9
    if 0 <= age < _TICK:
        time.sleep(_TICK - age)


def _memory_of(root: Path, channels: int | None) -> Path:
    name = f"{_VERSION} {channels if channels and channels > 3 else 0} ".encode() + os.fsencode(root.resolve())
    return cache_dir() / "facts" / f"{hashlib.blake2b(name, digest_size=16).hexdigest()}.sqlite"


def _recall(memory: Path, stamps: dict[str, Stamp]) -> dict[str, Facts]:
    """What is remembered of files that have not changed; nothing where the memory cannot be read."""
    found: dict[str, Facts] = {}
    if memory.is_file() and not memory.is_symlink():
        with suppress(sqlite3.Error, TypeError), closing(sqlite3.connect(memory, timeout=_PATIENCE)) as store:
            for name, stamped, text, digest in store.execute("SELECT path, stamp, facts, digest FROM facts"):
                path = os.fsdecode(name)
                if path in stamps and stamped == json.dumps(stamps[path]) and digest == key_of(path, stamped, text):
                    fact = Facts(*json.loads(text))
                    found[path] = fact._replace(notes=tuple(fact.notes))
    return found


def _remember(memory: Path, entries: Iterable[tuple[str, Stamp, Facts]]) -> None:
    """All of them or none; a memory that cannot be written costs time and nothing else, a damaged one is begun anew."""
    rows = []
    for path, stamps, facts in entries:
        texts = json.dumps(stamps), json.dumps(facts)
        rows.append((os.fsencode(path), *texts, key_of(path, *texts)))
    with suppress(OSError, sqlite3.Error):
        memory.parent.mkdir(parents=True, exist_ok=True)
        tag_cache()
        if memory.is_symlink() or not memory.is_file():
            remove(memory)
        try:
            _insert(memory, rows)
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode not in _DAMAGED:
                raise
            remove(memory)
            _insert(memory, rows)


def _insert(memory: Path, rows: Sequence[tuple[bytes, str, str, str]]) -> None:
    with closing(sqlite3.connect(memory, timeout=_PATIENCE)) as store, store:
        store.execute(_TABLE)
        store.executemany("INSERT OR REPLACE INTO facts (path, stamp, facts, digest) VALUES (?, ?, ?, ?)", rows)
