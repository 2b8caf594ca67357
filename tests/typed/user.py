"""A user's script, which ``mypy --strict`` reads and nobody runs: every public name, used as the documents do."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, assert_type

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from numpy.typing import NDArray
from PIL import Image

import trickbag as tb


def data() -> Iterator[tb.Audit]:
    """DATA in all its forms."""
    photo = Image.open("photos/cat/1.jpg")
    for given in ("photos", Path("photos")):
        yield tb.check(given, on_bad="error", depth=1, progress=False)
    yield tb.check([("photos/cat/1.jpg", "cat"), (photo, "dog")])
    yield tb.check((np.zeros((2, 8, 8, 3), np.uint8), np.array([0, 1])))
    yield tb.check(pd.DataFrame({"path": ["1.jpg"], "label": ["cat"]}))
    yield tb.check(pa.table({"path": ["1.jpg"], "label": ["cat"]}))
    yield tb.check(torch.utils.data.TensorDataset(torch.zeros(2, 3, 8, 8), torch.zeros(2)))
    yield tb.check({"train": [(photo, "cat")], "test": [(photo, "dog")]}, progress=print)


def look(audit: tb.Audit) -> str:
    first: tb.Finding = audit.findings[0]
    images: tb.Images = audit.images
    counts: dict[str, dict[str, int]] = audit.counts
    assert_type(images.split("train"), tb.Images)
    assert_type(audit.as_json(), dict[str, Any])
    return f"{first.severity}: {first.message} {len(images)} {images.classes} {counts} {audit.left_out} {audit._repr_html_()}"


def train() -> tb.Result:
    made: tb.Plan = tb.plan("photos", budget="10m", with_=[tb.MixUp(alpha=0.4), "ema"], set_={"epochs": 3, "mixup.alpha": 0.4})
    print(made.recipe.model, made.seconds, made.steps, *made.lines())
    recipe: tb.Recipe = tb.Recipe.load("cifar").edit(with_=["mixup"], without=["flip"], epochs=30)
    tb.train("photos", recipe, model="resnet18", weights="none", seed=3, set_=["epochs=1"], on_leak="error", began=0.0)
    result = tb.train("photos", Path("my.toml"), budget=600, with_="mixup, ema", without=tb.Ema(), out="run", progress=True)
    curves: bytes = result.curves()
    wrong = [(error.path, error.true, error.predicted, error.probability) for error in result.errors(10)]
    print(result.folder / "result.json", result.record["test"], len(curves), len(result.confusion()), wrong, repr(recipe))
    assert_type(tb.finish(result.folder), tb.Result)
    return result


def tricks() -> tb.Recipe:
    mixing = assert_type(tb.MixUp(alpha=0.4), tb.MixUp)
    alpha: float = mixing.alpha
    choice: tb.OneOf = tb.OneOf(choices=(mixing, tb.CutMix()))
    kind: type[tb.Ema] = tb.Ema
    print(
        alpha,
        choice.choices[0],
        tb.Ema(half_life=0.2).half_life,
        kind.usage(),
        str(mixing),
        mixing._repr_html_(),
        tb.tricks.names(),
    )
    return tb.Recipe(model="resnet18", epochs=3, tricks=(mixing, choice, tb.LabelSmoothing(eps=0.1), tb.Warmup()))


def use(result: tb.Result) -> Iterator[tuple[str, float]]:
    classifier: tb.Classifier = tb.load("run", with_="flip_tta")
    photo = Image.open("photo.jpg")
    for images in (
        "photo.jpg",
        Path("folder"),
        "photos/*.jpg",
        ["photo.jpg", "folder"],
        photo,
        np.asarray(photo),
        b"",
        io.BytesIO(),
    ):
        for found in classifier.predict(images, top=3, threshold=0.8, on_bad="skip"):
            assert_type(found, tb.Prediction)
            yield found.classes[0], found.probabilities[0] * (not found.unsure)
    module: torch.nn.Module = classifier.module()
    print(module(torch.zeros(1, 3, 224, 224, dtype=torch.uint8)), result.classifier.classes, classifier.card.size)
    for seen in classifier.explain(["photo.jpg"], "cat"):
        print(seen.path, seen.map.shape)
    scored: Any = tb.evaluate("detector", "cells")
    if isinstance(scored, tb.TransferEvaluation):
        print(scored.whole.measures, scored.trained_on)
    reviewed: Any = tb.review("detector")
    if isinstance(reviewed, tb.SceneReview):
        print([(one.path, one.said) for one in reviewed.worst], reviewed.html())
    detector = tb.Predictor.load("detector")
    for marks in detector.predict("photos", threshold=0.5, on_bad="skip"):
        if isinstance(marks, tb.Detection):
            print(marks.path, [(box.name, box.score, box.left) for box in marks.boxes])
        if isinstance(marks, tb.Segmentation):
            print(marks.path, marks.regions.shape, marks.shares)
    evaluation: tb.Evaluation = tb.evaluate("run", "more", with_=[tb.FlipTta()], map_={"Cat": "cat"}, open_set=True)
    print(evaluation.scores.top1, evaluation.trained_on, evaluation.unseen, evaluation.as_json())


def measure() -> tb.Finished:
    options: tb.Options = tb.Options(seeds=5)
    plan: tb.StudyPlan = tb.plan_study("photos", tricks="mixup, ema", seeds=5, budget="1h", vary={"lr": [0.1, 0.2]})
    print(plan.hash, plan.design.kind, plan.seconds, plan.resolves(5), *plan.lines())
    tb.study("photos", options, tricks=[tb.MixUp(), "ema"], combine=[["mixup", "ema"]], design="factorial", workers="auto")
    study = tb.study("photos", "study.toml", tricks="auto", on="val", proof=False, out="study", workers=2)
    frame: Any = study.table().to_pandas()
    if study.proof:
        print(study.proof.verdict, study.proof.difference, study.proof.interval)
    for effect in study.effects:
        print(effect.name, effect.difference, effect.interval, effect.verdict, frame)
    tb.train("photos", study.recommended, out="best")
    made = tb.transfer("run", Path("cells"), "detection", seeds=3, set_={"head": "fcos"}, with_=tb.Ema(), budget="20m")
    assert_type(made, tb.Transfer)
    print(made.folder, made.record["measures"], [run.folder for run in made.runs])
    looked: tb.Review = tb.review(study.folder, out="review.html")
    print([(error.path, error.given, error.suggested) for error in looked.label_errors], looked.confusion.shape)
    tb.train("photos", corrections="corrections.csv", plugins=["posterize.py"], with_="posterize(bits=3)")
    assert_type(study.report("report.html"), Path)
    comparison: tb.Comparison = tb.compare("run", Path("best"), reference="run", delta=0.5)
    print(comparison.answer, comparison.as_json(), comparison.html(), comparison.pairs[0].effect)
    return study


@tb.metric
def top2(labels: NDArray[np.int64], probabilities: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.asarray((probabilities.argsort(1)[:, -2:] == labels[:, None]).any(1))


@tb.metric(better="lower")
def cost(labels: NDArray[np.int64], probabilities: NDArray[np.float64]) -> float:
    return float(labels.mean())


def obeys() -> bool:
    laws: tb.Verdicts = tb.laws("posterize.py")
    return not laws.broken


def ship() -> tb.Exported:
    tb.export("run", "timm", out="for-timm")
    return tb.export("run", "onnx", int8=True, data="photos")


def serve() -> None:
    tb.serve("run", Path("best"), port=0, threshold=0.5)


def marked() -> tb.Scenes:
    audit: tb.ScenesAudit = tb.check("cells", boxes=True, on_bad="error", progress=False)
    assert_type(tb.check(Path("streets"), regions=True, ignore="void"), tb.ScenesAudit)
    print(audit.counts["red"]["boxes"], audit.errors, audit.faults, audit.as_json(), audit.scenes.boxes[0].xyxy.shape)
    return audit.without_leaks().scenes.split("train")


def main() -> None:
    checkup: tb.Checkup = tb.doctor(clear=True)
    print(
        checkup.problems, checkup.versions["torch"], checkup.cache.free, checkup.machine.device, checkup.freed, *checkup.lines()
    )
    try:
        print(*map(look, data()), *use(train()), tricks(), measure().folder)
    except tb.UsageError as error:
        raise SystemExit(error.exit_code) from error
    except tb.TrickbagError as error:
        print(error)


if __name__ == "__main__":
    main()
