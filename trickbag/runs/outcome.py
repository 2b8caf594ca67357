"""From the last epoch to the files of a finished run: finishing tricks, the one look at the test split, the export."""

import copy
import csv
import io
import os
import platform
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, cast, get_args

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from trickbag import plugins
from trickbag.data.images import Images
from trickbag.engine import changed, sets
from trickbag.engine.assemble import kept_pixels
from trickbag.engine.loop import Loop
from trickbag.engine.scores import Scores, finite, interval, score
from trickbag.ground import store
from trickbag.ground.streams import generator
from trickbag.models.card import CARD, WEIGHTS
from trickbag.models.networks import Net
from trickbag.recipe import Recipe, Training
from trickbag.report import figures
from trickbag.runs.classifier import export
from trickbag.runs.folder import LOG, PREDICTIONS, RESULT, Corrected, Divided, Judged, LogLine, RunRecord, SetsRecord, SplitName
from trickbag.runs.request import Request
from trickbag.runs.seen import IMAGES, Seen, taught_here
from trickbag.trick import Fit, Trick, having, judged_weights

PACKAGES = ("trickbag", "torch", "torchvision", "timm", "numpy", "lightning-fabric")


class Spent(NamedTuple):
    """What a run took so far, over all its processes."""

    seconds: float = 0.0
    """For training and validation."""
    step_seconds: float = 0.0
    """For training steps alone."""
    images: int = 0
    """Trained on."""


class Finished(NamedTuple):
    """What is deployed: a network and the tricks that judge with it."""

    model: Net
    tricks: Sequence[Trick]


def finish(loop: Loop, recipe: Training) -> Finished:
    """The kept epoch's network after the finishing tricks of a recipe, which the loop trained or followed."""
    judge, model = loop.judge, cast(Net, copy.deepcopy(loop.model))
    model.load_state_dict(loop.best[judged_weights(recipe.tricks)]["model"])
    model.companions.clear()
    trained = {str(trick): trick for trick in [*loop.tricks, *loop.watching]}
    tricks = [_own(trick, trained, model, judge) for trick in recipe.tricks]
    judge.begin()
    judge.reach(loop.share)
    for place, trick in enumerate(tricks):
        if "finish" in trick.plugs():
            judge.see(model, tricks[:place])
            model = cast(Net, trick.finish(model, judge, generator(judge.facts.seed, trick.name())))
    return Finished(model, tricks)


def _own(trick: Trick, trained: Mapping[str, Trick], model: Net, fit: Fit) -> Trick:
    """A trick as training left it, or a fresh one where it acts only now; a copy where finishing changes it."""
    found = trained.get(str(trick))
    if found is None:
        fresh = trick.fresh()
        for one in having([fresh], "setup"):
            one.setup(model, fit)
        return fresh
    return copy.deepcopy(found) if "finish" in found.plugs() else found


def judge_splits(loop: Loop, finished: Finished, splits: Sequence[str]) -> tuple[dict[str, Scores], dict[str, Tensor]]:
    """Scores of some splits with all tricks, and the logits and labels they come from. The test is looked at once."""
    scores: dict[str, Scores] = {}
    arrays: dict[str, Tensor] = {}
    for split in splits:
        loader = loop.judge.loaders[split]
        labels, names = loader.labels, loader.pixels.images.paths
        logits = finite(loop.judge.outputs(finished.model, split, finished.tricks)[1], names)
        scores[split] = score(logits, labels)
        arrays |= {f"{split}_logits": logits, f"{split}_labels": labels}
    return scores, arrays


def write_result(
    folder: Path, wanted: Request, recipe: Recipe, loop: Loop, spent: Spent, clock: float, short: str = ""
) -> None:
    """Finish, score and write every file of the run's folder, the manifest last.

    ``clock`` is when this began, by the monotonic clock; ``short`` is why the budget held an epoch or none.
    """
    finished = finish(loop, recipe)
    scores, arrays = judge_splits(loop, finished, [split for split in ("val", "test") if len(wanted.data.images.split(split))])
    images, trained = wanted.data.images, wanted.data.images.split("train").counts().tolist()
    chosen = recipe.keep == "best" and recipe.epochs > 0
    changes = changed.changed(images.split("train"), loop.loader.pixels.images)
    tensors, card = export(finished.model, finished.tricks, recipe, images.classes, loop.loader.normal, kept_pixels(recipe))
    judged = {
        split: Judged(
            **s.brief(trained), top1_interval=list(interval(round(s.top1 * s.n), s.n)), metrics=measured(arrays, split)
        )
        for split, s in scores.items()
    }
    if "test" in judged and (made := sets.measured(finished.tricks, arrays["test_logits"], arrays["test_labels"])):
        covered = SetsRecord.of(asdict(made) | {"chosen": chosen})
        judged["test"] = judged["test"].model_copy(update={"sets": covered})
    record = RunRecord(
        val=judged["val"],
        test=judged.get("test"),
        seconds=round(spent.seconds + time.monotonic() - clock, 2),
        images_per_second=round(spent.images / spent.step_seconds, 2) if spent.step_seconds else 0.0,
        epochs=recipe.epochs,
        trained=loop.share if recipe.epochs else 1.0,
        kept_epoch=loop.best[judged_weights(recipe.tricks)]["epoch"],
        chosen=chosen,
        short=short,
        recipe_key=recipe.key,
        data_fingerprint=wanted.data.fingerprint,
        seed=wanted.seed,
        splits=divided(wanted),
        training_images={"images": len(loop.loader.labels)} | changed.count(changes),
        corrections=Corrected(**images.correction._asdict()) if images.correction else None,
        request=wanted.key,
        plugins={name: plugin.digest for name, plugin in wanted.own.items()},
        environment=environment(),
    )
    files: dict[str, bytes | str] = {
        WEIGHTS: save({name: value.cpu().contiguous() for name, value in tensors.items()}),
        CARD: store.to_json(card.plain(), indent=2),
        PREDICTIONS: packed(arrays, images),
        "predictions.csv": predictions_csv(arrays, images),
        "confusion.csv": confusion_csv({split: s.confusion for split, s in scores.items()}, images.classes),
        "curves.png": figures.curves(store.lines(folder / LOG, LogLine)),
        "confusion.png": figures.confusion(scores["test" if "test" in scores else "val"].confusion, images.classes),
        IMAGES: seen(loop, recipe, images).also(wanted.before).packed(),
        RESULT: store.to_json(record.plain(), indent=2),
    }
    if having(loop.tricks, "data"):
        files["changed.csv"] = csv_of(("path", "old", "new"), changes)
    for name, content in files.items():
        store.write(folder / name, content)
    store.seal(folder)


def seen(loop: Loop, recipe: Recipe, images: Images) -> Seen:
    """Which images a run and the teachers that were trained for it have seen."""
    own = Seen.of(loop.judge.loaders.get("beside", loop.loader).pixels.images, images)
    return own.also(Seen.of(images.split("train"), images)) if taught_here(recipe) else own


def measured(arrays: Mapping[str, Tensor], split: str) -> dict[str, float | None]:
    """What one's own metrics say of a split; None where one fails or gives no finite number."""
    return plugins.measured(arrays[f"{split}_labels"], arrays[f"{split}_logits"])


def divided(wanted: Request) -> dict[SplitName, Divided]:
    """Of each split how many images it has, whether the user gave it, and how many of them the runs before trained on."""
    images, given = wanted.data.images, wanted.audit.images.splits
    met = wanted.before.splits(images) == "train"
    return {
        split: Divided(images=int(own.sum()), given=bool((given == split).any()), trained_before=int((own & met).sum()))
        for split in get_args(SplitName)
        for own in [images.splits == split]
    }


def packed(arrays: Mapping[str, Tensor], images: Images) -> bytes:
    """The content of ``predictions.npz``: logits and labels of each split, and which images they are of."""
    rows = {f"{split}_rows": np.flatnonzero(images.splits == split) for split in {name.partition("_")[0] for name in arrays}}
    file = io.BytesIO()
    np.savez_compressed(file, **{name: value.numpy() for name, value in arrays.items()}, **rows)  # type: ignore[arg-type]
    return file.getvalue()


def predictions_csv(arrays: Mapping[str, Tensor], images: Images) -> bytes:
    """The content of ``predictions.csv``: each judged image with its path, split, class, predicted class and probability."""

    def lines() -> Iterator[tuple[object, ...]]:
        for split in dict.fromkeys(name.partition("_")[0] for name in arrays):
            best = arrays[f"{split}_logits"].double().softmax(1).max(1)
            columns = (arrays[f"{split}_labels"], best.indices, best.values)
            for row, label, said, p in zip(np.flatnonzero(images.splits == split), *(c.tolist() for c in columns), strict=True):
                yield images.paths[row], split, images.classes[label], images.classes[said], f"{p:.6f}"

    return csv_of(("path", "split", "true", "predicted", "probability"), lines())


def confusion_csv(matrices: Mapping[str, Sequence[Sequence[int]]], classes: Sequence[str]) -> bytes:
    """The content of ``confusion.csv``: how many images of a class were predicted as a class, where there is any."""
    cells = (
        (split, classes[true], classes[said], count)
        for split, matrix in matrices.items()
        for true, row in enumerate(matrix)
        for said, count in enumerate(row)
        if count
    )
    return csv_of(("split", "true", "predicted", "images"), cells)


def csv_of(head: Sequence[str], lines: Iterable[Sequence[object]]) -> bytes:
    """CSV in UTF-8 for programs: every name exactly as it is, one that is no UTF-8 with its own bytes."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([head, *lines])
    try:
        return text.getvalue().encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a lone surrogate that stands for no byte, as JSON can hold one
        return text.getvalue().encode("utf-8", "surrogatepass")


def environment() -> dict[str, Any]:
    """What a reader needs to know of the machine that a figure comes from."""
    return {
        **{name: version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }
