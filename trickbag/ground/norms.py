"""Norms that keep running statistics: left as they are while their layer is frozen, and estimated anew for other weights."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from trickbag.ground.errors import UsageError


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """The batch norms of a network, in order."""
    return [m for m in model.modules() if isinstance(m, _BatchNorm)]


def moved(norm: _BatchNorm) -> bool:
    """Whether training has moved a norm's statistics."""
    return int(norm.num_batches_tracked or 0) > 0


@contextmanager
def comparing() -> Iterator[None]:
    """Raise UsageError where a norm inside sees one value per channel, which has no variance."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):  # torch has no type of its own for it
            raise
        raise UsageError(
            "a norm of the network sees one value per channel, which has no variance: one image at a time is too little where "
            "maps are so small. Set batch_size (and micro_batch) to 2 or more, or a larger size."
        ) from None


@torch.no_grad()
def estimate_norms(model: nn.Module, norms: Sequence[_BatchNorm], batches: Iterable[Tensor]) -> None:
    """Replace the running statistics of some norms of a network by their means over batches [B, C, H, W], weighed by images.

    All else stays in evaluation mode; no batch is asked for where there is no norm. Izmailov et al., "Averaging Weights Leads
    to Wider Optima", UAI 2018, arXiv:1803.05407, section 3.2.
    """
    model.eval()
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.train()
    seen = 0
    for x in batches if norms else ():
        seen += len(x)
        for norm in norms:
            norm.momentum = len(x) / seen
        with comparing():
            model(x)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()


@contextmanager
def frozen(model: nn.Module, names: Collection[str]) -> Iterator[None]:
    """Inside, the named parameters want no gradient, and norms of which no parameter wants one are in evaluation mode.

    >>> model = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(2))
    >>> with frozen(model, ["0.weight", "0.bias"]):
    ...     print([norm.training for norm in model], [p.requires_grad for p in model.parameters()])
    [False, True] [False, False, True, True]
    >>> model[0].training, model[0].weight.requires_grad
    (True, True)
    """
    parameters = [p for name, p in model.named_parameters() if p.requires_grad and name in names]
    for parameter in parameters:
        parameter.requires_grad_(False)
    norms = [
        m
        for m in model.modules()
        if m.training and hasattr(m, "running_mean") and not any(p.requires_grad for p in m.parameters())
    ]
    for norm in norms:
        norm.training = False
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
        for norm in norms:
            norm.training = True
