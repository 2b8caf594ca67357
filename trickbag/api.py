"""The verbs as Python functions; the command line calls them, and shows what is said here of a parameter as its help."""

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal, overload

from trickbag import plugins as own
from trickbag.data.audit import Audit
from trickbag.data.given import Data, kept
from trickbag.display.listening import Progress, listening
from trickbag.exports import shipping
from trickbag.ground import store
from trickbag.ground.arguments import Between, Share, Whole, public
from trickbag.ground.errors import UsageError
from trickbag.ground.streams import MOST_SEED
from trickbag.ground.typed import processes, seconds
from trickbag.mistakes import features, look
from trickbag.mistakes import scenes as scene_mistakes
from trickbag.models.card import transferred as transferred_to
from trickbag.recipe import Recipe
from trickbag.runs import evaluation, forecast
from trickbag.runs import run as running
from trickbag.runs.classifier import Classifier
from trickbag.runs.request import Bad, check_used, request, tell_where
from trickbag.runs.request import check as checked
from trickbag.scenes import audit as scenes
from trickbag.scenes.audit import ScenesAudit
from trickbag.scenes.table import Task
from trickbag.serving.limits import Limits
from trickbag.studies import conduct, finished
from trickbag.studies.options import DESIGNS, Options, plugins_of
from trickbag.studies.plan import StudyPlan
from trickbag.transfers import evaluation as transfer_evaluation
from trickbag.transfers import request as transferring
from trickbag.transfers.predictor import Predictor, for_classifiers
from trickbag.transfers.recipe import TransferRecipe
from trickbag.transfers.seeds import Transfer
from trickbag.transfers.seeds import transfer as transferred
from trickbag.trick import Tricks

if TYPE_CHECKING:
    from trickbag.laboratory.verdicts import Verdicts

Seed = Annotated[int, Between(0, MOST_SEED)]
"""Of all that is random."""
Named = Annotated[str | Path | Recipe, "the name of a recipe, a TOML file or a Recipe"]
"""A recipe."""
Fields = Annotated[Mapping[str, Any] | Iterable[str] | str, "a dict such as {'epochs': 3}, or a list such as ['epochs=3']"]
"""``{"epochs": 3, "mixup.alpha": 0.4}`` or ``["epochs=3", "mixup.alpha=0.4"]``."""
Model = str | Callable[..., Any] | None
"""A network by name, or timm's function that builds it."""
Time = Annotated[float | str, "seconds, or a time such as '10m'"]
"""Seconds, or ``"90s"``, ``"10m"``, ``"2h"``."""


@overload
def check(
    data: Data,
    *,
    on_bad: Bad = ...,
    depth: int = ...,
    corrections: str | Path = ...,
    labels: bool = ...,
    model: str | None = ...,
    weights: str | Path | None = ...,
    progress: Progress = ...,
) -> Audit: ...
@overload
def check(data: str | Path, *, boxes: Literal[True], on_bad: Bad = ..., progress: Progress = ...) -> ScenesAudit: ...
@overload
def check(
    data: str | Path, *, regions: Literal[True], ignore: str | Iterable[str] = ..., on_bad: Bad = ..., progress: Progress = ...
) -> ScenesAudit: ...
@public
def check(
    data: Data,
    *,
    boxes: bool = False,
    regions: bool = False,
    ignore: str | Iterable[str] = (),
    on_bad: Bad = "skip",
    depth: Whole = 0,
    corrections: str | Path = "",
    labels: bool = False,
    model: str | None = None,
    weights: str | Path | None = None,
    progress: Progress = None,
) -> Audit | ScenesAudit:
    """What is wrong with a data set: class counts, imbalance, copies, unreadable files, and what to do about them.

    Examples:
        >>> import trickbag as tb
        >>> tb.check("photos")
        <24 images in 2 classes>
        >>> tb.check("cells", boxes=True)
        <3 images with 7 boxes of 2 classes: notes 1>

    Args:
        data: The images, as for ``train``. With ``boxes`` or ``regions``, a folder.
        boxes: Check boxes, for detection: a folder in the form of Pascal VOC, COCO or YOLO.
        regions: Check regions, for segmentation: folders of images and of label images (PNG), a class number for each pixel.
        ignore: A class of regions whose pixels do not count, by name or by value; 255 never counts.
        on_bad: Skip and list unreadable files, or stop with an error that lists them.
        depth: How many folders make a class: 1 for the top one. Default: all of them.
        corrections: A CSV file with the columns `path,old,new` that corrects labels, as the page of `trickbag review` saves it;
            with drop for a new class, an image is left out.
        labels: List probable label errors: images whose label a classifier doubts that was fitted to other images, by confident
            learning on the features of a network that was trained on other photos.
        model: A timm model for ``labels``. Default: what the recipe auto begins with.
        weights: Its weights: a .safetensors file, a run's folder or hub.
        progress: Whether to show progress, or a function of its events; by default in a terminal and in a notebook.

    Raises:
        UsageError: There is no data set.
        TrickbagError: With ``on_bad="error"``, for unreadable files.

    """
    if not labels and (model or weights):
        raise UsageError("a model and weights are for judging labels. Give --labels too.")
    if boxes or regions:
        for name, given in {"depth": depth, "corrections": corrections, "labels": labels}.items():
            if given:
                raise UsageError(f"{name} is for images of classes. Leave it out with boxes and regions.")
        if boxes and regions:
            raise UsageError("boxes and regions are two kinds of data sets. Ask for one of them at a time.")
        with listening(progress) as tell:
            return scenes.check(data, "detection" if boxes else "segmentation", ignore, on_bad, tell)
    if ignore:
        raise UsageError("ignore is for regions. Give --regions too.")
    with listening(progress) as tell:
        source = kept(data, tell)
        found = checked(source, on_bad=on_bad, depth=depth, corrections=corrections, tell=tell)
        return features.checked(found, source, model, weights, tell) if labels else found


@public
def plan(
    data: Data,
    recipe: Named = "auto",
    *,
    model: Model = None,
    weights: str | Path | None = None,
    budget: Time = 0,
    with_: Tricks = (),
    without: Tricks = (),
    set_: Fields = (),
    plugins: own.Files = (),
    seed: Seed = 0,
    on_bad: Bad = "skip",
    on_leak: Bad = "skip",
    depth: Whole = 0,
    corrections: str | Path = "",
    began: float | None = None,
    progress: Progress = None,
) -> forecast.Plan:
    """What ``train`` with the same arguments would do and cost: nothing is trained but a few steps to be timed.

    Examples:
        >>> import trickbag as tb
        >>> made = tb.plan("photos", "cifar", model="cifar_resnet8", set_={"size": 16, "epochs": 3})
        >>> made.splits, made.steps
        ({'train': 18, 'val': 2, 'test': 4}, 3)

    Raises:
        UsageError: As ``train`` does.

    """
    name, file = own.named(model)
    with listening(progress) as tell, own.using(plugins, file):
        wanted = request(
            kept(data, tell),
            recipe,
            model=name,
            weights=weights,
            budget=budget,
            with_=with_,
            without=without,
            set_=set_,
            seed=seed,
            on_bad=on_bad,
            on_leak=on_leak,
            depth=depth,
            corrections=corrections,
            began=began,
            tell=tell,
        )
        return forecast.plan(wanted, tell)


@public
def train(
    data: Data,
    recipe: Named = "auto",
    *,
    model: Model = None,
    weights: str | Path | None = None,
    budget: Time = 0,
    with_: Tricks = (),
    without: Tricks = (),
    set_: Fields = (),
    plugins: own.Files = (),
    seed: Seed = 0,
    out: str | Path | None = None,
    on_bad: Bad = "skip",
    on_leak: Bad = "skip",
    depth: Whole = 0,
    corrections: str | Path = "",
    began: float | None = None,
    progress: Progress = None,
) -> running.Result:
    """Train a classifier on a data set and score it once on the test split.

    The same call again returns the finished run, or continues a training that was stopped. In Python, data may lie in memory
    too: a list of (path or image, label), two arrays of images and of labels, a table of pandas or pyarrow, a
    map-style Dataset of torch, or a dict of these by split (``trickbag.data.given.kept``).

    Examples:
        >>> import trickbag as tb
        >>> small = {"size": 16, "epochs": 1}
        >>> result = tb.train("photos", "cifar", model="cifar_resnet8", with_=tb.MixUp(alpha=0.4), set_=small, out="new-run")
        >>> result.record["epochs"], result.classifier.classes
        (1, ('cat', 'dog'))

    Args:
        data: A folder with one folder per class (optionally below train/val/test folders); a CSV or Parquet file with the
            columns `path,label[,split][,group][,left,top,right,bottom]`; an archive of such a folder; a quoted pattern of
            WebDataset shards, for example 'shards/{train,val}-{000000..000003}.tar'; torchvision:NAME or timm:NAME.
        recipe: A built-in recipe, or a TOML file.
        model: A timm model, or cifar_resnet8, 20, 32 or 56, or one of your own.
        weights: Initial weights: a .safetensors file, a run's folder, hub or none.
        budget: Time limit for the whole run, for example 90s, 10m or 2h.
        with_: Add a trick, for example 'mixup(alpha=0.4)'.
        without: Remove a trick.
        set_: Set a field of the recipe or of a trick, for example lr=0.1 or mixup.alpha=0.4.
        plugins: A Python file with a trick, a network or metrics of your own.
        seed: The random seed. The same seed gives the same result.
        out: Folder for the run. Default: a new one in runs/.
        on_bad: Skip and list unreadable files, or stop with an error that lists them.
        on_leak: Images that appear in two splits: drop and list the training copies, or stop with an error.
        depth: How many folders make a class: 1 for the top one. Default: all of them.
        corrections: A CSV file with the columns `path,old,new` that corrects labels, as the page of `trickbag review` saves it;
            with drop for a new class, an image is left out.
        began: When the budget began to count, by ``time.monotonic()``. Default: now.
        progress: Whether to show progress, or a function of its events; by default in a terminal and in a notebook.

    Raises:
        UsageError: What is asked for cannot be done as asked.
        TrickbagError: The run fails.

    """
    name, file = own.named(model)
    with listening(progress) as tell, own.using(plugins, file):
        place = None if out is None else store.folder_of(out)
        source = kept(data, tell)
        wanted = request(
            source,
            recipe,
            model=name,
            weights=weights,
            budget=budget,
            with_=with_,
            without=without,
            set_=set_,
            seed=seed,
            on_bad=on_bad,
            on_leak=on_leak,
            depth=depth,
            corrections=corrections,
            began=began,
            tell=tell,
        )
        folder = place or wanted.folder
        tell_where(folder, source, tell)
        return running.carry_out(wanted, folder, tell)


@public
def finish(run: str | Path, *, progress: Progress = None) -> running.Result:
    """Score and seal a training that was stopped, with its best epoch so far; a finished run stays as it is.

    Examples:
        >>> import trickbag as tb
        >>> tb.finish("run").record["kept_epoch"]
        1

    Args:
        run: The folder of a run.
        progress: Whether to show progress, or a function of its events; by default in a terminal and in a notebook.

    Raises:
        UsageError: There is no such run, its data or its recipe are others by now, or it has kept no epoch.

    """
    with listening(progress) as tell:
        return running.finish(run, tell=tell)


@public
def evaluate(
    run: str | Path,
    data: Data,
    *,
    with_: Tricks = (),
    plugins: own.Files = (),
    open_set: bool = False,
    energy: bool = False,
    depth: Whole = 0,
    corrections: str | Path = "",
    map_: Mapping[str, str] | str | Path = MappingProxyType({}),
    progress: Progress = None,
) -> evaluation.Evaluation | Any:
    """Score a run, a detector or a segmenter on other data, all splits together; a run optionally with test-time tricks.

    Images that the run was trained on are counted by their content, and the others scored by themselves too.

    Examples:
        >>> import trickbag as tb
        >>> found = tb.evaluate("run", "photos", with_="flip_tta")
        >>> found.scores.n, found.trained_on
        (24, 18)
        >>> list(tb.evaluate("detector", "cells").whole.measures)
        ['map50', 'map']

    Args:
        run: The folder of a run, or of a detector or segmenter.
        data: The images, as for ``train``; those with boxes or regions, as for ``transfer``.
        with_: Add a trick that acts when images are judged, for example flip_tta.
        plugins: A Python file with a trick, a network or metrics of your own.
        open_set: Measure how well images of classes unknown to the run are rejected: by the threshold that keeps most of
            the run's own validation images.
        energy: With ``open_set``: reject by energy instead of by the largest probability.
        depth: How many folders make a class: 1 for the top one. Default: all of them.
        corrections: A CSV file with the columns `path,old,new` that corrects labels, as the page of `trickbag review` saves it;
            with drop for a new class, an image is left out.
        map_: A CSV file with two columns, a class of the data set and the run's name for it; in Python also a dict.
        progress: Whether to show progress, or a function of its events; by default in a terminal and in a notebook.

    Raises:
        UsageError: The data set has a class that the run does not know, or no boxes or regions; with ``open_set``, it has no
            image of such a class or none of another, or the run keeps no predictions of its validation images.

    """
    if transferred_to(Path(run)):
        for_classifiers(run, with_=with_, plugins=plugins, open_set=open_set, energy=energy, depth=depth)
        for_classifiers(run, corrections=corrections, map_=map_)
        with listening(progress) as tell:
            return transfer_evaluation.evaluate(run, data, tell)
    with listening(progress) as tell, own.using(plugins):
        return evaluation.evaluate(run, kept(data, tell), with_, tell, open_set, energy, depth, map_, corrections)


@public
def review(
    folder: str | Path, data: Data | None = None, *, out: str | Path | None = None, progress: Progress = None
) -> look.Review | Any:
    """Look at the mistakes of a finished run or a study: wrong images, probable label errors, near copies, and what stands out.

    Of a detector or a segmenter it shows the worst images, with what is marked on them beside what was found.

    The page, one HTML file that needs nothing else, shows them with pictures, and saves the corrections that you make there
    for ``corrections`` of ``check``, ``train``, ``study`` and ``evaluate``.

    Examples:
        >>> import trickbag as tb
        >>> found = tb.review("run", "photos", out="review.html")
        >>> print(found.confusion.sum(), "images are judged,", found.confusion.trace() + len(found.wrong), "are listed")
        6 images are judged, 6 are listed

    Args:
        folder: The folder of a run, of a study, or of a detector or segmenter.
        data: The data set, as `trickbag train` takes it. Default: where it lay when this machine trained on it.
        out: The page. Default: review.html in the folder.
        progress: Whether to show progress, or a function of its events; by default in a terminal and in a notebook.

    Raises:
        UsageError: The folder holds neither, the page would be a folder or take the place of a file that trickbag did not make,
            or the images are not those that were judged.
        TrickbagError: The folder is damaged.

    """
    with listening(progress) as tell:
        if out is not None and (os.path.isdir(out) or Path(out).suffix.lower() not in (".html", ".htm")):
            raise UsageError(f"{str(out)!r} is no name of a page. Name a file that ends in .html, for example review.html.")
        if out is not None:
            store.check_free(Path(out), "--out")
        if transferred_to(Path(folder)):
            of_marks = scene_mistakes.review(Path(folder), data, tell)
            of_marks.write(Path(folder) / look.PAGE if out is None else out)
            return of_marks
        found = look.review(Path(folder), data if data is None else kept(data, tell), tell)
        found.write(Path(folder) / look.PAGE if out is None else out)
        return found


@public
def transfer(
    model: str | Path,
    data: str | Path,
    to: Task,
    recipe: Annotated[str | Path | TransferRecipe, "the name of a recipe, a TOML file or a TransferRecipe"] | None = None,
    *,
    weights: str | Path | None = None,
    with_: Tricks = (),
    without: Tricks = (),
    set_: Fields = (),
    plugins: own.Files = (),
    seeds: Annotated[int, Between(1)] = 1,
    budget: Time = 0,
    seed: Seed = 0,
    ignore: str | Iterable[str] = (),
    on_leak: Bad = "skip",
    out: str | Path | None = None,
    progress: Progress = None,
) -> Transfer:
    """Make a classifier into a detector of boxes or a segmenter of regions, and score it once on the test split.

    Its body, the network without what says the class of an image, is fine-tuned below a new head. The same call again returns
    what is finished, or continues where it was stopped; with more seeds only the new ones are trained.

    Examples:
        >>> import trickbag as tb
        >>> small = {"size": 32, "epochs": 1, "head": "fcos"}
        >>> made = tb.transfer("run", "cells", "detection", set_=small, out="detector")
        >>> made.record["split"], list(made.record["measures"]), [run.folder.name for run in made.runs]
        ('test', ['map50', 'map'], ['seed-0'])

    Args:
        model: The folder of a run, or a timm model.
        data: A folder with boxes, as Pascal VOC, COCO JSON or YOLO text have them, or with label images of regions.
        to: Boxes (detection) or the class of each pixel (segmentation).
        recipe: A TOML file, or detection or segmentation. Default: the one for the task.
        weights: Initial weights of a timm model: a .safetensors file, hub or none. A run has its own.
        with_: Add a trick that acts here: an optimiser, a schedule, an average of weights, flip or random_resized_crop.
        without: Remove a trick.
        set_: Set a field of the recipe or of a trick, for example head=fcos or size=512.
        plugins: A Python file with a trick or a network of your own; a run brings those that it was trained with.
        seeds: How many trainings, each with another seed: of several, intervals speak of new seeds too.
        budget: Time limit for all of them, for example 20m or 2h: it decides how many epochs there are.
        seed: The first random seed. The same seed gives the same result.
        ignore: A class of regions whose pixels do not count, by name or by value; 255 never counts.
        on_leak: Images that appear in two splits: drop the training copies, or stop with an error.
        out: Folder for the results. Default: a new one in runs/.
        progress: Whether to show progress, or a function of its events; by default in a terminal and in a notebook.

    Raises:
        UsageError: What is asked for cannot be done as asked.
        TrickbagError: A training fails.

    """
    with listening(progress) as tell, own.using(plugins):
        place = None if out is None else store.folder_of(out)
        wanted = transferring.request(
            model,
            data,
            to,
            recipe,
            weights=weights,
            with_=with_,
            without=without,
            set_=set_,
            seed=seed,
            ignore=ignore,
            on_leak=on_leak,
            tell=tell,
        )
        check_used(own.active(), wanted.own)
        return transferred(wanted, seeds, seconds(budget), place or wanted.folder, tell)


@public
def laws(file: str | Path, *, progress: Progress = None) -> "Verdicts":
    """Try the laws that every trick obeys on a trick of your own: neutral values, randomness, resuming, bounds, card.

    Each law trains tiny networks on a few images in memory; all of them take less than a minute.

    Examples:
        >>> import trickbag as tb
        >>> tb.laws("posterise.py")
        Traceback (most recent call last):
        trickbag.ground.errors.UsageError: plugin 'posterise.py' cannot be read: No such file or directory. Give a Python file.

    Args:
        file: A Python file with a trick.
        progress: Whether to show progress, or a function of its events; by default in a terminal and in a notebook.

    Raises:
        UsageError: The file holds no trick that can be used; the sentence names the line.

    """
    from trickbag.laboratory.verdicts import verdicts  # with doctest and unittest, which no other verb needs

    with listening(progress) as tell:
        return verdicts(file, tell)


@public
def load(run: str | Path, with_: Tricks = (), plugins: own.Files = ()) -> Classifier | Any:
    """The classifier of a finished run, or the detector or segmenter (``Predictor``) that transfer made.

    Examples:
        >>> import trickbag as tb
        >>> for found in tb.load("run").predict("photos/cat/0[01].png", top=1):
        ...     print(found.path, len(found.classes))
        photos/cat/00.png 1
        photos/cat/01.png 1
        >>> for found in tb.load("detector").predict("cells/JPEGImages/[12].png", threshold=0.9):
        ...     print(found.path, [box.name for box in found.boxes])
        cells/JPEGImages/1.png []
        cells/JPEGImages/2.png []

    Args:
        run: The folder of a run, or of a detector or segmenter.
        with_: Add a trick that acts when images are judged, for example flip_tta.
        plugins: A Python file with a trick, a network or metrics of your own.

    Raises:
        UsageError: The folder holds no finished run, or a trick needs training or acts on classes of whole images.
        TrickbagError: The folder is damaged.

    """
    if transferred_to(Path(run)):
        for_classifiers(run, with_=with_, plugins=plugins)
        return Predictor.load(run)
    with own.using(plugins):
        own.check_apart(run)
        return Classifier.load(run, with_)


@public
def serve(
    *runs: str | Path,
    host: str = "127.0.0.1",
    port: Annotated[int, Between(0, 65535)] = 8000,
    token: str = "",
    threshold: Share | None = None,
    images: int = 64,
    megabytes: float = 64,
    megapixels: float = 50,
    seconds: float = 10,
    queue: int = 16,
    progress: Progress = None,
) -> None:
    """Open a page to drop photos on, and answer programs at the same address; this call lasts until it is interrupted.

    Examples:
        >>> import trickbag as tb
        >>> tb.serve("no run", port=0)
        Traceback (most recent call last):
        trickbag.ground.errors.UsageError: no run holds no trained classifier: there is no model.json. Give the folder \
that train wrote.

    Args:
        runs: The folders of runs, detectors and segmenters, to be looked at side by side.
        host: The address to listen at. Any other than this machine's own needs ``token``.
        port: The port to listen at; 0 takes any that is free, and says which.
        token: What a client must know: 12 to 200 letters, digits or signs of -._~.
        threshold: Call a prediction unsure whose probability is below it, and leave out boxes whose score is, unless a request
            says otherwise. Default: 0, and 0.5 for boxes.
        images: The most images that a request may bring.
        megabytes: The most that a request may bring, in millions of bytes.
        megapixels: The largest image, in millions of pixels.
        seconds: For a request to arrive, and again for its answer.
        queue: The most requests that wait for a run.
        progress: Whether to show progress, or a function of its events; by default in a terminal and in a notebook.

    Raises:
        UsageError: A folder holds no finished run, the address cannot be taken, others can reach it and there is no token, or
            the packages of trickbag[serve] are missing.
        TrickbagError: A folder is damaged.

    """
    try:
        from trickbag.serving import server  # what it needs is an extra
    except ImportError as error:
        if error.name and error.name.startswith("trickbag"):
            raise
        raise UsageError("serving needs FastAPI and uvicorn. Install them: pip install 'trickbag[serve]'.") from None
    with listening(progress) as tell:
        limits = Limits(images, megabytes, megapixels, seconds, queue)
        server.serve(runs, host, port, token, threshold, limits, tell)


@public
def export(
    run: str | Path,
    to: shipping.To = "onnx",
    *,
    int8: bool = False,
    data: Data | None = None,
    out: str | Path | None = None,
    push: str = "",
    progress: Progress = None,
) -> shipping.Exported | Any:
    """Write a run's classifier for other programs, and compare what was written with the run, image by image.

    A file that says another class than the run for more than one image of 200, or a probability that is off by more than 0.02,
    is called ``.differs``, and an error is raised.

    Examples:
        >>> import trickbag as tb
        >>> found = tb.export("run", "torch", data="photos", out="shipped")
        >>> found.files[0], found.parity.alike.agreement
        ('model.pt2', 1.0)

    Args:
        run: The folder of a run, or of a detector or segmenter, which becomes onnx.
        to: onnx: the whole classifier, from pixels of any size to calibrated probabilities, for onnxruntime and others.
            torch: the same for torch.export.load. timm: the network alone, a folder that timm loads, with a model card.
        int8: With onnx: also write the network in whole numbers, calibrated on training images of the run.
        data: The photos on which the file is compared with the run, in any form that train takes: the run's validation and
            test images, where they are among them. Default: these, as long as the cache keeps them, or else generated images.
        out: Folder for the files. Default: the run's with -onnx, -timm or -torch after its name.
        push: USER/NAME: upload what timm wrote to the Hugging Face hub.
        progress: Whether to show progress, or a function of its events; by default in a terminal and in a notebook.

    Raises:
        UsageError: The run cannot be exported that way, which is said by name; a package is missing; there is no token.
        TrickbagError: What was written differs from the run; the hub refuses.

    """
    with listening(progress) as tell:
        photos: Any = data if data is None or transferred_to(Path(run)) else kept(data, tell)
        return shipping.export(run, to, int8=int8, data=photos, out=out, push=push, tell=tell)


@public
def study(
    data: Data,
    file: Options | str | Path | None = None,
    *,
    recipe: Named | None = None,
    model: Model = None,
    weights: str | Path | None = None,
    with_: Tricks | None = None,
    without: Tricks | None = None,
    set_: Fields | None = None,
    plugins: own.Files = (),
    tricks: Tricks | None = None,
    combine: Tricks | Iterable[Tricks] | None = None,
    vary: Fields | None = None,
    design: DESIGNS | None = None,
    on: Literal["val", "test"] | None = None,
    rotate: bool | None = None,
    folds: str | None = None,
    seeds: int | None = None,
    proof: bool | None = None,
    looks: bool | None = None,
    seed: int | None = None,
    delta: float | None = None,
    price: float | None = None,
    same: int | None = None,
    matched: bool | None = None,
    prior: str | Path | None = None,
    teacher: str | Path | None = None,
    sharing: bool | None = None,
    depth: Whole | None = None,
    corrections: str | Path | None = None,
    budget: Time | None = None,
    transfer: Iterable[str] | str | None = None,
    transfer_set: Fields | None = None,
    workers: int | str = 1,
    ray: str = "",
    out: str | Path | None = None,
    command: str = "",
    began: float | None = None,
    progress: Progress = None,
) -> finished.Finished:
    """Measure which tricks help on a data set: by how much, how certainly and at what cost.

    The same call again continues a study that was stopped; with more tricks or seeds, only new runs are trained. None of a
    parameter takes that of the file, and without one the default.

    Examples:
        >>> import trickbag as tb
        >>> small = {"recipe": "cifar", "model": "cifar_resnet8", "set_": {"size": 16, "epochs": 1}, "proof": False}
        >>> found = tb.study("photos", tricks="mixup, ema", **small, out="study")
        >>> [effect.name for effect in found.effects if effect.declared]
        ['mixup', 'ema', 'all']

    Args:
        data: The images, as for ``train``.
        file: A TOML file with the options below, plugins too, or ``Options``.
        recipe: The reference arm: a built-in recipe, or a TOML file. Default: auto.
        model: A timm model, or cifar_resnet8, 20, 32 or 56, or one of your own.
        weights: Initial weights: a .safetensors file, a run's folder, hub or none.
        with_: Tricks added to the reference arm.
        without: Tricks removed from the reference arm.
        set_: Fields of the reference arm.
        plugins: A Python file with a trick, a network or metrics of your own.
        tricks: The tricks to try; auto: those that the check of the data set suggests.
        combine: Lists of tricks to add together; each list is an arm.
        vary: Fields to try with other values.
        design: Which arms to train; auto: factorial where the tricks can be combined, otherwise add-one. Default: auto.
        on: The split on which arms are compared and the recommended recipe is chosen. val may rotate: see rotate. test
            reproduces published tables. Default: val.
        rotate: Whether each seed judges another fold of the training and validation images, so that more seeds are more
            images; unset: where the data set has no validation split of its own.
        folds: Repeated cross-validation in place of seeds, for small data: repeats x folds, for example 5x2, over the
            training and validation images.
        seeds: Runs per arm, each with its own seed. Default: 3.
        proof: Whether to put the best candidate to the proof: fresh seeds, on images that have chosen nothing. Unset: where
            there are such images, and the budget holds it.
        looks: Whether to stop training arms that are decided after 3, 5 or 10 seeds. Each interim analysis spends a part of
            the 5 % of false findings, so the last one is stricter.
        seed: The first seed; it also splits a data set that has no splits.
        delta: The largest difference that does not matter to you, in percentage points (the region of practical equivalence).
            Default: 0.2.
        price: The most that the recommended recipe may cost, as a multiple of the reference's time for training and judging.
            Default: 3.0.
        same: Number of A/A arms: the reference with other seeds, to measure the noise.
        matched: Whether to also train the reference for as long as each trick takes that costs over 5 % more.
        prior: A file that trickbag atlas wrote.
        teacher: A run's folder or a recipe from which tricks = "auto" may propose to distil.
        sharing: Whether to train once what arms have in common. The results are the same. Default: yes.
        depth: How many folders make a class, where folders name the classes; 0 for all of them.
        corrections: A CSV file with the columns `path,old,new` that corrects labels, as `trickbag train` takes it.
        budget: Time for the whole study, for example 10m or 2h; the design and number of seeds are chosen to fit. Default:
            no limit.
        transfer: Also make every classifier a detector or a segmenter, and ask of these which tricks help: detection:FOLDER or
            segmentation:FOLDER, with data as for `trickbag transfer`.
        transfer_set: Set a field of how these are trained, for example epochs=5 or head=fcos.
        workers: How many trainings run at the same time; auto measures what is fastest.
        ray: Address of a Ray cluster; local starts one on this machine.
        out: Folder for the study. Default: a new one in studies/.
        command: What reproduces the study, for its report.
        began: When the budget began to count, by ``time.monotonic()``. Default: now.
        progress: Whether to show progress, or a function of its events; by default in a terminal and in a notebook.

    Raises:
        UsageError: What is asked for cannot be done as asked.
        TrickbagError: Not one run of the reference succeeded.

    """
    model, file_of_model = own.named(model)
    given = Options.given(locals())
    with listening(progress) as tell, own.using(plugins, file_of_model, plugins_of(file)):
        means = conduct.Means(processes(workers), ray, command)
        return conduct.study(kept(data, tell), file, out=out, means=means, began=began, tell=tell, **given)


@public
def plan_study(
    data: Data,
    file: Options | str | Path | None = None,
    *,
    recipe: Named | None = None,
    model: Model = None,
    weights: str | Path | None = None,
    with_: Tricks | None = None,
    without: Tricks | None = None,
    set_: Fields | None = None,
    plugins: own.Files = (),
    tricks: Tricks | None = None,
    combine: Tricks | Iterable[Tricks] | None = None,
    vary: Fields | None = None,
    design: DESIGNS | None = None,
    on: Literal["val", "test"] | None = None,
    rotate: bool | None = None,
    folds: str | None = None,
    seeds: int | None = None,
    proof: bool | None = None,
    looks: bool | None = None,
    seed: int | None = None,
    delta: float | None = None,
    price: float | None = None,
    same: int | None = None,
    matched: bool | None = None,
    prior: str | Path | None = None,
    teacher: str | Path | None = None,
    sharing: bool | None = None,
    depth: Whole | None = None,
    corrections: str | Path | None = None,
    budget: Time | None = None,
    transfer: Iterable[str] | str | None = None,
    transfer_set: Fields | None = None,
    out: str | Path | None = None,
    began: float | None = None,
    progress: Progress = None,
) -> StudyPlan:
    """What ``study`` with the same arguments would train, cost and be able to detect.

    Nothing is trained but a few steps to be timed.

    Examples:
        >>> import trickbag as tb
        >>> small = {"recipe": "cifar", "model": "cifar_resnet8", "set_": {"size": 16, "epochs": 1}}
        >>> made = tb.plan_study("photos", tricks="mixup, ema", **small, seeds=5)
        >>> made.design.kind, len(made.seeds)
        ('factorial', 5)

    Raises:
        UsageError: As ``study`` does.

    """
    model, file_of_model = own.named(model)
    given = Options.given(locals())
    with listening(progress) as tell, own.using(plugins, file_of_model, plugins_of(file)):
        return conduct.plan(kept(data, tell), file, out=out, began=began, tell=tell, **given)
