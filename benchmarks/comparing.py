"""How long ``trickbag compare`` takes, and how much memory, from an empty process to its answer.

    python -m benchmarks.comparing

Tables of 20 methods with three seeds on 50,000 images each, three million rows: right or wrong as CSV and Parquet, and ten
probabilities. Prints a Markdown table; about two minutes on one core.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import csv, parquet

from benchmarks.machine import origin

METHODS, SEEDS, IMAGES, CLASSES = 20, 3, 50_000, 10


def run(method: int, seed: int, classes: int, images: int = IMAGES) -> pa.Table:
    """The rows of a run: ``correct``, or labels and probabilities where there are classes."""
    rng = np.random.default_rng([method, seed])
    names = pa.array([f"val/n{row % 1000:08d}/ILSVRC2012_val_{row:08d}.JPEG" for row in range(images)])
    found = {"method": pa.array([f"method {method}"] * images), "seed": pa.array([seed] * images), "image": names}
    right = rng.random(images) < np.where(np.arange(images) % 5, 0.95, 0.3) + method / 1000
    if not classes:
        return pa.table(found | {"correct": right.astype(np.int8)})
    labels = np.arange(images) % classes
    logits = rng.normal(size=(images, classes))
    logits[np.arange(images), np.where(right, labels, (labels + 1) % classes)] += 5
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    columns = {f"p_class{k}": p[:, k].round(6) for k in range(classes)}
    return pa.table(found | {"label": pa.array([f"class{label}" for label in labels])} | columns)


def write(path: Path, runs: Iterator[pa.Table]) -> Path:
    first = next(runs)
    kind = parquet.ParquetWriter if path.suffix == ".parquet" else csv.CSVWriter
    with kind(str(path), first.schema) as file:
        file.write_table(first)
        for table in runs:
            file.write_table(table)
    return path


LAUNCH = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
"""A process counts the memory of the one that it was forked from: this one is small."""


def spent(*words: str) -> tuple[float, float]:
    """Seconds and the peak of memory in bytes of the command in a process of its own."""
    command = [sys.executable, "-m", "trickbag", "compare", *words]
    began = time.perf_counter()
    peak = subprocess.run([sys.executable, "-Sc", LAUNCH, *command], check=True, capture_output=True, text=True)
    return time.perf_counter() - began, 1024 * int(peak.stdout)


def lines(folder: Path, classes: tuple[int, ...] = (0,)) -> Iterator[tuple[str, str]]:
    """What is measured, a name and a figure each."""
    small = write(folder / "small.csv", (run(method, seed, 0, 100) for method in range(2) for seed in range(SEEDS)))
    seconds, memory = min(spent(str(small)) for _ in range(3))
    yield "compare: 600 rows", f"{seconds:.2f} s, {memory / 1e6:,.0f} MB"
    for count in classes:
        for suffix in ("csv", "parquet"):
            runs = (run(method, seed, count) for method in range(METHODS) for seed in range(SEEDS))
            path = write(folder / f"{count}.{suffix}", runs)
            seconds, memory = spent(str(path))
            what = f"{count} probabilities" if count else "right or wrong"
            size = f"{path.stat().st_size / 1e6:,.0f} MB of {suffix}"
            yield f"compare: 60 runs x 50,000 images, {what}, {size}", f"{seconds:.1f} s, {memory / 1e9:.2f} GB"
            path.unlink()


def main() -> None:
    print(origin() + "\n\n| | |\n|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, figure in lines(Path(folder), (0, CLASSES)):
            print(f"| {name} | {figure} |", flush=True)


if __name__ == "__main__":
    main()
