"""Judging: what a detector or a segmenter finds on whole splits, and how right it is."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import interpolate

from trickbag.engine.judge import Judge
from trickbag.scenes.table import Scenes, Task
from trickbag.statistics import detection, segmentation
from trickbag.statistics.detection import Found, Matches, Truth
from trickbag.statistics.variance import Ints
from trickbag.transfers.detectors import Detector
from trickbag.transfers.loading import SceneLoader
from trickbag.transfers.moving import fit
from trickbag.transfers.segmenters import Segmenter

Seen = Matches | Ints
"""What an image says of a detector, or of a segmenter: counts [K, K] of pixels by true and predicted class."""
Regions = NDArray[np.uint8]
MEASURES: dict[Task, tuple[Literal["map50", "miou"], str]] = {
    "detection": ("map50", "map"),
    "segmentation": ("miou", "accuracy"),
}
"""The first is the one that is reported first."""


@dataclass(frozen=True)
class Marks:
    """How right a detector or a segmenter is on some images; shares are 0..1, and NaN where there is nothing to find."""

    task: Task
    seen: Sequence[Seen]
    """[N] by image."""
    measures: dict[str, float]
    """map50 and map (the mean over overlaps from 0.5 to 0.95), or miou and accuracy (of pixels)."""
    classes: dict[str, list[float]]
    """The same of each class, as far as there is such a thing."""

    @property
    def rank(self) -> list[float]:
        """By which epochs are compared: larger is better."""
        return [*self.measures.values()][::-1] if self.task == "detection" else [*self.measures.values()]

    def headline(self) -> dict[str, Any]:
        """The numbers of an epoch's line in a log."""
        return {"n": len(self.seen)} | self.measures


def marks(task: Task, seen: Sequence[Seen], classes: int) -> Marks:
    """What images say together."""
    if task == "detection":
        found = detection.precision(cast(Sequence[Matches], seen), classes)
        each = {"map50": found.classes50.tolist(), "map": found.classes.tolist()}
        return Marks(task, seen, {"map50": float(found.map50), "map": float(found.map)}, each)
    overlap = segmentation.overlap(np.stack(cast(Sequence[Ints], seen)))
    measures = {"miou": float(overlap.miou), "accuracy": float(overlap.accuracy)}
    return Marks(task, seen, measures, {"miou": overlap.classes.tolist()})


class SceneJudge(Judge):
    """Scores weights on splits, at the size of the images as they were given."""

    def found(self, model: nn.Module, split: str) -> Iterator[tuple[int, Found | Regions]]:
        """Rows of a split, and what is found in each: boxes in its pixels, best first, or the class of each pixel [H, W]."""
        loader = cast(SceneLoader, self.loaders[split])
        model.eval()
        for batch in loader.judged(torch.arange(len(loader.labels)), self.facts.batch_size):
            with torch.inference_mode(), self.fabric.autocast():
                said = cast(Detector | Segmenter, model).predict(batch.x)
            for row, one in zip(batch.rows.tolist(), said, strict=True):
                height, width = loader.scenes.sizes[row].tolist()
                yield row, in_pixels(one, (height, width), fit(height, width, loader.size))

    def judge(self, model: nn.Module, split: str) -> Marks:
        """How right a network is on a split."""
        scenes, classes = cast(SceneLoader, self.loaders[split]).scenes, len(self.facts.classes)
        return marks(scenes.task, [beside(scenes, row, one) for row, one in self.found(model, split)], classes)

    def score(self, model: nn.Module) -> Marks:  # type: ignore[override]
        """How right a network is on validation."""
        return self.judge(model, "val")


def in_pixels(said: Any, size: tuple[int, int], shown: tuple[int, int]) -> Found | Regions:
    """What is said of a canvas, of an image of ``size`` that was ``shown`` in so many of its pixels, both height and width.

    >>> boxes, labels, scores = torch.tensor([[0.0, 0, 4, 4], [8, 0, 9, 4]]), torch.tensor([0, 1]), torch.tensor([0.9, 0.8])
    >>> in_pixels((boxes, labels, scores), (8, 8), (4, 4)).xyxy.tolist()
    [[0.0, 0.0, 8.0, 8.0]]
    """
    if isinstance(said, Tensor):
        return _likeliest(said[:, : shown[0], : shown[1]].float(), size).cpu().numpy()
    xyxy, labels, scores = (value.double().cpu().numpy() for value in said)
    scale = np.array([size[1] / shown[1], size[0] / shown[0]] * 2)
    xyxy = (xyxy * scale).clip(0, [size[1], size[0]] * 2)
    inside = (xyxy[:, 2:] > xyxy[:, :2]).all(1)  # the others lie in the padding
    return Found(xyxy[inside], labels[inside].astype(np.int64), scores[inside])


def _likeliest(scores: Tensor, size: tuple[int, int]) -> Tensor:
    """Scores [K, h, w] -> the class with the highest of each pixel of a larger or smaller image, uint8 [H, W].

    One class after another: the scores of all of them would not fit into memory for a large photo.
    """
    best = torch.full(size, float("-inf"), device=scores.device)
    classes = torch.zeros(size, dtype=torch.uint8, device=scores.device)
    for k, one in enumerate(scores):
        whole = interpolate(one[None, None], size, mode="bilinear", align_corners=False)[0, 0]
        classes[whole > best] = k
        torch.maximum(best, whole, out=best)
    return classes


def beside(scenes: Scenes, row: int, found: Found | Regions) -> Seen:
    """What was found in an image beside what there is."""
    if isinstance(found, Found):
        return detection.matched(found, Truth(*scenes.boxes[row]), len(scenes.classes))
    return segmentation.confusion(found, scenes.region(row), len(scenes.classes))
