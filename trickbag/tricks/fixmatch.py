"""FixMatch: where the network is sure of an image without a label, it learns that answer on a strongly altered view.

Formula: loss + weight * mean 1[max q >= T(c)] CE(z', c) over the images beside a step, q = softmax of the logits of a weak
  view, c = argmax q, z' the logits of a strong view; norms see one view at a time. Both views are cut, mirrored and augmented
  as training images are; the strong one then has two of 14 operations (those of ``torchvision.transforms.v2.RandAugment``),
  each at one of 31 magnitudes, and a grey square of half its side. T(c) is ``threshold``, or one of two that adapt to classes:
  flexible (FlexMatch): threshold * b / (2 - b), b = n_c / max(max n, N - sum n), n_c the images whose last sure answer was c,
  of N; free (FreeMatch, without its fairness loss): m * p_c / max p, m and p running means of max q and of q up to the step
  before, 1 / K at first. The images are the training images and those of the folder. Papers judge averaged weights: add ema.
Paper: Sohn et al., "FixMatch: Simplifying Semi-Supervised Learning with Consistency and Confidence", NeurIPS 2020,
  arXiv:2001.07685; flexible: Zhang et al., "FlexMatch", NeurIPS 2021, arXiv:2110.08263; free: Wang et al., "FreeMatch", ICLR
  2023, arXiv:2205.07246.
Helps: few labelled and many unlabelled images of the same kind.
Hurts: unlabelled images of other classes; short training; classes told apart by colour or direction.
Costs: for each unlabelled image a pass beside its training, and loader time: with ratio=1 a step takes about 2.3 times as long.
"""

from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor
from torch.nn.functional import cross_entropy
from torchvision.transforms import v2

from trickbag.ground.operations import operated
from trickbag.trick import Batch, Beside, Fit, Outputs, Stage, Trick

BINS = 31
OPERATIONS = 2
GREY = 128
SURE = 0.95
"""As in the paper."""
HALF_LIFE = 0.02
"""Share of training after which a moment counts half in the running means of free thresholds."""
_TORCHVISION = v2.RandAugment(num_magnitude_bins=BINS)
SPACE = tuple(_TORCHVISION._AUGMENTATION_SPACE)


def operate(image: Tensor, operation: str, m: int, sign: int) -> Tensor:
    """A uint8 image [C, H, W] after one of SPACE at magnitude ``m`` in 0 .. 30; ``sign``, 1 or -1, where it has one.

    >>> operate(torch.tensor([[[10, 200]]], dtype=torch.uint8), "Solarize", 15, 1)
    tensor([[[10,  55]]], dtype=torch.uint8)
    """
    return operated(_TORCHVISION, _TORCHVISION._AUGMENTATION_SPACE, BINS, image, operation, m, sign)


def strong(image: Tensor, size: int, rng: Generator) -> Tensor:
    """A uint8 image [C, size, size] after random operations, a square of half its side covered with grey."""

    def draw(high: int) -> int:
        return int(torch.randint(high, (), generator=rng))

    for _ in range(OPERATIONS):
        image = operate(image, SPACE[draw(len(SPACE))], draw(BINS), 2 * draw(2) - 1)
    y, x, half = draw(size), draw(size), size // 4
    image = image.clone()
    image[:, max(y - half, 0) : y + half, max(x - half, 0) : x + half] = GREY
    return image


def flexible(counts: Tensor, images: int) -> Tensor:
    """How many of so many images are surely of each class [K] -> by what a threshold is multiplied for it [K], in [0, 1].

    >>> flexible(torch.tensor([4, 2, 0]), 10)
    tensor([1.0000, 0.3333, 0.0000])
    """
    share = counts / torch.maximum(counts.max(), images - counts.sum()).clamp_min(1)
    return share / (2 - share)


def free(means: Tensor) -> Tensor:
    """The mean of the largest probability, then those of all classes [1 + K] -> the threshold of each class [K].

    >>> free(torch.tensor([0.8, 0.5, 0.25, 0.25]))
    tensor([0.8000, 0.4000, 0.4000])
    """
    return means[0] * means[1:] / means[1:].max()


def consistency(weak: Tensor, strong: Tensor, thresholds: Tensor) -> Tensor:
    """Logits [N, K] of two views and thresholds [K] -> the cross-entropy of the strong ones with the sure answers to the weak
    ones, 0 where there is none: the mean over all N, a scalar.

    >>> round(consistency(torch.tensor([[9.0, 0.0], [0.1, 0.0]]), torch.zeros(2, 2), torch.full((2,), 0.9)).item(), 4)
    0.3466
    """
    largest, classes = weak.softmax(1).max(1)
    sure = largest >= thresholds[classes]
    return (cross_entropy(strong, classes, reduction="none") * sure).mean()


def answered(q: Tensor) -> Tensor:
    """Probabilities [N, K] -> the mean of the largest, then the mean of each class [1 + K], over all processes.

    >>> answered(torch.tensor([[0.75, 0.25], [0.25, 0.75]]))
    tensor([0.7500, 0.5000, 0.5000])
    """
    found = torch.cat([q.max(1, keepdim=True).values, q], 1).mean(0)
    if torch.distributed.is_initialized():
        torch.distributed.all_reduce(found)
        found /= torch.distributed.get_world_size()
    return found


def sure(q: Tensor, rows: Tensor, threshold: float, last: Tensor) -> Tensor:
    """Probabilities [N, K] of images in these rows [N] of all M -> the last sure answer to each image [M], over all processes.

    ``last`` [M] are those before, K where there was none.

    >>> sure(torch.tensor([[0.9, 0.1], [0.5, 0.5]]), torch.tensor([2, 0]), 0.8, torch.tensor([1, 2, 2]))
    tensor([1, 2, 0])
    """
    largest, classes = q.max(1)
    found = torch.full_like(last, -1).scatter_reduce_(0, rows, torch.where(largest >= threshold, classes, -1), "amax")
    if torch.distributed.is_initialized():
        torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MAX)
    return torch.where(found < 0, last, found)


class FixMatch(Trick):
    """Learn on strongly altered images what the network surely says of them unaltered."""

    stage = Stage.LABEL
    folder = "unlabelled"
    neutral = {"weight": 0.0}
    example = "fixmatch(unlabelled='more', threshold=0.3)"
    unlabelled: str
    """A folder with images that have no labels; a copy of a labelled image is left out."""
    kind: Literal["fixed", "flexible", "free"] = "fixed"
    """How sure the network must be: fixed, flexible (less so of classes that it seldom names) or free (found in training)."""
    threshold: Annotated[float, Field(gt=0, le=1)] = SURE
    """The least probability at which an answer is learned; flexible: the largest such; free takes none."""
    weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of this loss; 0: there is none."""
    ratio: Annotated[int, Field(ge=1, le=100)] = 1
    """Images without labels beside each training image."""

    def model_post_init(self, _: Any) -> None:
        """Refuse a threshold that would not count."""
        if self.kind == "free" and self.threshold != SURE:
            raise ValueError("kind='free' finds its thresholds in training. Leave threshold out, or choose another kind")

    def beside(self) -> Beside:
        """A weak and a strong view."""
        return Beside(self.ratio, ((), (strong,)))

    def setup(self, model: Any, fit: Fit) -> None:
        """What thresholds go by: no image has a sure answer yet, and all classes are alike."""
        classes, device = len(fit.facts.classes), next(model.parameters()).device
        self._keep = 0.5 ** (1 / (HALF_LIFE * max(fit.facts.steps, 1)))
        self._step: list[tuple[Tensor, Tensor]] = []
        if self.kind == "flexible":
            self.answers_ = torch.full((fit.facts.unlabelled,), classes, device=device)
        if self.kind == "free":
            self.means_ = torch.full((1 + classes,), 1 / classes, device=device)

    def penalty(self, batch: Batch, outputs: Outputs, model: Any, t: float) -> Tensor:
        """The weighted consistency; each view goes by its own statistics in norms, as in training."""
        if batch.unlabelled is None or not self.weight:
            return outputs.logits.new_zeros(())
        weak, altered = (view.flatten(0, 1) for view in batch.unlabelled.x.unbind(2))
        with torch.no_grad():
            answers = model(weak).logits.float()
        if self.kind != "fixed":
            self._step.append((answers.softmax(1), batch.unlabelled.rows.flatten().to(answers.device, non_blocking=True)))
        return self.weight * consistency(answers, model(altered).logits.float(), self._thresholds(answers))

    def _thresholds(self, q: Tensor) -> Tensor:
        """Of each class [K], by the steps before this one."""
        if self.kind == "flexible":
            counts = q.new_zeros(q.shape[1] + 1).scatter_add_(0, self.answers_, torch.ones_like(self.answers_, dtype=q.dtype))[
                :-1
            ]
            return self.threshold * flexible(counts, len(self.answers_))
        return free(self.means_) if self.kind == "free" else q.new_full(q.shape[1:], self.threshold)

    def update(self, model: Any, t: float) -> None:
        """Let the thresholds follow what was answered in the step."""
        if not self._step:
            return
        q, rows = (torch.cat(parts) for parts in zip(*self._step, strict=True))
        self._step.clear()
        if self.kind == "flexible":
            self.answers_ = sure(q, rows, self.threshold, self.answers_)
        if self.kind == "free":
            self.means_ = self.means_.lerp(answered(q), 1 - self._keep)
