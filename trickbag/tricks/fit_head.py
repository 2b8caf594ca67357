"""Fitted head: before the first step, the classifier is the best one for the features as they are.

Formula: W, b minimise the mean CE(W x' + b, y) + l2 / 2 * ||W||^2 over the training images, x' = (x - mean x) / s with one
  scale s, the root of the mean variance of the features; l2 is that with the smallest NLL on validation. In the network W and b
  act on x.
Paper: Kumar et al., "Fine-Tuning can Distort Pretrained Features", ICLR 2022, arXiv:2202.10054, section 3.
Helps: pretrained weights: a linear probe in seconds, and a start for fine-tuning that leaves the features intact.
Hurts: weights that fit the task badly, and networks from scratch.
Costs: one pass over the training and validation images, then seconds.
"""

from collections.abc import Iterable
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from trickbag.ground.errors import UsageError
from trickbag.trick import Fit, Stage, Trick


def regression(x: Tensor, y: Tensor, l2: float, first: Tensor) -> Tensor:
    """Multinomial logistic regression of targets [N, K] on features [N, D] -> [D + 1, K], weights above biases.

    The biases are not penalised; ``first`` [D + 1, K] is where L-BFGS begins.

    >>> regression(torch.tensor([[-1.0], [1.0]]), torch.eye(2), 1.0, torch.zeros(2, 2))[0]
    tensor([-0.3374,  0.3374])
    """
    found = first.clone().requires_grad_()
    solver = torch.optim.LBFGS([found], max_iter=500, tolerance_grad=1e-4, tolerance_change=1e-9, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        value = cross_entropy(x @ found[:-1] + found[-1], y) + l2 / 2 * found[:-1].square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    with torch.enable_grad():
        solver.step(loss)  # type: ignore[no-untyped-call]
    return found.detach()


def best_head(train: tuple[Tensor, Tensor], val: tuple[Tensor, Tensor], grid: Iterable[float]) -> tuple[Tensor, Tensor]:
    """Features [N, D] and targets [N, K] of two splits -> weights [K, D] and biases [K] of a linear layer on the bare features.

    The penalties of ``grid`` are tried from the strongest on, each from the solution before, until the NLL of ``val`` rises.
    """
    (x, y), (x_val, y_val) = train, val
    mean, scale = x.mean(0), x.var(0, correction=0).mean().sqrt().clamp_min(torch.finfo(x.dtype).tiny)
    x, x_val = (x - mean) / scale, (x_val - mean) / scale
    found = best = x.new_zeros(x.shape[1] + 1, y.shape[1])
    lowest = float("inf")
    for l2 in sorted(grid, reverse=True):
        found = regression(x, y, l2, found)
        nll = float(cross_entropy(x_val @ found[:-1] + found[-1], y_val))
        if nll >= lowest:
            break
        best, lowest = found, nll
    weight = best[:-1].T / scale
    return weight, best[-1] - weight @ mean


class FitHead(Trick):
    """Begin with the classifier that logistic regression finds on the frozen features."""

    stage = Stage.WEIGHT
    alters = "classifier"
    l2: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003)
    """Penalties to choose from on validation."""

    def setup(self, model: Any, fit: Fit) -> None:
        """Raise UsageError where the classifier is no linear layer with a bias."""
        head = model.classifier
        if not isinstance(head, nn.Linear) or head.bias is None:
            raise UsageError(
                f"fit_head fits a linear layer with a bias; this network ends with {type(head).__name__}. "
                "Leave it out: --without fit_head."
            )

    def prepare(self, model: Any, fit: Fit) -> Any:
        """Fit the classifier."""
        head = model.classifier
        place = head.weight.device
        train, val = ((x.float().to(place), y.to(place)) for x, y in (fit.features("train"), fit.features("val")))
        weight, bias = best_head(train, val, self.l2)
        with torch.no_grad():
            head.weight.copy_(weight)
            head.bias.copy_(bias)
        return model
