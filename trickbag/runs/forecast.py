"""What a training would do and cost, from a few timed steps; nothing is trained."""

import math
from collections import Counter
from dataclasses import dataclass
from types import SimpleNamespace
from typing import cast

import torch

from trickbag.engine.assemble import build_model, kept_pixels, plain_view
from trickbag.engine.judge import judged_view
from trickbag.engine.loader import Plan as Steps
from trickbag.engine.pixels import Files, expected_bytes, size_limit
from trickbag.ground.events import Tell, silent
from trickbag.ground.shown import Sheet, Shown
from trickbag.ground.text import duration
from trickbag.recipe import Recipe
from trickbag.runs import auto
from trickbag.runs.request import Request
from trickbag.trick import Facts, Fit, acting, having


@dataclass(frozen=True, repr=False)
class Plan(Shown):
    """The decided recipe and what it will take.

    Examples:
        >>> import trickbag as tb
        >>> made = tb.plan("photos", "cifar", model="cifar_resnet8", set_={"size": 16, "epochs": 1})
        >>> print(made.lines()[0])
        images: train 18, val 2, test 4

    """

    recipe: Recipe
    reasons: tuple[str, ...]
    splits: dict[str, int]
    """Images of train, val and test."""
    steps: int
    seconds: float
    """For training and scoring, from the timed steps."""
    cache_bytes: int
    """Of the decoded images on disk; 0 where they are streamed."""
    run_bytes: int
    """Of the run's folder with its two checkpoints, about."""
    memory_bytes: int
    """At the peak of the timed steps."""

    def _sheet(self) -> Sheet:
        said = dict(line.split(": ", 1) for line in self.lines())
        return Sheet(f"plan: {self.recipe.model}", {name: said[name] for name in ("images", "steps", "time", "memory")})

    def lines(self) -> list[str]:
        """The plan for people."""
        splits = ", ".join(f"{name} {count:,}" for name, count in self.splits.items())
        view = judged_view(plain_view(self.recipe), self.recipe.tricks)
        mean, std = (", ".join(f"{255 * v:.7g}" for v in values) for values in (self.recipe.mean, self.recipe.std))
        return [
            f"images: {splits}",
            f"pixels: {self.recipe.size} in training; judged images: shorter side {view.resize}, centre {view.crop}",
            f"normalised by: {f'mean {mean}; std {std} (of 255)' if mean else 'what the weights were trained with'}",
            "learning rate: "
            + (", ".join(f"{lr:g} at epoch {epoch}" for epoch, lr in rates(self.recipe, self.steps).items()) or "none"),
            f"steps: {self.steps:,} in {self.recipe.epochs} epochs",
            f"time: about {duration(self.seconds)}",
            f"disk: {self.run_bytes / 1e9:.2f} GB for the run, {self.cache_bytes / 1e9:.2f} GB for decoded images (shared)",
            f"memory: {self.memory_bytes / 1e9:.2f} GB at the peak of the timed steps",
        ]


def rates(recipe: Recipe, steps: int) -> dict[int, float]:
    """Epoch, counted from 0 -> the learning rate at its start: of the first, the last, and those where it drops by half.

    >>> {epoch: round(lr, 9) for epoch, lr in rates(Recipe.load("food101"), 75_000).items()}
    {0: 0.0001, 15: 1e-05, 30: 1e-06, 39: 1e-06}
    """
    tricks = [trick.fresh() for trick in having(recipe.tricks, "lr")]
    facts = Facts((), torch.zeros(0), steps, recipe.batch_size, recipe.size, 3, 0)
    for trick in having(tricks, "setup"):
        trick.setup(None, cast(Fit, SimpleNamespace(facts=facts)))
    shares = [epoch / recipe.epochs for epoch in range(recipe.epochs)]
    lr = [recipe.lr * math.prod(trick.lr(t) for trick in acting(tricks, "lr", t)) for t in shares]
    return {epoch: value for epoch, value in enumerate(lr) if epoch in (0, len(lr) - 1) or 2 * value <= lr[epoch - 1]}


def plan(wanted: Request, tell: Tell = silent) -> Plan:
    """What carrying out a request would do and cost."""
    decision = auto.decide(wanted, tell)
    made, images = decision.recipe, wanted.data.images
    need = expected_bytes(Files(images, wanted.data.channels, kept_pixels(made), made.fit))
    model = build_model(made, made.tricks, len(images.classes), wanted.data.channels, wanted.seed, "none")
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    counts = Counter(images.splits.tolist())
    return Plan(
        made,
        decision.reasons,
        {name: counts[name] for name in ("train", "val", "test")},
        Steps(auto.left_labels(made, images), made.tricks, wanted.seed, made.epochs, made.batch_size, made.size).steps(),
        decision.seconds,
        need if need <= size_limit() else 0,
        weights * 9,
        decision.timing.memory,
    )
