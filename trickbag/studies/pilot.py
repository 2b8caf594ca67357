"""What a study will take and find, tried in a few seconds before it is planned: timed steps, and a short training."""

import math
import time
from dataclasses import replace
from functools import cached_property
from itertools import chain
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import nn

from trickbag import plugins
from trickbag.data.folds import partitioned
from trickbag.data.splits import Ints
from trickbag.engine.assemble import assemble, kept_pixels
from trickbag.engine.loop import Diverged, Judged
from trickbag.engine.pixels import Files
from trickbag.engine.precision import fabric_for
from trickbag.engine.scores import Scores
from trickbag.engine.speed import Timing, fastest
from trickbag.ground.errors import TrickbagError
from trickbag.ground.streams import generator
from trickbag.recipe import Recipe
from trickbag.runs import auto
from trickbag.runs.request import Request
from trickbag.studies.design import untrained


class Expected(NamedTuple):
    """What the network will get right."""

    right: float
    """0 to 1."""
    known: str
    """By what, as the end of a sentence."""


TRAINED = "trained once on three quarters of them"
PROBED = "a classifier on its initial features does, on a sample"
ASSUMED = Expected(0.75, "what the network will get right is not known before it is trained")
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

    @cached_property
    def expected(self) -> Expected:
        """What the network will get right.

        That is what it does get right after one training of the reference, where that takes no longer than other trials may;
        else what a classifier on its initial features does, on a sample of the images; else it is assumed.
        """
        images, recipe = self.wanted.data.images, self.wanted.recipe
        pool = np.flatnonzero(np.isin(images.splits, ("train", "val")))
        pool = pool[torch.randperm(len(pool), generator=generator(self.wanted.seed, "pilot")).numpy()]
        timing, least = self.timing(recipe), EACH * len(images.classes)
        seconds = min(self.until - time.monotonic(), auto.TRIAL_SECONDS)
        aside = [trick.name() for trick in recipe.tricks if trick.networks or trick.place()]
        alone = recipe.edit(without=aside)
        whole = len(pool) if alone.epochs and self.seconds(alone) <= seconds else 0
        trained = f"the reference{' without ' + ', '.join(aside) if aside else ''} does, {TRAINED}"
        probe = untrained(recipe, "linear-probe")
        some = min(len(pool), max(SAMPLE, least), max(int(seconds / max(timing.judge + timing.decode, 1e-9)), 0))
        some = some if probe.weights != "none" else 0
        late = time.monotonic() + seconds
        for tried, rows, until, known in ((alone, whole, late, trained), (probe, some, math.inf, PROBED)):
            right = self.right(tried, pool[:rows], until) if rows >= least else None
            if right is not None:
                return Expected(right, known)
        return ASSUMED

    def right(self, recipe: Recipe, rows: Ints, until: float) -> float | None:
        """The share of a quarter of these images that a network gets right which learned from the others.

        None if it fails, or is not finished when the monotonic clock passes ``until``. One image more is counted that it gets
        right, and one that it does not: no network is perfect on new images.
        """
        images, judged = self.wanted.data.images, list[Judged]()
        try:
            judging = partitioned(images, np.sort(rows), QUARTER, self.wanted.seed)[0]
            splits = np.where(np.isin(np.arange(len(images)), judging), "val", "train")
            sample = replace(images, splits=splits).take(np.sort(rows))
            data = self.wanted.data._replace(images=sample)
            pixels = Files(sample, data.channels, kept_pixels(recipe), recipe.fit)
            loop = assemble(recipe, data, pixels, self.wanted.seed, fabric_for(recipe.precision), lambda *_: nn.Identity())
            for event in chain(loop.prepare(), loop.train()):
                judged += [event] if isinstance(event, Judged) else []
                if time.monotonic() > until:
                    return None
        except Exception as error:  # as it fails when its turn comes
            if not isinstance(error, TrickbagError | RuntimeError | Diverged) and not plugins.place(error):
                raise
            return None
        count = len(judging)
        return (cast(Scores, judged[-1].scores[""]).top1 * count + 1) / (count + 2)

    def timing(self, recipe: Recipe) -> Timing:
        """Seconds per image, from timed steps of a recipe with the same costly tricks."""
        costly = recipe.edit(tricks=tuple(trick for trick in recipe.tricks if COSTLY & set(trick.plugs())))
        if costly.key not in self.known:
            if self.known and time.monotonic() >= self.until:
                return max(self.known.values(), key=lambda timing: timing.work(recipe))
            until = min(self.until, time.monotonic() + auto.TRIAL_SECONDS)
            try:
                self.known[costly.key] = fastest(costly, self.wanted.data, self.wanted.seed, until)[1]
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
