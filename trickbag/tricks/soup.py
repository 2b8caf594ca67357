"""Model soup: the weights of several runs are averaged into one network.

Formula: the mean of the weights of this run and of those of the others that are kept. Greedy: from the best on validation on, a
  run is kept where the mean with it is right on no fewer validation images than the mean without; else all are kept. The
  running statistics of norms that training moved are estimated anew for every mean; the paper's networks have none.
Paper: Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing
  inference time", ICML 2022, arXiv:2203.05482, recipe 1.
Helps: runs that were fine-tuned from the same weights with other seeds or other tricks; costs nothing when images are judged.
Hurts: runs from scratch: their weights lie far apart, and a greedy soup keeps one.
Costs: the training of all runs; a pass over validation, and some training batches, for each.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import torch
from pydantic import AfterValidator, Field
from torch import Generator, Tensor, nn

from trickbag.ground.errors import UsageError
from trickbag.ground.norms import batch_norms, estimate_norms, moved
from trickbag.trick import Fit, Stage, Trick

Weights = dict[str, Tensor]


def chosen(right: Sequence[int], mixed: Callable[[list[int]], int]) -> list[int]:
    """Which runs a greedy soup keeps, the best first: ``right`` [R] answers of each alone, ``mixed`` those of a mean of some.

    >>> chosen([30, 50, 40, 40], lambda runs: {(1, 2): 49, (1, 3): 50, (1, 3, 0): 50}[tuple(runs)])
    [1, 3, 0]
    """
    first, *rest = sorted(range(len(right)), key=lambda run: -right[run])
    kept, most = [first], right[first]
    for run in rest:
        if (found := mixed([*kept, run])) >= most:
            kept, most = [*kept, run], found
    return kept


def mean_weights(several: Sequence[Weights]) -> Weights:
    """The mean of tensors of the same names; whole numbers are those of the first."""
    return {
        name: torch.stack([weights[name] for weights in several]).mean(0) if value.is_floating_point() else value
        for name, value in several[0].items()
    }


@torch.no_grad()
def weights_of(network: nn.Module, run: str, model: nn.Module, x: Tensor) -> Weights:
    """The weights of a run's network for this run's model. Raises UsageError where they answer ``x`` otherwise in it."""
    found = {name.removeprefix("model."): value for name, value in network.state_dict().items()}
    own = model.state_dict()
    weights = {name: found[name] for name, value in own.items() if name in found and found[name].shape == value.shape}
    twin = copy.deepcopy(model).eval()
    if weights.keys() == own.keys():
        twin.load_state_dict(weights)
        if torch.allclose(twin(x).logits, network(x).logits, rtol=1e-3, atol=1e-3):
            return weights
    raise UsageError(
        f"soup: the weights of {run} mean something else in this network. "
        "Name runs of the same model, classes, mean, std and surgery."
    )


def _others(runs: tuple[str, ...]) -> tuple[str, ...]:
    if "self" in runs:
        raise ValueError("this run is included anyway; name other runs")
    return runs


class Soup(Trick):
    """Average the weights with those of other runs."""

    stage = Stage.MIX  # before whatever learns from the final weights
    positional = networks = "runs"
    example = "soup('another', greedy=False)"
    runs: Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_others)]
    """Folders of other runs, or recipes that are trained first."""
    greedy: bool = True
    """Whether runs that lower validation accuracy stay out."""

    def setup(self, model: Any, fit: Fit) -> None:
        """Fetch the weights, which are no state of this run."""
        x = next(iter(fit.judged("val"))).x
        self._weights = [weights_of(fit.network(run), run, model, x) for run in self.runs]

    def finish(self, model: Any, fit: Fit, rng: Generator) -> Any:
        """Put in the mean of the weights that are kept."""
        model.eval()
        several = [copy.deepcopy(model.state_dict()), *self._weights]
        norms = list(filter(moved, batch_norms(model)))

        def mix(runs: Sequence[int]) -> None:
            model.load_state_dict(mean_weights([several[run] for run in runs]))
            if len(runs) > 1:
                estimate_norms(model, norms, (batch.x for batch in fit.batches()))

        @torch.no_grad()
        def right(runs: list[int]) -> int:
            mix(runs)
            return int(sum((model(b.x).logits.argmax(1) == b.y.argmax(1)).sum() for b in fit.judged("val")))

        every = range(len(several))
        mix(chosen([right([run]) for run in every], right) if self.greedy else every)
        return model
