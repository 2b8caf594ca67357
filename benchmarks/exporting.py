"""Whether exported files are what their runs are: ten networks, with tricks that judge, on all validation and test photos.

    python -m benchmarks.exporting --data food10 --weights FOLDER

Each network is trained lightly, on 40 photos of each class: the file is to be as good as its run, not the run good. Networks
of which FOLDER has weights (NAME.safetensors) begin with them. Each is exported to ONNX, and three of them to int8 too, and the
file is compared with its run through onnxruntime on all photos that it was not trained on. What a folder of timm cannot hold is
refused by name. What is finished in --out is not done again. Prints Markdown tables.
"""

import argparse
import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import trickbag as tb
from benchmarks.machine import origin
from trickbag.data.reading import read
from trickbag.exports import as_timm

TRAINED, JUDGED = 30, 10
"""Photos of a class that a network is trained on, and that choose its epoch."""


class Case(NamedTuple):
    """A network and the tricks that judge with it."""

    model: str
    tricks: str
    size: int = 64
    int8: bool = False


CASES = (
    Case("mobilenetv2_100", "fit_head, calibrate", 96, int8=True),
    Case("tf_mobilenetv3_small_100", "fit_head, flip_tta, calibrate", 96, int8=True),
    Case("resnet18", "gem_pool, calibrate", int8=True),
    Case("resnet50d", "ncm"),
    Case("efficientnet_b0", "fit_head, crop_tta"),
    Case("convnext_atto", "cosine_classifier, calibrate"),
    Case("vit_tiny_patch16_224", "fit_head, knn"),
    Case("densenet121", "knn, calibrate"),
    Case("inception_v3", "fit_head, calibrate", 80),
    Case("cifar_resnet20", "gem_pool, crop_tta, calibrate", 32),
)
RECIPE = {"epochs": 1, "batch_size": 32, "lr": 0.001, "precision": "fp32", "channels_last": False, "compile": False}


def manifest(data: Path, place: Path) -> Path:
    """Some training photos of each class and all test photos."""
    images, seen = read(data), dict[int, int]()
    with place.open("w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(("path", "label", "split"))
        for row, (label, split) in enumerate(zip(images.labels.tolist(), images.splits.tolist(), strict=True)):
            number = seen[label] = seen.get(label, -1) + (split == "train")
            own = "test" if split == "test" else "train" if number < TRAINED else "val" if number < TRAINED + JUDGED else ""
            if own:
                lines.writerow((images.path(row), images.classes[label], own))
    return place


def exported(case: Case, data: Path, out: Path, weights: Path | None) -> dict[str, Any]:
    """What the comparison of a case's file with its run found."""
    file = weights / f"{case.model}.safetensors" if weights else None
    start = str(file) if file and file.exists() else "none"
    fields = RECIPE | {"size": case.size, "crop_share": 0.875, "tricks": f"adamw, {case.tricks}".split(", ")}
    run, folder = out / case.model, out / f"{case.model}-onnx"
    if not (folder / "parity.json").exists():
        tb.train(data, tb.Recipe(model=case.model, weights=start, **fields), out=run)
        try:
            tb.export(run, "onnx", int8=case.int8, data=data, out=folder)
        except tb.TrickbagError as error:
            if not (folder / "parity.json").exists():
                return {"refused": str(error)}
    found: dict[str, Any] = json.loads((folder / "parity.json").read_text("utf-8"))
    try:
        as_timm.network(tb.load(run))
        found["timm"] = "equal logits"
    except tb.UsageError as error:
        found["timm"] = str(error).partition(" Choose")[0]
    file = folder / ("model.onnx" if found["holds"] else "model.onnx.differs")
    return found | {"bytes": file.stat().st_size}


def points(accuracy: dict[str, Any]) -> str:
    low, high = accuracy["interval"]
    return f"{100 * accuracy['difference']:+.2f} ({100 * low:.2f} to {100 * high:.2f})"


def table(found: dict[Case, dict[str, Any]]) -> Iterator[tuple[object, ...]]:
    yield (
        "network", "tricks", "pixels", "top-1 of the run", "of the file", "difference, points", "same class", "photos",
        "largest difference of a probability", "at other sizes and batches", "of a pixel, of 255", "pixels that differ", "MB",
        "as timm",
    )  # fmt: skip
    for case, one in found.items():
        if "refused" in one:
            yield case.model, case.tricks, case.size, f"refused: {one['refused']}", *[""] * 10
            continue
        p = one["parity"]
        a = p["alike"]
        top = a["accuracy"]
        yield (
            case.model, case.tricks, case.size, percent(top["before"]), percent(top["after"]), points(top),
            percent(a["agreement"]), f"{a['n']:,}", f"{a['probability']:.4f}{'' if one['holds'] else ': called `.differs`'}",
            f"{max(shape['probability'] for shape in p['shapes']):.4f}", f"{p['grey']:g}", percent(p["grey_share"]),
            f"{one['bytes'] / 1e6:.1f}", one["timm"],
        )  # fmt: skip


def whole(found: dict[Case, dict[str, Any]]) -> Iterator[tuple[object, ...]]:
    yield "network", "top-1 in fp32", "in int8", "difference, points", "same class", "MB", "times as fast"
    for case, one in found.items():
        if "int8" in one:
            w = one["int8"]
            top, (before, after), (low, high) = w["alike"]["accuracy"], w["bytes"], w["speeds"]
            size, speed = f"{before / 1e6:.2f} to {after / 1e6:.2f}", f"{w['speed']:.2f} ({low:.2f} to {high:.2f})"
            same = percent(w["alike"]["agreement"])
            yield case.model, percent(top["before"]), percent(top["after"]), points(top), same, size, speed


def percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def markdown(rows: Iterator[tuple[object, ...]]) -> str:
    head, *lines = (f"| {' | '.join(map(str, row))} |" for row in rows)
    return "\n".join([head, "|---" * (head.count(" | ") + 1) + "|", *lines])


def predicted(found: dict[Case, dict[str, Any]]) -> str:
    """How far the files are from the runs as ``predict`` has them."""
    beside = [one["parity"]["predict"] for one in found.values() if "parity" in one]
    least, most = min(p["agreement"] for p in beside), max(p["probability"] for p in beside)
    return f"{100 * least:.2f} % or more of the classes are the same, and probabilities differ by at most {most:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--out", type=Path, default=Path("exporting"))
    parser.add_argument("--only", nargs="+", default=[])
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    data = manifest(args.data, args.out / "photos.csv")
    cases = [case for case in CASES if case.model in args.only or not args.only]
    found = {case: exported(case, data, args.out, args.weights) for case in cases}
    print(f"{origin()}\n\n{markdown(table(found))}\n")
    print(f"Beside `trickbag predict`, which decodes JPEG files as small as they are needed: {predicted(found)}.\n")
    if how := next((one["int8"]["how"] for one in found.values() if "int8" in one), ""):
        print(f"int8, calibrated on 128 training photos; {how}\n\n{markdown(whole(found))}")


if __name__ == "__main__":
    main()
