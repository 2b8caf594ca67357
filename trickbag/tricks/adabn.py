"""Adaptive batch normalisation: batch norms take the statistics of the new images, in place of the training images'.

Formula: (x - m) / sqrt(v + eps) in each batch norm, m and v the means over batches of the mean and the variance in a batch.
  The batches are of all images that are judged together, shuffled and without their labels; weights and all else stay. Those
  judged together are a split in training, and all images of a call of `trickbag evaluate` or `predict`, which look at them
  twice. A norm that training has not moved keeps what the weights came with: that is what the classifier knows.
Paper: Li et al., "Revisiting Batch Normalization For Practical Domain Adaptation", 2016, arXiv:1603.04779, section 3.3.
Helps: photos of another camera, place or season than the training images, which the network was not trained for.
Hurts: few new images, whose statistics are noise; a few epochs of fine-tuning, in which the classifier still knows the features
  of the norms that the weights came with; new images with other shares of classes than in training. An image has
  another answer among other images. Where the network before training is kept, nothing changes. One image by itself is
  refused, and so are networks without batch norms, trickbag serve, explain and export.
Costs: one more pass over the judged images.
"""

import copy
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from trickbag.ground.errors import UsageError
from trickbag.ground.norms import batch_norms, estimate_norms, moved
from trickbag.trick import Fit, Stage, Trick, Views


def whole(batches: Iterable[Tensor]) -> Iterator[Tensor]:
    """Batches [B, ...] as they are, but for a last one of a single image, which joins the one before: by itself it has no
    variance. Raises UsageError where it is all there is.

    >>> [len(x) for x in whole([torch.zeros(2, 1), torch.zeros(2, 1), torch.zeros(1, 1)])]
    [2, 3]
    """
    held = torch.empty(0)
    for x in batches:
        if len(x) == 1 and len(held):
            held = torch.cat([held, x])
            continue
        if len(held):
            yield held
        held = x
    if len(held) < 2:
        raise UsageError("adabn takes the statistics of all images that are judged, and one image has none. Give more images.")
    yield held


class Adabn(Trick):
    """Judge with the batch statistics of the images that are judged."""

    stage, stilled = Stage.WEIGHT, "norms"

    def setup(self, model: Any, fit: Fit) -> None:
        """Raise UsageError where the network has no batch norms."""
        if not batch_norms(model):
            raise UsageError(f"adabn changes batch norms, of which {model.name} has none. Leave adabn out.")

    def adapt(self, model: Any, views: Views) -> Any:
        """Take the statistics anew, where they are those of the training images."""
        new = copy.deepcopy(model)
        estimate_norms(new, [norm for norm in batch_norms(new) if moved(norm)], whole(views()))
        return new
