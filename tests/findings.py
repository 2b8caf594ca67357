"""A study as its report sees it: twelve arms, five seeds, ten classes, all kinds of effects, one arm that diverged."""

import base64
import io
import math
from dataclasses import replace
from typing import Literal

import numpy as np
from PIL import Image

from trickbag.report.findings import (
    Arm,
    Curve,
    Downstream,
    Effect,
    Failure,
    Findings,
    MeasuredEffect,
    Picture,
    Price,
    Proof,
    Sharing,
)
from trickbag.statistics.intervals import Interval

CLASSES = ("apple pie", "bibimbap", "caesar salad", "donuts", "edamame", "falafel", "gyoza", "hummus", "ice cream", "寿司")
COUNTS = (125, 125, 124, 125, 125, 120, 125, 125, 125, 125)
GAINS = {
    "mixup(alpha=0.2)": (0.0042, 1.02, 0.004),
    "label_smoothing(eps=0.1)": (0.0002, 1.0, 0.0007),
    "ema(half_life=0.02)": (0.0076, 1.01, 0.004),
    "sam": (0.0061, 1.97, 0.009),
    "random_erasing(p=0.25)": (-0.0093, 1.0, 0.004),
    "flip_tta": (0.0, 1.0, 0.0),
    "progressive_resizing(start=0.5)": (-0.0015, 0.68, 0.004),
    "warmup": (0.0003, 1.0, 0.004),
    "class_weights": (0.0021, 1.01, 0.004),
    "lighting": (-0.412, 1.0, 0.004),
    "batch_size=16": (0.0032, 1.35, 0.004),
}
"""Gain, ratio of times, and sd over seeds."""
DELTA = 0.002


def sample(arms: int = 12, seeds: int = 5, classes: tuple[str, ...] = CLASSES) -> Findings:
    """Findings that hold together: an effect's points are the differences of its arm's accuracies."""
    rng = np.random.default_rng(7)
    base = 0.842 + 0.004 * rng.standard_normal(seeds)
    reference = _arm("reference", "reference", "", base, 1.0, rng, classes)
    others, effects = [], []
    for name, (gain, ratio, noise) in list(GAINS.items())[: arms - 1]:
        points = gain + noise * rng.standard_normal(seeds)
        edits = name if "=" in name and "(" not in name else f"+{name}"
        arm = _arm(edits, "varied" if edits == name else "alone", edits, base + points, ratio, rng, classes)
        if name == "lighting":
            arm = replace(arm, failed=min(3, seeds), failure_interval=Interval(0.147, 0.947))
        others.append(arm)
        effects.append(effect(name, points, "varied" if edits == name else "alone", arm=edits, seconds_ratio=ratio))
    failures = tuple(
        Failure("+lighting", seed, "diverged", "the loss was not finite at step 812") for seed in range(min(3, seeds))
    )
    pairs = [
        effect("sam × mixup(alpha=0.2)", -0.004 + 0.003 * rng.standard_normal(seeds), "interaction"),
        effect("ema × sam", 0.001 + 0.003 * rng.standard_normal(seeds), "pair", note="Aliased with warmup × mixup."),
    ]
    placebo = effect("placebo", np.zeros(seeds), "control", says="a trick that draws and changes nothing")
    return Findings(
        name="food10",
        answer=(
            "Add ema(half_life=0.02) and mixup(alpha=0.2) to the recipe food101.",
            f"Validation accuracy rises by 0.76 points (95 % interval for this set +0.31 to +1.21, {seeds} seeds).",
            "Training takes 3 % longer: 9.4 minutes in place of 9.1.",
        ),
        recommended='model = "resnet50"\nepochs = 40\ntricks = [\n    "ema(half_life=0.02)",\n    "mixup(alpha=0.2)",\n]\n',
        design="add-one",
        weakness="It misses synergy: tricks that help only together.",
        on_test=False,
        judges="a fold in turn of 5 of the training and validation images, 2 of them kept for the proof",
        images=1244,
        groups=1190,
        seeds=tuple(range(seeds)),
        delta=DELTA,
        classes=classes,
        class_counts=COUNTS[: len(classes)],
        trained=(500,) * len(classes),
        arms=(reference, *others),
        effects=(*effects, placebo, *pairs),
        aliases=(("ema × sam", "warmup × mixup"),),
        not_run=("+cutmix: mixup(alpha=0.2) and cutmix(alpha=1) both mix images.",),
        hardest=tuple(picture(n, ()) for n in range(6)),
        rescued=tuple(picture(n, ("+ema(half_life=0.02)",)) for n in range(6, 10)),
        check=(
            ("warning", "3 photos stand in training and test.", "The training copies were left out."),
            ("note", "2 files are truncated.", ""),
        ),
        noise=(
            "The reference varies by 0.40 points (sd over 5 seeds).",
            "The smallest effect that this study detects with 80 % power is 0.73 points; never below 0.31.",
        ),
        descriptive="" if seeds > 2 else "With fewer than 3 seeds nothing here is a verdict.",
        failures=failures,
        proof=None,
        prior="the mean of all of this study's effects",
        decided=(("delta", "0.2 points"), ("family", "11 contrasts, Holm"), ("looks", "S = 3, 5")),
        departures=("The run of +sam with seed 3 was repeated after the machine had stopped.",),
        sharing=Sharing(trained_steps=41_200, naive_steps=68_400),
        environment=(("torch", "2.15.0"), ("device", "AMD EPYC, two cores"), ("trickbag", "0.1.0")),
        command="trickbag study food10 --recipe food101 --try mixup --try ema --try sam --seeds 5",
        plan="3f9c0a77b1de",
        model="resnet50",
        epochs=40,
    )


def effect(name: str, points: np.ndarray, kind: str = "alone", note: str = "", **fields: object) -> Effect:
    """An effect with t intervals; one seed or two leave it without."""
    values, seeds = [float(p) for p in points], len(points)
    mean, sd = float(np.mean(points)), float(np.std(points, ddof=1)) if seeds > 1 else None
    half = 2.8 * (sd or 0.0) / math.sqrt(seeds)
    few = seeds < 3
    own, wide = Interval(mean - half, mean + half), Interval(mean - 2 * half, mean + 2 * half)
    verdict = _verdict(own, bool(np.any(points))) if not few else "descriptive"
    known: dict[str, object] = {
        "name": name,
        "kind": kind,
        "arm": name if kind in ("alone", "varied", "control", "combination") else "",
        "says": "with it alone minus the reference",
        "points": tuple(values),
        "difference": mean,
        "sd": sd,
        "error": None if few else half / 2,
        "df": None if few else 12.0,
        "interval": None if few else own,
        "over_seeds": None if few else wide,
        "p": None if few else 0.031,
        "better": float(np.mean(np.sign(points) / 2 + 0.5)),
        "better_interval": None if few else Interval(0.28, 0.995),
        "verdict": verdict,
        "more_seeds": 14 if verdict == "open" and mean > 0 else None,
        "more_images": 9000 if verdict == "open" and mean > 0 else None,
        "note": note,
        "loss_difference": -mean * 2,
        "loss_interval": None if few else Interval(-mean * 2 - 0.012, -mean * 2 + 0.012),
        "loss_verdict": verdict,
        "correlation": 0.61,
        "seconds_ratio": None,
        "declared": kind not in ("pair", "control"),
        "expected": mean / 2 if kind in ("alone", "varied") else None,
        "helps": 0.5 + min(max(mean * 50, -0.49), 0.49) if kind in ("alone", "varied") else None,
    }
    return Effect(**(known | fields))  # type: ignore[arg-type]


def _verdict(own: Interval, changed: bool) -> str:
    if not changed:
        return "identical"
    if own.low > 0:
        return "worthwhile" if own.low > DELTA else "helps"
    if own.high < 0:
        return "hurts"
    return "equivalent" if own.low > -DELTA and own.high < DELTA else "open"


def proved(findings: Findings, difference: float = 0.0058) -> Findings:
    """The same, its candidate put to the proof."""
    reference = (0.838, 0.841, 0.845, 0.839, 0.842)
    gained = tuple(r + difference + d for r, d in zip(reference, (0.001, -0.001, 0.002, -0.002, 0.0), strict=True))
    points = np.subtract(gained, reference)
    own = effect("nominee", points, "combination", says="the nominated recipe minus the reference", seconds_ratio=1.03)
    return replace(findings, proof=Proof((100, 101, 102, 103, 104), 2500, 0.05, reference, gained, own, 0.0076))


ONWARD = {
    "mixup(alpha=0.2)": -0.031,
    "label_smoothing(eps=0.1)": -0.022,
    "ema(half_life=0.02)": 0.018,
    "sam": 0.004,
    "random_erasing(p=0.25)": -0.002,
    "progressive_resizing(start=0.5)": -0.019,
}
"""Gains downstream; of others 0."""


def onward(findings: Findings, half: float = 0.01) -> Findings:
    """The same, its classifiers made detectors and segmenters: intervals of so much to either side, flip_tta with no effect."""
    return replace(
        findings,
        downstream=(
            _onward(findings, half, "detection on cells", "map50"),
            _onward(findings, 2 * half, "segmentation on streets", "miou"),
        ),
    )


def _onward(findings: Findings, half: float, name: str, measure: Literal["map50", "miou"]) -> Downstream:
    made = []
    for e in findings.effects:
        gain = ONWARD.get(e.name, 0.0)
        width = 0.0 if e.name in ("flip_tta", "placebo") else half
        verdict = "helps" if gain > half else "hurts" if gain < -half else "open" if width else "identical"
        note = "1 of 5 seeds left out, as a run has no result" if e.name == "sam" else ""
        made.append(MeasuredEffect(e.name, e.says, gain, Interval(gain - width, gain + width), verdict, 5, note))
    return Downstream(name, measure, "test", 72, 50, 60, 0.612, tuple(made))


def picture(number: int, arms: tuple[str, ...], label: str = "gyoza", predicted: str = "donuts") -> Picture:
    """An image with a thumbnail of its own."""
    y, x = np.mgrid[:64, :64]
    waves = 128 + 90 * np.sin(0.1 * (number + 1) * x + 0.05 * number * y)
    pixels = np.stack([waves, np.roll(waves, 9, 0), np.roll(waves, 17, 1)], 2).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=70)
    thumbnail = "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
    return Picture(f"food10/val/{label}/IMG_{1000 + number}.jpg", label, predicted, arms, thumbnail)


def _arm(
    name: str, role: str, edits: str, accuracies: np.ndarray, ratio: float, rng: np.random.Generator, classes: tuple[str, ...]
) -> Arm:
    mean = float(np.mean(accuracies))
    epochs = tuple(range(1, 41))
    rise = [mean * (1 - 0.75 * math.exp(-epoch / 6)) + 0.004 * float(rng.standard_normal()) for epoch in epochs]
    bins = [(0.05 + 0.1 * n, min(1.0, max(0.0, 0.05 + 0.1 * n - 0.06 * n / 9)), 0.02 + 0.05 * n * n / 9) for n in range(1, 10)]
    return Arm(
        name=name,
        role=role,
        edits=edits,
        accuracies=tuple(float(a) for a in accuracies),
        accuracy=mean,
        sd=float(np.std(accuracies, ddof=1)) if len(accuracies) > 1 else None,
        nll=0.71 - mean / 4,
        macro_recall=mean - 0.002,
        ece=0.061 + 0.01 * float(rng.random()),
        reliability=tuple(bins),
        ece_calibrated=0.014,
        recalls=tuple(float(np.clip(mean + 0.05 * rng.standard_normal(), 0, 1)) for _ in classes),
        price=Price(
            seconds=546.0 * ratio,
            ratio=ratio,
            ratio_interval=Interval(ratio * 0.98, ratio * 1.02) if len(accuracies) > 1 else None,
            to_reference=480.0 * ratio if mean >= 0.842 else None,
            images_per_second=96.0 / ratio,
            memory_bytes=1_420_000_000,
            model_bytes=94_300_000,
            latency=0.021,
            alone=True,
        ),
        curve=Curve(epochs, tuple(rise), tuple(r - 0.008 for r in rise), tuple(r + 0.007 for r in rise)),
        failed=0,
        failure_interval=None,
    )
