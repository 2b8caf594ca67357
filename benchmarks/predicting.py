"""Whether ``trickbag predict`` looks at 100,000 files in the memory that 10,000 take, and how fast beside the bare network.

    python -m benchmarks.predicting

Small PNG and JPEG files, cifar_resnet8 at 16 pixels, the command in a process of its own that writes ``--out rows.csv``; each
count in each round, in turns with the bare network on a batch in memory. Then once more for the most files: killed half-way,
and gone on. Prints a Markdown table.
"""

import argparse
import csv
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

import trickbag as tb
from benchmarks.machine import origin

EACH = 1000
"""Files of a folder."""
FIRST = 5_000
"""Rows after which memory should grow no more."""
RECIPE = {"epochs": 1, "size": 16, "precision": "fp32", "channels_last": False, "compile": False}


class Took(NamedTuple):
    seconds: float
    early: float
    """Peak of the resident memory in MB when FIRST rows were written; 0 where they were before the first look."""
    peak: float
    """The same at the end."""


def write(folder: Path, count: int) -> None:
    """Noise on waves, 40 x 30 pixels: nine in ten PNG, the others JPEG."""
    rng = np.random.default_rng(0)
    x = np.arange(40)[None, :, None]
    for number in range(count):
        place = folder / f"{number // EACH:03d}"
        if number % EACH == 0:
            place.mkdir(parents=True)
        pixels = 128 + 60 * np.sin(x * rng.uniform(0.2, 1)) + rng.normal(0, 20, (30, 40, 3))
        image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        image.save(place / f"{number:06d}{'.jpg' if number % 10 == 0 else '.png'}")


def some(folder: Path, count: int) -> list[str]:
    """The folders of the first files."""
    return [str(place) for place in sorted(folder.iterdir())[: count // EACH]]


def begun(run: Path, images: list[str], out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "trickbag", "predict", str(run), *images, "--out", str(out)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def peak(process: subprocess.Popen[bytes]) -> float:
    """Of a process's resident memory so far, in MB; what ``wait4`` says would begin with ours."""
    told = Path(f"/proc/{process.pid}/status").read_text("ascii").splitlines()
    return max([0.0, *(int(line.split()[1]) / 1e3 for line in told if line.startswith("VmHWM:"))])


def followed(process: subprocess.Popen[bytes], out: Path, began: float) -> Took:
    """What a process took, once it has ended well."""
    part, early, last = out.with_name(f"{out.name}.part"), 0.0, 0.0
    while process.poll() is None:
        last = max(last, peak(process))
        if not early and written(part) >= FIRST:
            early = last
        time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"predict ended with {process.returncode}")
    return Took(time.perf_counter() - began, early, last)


def written(part: Path) -> int:
    """Rows of a file under way."""
    return max(0, part.read_bytes().count(b"\n") - 1) if part.exists() else 0


def whole(run: Path, images: list[str], out: Path) -> Took:
    began = time.perf_counter()
    return followed(begun(run, images, out), out, began)


def stopped(run: Path, images: list[str], out: Path, count: int) -> tuple[int, Took]:
    """How many rows were there when the command was killed about half-way, and what it took in all."""
    part, began = out.with_name(f"{out.name}.part"), time.perf_counter()
    process = begun(run, images, out)
    while written(part) < count / 2:
        time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    there = written(part)
    return there, followed(begun(run, images, out), out, began)


def bare(classifier: tb.Classifier) -> float:
    """Images per second of the network alone, batches of 32 in memory."""
    x = torch.randn(32, 3, 16, 16)
    with torch.inference_mode():
        for _ in range(20):
            classifier.model(x)
        began = time.perf_counter()
        for _ in range(200):
            classifier.model(x)
    return 200 * len(x) / (time.perf_counter() - began)


def rows(file: Path) -> list[list[str]]:
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.reader(lines))


def table(counts: list[int], rounds: int, folder: Path) -> Iterator[str]:
    write(folder / "images", max(counts))
    train = {"a": "images/000", "b": "images/001"}
    data = [(str(path), name) for name, place in train.items() for path in sorted((folder / place).iterdir())[:40]]
    run = tb.train(data, "cifar", model="cifar_resnet8", set_=RECIPE, out=folder / "run", progress=False)
    took: dict[int, list[Took]] = {count: [] for count in counts}
    network = []
    for number in range(rounds):
        for count in counts[:: -1 if number % 2 else 1]:
            network.append(bare(run.classifier))
            out = folder / f"{count}-{number}.csv"
            took[count].append(whole(run.folder, some(folder / "images", count), out))
            assert len(rows(out)) == count + 1
    least = min(counts)
    yield (
        f"| files | images/s, start of the process included | after the first {least:,} | bare network, images/s | "
        f"peak memory after {FIRST:,} rows | at the end |"
    )
    yield "|---|---|---|---|---|---|"
    for count, own in took.items():
        pairs = zip(own, took[least], strict=True)
        later = [(count - least) / (one.seconds - first.seconds) for one, first in pairs if count > least]
        columns = [count / one.seconds for one in own], later, [one.early for one in own], [one.peak for one in own]
        rate, after, early, last = (" and ".join(f"{value:,.0f}" for value in values) or "-" for values in columns)
        yield f"| {count:,} | {rate} | {after} | {min(network):,.0f} to {max(network):,.0f} | {early} MB | {last} MB |"
    most = max(counts)
    there, again = stopped(run.folder, some(folder / "images", most), folder / "stopped.csv", most)
    said = "the same" if rows(folder / "stopped.csv") == rows(folder / f"{most}-0.csv") else "others"
    yield f"\nKilled after {there:,} of {most:,} rows and gone on: {again.seconds:,.0f} s, {again.peak:,.0f} MB; rows: {said}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--counts", type=int, nargs="+", default=[10_000, 100_000], help="multiples of 1,000")
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TRICKBAG_CACHE"] = f"{folder}/cache"
        lines = list(table(args.counts, args.rounds, Path(folder)))
    print(f"{origin()}\n\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
