"""The smallest effect that a study of real photos finds, beside that of an earlier commit with as many trainings.

    git worktree add /tmp/before 9d299c5
    python -m benchmarks.resolution --before /tmp/before --model MODEL --weights FILE DATA…

Four tricks that shape training and two that act beside and after it, on the same photos, both with the design that the commit
chooses itself and with the last epoch's networks, since else the earlier one may compare an epoch 0 with itself. The earlier
one gets as many seeds as give it as many trainings. No proof is trained. Compared is the smallest true effect on new photos
that is found with 80 % power at 5 % over the six, from the standard errors and degrees of freedom that each commit takes for
its declared tricks, the median over them; then that of this commit with what ``--plan`` printed before the first training. What
is finished in --out is not run again.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np
import torch

from benchmarks.long_tail import manifest
from benchmarks.machine import origin
from trickbag.data.images import Images
from trickbag.data.reading import read
from trickbag.ground.store import write
from trickbag.ground.streams import generator
from trickbag.statistics.power import detectable

NOW = Path(__file__).parents[1]
TRICKS = "mixup,label_smoothing,random_erasing,cosine,ema(half_life=1.0),flip_tta"
RECIPE = """
epochs = 2
batch_size = 32
lr = 3e-4
size = 96
weight_decay = 0.02
keep = "last"
tricks = ["fit_head", "adamw", "warmup(share=0.1)", "random_resized_crop(scale=(0.35, 1.0))", "flip"]
"""


ERRORS = """
import importlib, json, sys
from trickbag.studies import conduct
effects = importlib.import_module(sys.argv[1])
told, judged = [], effects.judged
effects.judged = lambda drafts, *rest: told.append(list(drafts)) or judged(drafts, *rest)
found = conduct.report(sys.argv[2])
new = [getattr(draft, "new", None) for draft in told[0]]
taken = [(n.variance**0.5, n.df) if n else (d.error, d.df) for n, d in zip(new, told[0])]
family = [effect.kind for effect in found.effects if effect.declared]
print(json.dumps([pair for pair, kind in zip(taken, family, strict=True) if kind in ("main", "midpoint") and pair[0]]))
"""
"""Standard error and degrees of freedom of each declared trick, for new photos, as a commit's own code takes them."""


@dataclass
class Found:
    """What a study of six tricks can find."""

    trainings: int
    tricks: int
    least: float
    """The smallest effect, in points."""


def drawn(images: Images, most: int) -> Images:
    """At most so many of the training photos of each class."""
    keep = np.zeros(len(images), bool)
    for k in range(len(images.classes)):
        own = np.flatnonzero((images.labels == k) & (images.splits != "test"))
        keep[own[torch.randperm(len(own), generator=generator(0, "drawn", k)).numpy()[:most]]] = True
    return replace(images, splits=np.full(len(images), "")).take(keep)


def ask(tree: Path, *command: str | Path) -> str:
    """What Python prints with a commit's package."""
    env = os.environ | {"PYTHONPATH": str(tree)}
    return subprocess.run([sys.executable, *command], cwd=tree, env=env, check=True, capture_output=True, text=True).stdout


def found(tree: Path, effects: str, study: Path) -> Found:
    """What a finished study can find, by the package of the commit that made it."""
    taken = json.loads(ask(tree, "-c", ERRORS, effects, study).splitlines()[-1])
    least = median(detectable(error, df, 0.05 / len(taken)) for error, df in taken)
    return Found(len(list((study / "trainings").glob("[!.]*"))), len(taken), 100 * least)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--before", type=Path, required=True, help="a worktree of the earlier commit")
    parser.add_argument("--model", required=True)
    parser.add_argument("--weights", default="hub", help="a .safetensors file, or hub")
    parser.add_argument("--most", type=int, default=100, help="photos of a class")
    parser.add_argument("--seeds", type=int, nargs=2, default=(3, 5), help="now, and at the earlier commit")
    parser.add_argument("--out", type=Path, default=Path("runs/resolution"))
    args = parser.parse_args()
    out = args.out.resolve()
    write(recipe := out / "recipe.toml", RECIPE)
    lines, ratios = list[str](), list[float]()
    for data in args.data:
        place = out / (data.parent if data.suffix else data).name
        write(table := place / "photos.csv", manifest(drawn(images := read(data), args.most)))
        asked = [table, "--recipe", recipe, "--model", args.model, "--weights", args.weights, "--tricks", TRICKS]
        study = ["-m", "trickbag", "study", *asked]
        mine = [*study, "--seeds", str(args.seeds[0]), "--no-proof", "--out", place / "now"]
        planned = re.search(rf"80 % power[^\n]*?([\d.]+) with {args.seeds[0]} seeds", ask(NOW, *mine, "--plan"))
        assert planned
        ask(NOW, *mine)
        ask(args.before, *study, "--seeds", str(args.seeds[1]), "--out", place / "before")
        now = found(NOW, "trickbag.statistics.effects", place / "now")
        before = found(args.before, "trickbag.studies.effects", place / "before")
        # Where a commit takes arms for one and the same network, it finds nothing, and there is no ratio.
        compared = before.tricks == now.tricks
        ratios += [now.least / before.least] if compared else []
        formerly, ratio = (f"{before.least:.2f}", f"{ratios[-1]:.2f}") if compared else ("none", "–")
        counts = f"{len(images.classes)} | {before.trainings} | {now.trainings} | {before.tricks}, {now.tricks}"
        leasts = f"{formerly} | {now.least:.2f} | {ratio} | {planned[1]} | {now.least / float(planned[1]):.2f}"
        lines.append(f"| {place.name} | {counts} | {leasts} |")
        print(lines[-1], file=sys.stderr, flush=True)
    print(origin(), "", sep="\n")
    print("| set | classes | trainings before | now | tricks | points found before | now | ratio | planned | now/planned |")
    print("|---|" + "--:|" * 9)
    print(*lines, f"\nratio: median {median(ratios):.2f}" if ratios else "", sep="\n")


if __name__ == "__main__":
    main()
