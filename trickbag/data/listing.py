"""What lies below a folder, told by names and kinds alone: no file is opened, so that a FIFO or a socket blocks nothing."""

import errno
import os
from pathlib import Path
from typing import NamedTuple

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
SIDE_SUFFIXES = {".txt", ".csv", ".json", ".md", ".xml", ".yaml", ".yml", ".html", ".py"}
SYSTEM_NAMES = {
    *(".ds_store", "__macosx", ".trashes", ".fseventsd", ".spotlight-v100", "lost+found", "@eadir"),
    *("thumbs.db", "desktop.ini", "$recycle.bin", "system volume information"),
    *(".git", ".gitkeep", ".gitignore", ".ipynb_checkpoints", "__pycache__"),
}


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
                _sort_out(folder, list(entries), found, folders, links)
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
    if not root.is_dir():
        raise UsageError(f"{str(root)!r} is no folder. Give a folder with images.")
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
            kept |= reason == "side file"
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
        return "system file"
    try:
        if entry.is_file():
            return "side file" if suffix(entry.name) in SIDE_SUFFIXES else ""
        if entry.is_dir():
            return "folder named like an image" if suffix(entry.name) in IMAGE_SUFFIXES else ""
        if entry.is_symlink() and not os.path.exists(entry.path):  # noqa: PTH110  a DirEntry is no Path
            return "dangling link"
    except OSError as error:
        return "link loop" if error.errno == errno.ELOOP else "unreadable link"
    return "neither a file nor a folder"
