"""What a study will take and find, tried in a few seconds before it is planned: timed steps, and short trainings."""

import math
import time
from dataclasses import replace
from functools import cached_property
from itertools import chain
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from trickbag import plugins
from trickbag.data.folds import partitioned
from trickbag.data.splits import Ints
from trickbag.engine.assemble import assemble, kept_pixels
from trickbag.engine.loop import Diverged
from trickbag.engine.pixels import Files
from trickbag.engine.precision import fabric_for
from trickbag.engine.speed import Timing, fastest
from trickbag.ground.errors import TrickbagError
from trickbag.ground.streams import generator
from trickbag.recipe import Recipe
from trickbag.runs import auto
from trickbag.runs.request import Request
from trickbag.statistics.power import churn
from trickbag.studies.design import untrained

Bools = NDArray[np.bool_]

GUESSED = 10.0
"""Disagreements for which the guess counts that goes by what a network gets right: it is off by a sixth from data set to data
set, as a count of some thirty is (``python -m benchmarks.assumed``); a new one may be another kind, so less."""


def share(right: Bools) -> float:
    """Of images that are seen to be right: one more is counted that is, and one that is not, as no network gets all right.

    >>> share(np.array([True, True, False]))
    0.6
    """
    return float((right.sum() + 1) / (right.size + 2))


class Expected(NamedTuple):
    """What trainings of the reference will do on new images."""

    right: float
    """The share of them that one gets right."""
    churn: float
    """The share of them on which two disagree, one right and one wrong."""
    known: str
    """By what that is known: a main clause without its object."""

    @classmethod
    def guessed(cls, right: float, known: str) -> Self:
        """With the disagreement of networks that get so many right."""
        return cls(right, churn(right), f"networks that get {100 * right:.0f} % right do, {known}")

    @classmethod
    def counted(cls, first: Bools, second: Bools, named: str = "the reference") -> Self:
        """With the disagreement of two trainings on the same images, by which of them each gets right. See GUESSED.

        Many trainings disagree no more often in the mean than if each image were a matter of chance.
        """
        both, differ = np.concatenate([first, second]), first != second
        right = share(both)
        usual = churn(right)
        expected = (differ.sum() + GUESSED) / (len(differ) + GUESSED / usual)
        known = (
            f"two trainings of {named} on three quarters of them did on {100 * differ.mean():.0f} % of the others, with "
            f"{100 * both.mean():.0f} % right; most networks with as many right do on {100 * usual:.0f} %"
        )
        return cls(right, min(float(expected), 2 * right * (1 - right)), known)


ASSUMED = Expected.guessed(0.75, "and nothing tells before training whether this one will")
QUARTER = 4
"""Of as many parts of the images one judges a network that is tried."""
SAMPLE = 600
"""Images on which a classifier is tried."""
EACH = 8
"""Images of a class in the mean, below which a classifier says little."""


class Pilot:
    """Times a few steps of each training that may cost another time than those before, for so many seconds in all.

    A training for which no time is left is taken to cost as much as the dearest of the others.
    """

    def __init__(self, wanted: Request, seconds: float = math.inf) -> None:
        self.wanted, self.known = wanted, dict[str, Timing]()
        self.until = time.monotonic() + seconds

    @property
    def late(self) -> float:
        """When a trial that begins now must end, by the monotonic clock."""
        return min(self.until, time.monotonic() + auto.TRIAL_SECONDS)

    @cached_property
    def expected(self) -> Expected:
        """What trainings of the reference will do.

        That is what two of them do, where one takes no longer than other trials may; else it follows from what a classifier on
        its initial features gets right, on a sample of the images; else it is assumed.
        """
        images = self.wanted.data.images
        pool = np.flatnonzero(np.isin(images.splits, ("train", "val")))
        pool = pool[torch.randperm(len(pool), generator=generator(self.wanted.seed, "pilot")).numpy()]
        enough = len(pool) >= EACH * len(images.classes)
        return (enough and (self.trained(pool) or self.probed(pool))) or ASSUMED

    def trained(self, pool: Ints) -> Expected | None:
        """By two trainings of the reference; None where one takes too long, or fails."""
        recipe = self.wanted.recipe
        aside = [trick.name() for trick in recipe.tricks if trick.networks or trick.place()]
        alone = recipe.edit(without=aside)
        if not alone.epochs or self.seconds(alone) > self.late - time.monotonic():
            return None
        named = f"the reference{' without ' + ', '.join(aside) if aside else ''}"
        began = time.monotonic()
        first = self.right(alone, pool, self.late)
        if first is None:
            return None
        fits = time.monotonic() - began <= self.late - time.monotonic()
        second = self.right(alone, pool, self.late, turn=1) if fits else None
        if second is None:
            return Expected.guessed(share(first), f"as {named} did, trained once on three quarters of them")
        return Expected.counted(first, second, named)

    def probed(self, pool: Ints) -> Expected | None:
        """By a classifier on the initial features; None where these are drawn at random, time is too short, or it fails."""
        recipe, timing = untrained(self.wanted.recipe, "linear-probe"), self.timing(self.wanted.recipe)
        within = (self.late - time.monotonic()) / max(timing.judge + timing.decode, 1e-9)
        least = EACH * len(self.wanted.data.images.classes)
        if recipe.weights == "none" or within < least:
            return None
        right = self.right(recipe, pool[: min(max(SAMPLE, least), int(within))], math.inf)
        if right is None:
            return None
        return Expected.guessed(share(right), "as a classifier on its initial features did, on a sample")

    def right(self, recipe: Recipe, rows: Ints, until: float, turn: int = 0) -> Bools | None:
        """Which of a quarter of these images a network gets right which learned from the others, with another seed each turn.

        None if it fails, or is not finished when the monotonic clock passes ``until``.
        """
        images = self.wanted.data.images
        try:
            judging = partitioned(images, np.sort(rows), QUARTER, self.wanted.seed)[0]
            splits = np.where(np.isin(np.arange(len(images)), judging), "val", "train")
            sample = replace(images, splits=splits).take(np.sort(rows))
            data, seed = self.wanted.data._replace(images=sample), self.wanted.seed + turn
            pixels = Files(sample, data.channels, kept_pixels(recipe), recipe.fit)
            loop = assemble(recipe, data, pixels, seed, fabric_for(recipe.precision), lambda *_: nn.Identity())
            for _ in chain(loop.prepare(), loop.train()):
                if time.monotonic() > until:
                    return None
            logits = loop.judge.outputs(loop.model, "val")[1]
        except Exception as error:  # as it fails when its turn comes
            if not isinstance(error, TrickbagError | RuntimeError | Diverged) and not plugins.place(error):
                raise
            return None
        return (logits.argmax(1) == loop.judge.loaders["val"].labels).numpy()

    def timing(self, recipe: Recipe) -> Timing:
        """Seconds per image, from timed steps of a recipe with the same costly tricks."""
        costly = recipe.edit(tricks=tuple(trick for trick in recipe.tricks if COSTLY & set(trick.plugs())))
        if costly.key not in self.known:
            if self.known and time.monotonic() >= self.until:
                return max(self.known.values(), key=lambda timing: timing.work(recipe))
            try:
                self.known[costly.key] = fastest(costly, self.wanted.data, self.wanted.seed, self.late)[1]
            except Exception as error:  # an arm that cannot be trained fails when its turn comes, not all arms now
                if not isinstance(error, TrickbagError | RuntimeError) and not plugins.place(error):
                    raise
                return next(iter(self.known.values()), Timing(0.0, 0.0, 0, 0.0))
        return self.known[costly.key]

    def seconds(self, recipe: Recipe) -> float:
        """About how long a training of this recipe takes, with judging."""
        return auto.expected(recipe, self.wanted, self.timing(recipe))


COSTLY = frozenset({"model", "batch_size", "size", "window", "augment", "penalty", "gradient"})
"""Plug points whose tricks make a step cost another time."""
