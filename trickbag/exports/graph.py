"""A classifier as one graph: uint8 images [B, C, H, W] of any size in, probabilities [B, K] out.

``fitted`` and ``cut`` look at an image at a time and decide by its size. Here the same is two multiplications with a matrix
for each axis, whose entries are computed in the graph from H and W: so one formula holds for every size, of operators that
every runtime has, and no runtime's own resizing has a say.
"""

import io
import logging
import math
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

import torch
from torch import Tensor, nn
from torch._dynamo.exc import UserError
from torch.export import Dim, ExportedProgram
from torch.export.passes import move_to_device_pass

from trickbag.engine.cutting import RIBBON
from trickbag.engine.judge import float_outputs, wrapped
from trickbag.engine.pixels import GREY
from trickbag.ground.errors import TrickbagError
from trickbag.ground.records import MALFORMED
from trickbag.recipe import Fit
from trickbag.runs.classifier import Classifier
from trickbag.trick import Outputs, View


def resizing(part: Tensor, resized: Tensor, rows: Tensor, places: Tensor) -> Tensor:
    """The weights [R, P] with which places [P] of ``part`` pixels are summed to rows [R] of what they are ``resized`` to.

    Bilinear with antialiasing, as ``cutting.taps``, in whole numbers up to the one division: with scale = part / resized and
    centres x in pixels of the part, w = max(0, 1 - |x_p - x_r| / max(scale, 1)), each row divided by its sum. Places outside
    of the part have no weight; a row outside of what it is resized to is the one at the edge. Weights are rounded to 15 bits,
    counted from the largest, as torch does where it resizes images of 8 bits.

    >>> resizing(torch.tensor(2), torch.tensor(4), torch.tensor([0, 1, 2, 9]), torch.arange(3))
    tensor([[1.0000, 0.0000, 0.0000],
            [0.7500, 0.2500, 0.0000],
            [0.2500, 0.7500, 0.0000],
            [0.0000, 1.0000, 0.0000]])
    """
    rows = torch.minimum(rows.clamp_min(0), resized - 1)
    gap = ((2 * places + 1) * resized - ((2 * rows + 1) * part)[:, None]).abs()
    weights = (1 - gap / (2 * torch.maximum(part, resized))).clamp_min(0) * (places < part)
    weights = weights / weights.sum(1, keepdim=True)
    steps = torch.pow(2.0, (torch.log2((2**15 - 0.5) / weights.amax((0, 1))).ceil() - 1).clamp_max(22))
    return (steps * weights + 0.5).floor() / steps


def middle(outer: Tensor, inner: Tensor | int) -> Tensor:
    """Where the middle begins: half of what is left over, half pixels rounded to the even number.

    >>> middle(torch.tensor([8, 9, 11]), 4)
    tensor([2, 2, 4])
    """
    left = outer - inner
    half = _quotient(left, 2)
    return half + (left - 2 * half) * (half - 2 * _quotient(half, 2))


def _quotient(a: Tensor, b: Tensor | int) -> Tensor:
    """Of whole numbers that are not negative: one operator of ONNX, where ``//`` would be nine."""
    return torch.div(a, b, rounding_mode="trunc")


class Square(nn.Module):
    """Images as the network sees them: what ``pixels.fitted`` and ``cutting.cut`` do, to a batch of one size."""

    def __init__(self, fit: Fit, kept: int, view: View) -> None:
        super().__init__()
        self.fit, self.kept, self.view = fit, kept, view
        scale = kept / (view.resize - 1)
        self.most = math.ceil((view.crop - 1) * scale + 2 * max(scale, 1)) + 3
        """As many rows of a fitted image have a say in a square, at most."""

    def forward(self, images: Tensor) -> Tensor:
        """uint8 [B, C, H, W] -> whole numbers from 0 to 255 as float32 [B, C, crop, crop]."""
        lines = [torch.arange(length, device=images.device) for length in images.shape[2:]]
        given = torch.stack([line[-1] for line in lines]) + 1
        inner, whole = self._fitted(given)
        part = torch.minimum(whole, RIBBON * whole.amin(0))
        resized = _quotient(self.view.resize * part, part.amin(0))
        offset = middle(resized, self.view.crop)
        first = _quotient(((2 * offset + 1) * part - 2 * torch.maximum(part, resized)).clamp_min(0), 2 * resized)
        border = _quotient(whole - inner, 2)
        rows = torch.arange(self.most, device=images.device) + (first + middle(whole, part) - border)[:, None]
        cut = torch.arange(self.view.crop, device=images.device) + offset[:, None]
        x = images.to(torch.float32)
        x = _resized(x, [resizing(given[a], inner[a], rows[a], lines[a]) for a in (0, 1)])
        if self.fit == "pad":
            inside = (rows >= 0) & (rows < inner[:, None])
            x = torch.where(inside[0][:, None] & inside[1], x, float(GREY))
        places = torch.arange(self.most, device=images.device) + first[:, None]
        return _resized(x, [resizing(part[a], resized[a], cut[a], places[a]) for a in (0, 1)])

    def _fitted(self, given: Tensor) -> tuple[Tensor, Tensor]:
        """Height and width [2] -> those to which ``fitted`` resizes the image, and those with its borders."""
        if self.fit == "crop":
            shorter = given.amin(0)
            small = torch.where(shorter > self.kept, _quotient(self.kept * given, shorter), given)
            return small, small
        side = given.amax(0).clamp_max(self.kept)
        if self.fit == "squash":
            return side.expand(2), side.expand(2)
        return (side.double() / given.amax(0).double() * given.double()).round().long().clamp_min(1), side.expand(2)


def _resized(x: Tensor, axes: list[Tensor]) -> Tensor:
    """[B, C, H, W] summed with [w, W], then with [h, H], to [B, C, h, w]; rounded after each, as pixels in 8 bits are."""
    return _rounded(axes[0] @ _rounded(x @ axes[1].T))


def _rounded(x: Tensor) -> Tensor:
    return (x + 0.5).clamp(0, 255).floor()


class Whole(nn.Module):
    """The whole classifier: resizing, cutting, normalising, the network, the tricks that judge with it, in fp32."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        card = classifier.card
        self.square = Square(classifier.fit, card.kept, classifier.view)
        self.model = classifier.model.eval()
        for name, values in (("mean", card.mean), ("std", card.std)):
            self.register_buffer(name, torch.tensor(values, device=classifier.fabric.device).mul(255)[:, None, None])
        self.mean: Tensor
        self.std: Tensor
        self.judge = wrapped(lambda x: float_outputs(self.model(x)), classifier.tricks)

    def forward(self, images: Tensor) -> Tensor:
        """uint8 [B, C, H, W] -> probabilities [B, K]."""
        outputs: Outputs = self.judge((self.square(images) - self.mean) / self.std)
        return outputs.logits.softmax(1)


def traced(classifier: Classifier) -> ExportedProgram:
    """The whole classifier as a program of torch, for images of any number and size. Raises TrickbagError where it has none."""
    whole, channels = Whole(classifier), classifier.card.channels
    # An example of one image would be taken for a promise that there is always one.
    example = torch.zeros(2, channels, 91, 117, dtype=torch.uint8, device=whole.mean.device)
    any_size = {0: Dim("batch", min=1), 2: Dim("height", min=1), 3: Dim("width", min=1)}
    try:
        with torch.no_grad(), quiet():
            program = torch.export.export(whole, (example,), dynamic_shapes={"images": any_size})
            return move_to_device_pass(program, "cpu")
    except (*MALFORMED, UserError) as error:
        reason = textwrap.shorten(str(error), 300, placeholder=" …")
        named = ", ".join(map(str, classifier.tricks)) or "no trick"
        raise TrickbagError(
            f"{classifier.card.model} with {named} cannot be written as one graph ({type(error).__name__}: {reason})."
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """What converters have to say is of use to their makers alone; the result is compared with its run in any case."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
