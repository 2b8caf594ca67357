"""Images and, in folders of labels, a label image for each: its grey values or places in the palette number the classes.

``images/*.jpg`` and ``labels/*.png``, with folders of splits on top (``train/images``), beneath (``images/train``), or in the
names (``train``, ``trainannot``); ``JPEGImages``, ``SegmentationClass`` and ``ImageSets/Segmentation`` of Pascal VOC. The value
255 is ignored. Names of the classes: ``trickbag.scenes.names``.
"""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from trickbag.data.decode import Unreadable, opened
from trickbag.data.facts import Facts, content_of
from trickbag.data.listing import Listing
from trickbag.data.splits import Ints
from trickbag.ground import signals
from trickbag.ground.errors import UsageError
from trickbag.ground.events import Doing, Tell
from trickbag.ground.text import brief, counted, show
from trickbag.scenes import names, voc
from trickbag.scenes.found import INSTANCES, Found, images_of, is_label, paired, said, set_aside
from trickbag.scenes.levels import IGNORED, raw
from trickbag.scenes.looking import copies, looked_at
from trickbag.scenes.table import Fault, Scenes

WRITE = "Give a folder with images in a folder images and their label images (PNG) in a folder labels."
_TOLD = 32
"""Label images after which progress is told."""


class Seen(NamedTuple):
    """One label image that was opened."""

    counts: Ints
    """[256] pixels of each value."""
    size: tuple[int, int] = (0, 0)
    """Height and width, upright."""
    content: str = ""
    error: str = ""
    """Why it is of no use; empty if it is."""


def read(root: Path, listing: Listing, ignore: Sequence[str], tell: Tell) -> Scenes:
    """The table of a folder. Raises UsageError where it has no label images, or none that is of use."""
    found = Found()
    of_image = _labels(root, listing, found)
    facts, unreadable = looked_at(root, list(of_image), tell)
    found.faults += unreadable
    paths = [path for path in of_image if not facts[path].error]
    seen = dict(zip(paths, _look(root, [of_image[path] for path in paths], tell), strict=True))
    paths = [path for path in paths if _fits(path, of_image[path], facts[path], seen[path], found.faults)]
    counts = np.array([seen[path].counts for path in paths], np.int64).reshape(-1, IGNORED + 1)
    given = names.read(root, listing, found.faults)
    classes, levels = _classes(counts, given, ignore, names.file_of(listing), found.faults)
    areas = np.array([counts[:, levels == k].sum(1) for k in range(len(classes))], np.int64).reshape(len(classes), len(paths)).T
    empty = areas.sum(1) == 0
    found.faults += [Fault("no region", of_image[paths[row]], "no pixel of a class") for row in np.flatnonzero(empty)]
    if empty.all():
        raise UsageError(f"no image of {str(root)!r} can be used: {said(found.faults) or 'it has none'}. {WRITE}")
    table = Scenes(
        "segmentation",
        root,
        tuple(paths),
        np.array([found.splits.get(path, "") for path in paths], "<U5"),
        classes,
        np.array([seen[path].size for path in paths], np.int64).reshape(-1, 2),
        tuple(facts[path].content for path in paths),
        copies([facts[path] for path in paths]),
        regions=tuple(of_image[path] for path in paths),
        levels=levels,
        areas=areas,
        region_hashes=tuple(seen[path].content for path in paths),
        faults=tuple(found.faults),
        ignored=set_aside(listing),
    )
    return table.take(~empty)


def _labels(root: Path, listing: Listing, found: Found) -> dict[str, str]:
    """Image -> label image, of those that are used, in order; what stands alone is among the faults."""
    labels = [path for path in listing.files if is_label(path) and INSTANCES not in path.lower().split("/")]
    if not labels:
        raise UsageError(f"{str(root)!r} has no folder of label images. {WRITE}")
    pairs = paired(images_of(listing), labels)
    found.faults += [Fault("no label", image, "no label image") for image in pairs.bare]
    found.faults += [Fault("no image", label, "no image") for label in pairs.stray]
    of_image = {image: label for label, image in pairs.images.items()}
    return {image: of_image[image] for image in voc.divided(root, listing, "segmentation", sorted(of_image), found)}


def _look(root: Path, labels: Sequence[str], tell: Tell) -> list[Seen]:
    found = []
    with ThreadPoolExecutor() as pool:
        for one in pool.map(lambda label: _seen(root / label), labels):
            signals.look()
            found.append(one)
            if len(found) % _TOLD == 0 or len(found) == len(labels):
                tell(Doing("checking label images", len(found), len(labels)))
    return found


def _seen(path: Path) -> Seen:
    try:
        values = raw(path)
        with opened(path) as file:
            content = content_of(file)
    except (Unreadable, OSError) as error:
        return Seen(np.zeros(IGNORED + 1, np.int64), error=str(error))
    height, width = values.shape
    return Seen(np.bincount(values.ravel(), minlength=IGNORED + 1), (height, width), content)


def _fits(path: str, label: str, fact: Facts, seen: Seen, faults: list[Fault]) -> bool:
    """Whether a label image is of use for its image; what is not is among the faults."""
    if seen.error:
        faults.append(Fault("damaged", label, seen.error))
        return False
    (height, width), own = seen.size, (fact.height, fact.width)
    if own != seen.size:
        turned = ", turned upright" if own == (width, height) else ""
        said = f"{width} x {height} pixels; {show(path)} has {fact.width} x {fact.height}{turned}"
        faults.append(Fault("label size", label, said))
        return False
    return True


def _classes(
    counts: Ints, given: Mapping[int, str], ignore: Iterable[str], file: str, faults: list[Fault]
) -> tuple[tuple[str, ...], Ints]:
    """The names of the classes, and the levels [256] -> their numbers; values without a name are ignored where others have one.

    ``counts`` [N, 256]: pixels of each value in each image. Raises UsageError where a class to be ignored is not there.
    """
    there = {int(value) for value in np.flatnonzero(counts.sum(0)) if value != IGNORED}
    named = dict(given) if given else {value: f"class {value}" for value in there}
    dropped = {value for value, name in named.items() if name.lower() in names.VOID or value == IGNORED}
    for word in ignore:
        meant = {value for value, name in named.items() if word in (name, str(value))}
        if not meant:
            known = ", ".join(f"{value} {show(name)}" for value, name in sorted(named.items())[:10])
            raise UsageError(f"ignore {brief(word)}: there is no such class. There are: {known}.")
        dropped |= meant
    for value in sorted(there - named.keys()):
        images, pixels = int((counts[:, value] > 0).sum()), int(counts[:, value].sum())
        what = f"{value}: {counted(pixels, 'pixel')} in {counted(images, 'image')}"
        faults.append(Fault("unknown value", file, what))
    levels = np.full(IGNORED + 1, IGNORED, np.int64)
    kept = sorted(named.keys() - dropped)
    levels[kept] = np.arange(len(kept))
    return tuple(named[value] for value in kept), levels
