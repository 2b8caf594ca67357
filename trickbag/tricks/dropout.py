"""Dropout: in training, the classifier sees the features with some of them left out at random.

Formula: z = W (m * x) / (1 - rate) + b, each entry of m 0 with probability rate and otherwise 1, drawn for every image and
  step; z = W x + b when judging. torch's dropout; features that other tricks read are whole.
Paper: Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting", JMLR 2014.
Helps: small data and wide features, against overfitting.
Hurts: training that does not overfit; its loss is higher than the judged one, so that the two cannot be compared.
Costs: nothing.
"""

from typing import Annotated, Any

from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import dropout

from trickbag.trick import Stage, Trick


def drop_inputs(layer: nn.Module, rate: float) -> None:
    """Have a layer in training mode see its input with a share of ``rate`` in [0, 1) left out; it stays the layer it is.

    >>> import torch
    >>> layer = nn.Linear(1000, 1, bias=False)
    >>> _ = nn.init.ones_(layer.weight)
    >>> drop_inputs(layer, 0.5)
    >>> layer.eval()(torch.ones(1, 1000)).item(), layer.train()(torch.ones(1, 1000)).item() % 2
    (1000.0, 0.0)
    """

    def drop(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return dropout(args[0], rate, module.training), *args[1:]

    layer.register_forward_pre_hook(drop)


class Dropout(Trick):
    """Leave out features before the classifier."""

    stage = Stage.WEIGHT  # after what puts in another classifier
    neutral = {"rate": 0.0}
    alters = "training"
    rate: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share of the features that is left out."""

    def model(self, model: Any) -> Any:
        """Have the classifier drop its inputs. UsageError where the network has no single classifier of features."""
        if self.rate:
            drop_inputs(model.classifier, self.rate)
        return model
