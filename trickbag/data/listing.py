"""What lies below a folder, by names and kinds alone: no image is opened, so that a FIFO or a socket blocks nothing."""

import errno
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from trickbag.ground import cache, files
from trickbag.ground.errors import UsageError

SPLITS = {
    **dict.fromkeys(("train", "training", "tr"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "eval"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""The usual spellings of the splits, in lower case."""

IMAGE_SUFFIXES = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".bmp", ".webp", ".tif", ".tiff"),
    *(".avif", ".heic", ".heif", ".jxl", ".ppm", ".pgm", ".pbm", ".svg"),
}
TABLE_SUFFIXES = {".csv", ".tsv", ".parquet", ".pq", ".xlsx"}
SIDE_SUFFIXES = {
    *TABLE_SUFFIXES,
    *(".txt", ".json", ".jsonl", ".md", ".rst", ".xml", ".yaml", ".yml", ".toml", ".html", ".py", ".ipynb", ".sh", ".log"),
    *(".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".pkl", ".npz", ".mat", ".h5", ".hdf5", ".pt", ".pth", ".safetensors"),
}
SYSTEM_NAMES = {
    *(".ds_store", "__macosx", ".trashes", ".fseventsd", ".spotlight-v100", "lost+found", "@eadir"),
    *("thumbs.db", "desktop.ini", "$recycle.bin", "system volume information"),
    *(".git", ".gitkeep", ".gitignore", ".ipynb_checkpoints", "__pycache__"),
}

SYSTEM, SIDE, HIDDEN, OURS = "system file", "side file", "hidden", "output of trickbag or another cache"
UNLABELLED, BESIDE_SPLITS = "in a split folder without class folders", "beside the split folders"
DROPPED = "dropped by corrections"
"""Reasons why something is left aside."""

RECORDS = ("MANIFEST.json", "study.json", ".work/request.json")
"""What trickbag writes into folders of its own: of what is finished, of studies, of runs under way."""
_MOST_BYTES = 1 << 26


class Ignored(NamedTuple):
    """Something that the listing left aside: its path relative to the root, and why."""

    path: str
    reason: str


class Listing(NamedTuple):
    """Relative POSIX paths, sorted; names that are not UTF-8 keep their bytes by surrogateescape."""

    files: list[str]
    """Image candidates: every plain file that is neither a system nor a side file, whatever its extension."""
    empty: list[str]
    """Folders with neither candidates nor subfolders nor side files: classes that nobody filled."""
    ignored: list[Ignored]


def is_system(name: str) -> bool:
    """Whether an operating system or a tool left a file or folder of that name.

    >>> is_system("._cat.jpg"), is_system("Thumbs.db"), is_system("cat.jpg")
    (True, True, False)
    """
    return name.startswith("._") or name.lower() in SYSTEM_NAMES


def is_output(folder: Path, names: Iterable[str]) -> bool:
    """Whether a folder that holds these names is a run, a study or an export of trickbag, or the cache of any program."""
    inside = set(names)
    try:
        if cache.TAG in inside and files.content(folder / cache.TAG).startswith(cache.SIGNATURE):
            return True
        return any(name.partition("/")[0] in inside and _is_record(folder / name) for name in RECORDS)
    except OSError:
        return False


def is_run(folder: Path) -> bool:
    """Whether a folder is a run or a study of trickbag, finished or not; others of its folders may be data."""
    own = ("result.json", "study.json", ".work")
    return any((folder / name).exists() for name in own) and is_output(folder, (file.partition("/")[0] for file in RECORDS))


def _is_record(file: Path) -> bool:
    try:
        match json.loads(files.content(file, _MOST_BYTES)):
            case {"files": {**sealed}}:
                return all(isinstance(facts, dict) and {"sha256", "bytes"} <= facts.keys() for facts in sealed.values())
            case {"request": str()}:
                return True
    except (OSError, ValueError, RecursionError):
        pass
    return False


def suffix(name: str) -> str:
    """The extension in lower case with its dot."""
    return os.path.splitext(name)[1].lower()  # noqa: PTH122  pathlib takes ten times as long, and there are millions


def list_folder(root: Path) -> Listing:
    """All that lies below a folder.

    A folder is listed once, by its real place rather than by a link to it where it has both; links to a folder above
    are never followed.
    """
    found = Listing([], [], [])
    seen = {_identity(folder) for folder in root.resolve().parents}
    folders, links = [""], list[str]()
    while folders or links:
        if not folders:
            links.sort(reverse=True)
            folders.append(links.pop())
        folder = folders.pop()
        try:
            identity = _identity(root / folder)
            if identity in seen:
                found.ignored.append(Ignored(folder, "link to a folder that is listed already"))
                continue
            seen.add(identity)
            with os.scandir(root / folder) as entries:
                inside = list(entries)
            if folder and is_output(root / folder, {entry.name for entry in inside}):
                found.ignored.append(Ignored(folder, OURS))
            else:
                _sort_out(folder, inside, found, folders, links)
        except OSError:
            found.ignored.append(Ignored(folder, "unreadable folder"))
    for part in found:
        part.sort()
    return found


def walk(folder: str | Path) -> list[Path]:
    """The image candidates below a folder, sorted.

    Raises UsageError where there is no such folder.
    """
    root = Path(folder)
    if not os.path.isdir(root):
        raise UsageError(f"{str(root)!r} is not a folder. Give a folder with images.")
    return [root / name for name in list_folder(root).files]


def _identity(folder: Path) -> tuple[int, int]:
    facts = folder.stat()
    return facts.st_dev, facts.st_ino


def _sort_out(folder: str, entries: list[os.DirEntry[str]], found: Listing, folders: list[str], links: list[str]) -> None:
    kept = False
    for entry in entries:
        path = f"{folder}/{entry.name}" if folder else entry.name
        reason = _why_ignored(entry)
        if reason:
            found.ignored.append(Ignored(path, reason))
            kept |= reason == SIDE
            continue
        kept = True
        if entry.is_file():
            found.files.append(path)
        else:
            (links if entry.is_symlink() else folders).append(path)
    if not kept:
        found.empty.append(folder)


def _why_ignored(entry: os.DirEntry[str]) -> str:
    """An empty string for an image candidate and for a folder to look into."""
    if is_system(entry.name):
        return SYSTEM
    if entry.name.startswith("."):
        return HIDDEN
    try:
        if entry.is_file():
            return SIDE if suffix(entry.name) in SIDE_SUFFIXES else ""
        if entry.is_dir():
            return "folder named like an image" if suffix(entry.name) in IMAGE_SUFFIXES else ""
        if entry.is_symlink() and not os.path.exists(entry.path):
            return "dangling link"
    except OSError as error:
        return "link loop" if error.errno == errno.ELOOP else "unreadable link"
    return "neither a file nor a folder"
