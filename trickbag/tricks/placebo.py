"""Placebo: draws random numbers and does nothing with them.

Formula: the batch, unchanged; one number per image is drawn from the trick's own stream and thrown away.
Paper: none; a control, as in Fisher, "The Design of Experiments", 1935, chapter 2.
Helps: to show that a study measures tricks and nothing else: its difference from the reference is exactly 0.
Hurts: nothing.
Costs: nothing that can be measured.
"""

import torch
from torch import Generator

from trickbag.trick import Batch, Stage, Trick


class Placebo(Trick):
    """Hand every batch on as it came.

    >>> x, y = torch.zeros(2, 3, 8, 8), torch.eye(2)
    >>> batch = Batch(x, y, torch.arange(2))
    >>> Placebo().batch(batch, 0.5, Generator()) is batch
    True
    """

    stage = Stage.MIX
    neutral = {}

    def batch(self, batch: Batch, t: float, rng: Generator) -> Batch:
        """Draw, and leave the batch alone."""
        torch.rand(len(batch.rows), generator=rng)
        return batch
