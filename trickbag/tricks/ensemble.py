"""Ensemble: an image is judged by this network and by those of other runs together.

Formula: p = the mean of p over this network and the other runs'; the logits are log p. Every network sees the same judged
  views, also those that other tricks cut, normalised as in its own training. Features and maps are this network's.
Paper: Lakshminarayanan et al., "Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles", NIPS 2017,
  arXiv:1612.01474, section 2.4.
Helps: nearly always; networks of other seeds, and more so of other kinds. Calibration too.
Hurts: networks much worse than this one.
Costs: the training of all runs, and the sum of their times per judged image.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Any

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from trickbag.trick import Fit, Outputs, Predict, Stage, Trick


def mean_logits(logits: Sequence[Tensor]) -> Tensor:
    """Logits [B, K] of several networks -> the logarithms of their mean probabilities [B, K].

    >>> mean_logits([torch.tensor([[0.9, 0.1]]).log(), torch.tensor([[0.5, 0.5]]).log()]).exp()
    tensor([[0.7000, 0.3000]])
    """
    return torch.stack([z.log_softmax(1) for z in logits]).logsumexp(0) - math.log(len(logits))


def _others(runs: tuple[str, ...]) -> tuple[str, ...]:
    if "self" in runs:
        raise ValueError("this run is included anyway; name other runs")
    return runs


class Ensemble(Trick):
    """Judge with the networks of other runs."""

    stage = Stage.WEIGHT  # inside all that cuts views: each is judged by every network
    alters = "classifier"
    positional = networks = "runs"
    example = "ensemble('another')"
    runs: Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_others)]
    """Folders of other runs, or recipes that are trained first."""

    def setup(self, model: Any, fit: Fit) -> None:
        """Fetch the networks, which are no state of this run. Raises UsageError where one does not read these images."""
        self._networks = [fit.network(run) for run in self.runs]
        black = torch.zeros(1, fit.facts.channels, fit.facts.size, fit.facts.size, device=next(model.parameters()).device)
        for network in self._networks:
            network(black)

    def predict(self, predict: Predict) -> Predict:
        """The mean over the networks."""

        def together(x: Tensor) -> Outputs:
            outputs = predict(x)
            with torch.no_grad():
                others = [network(x).logits.float() for network in self._networks]
            return outputs._replace(logits=mean_logits([outputs.logits, *others]))

        return together
