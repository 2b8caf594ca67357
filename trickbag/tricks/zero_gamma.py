"""Zero gamma: each residual block starts as the identity.

Formula: gamma = 0 in the norm that ends the residual branch of a block, so that x + branch(x) = x before the first step; in
  blocks of two branches, x + a(x) + b(x + a(x)), in both norms. Which norms these are is found by one image: with gamma = 0
  the block must say what its shortcut says, bit for bit (with the block's last activation), a change of one value of the norm
  must change one value of the block, and the gamma must have a gradient. Blocks that end otherwise stay as they are.
Paper: He et al., CVPR 2019, arXiv:1812.01187, section 3.1; Goyal et al., 2017, arXiv:1706.02677, section 5.1.
Helps: the first steps of deep networks from scratch, at large learning rates.
Hurts: pretrained weights, which it would destroy and which are refused.
Costs: nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import relu

from trickbag.ground.errors import UsageError
from trickbag.trick import Stage, Trick

LAST = 4
"""How many of a block's norms, from the last on, may end its branch: those of a shortcut can stand behind."""
SPIKES = (1.0, 1e4)
"""What one value of a norm is changed to: a layer behind the norm could swallow a small value, and a gate close at a large."""


def norms(block: nn.Module) -> list[nn.Module]:
    """The layers of a block with one scale for each channel, of several: a layer norm of one channel says its bias.

    >>> [type(norm).__name__ for norm in norms(nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)))]
    ['BatchNorm2d']
    """
    weights = ((part, getattr(part, "weight", None)) for part in block.modules())
    return [part for part, weight in weights if isinstance(weight, Tensor) and weight.ndim == 1 < len(weight)]


class Call:
    """One pass through a block: what it says, and what might be its shortcut."""

    def __init__(self, block: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        self.shortcuts = [value.clone() for value in args if isinstance(value, Tensor)]
        args = [value.clone() if isinstance(value, Tensor) else value for value in args]
        called: list[tuple[nn.Module, Any, Any]] = []
        hooks = [
            part.register_forward_hook(lambda module, inputs, out: called.append((module, inputs, out)))
            for part in block.modules()
            if part is not block
        ]
        try:
            self.out: Tensor = block(*args, **kwargs)
        finally:
            for hook in hooks:
                hook.remove()
        self.beside = [
            (module, out)
            for module, inputs, out in called
            if inputs and inputs[0] is args[0] and 2 * layers(module) < layers(block)
        ]
        """Parts that see what the block sees, with fewer layers than what remains."""
        self.last = next((module for module, _, out in called if out is self.out and not layers(module)), nn.Identity())
        """The activation that the block ends with, if it is a part of its own."""

    def identity(self, chosen: Sequence[nn.Module]) -> bool:
        """Whether the block says what a shortcut says, alone or through an activation."""
        parts = [out for module, out in self.beside if isinstance(out, Tensor) and not {*chosen} & {*module.modules()}]
        whole = [shortcut for shortcut in [*self.shortcuts, *parts] if shortcut.shape == self.out.shape]
        wanted = [ends(shortcut.clone()) for shortcut in whole for ends in (nn.Identity(), relu, self.last)]
        return bool(self.out.any()) and any(torch.equal(value, self.out) for value in wanted)


def layers(block: nn.Module) -> int:
    """How many of a block's parts have parameters of their own."""
    return sum(next(part.parameters(recurse=False), None) is not None for part in block.modules())


@contextmanager
def zeroed(chosen: Sequence[nn.Module]) -> Iterator[list[nn.Parameter]]:
    """Inside, the scales of some norms are 0."""
    weights = [norm.get_parameter("weight") for norm in chosen]
    kept = [weight.detach().clone() for weight in weights]
    try:
        for weight in weights:
            nn.init.zeros_(weight)
        yield weights
    finally:
        with torch.no_grad():
            for weight, value in zip(weights, kept, strict=True):
                weight.copy_(value)


def one_place(norm: nn.Module, block: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], out: Tensor) -> bool:
    """Whether another value at one place of what a norm says is another value at one place of what its block says."""

    def changed(spike: float) -> int:
        def put(_module: nn.Module, _inputs: Any, said: Tensor) -> Tensor:
            other = torch.zeros_like(said, memory_format=torch.contiguous_format)
            other.view(-1)[other.numel() // 2] = spike
            return other

        hook = norm.register_forward_hook(put)
        try:
            return int((Call(block, args, kwargs).out != out).sum())
        finally:
            hook.remove()

    return max(map(changed, SPIKES)) == 1


def makes_identity(chosen: Sequence[nn.Module], block: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a block is the identity without these norms, which end its branches and learn."""
    with zeroed(chosen) as weights:
        with torch.enable_grad():
            call = Call(block, args, kwargs)
            if not call.identity(chosen):
                return False
            grads = torch.autograd.grad(call.out.sum(), weights, allow_unused=True)
        learns = all(grad is not None and bool(grad.any()) for grad in grads)
        return learns and all(one_place(norm, block, args, kwargs, call.out) for norm in chosen)


def branch_ends(block: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Sequence[nn.Module]:
    """The norms that end a block's branches; none where that cannot be proved.

    >>> branch_ends(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)), [torch.ones(1, 2)], {})
    []
    """
    own = [norm for norm in norms(block) if norm is not block][-LAST:]
    branches = [parts[-1] for child in block.children() if (parts := norms(child))]
    tried = [*([norm] for norm in reversed(own)), *([branches] if len(branches) > 1 else [])]
    return next((chosen for chosen in tried if makes_identity(chosen, block, args, kwargs)), [])


@torch.no_grad()
def residual_norms(model: nn.Module, x: Tensor) -> list[nn.Module]:
    """The norms that end the branches of a network's residual blocks, by one pass of images [B, C, H, W].

    Of blocks within blocks, the inner ones count.
    """
    found: list[nn.Module] = []
    open_: dict[nn.Module, Sequence[Any]] = {}
    trying = False

    def before(block: nn.Module, args: Sequence[Any]) -> None:
        if not trying:  # what goes in, before a layer writes to it
            open_[block] = [value.clone() if isinstance(value, Tensor) else value for value in args]

    def after(block: nn.Module, _: Any, kwargs: Mapping[str, Any], out: Any) -> None:
        nonlocal trying
        args = [] if trying else open_.pop(block)
        if args and isinstance(out, Tensor) and not {*found} & {*block.modules()}:
            trying = True
            found.extend(branch_ends(block, args, kwargs))
            trying = False

    blocks = [part for part in model.modules() if any(part.children()) and norms(part) and not isinstance(part, nn.Sequential)]
    hooks = [block.register_forward_pre_hook(before) for block in blocks]
    hooks += [block.register_forward_hook(after, with_kwargs=True) for block in blocks]
    training = model.training
    try:
        model.eval()(x)
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return found


class ZeroGamma(Trick):
    """Start the last norm of each residual branch at a scale of zero."""

    stage, stilled = Stage.WEIGHT, "norms"

    def model(self, model: Any) -> Any:
        """Zero the scales. Raises UsageError for pretrained weights and for networks without such norms."""
        if getattr(model, "pretrained", False):
            raise UsageError("zero_gamma would destroy pretrained weights. Remove it, or train from scratch with weights=none.")
        found = residual_norms(model, torch.randn(1, *model.shape, generator=Generator().manual_seed(0)))
        weights = [norm.get_parameter("weight") for norm in found]
        if not weights:
            raise UsageError("zero_gamma: the network has no residual block that ends with a norm. Remove it, or use a ResNet.")
        if not any(bool(weight.any()) for weight in weights):
            raise UsageError("zero_gamma: the residual blocks of this network start as the identity by themselves. Remove it.")
        for weight in weights:
            nn.init.zeros_(weight)
        return model
