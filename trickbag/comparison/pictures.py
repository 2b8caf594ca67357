"""The images on which two methods differ, with thumbnails where their files are found."""

import base64
import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from trickbag.comparison.results import Results
from trickbag.comparison.samples import Turn
from trickbag.ground import files
from trickbag.statistics.variance import Floats

MOST = 12
"""Images of each kind that are shown."""
SIDE = 96
"""Pixels of a thumbnail's side."""
MOST_BYTES = 1 << 28
"""Of an image file."""
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")


class Picture(NamedTuple):
    """An image that one of two methods gets right more often."""

    path: str
    label: str
    """Empty where it is not known."""
    ours: str
    """Of how many of its runs that judge the image the method gets it right: "2 of 3"."""
    theirs: str
    """The same of the reference."""
    predicted: str
    """What the side that is wrong says most often; empty where it is not known."""


class Differing(NamedTuple):
    """The images on which a method and the reference differ, over all seeds that both have."""

    gained: int
    """Images that the method gets right more often."""
    lost: int
    shared: int
    """Images that both were judged on."""
    best: tuple[Picture, ...]
    """Of those gained, the clearest first."""
    worst: tuple[Picture, ...]


def differing(results: Results, turns: Sequence[Turn], place: int) -> Differing:
    """How the method at a place differs from the reference, at place 0."""
    sums, judged = np.zeros((2, len(results.names))), np.zeros(len(results.names))
    both = [turn for turn in turns if turn.runs[0] and turn.runs[place]]
    for turn in both:
        sums[:, turn.images] += turn._replace(runs=(turn.runs[place], turn.runs[0])).correct
        judged[turn.images] += 1
    with np.errstate(invalid="ignore"):
        gap = np.nan_to_num((sums[0] - sums[1]) / judged)
    order = np.argsort(-np.abs(gap) * np.sqrt(judged), kind="stable")  # of equal gaps, those that more runs saw

    def shown(sign: int) -> tuple[Picture, ...]:
        rows = order[sign * gap[order] > 0][:MOST].tolist()
        return tuple(_picture(results, both, row, place if sign < 0 else 0, (sums[:, row], judged[row])) for row in rows)

    return Differing(int((gap > 0).sum()), int((gap < 0).sum()), int((judged > 0).sum()), shown(1), shown(-1))


def _picture(results: Results, turns: Sequence[Turn], row: int, wrong: int, counts: tuple[Floats, float]) -> Picture:
    (ours, theirs), judged = counts
    label = results.classes[results.labels[row]] if results.labels is not None else ""
    return Picture(
        results.names[row],
        label,
        f"{ours:.0f} of {judged:.0f}",
        f"{theirs:.0f} of {judged:.0f}",
        _said(results, turns, row, wrong),
    )


def _said(results: Results, turns: Sequence[Turn], row: int, place: int) -> str:
    """The class that a method most often takes an image for, where it is wrong."""
    counts = np.zeros(len(results.classes))
    for turn in turns:
        run = turn.runs[place]
        if run is not None and run.logits is not None and row in turn.images:
            own = int(np.searchsorted(run.images, row))
            counts[run.logits[own].argmax()] += not run.correct[own]
    return results.classes[int(counts.argmax())] if counts.any() else ""


def thumbnail(folder: Path | None, name: str) -> str:
    """An image below a folder as a small JPEG's data URI; empty where it is not there, lies outside, or cannot be read."""
    if folder is None:
        return ""
    from PIL import Image, ImageOps

    try:
        place = folder.resolve()
        path = (place / name).resolve()
        if not path.is_relative_to(place) or path.stat().st_size > MOST_BYTES:
            return ""
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with files.regular(path) as file, Image.open(file, formats=FORMATS) as image:
                image.draft("RGB", (SIDE, SIDE))
                small = ImageOps.fit(ImageOps.exif_transpose(image).convert("RGB"), (SIDE, SIDE))
        small.save(jpeg := io.BytesIO(), "JPEG", quality=80)
    except (OSError, ValueError, SyntaxError, ArithmeticError, LookupError, MemoryError, Warning, Image.DecompressionBombError):
        return ""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg.getvalue()).decode()
