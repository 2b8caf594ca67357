"""How fast this recipe trains on this machine: a few real steps, timed; and which arithmetic is the fastest."""

import itertools
import resource
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from trickbag.engine.assemble import Normal, assemble, build_model, kept_pixels
from trickbag.engine.loop import Judged, Loop
from trickbag.engine.pixels import Data, Files, Pixels
from trickbag.engine.precision import fabric_for
from trickbag.recipe import Recipe
from trickbag.trick import having

STEPS = 3
LOSS_TOLERANCE = 0.1
"""A faster arithmetic counts when its first loss is within this share of fp32's."""


class Timing(NamedTuple):
    """What a few steps took."""

    train: float
    """Seconds per training image, median step."""
    judge: float
    """Seconds per judged image."""
    memory: int
    """Bytes at the peak, of the device or of this process."""
    loss: float
    """Of the first step."""
    decode: float = 0.0
    """Seconds to decode an image on one core."""


class Decoded(dict[int, Tensor]):
    """Pixels of some rows, decoded when first asked for, in memory."""

    def __init__(self, files: Files) -> None:
        self.files = files

        self.seconds = 0.0

    def __missing__(self, row: int) -> Tensor:
        start = time.perf_counter()
        image = self.setdefault(row, self.files[row])
        self.seconds += time.perf_counter() - start
        return image

    def mean_seconds(self) -> float:
        """Of decoding an image on one core."""
        return self.seconds / len(self) if self else 0.0


def time_steps(recipe: Recipe, data: Data, pixels: Pixels, seed: int, steps: int = STEPS) -> Timing:
    """Train a few steps of a throw-away network, one where the recipe trains none. A first step warms up."""
    fabric = fabric_for(recipe.precision)

    def network(_: str, normal: Normal) -> nn.Module:  # a teacher costs the same whatever it knows
        del normal
        return build_model(recipe, (), len(data.images.classes), data.channels, seed, "none").to(fabric.device)

    # A step only looks up answers that are kept, and is timed at its full size.
    aside = [trick for trick in having(recipe.tricks, "versions") if trick.versions()] + having(recipe.tricks, "size")
    loop = assemble(
        recipe.edit(without=[trick.name() for trick in aside], epochs=max(1, recipe.epochs)),
        data,
        pixels,
        seed,
        fabric,
        network,
    )
    seconds, losses = _timed(loop, fabric, steps + 1 if recipe.epochs else 1)
    rows = torch.arange(min(len(loop.judge.loaders["val"].labels), 2 * recipe.batch_size))
    for _ in range(2):
        start = time.perf_counter()
        for batch in loop.judge.loaders["val"].judged(rows, recipe.batch_size):
            with torch.no_grad(), fabric.autocast():
                loop.model.eval()(batch.x)
        _wait(fabric)
        judged = (time.perf_counter() - start) / len(rows)
    counted = sorted(seconds[1:]) or seconds
    return Timing(counted[len(counted) // 2], judged, peak_memory(), losses[0])


def _timed(loop: Loop, fabric: Fabric, steps: int) -> tuple[list[float], list[float]]:
    for part in itertools.islice(loop.plan.epoch(0), steps + 3):  # decoding is not timed: it happens once
        for row in part.rows.tolist():
            loop.loader.pixels[row]
    seconds: list[float] = []
    losses: list[float] = []
    start = time.perf_counter()
    while len(seconds) < steps:
        for event in loop.train():
            if isinstance(event, Judged):
                start = time.perf_counter()
                continue
            _wait(fabric)
            seconds.append((time.perf_counter() - start) / event.images)
            losses.append(float(event.loss))
            start = time.perf_counter()
            if len(seconds) == steps:
                break
        loop.epoch = loop.position = 0
    return seconds, losses


def fastest(recipe: Recipe, data: Data, seed: int) -> tuple[Recipe, Timing, str]:
    """The recipe with precision and layout decided, its timing, and the reason in a sentence."""
    pixels = Decoded(Files(data.images, data.channels, kept_pixels(recipe)))
    candidates = [recipe.edit(precision=p, channels_last=c) for p, c in _choices(recipe)]
    if len(candidates) == 1:
        timing = time_steps(candidates[0], data, pixels, seed)._replace(decode=pixels.mean_seconds())
        return candidates[0], timing, f"{candidates[0].precision} as the recipe says: {1 / timing.train:.0f} images/s"
    timings = [time_steps(c, data, pixels, seed) for c in candidates]
    good = [t for t in timings if abs(t.loss - timings[0].loss) <= LOSS_TOLERANCE * abs(timings[0].loss)]
    best = min(good or timings[:1], key=lambda t: t.train if recipe.epochs else t.judge)
    chosen = candidates[timings.index(best)]
    best = best._replace(decode=pixels.mean_seconds())
    work = "training" if recipe.epochs else "judged"
    seconds = [t.train if recipe.epochs else t.judge for t in timings]
    rates = ", ".join(f"{_name(c)} {1 / s:.0f}" for c, s in zip(candidates, seconds, strict=True))
    return chosen, best, f"{_name(chosen)} is the fastest here ({work} images/s: {rates})"


def _choices(recipe: Recipe) -> Sequence[tuple[str, bool]]:
    precisions = ["fp32", "bf16"] if recipe.precision == "auto" else [recipe.precision]
    layouts = [False, True] if recipe.channels_last == "auto" else [bool(recipe.channels_last)]
    return list(itertools.product(precisions, layouts))


def _name(recipe: Recipe) -> str:
    return f"{recipe.precision}{' channels-last' if recipe.channels_last else ''}"


def _wait(fabric: Fabric) -> None:
    if fabric.device.type == "cuda":
        torch.cuda.synchronize()


def reset_peak_memory() -> None:
    """Let :func:`peak_memory` count from here, where the system can."""
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
