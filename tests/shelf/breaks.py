"""Breaks: half-way through the training of one seed, or of every one."""

from trickbag.trick import Stage, Trick


class Breaks(Trick):
    stage = Stage.LABEL
    says: str = "no such thing"
    seed: int = -1

    def setup(self, model, fit):
        self.seed_ = fit.facts.seed

    def batch(self, batch, t, rng):
        if t >= 0.5 and self.seed in (-1, self.seed_):
            raise RuntimeError(self.says)
        return batch
