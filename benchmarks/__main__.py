"""What the parts cost on this machine, in under three minutes: ``make bench``.

All on scikit-learn's digits, enlarged to 32 pixels, with cifar_resnet20 and the recipe ``cifar``. What is done more than once
is given by its median; the two step times are measured in turns, so that a machine that slows down slows both.
"""

import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from benchmarks import comparing
from benchmarks.machine import origin
from trickbag.data import digits
from trickbag.engine.assemble import assemble, kept_pixels
from trickbag.engine.loop import Loop
from trickbag.engine.pixels import Pixels, pixels
from trickbag.engine.precision import fabric_for
from trickbag.ground.cache import cache_dir
from trickbag.ground.events import silent
from trickbag.ground.store import Checkpoints
from trickbag.models import networks
from trickbag.recipe import Recipe
from trickbag.runs.request import Request, check, request

ROUNDS = 5
STEPS = 5
"""Timed steps of a round; one before them warms up."""


def clocked(work: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def start_up() -> Iterator[tuple[str, str]]:
    trickbag = str(Path(sysconfig.get_path("scripts")) / "trickbag")
    for name, command in (
        ("trickbag --help", [trickbag, "--help"]),
        ("trickbag tricks", [trickbag, "tricks"]),
        ("import torch alone", [sys.executable, "-c", "import torch"]),
    ):
        seconds = [clocked(lambda c=command: subprocess.run(c, check=True, capture_output=True)) for _ in range(3)]
        yield f"start-up: {name}", f"{statistics.median(seconds):.2f} s"


def cache(wanted: Request, recipe: Recipe) -> Iterator[tuple[str, str]]:
    count = len(wanted.data.images)
    build = clocked(lambda: pixels(wanted.data, kept_pixels(recipe), silent))
    yield "cache: build", f"{count / build:,.0f} images/s"
    again = clocked(lambda: pixels(wanted.data, kept_pixels(recipe), silent))
    yield "cache: open", f"{1000 * again:.1f} ms"


def loader(made: Loop) -> Iterator[tuple[str, str]]:
    def epoch(number: int) -> None:
        for _ in made.loader.train(made.plan.epoch(number), number):
            pass

    rows = torch.arange(len(made.loader.labels))
    train = statistics.median(clocked(lambda n=n: epoch(n)) for n in range(ROUNDS))
    judged = statistics.median(clocked(lambda: list(made.loader.judged(rows, 128))) for _ in range(ROUNDS))
    yield "loader: augmented", f"{len(rows) / train:,.0f} images/s"
    yield "loader: judged", f"{len(rows) / judged:,.0f} images/s"


def checkpoint(folder: Path) -> Iterator[tuple[str, str]]:
    weights = networks.build("resnet50", 1000, size=224).state_dict()
    state = dict.fromkeys(("model", "first moment", "second moment", "best"), weights)
    checkpoints, waits, saves = Checkpoints(folder), [], []
    for step in range(ROUNDS):
        waits.append(clocked(lambda step=step: checkpoints.begin(step, state)))
        saves.append(waits[-1] + clocked(checkpoints.end))
    waited, saved = statistics.median(waits), statistics.median(saves)
    yield "checkpoint: resnet50 with AdamW, 4 x 102 MB", f"training waits {1000 * waited:.0f} ms of {1000 * saved:.0f} ms"


def optimisers() -> Iterator[tuple[str, str]]:
    parameters = list(networks.build("resnet18", 10, size=128).parameters())
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, 1e-4)
    ways: dict[str, dict[str, bool]] = {"fused": {"fused": True}, "foreach": {"foreach": True}}
    made = {name: torch.optim.AdamW(parameters, lr=1e-6, **way) for name, way in ways.items()}
    took: dict[str, list[float]] = {name: [] for name in made}
    for _ in range(1 + ROUNDS):
        for name, optimizer in made.items():
            took[name].append(1000 * clocked(optimizer.step))
    for name, milliseconds in took.items():
        yield f"AdamW on resnet18: {name}", f"{statistics.median(milliseconds[1:]):.1f} ms a step"


def step_seconds(made: Loop) -> float:
    """Seconds of a step, the mean over a round."""
    made.epoch = made.position = 0
    events = made.train()
    next(events)
    seconds = clocked(lambda: [float(next(events).loss) for _ in range(STEPS)])
    events.close()
    return seconds / STEPS


def steps(loops: dict[str, Loop]) -> Iterator[tuple[str, str]]:
    took: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(ROUNDS):
        for name, made in loops.items():
            took[name].append(step_seconds(made))
    for name, seconds in took.items():
        median, batch = statistics.median(seconds), loops[name].recipe.batch_size
        rate = f"{batch / median:,.0f} images/s"
        spread = f"{1000 * min(seconds):.0f} to {1000 * max(seconds):.0f}"
        yield f"step: {name}", f"{1000 * median:.0f} ms ({spread}), {rate}"
    bare, full = (statistics.median(seconds) for seconds in took.values())
    yield "step: all tricks against none", f"{100 * (full / bare - 1):+.1f} %"


def loop(recipe: Recipe, wanted: Request, table: Pixels) -> Loop:
    return assemble(recipe, wanted.data, table, 0, fabric_for(recipe.precision), lambda run, normal: torch.nn.Identity())


def main() -> None:
    began = time.monotonic()
    recipe = Recipe.load("cifar").edit(precision="fp32", channels_last=False, size=32, batch_size=128)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TRICKBAG_CACHE"] = str(Path(folder) / "cache")
        data = digits.write(Path(folder) / "digits")
        checked = clocked(lambda: check(data))
        wanted = request(data, recipe)
        lines = [*start_up(), ("check", f"{len(wanted.data.images) / checked:,.0f} images/s"), *cache(wanted, recipe)]
        table = pixels(wanted.data, kept_pixels(recipe), silent)
        full = loop(recipe, wanted, table)
        bare = loop(recipe.edit(without=[trick.name() for trick in recipe.tricks]), wanted, table)
        lines += loader(full)
        lines += checkpoint(Path(folder) / "checkpoints")
        lines += optimisers()
        lines += comparing.lines(Path(folder))
        lines += steps({"cifar_resnet20, batch 128, no tricks": bare, f"with the {len(recipe.tricks)} of cifar": full})
    assert cache_dir().is_relative_to(folder)
    print(origin() + f"\n\ntorch threads: {torch.get_num_threads()}. {time.monotonic() - began:.0f} s in all.\n")
    print("| | |\n|---|---|")
    print("\n".join(f"| {name} | {value} |" for name, value in lines))


if __name__ == "__main__":
    main()
