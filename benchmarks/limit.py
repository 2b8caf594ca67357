"""How near training comes to the machine's limit: its images per second over those of the same step on one batch in memory.

    python -m benchmarks.limit --data food10 --model resnet18 --size 128

Training is all of it: decoded files, crops and flips, progress, log and checkpoints; only judging is left out. The limit is
the same loop with a loader that hands out one batch again and again. They take turns, a training of one epoch each; the first
steps of each are not counted. What is decoded first is timed apart. Prints a Markdown table.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.machine import origin
from trickbag.engine.assemble import kept_pixels
from trickbag.engine.loader import Slice
from trickbag.engine.pixels import pixels
from trickbag.engine.precision import fabric_for
from trickbag.engine.speed import fastest
from trickbag.ground.events import Doing, Event, silent
from trickbag.recipe import Recipe
from trickbag.runs.request import Request, request
from trickbag.runs.run import Run
from trickbag.trick import Batch

SKIPPED = 8
"""Steps of an epoch that are not counted: the loader is ahead by then, the caches of the processor are warm."""


class Clock:
    """Notes when the steps of each epoch ended."""

    def __init__(self) -> None:
        self.ended: dict[str, list[float]] = {}

    def __call__(self, event: Event) -> None:
        if isinstance(event, Doing) and event.task.startswith("epoch"):
            self.ended.setdefault(event.task, []).append(time.perf_counter())


def trained(wanted: Request, recipe: Recipe, fixed: bool) -> float:
    """Images per second of a training, or with a fixed batch."""
    with tempfile.TemporaryDirectory() as folder:
        clock = Clock()
        run = Run(wanted, recipe, Path(folder) / "run", fabric_for(recipe.precision), clock)
        loop = run.assemble()
        run.resume(loop)
        if fixed:
            loop.loader.train = again(next(loop.loader.train(loop.plan.epoch(0), 0))[1])  # type: ignore[method-assign]
        run.follow(loop, lambda: 0)
        run.checkpoints.end()
        images = recipe.epochs * sum([len(part.rows) for part in loop.plan.epoch(0)][SKIPPED:])
    return images / sum(ended[-1] - ended[SKIPPED - 1] for ended in clock.ended.values())


def again(batch: Batch) -> Callable[[Iterator[Slice], int], Iterator[tuple[Slice, Batch]]]:
    """A loader's ``train`` that hands out one batch, as many images of it as a step has."""

    def train(slices: Iterator[Slice], _: int) -> Iterator[tuple[Slice, Batch]]:
        for part in slices:
            count = len(part.rows)
            yield part, Batch(batch.x[:count].clone(), batch.y[:count], batch.rows[:count])

    return train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    recipe = Recipe(model=args.model, size=args.size, batch_size=args.batch_size, epochs=1, lr=1e-3, keep="last").edit(
        ["adamw", "cosine", "random_resized_crop", "flip"]
    )
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TRICKBAG_CACHE"] = str(Path(folder) / "cache")
        wanted = request(args.data, recipe)
        recipe, _, reason = fastest(recipe, wanted.data, 0)
        began = time.perf_counter()
        pixels(wanted.data, kept_pixels(recipe), silent)
        decoded = len(wanted.data.images) / (time.perf_counter() - began)
        rates: dict[bool, list[float]] = {True: [], False: []}
        for number in range(args.rounds):
            for fixed in (True, False) if number % 2 else (False, True):
                rates[fixed].append(trained(wanted, recipe, fixed))
    ratios = [real / limit for real, limit in zip(rates[False], rates[True], strict=True)]
    print(f"{origin()}\n\n{args.model}, {args.size} px, batch {args.batch_size}: {reason}.")
    print(f"Decoding, once: {decoded:,.0f} images/s.\n\n| | images/s, median | least | most |\n|---|---|---|---|")
    for name, values in (("training", rates[False]), ("fixed batch", rates[True])):
        print(f"| {name} | {statistics.median(values):.1f} | {min(values):.1f} | {max(values):.1f} |")
    print(f"| **ratio** | {statistics.median(ratios):.3f} | {min(ratios):.3f} | {max(ratios):.3f} |")


if __name__ == "__main__":
    main()
