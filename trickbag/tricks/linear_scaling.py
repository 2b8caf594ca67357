"""Linear scaling: the learning rate grows with the batch.

Formula: lr * B / base_batch, B the images per step over all ranks.
Paper: Goyal et al., "Accurate, Large Minibatch SGD", 2017, arXiv:1706.02677, section 2.1; He et al., CVPR 2019, section 3.1.
Helps: keeps a recipe's learning rate right when the batch changes.
Hurts: adaptive optimisers, which want less than the linear factor; very large batches without warm-up.
Costs: nothing.
"""

from typing import Annotated, Any

from pydantic import Field

from trickbag.trick import Fit, Stage, Trick


def batch_factor(batch_size: int, base_batch: int) -> float:
    """The factor on the learning rate; both sizes in images per step.

    >>> batch_factor(1024, 256)
    4.0
    """
    return batch_size / base_batch


class LinearScaling(Trick):
    """Read the recipe's learning rate as that of ``base_batch`` images per step."""

    stage = Stage.GRADIENT
    base_batch: Annotated[int, Field(ge=1)] = 256
    """Images per step for which the recipe's learning rate is meant."""

    def setup(self, model: Any, fit: Fit) -> None:
        """Compare the run's batch with the base."""
        self.factor_ = batch_factor(fit.facts.batch_size, self.base_batch)

    def lr(self, t: float) -> float:
        """The same factor at every step."""
        return self.factor_
