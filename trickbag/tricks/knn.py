"""Nearest neighbours: the training images most like a judged one vote for its class.

Formula: p_c = (sum of w_i over the neighbours of class c + s / K) / (sum of w_i + s), w_i = exp((cos_i - 1) / 0.07) over the k
  training images with the largest cosine of features, s the mean of w_i: one vote is spread over all K classes, so that none
  has probability 0. The logits are log p. k=1 is the 1-NN classifier.
Paper: Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", CVPR 2018,
  arXiv:1805.01978, section 3.4.
Helps: pretrained features without any training; classes of a handful of images.
Hurts: networks whose trained classifier is good already.
Costs: the features of all training images in memory, 4 bytes a value, and one product with them per judged image.
"""

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Generator, Tensor
from torch.nn.functional import normalize, one_hot

from trickbag.trick import Fit, Outputs, Predict, Stage, Trick


def vote(features: Tensor, bank: Tensor, labels: Tensor, classes: int, k: int) -> Tensor:
    """Features [B, D] -> log-probabilities [B, classes], from a bank [N, D] of rows of length 1 and its labels [N].

    >>> bank = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> vote(torch.tensor([[3.0, 1.0]]), bank, torch.tensor([0, 1]), classes=2, k=1).exp()
    tensor([[0.7500, 0.2500]])
    """
    cosine, nearest = (normalize(features.float(), dim=1) @ bank.T).topk(min(k, len(bank)), dim=1)
    weights = ((cosine - 1) / 0.07).exp()
    votes = (weights[:, :, None] * one_hot(labels[nearest], classes)).sum(1)
    spread = weights.mean(1, keepdim=True)
    return ((votes + spread / classes) / (weights.sum(1, keepdim=True) + spread)).log()


class Knn(Trick):
    """Let the nearest training images vote, in place of the classifier."""

    stage = Stage.EVAL
    slot = "neighbours"
    reads_features = True
    neutral = {"k": None}
    k: Annotated[int, Field(ge=1)] | None = 20
    """How many neighbours vote; None: the classifier judges."""

    def setup(self, model: Any, fit: Fit) -> None:
        """Begin with an empty bank, where the network is."""
        place = next(model.parameters()).device
        self.bank_ = torch.empty(0, 0, device=place)
        self.labels_ = torch.empty(0, dtype=torch.int64, device=place)

    def finish(self, model: Any, fit: Fit, rng: Generator) -> Any:
        """Remember the training images."""
        if self.k is not None:
            features, y = fit.features("train")
            self.bank_ = normalize(features.float(), dim=1).to(self.bank_.device)
            self.labels_ = y.argmax(1).to(self.labels_.device)
        return model

    def predict(self, predict: Predict) -> Predict:
        """The votes; the classifier's logits while the bank is empty, during training."""

        def voted(x: Tensor) -> Outputs:
            outputs = predict(x)
            k = self.k
            if k is None or not len(self.bank_):
                return outputs
            return outputs._replace(logits=vote(outputs.features, self.bank_, self.labels_, outputs.logits.shape[1], k))

        return voted
