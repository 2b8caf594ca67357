"""YOLO: a text file for each image, with a line for each box: class, centre and size as shares of the image's sides.

``images/train/*.jpg`` and ``labels/train/*.txt``, ``train/images`` and ``train/labels``, or text files beside their images.
``data.yaml`` names the classes and may name the folders or lists of the splits; ``classes.txt`` or ``obj.names`` name classes
(Redmon's Darknet, 2013; Ultralytics' data.yaml). A text file without a line says that nothing is on the image.
"""

from pathlib import Path, PurePosixPath

from trickbag.data.listing import Listing
from trickbag.ground import files, signals
from trickbag.ground.text import brief, counted
from trickbag.scenes import names
from trickbag.scenes.found import Found, Labelled, Mark, images_of, is_label, paired, side_files, split_of
from trickbag.scenes.table import Fault

_MOST_BYTES = 1 << 24
"""Of one text file."""


def fits(_: Path, listing: Listing) -> bool:
    """Whether text files that are named like images lie in folders of labels, or beside these."""
    return bool(paired(images_of(listing), _labels(listing)).images)


def read(root: Path, listing: Listing) -> Found:
    """The boxes of a folder; what cannot be read is among the faults."""
    found = Found(relative=True)
    pairs = paired(images_of(listing), _labels(listing))
    found.faults += [Fault("no label", image, "no text file") for image in pairs.bare]
    found.faults += [Fault("no image", label, "no image") for label in pairs.stray]
    known = names.read(root, listing, found.faults)
    for label, image in pairs.images.items():
        signals.look()
        try:
            text = files.text(root / label, _MOST_BYTES)
        except OSError as error:
            found.faults.append(Fault("damaged", label, files.reason(error)))
            continue
        marks = _marks(text, known, label, found.faults)
        found.labelled[image] = Labelled(label, marks, lost=len(marks) < sum(map(bool, map(str.strip, text.splitlines()))))
    found.classes = {*known.values(), *(mark.name for one in found.labelled.values() for mark in one.marks)}
    _divide(found, root, listing)
    return found


def _labels(listing: Listing) -> list[str]:
    images = {PurePosixPath(path).with_suffix("") for path in images_of(listing)}
    there = [path for path in side_files(listing, ".txt") if path.rpartition("/")[2].lower() not in names.FILES]
    return [path for path in there if is_label(path) or PurePosixPath(path).with_suffix("") in images]


def _marks(text: str, known: dict[int, str], file: str, faults: list[Fault]) -> list[Mark]:
    marks = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        where = f"line {number}"
        try:
            marks.append(_mark(line.split(), known, where))
        except ValueError as error:
            faults.append(Fault("unread", file, f"{where}: {error}"))
        except LookupError as error:
            faults.append(Fault("unknown class", file, f"{where}: {error.args[0]}"))
    return marks


def _mark(fields: list[str], known: dict[int, str], where: str) -> Mark:
    """A box in shares. Raises ValueError where it is none, LookupError where its class is unknown."""
    if len(fields) != 5:
        polygon = ", which is a polygon" if len(fields) > 6 and len(fields) % 2 else ""
        raise ValueError(f"{counted(len(fields), 'field')}{polygon}; a box has five: class, centre x and y, width, height")
    try:
        number, x, y, width, height = map(float, fields)
    except ValueError:
        raise ValueError(f"{brief(' '.join(fields), 60)} has what is no number") from None
    if not number.is_integer() or not 0 <= number < names.MOST:
        raise ValueError(f"class {brief(fields[0], 30)} is no whole number from 0")
    if known and number not in known:
        raise LookupError(f"class {number:.0f} has no name; there are {counted(len(known), 'name')}")
    name = known.get(int(number), f"class {number:.0f}")
    return Mark(name, (x - width / 2, y - height / 2, x + width / 2, y + height / 2), False, where)


def _divide(found: Found, root: Path, listing: Listing) -> None:
    """Splits as ``data.yaml`` says, else as the folders do."""
    given, file = dict[str, str](), names.file_of(listing)
    for split, entry in _entries(root, file):
        for image in _meant(entry, root, file.rpartition("/")[0], list(found.labelled), listing):
            if given.setdefault(image, split) != split:
                found.faults.append(Fault("two splits", image, f"in {given[image]} and in {split} ({file})"))
    found.splits = {image: split for image in found.labelled if (split := given.get(image) or split_of(image))}


def _entries(root: Path, file: str) -> list[tuple[str, str]]:
    """Splits and the folders or lists that ``data.yaml`` names for them; what cannot be read was a fault of the names."""
    try:
        table = names.tabled(files.text(root / file)) if file.endswith((".yaml", ".yml")) else {}
    except (OSError, ValueError):
        return []
    found = []
    for key, split in {"train": "train", "val": "val", "valid": "val", "test": "test"}.items():
        given = table.get(key)
        found += [(split, entry) for entry in (given if isinstance(given, list) else [given]) if isinstance(entry, str)]
    return found


def _meant(entry: str, root: Path, home: str, images: list[str], listing: Listing) -> list[str]:
    """The images that an entry of a file in the folder ``home`` names: those of a folder, or of a list in a text file."""
    lists, there = set(side_files(listing, ".txt")), set(images)
    for part in _endings(entry, home):
        if part in lists:
            try:
                lines = files.text(root / part, _MOST_BYTES).splitlines()
            except OSError:
                return []
            return [image for line in lines for image in _endings(line.strip(), home) if image in there]
        if inside := [image for image in images if image.startswith(f"{part}/")]:
            return inside
    return []


def _endings(path: str, home: str) -> list[str]:
    """What a path may mean below a folder: it, or what is left without its first folders, which may be those of elsewhere.

    >>> _endings("../data/train/images", "set")
    ['set/data/train/images', 'set/train/images', 'set/images']
    """
    parts = [part for part in PurePosixPath(path.replace("\\", "/")).parts if part not in ("..", ".", "/")]
    return ["/".join([*filter(None, [home]), *parts[start:]]) for start in range(len(parts))]
