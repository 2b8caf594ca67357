"""Features of length 1: only their direction counts.

Formula: x / ||x||, applied after pca_features and center_features. The classifier acts on the bare features.
Paper: Wang et al., "SimpleShot: Revisiting Nearest-Neighbor Classification for Few-Shot Learning", 2019, arXiv:1911.04623,
  section 3.
Helps: ncm, in whose means every training image then counts alike. knn does the same by itself.
Hurts: nothing where no trick reads features: the classifier's answers stay.
Costs: nothing.
"""

from torch import Tensor
from torch.nn.functional import normalize

from trickbag.trick import Outputs, Predict, Stage, Trick


def directions(features: Tensor) -> Tensor:
    """Features [B, D] -> the same, scaled to length 1; zeros stay.

    >>> import torch
    >>> directions(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    return normalize(features, dim=1)


class L2Features(Trick):
    """Hand features of length 1 to the tricks that read them; the logits stay."""

    stage = Stage.EVAL
    neutral = {}
    alters = "features"

    def predict(self, predict: Predict) -> Predict:
        """Scale the features."""

        def scaled(x: Tensor) -> Outputs:
            outputs = predict(x)
            return outputs._replace(features=directions(outputs.features))

        return scaled
