"""What plans for larger machines are reckoned from: several processes training one network, their exchange, decoding.

    python -m benchmarks.scaling --data food10

Trainings of one epoch with one process on one core, one process on all cores, and as many processes as cores under torchrun,
in turns. Then the time of one exchange of gradients of some lengths between two processes (gloo), decoding on one core, and
what the threads of a loader make of decoded images.
Prints Markdown tables.
"""

import argparse
import json
import os
import statistics
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from benchmarks.command import output
from benchmarks.machine import origin
from trickbag.data.reading import read
from trickbag.engine.assemble import assemble, kept_pixels
from trickbag.engine.pixels import Files, pixels
from trickbag.engine.precision import fabric_for
from trickbag.ground.events import silent
from trickbag.recipe import Recipe
from trickbag.runs.request import request

NUMBERS = (1_500_000, 11_700_000, 25_600_000)
"""Of parameters: tf_mobilenetv3_small_100, resnet18, resnet50."""
EXCHANGES = 7
SIZES = (128, 224)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", required=True, help="a folder with train and test, class folders in each")
    parser.add_argument("--model", default="tf_mobilenetv3_small_100")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


def trained(args: argparse.Namespace, folder: Path, processes: int, threads: int, number: int) -> float:
    """Images per second of a training by all processes."""
    out = folder / f"{processes}-{threads}-{number}"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "--no-python"]
    trickbag = Path(sysconfig.get_path("scripts")) / "trickbag"
    output(
        [*(torchrun if processes > 1 else []), trickbag, "train", args.data, "--recipe", folder / "recipe.toml", "--out", out],
        OMP_NUM_THREADS=str(threads), TRICKBAG_CACHE=str(folder / "cache"),
    )  # fmt: skip
    return json.loads((out / "result.json").read_text())["images_per_second"]


def exchange(rank: int, port: int, number: int, told: "mp.SimpleQueue[float]") -> None:
    """Be one of two processes that average vectors; the first tells the median seconds."""
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    vector, seconds = torch.ones(number), []
    for _ in range(EXCHANGES + 1):
        dist.barrier()
        began = time.perf_counter()
        dist.all_reduce(vector)
        seconds.append(time.perf_counter() - began)
    if not rank:
        told.put(statistics.median(seconds[1:]))
    dist.destroy_process_group()


def exchanged(number: int, port: int) -> float:
    """Seconds of one exchange of so many numbers."""
    told: mp.SimpleQueue[float] = mp.get_context("spawn").SimpleQueue()
    mp.spawn(exchange, (port, number, told), nprocs=2)
    return told.get()


def decoded(data: str, size: int) -> tuple[float, float]:
    """Megapixels per second on one core, and bytes of a decoded image, as they are kept for a training size."""
    images = read(data)
    rows = np.linspace(0, len(images) - 1, 500).astype(int)
    files, whole = Files(images, 3, round(1.4 * size)), Files(images, 3, 10_000)
    seen = sum(whole[int(row)][0].numel() for row in rows)  # and the files are in memory then
    began = time.perf_counter()
    taken = [files[int(row)].numel() for row in rows]
    return seen / 1e6 / (time.perf_counter() - began), statistics.mean(taken)


def loaded(data: str, size: int, workers: int) -> float:
    """Images per second that so many threads of a loader cut, resize and flip."""
    recipe = Recipe(model="tf_mobilenetv3_small_100", size=size, precision="fp32", channels_last=False, epochs=1).edit(
        ["random_resized_crop", "flip"]
    )
    wanted = request(data, recipe)
    table = pixels(wanted.data, kept_pixels(recipe), silent)
    os.environ["TRICKBAG_WORKERS"] = str(workers)
    made = assemble(recipe, wanted.data, table, 0, fabric_for("fp32"), lambda run, normal: torch.nn.Identity())
    began = time.perf_counter()
    count = sum(len(batch.rows) for _, batch in made.loader.train(made.plan.epoch(0), 0))
    return count / (time.perf_counter() - began)


def main() -> None:
    args = arguments()
    cores = os.cpu_count() or 1
    kinds = {"1 process, 1 core": (1, 1), f"1 process, {cores} cores": (1, cores), f"{cores} processes": (cores, 1)}
    rates: dict[str, list[float]] = {name: [] for name in kinds}
    recipe = Recipe(
        model=args.model, size=args.size, batch_size=args.batch_size, epochs=1, keep="last", lr=1e-3, precision="fp32",
        channels_last=True,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "recipe.toml").write_text(recipe.edit(["adamw", "random_resized_crop", "flip"]).toml())
        for number in range(args.rounds):
            for kind, (processes, threads) in kinds.items():
                rates[kind].append(trained(args, folder, processes, threads, number))
    print(f"{origin()}\n\n{args.model}, {args.size} px, batch {args.batch_size} over all processes.\n")
    print("| training | images/s, median | least | most |\n|---|---|---|---|")
    for kind, values in rates.items():
        print(f"| {kind} | {statistics.median(values):.1f} | {min(values):.1f} | {max(values):.1f} |")
    print("\n| exchange between two processes, numbers | ms, median | GB/s |\n|---|---|---|")
    for place, number in enumerate(NUMBERS):
        seconds = exchanged(number, 29_700 + place)
        print(f"| {number:,} | {1000 * seconds:.1f} | {4 * number / seconds / 1e9:.2f} |")
    torch.set_num_threads(1)
    print("\n| training size | decoding, megapixels/s on one core | KB a kept image | loader, images/s, 1 thread | 2 threads |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TRICKBAG_CACHE"] = cache
        for size in SIZES:
            rate, taken = decoded(args.data, size)
            one, two = (loaded(args.data, size, workers) for workers in (1, 2))
            print(f"| {size} | {rate:.1f} | {taken / 1e3:.0f} | {one:.0f} | {two:.0f} |")


if __name__ == "__main__":
    main()
