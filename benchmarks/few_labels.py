"""Ten labelled images a class, the rest without labels: which trick makes the most of them.

    python -m benchmarks.few_labels --data DATA ... --weights FILE --out DIR

Of the training images of each class, drawn by a fixed seed, 10 are trained on and 2 validate, which chooses nothing; the rest
lie in a folder without labels, and all test images are judged. Every arm trains about as many steps, from the weights, with the
same seeds, *pretrain* after four passes over all images: *supervised* on the labelled images alone, *all labels* on all images
with their labels, which is the most that the others could reach. Differences from *supervised* are judged as those of a study
are, a data set being a family. What is finished in --out is not trained again. Prints a Markdown table for each data set.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

import trickbag as tb
from benchmarks.long_tail import manifest
from benchmarks.machine import origin
from benchmarks.transfer import said
from trickbag.data.images import Images
from trickbag.data.reading import read
from trickbag.ground.store import write
from trickbag.ground.streams import generator
from trickbag.statistics.effects import Sample, effects

LABELLED, VALIDATION = 10, 2
BASE: dict[str, Any] = {
    "precision": "fp32",
    "channels_last": False,
    "compile": False,
    "keep": "last",
    "batch_size": 32,
    "lr": 2e-4,
    "weight_decay": 0.02,
}
TRICKS = "fit_head, adamw, warmup(share=0.1), cosine, random_resized_crop(scale=(0.35, 1.0)), flip, freeze_norms"
"""What the recipe auto fine-tunes few images with, but for smoothing and what acts on scores."""
JOINED = 3
"""Of the unlabelled images about one in so many gets a pseudo-label, and makes epochs longer."""
ARMS: dict[str, str] = {
    "supervised": "",
    "pseudo_label": "pseudo_label(unlabelled={more}, teacher={taught})",
    "fixmatch": "fixmatch(unlabelled={more})",
    "fixmatch, flexible": "fixmatch(unlabelled={more}, kind='flexible')",
    "fixmatch, free": "fixmatch(unlabelled={more}, kind='free')",
    "mean_teacher": "mean_teacher(unlabelled={more})",
    "pretrain": "pretrain(unlabelled={more}, epochs=4, rate=2e-4)",
    "pretrain, byol": "pretrain(unlabelled={more}, epochs=4, rate=2e-4, method='byol')",
    "pretrain, mae": "pretrain(unlabelled={more}, epochs=4, rate=2e-4, method='mae')",
    "all labels": "",
}


def divided(images: Images) -> tuple[Images, Images]:
    """The images with the labels of a few, and those whose labels are taken away."""
    splits = np.where(images.splits == "test", "test", "spare")
    for k in range(len(images.classes)):
        own = np.flatnonzero((images.labels == k) & (images.splits == "train"))
        own = own[torch.randperm(len(own), generator=generator(0, "few_labels", k)).numpy()]
        splits[own[:LABELLED]], splits[own[LABELLED : LABELLED + VALIDATION]] = "train", "val"
    return replace(images, splits=splits).take(splits != "spare"), images.take(splits == "spare")


class Place(NamedTuple):
    """A data set as it is trained on."""

    name: str
    few: Path
    """A manifest with few labels."""
    whole: Path
    """A manifest with all."""
    more: Path
    """The folder of images whose labels were taken away."""
    share: float
    """Labels of the first, of those of the second."""
    out: Path
    """Where its runs lie."""


def laid_out(data: Path, out: Path) -> Place:
    """Write both manifests, and link what has no label."""
    few, more = divided(read(data))
    train = few.split("train")
    name = data.parent.name if data.suffix else data.name
    place = out / name
    write(place / "few.csv", manifest(few))
    write(place / "all.csv", manifest(replace(more, splits=np.full(len(more), "train")).joined(few)))
    (place / "more").mkdir(exist_ok=True)
    for row in range(len(more)):
        if not (link := place / "more" / f"{row:05d}{more.path(row).suffix}").exists():
            link.symlink_to(more.path(row).resolve())
    names = (place / "few.csv", place / "all.csv", place / "more")
    return Place(name, *names, len(train) / (len(train) + len(more)), place)


def train(place: Place, arm: str, seed: int, args: argparse.Namespace) -> tb.Result:
    """Train an arm, or find it."""
    whole, longer = args.epochs * place.share, {"all labels": 1, "pseudo_label": JOINED}
    epochs = max(1, round(longer[arm] * whole)) if arm in longer else args.epochs
    spec = ARMS[arm].format(more=repr(str(place.more)), taught=repr(str(place.out / f"supervised-{seed}")))
    fields = BASE | {"model": args.model, "weights": args.weights, "size": args.size, "epochs": epochs}
    recipe = tb.Recipe(**fields).edit([TRICKS, *filter(None, [spec])])
    out = place.out / f"{arm.replace(', ', '-').replace(' ', '_')}-{seed}"
    return tb.train(place.whole if arm == "all labels" else place.few, recipe, seed=seed, out=out, progress=False)


def right(result: tb.Result) -> np.ndarray:
    """Which test images a run gets right [N]."""
    with np.load(result.folder / "predictions.npz") as arrays:
        return np.asarray(arrays["test_logits"].argmax(1) == arrays["test_labels"], float)


def table(place: Place, seeds: int, args: argparse.Namespace) -> Iterator[str]:
    """The table of a data set, trained where it is not yet."""
    arms = ["supervised", *args.arms]
    runs = {(arm, seed): train(place, arm, seed, args) for seed, arm in product(range(seeds), arms)}
    rows = [np.stack([right(runs[arm, seed]) for arm in arms]) for seed in range(seeds)]
    contrasts = np.hstack([-np.ones((len(arms) - 1, 1)), np.eye(len(arms) - 1)])
    found = effects([Sample(row, np.arange(row.shape[1])) for row in rows], contrasts, shares=True)
    counts = len(read(place.few).split("train")), len(list(place.more.iterdir())), rows[0].shape[1]
    yield "\n## {}: {:,} labelled images, {:,} without labels, {:,} judged\n".format(place.name, *counts)
    yield "| arm | top-1, % | of each seed | gain, points | seconds |"
    yield "| --- | --- | --- | --- | --- |"
    for number, (arm, gain) in enumerate(zip(arms, ["–", *map(said, found)], strict=True)):
        each = [100 * row[number].mean() for row in rows]
        seconds = np.mean([runs[arm, seed].record["seconds"] for seed in range(seeds)])
        yield f"| {arm} | {np.mean(each):.1f} | {', '.join(f'{one:.1f}' for one in each)} | {gain} | {seconds:.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders with train and test, classes in each")
    parser.add_argument("--weights", required=True, help="of the model, a .safetensors file")
    parser.add_argument("--model", default="tf_mobilenetv3_small_100")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=40, help="of the labelled images")
    parser.add_argument("--arms", nargs="+", choices=[*ARMS][1:], default=[*ARMS][1:], help="beside supervised")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/few_labels"))
    args = parser.parse_args()
    print(origin(), flush=True)
    for data in args.data:
        for line in table(laid_out(data, args.out), args.seeds, args):
            print(line, flush=True)


if __name__ == "__main__":
    main()
