"""What a study will take and find, tried in a few seconds before it is planned: timed steps, and a classifier on a sample."""

import math
import time
from dataclasses import replace
from functools import cached_property
from typing import cast

import numpy as np
import torch
from torch import nn

from trickbag import plugins
from trickbag.engine.assemble import assemble, kept_pixels
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
    def accuracy(self) -> float | None:
        """What a classifier on the initial features of the network gets right, 0 to 1, of a sample of the images.

        None from scratch, where the classifier cannot be fitted, and where time is left for too small a sample.
        """
        images, probe = self.wanted.data.images, untrained(self.wanted.recipe, "linear-probe")
        pool = np.flatnonzero(np.isin(images.splits, ("train", "val")))
        if probe.weights == "none":
            return None
        timing, least = self.timing(self.wanted.recipe), EACH * len(images.classes)
        seconds = min(self.until - time.monotonic(), auto.TRIAL_SECONDS)
        most = min(len(pool), max(SAMPLE, least), max(int(seconds / max(timing.judge + timing.decode, 1e-9)), 0))
        if most < least:
            return None
        order = torch.randperm(len(pool), generator=generator(self.wanted.seed, "pilot")).numpy()
        sample = images.take(np.sort(pool[order[:most]]))
        sample = replace(sample, splits=np.where(np.arange(most) % 4, "train", "val"))
        data = self.wanted.data._replace(images=sample)
        pixels = Files(sample, data.channels, kept_pixels(probe), probe.fit)
        try:
            loop = assemble(probe, data, pixels, self.wanted.seed, fabric_for(probe.precision), lambda *_: nn.Identity())
            return cast(Scores, next(loop.prepare()).scores[""]).top1
        except (TrickbagError, RuntimeError):
            return None

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
