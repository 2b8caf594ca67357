"""Batches of images with boxes or regions, moved along with what is cut, mirrored and resized."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torchvision import tv_tensors

from trickbag.engine.assemble import Normal
from trickbag.engine.loader import DEPTH, Keys, Loader, Slice
from trickbag.engine.pixels import Pixels, Rows, ahead
from trickbag.ground import signals
from trickbag.scenes.table import Scenes
from trickbag.transfers.moving import WHOLE, Frame, boxes_shown, fit, padded, shown
from trickbag.transfers.segmenters import IGNORED
from trickbag.trick import Batch, Trick, View

UNIT = 10_000
"""Windows are drawn in a square of so many pixels, so that their shape is that of the image, more or less."""
NONE = -1
"""The label of a row that is no box."""


class SceneLoader(Loader):
    """Turns pixels into batches with boxes or regions in the place of targets.

    Boxes [B, M, 5]: left, top, right, bottom in pixels of the canvas, and the label, which is NONE where an image has fewer
    boxes. Regions [B, H, W]: the class of each pixel, 255 where it does not count.
    """

    def __init__(
        self,
        scenes: Scenes,
        pixels: Pixels,
        rows: np.ndarray,
        tricks: tuple[Trick, ...],
        size: int,
        canvas: tuple[int, int],
        normal: Normal,
        seed: int,
        device: torch.device,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        self.scenes, self.size, self.canvas = scenes.take(rows), size, canvas
        table = Rows(self.scenes.images, pixels, rows)
        labels = torch.zeros(len(rows), dtype=torch.int64)
        super().__init__(table, labels, 1, tricks, View(size, size), normal, seed, device, False, rank, ranks)
        self.fill = [float(round(value)) for value in self.mean.flatten().tolist()]

    def train(self, slices: Iterator[Slice], epoch: int) -> Iterator[tuple[Slice, Batch]]:
        """Batches of this rank's share of each step, cut and mirrored as the tricks say."""

        def make(part: Slice) -> tuple[Slice, Batch]:
            rows, copies = part.rows[self.rank :: self.ranks], part.copies[self.rank :: self.ranks]
            return part, self.shown(rows, self.drawn(rows, Keys(self.seed, epoch, rows, copies, part.t)))

        for part, batch in self._paced(ahead(make, slices, self.workers, DEPTH)):
            yield part, self.on_device(batch)

    def judged(self, rows: Tensor, batch_size: int, view: View | None = None) -> Iterator[Batch]:
        """These rows whole, in order, the last batch as long as it comes."""
        del view  # there is one

        def make(part: Tensor) -> Batch:
            return self.shown(part, [self.whole(row) for row in part.tolist()])

        for batch in ahead(make, list(torch.split(rows, batch_size)), self.workers, DEPTH):
            signals.look()
            yield self.on_device(batch)

    def whole(self, row: int) -> Frame:
        """An image that is shown whole."""
        height, width = self.scenes.sizes[row].tolist()
        return Frame(WHOLE, 0, *fit(height, width, self.size))

    def drawn(self, rows: Tensor, keys: Keys) -> list[Frame]:
        """What is shown of training images."""
        windows, mirrored = self.frames(torch.full((len(rows), 2), UNIT), keys)
        frames = [self.whole(row) for row in rows.tolist()]
        if windows is not None:
            shares = (windows.double() / UNIT).tolist()
            frames = [frame._replace(window=tuple(window)) for frame, window in zip(frames, shares, strict=True)]
        if mirrored is not None:
            frames = [frame._replace(mirrored=way) for frame, way in zip(frames, mirrored.long().tolist(), strict=True)]
        return frames

    def shown(self, rows: Tensor, frames: list[Frame]) -> Batch:
        """The images of these rows in their frames, on canvases, with what is marked on them."""
        pairs = list(zip(rows.tolist(), frames, strict=True))
        x = torch.stack([padded(shown(self.pixels[row], frame), self.canvas, self.fill) for row, frame in pairs])
        if self.scenes.task == "segmentation":
            return Batch(x, torch.stack([self.region(row, frame) for row, frame in pairs]), rows)
        return Batch(x, pad_sequence([self.boxes(row, frame) for row, frame in pairs], True, NONE), rows)

    def region(self, row: int, frame: Frame) -> Tensor:
        """The classes of the canvas's pixels [H, W], uint8."""
        mask = tv_tensors.Mask(torch.from_numpy(self.scenes.region(row))[None])  # a part of a mask is no mask
        whole = padded(shown(mask, frame), self.canvas, IGNORED)
        return whole.as_subclass(Tensor)[0]  # type: ignore[no-any-return]

    def boxes(self, row: int, frame: Frame) -> Tensor:
        """The boxes that are trained on [n, 5]."""
        (xyxy, labels, ignored), size = self.scenes.boxes[row], tuple(self.scenes.sizes[row].tolist())
        return boxes_shown(xyxy[~ignored], labels[~ignored], size, frame)

    def on_device(self, batch: Batch) -> Batch:
        """Images normalised, marks in the numbers that losses want."""
        x = self.pinned(batch.x).to(self.device, non_blocking=True).float()
        y = self.pinned(batch.y).to(self.device, non_blocking=True)
        y = y.long() if self.scenes.task == "segmentation" else y
        return batch._replace(x=x.sub_(self.mean).div_(self.std), y=y)
