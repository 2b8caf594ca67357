"""A trained detector or segmenter as a thing to use: boxes or regions of images in any form."""

from collections.abc import Container, Iterable, Iterator
from itertools import groupby
from pathlib import Path
from textwrap import shorten
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from trickbag.data.decode import decode
from trickbag.data.findings import some
from trickbag.data.sources import Source
from trickbag.engine.assemble import CACHE_MARGIN
from trickbag.engine.pixels import fitted
from trickbag.engine.precision import fabric_for
from trickbag.ground.arguments import Share, public
from trickbag.ground.errors import TrickbagError, UsageError
from trickbag.ground.events import Tell, silent
from trickbag.ground.records import MALFORMED
from trickbag.ground.shown import Picture, Sheet, Shown, html
from trickbag.models.card import TRANSFER, WEIGHTS
from trickbag.report import marked
from trickbag.runs.stream import batches
from trickbag.statistics.detection import Found
from trickbag.transfers.body import CANVAS
from trickbag.transfers.detectors import Detector
from trickbag.transfers.folder import TransferCard, place
from trickbag.transfers.judge import Regions, in_pixels
from trickbag.transfers.moving import WHOLE, Frame, canvas, fit, padded, shown
from trickbag.transfers.run import Transferred
from trickbag.transfers.segmenters import Segmenter

BATCH = 8
DRAWN = 1000
"""Pixels of the shorter side of a picture with marks, at most."""
SURE = 0.5
"""The least score of a box that counts as found, unless another is asked for."""


class Box(NamedTuple):
    """Something that was found."""

    name: str
    """Its class."""
    score: float
    """0 to 1, of the detector; no calibrated probability."""
    left: float
    top: float
    right: float
    bottom: float
    """All four in pixels of the upright image, from its left upper corner: a pixel is 1 wide."""


class Detection(NamedTuple):
    """The boxes of one image, the highest score first.

    Examples:
        >>> import trickbag as tb
        >>> (found,) = tb.load("detector").predict("cells/JPEGImages/1.png", threshold=0)
        >>> found.path, all(0 <= box.left < box.right <= 40 for box in found.boxes)
        ('cells/JPEGImages/1.png', True)

    """

    path: str
    boxes: tuple[Box, ...]

    def _repr_html_(self) -> str:
        rows = [(box.name, f"{100 * box.score:.1f} %", *(f"{side:.0f}" for side in box[2:])) for box in self.boxes]
        return html(Sheet(self.path, {}, ("class", "score", "left", "top", "right", "bottom"), rows))


class Segmentation(NamedTuple):
    """The classes of an image's pixels.

    Examples:
        >>> import trickbag as tb
        >>> (found,) = tb.load("segmenter").predict("streets/train/images/a.png")
        >>> found.regions.shape, round(sum(found.shares.values()), 6)
        ((30, 40), 1.0)

    """

    path: str
    regions: Regions
    """uint8 [H, W] of the upright image: the place of each pixel's class among ``shares``."""
    shares: dict[str, float]
    """Class -> its share of the pixels, 0 to 1."""

    def _repr_html_(self) -> str:
        rows = [(name, f"{100 * share:.1f} %") for name, share in sorted(self.shares.items(), key=lambda one: -one[1])]
        return html(Sheet(self.path, {}, ("class", "share of pixels"), rows))


class Photo(NamedTuple):
    """An image as it goes into the network, before it is normalised."""

    content: Path | bytes
    pixels: Tensor
    """uint8 [C, h, w]: its longer side as the network wants it."""
    size: tuple[int, int]
    """Height and width of the upright image."""


class Predictor(Shown):
    """A detector or a segmenter with its classes and its preprocessing; ``card`` is the content of ``transfer.json``.

    Examples:
        >>> import trickbag as tb
        >>> tb.load("detector")
        <detector fcos: classes 2 (red, white), pixels 32>

    """

    def __init__(self, network: Detector | Segmenter, card: TransferCard, folder: Path) -> None:
        self.card, self.task, self.classes, self.folder = card, card.task, tuple(card.classes), folder
        self.fabric = fabric_for(card.precision)
        self.network = network.to(self.fabric.device).eval().requires_grad_(False)
        self.colours = [marked.colour(k) for k in range(len(self.classes))]

    def _sheet(self) -> Sheet:
        kind = "detector" if self.task == "detection" else "segmenter"
        classes = f"{len(self.classes):,} ({some(self.classes, 5)})"
        return Sheet(f"{kind} {self.card.head}", {"classes": classes, "pixels": str(self.card.size)})

    @classmethod
    @public
    def load(cls, folder: str | Path) -> "Predictor":
        """The detector or segmenter in a folder that transfer wrote, or in the folder of a single seed.

        Raises UsageError where there is none or there are several, TrickbagError where it is damaged or unfinished.
        """
        found = place(Path(folder))
        if found is None:
            raise UsageError(f"{folder} holds no detector and no segmenter. Give a folder that trickbag transfer wrote.")
        made = Transferred.load(found)
        try:
            predictor = cls(made.network(), TransferCard.load(found), found)
            predictor.try_out()
        except MALFORMED as error:
            raise TrickbagError(
                f"{found}: {TRANSFER} and {WEIGHTS} make no network that can be used ({shorten(str(error), 200)}). "
                "Restore both from a copy, or train again."
            ) from error
        if not all(value.isfinite().all() for value in predictor.network.state_dict().values()):
            raise TrickbagError(f"{found}: {WEIGHTS} holds values that are no numbers. Train again with a smaller lr.")
        return predictor

    def try_out(self) -> None:
        """Look at a small grey image. Raises RuntimeError where the network takes images of other channels."""
        with torch.inference_mode(), self.fabric.autocast():
            self.network.predict(torch.zeros(1, len(self.card.mean), CANVAS, CANVAS, device=self.fabric.device))

    @public
    def predict(
        self,
        images: Any,
        *,
        threshold: Share | None = None,
        on_bad: Literal["skip", "error"] = "error",
        without: Container[str] = (),
        tell: Tell = silent,
    ) -> Iterator[Detection | Segmentation]:
        """The boxes or the regions of each image, in order, as they are asked for.

        ``images`` in any form that ``Classifier.predict`` takes. Boxes of a score below ``threshold`` (0.5) are left out;
        regions have none. ``on_bad`` and ``without`` are those of ``Classifier.predict``, and so is what it raises.
        """
        least = self.least(threshold)
        for batch in batches(images, self.photo, BATCH, on_bad=on_bad, without=without, tell=tell):
            for (name, _), one in zip(batch, self.look([photo for _, photo in batch]), strict=True):
                yield self.said(name, one, least)

    @public
    def draw(
        self,
        images: Any,
        *,
        threshold: Share | None = None,
        on_bad: Literal["skip", "error"] = "error",
        tell: Tell = silent,
    ) -> Iterator[tuple[Detection | Segmentation, Picture]]:
        """The same with a picture of each: the image with its boxes, or with its regions in colours, and with names.

        An image whose shorter side has more than 1,000 pixels is drawn smaller.
        """
        least = self.least(threshold)
        for batch in batches(images, self.photo, BATCH, on_bad=on_bad, tell=tell):
            for (name, photo), one in zip(batch, self.look([photo for _, photo in batch]), strict=True):
                pixels = fitted(decode(photo.content, len(self.card.mean), shorter=DRAWN).pixels, "crop", DRAWN)
                found = self.said(name, one, least)
                yield found, Picture(marked.png(self.drawn(pixels, photo.size, found)))

    def drawn(self, pixels: Tensor, size: tuple[int, int], found: Detection | Segmentation) -> Image:
        """An image uint8 [C, h, w], drawn over with what was found in it when it had a ``size`` (height, width)."""
        if isinstance(found, Segmentation):
            return marked.with_regions(pixels, found.regions, self.classes, self.colours)
        scale = pixels.shape[-1] / size[1], pixels.shape[-2] / size[0]
        return marked.with_boxes(
            pixels,
            [tuple(side * scale[n % 2] for n, side in enumerate(box[2:])) for box in found.boxes],
            [f"{box.name} {100 * box.score:.0f} %" for box in found.boxes],
            [self.colours[self.classes.index(box.name)] for box in found.boxes],
        )

    def least(self, threshold: float | None) -> float:
        """The least score that counts. Raises UsageError for what is none."""
        if threshold is None:
            return SURE
        if self.task == "segmentation":
            raise UsageError("a threshold is for boxes, and this is a segmenter: each pixel has a class. Leave it out.")
        if not 0 <= threshold <= 1:
            raise UsageError(f"threshold {threshold}: write a score from 0 to 1.")
        return threshold

    def photo(self, source: Source) -> Photo:
        """An image as the network wants it. Raises Unreadable or OSError."""
        return self.as_seen(source.content)

    def as_seen(self, content: Path | bytes, limit_pixels: int = 50_000_000) -> Photo:
        """The same of a file or its bytes; more than so many pixels are refused from the header."""
        kept = round(CACHE_MARGIN * self.card.size)
        pixels, _, size = decode(content, len(self.card.mean), limit_pixels, kept)
        return Photo(content, shown(fitted(pixels, "crop", kept), Frame(WHOLE, 0, *fit(*size, self.card.size))), size)

    def look(self, photos: Iterable[Photo]) -> Iterator[Found | Regions]:
        """What is found in each: all boxes in pixels of the upright image, best first, or the class of each pixel [H, W].

        Images of one canvas are looked at together; that of a usual shape is the one of training.
        """
        for size, together in groupby(photos, lambda photo: self.canvas(photo.size)):
            own = list(together)
            fill = [float(round(255 * value)) for value in self.card.mean]
            x = torch.stack([padded(photo.pixels, size, fill) for photo in own]).to(self.fabric.device).float()
            mean, std = (torch.tensor(v, device=x.device).mul(255)[:, None, None] for v in (self.card.mean, self.card.std))
            with torch.inference_mode(), self.fabric.autocast():
                said = self.network.predict(x.sub_(mean).div_(std))
            for photo, one in zip(own, said, strict=True):
                yield in_pixels(one, photo.size, fit(*photo.size, self.card.size))

    def canvas(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the canvas for an image of a size: that of training, or larger where it would not fit."""
        needed = canvas(np.array([size]), self.card.size)
        return max(needed[0], self.card.canvas[0]), max(needed[1], self.card.canvas[1])

    def said(self, path: str, found: Found | Regions, least: float) -> Detection | Segmentation:
        """What was found, by names."""
        if isinstance(found, Found):
            counted = found.scores >= least
            rows = zip(*(column[counted].tolist() for column in (found.labels, found.scores, found.xyxy)), strict=True)
            return Detection(path, tuple(Box(self.classes[k], score, *xyxy) for k, score, xyxy in rows))
        counts = np.bincount(found.ravel(), minlength=len(self.classes)) / found.size
        return Segmentation(path, found, dict(zip(self.classes, counts.tolist(), strict=True)))


def for_classifiers(folder: str | Path, **given: Any) -> None:
    """Raise UsageError where an option is given that is about classifiers of whole images alone."""
    for name, value in given.items():
        if value:
            option = name.strip("_").replace("_", "-")
            raise UsageError(f"{folder} holds a detector or a segmenter, and classifiers alone take --{option}. Leave it out.")
