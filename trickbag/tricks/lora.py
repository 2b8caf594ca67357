"""LoRA, low-rank adaptation: the layers stay as they are, and each learns a change of low rank beside them.

Formula: W + (alpha / rank) * U V of every linear layer and ungrouped convolution below the classifier, U [out, rank] starting
  at 0, V [rank, in] drawn uniformly; a convolution's kernel counts to its inputs. W, biases and norms are frozen, statistics
  included; a layer with no more weights than U and V have stays as it is. Classifier and pooling learn as ever. After training,
  W becomes the sum: the network is a plain one.
Paper: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022, arXiv:2106.09685, section 4.1.
Helps: few images and large pretrained networks, transformers above all; learning rates are larger than for whole networks.
Hurts: training from scratch, whose frozen layers are random, and data far from what the weights were trained on.
Costs: memory falls, as optimiser states are those of a few per cent of the weights; a step takes about as long.
"""

import math
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Generator, Tensor, nn
from torch.nn.utils import parametrize

from trickbag.ground.errors import UsageError
from trickbag.ground.norms import frozen
from trickbag.trick import Compute, Fit, Groups, Stage, Trick, regroup


class LowRank(nn.Module):
    """A weight [out, in, …] -> the same plus ``scale`` times a product of factors, which is 0 at the start.

    >>> change = LowRank(torch.zeros(2, 3), rank=1, scale=0.5)
    >>> change.up.data, change.down.data = torch.tensor([[2.0], [2.0]]), torch.tensor([[0.0, 1.0, 2.0]])
    >>> change(torch.zeros(2, 3)).tolist()
    [[0.0, 1.0, 2.0], [0.0, 1.0, 2.0]]
    """

    def __init__(self, weight: Tensor, rank: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.up = nn.Parameter(weight.new_zeros(len(weight), rank))
        self.down = nn.Parameter(nn.init.kaiming_uniform_(weight.new_empty(rank, weight[0].numel()), a=math.sqrt(5)))

    def forward(self, weight: Tensor) -> Tensor:
        """The changed weight."""
        return weight + self.scale * (self.up @ self.down).view(weight.shape)


def adaptable(model: Any, rank: int) -> list[nn.Module]:
    """The layers of a network below its classifier whose weights are more than those of two factors of this rank."""
    layers = [
        layer
        for name, layer in model.named_modules()
        if (isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1))
        and f"{name}.weight" not in model.head_names
    ]
    return [layer for layer in layers if layer.weight.numel() > rank * (len(layer.weight) + layer.weight[0].numel())]


def learning(model: Any) -> frozenset[str]:
    """Names of the parameters that learn: factors, classifier and pooling, and what stands beside the network."""
    parts = (".global_pool.", ".parametrizations.weight.0.")
    heads: frozenset[str] = model.head_names
    return heads | {
        name for name, _ in model.named_parameters() if name.startswith("companions.") or any(part in name for part in parts)
    }


class Lora(Trick):
    """Learn changes of low rank and the classifier alone."""

    stage, slot = Stage.GRADIENT, "tuned"  # after all surgery, whose layers it changes
    alters, undone = "training", True
    rank: Annotated[int, Field(ge=1, le=1024)] = 8
    """Rank of each change; the larger, the more weights learn."""
    alpha: Annotated[float, Field(gt=0, le=1000)] = 16.0
    """Changes are multiplied by alpha / rank."""

    def model(self, model: Any) -> Any:
        """Put the factors in. Raises UsageError where no layer is large enough."""
        layers = adaptable(model, self.rank)
        if not layers:
            raise UsageError(f"{self}: no layer below the classifier has more weights than two factors. Lower rank.")
        for layer in layers:
            change = LowRank(layer.get_parameter("weight"), self.rank, self.alpha / self.rank)
            parametrize.register_parametrization(layer, "weight", change)
        return model

    def groups(self, groups: Groups, model: Any) -> Groups:
        """Spare the optimiser what is frozen."""
        chosen = learning(model)
        wanted = regroup(groups, lambda name, _: {"learns": name in chosen})
        return [{k: v for k, v in group.items() if k != "learns"} for group in wanted if group["learns"]]

    def gradient(self, compute: Compute, model: Any, t: float) -> Compute:
        """Compute that of what learns; norms keep their statistics."""

        def factors_alone() -> Tensor:
            with frozen(model, {name for name, _ in model.named_parameters()} - learning(model)):
                return compute()

        return factors_alone

    @torch.no_grad()
    def finish(self, model: Any, fit: Fit, rng: Generator) -> Any:
        """Add the changes to the weights."""
        for layer in [module for module in model.modules() if parametrize.is_parametrized(module)]:
            weight = layer.weight
            # torch's own removal breaks all copies of the network, which share a class.
            layer.__class__ = parametrize.type_before_parametrizations(layer)
            del layer.parametrizations
            layer.weight = nn.Parameter(weight)
        return model
