"""Test accuracy of the built-in recipes and of the plain loop on photos, several seeds each.

    python -m benchmarks.food10 --data DATA --model mobilenetv2_100 --weights FILE --budget 600 --seeds 3 --out runs/food10

Each training is a process of its own, one after the other. ``seconds`` is the whole process from start to exit, with reading,
checking and scoring. What is finished in --out is not run again. Prints a Markdown table.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import sysconfig
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.long_tail import manifest
from benchmarks.machine import origin
from trickbag.data.images import divide
from trickbag.data.reading import read
from trickbag.ground.store import write
from trickbag.recipe import recipe_names

TRICKBAG = Path(sysconfig.get_path("scripts")) / "trickbag"
PLAIN = Path(__file__).with_name("plain_loop.py")
ARMS = ("auto", "linear-probe", "one-nn", "plain")
"""Those that are compared unless others are named."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--data", type=Path, required=True, help="a folder or archive with train and test, class folders in each"
    )
    parser.add_argument("--imbalance", type=float, default=1, help="make the training images a long tail of this ratio first")
    parser.add_argument("--model", default="mobilenetv2_100", help="whose weights they are")
    parser.add_argument("--weights", type=Path, help="a .safetensors file; none: the recipe's own model from scratch")
    parser.add_argument("--budget", type=float, default=600, help="seconds, for auto and for the plain loop")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--only", nargs="+", choices=[*recipe_names(), "plain"], default=ARMS, help="which recipes to run, or plain"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/food10"), help="where the runs go")
    parser.add_argument("--plain", default="", help="more arguments for the plain loop, as '--size 160 --lr 3e-4'")
    parser.add_argument("--more", default="", help="more arguments for the recipes, as '--set size=128'")
    return parser.parse_args()


def command(args: argparse.Namespace, arm: str, seed: int, folder: Path) -> list[str]:
    """The training of one arm with one seed."""
    started = ["--model", args.model, "--weights", str(args.weights)] if args.weights else []
    common = [str(args.data), *started, "--seed", str(seed)]
    if arm == "plain":
        return [sys.executable, str(PLAIN), *common, "--budget", str(args.budget), *args.plain.split()]
    budget = ["--budget", f"{args.budget:f}s"] if arm == "auto" else []
    return [str(TRICKBAG), "train", *common, "--recipe", arm, *budget, *args.more.split(), "--out", str(folder)]


def measured(args: argparse.Namespace, arm: str, seed: int) -> dict[str, Any]:
    """Test accuracy and time of one training, run now or found."""
    found = args.out / f"{arm}-{seed}.json"
    if not found.exists():
        folder = args.out / f"{arm}-{seed}"
        if folder.exists():
            raise SystemExit(f"{folder} holds a run that was begun and not timed to its end. Remove it, or name another --out.")
        began = time.monotonic()
        done = subprocess.run(command(args, arm, seed, folder), capture_output=True, text=True, check=False)
        seconds = time.monotonic() - began
        if done.returncode:
            raise SystemExit(f"{arm}, seed {seed} failed:\n{done.stdout}{done.stderr}")
        if arm == "plain":
            told = json.loads(done.stdout.splitlines()[-1])
        else:
            record = json.loads((folder / "result.json").read_text("utf-8"))
            told = {"top1": record["test"]["top1"], "n": record["test"]["n"], "epochs": record["epochs"]}
        write(found, json.dumps(told | {"seconds": round(seconds, 1)}))
    return json.loads(found.read_text("utf-8"))


def row(arm: str, runs: Sequence[dict[str, Any]]) -> str:
    """A line of the table."""
    percents = [100 * run["top1"] for run in runs]
    spread = f"{statistics.stdev(percents):.2f}" if len(percents) > 1 else "-"
    each = ", ".join(f"{p:.2f}" for p in percents)
    seconds = [run["seconds"] for run in runs]
    counts = "/".join(sorted({str(run["n"]) for run in runs}))
    epochs = ", ".join(f"{run['epochs']:g}" for run in runs)
    return (
        f"| {arm} | {statistics.mean(percents):.2f} | {spread} | {each} | {counts} | {epochs} | "
        f"{statistics.mean(seconds):.0f} (most {max(seconds):.0f}) |"
    )


def main() -> None:
    args = arguments()
    if args.imbalance > 1:
        images = divide(read(args.data), seed=0).long_tailed(args.imbalance)
        write(table := args.out / "long_tail.csv", manifest(images))
        args.data = table
    load = f" Load average at the start: {os.getloadavg()[0]:.1f}." if hasattr(os, "getloadavg") else ""
    lines = [
        "| | test top-1, mean | sd | of each seed | test images | epochs | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for arm in args.only:
        runs = []
        for seed in range(args.seeds):
            runs.append(measured(args, arm, seed))
            told = f"{arm}, seed {seed}: {100 * runs[-1]['top1']:.2f} %, {runs[-1]['seconds']:.0f} s"
            print(told, file=sys.stderr, flush=True)
        lines.append(row(arm, runs))
    print("\n".join([origin() + f"\n\nBudget {args.budget:g} s.{load}\n", *lines]))


if __name__ == "__main__":
    main()
