"""The cache: what can be made again is made once."""

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from trickbag.ground.errors import TrickbagError


def cache_dir() -> Path:
    """Where all that can be made again is kept: $TRICKBAG_CACHE, else $XDG_CACHE_HOME/trickbag, else ~/.cache/trickbag."""
    if own := os.environ.get("TRICKBAG_CACHE"):
        return Path(own).expanduser().absolute()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache").absolute() / "trickbag"


def made_once(target: Path, build: Callable[[Path], None]) -> Path:
    """The folder ``target``, filled by ``build(folder)`` if it is not there.

    It appears whole or not at all: a killed builder leaves nothing that counts, and two builders wait for each other.
    Raises TrickbagError where it cannot be written.
    """
    if target.is_dir():
        return target
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            if target.is_dir():
                return target
            shutil.rmtree(part, ignore_errors=True)
            try:
                part.mkdir()
                build(part)
                part.rename(target)
            finally:
                shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        raise TrickbagError(f"{target.parent} cannot be filled: {error}. Set TRICKBAG_CACHE to a folder with room.") from error
    return target


def key_of(*facts: object) -> str:
    """A folder name for what these facts decide; names of files and classes never become part of a path in the cache."""
    return hashlib.blake2b("\0".join(map(str, facts)).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
