"""tau-normalisation: after training, the classifier's weights are made more equal in length.

Formula: w_k / ||w_k||^tau and no biases, as in the paper: at tau = 0 only the biases go, at 1 all lengths are equal. tau=None
  takes that of 0, 0.1 .. 2 (the grid of the authors' code) with the largest macro recall on validation, the smallest of equals.
Paper: Kang et al., "Decoupling Representation and Classifier for Long-Tailed Recognition", ICLR 2020,
  arXiv:1910.09217, section 4.
Helps: macro recall and rare classes on imbalanced data, whose weights are short, without any training.
Hurts: top-1 over all images where frequent classes are as frequent when judged; NLL, as logits change in size: add calibrate.
Costs: one pass over the validation images; nothing with a tau of your own.
"""

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Generator, Tensor, nn

from trickbag.ground.errors import UsageError
from trickbag.trick import Fit, Stage, Trick

GRID = tuple(step / 10 for step in range(21))


def normalised(weight: Tensor, tau: float) -> Tensor:
    """Weights [K, D] -> the same, each row divided by its length to the power tau, 0 to 2; rows of zeros stay.

    >>> normalised(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), 1.0)
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    length = weight.double().norm(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    return weight.div(length**tau).to(weight.dtype)


def macro_recall(logits: Tensor, y: Tensor) -> float:
    """Logits and targets [N, K] -> the mean recall of the classes that occur, 0 to 1.

    >>> macro_recall(torch.tensor([[1.0, 0, 0], [1.0, 0, 0], [1.0, 0, 0]]), torch.eye(3)[[0, 0, 1]])
    0.5
    """
    labels = y.argmax(1)
    hits, images = labels[logits.argmax(1) == labels].bincount(minlength=y.shape[1]), labels.bincount(minlength=y.shape[1])
    return float((hits[images > 0] / images[images > 0].double()).mean())


class TauNorm(Trick):
    """Divide each class's weights by a power of their length."""

    stage = Stage.WEIGHT
    slot = "retrained"
    alters = "classifier"
    tau: Annotated[float, Field(ge=0, le=2)] | None = None
    """The power, 0 to 2; None: the best on validation."""

    def setup(self, model: Any, fit: Fit) -> None:
        """Raise UsageError where the classifier is no linear layer with a bias, before anything is trained."""
        head = model.classifier
        if not isinstance(head, nn.Linear) or head.bias is None:
            raise UsageError(
                f"tau_norm scales a linear layer with a bias; this network ends with {type(head).__name__}. Remove tau_norm."
            )

    def finish(self, model: Any, fit: Fit, rng: Generator) -> Any:
        """Replace the classifier's weights and drop its biases."""
        head, tau = model.classifier, self.tau
        weight = head.weight.detach()
        if tau is None:
            x, y = (values.float().to(weight.device) for values in fit.features("val"))
            tau = max(GRID, key=lambda tau: macro_recall(x @ normalised(weight, tau).T, y))
        with torch.no_grad():
            head.weight.copy_(normalised(weight, tau))
            head.bias.zero_()
        return model
