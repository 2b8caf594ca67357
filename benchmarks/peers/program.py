"""What the programs of this folder have in common: their options, and how the images of an epoch are counted."""

import argparse
import json
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

SKIPPED = 8
"""Steps that are not counted: the loader is ahead by then, the caches of the processor are warm."""


class Enough(Exception):  # noqa: N818 - a measurement that is complete
    """As many steps as are wanted were timed."""


class Clock:
    """Notes when steps end, and says what came of it."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.batch, self.steps, self.ended = args.batch, args.steps, list[float]()

    def step(self) -> None:
        """A step has ended. Raises Enough after the last."""
        self.ended.append(time.perf_counter())
        if len(self.ended) == SKIPPED + self.steps:
            raise Enough(self.steps)

    def tell(self) -> None:
        """Print images per second as JSON."""
        seconds = self.ended[-1] - self.ended[SKIPPED - 1]
        print(json.dumps({"rate": self.batch * (len(self.ended) - SKIPPED) / seconds}))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path, help="a folder with train and test, class folders in each")
    parser.add_argument("--model", required=True, help="of timm")
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--steps", type=int, default=40, help="that are counted, all in one epoch")
    parser.add_argument("--workers", type=int, help="of the loader; else what the library takes")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--channels-last", action="store_true")
    return parser.parse_args()


def autocast(args: argparse.Namespace) -> AbstractContextManager[Any]:
    """The arithmetic of forward passes on the CPU."""
    return torch.autocast("cpu", torch.bfloat16) if args.bf16 else nullcontext()


def workers(args: argparse.Namespace) -> dict[str, int]:
    """The loader's workers where they are chosen."""
    return {} if args.workers is None else {"num_workers": args.workers}
