"""How far a temperature is off that calibrate fits to a few validation images, by how many they are and how many are wrong.

    python -m benchmarks.temperature

Classes are normal distributions, so the true probabilities are known; the network's logits are the true ones times its
overconfidence. Prints a Markdown table, over draws of the validation images.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from benchmarks.machine import origin
from trickbag.tricks.calibrate import best_temperature

CLASSES, DRAWS, JUDGED = 10, 200, 20_000
HEAD = (
    "top-1",
    "true temperature",
    "images",
    "fitted / true: 5 %",
    "median",
    "95 %",
    "excess NLL, nats",
    "1 / 2n",
    "worse than none",
)


def drawn(rng: np.random.Generator, n: int, apart: float, overconfidence: float) -> tuple[Tensor, Tensor]:
    """Logits [n, CLASSES] and targets of classes whose means are so far apart, in standard deviations."""
    labels = rng.integers(0, CLASSES, n)
    x = rng.normal(size=(n, CLASSES))
    x[np.arange(n), labels] += apart
    return torch.from_numpy(apart * overconfidence * x), one_hot(torch.from_numpy(labels), CLASSES).double()


def rows() -> Iterator[tuple[str, ...]]:
    rng = np.random.default_rng(0)
    for apart in (1.5, 2.5, 3.5, 4.5):
        for true in (1.0, 1.5):
            z, y = drawn(rng, JUDGED, apart, true)
            top1 = float((z.argmax(1) == y.argmax(1)).double().mean())
            none, best = (float(cross_entropy(z / value, y)) for value in (1.0, true))
            for n in (36, 100, 200, 400):
                fitted = np.array([best_temperature(*drawn(rng, n, apart, true)) for _ in range(DRAWS)])
                excess = np.array([float(cross_entropy(z / value, y)) for value in fitted]) - best
                low, median, high = np.quantile(fitted / true, (0.05, 0.5, 0.95))
                yield (
                    f"{100 * top1:.1f} %", f"{true:g}", f"{n}", f"{low:.2f}", f"{median:.2f}", f"{high:.2f}",
                    f"{excess.mean():.4f}", f"{1 / (2 * n):.4f}", f"{100 * (excess > none - best).mean():.0f} %",
                )  # fmt: skip


def main() -> None:
    print(f"{origin()}\n\n| {' | '.join(HEAD)} |\n{'|---' * len(HEAD)}|")
    for row in rows():
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
