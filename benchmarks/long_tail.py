"""CIFAR-10-LT as one study: what the long-tail family does on classes of 4,900 to 49 training images.

    python -m benchmarks.long_tail --data cifar10.tar.gz --out DIR

A hundred validation images of each class are set aside, then the training images become a long tail (imbalance 100,
exponential, the first class the largest). The 10,000 test images stay balanced, and the arms are judged on them, as in the
literature, so what is best there is chosen on them. All arms share the recipe cifar without smoothing; those that act after
training share the reference's training. What is finished in --out is not run again. Prints the study's tables; the report
lies in --out/study. At full size, on a GPU: --model cifar_resnet32 --epochs 200.
"""

import argparse
import csv
import io
import subprocess
import sysconfig
import tempfile
from pathlib import Path

from benchmarks.machine import origin
from trickbag.data.images import Images, divide, read
from trickbag.store import write

TRICKBAG = Path(sysconfig.get_path("scripts")) / "trickbag"
STUDY = """recipe = "cifar"
design = "add-one"
on = "test"
without = ["label_smoothing"]
tricks = [
    "focal", "class_weights(kind='effective')", "ldam", "balanced_softmax", "logit_adjustment", "balanced_sampling", "crt",
    "lws", "tau_norm", "ncm",
]
combine = [["ldam", "drw"]]
"""


def manifest(images: Images) -> str:
    """The data set as a CSV manifest with absolute paths."""
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(("path", "label", "split"))
    for row, (label, split) in enumerate(zip(images.labels.tolist(), images.splits.tolist(), strict=True)):
        writer.writerow((images.path(row), images.classes[label], split))
    return file.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="CIFAR-10: a folder or archive with train and test")
    parser.add_argument("--imbalance", type=float, default=100)
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
        write(file := Path(place) / "long_tail.toml", STUDY)
        own = ["--model", args.model, "--set", f"epochs={args.epochs}", "--set", "keep=last"]
        more = ["--seeds", str(args.seeds), "--workers", str(args.workers), "--out", str(args.out / "study")]
        subprocess.run([TRICKBAG, "study", table, file, *own, *more], check=True)
    print(origin(), (args.out / "study" / "report.md").read_text("utf-8"), sep="\n\n", flush=True)


if __name__ == "__main__":
    main()
