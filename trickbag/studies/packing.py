"""How many trainings at once this machine carries the fastest, timed with real processes side by side."""

from multiprocessing.synchronize import Barrier
from typing import NamedTuple

import torch

from trickbag.engine.assemble import kept_pixels
from trickbag.engine.pixels import Data, Files
from trickbag.engine.speed import Decoded, time_steps
from trickbag.ground import memory, signals
from trickbag.recipe import Recipe
from trickbag.studies.execute import LOOK_SECONDS, beginning, begun_apart, share

WORTH = 1.05
"""Several at a time must be so many times as fast in all as one after another."""

SHARING = 4
"""Trainings that may share a GPU."""
CONTEXT = 1 << 30
"""Bytes of a GPU that a process takes beside its tensors, and for what is between them."""


class Packing(NamedTuple):
    """Trainings at a time, and why so many."""

    workers: int
    reason: str


def packing(recipe: Recipe, data: Data, seed: int, jobs: int) -> Packing:
    """One training at a time with all of this process's threads, or one per thread, whichever trains more images a second.

    At most SHARING on a GPU. No more than there are ``jobs``, and than the memory holds.
    """
    cores, gpu = torch.get_num_threads(), torch.cuda.is_available()
    alone = time_steps(recipe, data, Decoded(Files(data.images, data.channels, kept_pixels(recipe))), seed)
    room = free_memory() // (alone.memory + (CONTEXT if gpu else 0))
    workers = min(cores, jobs, max(1, room), SHARING if gpu else cores)
    if workers < 2:
        return Packing(1, "one training at a time: not enough cores, jobs or memory for more")
    context = beginning()
    with begun_apart():
        pool = context.Pool(workers, prepared, (cores // workers, context.Barrier(workers)))
    with pool:
        timed = pool.starmap_async(rate, [(recipe, data, seed)] * workers, chunksize=1)
        while not timed.ready():
            timed.wait(LOOK_SECONDS)
            signals.look()
        rates = timed.get()
    together, one = sum(rates), 1 / alone.train
    said = f"{together:.0f} images/s with {workers} trainings at a time, {one:.0f} with one"
    return Packing(workers, said) if together > WORTH * one else Packing(1, said)


def free_memory() -> int:
    """Bytes that programs may still take, of the GPU where there is one, where the system tells; else more than any has."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0]
    return memory.available()


_together: Barrier


def prepared(threads: int, together: Barrier) -> None:
    """Be one of several processes that time the same steps."""
    global _together
    _together = together
    share(threads)


def rate(recipe: Recipe, data: Data, seed: int) -> float:
    """Images per second of a training in this process, begun when all others are there."""
    pixels = Decoded(Files(data.images, data.channels, kept_pixels(recipe)))
    _together.wait()
    return 1 / time_steps(recipe, data, pixels, seed).train
