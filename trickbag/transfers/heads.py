"""From names to networks: which heads each task has."""

from collections.abc import Callable
from typing import Literal

from trickbag.ground.errors import UsageError
from trickbag.models.card import Card
from trickbag.transfers import detectors, segmenters
from trickbag.transfers.body import CANVAS, Body, Norms, network
from trickbag.transfers.detectors import Detector
from trickbag.transfers.segmenters import Segmenter

Task = Literal["detection", "segmentation"]
HEADS: dict[Task, dict[str, Callable[[Body, int], Detector | Segmenter]]] = {
    "detection": {"faster_rcnn": detectors.faster_rcnn, "fcos": detectors.fcos},
    "segmentation": {"fcn": segmenters.fcn, "unet": segmenters.unet},
}


def build(
    task: Task,
    head: str,
    model: str | Card,
    classes: int,
    weights: str = "none",
    size: tuple[int, int] = (256, 256),
    norms: Norms = "frozen",
) -> Detector | Segmenter:
    """A detector or a segmenter for ``classes`` classes, in training mode; random numbers are torch's global ones.

    ``model`` and ``weights`` as in ``body.network``; ``size``: height and width of the images, multiples of 32 pixels;
    ``norms``: whether the body's batch norms are trained. Raises UsageError where there is no such head, the size does not
    fit, or the network cannot be a body.

    >>> build("detection", "fcos", "cifar_resnet8", classes=2).body.strides
    (1, 2, 4)
    """
    if head not in HEADS[task]:
        raise UsageError(f"There is no head {head!r} for {task}. Choose {' or '.join(HEADS[task])}.")
    if any(side < CANVAS or side % CANVAS for side in size):
        raise UsageError(f"{size[0]} x {size[1]} pixels do not fit: give multiples of {CANVAS}.")
    body = Body(network(model, weights, max(size)), norms)
    return HEADS[task][head](body, classes)
