"""What it costs that threads sleep while they wait for each other, and that they spin: a training alone, and two at once.

    python -m benchmarks.spinning

Steps on a batch in memory, in processes of their own, with settings of GNU's OpenMP in turns: that of the library, threads
that sleep at once, and two lengths of spinning. ``alone``: tf_mobilenetv3_small_100 at 128 pixels; ``two``: cifar_resnet8 at
32 pixels, the images of both a second. Prints a Markdown table.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

import torch

from benchmarks.machine import origin
from trickbag.models import networks

SETTINGS = {
    "the library's own": {},
    "sleeping": {"OMP_WAIT_POLICY": "PASSIVE"},
    "spinning 1,000 times": {"GOMP_SPINCOUNT": "1000"},
    "spinning 10,000 times": {"GOMP_SPINCOUNT": "10000"},
}
SECONDS = 6.0
WORK = {"alone": ("tf_mobilenetv3_small_100", 128, 32), "two": ("cifar_resnet8", 32, 64)}


def steps(kind: str) -> float:
    """Images per second of steps in this process."""
    name, size, batch = WORK[kind]
    torch.manual_seed(0)
    model = networks.build(name, 10, 3, size).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    x, y = torch.randn(batch, 3, size, size).to(memory_format=torch.channels_last), torch.arange(batch) % 10
    done, began = -3, time.perf_counter()
    while time.perf_counter() - began < SECONDS:
        if not done:
            began = time.perf_counter()
        torch.nn.functional.cross_entropy(model(x).logits, y).backward()
        optimizer.step()
        optimizer.zero_grad()
        done += 1
    return done * batch / (time.perf_counter() - began)


def started(kind: str, count: int, setting: dict[str, str]) -> float:
    """Images per second of so many processes at once."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    command = [sys.executable, "-m", "benchmarks.spinning", "--work", kind]
    begun = [subprocess.Popen(command, env=environment | setting, stdout=subprocess.PIPE, text=True) for _ in range(count)]
    return sum(float(process.communicate()[0]) for process in begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", choices=WORK, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        print(steps(args.work))
        return
    rates: dict[tuple[str, str], list[float]] = {(name, kind): [] for name in SETTINGS for kind in WORK}
    for _ in range(args.rounds):
        for (name, kind), values in rates.items():
            values.append(started(kind, 1 + (kind == "two"), SETTINGS[name]))
    print(f"{origin()}\n\n| threads wait by | one training alone, images/s | two at once, images/s in all |\n|---|---|---|")
    for name in SETTINGS:
        cells = [
            f"{statistics.median(values):.0f} ({min(values):.0f} to {max(values):.0f})"
            for values in (rates[name, kind] for kind in WORK)
        ]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
