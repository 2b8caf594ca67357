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
RECIPE = {"epochs": 1, "size": 16, "precision": "fp32", "channels_last": False, "compile": False}


class Took(NamedTuple):
    seconds: float
    peak: float
    """Of resident memory, in MB."""


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


def ended(process: subprocess.Popen[bytes]) -> float:
    """The peak of a process's resident memory in MB, once it has ended well; what ``wait4`` says begins with ours."""
    peak = 0.0
    while process.poll() is None:
        told = Path(f"/proc/{process.pid}/status").read_text("ascii")
        peak = max([peak, *(int(line.split()[1]) / 1e3 for line in told.splitlines() if line.startswith("VmHWM:"))])
        time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"predict ended with {process.returncode}")
    return peak


def whole(run: Path, images: list[str], out: Path) -> Took:
    began = time.perf_counter()
    peak = ended(begun(run, images, out))
    return Took(time.perf_counter() - began, peak)


def stopped(run: Path, images: list[str], out: Path, count: int) -> Took:
    """Killed when half of the rows are there, and gone on."""
    part, began = out.with_name(f"{out.name}.part"), time.perf_counter()
    process = begun(run, images, out)
    while not part.exists() or part.stat().st_size < 40 * count / 2:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = part.read_text("utf-8").count("\n") - 1
    peak = ended(begun(run, images, out))
    print(f"killed after {before:,} of {count:,} rows", file=sys.stderr)
    return Took(time.perf_counter() - began, peak)


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
    yield f"| files | images/s, start of the process included | after the first {least:,} | bare network | peak memory |"
    yield "|---|---|---|---|---|"
    for count, own in took.items():
        rate = " and ".join(f"{count / one.seconds:,.0f}" for one in own)
        later = [
            (count - least) / (one.seconds - first.seconds)
            for one, first in zip(own, took[least], strict=True)
            if count > least
        ]
        peaks = " and ".join(f"{one.peak:,.0f} MB" for one in own)
        cells = " and ".join(f"{one:,.0f}" for one in later) or "-"
        yield f"| {count:,} | {rate} | {cells} | {min(network):,.0f} to {max(network):,.0f} | {peaks} |"
    most = max(counts)
    again = stopped(run.folder, some(folder / "images", most), folder / "stopped.csv", most)
    same = rows(folder / "stopped.csv") == rows(folder / f"{most}-0.csv")
    said = "the same" if same else "others"
    yield f"\nKilled half-way and gone on, {most:,} files: {again.seconds:,.0f} s, at most {again.peak:,.0f} MB; rows: {said}."


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
