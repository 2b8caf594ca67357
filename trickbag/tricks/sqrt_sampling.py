"""Square-root sampling: rare classes are shown more often, but not as often as frequent ones.

Formula: an epoch of N draws shows class k q_k = N sqrt(n_k) / sum_j sqrt(n_j) times: q_k rounded up or down to whole draws,
  anew each epoch, so that it is q_k in the mean. Within a class every image comes once before any comes again.
Paper: Kang et al., "Decoupling Representation and Classifier for Long-Tailed Recognition", ICLR 2020, arXiv:1910.09217,
  section 3, q = 1/2; Mahajan et al., ECCV 2018, arXiv:1805.00932.
Helps: macro recall on imbalanced data, with better features than from balanced sampling.
Hurts: top-1 over all images where frequent classes are as frequent when judged.
Costs: nothing; an epoch sees only a part of the frequent classes' images.
"""

from torch import Generator, Tensor

from trickbag.trick import Stage, Trick, drawn


def sqrt_order(labels: Tensor, rng: Generator) -> Tensor:
    """Labels [N] int64 -> rows [N] int64 in which classes are drawn by the square roots of their images.

    >>> import torch
    >>> labels = torch.tensor([0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1])
    >>> labels[sqrt_order(labels, torch.Generator().manual_seed(0))].bincount()
    tensor([8, 4])
    """
    roots = labels.bincount().double().sqrt()
    return drawn(labels, len(labels) * roots / roots.sum(), rng)


class SqrtSampling(Trick):
    """Show classes by the square roots of their numbers of images; a balanced data set is merely shuffled."""

    stage = Stage.LABEL

    def order(self, labels: Tensor, epoch: int, rng: Generator) -> Tensor:
        """The epoch's rows [N]: as many draws as images."""
        return sqrt_order(labels, rng)
