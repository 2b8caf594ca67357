"""The cache: what can be made again is made once, and again where it is no longer what was made."""

import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

from trickbag.ground import store
from trickbag.ground.errors import TrickbagError, UsageError
from trickbag.ground.events import Note, Tell, silent
from trickbag.ground.files import content, regular
from trickbag.ground.text import show

MOST = 1 << 30
"""Bytes of a list of files."""
MOST_USED = 100
"""Folders that are kept in use: each takes an open file."""
BESIDE = (".part", ".gone")
"""What lies beside a folder while it is made."""
Stamp = tuple[int, int, int, int]
"""Bytes of a file, when it was changed and when its entry was, in nanoseconds, and its number on the disk."""

TAG, SIGNATURE = "CACHEDIR.TAG", b"Signature: 8a477f597d28d172789f06886806bc55"
"""The file that marks a folder as a cache, and how it begins."""


def cache_dir() -> Path:
    """Where all that can be made again is kept: $TRICKBAG_CACHE, else $XDG_CACHE_HOME/trickbag, else ~/.cache/trickbag."""
    if own := os.environ.get("TRICKBAG_CACHE"):
        return expanded(own).absolute()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else expanded("~/.cache")).absolute() / "trickbag"


def expanded(path: str | Path) -> Path:
    """A path with the home folder in place of ``~``. Raises UsageError where there is no home, as in containers."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UsageError(f"{path}: there is no home folder. Set HOME, or TRICKBAG_CACHE for the cache.") from None


def check_writable() -> None:
    """Raise TrickbagError where the cache cannot be written, before work that needs it."""
    folder = cache_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(1 << 16))
            file.flush()
    except OSError as error:
        reason = error.strerror or str(error)
        raise TrickbagError(
            f"the cache {folder} cannot be written ({reason}): set TRICKBAG_CACHE to a folder with room."
        ) from None


def stamp(status: os.stat_result) -> Stamp:
    """What changes with a file's content. A file's time can be set to any value, that of its entry cannot."""
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def tag_cache() -> None:
    """Mark the folder as a cache for all programs, by the convention of bford.info/cachedir. Raises OSError."""
    if not (tag := cache_dir() / TAG).exists():
        tag.write_bytes(SIGNATURE + b"\n")


def made_once(target: Path, build: Callable[[Path], None], tell: Tell = silent) -> Path:
    """The folder ``target``, filled by ``build(folder)`` where it is missing, or not what was made (``altered``).

    It appears whole or not at all: a killed builder leaves nothing that counts, two builders wait for each other, and who has
    files of a damaged folder open can read on in them. While this process lives, ``clearing`` leaves it where it is. Raises
    TrickbagError where it cannot be written.
    """
    use(target)
    if not altered(target):
        return target
    part, gone = (target.with_name(target.name + ending) for ending in BESIDE)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            use(target)
            if not (reason := altered(target)):
                return target
            if os.path.lexists(target):
                tell(Note(f"{target} in the cache is damaged ({reason}) and is rebuilt"))
            try:
                remove(part, gone)
                part.mkdir()
                build(part)
                remove(seal_of(target))
                store.write(seal_of(target), json.dumps(_entries(part, {})))
                if os.path.lexists(target):
                    target.rename(gone)
                part.rename(target)
            finally:
                remove(part, gone)
    except OSError as error:
        raise TrickbagError(f"{target.parent} cannot be filled: {error}. Set TRICKBAG_CACHE to a folder with room.") from error
    return target


def altered(target: Path) -> str:
    """How a folder differs from what ``made_once`` made; an empty string where it does not.

    The names and stamps of all files are compared, and the content of those whose stamp is another. Where only stamps are, as
    in a copy of the cache, the new ones are kept.
    """
    if target.is_symlink() or not target.is_dir():
        return "it is no folder" if os.path.lexists(target) else "it is missing"
    try:
        sealed: dict[str, list[Any]] = dict(json.loads(content(seal_of(target), MOST)))
        found = _entries(target, sealed)
        for name in sorted(sealed.keys() | found.keys()):
            if reason := _difference(sealed.get(name), found.get(name)):
                return f"{show(name)} {reason}"
        if found != sealed:
            with suppress(TrickbagError):  # then they are compared again
                store.write(seal_of(target), json.dumps(found))
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        return "its list of files cannot be read"
    return ""


_used: dict[Path, int] = {}
"""Folders that this process works with, the latest last, and the open files by whose locks others know of it."""


def use(target: Path) -> None:
    """Have others know, for as long as this process lives, that it works with a folder, where the cache can be written."""
    with suppress(OSError, ImportError):
        _used[target] = _used.pop(target) if target in _used else locked(target, alone=False)
    if len(_used) > MOST_USED:
        os.close(_used.pop(next(iter(_used))))


def locked(target: Path, alone: bool) -> int:
    """An open file beside a folder, locked for one of many who use the folder, or for one alone.

    Raises BlockingIOError where others use it, ImportError on systems without such locks.
    """
    import fcntl  # Windows has none

    held = os.open(target.with_name(f"{target.name}.used"), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB if alone else fcntl.LOCK_SH)
    except BaseException:
        os.close(held)
        raise
    return held


def spoil(target: Path) -> None:
    """Have ``made_once`` make a folder again, whose content turned out to be damaged."""
    with suppress(OSError):
        remove(seal_of(target))


def _difference(sealed: list[Any] | None, found: list[Any] | None) -> str:
    if sealed is None or found is None:
        return "was added" if sealed is None else "is missing"
    if sealed[0] == found[0]:
        return ""
    return f"has {found[1]} bytes instead of {sealed[1]}" if len(found) > 1 and sealed[1] != found[1] else "was changed"


def _entries(folder: Path, known: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    """All that lies below a folder, links not followed: path -> SHA-256 and stamp of a file, else its kind.

    A file whose stamp is known keeps its known hash.
    """
    found = {}
    for home, folders, files in os.walk(folder):
        for path in (Path(home, name) for name in (*folders, *files)):
            name = path.relative_to(folder).as_posix()
            found[name] = _entry(path, known.get(name, []))
    return found


def _entry(path: Path, known: list[Any]) -> list[Any]:
    status = path.lstat()
    if stat.S_ISREG(status.st_mode):
        stamps = list(stamp(status))
        return known if known[1:] == stamps else [_sha256(path), *stamps]
    if stat.S_ISLNK(status.st_mode):
        return [f"link to {path.readlink()}"]
    return ["folder" if stat.S_ISDIR(status.st_mode) else "no file"]


def seal_of(target: Path) -> Path:
    """Beside the folder, whose files are data."""
    return target.with_name(target.name + ".files.json")


def remember(path: Path, value: Any) -> None:
    """Keep a JSON value that ``recalled`` gives back; a cache that cannot be written costs time and nothing else."""
    text = json.dumps(value)
    with suppress(OSError, TrickbagError):
        remove(path)
        store.write(path, json.dumps([key_of(text), text]))


def recalled(path: Path) -> Any:
    """The value that was kept; None where there is none, or a damaged one."""
    with suppress(OSError, ValueError, TypeError, RecursionError):
        key, text = json.loads(content(path))
        if key == key_of(text):
            return json.loads(text)
    return None


def remove(*paths: Path) -> None:
    """Remove whatever lies there."""
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def key_of(*facts: object) -> str:
    """A folder name for what these facts decide; names of files and classes never become part of a path in the cache."""
    return hashlib.blake2b("\0".join(map(str, facts)).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _sha256(path: Path) -> str:
    with regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
