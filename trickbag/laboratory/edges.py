"""Laws at the edges: two classes, a class of one image, one image at a time, logits of ±10,000, and arithmetic of few bits."""

from collections.abc import Callable
from functools import wraps
from typing import Any, cast

import torch
from torch import Tensor

from trickbag.engine.loop import Diverged, Loop, Step
from trickbag.ground.errors import UsageError
from trickbag.ground.streams import generator
from trickbag.laboratory.lab import Trained, example, follow, loop, recipe
from trickbag.models.networks import Net
from trickbag.trick import Outputs, Trick

Edge = Callable[[str], str | None]
FAR = 1e4
"""The largest logit."""
NEAR = 0.05
"""How far the first loss in bf16 may be from that in fp32, as a share."""
AT = 0.9
"""The share of training at which targets, losses and samples are weighed: late, when all tricks act."""


def sentence(error: UsageError, what: str) -> str:
    """The words of a refusal, which must be a sentence."""
    said = str(error)
    assert said.endswith(".") and len(said) > 20, f"{what} is refused with {said!r}, not in a sentence"
    return said


def or_refuses(law: Edge) -> Edge:
    """The law for tricks that may say in a sentence why they cannot act there."""

    @wraps(law)
    def tried(name: str) -> str | None:
        try:
            return law(name)
        except UsageError as error:
            return f"it refuses: {sentence(error, name)}"

    return tried


def finite(made: Loop) -> Trained:
    """What came of a training, in which every number is finite."""
    try:
        trained = follow(made)
    except Diverged as error:
        raise AssertionError(f"the loss of step {error.step} is no finite number") from None
    for name, value in trained.live.items():
        assert value.isfinite().all(), f"training leaves {name} with numbers that are not finite"
    assert trained.logits.isfinite().all(), "logits of judged images are not all finite"
    return trained


@or_refuses
def few(name: str) -> str | None:
    """It learns two classes, one of which has a single image, or refuses in a sentence."""
    finite(loop(recipe(example(name), batch_size=4, epochs=1), few=True))
    return None


@or_refuses
def single(name: str) -> str | None:
    """It learns from one image at a time, or refuses in a sentence."""
    finite(loop(recipe(example(name), batch_size=1, epochs=1), few=True))
    return None


@or_refuses
def half(name: str) -> str | None:
    """In bf16 its first loss is near to that in fp32, and all numbers stay finite; or it refuses in a sentence."""
    low = finite(loop(recipe(example(name), precision="bf16", epochs=1))).losses[0]
    made = loop(recipe(example(name), epochs=1))
    list(made.prepare())
    high = float(cast(Step, next(made.train())).loss)
    assert abs(low - high) <= NEAR * abs(high), f"the first loss is {low:.4g} in bf16 and {high:.4g} in fp32"
    return None


@or_refuses
def far(name: str) -> str | None:
    """With logits of ±10,000 losses, weights and answers stay finite, or it refuses in a sentence."""
    made = loop(recipe(example(name), epochs=1, lr=1e-6))  # hardly a step, so that they stay where they are
    list(made.prepare())
    _, batch = next(iter(made.loader.train(made.plan.epoch(0), 0)))
    with torch.no_grad():
        scale = FAR / made.model.train()(batch.x).logits.abs().max()
    model = cast(Net, made.model)
    for layer in {name.rpartition(".")[0] for name in model.head_names}:
        model.get_submodule(layer).register_forward_hook(lambda _layer, _args, logits: logits * scale)
    finite(made)
    return None


def exact(name: str) -> str | None:
    """Losses and weights of samples are in single precision what they are in double, alone what they are among others, also
    with logits of ±10,000."""
    if not {"loss", "weights", "select"} & set(example(name).plugs()):
        return "it neither makes losses nor weighs samples"
    for few in (True, False):
        made = loop(recipe(example(name)), few=few)
        (trick,) = (trick for trick in made.tricks if trick.name() == name)
        for size in (1.0, FAR):
            check_exact(trick, *rows_of(len(made.judge.facts.classes), size))
    return None


def rows_of(classes: int, size: float) -> tuple[Tensor, Tensor]:
    """Logits [8, K] of a size and targets [8, K], half of them mixed."""
    drawn = torch.randn(8, classes, generator=generator(0, "edges", classes))
    y = torch.eye(classes)[torch.arange(8) % classes]
    y[4:] = 0.7 * y[4:] + 0.3 * y[4:].flip(0)
    return size * (drawn if size == 1 else drawn.sign()), y


def check_exact(trick: Trick, logits: Tensor, y: Tensor) -> None:
    """What a trick makes of these in single precision is what it makes of them in double, and of each row by itself."""
    found, wanted = made_of(trick, logits, y), made_of(trick, logits.double(), y.double())
    rounding = 1e-6 + 2e-7 * float(logits.abs().max())
    for what, ours in found.items():
        said = f"{what} is {ours.tolist()}, and {wanted[what].tolist()} in double precision, of logits {logits.tolist()}"
        assert ours.isfinite().all(), said
        torch.testing.assert_close(ours.double(), wanted[what], rtol=1e-4, atol=rounding, msg=said)
    for row in range(len(y)):
        for what, alone in made_of(trick, logits[row : row + 1], y[row : row + 1]).items():
            said = f"{what} of a sample alone is {alone.tolist()}, and among others {found[what][row].tolist()}"
            assert alone.isfinite().all(), said
            if what != "select":  # which goes by the others
                torch.testing.assert_close(alone[0], found[what][row], rtol=1e-4, atol=rounding, msg=said)


def made_of(trick: Trick, logits: Tensor, y: Tensor) -> dict[str, Tensor]:
    """The losses of samples, their gradient, and what they weigh."""
    logits = logits.clone().requires_grad_()
    features = logits.new_ones(len(y), 64)
    found: dict[str, Any] = {}
    loss = -(y * logits.log_softmax(1)).sum(1)
    if "loss" in trick.plugs():
        loss = found["loss"] = trick.loss(Outputs(features[:, :, None, None], features, logits), y)
        (found["gradient"],) = torch.autograd.grad(loss.sum(), logits)
    if "weights" in trick.plugs():
        found["weights"] = trick.weights(y, AT)
    if "select" in trick.plugs():
        found["select"] = trick.select(loss.detach(), AT)
    return {what: value.detach() for what, value in found.items()}


EDGES: tuple[Edge, ...] = (exact, few, single, half, far)
"""The cheap ones first."""
