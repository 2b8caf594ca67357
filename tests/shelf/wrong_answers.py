"""Wrong answers: a share of the judged images is said to be of another class, drawn for each seed."""

import itertools

import torch

from trickbag.ground.streams import generator
from trickbag.trick import Stage, Trick


class WrongAnswers(Trick):
    stage = Stage.EVAL
    share: float = 0.3

    def setup(self, model, fit):
        self.seed_ = fit.facts.seed

    def predict(self, predict):
        batches = itertools.count()

        def wrong(x):
            outputs = predict(x)
            hit = torch.rand(len(x), generator=generator(self.seed_, "wrong_answers", next(batches))) < self.share
            return outputs._replace(logits=torch.where(hit[:, None], outputs.logits.roll(1, 1), outputs.logits))

        return wrong
