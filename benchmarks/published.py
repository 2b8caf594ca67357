"""The published Food-101 experiment as one study: each trick alone and four together, against the baseline.

    python -m benchmarks.published --data DATA --weights FILE --teacher-weights FILE --size 96 --epochs 5 --lr 5e-4 --out DIR

Trains the teacher, then the study on the test images, as published (the recommendation is therefore labelled as chosen on
them). What is finished in --out is not run again. Prints the study's tables; the report lies in --out/study. At full size, on
a GPU: --model resnet18 --teacher resnet50 --size 224 --epochs 40 --lr 1e-4.
"""

import argparse
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from benchmarks.machine import origin
from trickbag.ground.store import write

TRICKBAG = Path(sysconfig.get_path("scripts")) / "trickbag"
WARMUP, COSINE, SMOOTHING, MIXUP = "warmup(share=0.15)", "cosine", "label_smoothing", "mixup"
STUDY = """design = "add-one"
on = "test"
tricks = ["{warmup}", "{cosine}", "{smoothing}", '{distill}', "{mixup}"]
combine = [["{warmup}", "{cosine}", "{smoothing}", '{distill}']]
vary = {{ precision = ["bf16"] }}
"""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="a folder with train and test, class folders in each")
    parser.add_argument("--model", default="tf_mobilenetv3_small_100")
    parser.add_argument("--weights", default="hub", help="a .safetensors file, or hub")
    parser.add_argument("--teacher", default="mobilenetv2_100", help="the teacher's model")
    parser.add_argument("--teacher-weights", default="hub")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/published"))
    return parser.parse_args()


def main() -> None:
    args = arguments()
    common = ["--recipe", "food101", "--set", f"size={args.size}", "--set", f"epochs={args.epochs}", "--set", f"lr={args.lr}"]
    teacher = args.out / "teacher"
    own = ["--model", args.teacher, "--weights", args.teacher_weights, "--out", str(teacher)]
    subprocess.run([TRICKBAG, "train", args.data, *common, *own], check=True)
    distill = f'distill(teacher="{teacher}")'
    text = STUDY.format(warmup=WARMUP, cosine=COSINE, smoothing=SMOOTHING, mixup=MIXUP, distill=distill)
    with tempfile.TemporaryDirectory() as place:
        write(file := Path(place) / "published.toml", text)
        own = ["--model", args.model, "--weights", args.weights, "--seeds", str(args.seeds), "--out", str(args.out / "study")]
        subprocess.run([TRICKBAG, "study", args.data, file, *common, *own], check=True)
    print(origin(), (args.out / "study" / "report.md").read_text("utf-8"), sep="\n\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
