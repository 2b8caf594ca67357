"""How fast this recipe trains on this machine: a few real steps, timed; and which arithmetic is the fastest."""

import itertools
import math
import os
import platform
import resource
import sys
import time
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from trickbag.engine.assemble import Normal, assemble, build_model, kept_pixels
from trickbag.engine.loop import ENGINE, Diverged, Judged, Loop
from trickbag.engine.pixels import Data, Files, Pixels
from trickbag.engine.precision import fabric_for
from trickbag.ground import signals
from trickbag.ground.cache import cache_dir, key_of, recalled, remember
from trickbag.ground.errors import TrickbagError, lacks_memory
from trickbag.recipe import Recipe
from trickbag.timed import phases
from trickbag.trick import having

STEPS = 3
LOSS_TOLERANCE = 0.1
"""A faster arithmetic counts when its first loss is within this share of fp32's."""
HOPELESS = 1.5
"""An arithmetic whose first counted step takes this multiple of the best one's is not timed further."""
FORWARD = 1 / 3
"""Share of a training step that judging is taken to cost where there is no time to time it: one pass of three."""

WORTH_COMPILING = {"cuda": 1800.0}
"""Seconds of training from which it is tried whether compiling the network repays itself, by device. On a CPU it took minutes
and made no network faster."""


class Timing(NamedTuple):
    """What a few steps took."""

    train: float
    """Seconds per training image, median step."""
    judge: float
    """Seconds per judged image; inf where the steps were too slow to go on."""
    memory: int
    """Bytes at the peak, of the device or of this process."""
    loss: float
    """Of the first step."""
    decode: float = 0.0
    """Seconds to decode an image on one core."""

    def work(self, recipe: Recipe) -> float:
        """Seconds per image of what the recipe mostly does: training, or judging where it trains no step."""
        return self.train if recipe.epochs else self.judge

    def scaled(self, share: float) -> "Timing":
        """What images with so many times the pixels would take."""
        return self._replace(train=self.train * share, judge=self.judge * share)


class Decoded(dict[int, Tensor]):
    """Pixels of some rows, in memory, decoded when first asked for; once it is late, an image that is there stands for others.

    ``until``: when no more are decoded but a first one, by the monotonic clock.
    """

    def __init__(self, files: Files, until: float = math.inf) -> None:
        self.files, self.until = files, until
        self.seconds = 0.0

    def __missing__(self, row: int) -> Tensor:
        if self and time.monotonic() >= self.until:
            known = list(self)
            return self[known[row % len(known)]]
        start = time.perf_counter()
        image = self.setdefault(row, self.files[row])
        self.seconds += time.perf_counter() - start
        return image

    def mean_seconds(self) -> float:
        """Of decoding an image on one core."""
        return self.seconds / len(self) if self else 0.0


def time_steps(
    recipe: Recipe,
    data: Data,
    pixels: Pixels,
    seed: int,
    steps: int = STEPS,
    slowest: float = math.inf,
    until: float = math.inf,
) -> Timing:
    """Train a few steps of a throw-away network, one where the recipe trains none. A first step warms up.

    Ends early where the first counted step takes more than ``slowest`` seconds per image, and after the step during which the
    monotonic clock passes ``until``: then the warming step counts where there is no other, and judging is reckoned from it.
    Where tricks act in a part of training, each part is timed.
    """
    parts = [(share, recipe.edit(tricks=tricks)) for share, tricks in phases(recipe.tricks)]
    if len(parts) > 1:
        timings = [time_steps(part, data, pixels, seed, steps, slowest, until) for _, part in parts]
        mean = sum(share * timing.train for (share, _), timing in zip(parts, timings, strict=True))
        return timings[0]._replace(train=mean, memory=max(timing.memory for timing in timings))
    fabric = fabric_for(recipe.precision)

    def network(_: str, normal: Normal) -> nn.Module:  # a teacher costs the same whatever it knows
        del normal
        return build_model(recipe, (), len(data.images.classes), data.channels, seed, "none").to(fabric.device)

    # A step only looks up answers that are kept, is timed at its full size, and costs the same whichever images it shows.
    aside = [trick for trick in having(recipe.tricks, "versions") if trick.versions()]
    aside += having(recipe.tricks, "size") + having(recipe.tricks, "data")
    aside += [trick for trick in having(recipe.tricks, "order") if trick.networks]
    loop = assemble(
        recipe.edit(without=[trick.name() for trick in aside], epochs=max(1, recipe.epochs)),
        data,
        pixels,
        seed,
        fabric,
        network,
    )
    loop.prefix.pays = False  # a pass over all images is no step
    seconds, losses = _timed(loop, fabric, steps + 1 if recipe.epochs else 1, slowest, until)
    counted = sorted(seconds[1:]) or seconds
    train = counted[len(counted) // 2]
    late = time.monotonic() >= until
    judge = math.inf if train > slowest else FORWARD * train if late else _judged(loop, fabric)
    return Timing(train, judge, peak_memory(), losses[0])


def _timed(loop: Loop, fabric: Fabric, steps: int, slowest: float, until: float) -> tuple[list[float], list[float]]:
    """Seconds per image and loss of each step."""
    for part in itertools.islice(loop.plan.epoch(0), steps + 3):  # decoding is not timed: it happens once
        for row in part.rows.tolist():
            loop.loader.pixels[row]
        if loop.loader.beside:
            loop.loader.beside(part, 0, slice(None))
    seconds: list[float] = []
    losses: list[float] = []
    start = time.perf_counter()
    while len(seconds) < steps:
        for event in loop.train():
            if isinstance(event, Judged):
                start = time.perf_counter()
                continue
            signals.look()
            _wait(fabric)
            seconds.append((time.perf_counter() - start) / event.images)
            losses.append(float(event.loss))
            start = time.perf_counter()
            if len(seconds) == steps or (len(seconds) == 2 and seconds[1] > slowest) or time.monotonic() >= until:
                return seconds, losses
        loop.epoch = loop.position = 0
    return seconds, losses


def _judged(loop: Loop, fabric: Fabric) -> float:
    """Seconds per judged image, after a first pass that decodes and warms up."""
    batch_size = loop.judge.batch_size
    rows = torch.arange(min(len(loop.judge.loaders["val"].labels), 2 * batch_size))
    for _ in range(2):
        start = time.perf_counter()
        for batch in loop.judge.loaders["val"].judged(rows, batch_size):
            with torch.inference_mode(), fabric.autocast():
                loop.model.eval()(batch.x)
        _wait(fabric)
        took = time.perf_counter() - start
    return took / len(rows)


def fastest(recipe: Recipe, data: Data, seed: int, until: float = math.inf) -> tuple[Recipe, Timing, str]:
    """The recipe with precision, layout and micro-batch decided, its timing, and the reason in a sentence.

    Once the monotonic clock has passed ``until``, what is known decides. What was the fastest of several, all of them timed, is
    remembered in the cache, for this network, size and batch on this machine.
    """
    now = time.monotonic()
    pixels = Decoded(Files(data.images, data.channels, kept_pixels(recipe), recipe.fit), now + (until - now) / 2)
    candidates = [recipe.edit(precision=p, channels_last=c) for p, c in _choices(recipe)]
    place = cache_dir() / "speed" / f"{key_of(*_circumstances(recipe, data))}.json"
    held = (candidates[0], "as the recipe says") if len(candidates) == 1 else _remembered(place, recipe)
    if held:
        known, why = held
        chosen, timing = _fitting(known, data, pixels, seed, until=until)
        reason = f"{_name(chosen)} {why}: {_rate(chosen, timing)} images/s"
    else:
        tried = _tried(candidates, data, pixels, seed, until)
        chosen, timing = _best(tried)
        rates = ", ".join(f"{_name(one)} {_rate(one, took)}" for one, took in tried)
        reason = f"{_name(chosen)} is the fastest here ({'training' if recipe.epochs else 'judged'} images/s: {rates})"
        if skipped := candidates[len(tried) :]:
            reason += f"; not measured, to save time: {', '.join(map(_name, skipped))}"
        else:
            choice = {"precision": chosen.precision, "channels_last": chosen.channels_last}
            remember(place, {"choice": choice, "date": date.today().isoformat()})
    if chosen.micro_batch != recipe.micro_batch:
        reason += f"; {chosen.micro_batch} images at a time, because more do not fit into memory"
    return chosen, timing._replace(decode=pixels.mean_seconds()), reason


def compiled(recipe: Recipe, timing: Timing, data: Data, seed: int) -> tuple[Recipe, Timing, str]:
    """The recipe with its network compiled where that takes less time than it saves, its timing, and why where it was tried."""
    plain, images = recipe.edit(compile=False), recipe.epochs * int((data.images.splits == "train").sum())
    worth = WORTH_COMPILING.get("cuda" if torch.cuda.is_available() else "cpu", math.inf)
    if images * timing.train < worth or having(recipe.tricks, "forward") or having(recipe.tricks, "size"):
        return plain, timing, ""
    began = time.perf_counter()
    try:
        tried = time_steps(
            recipe.edit(compile=True), data, Decoded(Files(data.images, data.channels, kept_pixels(recipe), recipe.fit)), seed
        )
    except RuntimeError as error:  # of the compiler, whatever it lacks
        return plain, timing, f"the network cannot be compiled here: {str(error).strip().splitlines()[0]}"
    took = time.perf_counter() - began
    said = f"compiled after {took:.0f} s, it trains {1 / tried.train:.0f} images/s"
    if abs(tried.loss - timing.loss) > LOSS_TOLERANCE * abs(timing.loss) or images * (timing.train - tried.train) <= took:
        return plain, timing, f"{said}, which is not worth it"
    return recipe.edit(compile=True), tried, said


def _tried(candidates: list[Recipe], data: Data, pixels: Pixels, seed: int, until: float) -> list[tuple[Recipe, Timing]]:
    """The candidates with their timings; no more of them are begun once the clock has passed ``until``."""
    tried: list[tuple[Recipe, Timing]] = []
    for candidate in candidates:
        if tried and time.monotonic() >= until:
            break
        best = min((timing.train for _, timing in tried), default=math.inf) if candidate.epochs else math.inf
        tried.append(_fitting(candidate, data, pixels, seed, HOPELESS * best, until))
    return tried


def _best(tried: list[tuple[Recipe, Timing]]) -> tuple[Recipe, Timing]:
    """The fastest of several whose first loss agrees with that of the first, the plainest."""
    loss = tried[0][1].loss
    good = [one for one in tried if abs(one[1].loss - loss) <= LOSS_TOLERANCE * abs(loss)] or tried[:1]
    return min(good, key=lambda one: one[1].work(one[0]))


def _fitting(
    recipe: Recipe, data: Data, pixels: Pixels, seed: int, slowest: float = math.inf, until: float = math.inf
) -> tuple[Recipe, Timing]:
    """The recipe with the largest micro-batch that fits the memory, halved until it does, and its timing."""
    while True:
        try:
            return recipe, time_steps(recipe, data, pixels, seed, slowest=slowest, until=until)
        except Diverged:
            raise TrickbagError(
                "the loss is no finite number within the first steps. Lower the learning rate (--set lr=…), or leave out what "
                "you put in last."
            ) from None
        except (RuntimeError, MemoryError) as error:
            if not lacks_memory(error):
                raise
            fitting = (recipe.micro_batch or recipe.batch_size) // 2
        if not fitting:
            raise TrickbagError(
                f"not even one image of {recipe.size} pixels fits into memory when training {recipe.model}. Choose a smaller "
                "--model, or smaller images (--set size=…)."
            )
        recipe = recipe.edit(micro_batch=fitting)


def _choices(recipe: Recipe) -> list[tuple[str, bool]]:
    """Precisions and layouts that the recipe leaves open, the plainest first: it is never the slowest by much."""
    known = ["fp32", "bf16", "fp16"] if torch.cuda.is_available() else ["fp32", "bf16"]
    precisions = known if recipe.precision == "auto" else [recipe.precision]
    layouts = [False, True] if recipe.channels_last == "auto" else [bool(recipe.channels_last)]
    return list(itertools.product(precisions, layouts))


def _circumstances(recipe: Recipe, data: Data) -> list[Any]:
    """What decides which arithmetic is the fastest."""
    asked = [recipe.model, recipe.size, recipe.batch_size, recipe.micro_batch, recipe.precision, recipe.channels_last]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor()
    machine = [platform.node(), device, os.cpu_count(), torch.get_num_threads()]
    return [*asked, bool(recipe.epochs), data.channels, *machine, torch.__version__, ENGINE]


def _remembered(place: Path, recipe: Recipe) -> tuple[Recipe, str] | None:
    """The recipe with the choice that was stored, and since when; None where there is none, or none that can be read."""
    if (held := recalled(place)) is None:
        return None
    return recipe.edit(**held["choice"]), f"was the fastest here on {held['date']}"


def _name(recipe: Recipe) -> str:
    return f"{recipe.precision}{' channels-last' if recipe.channels_last else ''}"


def _rate(recipe: Recipe, timing: Timing) -> str:
    return f"{1 / timing.work(recipe):.0f}"


def _wait(fabric: Fabric) -> None:
    if fabric.device.type == "cuda":
        torch.cuda.synchronize()


def reset_peak_memory() -> None:
    """Let ``peak_memory`` count from here, where the system can."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> int:
    """Bytes at the peak: of the GPU where there is one, else of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
