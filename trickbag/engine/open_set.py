"""Open set: one number for each image says how familiar it looks; below a threshold it is rejected as of no known class."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from scipy.stats import rankdata
from torch import Tensor

from trickbag.engine.scores import Scores, finite, score

Familiarity = Literal["probability", "energy"]
UNKNOWN = -1
"""The label of an image of no known class, and the prediction for one that is rejected."""
REJECTED_PERCENT = 5


@dataclass(frozen=True)
class OpenScores(Scores):
    """Metrics of the ``n`` images of known classes, none rejected, and how well those of unknown classes are told from them."""

    n_unknown: int
    """Images of classes that the network does not know."""
    by: Familiarity
    threshold: float
    """Images that are less familiar are rejected; see ``threshold``."""
    kept_val: float
    """Share of the validation images, by which the threshold was chosen, that it keeps: 0.95 or a little more."""
    auroc: float
    """Of a known and an unknown image the known one is more familiar in this share of pairs; a tie counts half."""
    rejected_unknown: float
    """Share of the unknown images that are rejected."""
    rejected_known: float
    """Share of the known images that are rejected."""
    f_measure: float
    """See ``f_measure``."""
    f_measure_unrejected: float
    """The same with no image rejected."""


def familiarity(logits: Tensor, by: Familiarity) -> Tensor:
    """Logits [N, K] -> how much each image looks like one of a known class [N], as double.

    ``probability``: the largest (Hendrycks and Gimpel, ICLR 2017, arXiv:1610.02136; Liu et al., CVPR 2019, arXiv:1904.05160).
    ``energy``: log sum_k exp z_k, the negative free energy (Liu et al., NeurIPS 2020, arXiv:2010.03759).

    >>> familiarity(torch.tensor([[0.0, 0.0], [8.0, 8.0]]), "probability").tolist()
    [0.5, 0.5]
    >>> familiarity(torch.tensor([[0.0, 0.0], [8.0, 8.0]]), "energy")
    tensor([0.6931, 8.6931], dtype=torch.float64)
    """
    logits = logits.double()
    return logits.softmax(1).amax(1) if by == "probability" else logits.logsumexp(1)


def threshold(familiar: Tensor) -> float:
    """Familiarity [N] of validation images -> the largest threshold that rejects at most 5 % of them. N is at least 1.

    That is the literature's point of comparison (Liang et al., ICLR 2018, arXiv:1706.02690; Liu et al. 2020). Liu et al. 2019
    reject below a probability of 0.1, which ten classes or fewer can never have.

    >>> threshold(torch.arange(40.0))
    2.0
    """
    return float(familiar.sort().values[len(familiar) * REJECTED_PERCENT // 100])


def auroc(known: Tensor, unknown: Tensor) -> float:
    """Familiarity of known [N] and unknown [M] images -> area under the ROC curve, 0..1; N and M are at least 1.

    The share of the N M pairs in which the known image is more familiar, ties as halves (Mann and Whitney 1947).

    >>> auroc(torch.tensor([3.0, 2.0]), torch.tensor([2.0, 1.0]))
    0.875
    """
    n, m = len(known), len(unknown)
    ranks = rankdata(torch.cat([known, unknown]).numpy())[:n]
    return float((ranks.sum() - n * (n + 1) / 2) / (n * m))


def f_measure(predicted: Tensor, labels: Tensor) -> float:
    """Predicted classes [N] (-1: rejected) and true ones [N] (-1: unknown) -> the open-set F-measure, 0..1; NaN for no image.

    2 P R / (P + R) with P = TP / (TP + FP) and R = TP / (TP + FN). TP: known images given their class; FP: the other known
    images, rejected ones too; FN: unknown images given a class. So it is 2 TP / (TP + known images + FN).
    Liu et al., CVPR 2019, arXiv:1904.05160, after Bendale and Boult, CVPR 2016, arXiv:1511.06233. Until 29 January 2020, and so
    for the paper's figures, the authors' code left rejected known images out of FP, by which rejecting nearly all looked best.

    >>> f_measure(torch.tensor([0, 1, -1, 0, -1]), torch.tensor([0, 0, 1, -1, -1]))
    0.4
    """
    known = labels != UNKNOWN
    true, accepted = int((predicted == labels)[known].sum()), int((predicted != UNKNOWN)[~known].sum())
    total = true + int(known.sum()) + accepted
    return 2 * true / total if total else math.nan


def score_open(logits: Tensor, labels: Tensor, validation: Tensor, by: Familiarity) -> OpenScores:
    """Logits [N, K], labels [N] in -1..K-1 and the logits [V, K] of validation images, which choose the threshold -> scores.

    Known, unknown and validation images are at least one each. Raises TrickbagError as ``scores.score`` does.
    """
    familiar, known, chosen_on = familiarity(finite(logits), by), labels != UNKNOWN, familiarity(validation, by)
    limit = threshold(chosen_on)
    predicted, rejected = logits.argmax(1), familiar < limit
    return OpenScores(
        **vars(score(logits[known], labels[known])),
        n_unknown=int((~known).sum()),
        by=by,
        threshold=limit,
        kept_val=float((chosen_on >= limit).double().mean()),
        auroc=auroc(familiar[known], familiar[~known]),
        rejected_unknown=float(rejected[~known].double().mean()),
        rejected_known=float(rejected[known].double().mean()),
        f_measure=f_measure(predicted.where(~rejected, UNKNOWN), labels),
        f_measure_unrejected=f_measure(predicted, labels),
    )
