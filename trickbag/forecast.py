"""What a training would do and cost, from a few timed steps; nothing is trained."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from trickbag import auto
from trickbag.engine.assemble import build_model, kept_pixels
from trickbag.engine.loader import Plan as Steps
from trickbag.engine.pixels import Files, expected_bytes, size_limit
from trickbag.events import Tell, silent
from trickbag.recipe import Recipe
from trickbag.request import request


@dataclass(frozen=True)
class Plan:
    """The decided recipe and what it will take."""

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

    def lines(self) -> list[str]:
        """The plan for people."""
        splits = ", ".join(f"{name} {count:,}" for name, count in self.splits.items())
        return [
            f"images: {splits}",
            f"steps: {self.steps:,} in {self.recipe.epochs} epochs",
            f"time: about {self.seconds / 60:.1f} minutes",
            f"disk: {(self.cache_bytes + self.run_bytes) / 1e9:.2f} GB (decoded images {self.cache_bytes / 1e9:.2f} GB, shared by all runs)",
            f"memory: {self.memory_bytes / 1e9:.2f} GB at the peak of the timed steps",
        ]


def plan(data: str | Path, recipe: str | Path | Recipe = "auto", *, tell: Tell = silent, **asked: Any) -> Plan:
    """What :func:`trickbag.train` with the same arguments would do and cost. Raises UsageError as it does."""
    wanted = request(data, recipe, tell=tell, **asked)
    decision = auto.decide(wanted, tell)
    made, images = decision.recipe, wanted.data.images
    need = expected_bytes(Files(images, wanted.data.channels, kept_pixels(made)))
    model = build_model(made, made.tricks, len(images.classes), wanted.data.channels, wanted.seed, "none")
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    counts = Counter(images.splits.tolist())
    labels = torch.from_numpy(images.split("train").labels)
    return Plan(
        made,
        decision.reasons,
        {name: counts[name] for name in ("train", "val", "test")},
        Steps(labels, made.tricks, wanted.seed, made.epochs, made.batch_size, made.size).steps(),
        decision.seconds,
        need if need <= size_limit() else 0,
        weights * 9,
        decision.timing.memory,
    )
