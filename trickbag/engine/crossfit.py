"""Cross-fitting: what classifiers on features say of images that they were not fitted to."""

import numpy as np
import torch
from torch import Tensor, nn

from trickbag.data.folds import partitioned
from trickbag.data.images import Images
from trickbag.ground.errors import UsageError
from trickbag.ground.events import Doing, Tell
from trickbag.statistics.variance import Floats
from trickbag.tricks.fit_head import FitHead, regression

FOLDS = 5


def out_of_fold(features: Floats, images: Images, tell: Tell) -> Floats:
    """Probabilities [N, K] by logistic regressions, each fitted to images of other groups than those that it judges.

    There are five folds, stratified by class. The penalty is that with the smallest NLL on the first fold. An image of whose
    class there are none in other folds has probability 1 of it: nothing speaks against its label.
    Raises UsageError where no class has as many images as there are folds, or all have fewer groups.
    """
    labels, classes = images.labels, len(images.classes)
    if images.counts().max(initial=0) < FOLDS or len(np.unique(images.groups)) < FOLDS:
        raise UsageError(
            f"No class has {FOLDS} images, or all are of few groups: too few to tell which labels are wrong. Add images."
        )
    x, y = torch.from_numpy(features).float(), nn.functional.one_hot(torch.from_numpy(labels), classes).float()
    x = (x - x.mean(0)) / x.var(0, correction=0).mean().sqrt().clamp_min(torch.finfo(x.dtype).tiny)
    p, l2 = np.zeros((len(labels), classes)), 0.0
    for number, judged in enumerate(partitioned(images, np.arange(len(images)), FOLDS, 0), 1):
        learned = np.setdiff1d(np.arange(len(images)), judged)
        l2 = l2 or penalty((x[learned], y[learned]), (x[judged], y[judged]))
        found = regression(x[learned], y[learned], l2, x.new_zeros(x.shape[1] + 1, classes))
        p[judged] = (x[judged] @ found[:-1] + found[-1]).double().softmax(1).numpy()
        alone = judged[~np.isin(labels[judged], labels[learned])]
        p[alone] = np.eye(classes)[labels[alone]]
        tell(Doing("judging labels", number, FOLDS))
    return p


def penalty(learned: tuple[Tensor, Tensor], judged: tuple[Tensor, Tensor]) -> float:
    """Which of the penalties of ``fit_head`` suits others best than those that are learned from, the strongest tried first."""
    best, lowest, found = 0.0, float("inf"), learned[0].new_zeros(learned[0].shape[1] + 1, learned[1].shape[1])
    for l2 in sorted(FitHead().l2, reverse=True):
        found = regression(*learned, l2, found)
        nll = float(nn.functional.cross_entropy(judged[0] @ found[:-1] + found[-1], judged[1]))
        if nll >= lowest:
            break
        best, lowest = l2, nll
    return best
