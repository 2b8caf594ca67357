"""How long fit_head takes to fit a classifier to features that it has, by images, features and classes.

    OMP_NUM_THREADS=1 python -m benchmarks.fitting

Features as a network's last layer has them: of each class a normal distribution, cut at 0. The first fit warms up. Prints a
Markdown table; ``FIT`` in ``trickbag/runs/auto.py`` is a line through it.
"""

import time
from itertools import product

import torch
from torch.nn.functional import one_hot

from benchmarks.machine import origin
from trickbag.tricks.fit_head import FitHead, best_head


def seconds(images: int, features: int, classes: int) -> float:
    """Of a fit, a fifth of the images choosing the penalty."""
    torch.manual_seed(0)
    labels = torch.arange(images) % classes
    x, y = torch.relu(torch.randn(classes, features)[labels] / 4 + torch.randn(images, features)), one_hot(labels).float()
    judged = images // 5
    began = time.perf_counter()
    best_head((x[judged:], y[judged:]), (x[:judged], y[:judged]), FitHead().l2)
    return time.perf_counter() - began


def main() -> None:
    print(origin(), "", "| images | features | classes | seconds |", "|--:|--:|--:|--:|", sep="\n")
    seconds(500, 512, 10)
    for images, features, classes in product((500, 5_000, 20_000), (512, 1024), (10, 100)):
        print(f"| {images:,} | {features:,} | {classes} | {seconds(images, features, classes):.2f} |", flush=True)


if __name__ == "__main__":
    main()
