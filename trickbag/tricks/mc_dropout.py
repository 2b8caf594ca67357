"""Monte Carlo dropout: dropout stays on when images are judged, and the answers of several passes are averaged.

Formula: p = the mean of p over passes, each with a mask m of its own, m * x / (1 - rate), at every dropout layer; the logits
  are log p. The masks of a pass are the same for all images and runs: each pass is one thinned network, as a draw of weights
  is in the paper, so that an image has the same answer in whichever batch it comes.
Paper: Gal and Ghahramani, "Dropout as a Bayesian Approximation: Representing Model Uncertainty in Deep Learning", ICML 2016,
  arXiv:1506.02142, sections 3 and 4.
Helps: calibrated probabilities and NLL of networks that were trained with dropout; images unlike those trained on, of which
  such networks are too sure.
Hurts: top-1 with few passes. Networks without dropout are refused: in timm nearly all; add the trick dropout.
Costs: passes times the time per judged image.
"""

import math
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from trickbag.ground.errors import UsageError
from trickbag.ground.streams import key
from trickbag.trick import Fit, Outputs, Predict, Stage, Trick


def thinned(x: Tensor, rate: float, number: int, layer: int) -> Tensor:
    """The input [B, ...] of a dropout layer with a share of ``rate`` in [0, 1) left out, the same of every image; the mask is
    that of the ``number``-th pass and the ``layer``-th layer.

    >>> a, b = thinned(torch.ones(2, 1000), 0.5, 0, 0)
    >>> torch.equal(a, b), a.unique(), 400 < a.count_nonzero() < 600
    (True, tensor([0., 2.]), tensor(True))
    """
    draws = np.random.default_rng(key(0, "mc_dropout", number, layer)).random(tuple(x.shape[1:]), dtype=np.float32)
    kept = x.new_empty(x.shape[1:]).copy_(torch.from_numpy(draws >= rate))
    return x * kept / (1 - rate)


class _Dropping(TorchFunctionMode):
    """Inside, dropout layers thin their inputs as in one pass, in training or not; without a pass they leave them whole."""

    def __init__(self, number: int | None = None) -> None:
        super().__init__()
        self.number, self.layers = number, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not F.dropout:
            return func(*args, **(kwargs or {}))
        x, rate = args[0], (kwargs or {}).get("p", args[1] if len(args) > 1 else 0.5)
        if rate:
            self.layers += 1
        return thinned(x, rate, self.number, self.layers) if rate and self.number is not None else x


def _mean(outputs: list[Outputs]) -> Outputs:
    logits = torch.stack([one.logits.log_softmax(1) for one in outputs]).logsumexp(0) - math.log(len(outputs))
    maps, features = (torch.stack([getattr(one, name) for one in outputs]).mean(0) for name in ("maps", "features"))
    return Outputs(maps, features, logits)


class McDropout(Trick):
    """Judge with dropout, several times."""

    stage = Stage.WEIGHT  # inside all that cuts views: each is judged by every thinned network
    needs = "dropout"
    passes: Annotated[int, Field(ge=2, le=1000)] = 16
    """How many thinned networks answer."""

    def setup(self, model: Any, fit: Fit) -> None:
        """Raise UsageError where the network has no dropout."""
        held = _Dropping()
        black = torch.zeros(1, fit.facts.channels, fit.facts.size, fit.facts.size, device=next(model.parameters()).device)
        training = model.training
        with torch.no_grad(), held:
            model.eval()(black)
        model.train(training)
        if not held.layers:
            raise UsageError(
                f"{self} judges with dropout, of which {model.name} has none. Add the trick dropout, with which it is trained, "
                "or leave mc_dropout out."
            )

    def predict(self, predict: Predict) -> Predict:
        """The mean over the passes."""

        def several(x: Tensor) -> Outputs:
            found = []
            for number in range(self.passes):
                with _Dropping(number):
                    found.append(predict(x))
            return _mean(found)

        return several
