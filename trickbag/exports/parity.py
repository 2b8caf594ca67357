"""Whether a file says of images what its run says: pixels, probabilities, accuracy."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from trickbag.engine.cutting import cut
from trickbag.engine.pixels import Pixels, ahead, fitted
from trickbag.engine.scores import finite
from trickbag.exports.photos import Photos
from trickbag.ground.errors import TrickbagError
from trickbag.ground.events import Doing, Tell
from trickbag.runs.classifier import BATCH, Classifier
from trickbag.statistics.intervals import Interval
from trickbag.statistics.one_way import over_images
from trickbag.statistics.variance import Ints
from trickbag.statistics.verdicts import judged

Program = Callable[[NDArray[np.uint8]], tuple[NDArray[np.float32], NDArray[np.float32]]]
"""Images [B, C, H, W] -> probabilities [B, K], and the squares [B, C, S, S] that the network sees, 0 to 255."""
LEAST = 0.995
"""Share of images whose class must be the same."""
MOST = 0.02
"""The largest difference that a probability may have: a threshold means the same then for the file and for its run."""
BATCHES = (1, 2, 7)
SIZES = ((48, 36), (240, 320), (500, 375), (600, 600), (90, 720))
"""Heights and widths in pixels: a thumbnail, photos either way, a square, a banner."""


@dataclass(frozen=True)
class Accuracy:
    """Top-1 accuracies on the same images, 0..1."""

    before: float
    after: float
    difference: float
    interval: Interval | None
    """Of the difference on new images, 95 %, paired by image; None of fewer than two."""


@dataclass(frozen=True)
class Alike:
    """How far two answers to N images are the same."""

    n: int
    agreement: float
    """Share of images with the same most probable class."""
    probability: float
    """The largest difference of a probability."""
    accuracy: Accuracy | None
    """None where the true classes are not known, or the images were trained on."""


@dataclass(frozen=True)
class Shape:
    """The same photos, resized, in batches of one size."""

    batch: int
    height: int
    width: int
    probability: float
    """The largest difference of a probability."""


@dataclass(frozen=True)
class Parity:
    """A file beside its run, in fp32 and on the same pixels."""

    images: str
    alike: Alike
    grey: float
    """The largest difference of a pixel that the network sees, of 255 levels."""
    grey_share: float
    """Share of pixels with any difference."""
    shapes: tuple[Shape, ...]
    predict: Alike | None
    """The run as ``predict`` has it, in its own arithmetic and with JPEG files decoded as small as they are needed, beside the
    file; None where there are no files."""

    @property
    def faults(self) -> tuple[str, ...]:
        """Why the file may not be shipped, in words; none where it may."""
        off = max([self.alike.probability, *(shape.probability for shape in self.shapes)])
        found = []
        if self.alike.agreement < LEAST:
            found.append(f"it says another class for {100 * (1 - self.alike.agreement):.1f} % ({100 * (1 - LEAST):.1f} may)")
        if off > MOST:
            found.append(f"a probability differs by {off:.4f} ({MOST:g} may)")
        return tuple(found)


def accuracy(before: Tensor, after: Tensor, labels: Tensor, groups: Ints) -> Accuracy:
    """Classes [N] by the one and by the other, true classes [N] and groups [N] -> both accuracies and what lies between them.

    >>> found = accuracy(torch.tensor([0, 1, 1]), torch.tensor([0, 1, 0]), torch.tensor([0, 1, 1]), np.arange(3))
    >>> found.before, round(found.difference, 4)
    (1.0, -0.3333)
    """
    ours, theirs = (before == labels).double(), (after == labels).double()
    draft = over_images((theirs - ours).numpy(), groups, same=False, shares=True)
    (found,) = judged([draft], 0.0, 0.05, 0)
    return Accuracy(float(ours.mean()), float(theirs.mean()), draft.difference, found.interval)


def alike(before: Tensor, after: Tensor, photos: Photos) -> Alike:
    """Probabilities [N, K] by the one and by the other."""
    ours, theirs = before.argmax(1), after.argmax(1)
    labels, groups = photos.labels, photos.groups
    scored = None if labels is None or groups is None else accuracy(ours, theirs, labels, groups)
    return Alike(len(ours), float((ours == theirs).double().mean()), float((before - after).abs().max()), scored)


def measured(program: Program, classifier: Classifier, photos: Photos, tell: Tell) -> Parity:
    """The file's program beside the run's classifier on all photos, and on some in batches of several sizes.

    Raises TrickbagError where the program fails or gives what are no probabilities.
    """
    exact = plain(classifier)
    before, after, grey, different = [], [], 0.0, []
    images = _each(photos.judged)
    while batch := list(islice(images, BATCH)):
        before.append(_probabilities(exact, batch))
        for image in batch:
            said, square = _asked(program, image[None])
            gap = (torch.from_numpy(square[0]) - cut(fitted(image, exact.fit, exact.card.kept), exact.view)).abs()
            grey = max(grey, float(gap.max()))
            different.append(float((gap > 0).double().mean()))
            after.append(said)
        tell(Doing("comparing the file with its run", len(after), len(photos.judged)))
    file = torch.cat(after)
    predict = None
    if photos.predicted is not None:
        run = _probabilities(classifier, _each(photos.predicted))
        predict = alike(run, file, photos)
    shapes = tuple(_shapes(program, exact, photos.judged))
    return Parity(photos.what, alike(torch.cat(before), file, photos), grey, float(np.mean(different)), shapes, predict)


def plain(classifier: Classifier) -> Classifier:
    """The same classifier in fp32: what is left then between a file and its run are the pixels."""
    card = classifier.card.model_copy(update={"precision": "fp32", "channels_last": False})
    return Classifier(classifier.model, classifier.tricks, card)


def _shapes(program: Program, classifier: Classifier, pixels: Pixels) -> Iterator[Shape]:
    some = [pixels[row] for row in range(min(max(BATCHES), len(pixels)))]
    some = [some[place % len(some)] for place in range(max(BATCHES))]
    for height, width in SIZES:
        images = torch.stack([F.resize(image, [height, width], antialias=True) for image in some])
        before = _probabilities(classifier, images)
        for batch in BATCHES:
            after, _ = _asked(program, images[:batch])
            yield Shape(batch, height, width, float((before[:batch] - after).abs().max()))


def _each(pixels: Pixels) -> Iterator[Tensor]:
    return ahead(pixels.__getitem__, range(len(pixels)), 2, BATCH)


def _probabilities(classifier: Classifier, images: Sequence[Tensor] | Tensor | Iterator[Tensor]) -> Tensor:
    return torch.cat([finite(outputs.logits.float()).softmax(1).cpu() for outputs in classifier.outputs(images)])


def _asked(program: Program, images: Tensor) -> tuple[Tensor, NDArray[np.float32]]:
    try:
        said, squares = program(images.numpy())
    except (RuntimeError, ValueError, AssertionError) as error:
        raise TrickbagError(f"the file fails on images of {list(images.shape)}: {str(error)[:300]}") from error
    if said.shape[0] != len(images) or not np.isfinite(said).all():
        raise TrickbagError(f"the file says {list(said.shape)} of images of {list(images.shape)}, or what are no numbers.")
    return torch.from_numpy(said), squares
