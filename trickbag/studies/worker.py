"""One job of a study: train once, then finish, judge and store every run that comes out of the training."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trickbag import plugins
from trickbag.engine.assemble import kept_pixels
from trickbag.engine.judge import judged_view, predictor
from trickbag.engine.loop import Loop
from trickbag.engine.precision import fabric_for
from trickbag.engine.speed import peak_memory, reset_peak_memory
from trickbag.ground import store
from trickbag.ground.errors import TrickbagError
from trickbag.ground.events import Tell, silent
from trickbag.ground.state import digest
from trickbag.models.card import CARD, WEIGHTS, Card
from trickbag.runs.classifier import export
from trickbag.runs.folder import DIVERGED, LOG, PREDICTIONS, RESULT, Divergence, LogLine
from trickbag.runs.outcome import Finished, environment, finish, judge_splits, packed
from trickbag.runs.request import Request
from trickbag.runs.run import Run
from trickbag.scenes.table import Task
from trickbag.studies.folds import JUDGES, Judging
from trickbag.studies.jobs import Cell, Job
from trickbag.trick import judged_weights, watchers


@dataclass(frozen=True)
class Place:
    """Where a study's files lie.

    ``runs/KEY`` is a finished run, ``trainings/KEY`` what a finished training left for arms that come later,
    ``forks/KEY-SHARE`` a state that others go on from; ``.work/KEY`` is a training under way. ``networks/KEY`` is a classifier
    that something is built on, ``transfers/TASK/KEY`` a detector or a segmenter.
    """

    folder: Path

    def run(self, key: str) -> Path:
        """Of a finished run."""
        return self.folder / "runs" / key

    def training(self, key: str) -> Path:
        """Of a finished training."""
        return self.folder / "trainings" / key

    def fork(self, key: str, share: float) -> Path:
        """Of a state at a share of a training."""
        return self.folder / "forks" / f"{key}-{share:g}"

    def work(self, key: str) -> Path:
        """Of a training under way."""
        return self.folder / ".work" / key

    def network(self, key: str) -> Path:
        """Of the classifier of a run, where something is built on it."""
        return self.folder / "networks" / key

    def transfer(self, task: Task, key: str) -> Path:
        """Of a detector or a segmenter on such a classifier's body."""
        return self.folder / "transfers" / task / key

    def done(self, cell: Cell) -> bool:
        """Whether a run is finished."""
        return (self.run(cell.key) / store.MANIFEST).exists()


def carry(job: Job, wanted: Request, place: Place, judging: Judging, alone: bool, tell: Tell = silent) -> None:
    """Train a job and store its runs; nothing that is stored is made again. ``alone``: nothing else runs on the device.

    Raises TrickbagError where the training fails; a run that diverged is stored with its last valid accuracy.
    """
    with plugins.using(wanted.plugins), store.lock(place.training(job.key), wait=True):
        missing = [cell for cell in job.cells if not place.done(cell)]
        if not missing:
            return
        run = begun(job, wanted, place, judging, tell)
        reset_peak_memory()
        try:
            loop = trained(run, place.training(job.key), missing)
        except TrickbagError:
            if not (run.folder / DIVERGED).exists():
                raise
            for cell in missing:
                write_diverged(cell, run, place)
        else:
            # Runs that judge the same weights in a row find the features of the one before.
            for cell in sorted(missing, key=lambda cell: judged_weights(cell.recipe.tricks)):
                write_run(cell, job, run, loop, place, alone)
        store.remove(run.folder)


def begun(job: Job, wanted: Request, place: Place, judging: Judging, tell: Tell) -> Run:
    """The training of a job, on the images that it may look at."""
    images = judging.table(wanted.data.images, job.turn, job.role)
    wanted = replace(wanted, data=wanted.data._replace(images=images))
    return Run(
        replace(wanted, recipe=job.recipe, seed=job.seed),
        job.recipe,
        place.work(job.key),
        fabric_for(job.recipe.precision),
        tell,
        job.follow,
        place.fork(job.parent, job.fork) if job.parent else None,
        {share: place.fork(job.key, share) for share in job.forks},
        wanted.seed,
    )


def network(job: Job, wanted: Request, place: Place, judging: Judging, tell: Tell = silent) -> Path:
    """The classifier of the one run of a job, in a folder that ``Classifier.load`` reads, from what its training left.

    Runs keep no weights, so that a study of many is small; where their training is lost or damaged, it is made again.
    """
    (cell,) = job.cells
    folder = place.network(cell.key)
    if not store.verify(folder, CARD, WEIGHTS):
        return folder
    store.remove(folder)
    with plugins.using(wanted.plugins), store.lock(place.training(job.key), wait=True):
        run = begun(job, wanted, place, judging, tell)
        loop = trained(run, place.training(job.key), job.cells)
        tensors, card = exported(cell, run, loop, finish(loop, cell.recipe))
        with store.writing(folder) as part:
            store.save_tensors(part / WEIGHTS, tensors)
            store.write(part / CARD, store.to_json(card.plain(), indent=2))
        store.remove(run.folder)
    return folder


def exported(cell: Cell, run: Run, loop: Loop, finished: Finished) -> tuple[dict[str, Tensor], Card]:
    """The tensors and the card of what a run deploys."""
    classes, kept = run.wanted.data.images.classes, kept_pixels(cell.recipe)
    return export(finished.model, finished.tricks, cell.recipe, classes, loop.loader.normal, kept)


def trained(run: Run, folder: Path, cells: Sequence[Cell]) -> Loop:
    """The loop at the end of training: from what a finished training left where that holds all that the cells need."""
    if not store.verify(folder, *store.STATE, LOG):
        state = store.load_state(folder)
        tricks, weights = state["loop"]["tricks"], state["loop"]["best"]
        if all(
            judged_weights(c.recipe.tricks) in weights and all(str(t) in tricks for t in watchers(c.recipe.tricks))
            for c in cells
        ):
            store.write(run.log, (folder / LOG).read_bytes())
            loop = run.assemble()
            run.restore(loop, state)
            return loop
    store.remove(folder)
    loop = run.train()
    with store.writing(folder) as part:
        state = run.state(loop)
        store.save_state(part, state | {"loop": state["loop"] | {"optimizer": {}}})
        store.write(part / LOG, run.log.read_bytes())
    return loop


def write_run(cell: Cell, job: Job, run: Run, loop: Loop, place: Place, alone: bool) -> None:
    """Finish, judge and store one run: ``result.json``, ``predictions.npz``, ``log.jsonl``, ``recipe.toml``."""
    began = time.monotonic()
    finished = finish(loop, cell.recipe)
    scores, arrays = judge_splits(loop, finished, (JUDGES,))
    own = {str(trick) for trick in watchers(cell.recipe.tricks)}
    others = sum(seconds for name, seconds in loop.watched.items() if name and name not in own)
    seconds = run.spent.seconds - others + loop.judge.spared + time.monotonic() - began
    images = run.wanted.data.images
    tensors, _ = exported(cell, run, loop, finished)
    record = {
        "key": cell.key,
        "scores": scores[JUDGES].brief(images.split("train").counts().tolist()),
        "seconds": round(seconds, 3),
        "training_seconds": round(run.spent.seconds, 3),
        "images_per_second": round(run.spent.images / run.spent.step_seconds, 2) if run.spent.step_seconds else 0.0,
        "epochs": cell.recipe.epochs,
        "kept_epoch": loop.best[judged_weights(cell.recipe.tricks)]["epoch"],
        "seed": cell.seed,
        "recipe_key": cell.recipe.key,
        "training": job.key,
        "steps": loop.step,
        "first_step": run.first,
        "memory_bytes": peak_memory(),
        "model_bytes": sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()),
        "latency": latency(loop, finished),
        "alone": alone,
        "weights": digest(tensors),
        "environment": environment(),
    }
    with store.writing(place.run(cell.key)) as folder:
        store.write(folder / "recipe.toml", cell.recipe.toml())
        store.write(folder / PREDICTIONS, packed(arrays, images))
        store.write(folder / LOG, own_log(run.log, judged_weights(cell.recipe.tricks)))
        store.write(folder / RESULT, store.to_json(record, indent=2))


def own_log(log: Path, weights: str) -> str:
    """The epochs of a training's log, with the scores of those weights that the run has judged."""
    epochs = [line for line in store.lines(log, LogLine) if line["kind"] == "epoch"]
    kept = ("kind", "epoch", "step", "t", "loss", "lr", "seconds")
    return "".join(store.to_json({k: line[k] for k in kept} | {"val": line["weights"][weights]}) + "\n" for line in epochs)


def write_diverged(cell: Cell, run: Run, place: Place) -> None:
    """Store a run that diverged: what it counts with is its last valid accuracy, else that of a guess."""
    images = run.wanted.data.images
    valid = [
        line["weights"][judged_weights(cell.recipe.tricks)]["top1"]
        for line in store.lines(run.log, LogLine)
        if line["kind"] == "epoch"
    ]
    record = {
        "key": cell.key,
        "seed": cell.seed,
        "diverged": Divergence.load(run.folder).message,
        "counts_with": valid[-1] if valid else 1 / len(images.classes),
        "rows": np.flatnonzero(images.splits == JUDGES).tolist(),
    }
    with store.writing(place.run(cell.key)) as folder:
        store.write(folder / "recipe.toml", cell.recipe.toml())
        store.write(folder / RESULT, store.to_json(record, indent=2))


def latency(loop: Loop, finished: Finished, repeats: int = 5) -> float:
    """Seconds that the finished network takes for one image with all tricks, the median of a few after a first."""
    loader = loop.judge.loaders["val"]
    predict: Callable[[Tensor], Any] = predictor(finished.model, finished.tricks, loop.fabric.autocast)
    batch = next(loader.judged(torch.arange(1), 1, judged_view(loader.view, finished.tricks)))
    seconds = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        predict(batch.x).logits.cpu()
        seconds.append(time.perf_counter() - began)
    return sorted(seconds[1:])[repeats // 2]
