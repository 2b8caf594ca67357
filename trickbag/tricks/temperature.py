"""Temperature: train and judge on softened or sharpened logits.

Formula: CE(z / value, y); judged logits are divided too, so that a probability is what was trained. The gradient in z is
  1 / value times that of softer (value above 1) or sharper answers, so the best learning rate moves with the value.
Paper: Agarwala et al., "Temperature check: theory and practice for training models with softmax-cross-entropy losses", 2020,
  arXiv:2010.07344; there beta = 1 / value.
Helps: top-1 with a value that was searched for, 0.1 to 100 in the paper; which one depends on the network.
Hurts: values far from 1 with an unchanged learning rate; large ones make training unsteady in the paper.
Costs: nothing.
"""

from typing import Annotated

from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy

from trickbag.trick import Outputs, Predict, Stage, Trick


def tempered(logits: Tensor, y: Tensor, value: float) -> Tensor:
    """Logits and targets [B, K] -> the cross-entropy [B] at a temperature above 0.

    >>> import torch
    >>> tempered(torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 0.0]]), 2.0)
    tensor([0.3133])
    """
    return cross_entropy(logits / value, y, reduction="none")


class Temperature(Trick):
    """Divide the logits by ``value``, in training and when images are judged."""

    stage = Stage.LABEL
    alters = "classifier"
    neutral = {"value": 1.0}
    example = "temperature(value=2.0)"
    value: Annotated[float, Field(ge=0.01, le=100)]
    """Above 1 the answers are softened, below 1 sharpened."""

    def loss(self, outputs: Outputs, y: Tensor) -> Tensor:
        """The cross-entropy [B] of the divided logits."""
        return tempered(outputs.logits, y, self.value)

    def predict(self, predict: Predict) -> Predict:
        """Divide the logits."""

        def divided(x: Tensor) -> Outputs:
            outputs = predict(x)
            return outputs._replace(logits=outputs.logits / self.value)

        return divided
