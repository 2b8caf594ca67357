"""Seeded mutants: break the code in one place each, and see which test catches it.

    python -m benchmarks.mutants [--only NAME ...]

Each mutant is made in a copy of the package, never in the working tree. Prints the table that ``docs/testing.md`` holds;
exits with 1 where a mutant survives or can no longer be planted.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]


class Mutant(NamedTuple):
    """One mistake: in ``file``, ``old`` becomes ``new``; ``tests`` says where to look."""

    name: str
    file: str
    old: str
    new: str
    tests: str


MUTANTS = (
    Mutant(
        "drop the average from the saved state",
        "engine/loop.py",
        "for n, v in trick.state().items()}",
        'for n, v in trick.state().items() if n != "average_"}',
        "tests/tricks/test_laws.py -k resuming and ema",
    ),
    Mutant(
        "shift the augmentation stream by the rank",
        "engine/loader.py",
        "else Keys(self.seed, epoch, rows, copies, t)",
        "else Keys(self.seed, epoch, rows + self.rank, copies, t)",
        "tests/tricks/test_laws.py -k ranks and flip",
    ),
    Mutant(
        "show the same order in every epoch",
        "engine/loader.py",
        'generator(self.seed, "order", epoch)',
        'generator(self.seed, "order")',
        "tests/engine/test_loader.py",
    ),
    Mutant(
        "augment every copy of an image alike within an epoch",
        "engine/loader.py",
        "torch.stack([self.rows, self.copies], 1)",
        "torch.stack([self.rows, 0 * self.copies], 1)",
        "tests/engine/test_loader.py",
    ),
    Mutant(
        "cut half a pixel off in a device's memory",
        "engine/cutting.py",
        "offset[:, None] + 0.5) * scale",
        "offset[:, None]) * scale",
        "tests/engine/test_cutting.py",
    ),
    Mutant(
        "smooth labels before they are mixed rows",
        "tricks/label_smoothing.py",
        "return y * (1 - eps - others) + others",
        "return y.ge(y.max(1, keepdim=True).values) * (1 - eps - others) + others",
        "tests/runs/test_run.py tests/tricks/test_laws.py tests/tricks/test_batch.py -k smooth or shapes",
    ),
    Mutant(
        "forget the norm statistics of an averaged network",
        "engine/judge.py",
        "[own for live, own in pairs if moved(live)]",
        "[]",
        "tests/runs/test_run.py -k norm or average",
    ),
    Mutant(
        "swap the two arguments of the KL term",
        "ground/softened.py",
        "kl_div(z, r, reduction",
        "kl_div(r, z, reduction",
        "tests/tricks/test_train.py tests/tricks/test_weights.py tests/tricks/test_judge.py -k distil or diverg",
    ),
    Mutant(
        "count the last partial batch twice",
        "engine/judge.py",
        "    return torch.cat([f for f, _ in parts]), torch.cat([z for _, z in parts])",
        "    parts.append(parts[-1])\n    return torch.cat([f for f, _ in parts]), torch.cat([z for _, z in parts])",
        "tests/tricks/test_laws.py -k neutral and warmup",
    ),
    Mutant(
        "let the norms of a frozen network go on",
        "ground/norms.py",
        "        norm.training = False",
        "        norm.training = True",
        "tests/tricks/test_train.py tests/tricks/test_weights.py tests/runs/test_run.py -k freeze or frozen",
    ),
    Mutant(
        "take CutMix's drawn share for the true one",
        "tricks/cutmix.py",
        "    share = 1 - (bottom - top) * (right - left) / (x.shape[-2] * x.shape[-1])",
        "    share = 1 - (bottom - top) * (right - left + 1) / (x.shape[-2] * x.shape[-1])",
        "tests/tricks/test_batch.py -k cutmix",
    ),
    Mutant(
        "step from SAM's perturbed weights",
        "tricks/sam.py",
        "            restore(saved)\n",
        "",
        "tests/tricks/test_train.py tests/tricks/test_weights.py -k sam",
    ),
    Mutant(
        "forget the best epoch at a resume",
        "engine/loop.py",
        '        self.best = {name: best for name, best in state["best"].items() if name in self.weights}',
        "        self.best = {}",
        "tests/engine/test_loader.py -k resumed",
    ),
    Mutant(
        "decay the average by steps instead of shares of training",
        "tricks/ema.py",
        "keep = 0.5 ** ((t - self.seen_) / self.half_life)",
        "keep = 0.5 ** (0.001 / self.half_life)",
        "tests/tricks/test_train.py tests/tricks/test_weights.py -k ema",
    ),
    Mutant(
        "number the classes of each split apart",
        "data/images.py",
        "labels=np.array([place[rows.labels[i]] for i in order], dtype=np.int64),",
        "labels=np.array([sorted({n for n, s in zip(rows.labels, rows.splits) if s == rows.splits[i]}).index(rows.labels[i])"
        " for i in order]),",
        "tests/data/test_images.py -k class",
    ),
    Mutant(
        "leave a single image to the last step",
        "engine/loader.py",
        "return end if count - end >= max(2, needed) else count",
        "return end if count - end >= needed else count",
        "tests/engine/test_loader.py",
    ),
    Mutant(
        "mirror the neighbouring image in a batch",
        "tricks/flip_tta.py",
        "predict(x.flip(-1))",
        "predict(x.roll(1, 0).flip(-1))",
        "tests/tricks/test_judge.py -k flip",
    ),
    Mutant(
        "multiply by the temperature",
        "tricks/calibrate.py",
        "outputs.logits / self.temperature_",
        "outputs.logits * self.temperature_",
        "tests/tricks/test_judge.py -k calib",
    ),
    Mutant(
        "begin the warm-up at zero",
        "tricks/warmup.py",
        "(t * steps + 1) / width",
        "(t * steps) / width",
        "tests/tricks/test_train.py trickbag/tricks/warmup.py",
    ),
    Mutant(
        "vote with features that were not normalised",
        "tricks/knn.py",
        "(normalize(features.float(), dim=1) @ bank.T)",
        "((features.float() * features.float().abs()) @ bank.T)",
        "tests/tricks/test_judge.py -k neighbour or votes",
    ),
    Mutant(
        "weigh micro-batches alike whatever their size",
        "engine/loop.py",
        "yield part, len(part.x) / total",
        "yield part, size / total",
        "tests/runs/test_run.py tests/engine/test_loader.py -k micro",
    ),
    Mutant(
        "believe a manifest without its hashes",
        "ground/store.py",
        "            if _sha256(path) != known.sha256:",
        "            if False:",
        "tests/ground/test_store.py -k verif or damag or change or flip",
    ),
    Mutant(
        "ignore the orientation that the camera noted",
        "data/decode.py",
        "return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image",
        "return image",
        "tests/data/test_decode.py -k exif or orient or upright",
    ),
    Mutant(
        "choose the kept epoch by the worse score",
        "engine/loop.py",
        'rank > self.best[name]["rank"]',
        'rank < self.best[name]["rank"]',
        "tests/runs/test_run.py tests/engine/test_loader.py -k best or kept",
    ),
    Mutant(
        "judge test-time views in training mode",
        "engine/judge.py",
        "    model.eval()\n\n    def plain",
        "    def plain",
        "tests/tricks/test_laws.py tests/runs/test_run.py -k same_image or watching or odd",
    ),
)  # fmt: skip


def caught_by(mutant: Mutant) -> str:
    """The first test that fails on the mutant; empty where none does."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in ("trickbag", "tests", "benchmarks", "pyproject.toml", "README.md", "docs"):
            source = ROOT / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, copy / name)
        file = copy / "trickbag" / mutant.file
        text = file.read_text("utf-8")
        if text.count(mutant.old) != 1:
            raise SystemExit(f"{mutant.name}: the place in {mutant.file} is gone or no longer the only one. Plant it anew.")
        file.write_text(text.replace(mutant.old, mutant.new), "utf-8")
        paths, _, words = mutant.tests.partition(" -k ")
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *paths.split()]
        done = subprocess.run(
            [*command, *(["-k", words] if words else [])],
            cwd=copy,
            env=os.environ | {"PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        failed = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", done.stdout, re.MULTILINE)
        return failed[1] if failed and done.returncode == 1 else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--only", nargs="+", default=[], help="words of the names of the mutants to run")
    words = parser.parse_args().only
    chosen = [m for m in MUTANTS if not words or any(word in m.name for word in words)]
    print("| mutant | file | caught by |\n|---|---|---|")
    survivors = 0
    for mutant in chosen:
        test = caught_by(mutant)
        survivors += not test
        print(f"| {mutant.name} | `{mutant.file}` | {f'`{test}`' if test else '**survives**'} |", flush=True)
    sys.exit(survivors > 0)


if __name__ == "__main__":
    main()
