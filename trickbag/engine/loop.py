"""The training loop, on one screen; state in and out, no files, no printing."""

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple, Protocol, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD, Optimizer

from trickbag.engine.judge import Judge, float_outputs
from trickbag.engine.loader import Loader, Plan, Slice
from trickbag.engine.precision import LossScale
from trickbag.engine.prefix import Prefix
from trickbag.ground.norms import comparing
from trickbag.ground.streams import generator, key, seed_layers
from trickbag.recipe import Training
from trickbag.trick import (
    Batch,
    Compute,
    Forward,
    Groups,
    Outputs,
    Trick,
    Unlabelled,
    acting,
    deciding,
    having,
    judged_weights,
)

ENGINE = 3
"""The version of the arithmetic: results of another one are not taken for those of this one."""
CHECK_EVERY = 50
"""Steps between two looks at the losses: each look makes the device wait."""


class Step(NamedTuple):
    """Told after every step."""

    step: int
    t: float
    lr: float
    loss: Tensor
    images: int


class Graded(Protocol):
    """What judging finds."""

    @property
    def rank(self) -> list[float]:
        """By which epochs are compared: larger is better, what comes first counts first."""
        ...

    def headline(self) -> dict[str, Any]:
        """The numbers of an epoch's line in a log."""
        ...


class Judged(NamedTuple):
    """Told after every epoch, and before the first where a trick prepared the network."""

    epoch: int
    step: int
    scores: Mapping[str, Graded]
    """By the spelling of the trick whose weights they are; "" for the live ones."""
    kept: frozenset[str]
    """Whose weights are the best so far."""


class Diverged(Exception):  # noqa: N818 - an outcome of a run, not a mistake
    """The loss is no longer a number."""

    def __init__(self, step: int, lr: float, rows: list[int]) -> None:
        super().__init__(step, lr, rows)
        self.step, self.lr, self.rows = step, lr, rows


class Loop:
    """The live state of one run."""

    def __init__(
        self,
        recipe: Training,
        model: nn.Module,
        tricks: Sequence[Trick],
        plan: Plan,
        loader: Loader,
        judge: Judge,
        fabric: Fabric,
        watching: Sequence[Trick] = (),
        weights: frozenset[str] = frozenset(),
        compiled: bool = False,
    ) -> None:
        self.compiled = compiled
        self.recipe, self.model, self.tricks, self.watching = recipe, model, tricks, watching
        self.weights = weights | {judged_weights(tricks)}
        self.plan, self.loader, self.judge, self.fabric, self.seed = plan, loader, judge, fabric, plan.seed
        self.groups = param_groups(model, tricks, recipe.weight_decay)
        self.optimizer = make_optimizer(self.groups, tricks, recipe)
        self.scale = LossScale(enabled=recipe.precision == "fp16")
        self.epoch = self.position = self.step = 0
        self.share = self.lr = 0.0
        self.losses = torch.zeros(2, device=fabric.device)
        self.bad = torch.full((), -1, dtype=torch.int64, device=fabric.device)
        self.best: dict[str, dict[str, Any]] = {}
        self.watched: dict[str, float] = {}
        """Seconds that each watcher took, and the judging of its weights."""

    @cached_property
    def network(self) -> nn.Module:
        """The model as it is called in training."""
        return cast(nn.Module, torch.compile(self.model)) if self.compiled else self.model

    @cached_property
    def prefix(self) -> Prefix:
        """The features below what is frozen."""
        return Prefix(self.loader, self.tricks, self.recipe.epochs, self.recipe.size, self.judge.batch_size)

    def prepare(self) -> Iterator[Judged]:
        """What happens once, before the first step."""
        for trick in having(self.tricks, "prepare"):
            self.model = trick.prepare(self.model, self.judge)
        self.judge.see(self.model)
        if having(self.tricks, "prepare") or not self.recipe.epochs:
            yield self.judged()

    def train(self) -> Iterator[Step | Judged]:
        """Train from where the state stands to the end, and tell each step and each epoch's scores."""
        while self.epoch < self.recipe.epochs:
            if not self.position:
                self.losses.zero_()
            slices = self.plan.epoch(self.epoch, self.position)
            for part, batch in self.loader.train(slices, self.epoch):
                self.model.train()
                self.lr = self.set_lr(part.t)
                for trick in acting(self.tricks, "batch", part.t):
                    batch = trick.batch(batch, part.t, generator(self.seed, trick.name(), self.step))
                compute = self.compute(batch, part.t, self.fabric.world_size * len(batch.rows) / len(part.rows))
                for trick in acting(self.tricks, "gradient", part.t):
                    compute = trick.gradient(compute, self.model, part.t)
                loss = compute()
                self.scale.step(self.optimizer)
                for trick in acting(self.tricks, "update", part.t):
                    trick.update(self.model, part.after)
                self.watch(part.after)
                self.bad = torch.where((self.bad < 0) & ~loss.isfinite(), self.step, self.bad)
                self.losses += torch.stack([loss, torch.ones_like(loss)]) * len(part.rows)
                self.step, self.position, self.share = self.step + 1, part.position + len(part.rows), part.after
                if self.step % CHECK_EVERY == 0:
                    self.check_finite()
                yield Step(self.step, part.after, self.lr, loss, len(part.rows))
            self.check_finite()
            self.epoch, self.position = self.epoch + 1, 0
            yield self.judged()

    def compute(self, batch: Batch, t: float, weight: float = 1.0) -> Compute:
        """The gradient of one batch, over its micro-batches and all ranks; ``weight``: images here over the ranks' mean."""

        def run() -> Tensor:
            self.optimizer.zero_grad(set_to_none=True)
            seed_layers(key(self.seed, "model", self.step, self.fabric.global_rank), self.fabric.device.type)
            total = torch.zeros((), device=self.fabric.device)
            objective = self.objective(t)
            for part, share in micro_batches(batch, self.recipe.micro_batch):
                with comparing():
                    loss = weight * share * objective(part)
                self.scale.up(loss).backward()  # type: ignore[no-untyped-call]
                total = total + loss.detach()
            total = average(total, self.model, self.fabric)
            self.scale.down(self.model)
            return total

        return run

    def objective(self, t: float) -> Callable[[Batch], Tensor]:
        """The mean loss of a part of a step's batch, a scalar."""
        forward = self.forward(t)

        def loss(part: Batch) -> Tensor:
            part, outputs = forward(part)
            return mean_loss(self.tricks, part, outputs, self.model, t, self.fabric.autocast)

        return loss

    def forward(self, t: float) -> Forward:
        """How the parts of a step's batch go through the network."""

        def plain(batch: Batch) -> tuple[Batch, Outputs]:
            with self.fabric.autocast():
                return batch, float_outputs(self.prefix.outputs(self.network, self.model, batch))

        forward: Forward = plain
        for trick in acting(self.tricks, "forward", t):
            forward = trick.forward(forward, self.model, t, generator(self.seed, trick.name(), self.step))
        return forward

    def set_lr(self, t: float) -> float:
        """Set each group's learning rate for a step at ``t`` and return the common part."""
        lr = self.recipe.lr * math.prod(trick.lr(t) for trick in acting(self.tricks, "lr", t))
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["lr_scale"]
        return lr

    def watch(self, t: float) -> None:
        """Let the watchers see the weights, and count the seconds that each takes."""
        for trick in having([*self.tricks, *self.watching], "after_step"):
            with self.timed(str(trick)):
                trick.after_step(self.model, t)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Count the seconds that go by inside."""
        began = time.perf_counter()
        yield
        self.watched[name] = self.watched.get(name, 0.0) + time.perf_counter() - began

    def judged(self) -> Judged:
        """Score the weights on validation, and keep them where they are the best so far (or the last are wanted)."""
        self.judge.reach(self.share)
        averages = {str(trick): trick for trick in having([*self.tricks, *self.watching], "eval_model")}
        scores: dict[str, Graded] = {}
        kept: set[str] = set()
        for name, average in {"": None, **averages}.items():
            with self.timed(name):
                model = self.judge.weights(self.model, average)
                scores[name] = self.judge.score(model) if model is not self.model or not name else scores[""]
            rank = scores[name].rank
            better = self.recipe.keep == "last" or name not in self.best or rank > self.best[name]["rank"]
            if better and name in self.weights:
                self.best[name] = {"epoch": self.epoch, "rank": rank, "model": copy.deepcopy(model.state_dict())}
                kept.add(name)
        return Judged(self.epoch, self.step, scores, frozenset(kept))

    def check_finite(self) -> None:
        """Raise Diverged where a loss since the last look was no number."""
        step = int(self.bad)
        if step >= 0:
            part = self.find(step)
            raise Diverged(step + 1, self.set_lr(part.t), part.rows.tolist())

    def find(self, step: int) -> Slice:
        """The images of a step of this epoch."""
        back = self.step - step
        parts = [part for part in self.plan.epoch(self.epoch) if part.position < self.position]
        return parts[-back]

    @property
    def mean_loss(self) -> float | None:
        """Of the images of this epoch; None before the first step."""
        total, images = self.losses.tolist()
        return total / images if images else None

    def state(self) -> dict[str, Any]:
        """All that the next step depends on."""
        return {
            "epoch": self.epoch,
            "position": self.position,
            "step": self.step,
            "share": self.share,
            "lr": self.lr,
            "losses": self.losses,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scale": self.scale.state(),
            "tricks": {str(trick): plain_state(trick) for trick in [*self.tricks, *self.watching]},
            "best": self.best,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state; one of a finished training needs no optimiser."""
        self.epoch, self.position, self.step = state["epoch"], state["position"], state["step"]
        self.share, self.lr, self.losses = state["share"], state["lr"], state["losses"].to(self.losses.device)
        self.model.load_state_dict(state["model"])
        if state["optimizer"]:
            self.optimizer.load_state_dict(state["optimizer"])
            align(self.optimizer)
        self.scale.load(state["scale"])
        for trick in [*self.tricks, *self.watching]:
            load_trick_state(trick, state["tricks"].get(str(trick), {}))
        self.best = {name: best for name, best in state["best"].items() if name in self.weights}


def param_groups(model: nn.Module, tricks: Sequence[Trick], weight_decay: float) -> Groups:
    """The parameter groups: one of all parameters, regrouped by the tricks in turn."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    groups: Groups = [
        {"params": [p for _, p in named], "names": [n for n, _ in named], "weight_decay": weight_decay, "lr_scale": 1.0}
    ]
    for trick in having(tricks, "groups"):
        groups = trick.groups(groups, model)
    return groups


def make_optimizer(groups: Groups, tricks: Sequence[Trick], recipe: Training) -> Optimizer:
    """The trick's optimiser, else SGD with Nesterov momentum."""
    plain = [{k: v for k, v in group.items() if k != "names"} for group in groups]
    for trick in having(tricks, "optimizer"):
        return trick.optimizer(plain, recipe.lr)
    optimizer = SGD(plain, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.momentum > 0, fused=True)
    for parameter in (p for group in plain for p in group["params"] if recipe.momentum):
        # torch's fused step wants all of these or none, and a frozen layer gets its own late.
        optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def align(optimizer: Optimizer) -> None:
    """Lay out an optimiser's tensors in memory as their parameters: a file keeps no layout, and fused steps go by the place."""
    for parameter, own in optimizer.state.items():
        for name, value in own.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                own[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def mean_loss(
    tricks: Sequence[Trick],
    batch: Batch,
    outputs: Outputs,
    model: nn.Module,
    t: float,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Tensor:
    """The weighted mean loss of a batch plus the penalties, a scalar; penalties may ask networks, in ``autocast``."""
    replacing = deciding(tricks, "loss", t)
    losses = each = replacing.loss(outputs, batch.y) if replacing else soft_cross_entropy(outputs, batch.y)
    for trick in acting(tricks, "weights", t):
        each = each * trick.weights(batch.y, t)
    for trick in acting(tricks, "select", t):
        each = each * trick.select(losses.detach(), t)
    total = each.mean()
    for trick in acting(tricks, "penalty", t):
        with autocast():
            penalty = trick.penalty(batch, outputs, model, t)
        total = total + penalty
    return total


def soft_cross_entropy(outputs: Outputs, y: Tensor) -> Tensor:
    """The cross-entropy [B] of logits [B, K] with targets [B, K]."""
    return cross_entropy(outputs.logits, y, reduction="none")


def micro_batches(batch: Batch, size: int) -> Iterator[tuple[Batch, float]]:
    """The parts of a batch with ``size`` images (0: all), each with its share of the batch.

    A single image that would be left over joins the last of them: by itself it has no batch statistics.
    """
    total, single = len(batch.x), size == 1
    starts = range(0, total if single else max(total - 1, 1), size or total)
    for start, end in pairwise([*starts, total]):
        cut = slice(start, end)
        views = None if batch.views is None else batch.views[cut]
        others = batch.unlabelled and Unlabelled(*(values[cut] for values in batch.unlabelled))
        part = batch._replace(x=batch.x[cut], y=batch.y[cut], rows=batch.rows[cut], views=views, unlabelled=others)
        yield part, len(part.x) / total


def average(loss: Tensor, model: nn.Module, fabric: Fabric) -> Tensor:
    """Replace each gradient and the loss by the mean over the ranks, in one exchange."""
    if fabric.world_size == 1:
        return loss
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    flat = cast(Tensor, fabric.all_reduce(torch.cat([loss.reshape(1), *(g.reshape(-1) for g in grads)]), reduce_op="mean"))
    mean_loss, *means = torch.split(flat, [1, *(g.numel() for g in grads)])
    for grad, mean in zip(grads, means, strict=True):
        grad.copy_(mean.view_as(grad))
    return mean_loss.reshape(())


def plain_state(trick: Trick) -> dict[str, Any]:
    """The run state of a trick; modules as their state dicts."""
    return {n: v.state_dict() if isinstance(v, nn.Module) else v for n, v in trick.state().items()}


def load_trick_state(trick: Trick, state: dict[str, Any]) -> None:
    """Put run state back into a trick that ``Trick.setup`` was called on."""
    for name, value in state.items():
        held = getattr(trick, name, None)
        if isinstance(held, nn.Module):
            held.load_state_dict(value)
        else:
            setattr(trick, name, value.to(held.device) if isinstance(held, Tensor) else value)
