"""Shuffled labels: a share of the training images has the label of a random one, the same in every epoch."""

import torch
from torch.nn.functional import one_hot

from trickbag.ground.streams import generator
from trickbag.trick import Stage, Trick


class ShuffledLabels(Trick):
    stage = Stage.MIX
    share: float = 0.3

    def setup(self, model, fit):
        rng, counts = generator(fit.facts.seed, "shuffled"), fit.facts.counts
        images = int(counts.sum())
        self.hit_ = torch.rand(images, generator=rng) < self.share
        self.label_ = torch.multinomial(counts.double(), images, replacement=True, generator=rng)

    def batch(self, batch, t, rng):
        random = one_hot(self.label_[batch.rows], batch.y.shape[1]).to(batch.y)
        return batch._replace(y=torch.where(self.hit_[batch.rows, None], random, batch.y))
