"""The only writer of files: atomic, durable, hash-verified; never a pickle.

A file or folder appears under its name whole or not at all: it is written under a temporary name beside its place,
synced to the disk, renamed, and the folder that holds it is synced too. A folder's ``MANIFEST.json`` is written last
and holds the SHA-256 and the size of every file; a folder is valid when its manifest verifies. Whoever writes to a
path holds its ``lock``; the kernel frees it however the process ends.
"""

import errno
import hashlib
import itertools
import json
import math
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from trickbag.ground import files, records
from trickbag.ground.errors import NoRoomError, TrickbagError, UsageError
from trickbag.ground.records import Count, Open, Record
from trickbag.ground.text import brief, show

if TYPE_CHECKING:  # importing torch takes seconds: only what stores tensors waits for it
    from torch import Tensor

MANIFEST = "MANIFEST.json"
MARKS = (b'<meta name="generator" content="trickbag">', b"Software\0trickbag")
"""Near the beginning of every page and of every picture."""
STATE = ("state.safetensors", "state.json")


class Sealed(Record):
    """A file as its folder's manifest has it."""

    sha256: str
    bytes: Count


class Manifest(Record):
    """The content of ``MANIFEST.json``."""

    files: dict[str, Sealed]
    """By name, with / between folders."""


def to_json(value: Any, indent: int | None = None) -> str:
    """Strict JSON for other tools to read: floats that are not finite become ``null``, tuples lists.

    >>> to_json({"loss": float("nan"), "top1": 0.5})
    '{"loss": null, "top1": 0.5}'
    """
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def write(path: Path, data: bytes | str) -> None:
    """One file, atomically and durably; text as UTF-8. Missing folders are made. A reader sees the old or the new file.

    Raises TrickbagError where the disk refuses, as all functions here do.
    """
    with _replacing(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def append(path: Path, record: dict[str, Any]) -> None:
    """One more line of a JSON lines file; a line that a killed writer left unfinished is removed first."""
    with told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read() != b"\n":
                    file.seek(0)
                    file.truncate(file.read().rfind(b"\n") + 1)
            file.write(to_json(record).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())


def lines(path: Path, kind: type[Record] = Open) -> list[dict[str, Any]]:
    """The records of a JSON lines file, none where there is no file; an unfinished last line is left out.

    Raises TrickbagError at a line that is no record of this kind.
    """
    found: list[dict[str, Any]] = []
    try:
        whole, _, _ = files.content(path, records.MOST).rpartition(b"\n")
        found.extend(records.parse(line, kind).plain() for line in (whole.split(b"\n") if whole else ()))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise TrickbagError(f"{path} cannot be read: {files.reason(error)}.") from None
    except ValueError as error:
        raise TrickbagError(f"{path} is damaged in line {len(found) + 1}: {error}.") from None
    return found


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A new folder: fill the one that is handed over, and it appears at ``path``, sealed, when the block ends well.

    Raises UsageError where ``path`` is anything but missing or an empty folder.
    """
    with told(path):
        if path.exists() and not (path.is_dir() and not any(path.iterdir())):
            raise UsageError(f"{path} exists already and is not empty. Choose another folder, or remove this one.")
        _sweep(path.parent, re.escape(path.name))
        temporary = _beside(path)
        temporary.mkdir(parents=True)
        try:
            yield temporary
            seal(temporary)
            if path.exists():
                path.rmdir()
            temporary.rename(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        _sync(path.parent)


def seal(folder: Path) -> None:
    """Sync what lies in a folder, subfolders and all but hidden files, then write its manifest."""
    with told(folder):
        listed: dict[str, Sealed] = {}
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder)
            if name == Path(MANIFEST) or any(part.startswith(".") for part in name.parts):
                continue
            _sync(path)
            if path.is_file():
                listed[name.as_posix()] = Sealed(sha256=_sha256(path), bytes=path.stat().st_size)
        _sync(folder)
        write(folder / MANIFEST, to_json(Manifest(files=listed).plain(), indent=2) + "\n")


def claim(folder: Path) -> None:
    """Mark a folder that is missing or empty as output, so that what comes to lie there is never taken for data."""
    with told(folder):
        if not os.path.isdir(folder) or not any(folder.iterdir()):
            folder.mkdir(parents=True, exist_ok=True)
            seal(folder)


def verify(folder: Path, *needed: str) -> str:
    """Why a folder is not what its manifest says, or the manifest lacks a file that is ``needed``; else an empty string.

    Files that came later do not count.
    """
    try:
        listed = records.parse(files.content(folder / MANIFEST, records.MOST), Manifest).files
        for name in needed:
            if name not in listed:
                return f"{MANIFEST} does not list {name}"
        for name, known in listed.items():
            path = folder / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != known.bytes:
                return f"{name} has {path.stat().st_size} bytes instead of {known.bytes}"
            if _sha256(path) != known.sha256:
                return f"{name} was changed"
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except OSError as error:
        return f"it cannot be read ({files.reason(error)})"
    except ValueError:
        return f"{MANIFEST} is damaged"
    return ""


def save_tensors(path: Path, tensors: "dict[str, Tensor]") -> None:
    """One safetensors file, atomically and durably; the tensors may share memory and lie anywhere."""
    _save_copies(path, _copies(tensors))


def _copies(tensors: "dict[str, Tensor]") -> "dict[str, Tensor]":
    import torch

    return {name: tensor.detach().clone(memory_format=torch.contiguous_format).cpu() for name, tensor in tensors.items()}


def _save_copies(path: Path, tensors: "dict[str, Tensor]") -> None:
    from safetensors.torch import save_file

    with _replacing(path) as temporary:
        save_file(tensors, temporary)


def load_tensors(path: Path) -> "dict[str, Tensor]":
    """The tensors of a safetensors file, on the CPU. Raises TrickbagError for anything else, such as a renamed pickle."""
    from safetensors.torch import load

    try:
        return load(path.read_bytes())  # load_file maps it: where the file is cut short later, a map ends the process
    except FileNotFoundError:
        raise TrickbagError(f"{path} is missing.") from None
    except (OSError, SafetensorError) as error:
        raise TrickbagError(f"{path} is not a safetensors file, the only format supported ({error}).") from None


def save_state(folder: Path, state: Any) -> None:
    """Write a state, as ``trickbag.ground.state.pack`` takes it, into a folder that is being written."""
    from trickbag.ground.state import pack

    tensors, value = pack(state)
    _save_packed(folder, _copies(tensors), value)


def _save_packed(folder: Path, tensors: "dict[str, Tensor]", value: Any) -> None:
    _save_copies(folder / "state.safetensors", tensors)
    write(folder / "state.json", json.dumps(value, allow_nan=False))


def load_state(folder: Path) -> Any:
    """The state that lies in a folder, its tensors on the CPU.

    Raises TrickbagError where the folder does not verify or holds no state.
    """
    if reason := verify(folder, *STATE):
        raise TrickbagError(f"{folder} is damaged: {reason}. Remove it, or restore it from a copy.")
    return _unpacked(folder)


def _unpacked(folder: Path) -> Any:
    from trickbag.ground.state import unpack

    try:
        return unpack(load_tensors(folder / "state.safetensors"), json.loads((folder / "state.json").read_bytes()))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise TrickbagError(f"{folder} holds no state that this version can read ({error}).") from None


def check_room(folder: Path, state: Any, times: int = 2, what: str = "checkpoints") -> None:
    """Raise NoRoomError where a folder's disk has no room for so many copies of a state, before work that would leave them.

    The folder is made where it is missing. ``what`` the copies are, for the sentence.
    """
    from trickbag.ground.state import pack

    need = times * sum(tensor.numel() * tensor.element_size() for tensor in pack(state)[0].values())
    with told(folder):
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    if free < need:
        room = f"{what} need {need / 1e6:,.1f} MB, and {free / 1e6:,.1f} MB are free"
        raise NoRoomError(f"{folder}: {room}. Free some space, or choose another folder.")


class Checkpoints:
    """The resumable states of one run, the newest two, in a folder of folders ``step-00000123``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.saving: Future[None] | None = None

    def save(self, step: int, state: Any) -> None:
        """Keep the state after so many steps and the newest before it; all others are removed."""
        self.begin(step, state)
        self.end()

    def begin(self, step: int, state: Any) -> None:
        """Save a copy of the state in a thread, while its owner goes on; the one under way is waited for."""
        from trickbag.ground.state import pack

        self.end()
        tensors, value = pack(state)
        pool = ThreadPoolExecutor(1)
        self.saving = pool.submit(self._write, step, _copies(tensors), value)
        pool.shutdown(wait=False)

    def end(self) -> None:
        """Wait for the state that is being saved. Raises what it ran into."""
        saving, self.saving = self.saving, None
        if saving:
            saving.result()

    def _write(self, step: int, tensors: "dict[str, Tensor]", value: Any) -> None:
        path = self.folder / f"step-{step:08d}"
        _sweep(self.folder, ".+")
        remove(path)
        with writing(path) as temporary:
            _save_packed(temporary, tensors, value)
        before = [other for other in self.paths() if other.name < path.name]
        for other in self.paths():
            if other not in (path, *before[:1]):
                remove(other)

    def latest(self, tell: Callable[[str], None]) -> tuple[int, Any] | None:
        """The newest valid step and its state; None where there is none. Damaged ones are told of and removed."""
        for path in self.paths():
            if not (reason := verify(path, *STATE)):
                try:
                    return int(path.name.removeprefix("step-")), _unpacked(path)
                except TrickbagError as error:
                    reason = str(error).rstrip(".")
            remedy = "goes on from the one before it" if any(p < path for p in self.paths()) else "starts from the beginning"
            tell(f"The checkpoint {path} is damaged ({reason}) and was removed; training {remedy}.")
            remove(path)
        return None

    def paths(self) -> list[Path]:
        """The checkpoints' folders, the newest first; none where the run's process removes them meanwhile."""
        names = glob("step-" + 8 * "[0-9]", root_dir=self.folder)  # noqa: PTH207  Path.glob fails where a folder vanishes
        return [self.folder / name for name in sorted(names, reverse=True)]


def folder_of(out: str | Path) -> Path:
    """A folder that the user names for results. Raises UsageError for a name under which none can be made."""
    path = Path(out)
    path = path if path.name not in ("", "..") else path.resolve()
    if not str(out).strip() or not path.name:
        raise UsageError(f"--out {str(out)!r} cannot be a folder of results. Name a folder of its own.")
    try:
        if not stat.S_ISDIR(path.stat().st_mode):
            raise UsageError(f"--out {brief(str(out))} is a file. Name a folder.")
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:  # a name too long, a folder that is closed, a NUL
        reason = files.reason(error) if isinstance(error, OSError) else error
        raise UsageError(f"--out {brief(str(out))} cannot be a folder of results: {reason}. Choose another.") from None
    return path


def ours(path: Path) -> bool:
    """Whether a file is a page or a picture that trickbag made."""
    try:
        with files.regular(path) as file:
            head = file.read(4096)
    except OSError:
        return False
    return any(mark in head for mark in MARKS)


def check_free(path: Path, option: str) -> None:
    """Raise UsageError where a page or picture would take the place of a file that trickbag did not make."""
    if os.path.lexists(path) and not ours(path):
        raise UsageError(f"{option} {brief(str(path))} is there already. Remove it, or choose another name.")


def check_apart(folder: Path, made: Callable[[Path], bool]) -> None:
    """Raise UsageError where a folder for results holds files that trickbag has not ``made``, but for hidden ones."""
    there = sorted(folder.iterdir()) if os.path.isdir(folder) else ()
    if other := next((file.name for file in there if not file.name.startswith(".") and not made(file)), ""):
        raise UsageError(f"--out {folder} holds other files, for example {brief(show(other))}. Name a folder of its own.")


@contextmanager
def lock(path: Path, wait: bool = False) -> Iterator[None]:
    """Be the only process that writes to ``path``; what killed writers left half-written there is removed.

    Raises UsageError at once where another process holds the lock and ``wait`` is false.
    """
    _check_name(path)
    file = path.with_name(f".{path.name}.lock")
    held = FileLock(file)
    with told(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o644))  # a folder that takes no file is not one that is locked
        try:
            held.acquire(timeout=-1 if wait else 0)
        except Timeout:
            raise UsageError(f"{path} is being written by another process{_holder(file)}. Wait for it or stop it.") from None
    try:
        with suppress(OSError):  # Windows lets nobody touch a locked file
            file.write_text(str(os.getpid()))
        _sweep(path.parent, re.escape(path.name))
        _sweep(path, ".+", folders=False)
        yield
    finally:
        held.release()


def _holder(file: Path) -> str:
    with suppress(OSError):
        return f" (pid {pid})" if (pid := file.read_text()) else ""
    return ""


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Say in one sentence what the disk refused, to us or to a library that writes for us."""
    try:
        if "\0" in str(path):
            raise OSError("no name holds a NUL")
        yield
    except SafetensorError as error:
        raise NoRoomError(f"cannot write {path}: {error}. Free some space, or choose another folder.") from None
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        remedy = "Free some space, or choose" if full else "Choose"
        where = error.filename if isinstance(error, FileExistsError) else path
        kind = NoRoomError if full else TrickbagError
        raise kind(f"cannot write {where}: {error.strerror or error}. {remedy} another folder.") from None


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    with told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _beside(path)
        try:
            yield temporary
            _sync(temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        _sync(path.parent)


def _finite(value: Any) -> Any:
    match value:
        case dict():
            return {k: _finite(v) for k, v in value.items()}
        case list() | tuple():
            return list(map(_finite, value))
        case float() if not math.isfinite(value):
            return None
    return value


def _check_name(path: Path) -> None:
    if not path.name:
        raise UsageError(f"{str(path)!r} is no name of a file. Name one.")


def _beside(path: Path) -> Path:
    _check_name(path)
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def remove(path: Path) -> None:
    """Remove a folder; killed in between, it is not left half-removed under its name, and the next call removes the rest."""
    with told(path):
        _sweep(path.parent, re.escape(path.name))
        if path.exists():
            shutil.rmtree(path.rename(_beside(path)))


def set_aside(path: Path) -> Path:
    """Give a damaged file or folder another name beside its own, and return that."""
    aside = next(
        p for n in itertools.count(1) if not (p := path.with_name(f"{path.name}.damaged{n if n > 1 else ''}")).exists()
    )
    with told(path):
        return path.rename(aside)


def _sweep(folder: Path, name: str, folders: bool = True) -> None:
    """Remove what killed writers of paths whose names match left in a folder."""
    for left in folder.iterdir() if folder.is_dir() else ():
        if re.fullmatch(rf"\.{name}\.\d+\.part", left.name):
            if not left.is_dir():
                left.unlink(missing_ok=True)
            elif folders:
                shutil.rmtree(left)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Push a file or a folder's list of names to the disk; systems that cannot open a folder sync its names by themselves."""
    if path.is_dir() and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
