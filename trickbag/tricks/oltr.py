"""OLTR, open long-tailed recognition: a memory of the classes' means enriches the features that a cosine classifier sees.

Formula: f' = f + a * W_o S(f) before the mean over places, S the self-attention softmax(Q(f) K(f)^T) V(f) of D / 2 channels, a
  a softmax over places. v = x + tanh(T x) * m, m = sum_k o_k c_k, o = softmax(H x); u = reach * v / min_k ||x - c_k||;
  z_k = scale * <u / (1 + ||u||), w_k / ||w_k||>. The memory c begins as the means of the training images' features, H as the
  network's own classifier, W_o at 0. Added to the loss is weight times the mean of sum_k y_k d_k / 2 + 0.01 * max(0, margin -
  sum_k (1 - y_k) d_k / K), d_k = ||x - c_k||^2, by which alone the memory learns, without weight decay; of the first term's
  gradient it takes 1 / (1 + n_k), n_k the images of class k in the batch. These are the forms of the authors' code, but the
  margin holds for each image, not for the mean of a batch, and a comes from one score per place, w . f, not from a linear
  layer over all places, which would fix the size of the maps.
Paper: Liu et al., "Large-Scale Long-Tailed Recognition in an Open World", CVPR 2019, arXiv:1904.05160, section 3.
Helps: rare classes on imbalanced data, from weights that were trained on it before (the paper's first stage), together with
  balanced_sampling; in the paper also images of no class, whose largest probability is lower far from the memory. Measure it
  with and without the trick: trickbag evaluate RUN DATA --open-set.
Hurts: training from scratch, whose memory begins with the means of features that say nothing; weights far from the task. Where
  classes are balanced it need not tell others from them better.
Costs: 3 D^2 + 2 K D weights more, D the number of features; one pass over the training images.
"""

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.linalg import vector_norm
from torch.nn.functional import linear, normalize, relu

from trickbag.ground.errors import UsageError
from trickbag.trick import Batch, Fit, Groups, Outputs, Stage, Trick, regroup

PUSH = 0.01
"""Weight of the distances to other classes against that to the own class."""


def class_means(x: Tensor, y: Tensor) -> Tensor:
    """Features [N, D] and targets [N, K] -> means of the classes [K, D]; zeros for a class without images.

    >>> class_means(torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0]]), torch.eye(3)[[0, 0, 1]])
    tensor([[2., 0.],
            [0., 2.],
            [0., 0.]])
    """
    return y.T @ x / y.sum(0).clamp_min(1)[:, None]


def least_distance(x: Tensor, memory: Tensor) -> Tensor:
    """Features [B, D] and memory [K, D] -> the distance to the nearest of the memory [B, 1], whose gradient is that of x.

    >>> least_distance(torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 0.0], [9.0, 9.0]]))
    tensor([[5.]])
    """
    memory = memory.detach()
    # A batch's pairs are many: the gradient needs the nearest alone.
    nearest = torch.cdist(x.detach(), memory, compute_mode="donot_use_mm_for_euclid_dist").argmin(1)
    distance: Tensor = vector_norm(x - memory[nearest], dim=1, keepdim=True)
    return distance


def squashed(v: Tensor, distance: Tensor, reach: float) -> Tensor:
    """Features v [B, D] and distances [B, 1] -> u / (1 + ||u||) with u = reach * v / distance, also at distance 0.

    >>> squashed(torch.tensor([[3.0, 4.0], [3.0, 4.0]]), torch.tensor([[5.0], [0.0]]), 1.0)
    tensor([[0.3000, 0.4000],
            [0.6000, 0.8000]])
    """
    length: Tensor = distance + reach * vector_norm(v, dim=1, keepdim=True)
    return reach * v / length.clamp_min(torch.finfo(length.dtype).tiny)


def margin_loss(x: Tensor, y: Tensor, memory: Tensor, margin: float) -> Tensor:
    """Features [B, D], targets [B, K] and memory [K, D] -> the loss that draws features to their class's place, a scalar.

    The memory follows by 1 / (1 + n_k) of the first term's gradient, n_k the batch's images of class k.

    >>> margin_loss(torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0, 2.0], [3.0, 0.0]]), 10.0)
    tensor(2.0200)
    """
    # The authors' class for this term has a backward pass of its own.
    still = memory.detach()
    slow = still + (memory - still) / (1 + y.sum(0)[:, None])
    own, others = (torch.cdist(x, place, compute_mode="use_mm_for_euclid_dist").square() for place in (slow, memory))
    return ((y * own).sum(1) / 2 + PUSH * relu(margin - ((1 - y) * others).mean(1))).mean()


class ModulatedAttention(nn.Module):
    """The formula's attention and the mean after it: maps [B, D, h, w] -> [B, D]. It begins as the bare mean."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(1, channels // 2)
        self.query, self.value = nn.Linear(channels, inner), nn.Linear(channels, inner)
        self.key = nn.Linear(channels, inner, bias=False)
        self.score = nn.Linear(channels, 1, bias=False)
        self.out = nn.Linear(inner, channels, bias=False)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor) -> Tensor:
        """[B, D, h, w] -> [B, D]."""
        places = x.flatten(2).transpose(1, 2)
        shares = (self.query(places) @ self.key(places).transpose(1, 2)).softmax(2)
        refined: Tensor = places + self.score(places).softmax(1) * self.out(shares @ self.value(places))
        return refined.mean(1).to(x.dtype)


class MetaClassifier(nn.Module):
    """The formula's classifier with its memory; ``head`` is the linear layer in whose place it stands."""

    def __init__(self, head: nn.Linear, reach: float, scale: float) -> None:
        super().__init__()
        self.reach, self.scale = reach, scale
        self.hallucinator = head
        self.selector = nn.Linear(head.in_features, head.in_features)
        self.weight = nn.Parameter(torch.empty_like(head.weight).uniform_(-1, 1))
        self.memory = nn.Parameter(torch.zeros_like(head.weight))

    def forward(self, x: Tensor) -> Tensor:
        """[B, D] -> [B, K]."""
        x = x.to(self.memory.dtype)
        recalled = self.hallucinator(x).softmax(1) @ self.memory.detach()
        v = x + self.selector(x).tanh() * recalled
        return self.scale * linear(squashed(v, least_distance(x, self.memory), self.reach), normalize(self.weight, dim=1))


class Oltr(Trick):
    """Classify features together with what a memory of the classes recalls."""

    stage = Stage.SHAPE
    alters = "classifier"
    slot = "pool"
    rebuilds = True
    attention: bool = True
    """Whether the maps are attended to before they are pooled; False where a network has no pooling."""
    reach: Annotated[float, Field(gt=0, le=1000)] = 10.0
    """The distance to the memory at which a feature keeps its length."""
    scale: Annotated[float, Field(gt=0, le=1000)] = 16.0
    """Logits are below it; the larger, the surer can the network be."""
    weight: Annotated[float, Field(ge=0, le=1000)] = 0.01
    """Weight of the margin loss; 0: the memory stays as it began."""
    margin: Annotated[float, Field(ge=0, le=1e6)] = 10.0
    """The mean squared distance to other classes up to which they repel."""

    def model(self, model: Any) -> Any:
        """Replace the pooling and the classifier. UsageError where the network has no pooling or no linear classifier."""
        head = model.classifier
        if not isinstance(head, nn.Linear):
            raise UsageError(f"{self} replaces a linear layer; this network ends with {type(head).__name__}. Remove it.")
        if self.attention:
            try:
                model.pool = ModulatedAttention(model.pooled)
            except UsageError:
                raise UsageError(
                    f"{self} attends to maps, and {model.name} pools none. Write oltr(attention=False), or choose a "
                    "convolutional model."
                ) from None
        model.classifier = MetaClassifier(head, self.reach, self.scale)
        return model

    def groups(self, groups: Groups, model: Any) -> Groups:
        """Take the weight decay from the memory, whose rows are places and no weights."""
        memory = model.classifier.memory
        return regroup(groups, lambda _, parameter: {"weight_decay": 0.0} if parameter is memory else {})

    def prepare(self, model: Any, fit: Fit) -> Any:
        """Fill the memory with the means of the classes."""
        memory = model.classifier.memory
        x, y = (values.to(memory) for values in fit.features("train"))
        with torch.no_grad():
            memory.copy_(class_means(x, y))
        return model

    def penalty(self, batch: Batch, outputs: Outputs, model: Any, t: float) -> Tensor:
        """The margin loss between the features and the memory."""
        return self.weight * margin_loss(outputs.features, batch.y, model.classifier.memory, self.margin)
