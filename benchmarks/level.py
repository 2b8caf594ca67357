"""Whether an image costs the same in small and large sets: training, checking, memory over many epochs, a long manifest.

    python -m benchmarks.level --data cifar10.tar.gz

Trainings on 5,000, 15,000 and 50,000 images take turns, of ten, three and one epoch, so that all are about equally long; every
set is checked once, before its images are in any memory but the system's. Resident memory is read after each of 50 epochs on
scikit-learn's digits, its slope is that of the least squares over all but the first five. The manifest has ImageNet's number
of rows and of classes; a process of its own reads, divides and fingerprints it. Prints Markdown tables.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.limit import Clock, trained
from benchmarks.long_tail import manifest
from benchmarks.machine import origin
from trickbag.data import digits
from trickbag.data.images import Images
from trickbag.data.reading import read
from trickbag.engine.precision import fabric_for
from trickbag.ground.events import EpochDone, Event
from trickbag.ground.store import write
from trickbag.recipe import Recipe
from trickbag.runs.request import Request, check, request
from trickbag.runs.run import Run

COUNTS = (5_000, 15_000, 50_000)
ROWS, CLASSES = 1_300_000, 1_000
EPOCHS, SETTLED = 50, 5
LONG = """
import resource, sys, time
from trickbag.data.images import divide
from trickbag.data.reading import read
began = time.perf_counter()
images = read(sys.argv[1]); reading = time.perf_counter()
images = divide(images, 0); dividing = time.perf_counter()
images.fingerprint; ended = time.perf_counter()
print(reading - began, dividing - reading, ended - dividing, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""
RECIPE = Recipe(model="cifar_resnet8", size=32, crop_share=1.0, batch_size=128, epochs=1, lr=0.1, precision="fp32").edit(
    ["random_resized_crop", "flip", "cosine"], channels_last=True, keep="last"
)


def part(images: Images, count: int) -> Images:
    """So many training images, evenly from all, with the test images that are there."""
    rows = np.flatnonzero(images.splits == "train")
    kept = rows[np.linspace(0, len(rows) - 1, count).round().astype(int)]
    return images.take(np.sort(np.concatenate([kept, np.flatnonzero(images.splits != "train")])))


def lasting(count: int) -> Recipe:
    """The recipe with as many epochs as show the images of the largest set once."""
    return RECIPE.edit(epochs=max(COUNTS) // count)


def by_size(data: str, folder: Path, rounds: int) -> Iterator[str]:
    images, wanted, checking = read(data), dict[int, Request](), dict[int, float]()
    for count in COUNTS:
        write(table := folder / f"{count}.csv", manifest(part(images, count)))
        os.environ["TRICKBAG_CACHE"] = str(folder / f"cache-{count}")  # what was looked at once would cost nothing here
        began = time.perf_counter()
        found = check(table)
        checking[count] = 1000 * (time.perf_counter() - began) / len(found.images)
        wanted[count] = request(table, lasting(count))
    took: dict[int, list[float]] = {count: [] for count in COUNTS}
    for number in range(rounds):
        for count in COUNTS[:: 1 if number % 2 else -1]:
            os.environ["TRICKBAG_CACHE"] = str(folder / f"cache-{count}")
            took[count].append(1000 / trained(wanted[count], lasting(count), fixed=False))
    least = statistics.median(took[COUNTS[0]])
    yield "| training images | training, ms an image (least to most) | to the first | check, ms an image |\n|---|---|---|---|"
    for count in COUNTS:
        middle = statistics.median(took[count])
        spread = f"{middle:.3f} ({min(took[count]):.3f} to {max(took[count]):.3f})"
        yield f"| {count:,} | {spread} | {middle / least:.3f} | {checking[count]:.3f} |"


class Memory(Clock):
    """Notes the resident memory after every epoch, MB."""

    def __init__(self) -> None:
        super().__init__()
        self.resident: list[float] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, EpochDone):
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            self.resident.append(pages * os.sysconf("SC_PAGE_SIZE") / 1e6)


def over_epochs(folder: Path) -> str:
    memory = Memory()
    wanted = request(digits.write(folder / "digits"), RECIPE.edit(epochs=EPOCHS))
    Run(wanted, wanted.recipe, folder / "run", fabric_for("fp32"), memory).train()
    counted = memory.resident[SETTLED:]
    slope = float(np.polyfit(range(len(counted)), counted, 1)[0])
    return f"Resident memory over {EPOCHS} epochs: {slope:+.3f} MB an epoch, from {counted[0]:.0f} to {counted[-1]:.0f} MB."


def long_manifest(folder: Path) -> str:
    rows = (f"n{row % CLASSES:08d}/{row}.JPEG,n{row % CLASSES:08d}\n" for row in range(ROWS))
    write(table := folder / "long.csv", "path,label\n" + "".join(rows))
    done = subprocess.run([sys.executable, "-c", LONG, table], capture_output=True, text=True, check=True)
    read_, divided, hashed, peak = map(float, done.stdout.split())
    return (
        f"A manifest of {ROWS:,} rows: read in {read_:.1f} s, divided in {divided:.1f} s, fingerprinted in {hashed:.1f} s; "
        f"at most {peak:.2f} GiB of memory."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", required=True, help="a folder or archive with 50,000 training images")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        os.environ["TRICKBAG_CACHE"] = str(Path(place) / "cache")
        folder = Path(place)
        lines = [*by_size(args.data, folder, args.rounds), "", over_epochs(folder), "", long_manifest(folder)]
    print(origin(), "", *lines, sep="\n")


if __name__ == "__main__":
    main()
