"""Minutes until photos are told apart well enough: auto of trickbag, fine_tune of fastai and a plain AdamW loop.

    python -m benchmarks.time_to_accuracy --data food10 --weights mobilenetv2_100.safetensors --python peers/bin/python

Each is trained several times as long as its user may say: trickbag and the plain loop with budgets in seconds, fastai for
epochs. Every training is a process of its own and begins with nothing: trickbag has an empty cache, and its seconds are the
whole process, with checking, decoding, validation and the scores of the test. Those of the two others end before the test is
scored. What is finished in --out is not run again. Prints Markdown tables: all runs, and for each mark the least time of a
run that reached it, seed by seed.
"""

import argparse
import json
import shutil
import statistics
import sys
import sysconfig
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.command import output
from benchmarks.machine import origin
from trickbag.ground.store import write

FASTAI = Path(__file__).parent / "peers" / "fine_tune_fastai.py"
LENGTHS = {"trickbag": [90, 180], "fastai": [3], "plain": [300]}
"""Seconds, epochs, seconds."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="a folder with train and test, class folders in each")
    parser.add_argument("--weights", type=Path, required=True, help="a .safetensors file")
    parser.add_argument("--python", type=Path, required=True, help="the interpreter that has fastai")
    parser.add_argument("--model", default="mobilenetv2_100")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--marks", type=float, nargs="+", default=[75, 80], help="test top-1 in per cent")
    parser.add_argument("--out", type=Path, default=Path("runs/time-to-accuracy"))
    for name, lengths in LENGTHS.items():
        parser.add_argument(f"--{name}", type=int, nargs="+", default=lengths, help="how long; default %(default)s")
    return parser.parse_args()


def trained(args: argparse.Namespace, name: str, length: int, seed: int) -> dict[str, Any]:
    """Test accuracy and seconds of one training, run now or found."""
    place = args.out / f"{name}-{length}-{seed}"
    if not (found := place.with_suffix(".json")).exists():
        began = time.monotonic()
        common = [args.data, "--model", args.model, "--weights", args.weights, "--seed", str(seed)]
        if name == "trickbag":
            shutil.rmtree(place, ignore_errors=True)
            command = Path(sysconfig.get_path("scripts")) / "trickbag"
            budget = ["--budget", f"{length}s", "--out", place / "run"]
            output([command, "train", *common, *budget], TRICKBAG_CACHE=str(place / "cache"))
            record = json.loads((place / "run" / "result.json").read_text("utf-8"))
            told = {"top1": record["test"]["top1"], "seconds": time.monotonic() - began, "epochs": record["epochs"]}
            shutil.rmtree(place / "cache")
        elif name == "fastai":
            told = json.loads(output([args.python, FASTAI, *common, "--epochs", str(length)]).splitlines()[-1])
        else:
            loop = Path(__file__).with_name("plain_loop.py")
            told = json.loads(output([sys.executable, loop, *common, "--budget", str(length)]).splitlines()[-1])
        write(found, json.dumps(told))
    return json.loads(found.read_text("utf-8"))


def soonest(runs: Sequence[Sequence[dict[str, Any]]], mark: float) -> str:
    """Minutes of the shortest run that reached a mark, of each seed, and their mean where all did."""
    least = [min((run["seconds"] / 60 for run in own if 100 * run["top1"] >= mark), default=None) for own in runs]
    each = ", ".join("not reached" if minutes is None else f"{minutes:.1f}" for minutes in least)
    reached = [minutes for minutes in least if minutes is not None]
    return f"{statistics.mean(reached):.1f} ({each})" if len(reached) == len(least) else each


def main() -> None:
    args = arguments()
    runs: dict[tuple[str, int], list[dict[str, Any]]] = {
        (name, length): [] for name in LENGTHS for length in getattr(args, name)
    }
    for seed in range(args.seeds):
        for (name, length), made in runs.items():
            made.append(trained(args, name, length, seed))
            said = f"{name} {length}, seed {seed}: {100 * made[-1]['top1']:.2f} % in {made[-1]['seconds']:.0f} s"
            print(said, file=sys.stderr, flush=True)
    print(f"{origin()}\n\n| | asked for | test top-1 of each seed | epochs | seconds |\n|---|---|---|---|---|")
    for (name, length), made in runs.items():
        columns = [
            [f"{100 * r['top1']:.2f}" for r in made],
            [f"{r['epochs']:g}" for r in made],
            [f"{r['seconds']:.0f}" for r in made],
        ]
        asked = f"{length} epochs" if name == "fastai" else f"{length} s"
        print(f"| {name} | {asked} | {' | '.join(', '.join(column) for column in columns)} |")
    print(f"\n| minutes to | {' | '.join(f'{mark:g} %' for mark in args.marks)} |\n|---|{'---|' * len(args.marks)}")
    for name in LENGTHS:
        own = [[made[seed] for (n, _), made in runs.items() if n == name] for seed in range(args.seeds)]
        print(f"| {name} | {' | '.join(soonest(own, mark) for mark in args.marks)} |")


if __name__ == "__main__":
    main()
