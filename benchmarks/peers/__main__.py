"""Images per second of training beside other libraries: the same network, size, batch and files, in turns.

    python -m venv peers && peers/bin/pip install -r benchmarks/peers/requirements.txt
    python -m benchmarks.peers --data food10 --python peers/bin/python

Each library trains in a process of its own, the programs beside this file, and Ultralytics by its own command with its own
network. Everyone takes random crops and flips, but Ultralytics what it takes by itself. *Defaults*: what a library does unless
told otherwise, which for trickbag is to time a few steps first. *Best*: the arithmetic and layout that trickbag found the
fastest, and the better of one and two loader workers, which is settled in a first round that is not counted; for trickbag,
the waiting of threads that all others have, GNU's own. Prints a Markdown table of medians.
"""

import argparse
import csv
import json
import shutil
import statistics
import sys
import sysconfig
import tempfile
import time
import tomllib
from collections.abc import Mapping
from pathlib import Path

from benchmarks.command import output
from benchmarks.machine import origin
from trickbag.recipe import Recipe

HERE = Path(__file__).parent
LIBRARIES = ("fastai", "lightning", "timm")
SHARE = 0.4
"""Of the training images that Ultralytics is given: it cannot be stopped within an epoch."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="a folder with train and test, class folders in each")
    parser.add_argument("--python", type=Path, required=True, help="the interpreter that has the other libraries")
    parser.add_argument("--model", default="tf_mobilenetv3_small_100")
    parser.add_argument("--nearest", default="yolov8n-cls", help="the network that Ultralytics trains")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


class Peers:
    """Trains with each library and tells images per second."""

    def __init__(self, args: argparse.Namespace, folder: Path) -> None:
        self.args, self.folder, self.runs = args, folder, 0
        recipe = Recipe(model=args.model, size=args.size, batch_size=args.batch, epochs=1, lr=1e-3, keep="last").edit(
            ["adamw", "cosine", "random_resized_crop", "flip"]
        )
        (folder / "recipe.toml").write_text(recipe.toml())
        self.first, decided = self._trickbag()
        self.flags = ["--bf16"] * (decided["precision"] == "bf16") + ["--channels-last"] * decided["channels_last"]
        self.workers: dict[str, int] = {}

    def _trickbag(self, **variables: str) -> tuple[float, Mapping]:
        """Seconds of a run from start to exit, and its record."""
        self.runs += 1
        out = self.folder / f"run{self.runs}"
        began = time.monotonic()
        output(
            [Path(sysconfig.get_path("scripts")) / "trickbag", "train", self.args.data, "--recipe", self.folder / "recipe.toml",
             "--out", out],
            TRICKBAG_CACHE=str(self.folder / "cache"), **variables,
        )  # fmt: skip
        seconds = time.monotonic() - began
        return seconds, tomllib.loads((out / "recipe.toml").read_text()) | json.loads((out / "result.json").read_text())

    def trickbag(self, **variables: str) -> float:
        """Images per second, from the first step to the last."""
        return self._trickbag(**variables)[1]["images_per_second"]

    def library(self, name: str, *flags: str) -> float:
        """Images per second with one of LIBRARIES."""
        shape = ["--model", self.args.model, "--size", str(self.args.size), "--batch", str(self.args.batch)]
        told = output([self.args.python, HERE / f"with_{name}.py", self.args.data, *shape, *flags])
        return json.loads(told.splitlines()[-1])["rate"]

    def ultralytics(self, *flags: str) -> float:
        """Images per second of its second epoch of three, validation left out."""
        data, out = self.folder / "files", self.folder / "ultralytics"
        if not data.exists():
            shutil.copytree(self.args.data, data)
        shutil.rmtree(out, ignore_errors=True)
        output(
            [self.args.python.with_name("yolo"), "classify", "train", f"model={self.args.nearest}.yaml", f"data={data}",
             f"imgsz={self.args.size}", f"batch={self.args.batch}", "epochs=3", f"fraction={SHARE}", "device=cpu", "val=False",
             "plots=False", f"project={out}", *flags],
            YOLO_CONFIG_DIR=str(self.folder), YOLO_OFFLINE="true",
        )  # fmt: skip
        with next(out.rglob("results.csv")).open() as file:
            ended = [float(row["time"]) for row in csv.DictReader(file)]
        return SHARE * len(list((data / "train").glob("*/*"))) / (ended[1] - ended[0])

    def best(self, name: str) -> float:
        """Images per second of a library with the best flags."""
        if name not in self.workers:
            rates = {count: self.library(name, *self.flags, "--workers", str(count)) for count in (1, 2)}
            self.workers[name] = max(rates, key=lambda count: rates[count])
        return self.library(name, *self.flags, "--workers", str(self.workers[name]))


def main() -> None:
    args = arguments()
    rates: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        peers = Peers(args, Path(folder))
        runs = {("trickbag", "defaults"): peers.trickbag, ("trickbag", "best"): lambda: peers.trickbag(GOMP_SPINCOUNT="300000")}
        for name in LIBRARIES:
            runs[name, "defaults"] = lambda name=name: peers.library(name)
            runs[name, "best"] = lambda name=name: peers.best(name)
        runs[args.nearest, "defaults"] = peers.ultralytics
        runs[args.nearest, "best"] = lambda: peers.ultralytics("cache=ram", "auto_augment=None", "erasing=0.0")
        for number in range(args.rounds):
            for key, run in list(runs.items())[:: -1 if number % 2 else 1]:
                rates.setdefault(key, []).append(run())
                print(f"round {number + 1}, {' '.join(key)}: {rates[key][-1]:.1f}", file=sys.stderr, flush=True)
    print(f"{origin()}\n\n{args.model}, {args.size} px, batch {args.batch}. Flags of best: {' '.join(peers.flags) or 'none'};")
    print(f"workers of best: {', '.join(f'{name} {count}' for name, count in peers.workers.items())}.")
    print(f"trickbag's first run, which decodes: {peers.first:.0f} s from start to exit.\n")
    print("| | flags | images/s, median | least | most | trickbag's share of it, round by round |\n|---|---|---|---|---|---|")
    for (name, kind), values in rates.items():
        ratios = ", ".join(f"{ours / theirs:.2f}" for ours, theirs in zip(rates["trickbag", kind], values, strict=True))
        print(f"| {name} | {kind} | {statistics.median(values):.1f} | {min(values):.1f} | {max(values):.1f} | {ratios} |")


if __name__ == "__main__":
    main()
