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
from trickbag.studies.record import Judged, Study

MOST = 12
SIDE = 96
"""Pixels of a thumbnail's shorter side."""


def telling(study: Study, runs: Mapping[str, Sequence[Judged]]) -> tuple[list[int], dict[int, str]]:
    """The judged images that nobody ever gets right, the surest mistakes first; those that one arm alone gets right mostly."""
    names = [arm.name for arm in study.arms if arm.role not in CONTROLS]
    right = {n: np.mean([j.correct for j in runs[n] if len(j.predicted)], axis=0) for n in names if whole(runs.get(n, ()))}
    if len(right) < 2:
        return [], {}
    table = np.array(list(right.values()))
    nll = np.mean([j.nll for n in right for j in runs[n] if len(j.predicted)], axis=0)
    wrong = np.flatnonzero(table.max(0) == 0)
    hardest = [int(row) for row in wrong[np.argsort(-nll[wrong], kind="stable")][:MOST]]
    mostly = table > 0.5
    alone = np.flatnonzero((mostly.sum(0) == 1) & (np.sort(table, axis=0)[-2] == 0))
    order = alone[np.argsort(-table.max(0)[alone], kind="stable")][:MOST]
    return hardest, {int(row): list(right)[int(mostly[:, row].argmax())] for row in order}


def whole(runs: Sequence[Judged]) -> bool:
    """Whether an arm has predictions."""
    return any(len(judged.predicted) for judged in runs)


def pictures(study: Study, runs: Mapping[str, Sequence[Judged]]) -> tuple[tuple[Picture, ...], tuple[Picture, ...]]:
    """The images that every arm gets wrong, and those that one arm rescues, as far as their thumbnails are stored."""
    hardest, rescued = telling(study, runs)
    reference = [judged for judged in runs[study.arms[0].name] if len(judged.predicted)]

    def picture(row: int, arms: tuple[str, ...]) -> Picture:
        said = Counter(int(judged.predicted[row]) for judged in reference).most_common(1)
        judged = study.facts["judged"]
        return Picture(
            judged["paths"][row],
            study.facts["classes"][judged["labels"][row]],
            study.facts["classes"][said[0][0]] if said else "",
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
    return study.place.folder / "thumbnails" / f"{study.split}-{row}.jpg"


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
