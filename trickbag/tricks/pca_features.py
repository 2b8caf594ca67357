"""PCA: features are reduced to the directions in which the training images differ most.

Formula: V^T (x - m), m the mean of the features of the training images, as judged, V the first ``dims`` eigenvectors of their
  covariance; with whiten each entry is divided by its standard deviation. Signs are those of ``sklearn.decomposition.PCA``:
  the largest entry of an eigenvector is positive. Directions without variance are left at 0. The classifier acts on the bare
  features.
Paper: Jégou and Chum, "Negative evidences and co-occurrences in image retrieval: the benefit of PCA and whitening", ECCV 2012,
  section 3.
Helps: knn and ncm: fewer numbers to hold and compare; whitening where a few directions drown the rest.
Hurts: whitening many dims with few images, which turns noise up. Nothing where no trick reads features.
Costs: one pass over the training images, and D^3 multiplications for D features.
"""

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Generator, Tensor

from trickbag.ground.errors import UsageError
from trickbag.trick import Fit, Outputs, Predict, Stage, Trick

NOISE = 1e-10
"""A variance below this share of the largest is rounding."""


def principal(x: Tensor, dims: int, whiten: bool) -> tuple[Tensor, Tensor]:
    """Features [N, D] -> their mean [D] and the map [D, dims] of what differs from it; ``dims`` at most N and D.

    >>> mean, onto = principal(torch.tensor([[1.0, 0.0], [3.0, 0.0], [5.0, 0.0]]), 1, whiten=True)
    >>> (torch.tensor([[5.0, 7.0]]) - mean) @ onto
    tensor([[1.]])
    """
    wide = x.double()
    mean = wide.mean(0)
    variances, vectors = torch.linalg.eigh((wide - mean).T @ (wide - mean) / max(len(x) - 1, 1))
    variances, vectors = variances.flip(0)[:dims], vectors.flip(1)[:, :dims]
    onto = vectors * vectors.gather(0, vectors.abs().argmax(0, keepdim=True)).sign()
    if whiten:
        onto = onto * variances.rsqrt().where(variances > NOISE * variances[0], 0.0)
    return mean.to(x.dtype), onto.to(x.dtype)


class PcaFeatures(Trick):
    """Hand the principal components of the features to the tricks that read them; the logits stay."""

    # Before knn and ncm read features; a classifier that is retrained has no use for them.
    stage = Stage.FEATURE
    neutral = {}
    alters = "features"
    example = "pca_features(dims=8)"
    dims: Annotated[int, Field(ge=1)] = 64
    """How many components are kept, at most as many as there are features and training images."""
    whiten: bool = False
    """Whether all components are scaled to a variance of 1."""

    def setup(self, model: Any, fit: Fit) -> None:
        """Begin with the features as they are. Raises UsageError where there are too few, or too few training images."""
        place = next(model.parameters()).device
        self.mean_, self.onto_ = torch.empty(0, device=place), torch.empty(0, 0, device=place)
        with torch.no_grad():
            black = torch.zeros(1, fit.facts.channels, fit.facts.size, fit.facts.size, device=place)
            width = model.eval()(black).features.shape[1]
        images = int(fit.facts.counts.sum()) or self.dims  # a trained run that is loaded again counts none
        if self.dims > min(width, images):
            raise UsageError(
                f"pca_features keeps {self.dims} components of {width} features and {images} training images. "
                f"Write pca_features(dims={min(width, images)}) or fewer."
            )

    def finish(self, model: Any, fit: Fit, rng: Generator) -> Any:
        """Find the components."""
        mean, onto = principal(fit.features("train")[0].float(), self.dims, self.whiten)
        self.mean_, self.onto_ = mean.to(self.mean_.device), onto.to(self.onto_.device)
        return model

    def predict(self, predict: Predict) -> Predict:
        """The components; the bare features while there are none, during training."""

        def reduced(x: Tensor) -> Outputs:
            outputs = predict(x)
            return outputs._replace(features=(outputs.features - self.mean_) @ self.onto_) if len(self.onto_) else outputs

        return reduced
