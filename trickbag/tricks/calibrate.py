"""Calibration: one temperature for all logits, so that a probability means what it says.

Formula: z / T, where T minimises the negative log-likelihood on validation; never worse there than T = 1. T lies in [1/32, 32].
Paper: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, arXiv:1706.04599, section 4.2.
Helps: thresholds, decisions by expected cost, ensembles; ECE and NLL.
Hurts: with fewer than 200 validation images, where hardly one of them is wrong: probabilities become far too sure.
Costs: one more pass over the validation images after training.
"""

import math
from typing import Any

from scipy.optimize import minimize_scalar
from torch import Generator, Tensor
from torch.nn.functional import cross_entropy

from trickbag.ground.text import counted
from trickbag.trick import Fit, Outputs, Predict, Stage, Trick

FEWEST = 200
"""Validation images below which a temperature that is fitted to them may be a third off: benchmarks/results/temperature.md."""


def best_temperature(logits: Tensor, y: Tensor) -> float:
    """The temperature that minimises the NLL of logits [N, K] and targets [N, K]; 1.0 where none is better than 1.

    >>> import torch
    >>> logits = torch.tensor([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0], [2.0, 0.0]])
    >>> y = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> round(best_temperature(logits, y), 4) == round(2 / math.log(3), 4)
    True
    """
    z, targets = logits.double(), y.double()

    def nll(log_temperature: float) -> float:
        return float(cross_entropy(z / math.exp(log_temperature), targets))

    bound = math.log(32)
    found = minimize_scalar(nll, bounds=(-bound, bound), method="bounded", options={"xatol": 1e-8}).x
    return math.exp(found) if nll(found) < nll(0.0) else 1.0


class Calibrate(Trick):
    """Divide the logits by the temperature that fits validation best."""

    stage = Stage.SCORE

    def setup(self, model: Any, fit: Fit) -> None:
        """Begin with unchanged logits."""
        self.temperature_ = 1.0

    def doubt(self, images: int) -> str:
        """Too few images to tell how sure probabilities may be."""
        if images >= FEWEST:
            return ""
        return (
            f"{self} is fitted to {counted(images, 'validation image')}: with fewer than {FEWEST}, probabilities may become "
            f"far too sure, most of all where hardly one of them is wrong. Give more, or leave it out: --without {self.name()}"
        )

    def finish(self, model: Any, fit: Fit, rng: Generator) -> Any:
        """Find the temperature on validation."""
        self.temperature_ = best_temperature(*fit.logits("val"))
        return model

    def predict(self, predict: Predict) -> Predict:
        """Divide the logits."""

        def divided(x: Tensor) -> Outputs:
            outputs = predict(x)
            return outputs._replace(logits=outputs.logits / self.temperature_)

        return divided
