"""Judging: a network and its evaluation tricks applied to whole splits; also what tricks see of the data (``Fit``)."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import chain, takewhile
from typing import Any, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from trickbag.engine.crowd import Crowd
from trickbag.engine.loader import Loader, Plan
from trickbag.engine.scores import Scores, finite, score
from trickbag.ground.events import Doing, Tell, silent
from trickbag.ground.norms import batch_norms, estimate_norms, moved
from trickbag.ground.state import digest
from trickbag.ground.streams import generator
from trickbag.models.networks import Net
from trickbag.trick import Batch, Facts, Outputs, Predict, Trick, View, acting, having

NORM_IMAGES = 2048
"""Training images that the statistics of an averaged network are estimated from."""


def at_once(device: torch.device, batch_size: int) -> int:
    """How many images are judged at once: on a GPU more than are trained, since nothing is kept for a backward pass; on a CPU
    as many as its caches hold (``python -m benchmarks.judging``)."""
    return 32 if device.type == "cpu" else max(128, 4 * batch_size)


def float_outputs(outputs: Outputs) -> Outputs:
    """Outputs with features and logits in fp32, where losses and scores are computed."""
    return outputs._replace(features=outputs.features.float(), logits=outputs.logits.float())


def predictor(model: nn.Module, tricks: Sequence[Trick], autocast: Callable[[], AbstractContextManager[Any]]) -> Predict:
    """How a batch of judged views becomes outputs: the network in evaluation mode, wrapped by the tricks."""
    model.eval()

    def plain(x: Tensor) -> Outputs:
        with torch.inference_mode(), autocast():
            outputs = model(x)
        return float_outputs(outputs)

    return wrapped(plain, tricks)


def wrapped(predict: Predict, tricks: Sequence[Trick]) -> Predict:
    """How a network predicts, wrapped by the tricks."""
    for trick in having(tricks, "predict"):
        predict = trick.predict(predict)
    return predict


def judged_view(view: View, tricks: Sequence[Trick]) -> View:
    """The view of judged images after the tricks had their say."""
    for trick in having(tricks, "view"):
        view = trick.view(view)
    return view


def mixed(images: int) -> Tensor:
    """The rows of so many images, shuffled, so that each batch that a trick adapts a network to is a sample of all."""
    return torch.randperm(images, generator=generator(0, "adapt"))


def collect(predict: Predict, batches: Iterator[Batch]) -> tuple[Tensor, Tensor]:
    """The features [N, D] and logits [N, K] of all batches, on the CPU."""
    parts = [(o.features.cpu(), o.logits.cpu()) for o in (predict(batch.x) for batch in batches)]
    return torch.cat([f for f, _ in parts]), torch.cat([z for _, z in parts])


class Judge:
    """Scores weights on splits; implements ``trick.Fit`` for the network that ``see`` was given."""

    def __init__(
        self,
        facts: Facts,
        loaders: Mapping[str, Loader],
        plan: Plan,
        tricks: Sequence[Trick],
        fabric: Fabric,
        network: Callable[[str], nn.Module],
        kept: Callable[[str], tuple[Tensor, float]],
        tell: Tell = silent,
    ) -> None:
        self.facts, self.loaders, self.plan, self.tricks, self.fabric, self.network = (
            facts,
            loaders,
            plan,
            tricks,
            fabric,
            network,
        )
        self._kept, self.tell = kept, tell
        self.batch_size = at_once(fabric.device, facts.batch_size)
        self._features: dict[tuple[str, ...], tuple[Tensor, float]] = {}
        self._body = ""
        self._met: set[tuple[str, ...]] = set()
        self.spared = self.share = 0.0

    def begin(self) -> None:
        """Another recipe asks from now on; ``spared`` are the seconds that what it finds computed would have taken."""
        self._met, self.spared = set(), 0.0

    def see(self, model: nn.Module, before: Sequence[Trick] = ()) -> None:
        """From now on features and logits are those of this network and the tricks before the one that asks."""
        self.model, self.before = model, before

    def reach(self, share: float) -> None:
        """From now on this share of training is done: images of ``batches`` are changed by the tricks that act then."""
        self.share = share

    def features(self, split: str) -> tuple[Tensor, Tensor]:
        """[N, D] features and [N, K] targets of a split, on the CPU; computed once as long as nothing but the head changes."""
        heads = cast(Net, self.model).head_names
        body = digest({name: value for name, value in self.model.state_dict().items() if name not in heads})
        if body != self._body:
            self._features.clear()
            self._body = body
        key = (split, *map(str, [trick for trick in self.before if {"view", "adapt", "predict"} & set(trick.plugs())]))
        if key not in self._features:
            began = time.perf_counter()
            found = self.outputs(self.model, split, self.before)[0]
            self._features[key] = found, time.perf_counter() - began
        elif key not in self._met:
            self.spared += self._features[key][1]
        self._met.add(key)
        return self._features[key][0], self.targets(split)

    def logits(self, split: str) -> tuple[Tensor, Tensor]:
        """[N, K] logits as predicted by the network and the tricks before the one that asks, and [N, K] targets."""
        return self.outputs(self.model, split, self.before)[1], self.targets(split)

    def batches(self) -> Iterator[Batch]:
        """Training batches as at the end of training, about NORM_IMAGES images, the same at every call until training goes on.

        By the tricks that act now: one that is still to begin changes nothing, or runs would differ by it from the start.
        """
        epoch = self.plan.epochs
        parts = takewhile(lambda part: part.position < NORM_IMAGES, self.plan.last(self.share))
        for part, batch in self.loaders["train"].train(parts, epoch):
            for trick in acting(self.tricks, "batch", part.t):
                batch = trick.batch(batch, part.after, generator(self.facts.seed, trick.name(), epoch, part.position))
            yield batch

    def unlabelled(self, epochs: int, batch_size: int) -> Iterator[tuple[float, Tensor]]:
        """All images beside which none needs a label, in as many epochs, with the share done before each step."""
        crowd = next(Crowd(self.loaders["beside"], trick) for trick in having(self.tricks, "beside"))
        steps = epochs * len(crowd.parts(torch.arange(self.facts.unlabelled), batch_size))
        batches = chain.from_iterable(crowd.alone(epoch, batch_size, self.facts.size) for epoch in range(epochs))
        for step, x in enumerate(batches):
            yield step / steps, x
            self.tell(Doing("training without labels", step + 1, steps))

    def judged(self, split: str, size: int = 0) -> Iterator[Batch]:
        """The judged views of a split in order, at ``size`` pixels or at the recipe's."""
        loader = self.loaders[split]
        view = View(round(size * loader.view.resize / loader.view.crop), size) if size else loader.view
        return loader.judged(torch.arange(len(loader.labels)), self.batch_size, view)

    def groups(self) -> tuple[Tensor, Tensor]:
        """[N] groups, numbered from 0 on, and [N] labels of the training images; one without a group is a group of its own."""
        train = self.loaders["train"]
        return torch.from_numpy(np.unique(train.pixels.images.groups, return_inverse=True)[1]), train.labels

    def answers(self, run: str) -> Tensor:
        """[V, N, K] logits of another run's network for the versions of all training images."""
        logits, spared = self._kept(run)
        self.spared += spared
        return logits

    def targets(self, split: str) -> Tensor:
        """[N, K] targets of a split."""
        return torch.nn.functional.one_hot(self.loaders[split].labels, len(self.facts.classes)).float()

    def outputs(self, model: nn.Module, split: str, tricks: Sequence[Trick] = ()) -> tuple[Tensor, Tensor]:
        """[N, D] features and [N, K] logits of a split."""
        loader = self.loaders[split]
        rows, view = torch.arange(len(loader.labels)), judged_view(loader.view, tricks)
        for trick in having(tricks, "adapt"):
            model = trick.adapt(model, lambda: (batch.x for batch in loader.judged(mixed(len(rows)), self.batch_size, view)))
        predict = predictor(model, tricks, self.fabric.autocast)
        return collect(predict, loader.judged(rows, self.batch_size, view))

    def score(self, model: nn.Module) -> Scores:
        """The scores of a network on validation, without evaluation tricks; the host waits for the device once."""
        loader, predict = self.loaders["val"], predictor(model, (), self.fabric.autocast)
        batches = loader.judged(torch.arange(len(loader.labels)), self.batch_size)
        logits = torch.cat([predict(batch.x).logits for batch in batches]).cpu()
        return score(finite(logits, loader.pixels.images.paths), loader.labels)

    def weights(self, model: nn.Module, average: Trick | None) -> nn.Module:
        """The network that is judged: a trick's average with norm statistics estimated anew, or the live one."""
        if average is None:
            share_buffers(model, self.fabric)
            return model
        judged: nn.Module = average.eval_model(model)
        if judged is not model:
            pairs = zip(batch_norms(model), batch_norms(judged), strict=True)
            estimate_norms(judged, [own for live, own in pairs if moved(live)], (batch.x for batch in self.batches()))
        return judged


def share_buffers(model: nn.Module, fabric: Fabric) -> None:
    """Give every rank the running statistics of the first."""
    if fabric.world_size > 1:
        for buffer in model.buffers():
            torch.distributed.broadcast(buffer, 0)
