"""Centred features: the training images' mean feature is taken from every feature.

Formula: x - m, m the mean of the features of the training images, as judged. The classifier acts on the bare features.
Paper: Wang et al., "SimpleShot: Revisiting Nearest-Neighbor Classification for Few-Shot Learning", 2019, arXiv:1911.04623,
  section 3.
Helps: knn and ncm, which compare by the cosine: features after a ReLU all point into one corner.
Hurts: nothing where no trick reads features: the classifier's answers stay. pca_features centres by itself.
Costs: one pass over the training images.
"""

from typing import Any

import torch
from torch import Generator, Tensor

from trickbag.trick import Fit, Outputs, Predict, Stage, Trick


def centred(features: Tensor, mean: Tensor) -> Tensor:
    """Features [B, D] and their mean [D], or a scalar -> features [B, D] around 0.

    >>> centred(torch.tensor([[1.0, 5.0], [3.0, 5.0]]), torch.tensor([2.0, 5.0]))
    tensor([[-1.,  0.],
            [ 1.,  0.]])
    """
    return features - mean


class CenterFeatures(Trick):
    """Hand centred features to the tricks that read them; the logits stay."""

    stage = Stage.FEATURE
    neutral = {}
    alters = "features"

    def setup(self, model: Any, fit: Fit) -> None:
        """Begin with the features as they are."""
        self.mean_ = torch.zeros((), device=next(model.parameters()).device)

    def finish(self, model: Any, fit: Fit, rng: Generator) -> Any:
        """Remember the mean."""
        self.mean_ = fit.features("train")[0].float().mean(0).to(self.mean_.device)
        return model

    def predict(self, predict: Predict) -> Predict:
        """Take the mean away."""

        def around_mean(x: Tensor) -> Outputs:
            outputs = predict(x)
            return outputs._replace(features=centred(outputs.features, self.mean_))

        return around_mean
