"""Arithmetic: Fabric's autocast for bf16 and fp16, and the scale that keeps fp16 gradients from vanishing."""

import logging
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from torch import Tensor, nn
from torch.optim import Optimizer

logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # its notes on precision and ranks are ours to tell


def fabric_for(precision: str, ranks: int = 1, nodes: int = 1) -> Fabric:
    """A Fabric with the recipe's arithmetic on this machine's devices.

    fp16 brings no scaler of its own here: ``LossScale`` is part of the run's state.
    """
    strategy = "ddp" if ranks * nodes > 1 else "auto"
    if precision == "fp16":
        device = "cuda" if torch.cuda.is_available() else "cpu"
        plugin = MixedPrecision("16-mixed", device, scaler=torch.amp.GradScaler(device, enabled=False))
        return Fabric(devices=ranks, num_nodes=nodes, strategy=strategy, plugins=plugin)
    fabric_precision: Any = {"fp32": "32-true", "bf16": "bf16-mixed"}[precision]
    return Fabric(devices=ranks, num_nodes=nodes, strategy=strategy, precision=fabric_precision)


class LossScale:
    """Dynamic loss scaling: double after 2,000 good steps, halve and skip after an overflow.

    Micikevicius et al., "Mixed Precision Training", ICLR 2018, arXiv:1710.03740, section 3.2. Does nothing unless enabled.
    """

    def __init__(self, enabled: bool, scale: float = 2.0**16, patience: int = 2000) -> None:
        self.enabled, self.scale, self.patience, self.good, self.overflow = enabled, scale, patience, 0, False

    def up(self, loss: Tensor) -> Tensor:
        """The scaled loss."""
        return loss * self.scale if self.enabled else loss

    def down(self, model: nn.Module) -> None:
        """Take the scale out of the gradients and note an overflow."""
        if self.enabled:
            grads = [p.grad for p in model.parameters() if p.grad is not None]
            torch._foreach_mul_(grads, 1 / self.scale)
            self.overflow = not all(bool(g.isfinite().all()) for g in grads)

    def step(self, optimizer: Optimizer) -> None:
        """Step the optimiser, unless the gradients overflowed."""
        if not self.overflow:
            optimizer.step()
            self.good += self.enabled
        if self.enabled and (self.overflow or self.good == self.patience):
            self.scale, self.good, self.overflow = self.scale * (0.5 if self.overflow else 2.0), 0, False

    def state(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {"scale": self.scale, "good": self.good}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.scale, self.good = state["scale"], state["good"]
