"""Conformal sets: not one class, but all that an image may be of, with a stated probability that the right one is among them.

Formula: the set of x is all classes k with s(x, k) <= q, q the ceil((n + 1) coverage)-th smallest score s(x_i, y_i) of the n
  validation images. lac: s = 1 - p_k. aps: s = the sum of p over the classes that rank before k, so that a set ends with the
  class that brings its sum above q. raps: the same plus charge * max(0, rank of k - free). Without random draws, so that an
  image has one set; the most probable class is always in it. With n below coverage / (1 - coverage) there is no q, and every
  set holds all classes.
Paper: Angelopoulos and Bates, "A Gentle Introduction to Conformal Prediction and Distribution-Free Uncertainty
  Quantification", 2021, arXiv:2107.07511, sections 1 and 2.1; lac: Sadinle et al., JASA 2019, arXiv:1609.00451; aps: Romano et
  al., NeurIPS 2020, arXiv:2006.02544; raps: Angelopoulos et al., ICLR 2021, arXiv:2009.14193.
Helps: decisions that must not miss a class, and images that a person looks at where the network is unsure.
Hurts: the probability is a mean over new images of the same source: a rare class can be covered far less (see the coverage of
  each class), other cameras void it, and where validation also chose the epoch it holds nearly, not exactly.
Costs: one more pass over the validation images after training.
"""

import math
from decimal import Decimal
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator
from scipy.stats import beta
from torch import Generator, Tensor
from torch.nn.functional import one_hot

from trickbag.ground.text import counted
from trickbag.trick import Fit, Stage, Trick

Method = Literal["lac", "aps", "raps"]
CHARGE, FREE = 0.01, 5
LOWEST = 0.05
"""How far the coverage of sets may lie below what was asked for before it is told."""


def scores(logits: Tensor, method: Method, charge: float = CHARGE, free: int = FREE) -> Tensor:
    """Logits [B, K] -> how little each class fits [B, K], float64; of equal probabilities the first class ranks first.

    >>> import torch
    >>> logits = torch.tensor([[0.5, 0.2, 0.3]]).log()
    >>> scores(logits, "lac"), scores(logits, "aps")
    (tensor([[0.5000, 0.8000, 0.7000]], dtype=torch.float64), tensor([[0.0000, 0.8000, 0.5000]], dtype=torch.float64))
    """
    p = logits.double().softmax(1)
    if method == "lac":
        return 1 - p
    ranked = p.sort(dim=1, descending=True, stable=True)
    before = ranked.values.cumsum(1).roll(1, 1)
    before[:, 0] = 0
    if method == "raps":
        before += charge * (before.new_ones(before.shape[1]).cumsum(0) - free).clamp_min(0)
    return before.scatter(1, ranked.indices, before)


def place(images: int, coverage: float) -> int:
    """Which of the scores of so many images, by size and counted from 1, is the threshold; there is none above ``images``.

    >>> place(9, 0.9), place(8, 0.9)
    (9, 9)
    """
    return math.ceil((images + 1) * Decimal(str(coverage)))


def fewest(coverage: float) -> int:
    """How many images there must be for a threshold.

    >>> fewest(0.9), fewest(0.95)
    (9, 19)
    """
    asked = Decimal(str(coverage))
    return math.ceil(asked / (1 - asked))


class Conformal(Trick):
    """Answer with sets of classes; the probabilities stay."""

    stage = Stage.ANSWER
    example = "conformal(method='raps')"
    coverage: Annotated[float, Field(gt=0, lt=1)] = 0.9
    """The probability that a new image's class is in its set, at least."""
    method: Method = "lac"
    """lac: the smallest sets; aps: larger for unsure images, so that these are covered as well as others; raps: aps, in which
    improbable classes count extra."""
    charge: Annotated[float, Field(ge=0, le=1)] = CHARGE
    """For method="raps": what each class counts extra that ranks behind the free ones."""
    free: Annotated[int, Field(ge=1, le=1_000_000)] = FREE
    """For method="raps": how many classes of a set count nothing extra."""

    @model_validator(mode="after")
    def _fields_have_an_effect(self) -> Self:
        if self.method != "raps" and (self.charge, self.free) != (CHARGE, FREE):
            raise ValueError("charge and free work only with method='raps'")
        return self

    def setup(self, model: Any, fit: Fit) -> None:
        """Begin without a threshold: every class is in every set."""
        self.threshold_: float | None = None

    def doubt(self, images: int) -> str:
        """Too few images for a threshold, or for one that is worth its name."""
        n, k = images, place(images, self.coverage)
        if k > n:
            return (
                f"{self}: every set will hold all classes, since {counted(n, 'validation image')} cannot promise "
                f"{100 * self.coverage:g} %. Give at least {fewest(self.coverage):,} of them, or a smaller coverage"
            )
        low, high = beta.ppf((0.025, 0.975), k, n + 1 - k)
        if low >= self.coverage - LOWEST:
            return ""
        return (
            f"{self}: with {counted(n, 'validation image')} the sets of this run hold the right class of {100 * low:.0f} to "
            f"{100 * high:.0f} % of new images. Give more validation images for sets nearer to {100 * self.coverage:g} %"
        )

    def finish(self, model: Any, fit: Fit, rng: Generator) -> Any:
        """Find the threshold on validation."""
        logits, y = fit.logits("val")
        found = self._scores(logits).gather(1, y.argmax(1, keepdim=True).cpu())[:, 0].sort().values
        k = place(len(found), self.coverage)
        self.threshold_ = float(found[k - 1]) if k <= len(found) else None
        return model

    def sets(self, logits: Tensor) -> Tensor:
        """The classes up to the threshold, on the CPU."""
        found = self._scores(logits)
        if self.threshold_ is None:
            return found >= 0
        return (found <= self.threshold_) | one_hot(logits.cpu().argmax(1), logits.shape[1]).bool()

    def _scores(self, logits: Tensor) -> Tensor:
        return scores(logits.cpu(), self.method, self.charge, self.free)
