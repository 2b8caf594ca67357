"""What tricks cost in a step: none, five and fifteen that act on batches, and the fifteen at values that do nothing.

    OMP_NUM_THREADS=1 python -m benchmarks.composability

cifar_resnet20 on scikit-learn's digits at 32 pixels, batch 128, fp32, one thread. The loops take turns, in another order every
round, so that a machine that slows down slows all. Prints a Markdown table: the median step and its quartiles, and the ratio to
the loop without tricks, its median over rounds with a 95 % interval (of the median, by order statistics).
"""

import os
import random
import statistics
import tempfile
from pathlib import Path

from scipy.stats import binom

from benchmarks.__main__ import loop, step_seconds
from benchmarks.machine import origin
from trickbag.data import digits
from trickbag.engine.loop import Loop
from trickbag.engine.pixels import pixels
from trickbag.ground.events import silent
from trickbag.recipe import Recipe
from trickbag.runs.request import request
from trickbag.tricks import bag

ROUNDS = 40
FIVE = ("mixup", "label_smoothing", "cosine", "clip_gradient", "ema")
FIFTEEN = (
    *FIVE, "warmup", "class_weights", "drw", "focal", "gradient_centralisation", "layer_decay", "head_lr", "no_bias_decay",
    "linear_scaling", "lookahead",
)  # fmt: skip


def off(name: str) -> str:
    """A trick at the values at which it does nothing."""
    values = bag()[name].neutral or {}
    return f"{name}({', '.join(f'{field}={value!r}' for field, value in values.items())})"


def interval(values: list[float], level: float = 0.95) -> tuple[float, float]:
    """Of the median, from order statistics."""
    ordered, n = sorted(values), len(values)
    low = max(0, int(binom.ppf((1 - level) / 2, n, 0.5)) - 1)
    return ordered[low], ordered[n - 1 - low]


def measured(loops: dict[str, Loop]) -> dict[str, list[float]]:
    """Seconds of a step, one for every round."""
    took: dict[str, list[float]] = {name: [] for name in loops}
    order = random.Random(0)
    for number in range(ROUNDS + 1):
        for name in order.sample(list(loops), len(loops)):
            seconds = step_seconds(loops[name])
            if number:  # the first round warms up
                took[name].append(seconds)
    return took


def main() -> None:
    recipe = Recipe.load("cifar").edit(precision="fp32", channels_last=False, size=32, batch_size=128)
    recipe = recipe.edit(without=[trick.name() for trick in recipe.tricks])
    neutral = [name for name in FIFTEEN if bag()[name].neutral is not None]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TRICKBAG_CACHE"] = str(Path(folder) / "cache")
        wanted = request(digits.write(Path(folder) / "digits"), recipe)
        table = pixels(wanted.data, wanted.recipe.size, silent)
        loops = {
            "none": loop(recipe, wanted, table),
            "none, again": loop(recipe, wanted, table),
            f"{len(neutral)} that are off": loop(recipe.edit(list(map(off, neutral))), wanted, table),
            "5": loop(recipe.edit(list(FIVE)), wanted, table),
            "15": loop(recipe.edit(list(FIFTEEN)), wanted, table),
        }
        took = measured(loops)
    print(
        origin()
        + f"\n\n{ROUNDS} rounds of 5 steps. Off: {', '.join(map(off, neutral))}.\n\nFive: {', '.join(FIVE)}; fifteen: also"
    )
    print(f"{', '.join(FIFTEEN[5:])}.\n\n| tricks | step, ms | quartiles | ratio to none | 95 % |\n|---|---|---|---|---|")
    for name, seconds in took.items():
        low, middle, high = statistics.quantiles(seconds)
        ratios = [own / bare for own, bare in zip(seconds, took["none"], strict=True)]
        ends = interval(ratios)
        print(
            f"| {name} | {1000 * middle:.1f} | {1000 * low:.1f} to {1000 * high:.1f} | {statistics.median(ratios):.3f} "
            f"| {ends[0]:.3f} to {ends[1]:.3f} |"
        )


if __name__ == "__main__":
    main()
