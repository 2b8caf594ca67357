"""Group DRO: the loss of the groups that fare worst counts most.

Formula: sum_g q_g CE_g in place of the mean CE, CE_g the mean over the batch's images of group g, 0 where there is none. Before
  each step, q_g <- q_g exp(rate * (CE_g + adjustment / sqrt(n_g))) for the groups in the batch, scaled to a sum of 1; q begins
  equal, n_g are the training images of group g. Groups are those of the data (the column group of a manifest), within each
  class, or the classes. A mixed image counts to the group of its first.
Paper: Sagawa et al., "Distributionally Robust Neural Networks for Group Shifts", ICLR 2020, arXiv:1911.08731, algorithm 1 and
  eq. 5.
Helps: the worst of a few large groups, as hospitals, cameras or sites; with by='class', the worst class.
Hurts: the mean over all images; many groups, of which a batch has few, so that its loss shrinks; label noise, which looks
  like a group that fares badly. Regularise it, as by weight decay or early stops: the paper finds no gain without.
Costs: nothing.
"""

from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy

from trickbag.ground.errors import UsageError
from trickbag.trick import Batch, Fit, Outputs, Stage, Trick


def by_group(losses: Tensor, groups: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Losses and groups [B] -> the mean in each of a ``number`` of groups [G], 0 where there is none, and which there are [G].

    >>> by_group(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 2, 2]), 3)
    (tensor([1., 0., 3.]), tensor([ True, False,  True]))
    """
    sums, counts = (losses.new_zeros(number).index_add(0, groups, values) for values in (losses, torch.ones_like(losses)))
    return sums / counts.clamp_min(1), counts > 0


class GroupDro(Trick):
    """Weigh the groups by how badly they fare."""

    stage = Stage.LABEL
    example = "group_dro(by='class')"
    by: Literal["both", "group", "class"] = "both"
    """both: the groups of the data within each class, as in the paper; group: these alone; class: the classes."""
    rate: Annotated[float, Field(ge=0, le=100)] = 0.01
    """How fast the weights follow the losses; 0: all groups count alike."""
    adjustment: Annotated[float, Field(ge=0, le=1000)] = 0.0
    """What small groups get on top, whose losses generalise worse; the paper tries 0 to 5."""

    def setup(self, model: Any, fit: Fit) -> None:
        """Number the groups. Raises UsageError where the data have none, and under torchrun."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            raise UsageError(f"{self} weighs the groups in one process. Train on one device, or remove it.")
        place = next(model.parameters()).device
        own, labels = fit.groups()
        if self.by != "class" and 2 * (int(own.max()) + 1) > len(own):  # copies of an image are a group too
            raise UsageError(
                f"{self} weighs groups, and most training images share none. Give a manifest with a column group, or write "
                "group_dro(by='class')."
            )
        named = {"both": own * len(fit.facts.classes) + labels, "group": own, "class": labels}[self.by]
        counts = named.bincount()
        groups, counts = ((counts > 0).cumsum(0) - 1)[named], counts[counts > 0]
        extra = self.adjustment * counts.double().rsqrt()
        self.groups_, self.extra_ = groups.to(place), extra.float().to(place)
        self.log_q_ = torch.full_like(self.extra_, 1 / len(extra)).log()

    def loss(self, outputs: Outputs, y: Tensor) -> Tensor:
        """The cross-entropy [B], whose mean the penalty replaces."""
        return cross_entropy(outputs.logits, y, reduction="none")

    def penalty(self, batch: Batch, outputs: Outputs, model: Any, t: float) -> Tensor:
        """Update the weights of the groups; the weighted loss less the mean."""
        each = cross_entropy(outputs.logits, batch.y, reduction="none")
        losses, there = by_group(each, self.groups_[batch.rows.to(each.device, non_blocking=True)], len(self.log_q_))
        grown = self.log_q_ + self.rate * torch.where(there, losses.detach() + self.extra_, 0.0)
        self.log_q_ = grown.log_softmax(0)
        return (self.log_q_.exp() * losses).sum() - each.mean()
