"""Twenty photos a class: what is worth doing with so few, as one study.

    python -m benchmarks.small_data --data DATA --weights FILE --out DIR

Of the training photos of each class, drawn by a fixed seed, 20 train and 10 validate; all test photos are judged, so what is
best there is chosen on them. The reference is the fine-tuning of the recipe auto: the classifier fitted on features first, then
the whole network tuned. epochs=0 stops after the classifier, freeze goes on training it alone, one-nn trains nothing. What acts
after training shares the reference's. What is finished in --out is not run again. Prints the study's tables; the report lies
in --out/study.
"""

import argparse
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.long_tail import TRICKBAG, manifest
from benchmarks.machine import origin
from trickbag.data.images import Images
from trickbag.data.reading import read
from trickbag.ground.store import write
from trickbag.ground.streams import generator

TRAINING, VALIDATION = 20, 10
STUDY = """recipe = "auto"
design = "add-one"
on = "test"
without = ["calibrate"]
tricks = ["freeze", "layer_decay(rate=0.8)", "gem_pool", "flip_tta", "crop_tta", "calibrate"]
vary = { epochs = [0], "fixres.test_size" = [FIXRES] }
"""


def few(images: Images) -> Images:
    """The test photos, and as many of each class as train and validate."""
    splits = np.where(images.splits == "test", images.splits, "")
    for k in range(len(images.classes)):
        own = np.flatnonzero((images.labels == k) & (images.splits == "train"))
        own = own[torch.randperm(len(own), generator=generator(0, "few", k)).numpy()]
        splits[own[:TRAINING]], splits[own[TRAINING : TRAINING + VALIDATION]] = "train", "val"
    return replace(images, splits=splits).take(splits != "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="a folder with train and test, class folders in each")
    parser.add_argument("--model", default="mobilenetv2_100")
    parser.add_argument("--weights", default="hub", help="a .safetensors file, or hub")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("runs/small_data"))
    args = parser.parse_args()
    write(table := args.out / "few.csv", manifest(few(read(args.data))))
    sizes = [16 * round(args.size * more / 16) for more in (1, 1.15, 1.25, 1.5)]
    with tempfile.TemporaryDirectory() as place:
        write(file := Path(place) / "small_data.toml", STUDY.replace("FIXRES", ", ".join(map(str, sizes))))
        own = ["--model", args.model, "--weights", args.weights, "--set", f"size={args.size}", "--set", f"epochs={args.epochs}"]
        more = ["--seeds", str(args.seeds), "--out", str(args.out / "study")]
        subprocess.run([TRICKBAG, "study", table, file, *own, *more], check=True)
    print(origin(), (args.out / "study" / "report.md").read_text("utf-8"), sep="\n\n", flush=True)


if __name__ == "__main__":
    main()
