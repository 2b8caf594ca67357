"""The one door for data: a folder, a manifest, an archive, shards or a name becomes a table of images."""

from collections import Counter
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from trickbag.data import archives, manifests, named, shards
from trickbag.data.images import Images, Rows
from trickbag.data.listing import IMAGE_SUFFIXES, SPLITS, Ignored, list_folder, suffix
from trickbag.ground.errors import UsageError
from trickbag.ground.events import Tell, silent

FORMS = (
    "Give a folder with a folder per class, a CSV or Parquet manifest, a tar or zip, the pattern of WebDataset shards as "
    "shards/train-{000000..000003}.tar, torchvision:NAME or timm:NAME."
)


class Found(NamedTuple):
    """What a reader made of DATA."""

    root: Path
    """Relative paths start here."""
    rows: Rows


def read(data: str | Path, tell: Tell = silent) -> Images:
    """The data set that a folder, a manifest, an archive, a pattern of shards or a name spells; see FORMS.

    Raises UsageError where there is nothing of that kind, or no image in it.
    """
    source = str(named.export(str(data), tell) if named.is_named(str(data)) else data)
    for reader in (_folder, _manifest, _archive, _shards):
        if found := reader(source, tell):
            return _table(found)
    if Path(source).expanduser().is_file():
        raise UsageError(f"{source!r} is neither a manifest nor an archive. {FORMS}")
    raise UsageError(f"there is no folder and no file {source!r}. {FORMS}")


def _folder(data: str, _: Tell) -> Found | None:
    path = _place(data)
    return Found(path, _class_folders(path)) if path.is_dir() else None


def _manifest(data: str, _: Tell) -> Found | None:
    path = _place(data)
    if suffix(path.name) not in (".csv", *manifests.PARQUET_SUFFIXES) or not path.is_file():
        return None
    return Found(path.parent, manifests.read_manifest(path))


def _archive(data: str, tell: Tell) -> Found | None:
    path = _place(data)
    if not path.is_file() or not archives.is_archive(path):
        return None
    folder = archives.unpack(path, tell)
    found = shards.samples(folder, path.name, shards.class_names(path.parent), {})
    return Found(folder, found or _class_folders(folder))


def _shards(data: str, tell: Tell) -> Found | None:
    if not shards.is_pattern(data) or _place(data).exists():
        return None
    home, found = shards.expand(data)
    names, numbers = shards.class_names(home), dict[str, int]()
    folders = {shard: archives.unpack(home / shard, tell) for shard in found}
    parts = [
        shards.placed(shards.samples(folder, shard, names, numbers) or _class_folders(folder), shard)
        for shard, folder in folders.items()
    ]
    return Found(archives.side_by_side(folders, tell), Rows(*(list(chain(*columns)) for columns in zip(*parts, strict=True))))


def _place(data: str) -> Path:
    return Path(data).expanduser().absolute()


def _class_folders(root: Path) -> Rows:
    found = list_folder(root)
    tops = {path.partition("/")[0].lower() for path in found.files if "/" in path}
    split_above = tops <= SPLITS.keys() and "train" in {SPLITS[top] for top in tops}

    def home(folder: str) -> tuple[str, str]:
        top, _, below = folder.partition("/")
        return (SPLITS.get(top.lower(), ""), below) if split_above else ("", folder)

    folders = [path.rpartition("/")[0] for path in found.files]
    homes = {folder: home(folder) for folder in {*folders, *found.empty}}
    empty = [homes[folder][1] for folder in found.empty if homes[folder][0] or not split_above]
    rows, ignored = Rows([], [], [], []), list(found.ignored)
    for path, folder in zip(found.files, folders, strict=True):
        split, name = homes[folder]
        if name:
            for column, value in zip(rows[:4], (path, name, split, ""), strict=True):
                column.append(value)
        elif suffix(path) in IMAGE_SUFFIXES:
            raise UsageError(f"{path!r} in {str(root)!r} lies in no class folder. Put it into a folder named like its class.")
        else:
            ignored.append(Ignored(path, "file outside of the class folders"))
    return rows._replace(empty=[name for name in empty if name], ignored=ignored)


def _table(found: Found) -> Images:
    if not found.rows.paths:
        left = Counter(reason for _, reason in found.rows.ignored)
        aside = f" (left aside: {', '.join(f'{n} x {reason}' for reason, n in left.items())})" if left else ""
        raise UsageError(f"{str(found.root)!r} holds no image{aside}. {FORMS}")
    return Images.of(*found)
