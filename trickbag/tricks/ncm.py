"""NCM, nearest class mean: an image is of the class whose training images it points to on average.

Formula: z_k = cos(x, m_k) / 0.07, m_k the mean of the features of the training images of class k, as judged. By the cosine, not
  the Euclidean distance, of the paper's two: no class is ahead by its length. To means of length 1 both choose the same class.
  The temperature is that of knn. A class without images has a cosine of -1.
Paper: Kang et al., "Decoupling Representation and Classifier for Long-Tailed Recognition", ICLR 2020,
  arXiv:1910.09217, section 4; Mensink et al., TPAMI 2013.
Helps: macro recall on imbalanced data; pretrained features without any training, classes of a handful of images.
Hurts: classes of several kinds, whose mean is like none of them; networks whose trained classifier is good already.
Costs: one pass over the training images.
"""

from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn.functional import normalize

from trickbag.trick import Fit, Outputs, Predict, Stage, Trick


def directions(x: Tensor, y: Tensor) -> Tensor:
    """Features [N, D] and targets [N, K] -> the means of the classes, scaled to length 1 [K, D]; zeros for one without images.

    >>> directions(torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0]]), torch.eye(3)[[0, 0, 1]])
    tensor([[1., 0.],
            [0., 1.],
            [0., 0.]])
    """
    return normalize(y.T @ x, dim=1)


def nearness(features: Tensor, means: Tensor) -> Tensor:
    """Features [B, D] -> logits [B, K], from means [K, D] of length 1, or 0 for classes without images.

    >>> nearness(torch.tensor([[0.0, 7.0]]), torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 0.0]])) * 0.07
    tensor([[ 1.,  0., -1.]])
    """
    cosine = normalize(features.float(), dim=1) @ means.T
    return torch.where(means.any(1), cosine, -1.0) / 0.07


class Ncm(Trick):
    """Let the means of the classes judge, in place of the classifier."""

    stage = Stage.EVAL
    slot = "neighbours"
    reads_features = True

    def setup(self, model: Any, fit: Fit) -> None:
        """Begin without means, where the network is."""
        self.means_ = torch.empty(0, 0, device=next(model.parameters()).device)

    def finish(self, model: Any, fit: Fit, rng: Generator) -> Any:
        """Remember the means of the training images."""
        x, y = fit.features("train")
        self.means_ = directions(x.float(), y).to(self.means_.device)
        return model

    def predict(self, predict: Predict) -> Predict:
        """The nearest means; the classifier's logits while there are none, during training."""

        def nearest(x: Tensor) -> Outputs:
            outputs = predict(x)
            return outputs._replace(logits=nearness(outputs.features, self.means_)) if len(self.means_) else outputs

        return nearest
