"""Twenty times ``kill -9`` in one training, for each of three recipes: does it end as if nothing had happened?

Each training is run once undisturbed. Then the same command is started, killed at a random moment and started again, with
another number of loader threads each time, until it has been killed often enough; then it may finish. Weights, predictions,
log and the last checkpoint (weights, optimiser, averages, best epoch) are compared bit for bit. Every fourth kill may come
before the process has reached its first step, the others come after its first new checkpoint.

Command: python -m benchmarks.kill
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file

from benchmarks.machine import origin
from trickbag.data import digits
from trickbag.ground.streams import generator, uniform

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from processes import Training

RESULT = Path(__file__).parent / "results" / "kill.md"
RECIPES: dict[str, tuple[str, list[str], list[str]]] = {
    "cifar": (
        "cifar, cifar_resnet8, fp32",
        ["model=cifar_resnet8", "size=32", "epochs=12", "batch_size=32", "precision=fp32"],
        [],
    ),
    "food101": (
        "food101, mobilenetv3_small_050 from local weights, adam, fp32",
        ["model=mobilenetv3_small_050", "size=32", "epochs=10", "batch_size=32"],
        [],
    ),
    "heap": (
        "cifar with ten more tricks, cifar_resnet8, bf16",
        ["model=cifar_resnet8", "size=16", "epochs=8", "batch_size=32", "lr=0.01", "precision=bf16"],
        [
            "random_erasing", "one_of(mixup, cutmix)", "adamw", "sam", "clip_gradient", "ema(half_life=0.2)", "distill",
            "balanced_sampling", "knn", "calibrate",
        ],
    ),
}  # fmt: skip


def data(folder: Path, count: int = 50) -> Path:
    """The first digits of each class."""
    everything = digits.write(folder / "all")
    for label in sorted(path.name for path in everything.iterdir()):
        (folder / "some" / label).mkdir(parents=True)
        for path in sorted((everything / label).iterdir())[:count]:
            shutil.copy(path, folder / "some" / label)
    return folder / "some"


def training(name: str, place: Path, images: Path, checkpoint_seconds: float) -> Training:
    """The command of a recipe, in a place of its own."""
    _, fields, tricks = RECIPES[name]
    arguments = ["--recipe", name if name != "heap" else "cifar", "--set", "channels_last=false"]
    arguments += [word for field in fields for word in ("--set", field)] + [word for t in tricks for word in ("--with", t)]
    if name == "food101":
        torch.manual_seed(0)
        weights = place.parent / "weights.safetensors"
        save_file(timm.create_model("mobilenetv3_small_050").state_dict(), weights)
        arguments += ["--weights", str(weights)]
    return Training(place, images, *arguments, checkpoint_seconds=checkpoint_seconds)


def kill(disturbed: Training, kills: int, seconds: float, seed: int) -> list[str]:
    """Kill the command so often, and say where: the steps of the newest checkpoints, "-" before the first."""
    rng, where = generator(seed, "kills"), []
    while len(where) < kills:
        process = disturbed.start()
        if len(where) % 4 == 3:
            time.sleep(uniform(rng, 0, 2))
        else:
            disturbed.moved(process)
            time.sleep(uniform(rng, 0, seconds / kills / 3))
        process.kill()
        process.join()
        assert process.exitcode == -9, f"the training ended after {len(where)} kills: {disturbed.errors}"
        steps = [int(path.name.removeprefix("step-")) for path in disturbed.checkpoints()]
        where.append(str(max(steps, default="-")))
    return where


def row(name: str, kills: int, seed: int, folder: Path, images: Path) -> str:
    """A line of the table."""
    undisturbed = training(name, folder / f"{name}-whole", images, checkpoint_seconds=60)
    began = time.monotonic()
    expected = undisturbed.ending()
    seconds = time.monotonic() - began
    disturbed = training(name, folder / f"{name}-killed", images, checkpoint_seconds=0.1)
    where = kill(disturbed, kills, seconds, seed)
    ending = disturbed.ending()
    different = [part for part in expected if expected[part] != ending[part]]
    steps = len(expected["log"]) and expected["log"][-1]["step"]
    verdict = f"no: {', '.join(different)}" if different else "yes"
    return f"| {RECIPES[name][0]} | {steps} | {len(where)} | {', '.join(where)} | {verdict} |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the kills and write the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kill", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(arguments)
    lines = [
        "# kill -9 at random moments",
        "",
        origin(),
        "",
        "Compared bit for bit with the undisturbed training: weights, predictions, log and last checkpoint.",
        "",
        "| recipe | steps | kills | newest checkpoint at each kill | identical |",
        "|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        images = data(Path(folder))
        for name in asked.recipes:
            lines.append(row(name, asked.kills, asked.seed, Path(folder), images))
            print(lines[-1], flush=True)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text("\n".join([*lines, ""]), "utf-8")
    print(f"written: {RESULT}")


if __name__ == "__main__":
    main()
