"""mAP beside COCO's own code: the same to 1e-9, and what a score, its per-image values and a bootstrap replicate cost.

    OMP_NUM_THREADS=1 python -m benchmarks.averaging

Scenes of three classes, twelve boxes and a hundred detections in each image. Times are the least of five, of the processor, so
that what else runs counts little. Prints a Markdown table.
"""

import contextlib
import io
import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from benchmarks.machine import origin
from trickbag.statistics.detection import MOST, Found, Truth, matched, precision
from trickbag.statistics.jackknife import of_precision

Scene = tuple[Found, Truth]
CLASSES, BOXES, DETECTIONS, REPLICATES = 3, 12, 100, 100


def cocos(scenes: Sequence[Scene], classes: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Average precision at 0.5 and over all thresholds, of each class [K], as COCOeval says; NaN where it has none."""
    truths = [
        {"image_id": image, "category_id": int(label), "iscrowd": int(ignored)} | _box(xyxy)
        for image, (_, truth) in enumerate(scenes)
        for xyxy, label, ignored in zip(*truth, strict=True)
    ]
    found = [
        {"image_id": image, "category_id": int(label), "score": score} | _box(xyxy)
        for image, (said, _) in enumerate(scenes)
        for xyxy, label, score in zip(*said, strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        judge = COCOeval(_coco(truths, len(scenes), classes), _coco(found, len(scenes), classes), "bbox")
        judge.params.areaRng, judge.params.areaRngLbl, judge.params.maxDets = judge.params.areaRng[:1], ["all"], [MOST]
        judge.evaluate()
        judge.accumulate()
    values = judge.eval["precision"][:, :, :, 0, 0]  # thresholds, recalls, classes
    values = np.where(values < 0, np.nan, values).mean(1)
    return values[0], values.mean(0)


def _box(xyxy: NDArray[np.float64]) -> dict[str, object]:
    sides = xyxy[2:] - xyxy[:2]
    return {"bbox": [*xyxy[:2], *sides], "area": float(sides.prod())}


def _coco(boxes: list[dict[str, object]], images: int, classes: int) -> COCO:
    made = COCO()
    made.dataset = {
        "images": [{"id": image} for image in range(images)],
        "categories": [{"id": label} for label in range(classes)],
        "annotations": [{"id": 1 + number} | box for number, box in enumerate(boxes)],
    }
    made.createIndex()
    return made


def scene(rng: np.random.Generator) -> Scene:
    corner = rng.uniform(0, 400, (BOXES, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(20, 120, (BOXES, 2))], axis=1)
    labels = rng.integers(0, CLASSES, BOXES)
    again = rng.integers(0, BOXES, DETECTIONS)
    said = boxes[again] + rng.normal(0, 8, (DETECTIONS, 4))
    said[:, 2:] = np.maximum(said[:, 2:], said[:, :2] + 1)
    return Found(said, labels[again], rng.random(DETECTIONS)), Truth(boxes, labels, np.zeros(BOXES, bool))


def milliseconds(work: Callable[[], object]) -> float:
    took = []
    for _ in range(5):
        began = time.process_time()
        work()
        took.append(1000 * (time.process_time() - began))
    return min(took)


def main() -> None:
    print(origin(), "", sep="\n")
    print("| images | COCOeval | matching | a score | per-image values | a replicate | COCOeval / replicate |")
    print("|---" * 7 + "|")
    for count in (72, 500):
        rng = np.random.default_rng(count)
        scenes = [scene(rng) for _ in range(count)]
        matches = [matched(*one, CLASSES) for one in scenes]
        np.testing.assert_allclose(precision(matches, CLASSES).classes, cocos(scenes, CLASSES)[1], atol=1e-9)
        often = rng.multinomial(count, np.full(count, 1 / count), REPLICATES).astype(float)
        took = [
            milliseconds(lambda s=scenes: cocos(s, CLASSES)),
            milliseconds(lambda s=scenes: [matched(*one, CLASSES) for one in s]),
            milliseconds(lambda m=matches: precision(m, CLASSES)),
            milliseconds(lambda m=matches: of_precision(m, CLASSES)),
            milliseconds(lambda m=matches, w=often: precision(m, CLASSES, w)) / REPLICATES,
        ]
        said = " | ".join(f"{value:.3g} ms" for value in took)
        print(f"| {count} | {said} | {took[0] / took[-1]:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
