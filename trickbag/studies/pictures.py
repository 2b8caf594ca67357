"""Which judged images tell something: those that every arm gets wrong, and those that one arm alone gets right."""

import base64
import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from trickbag.ground import store
from trickbag.report.findings import CONTROLS, Picture
from trickbag.studies.record import Floats, Judged, Study

MOST = 12
SIDE = 96
"""Pixels of a thumbnail's shorter side."""


def telling(study: Study, runs: Mapping[str, Sequence[Judged]]) -> tuple[list[int], dict[int, str]]:
    """The judged images that nobody ever gets right, the surest mistakes first; those that one arm alone gets right mostly."""
    names = [arm.name for arm in study.arms if arm.role not in CONTROLS]
    right = {name: mean(study, runs[name], "correct") for name in names if any(len(j.predicted) for j in runs.get(name, ()))}
    if len(right) < 2:
        return [], {}
    table, nll = np.array(list(right.values())), np.mean([mean(study, runs[name], "nll") for name in right], axis=0)
    seen = np.isfinite(table).all(0)
    wrong = np.flatnonzero(seen & (np.max(table, 0, where=seen, initial=0) == 0))
    hardest = [int(row) for row in wrong[np.argsort(-nll[wrong], kind="stable")][:MOST]]
    mostly = table > 0.5
    alone = np.flatnonzero(seen & (mostly.sum(0) == 1) & (np.sort(table, axis=0)[-2] == 0))
    order = alone[np.argsort(-table.max(0)[alone], kind="stable")][:MOST]
    return hardest, {int(row): list(right)[int(mostly[:, row].argmax())] for row in order}


def mean(study: Study, runs: Sequence[Judged], of: str) -> Floats:
    """Of an arm's runs, for each image of the listing; NaN where none judged it."""
    sums, times = np.zeros(study.held.images), np.zeros(study.held.images)
    for judged in runs:
        if len(judged.predicted):
            sums[judged.rows] += getattr(judged, of)
            times[judged.rows] += 1
    with np.errstate(invalid="ignore"):
        return sums / times


def pictures(study: Study, runs: Mapping[str, Sequence[Judged]]) -> tuple[tuple[Picture, ...], tuple[Picture, ...]]:
    """The images that every arm gets wrong, and those that one arm rescues, as far as their thumbnails are stored."""
    hardest, rescued = telling(study, runs)
    classes, reference = study.facts["classes"], runs[study.arms[0].name]

    def picture(row: int, arms: tuple[str, ...]) -> Picture:
        said = Counter(int(j.predicted[j.rows == row][0]) for j in reference if row in j.rows and len(j.predicted)).most_common(
            1
        )
        label = next(int(j.labels[j.rows == row][0]) for every in runs.values() for j in every if row in j.rows)
        return Picture(
            study.name(row),
            classes[label],
            classes[said[0][0]] if said else "",
            arms,
            thumbnail(study, row),
        )

    stored = [row for row in (*hardest, *rescued) if file(study, row).is_file()]
    return (
        tuple(picture(row, ()) for row in hardest if row in stored),
        tuple(picture(row, (arm,)) for row, arm in rescued.items() if row in stored),
    )


def file(study: Study, row: int) -> Path:
    """Where the thumbnail of a judged image lies."""
    return study.place.folder / "thumbnails" / f"{row}.jpg"


def thumbnail(study: Study, row: int) -> str:
    """The stored thumbnail as a data URI."""
    return "data:image/jpeg;base64," + base64.b64encode(file(study, row).read_bytes()).decode()


def save(study: Study, runs: Mapping[str, Sequence[Judged]], image: Callable[[int], Tensor]) -> None:
    """Store the thumbnails that the report shows; ``image``: judged image -> uint8 pixels [C, h, w]."""
    hardest, rescued = telling(study, runs)
    for row in (*hardest, *rescued):
        if not file(study, row).is_file():
            pixels = image(row)
            colours = pixels[:3] if len(pixels) >= 3 else pixels[:1]
            small = F.center_crop(F.resize(colours, [SIDE], antialias=True), [SIDE, SIDE])
            F.to_pil_image(small).save(jpeg := io.BytesIO(), "JPEG", quality=80)
            store.write(file(study, row), jpeg.getvalue())
