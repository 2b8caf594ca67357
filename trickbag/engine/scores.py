"""Logits -> metrics. Every number comes from the whole set at once or in parts of any size: each image counts once."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import torch
from scipy.stats import binomtest
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix

from trickbag.data import long_tail
from trickbag.data.findings import some
from trickbag.ground.errors import TrickbagError
from trickbag.ground.text import show

BINS = 15
TOP = 5


@dataclass(frozen=True)
class PerClass:
    """Lists over the classes. Precision is 0 for a class that is never predicted, recall is 0 for one that never occurs."""

    precision: list[float]
    """Of the images predicted as the class, the share that is of it, 0..1."""
    recall: list[float]
    """Of the images of the class, the share predicted as it, 0..1."""
    count: list[int]
    """Images of the class."""


@dataclass(frozen=True)
class Scores:
    """Metrics of ``n`` images; shares are 0..1, and NaN (null in JSON) where there is no image."""

    n: int
    top1: float
    """Share of images whose class has the largest logit; of equal logits the first class counts."""
    top5: float
    """Share of images whose class is among the five largest logits; of equal logits the first classes count."""
    macro_recall: float
    """Mean of the recalls of the classes that occur."""
    macro_f1: float
    """Mean of 2 precision recall / (precision + recall) over the classes that occur or are predicted."""
    nll: float
    """Mean negative log-likelihood, in nats."""
    brier: float
    """Mean squared distance of the probabilities from the one-hot label, 0..2."""
    ece: float
    """Expected calibration error of the largest probability, 0..1, in 15 equal bins; see ``calibration_error``."""
    per_class: PerClass
    confusion: list[list[int]]
    """Images by class (row) and prediction (column)."""

    def by_frequency(self, trained: Sequence[int]) -> dict[str, float | None]:
        """Mean recall over the classes with many (over 100), medium and few (under 20) training images; None without such."""
        pairs = zip(self.per_class.recall, self.per_class.count, strict=True)
        return long_tail.by_frequency([recall if count else math.nan for recall, count in pairs], trained)

    def brief(self, trained: Sequence[int]) -> dict[str, Any]:
        """All but the confusion matrix, which is quadratic in the classes, with the recalls ``by_frequency``."""
        found = self.as_json() | self.by_frequency(trained)
        del found["confusion"]
        return found

    @property
    def rank(self) -> list[float]:
        """By which epochs are compared: larger is better, what comes first counts first."""
        return [self.top1, -self.nll]

    def headline(self) -> dict[str, Any]:
        """The numbers of an epoch's line in a log."""
        return {name: value for name, value in self.as_json().items() if name in ("n", "top1", "macro_recall", "nll", "ece")}

    def as_json(self) -> dict[str, Any]:
        """All fields as plain lists and numbers, with None in the place of NaN."""
        return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in asdict(self).items()}

    def named(self, classes: Sequence[str]) -> dict[str, Any]:
        """As ``as_json``, with the names [K] of the classes beside their numbers.

        ``per_class`` maps a class to its precision, recall and images, ``confusion`` a class to the images predicted as each
        class, where there are any.

        >>> found = score(torch.tensor([[2.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 0])).named(["cat", "dog"])
        >>> found["confusion"], found["per_class"]["cat"]
        ({'cat': {'cat': 1, 'dog': 1}}, {'precision': 1.0, 'recall': 0.5, 'images': 2})
        """
        per, found = self.per_class, self.as_json()
        values = zip(per.precision, per.recall, per.count, strict=True)
        found["per_class"] = {
            name: {"precision": precision, "recall": recall if images else None, "images": images}
            for name, (precision, recall, images) in zip(classes, values, strict=True)
        }
        found["confusion"] = {
            name: {said: images for said, images in zip(classes, row, strict=True) if images}
            for name, row in zip(classes, self.confusion, strict=True)
            if any(row)
        }
        return found


class Judge:
    """Collects logits part by part. ``classes``: K, at least 1.

    >>> judge = Judge(classes=3).update(torch.eye(3), torch.tensor([0, 1, 2])).update(torch.eye(3)[:1], torch.tensor([1]))
    >>> judge.scores().top1
    0.75
    """

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self._logits: list[Tensor] = []
        self._labels: list[Tensor] = []

    def update(self, logits: Tensor, labels: Tensor) -> Self:
        """Add logits [B, K] and labels [B] int64. Raises TrickbagError for other shapes, unknown labels, logits not finite."""
        if logits.ndim != 2 or logits.shape[1] != self.classes or labels.shape != logits.shape[:1]:
            shapes = f"{list(logits.shape)} and {list(labels.shape)}"
            raise TrickbagError(f"Logits and labels have the shapes {shapes}, not [N, {self.classes}] and [N].")
        if len(labels) and (int(labels.min()) < 0 or int(labels.max()) >= self.classes):
            raise TrickbagError(f"A label lies outside 0..{self.classes - 1}. The images must have the classes of the network.")
        self._logits.append(finite(logits).detach().double().cpu())
        self._labels.append(labels.detach().long().cpu())
        return self

    def scores(self) -> Scores:
        """The metrics of all that was added."""
        logits = torch.cat([torch.zeros(0, self.classes, dtype=torch.float64), *self._logits])
        labels = torch.cat([torch.zeros(0, dtype=torch.int64), *self._labels])
        ranked = logits.argsort(dim=1, descending=True, stable=True)
        hits = ranked[:, :TOP] == labels[:, None]
        predicted = ranked[:, 0]
        confusion = multiclass_confusion_matrix(predicted, labels, self.classes)
        true, count, guessed = confusion.diagonal().double(), confusion.sum(1), confusion.sum(0)
        precision, recall = true / guessed.clamp(min=1), true / count.clamp(min=1)
        f1 = 2 * true / (count + guessed).clamp(min=1)
        logp = logits.log_softmax(1)
        return Scores(
            n=len(labels),
            top1=_mean(hits[:, 0]),
            top5=_mean(hits.any(1)),
            macro_recall=_mean(recall[count > 0]),
            macro_f1=_mean(f1[count + guessed > 0]),
            nll=_mean(-logp.gather(1, labels[:, None])),
            brier=_mean((logp.exp() - torch.nn.functional.one_hot(labels, self.classes)).square().sum(1)),
            ece=calibration_error(logp.exp().gather(1, ranked[:, :1])[:, 0], hits[:, 0]),
            per_class=PerClass(precision.tolist(), recall.tolist(), count.tolist()),
            confusion=confusion.tolist(),
        )


def score(logits: Tensor, labels: Tensor) -> Scores:
    """Logits [N, K] and labels [N] int64 in 0..K-1 -> Scores. Raises TrickbagError as ``Judge.update`` does.

    >>> score(torch.tensor([[2.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 0])).confusion
    [[1, 1], [0, 0]]
    """
    if logits.ndim != 2 or not logits.shape[1]:
        raise TrickbagError(f"Logits have the shape {list(logits.shape)}, not [N, K] with at least one class.")
    return Judge(logits.shape[1]).update(logits, labels).scores()


def calibration_error(confidence: Tensor, right: Tensor) -> float:
    """Probabilities [N] of what was predicted, and whether it was right [N] -> the expected calibration error; NaN for N = 0.

    The m-th of M = 15 bins is ((m - 1) / M, m / M], so that a probability of 1 lies in the last. Guo et al., "On Calibration of
    Modern Neural Networks", ICML 2017, arXiv:1706.04599, eq. 3.

    >>> round(calibration_error(torch.tensor([1.0, 1.0, 0.98, 0.98]), torch.tensor([True, False, True, True])), 2)
    0.24
    """
    if not len(right):
        return math.nan
    ends = torch.arange(1, BINS, dtype=torch.float64) / BINS
    gaps = right.double() - confidence.double()
    sums = torch.zeros(BINS, dtype=torch.float64).index_add(0, torch.bucketize(confidence.double(), ends), gaps)
    return float(sums.abs().sum()) / len(right)


def finite(logits: Tensor, names: Sequence[str] = ()) -> Tensor:
    """Logits [N, K], as they are. Raises TrickbagError where some are not finite, with the ``names`` [N] of these images.

    >>> finite(torch.tensor([[0.0, 1.0], [math.nan, 0.0]]), ["a.jpg", "b.jpg"])
    Traceback (most recent call last):
    trickbag.ground.errors.TrickbagError: The network gives no finite numbers for 1 of 2 images: b.jpg. Train it again, with a \
lower learning rate or in fp32 (--set precision=fp32).
    """
    if bad := (~logits.isfinite().all(1)).nonzero()[:, 0].tolist():
        first = f": {some([show(names[row]) for row in bad], 3)}" if names else ""
        raise TrickbagError(
            f"The network gives no finite numbers for {len(bad)} of {len(logits)} images{first}. Train it again, with a lower "
            "learning rate or in fp32 (--set precision=fp32)."
        )
    return logits


def interval(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's interval (low, high) of a share, 0..1, that was seen as ``successes`` of ``n``; (0, 1) where n is 0.

    Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 1927.

    >>> low, high = interval(1033, 1250)
    >>> round(low, 3), round(high, 3)
    (0.804, 0.846)
    """
    if n == 0:
        return 0.0, 1.0
    found = binomtest(successes, n).proportion_ci(level, "wilson")
    return float(found.low), float(found.high)


def _mean(values: Tensor) -> float:
    return float(values.double().mean()) if values.numel() else math.nan
