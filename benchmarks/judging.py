"""How many images should be judged at once, and whether inference mode pays: images per second on a batch in memory.

    python -m benchmarks.judging

In turns, medians of several rounds; precision and layout of each network are those that training takes here. Prints a
Markdown table.
"""

import argparse
import statistics
import time

import timm
import torch

from benchmarks.machine import origin

NETWORKS = {
    "tf_mobilenetv3_small_100": torch.float32,
    "mobilenetv2_100": torch.bfloat16,
    "resnet18": torch.bfloat16,
}
IMAGES = 256
"""Of a round, at least."""


def rate(model: torch.nn.Module, x: torch.Tensor, precision: torch.dtype, mode: type[torch.no_grad]) -> float:
    """Images per second; a first batch warms up."""
    repeats = max(1, IMAGES // len(x))
    with mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision is torch.bfloat16):
        model(x)
        began = time.perf_counter()
        for _ in range(repeats):
            model(x)
    return repeats * len(x) / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, nargs="+", default=[16, 32, 64, 128, 256])
    args = parser.parse_args()
    modes = {"no_grad": torch.no_grad, "inference_mode": torch.inference_mode}
    print(f"{origin()}\n\n{args.size} px, channels-last; images/s, median of {args.rounds} rounds (least to most)\n")
    print(f"| | | {' | '.join(f'{batch} at once' for batch in args.batches)} |\n|---|---|{'---|' * len(args.batches)}")
    for name, precision in NETWORKS.items():
        model = timm.create_model(name).eval().to(memory_format=torch.channels_last)
        inputs = {n: torch.randn(n, 3, args.size, args.size).to(memory_format=torch.channels_last) for n in args.batches}
        rates: dict[tuple[str, int], list[float]] = {}
        for number in range(args.rounds):
            for batch, x in list(inputs.items())[:: -1 if number % 2 else 1]:
                for mode, scope in modes.items():
                    rates.setdefault((mode, batch), []).append(rate(model, x, precision, scope))
        for mode in modes:
            own = [rates[mode, batch] for batch in args.batches]
            cells = [f"{statistics.median(r):.0f} ({min(r):.0f} to {max(r):.0f})" for r in own]
            print(f"| {name} | {mode} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
