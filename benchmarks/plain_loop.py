"""The fine-tuning loop that a person would copy today, to stand beside ``trickbag train``: a pretrained timm network, random
crops and flips, AdamW at a constant rate, fp32, a tenth of the training images held out to choose the epoch. No tricks.

    python benchmarks/plain_loop.py DATA --model mobilenetv2_100 --weights FILE --budget 600

DATA holds ``train`` and ``test`` with class folders. The budget in seconds counts from the first look at the data and holds
reading, training and validation. The last epoch is cut short where the time is up; the test split is then scored once, with the
weights of the best epoch, outside the budget: if anything, the plain loop is given more. Prints one JSON object.
"""

import argparse
import copy
import json
import os
import time
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn
from torch.utils.data import DataLoader, Subset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

VAL_SHARE = 0.1
CROP_SHARE = 0.875


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="mobilenetv2_100")
    parser.add_argument("--weights", type=Path, help="a .safetensors file; without it, training starts from scratch")
    parser.add_argument("--budget", type=float, default=600, help="seconds")
    parser.add_argument("--epochs", type=int, default=1_000, help="at most")
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bf16", action="store_true", help="autocast to bfloat16")
    return parser.parse_args()


def network(name: str, weights: Path | None, classes: int) -> nn.Module:
    overlay = {"file": str(weights)} if weights else None
    return timm.create_model(name, pretrained=weights is not None, num_classes=classes, pretrained_cfg_overlay=overlay)


def loaders(args: argparse.Namespace, mean: Any, std: Any) -> tuple[DataLoader[Any], DataLoader[Any], DataLoader[Any]]:
    finish = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)]
    augment = v2.Compose([v2.RandomResizedCrop(args.size, antialias=True), v2.RandomHorizontalFlip(), *finish])
    view = v2.Compose([v2.Resize(round(args.size / CROP_SHARE), antialias=True), v2.CenterCrop(args.size), *finish])
    train, judged = (ImageFolder(args.data / "train", transform) for transform in (augment, view))
    rows = torch.randperm(len(train)).tolist()
    held = round(VAL_SHARE * len(rows))
    common = {"num_workers": args.workers, "batch_size": args.batch, "persistent_workers": args.workers > 0}
    return (
        DataLoader(Subset(train, rows[held:]), shuffle=True, drop_last=len(rows) - held > args.batch, **common),
        DataLoader(Subset(judged, rows[:held]), **common),
        DataLoader(ImageFolder(args.data / "test", view), **common),
    )


def main() -> None:
    args = arguments()
    torch.manual_seed(args.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    began = time.monotonic()
    model = network(args.model, args.weights, len(ImageFolder(args.data / "train").classes)).to(device)
    cfg: Any = model.pretrained_cfg
    train, val, test = loaders(args, cfg["mean"], cfg["std"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr)
    arithmetic = torch.autocast(device.type, torch.bfloat16, enabled=args.bf16)

    def top1(loader: DataLoader[Any]) -> float:
        model.eval()
        right = count = 0
        with torch.no_grad(), arithmetic:
            for x, y in loader:
                right += int((model(x.to(device)).argmax(1).cpu() == y).sum())
                count += len(y)
        return right / count

    best, kept, steps = -1.0, copy.deepcopy(model.state_dict()), 0
    while steps < args.epochs * len(train) and time.monotonic() - began < args.budget:
        model.train()
        for x, y in train:
            with arithmetic:
                loss = nn.functional.cross_entropy(model(x.to(device)), y.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps += 1
            if time.monotonic() - began >= args.budget:
                break
        if (score := top1(val)) > best:
            best, kept = score, copy.deepcopy(model.state_dict())
    seconds = time.monotonic() - began
    model.load_state_dict(kept)
    told = {"top1": top1(test), "val_top1": best, "n": len(test.dataset), "seconds": round(seconds, 2)}
    told["epochs"] = round(steps / len(train), 2)
    settings = {name: getattr(args, name) for name in ("model", "lr", "size", "batch", "bf16", "budget", "seed")}
    print(json.dumps(told | settings))


if __name__ == "__main__":
    main()
