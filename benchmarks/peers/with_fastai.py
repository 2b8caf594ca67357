"""Training with fastai: random crops in its item transforms, flips in its batch transforms, its Adam, its one-cycle policy."""

from fastai.callback.channelslast import ChannelsLast
from fastai.vision.all import (
    Adam,
    Callback,
    CrossEntropyLossFlat,
    Flip,
    ImageDataLoaders,
    RandomResizedCrop,
    vision_learner,
)
from program import Clock, Enough, arguments, autocast, workers

args = arguments()
clock = Clock(args)


class Timed(Callback):
    """Tells the clock of each step."""

    def after_batch(self):
        if self.training:
            clock.step()


class Autocast(Callback):
    """bf16 on the CPU, which fastai's own MixedPrecision does not know."""

    def before_batch(self):
        self.scope = autocast(args)
        self.scope.__enter__()

    def after_loss(self):
        self.scope.__exit__(None, None, None)


loaders = ImageDataLoaders.from_folder(
    args.data,
    train="train",
    valid="test",
    bs=args.batch,
    item_tfms=RandomResizedCrop(args.size, min_scale=0.08),
    batch_tfms=Flip(),
    **workers(args),
)
extra = [ChannelsLast()] * args.channels_last + [Autocast()] * args.bf16
learner = vision_learner(
    loaders,
    args.model,
    pretrained=False,
    normalize=False,
    loss_func=CrossEntropyLossFlat(),
    opt_func=Adam,
    cbs=[Timed(), *extra],
)
learner.unfreeze()
try:
    with learner.no_bar():
        learner.fit_one_cycle(1, 1e-3)
except Enough:
    clock.tell()
