"""CIFAR-10-LT as one study: what the long-tail family does on classes of 4,900 to 49 training images.

    python -m benchmarks.long_tail --data cifar10.tar.gz --out DIR

A hundred validation images of each class are set aside, then the training images become a long tail (imbalance 100,
exponential, the first class the largest). The 10,000 test images stay balanced, and the arms are judged on them, as in the
literature, so what is best there is chosen on them. All arms share the recipe cifar without smoothing; those that act after
training share the reference's training. What is finished in --out is not run again. Prints the study's tables and what the
second stages cost; the report lies in --out/study. At full size, on a GPU: --model cifar_resnet32 --epochs 200.
"""

import argparse
import csv
import io
import json
import subprocess
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.machine import origin
from trickbag.data.images import Images, divide
from trickbag.data.reading import read
from trickbag.ground.store import write

TRICKBAG = Path(sysconfig.get_path("scripts")) / "trickbag"
SECOND = ("crt", "lws", "tau_norm", "ncm", "knn(k=5)")
"""Those that act after training."""
ARMS = (
    "focal",
    "class_weights(kind='effective')",
    "ldam",
    "ldam + drw",
    "balanced_softmax",
    "logit_adjustment",
    "balanced_sampling",
    *SECOND,
)
STUDY = """recipe = "cifar"
design = "add-one"
on = "test"
without = ["label_smoothing"]
"""


def manifest(images: Images) -> str:
    """The data set as a CSV manifest with absolute paths."""
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(("path", "label", "split"))
    for row, (label, split) in enumerate(zip(images.labels.tolist(), images.splits.tolist(), strict=True)):
        writer.writerow((images.path(row), images.classes[label], split))
    return file.getvalue()


def spelled(arms: Sequence[str]) -> str:
    """The study as TOML."""
    alone = [arm for arm in arms if " + " not in arm]
    together = [arm.split(" + ") for arm in arms if " + " in arm]
    return f"{STUDY}tricks = {json.dumps(alone)}\ncombine = {json.dumps(together)}\n"


def second_stages(study: Path) -> str:
    """What the arms that act after training add to its seconds: means over the seeds, as each is charged."""
    with (study / "arms.csv").open(encoding="utf-8", newline="") as file:
        seconds = {row["name"]: float(row["seconds"]) for row in csv.DictReader(file)}
    first = seconds["reference"]
    more = {arm: seconds[arm] - first for arm in SECOND if arm in seconds}
    each = ", ".join(f"{arm} {value:.1f} s" for arm, value in more.items())
    return f"Second stages: {each}; together {sum(more.values()) / first:.1%} of the first, which takes {first:.0f} s."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="CIFAR-10: a folder or archive with train and test")
    parser.add_argument("--imbalance", type=float, default=100)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS, help="which to try")
    parser.add_argument("--model", default="cifar_resnet8")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/long_tail"))
    args = parser.parse_args()
    images = divide(read(args.data), seed=0, val=0.02).long_tailed(args.imbalance)
    print(f"training images per class: {', '.join(map(str, images.split('train').counts()))}", flush=True)
    write(table := args.out / "cifar10-lt.csv", manifest(images))
    with tempfile.TemporaryDirectory() as place:
        write(file := Path(place) / "long_tail.toml", spelled(args.arms))
        own = ["--model", args.model, "--set", f"epochs={args.epochs}", "--set", "keep=last"]
        more = ["--seeds", str(args.seeds), "--workers", str(args.workers), "--out", str(args.out / "study")]
        subprocess.run([TRICKBAG, "study", table, file, *own, *more], check=True)
    tables = (args.out / "study" / "report.md").read_text("utf-8")
    print(origin(), second_stages(args.out / "study"), tables, sep="\n\n", flush=True)


if __name__ == "__main__":
    main()
