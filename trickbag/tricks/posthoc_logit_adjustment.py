"""Post-hoc logit adjustment: after training, the head start that frequent classes have is taken from the scores.

Formula: z - tau log pi, pi_k = n_k / sum n the share of class k in the training images; a class without images counts as one
  with a single image. At tau = 1 probabilities are those of a world in which all classes are equally frequent. It acts after
  calibrate, since it is the calibrated probability that is divided by the share.
Paper: Menon et al., "Long-tail learning via logit adjustment", ICLR 2021, arXiv:2007.07314, eq. 9.
Helps: macro recall and rare classes on imbalanced data, without any training: also a network that is trained already.
Hurts: top-1 over all images where frequent classes are as frequent when judged; together with logit_adjustment,
  balanced_softmax, class_weights or a sampler, which balance twice. Classes of one size stay as they are.
Costs: nothing.
"""

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Generator, Tensor

from trickbag.trick import Fit, Outputs, Predict, Stage, Trick


def adjusted(logits: Tensor, counts: Tensor, tau: float) -> Tensor:
    """Logits [B, K] and training images per class [K] -> logits [B, K] without the classes' head start.

    >>> adjusted(torch.zeros(1, 3), torch.tensor([1, 1, 2]), 1.0).softmax(1)
    tensor([[0.4000, 0.4000, 0.2000]])
    """
    n = counts.clamp_min(1).double()
    return logits - (tau * (n / n.sum()).log()).to(logits.dtype)


class PosthocLogitAdjustment(Trick):
    """Take ``tau`` times the logarithm of its class's share from each score."""

    stage = Stage.SCORE
    neutral = {"tau": 0.0}
    alters = "classifier"
    tau: Annotated[float, Field(ge=0, le=10)] = 1.0
    """0: the scores as they are; above 1 rare classes are favoured beyond balance."""

    def setup(self, model: Any, fit: Fit) -> None:
        """Begin with classes that are equally frequent, where the network is."""
        self.counts_ = torch.ones(len(fit.facts.classes), device=next(model.parameters()).device)

    def finish(self, model: Any, fit: Fit, rng: Generator) -> Any:
        """Count the training images."""
        self.counts_ = fit.facts.counts.to(self.counts_.device)
        return model

    def predict(self, predict: Predict) -> Predict:
        """The adjusted logits."""

        def fair(x: Tensor) -> Outputs:
            outputs = predict(x)
            return outputs._replace(logits=adjusted(outputs.logits, self.counts_, self.tau))

        return fair
