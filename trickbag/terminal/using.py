"""Commands for what is trained: score it, predict, explain."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from trickbag.ground import glance
from trickbag.ground.errors import UsageError
from trickbag.ground.text import file_name, show
from trickbag.terminal.options import (
    MANY,
    CorrectionsOption,
    DepthOption,
    PluginOption,
    WithOption,
    WithoutOption,
    option,
    screen_of,
)

if TYPE_CHECKING:
    from trickbag.display.screen import Screen
    from trickbag.transfers.predictor import Predictor


def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help=glance.parameters("api.py", "evaluate")["run"])],
    data: Annotated[str, typer.Argument(metavar="DATA", help=glance.parameters("api.py", "evaluate")["data"])],
    with_: WithOption = None,
    plugins: PluginOption = None,
    open_set: Annotated[bool, option("open_set", None, "--open-set", verb="evaluate")] = False,
    energy: Annotated[bool, option("energy", None, "--energy", verb="evaluate")] = False,
    depth: DepthOption = 0,
    corrections: CorrectionsOption = "",
    map_: Annotated[Path | None, option("map_", "FILE", "--map", verb="evaluate")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Score a run, a detector or a segmenter on other data, all splits together; a run optionally with test-time tricks."""
    import trickbag as tb

    with screen_of(quiet=json) as screen:
        found = tb.evaluate(
            run,
            data,
            with_=with_ or [],
            plugins=plugins or [],
            open_set=open_set,
            energy=energy,
            depth=depth,
            corrections=corrections,
            map_=map_ or {},
            progress=screen.tell,
        )
        shown = screen.marks if isinstance(found, tb.TransferEvaluation) else screen.scores
        screen.json(found.as_json()) if json else shown(found)


def review(
    folder: Annotated[str, typer.Argument(metavar="RUN|STUDY", help=glance.parameters("api.py", "review")["folder"])],
    data: Annotated[str | None, option("data", "DATA", verb="review")] = None,
    out: Annotated[str | None, option("out", "FILE.html", verb="review")] = None,
) -> None:
    """Look at mistakes: a page with wrong images, probable label errors and near copies, on which labels can be corrected."""
    import trickbag as tb

    with screen_of() as screen:
        screen.review(tb.review(folder, data, out=out, progress=screen.tell), out or str(Path(folder) / "review.html"))


def transfer(
    model: Annotated[str, typer.Argument(metavar="RUN|MODEL", help=glance.parameters("api.py", "transfer")["model"])],
    data: Annotated[str, typer.Argument(metavar="DATA", help=glance.parameters("api.py", "transfer")["data"])],
    to: Annotated[Literal["detection", "segmentation"], option("to", verb="transfer")],
    recipe: Annotated[str | None, option("recipe", "NAME|FILE", verb="transfer")] = None,
    weights: Annotated[str | None, option("weights", "FILE", verb="transfer")] = None,
    with_: Annotated[list[str] | None, option("with_", "SPEC", "--with", verb="transfer", more=MANY)] = None,
    without: WithoutOption = None,
    set_: Annotated[list[str] | None, option("set_", "FIELD=VALUE", "--set", verb="transfer", more=MANY)] = None,
    plugins: Annotated[list[Path] | None, option("plugins", "FILE", "--plugin", verb="transfer", more=MANY)] = None,
    seeds: Annotated[int, option("seeds", "N", verb="transfer", min=1)] = 1,
    budget: Annotated[str, option("budget", "TIME", verb="transfer")] = "",
    seed: Annotated[int, option("seed", verb="transfer", min=0, max=2_000_000_000)] = 0,
    ignore: Annotated[list[str] | None, option("ignore", "NAME|VALUE", verb="transfer", more=MANY)] = None,
    on_leak: Annotated[Literal["skip", "error"], option("on_leak", verb="transfer")] = "skip",
    out: Annotated[str | None, option("out", "DIR", verb="transfer")] = None,
) -> None:
    """Make a classifier into a detector of boxes or a segmenter of regions, and score it once on the test split.

    Run the same command again to continue what was stopped; with more seeds only the new ones are trained.
    """
    import trickbag as tb

    asked: dict[str, Any] = {"with_": with_ or [], "without": without or [], "set_": set_ or [], "weights": weights}
    asked |= {"plugins": plugins or [], "seeds": seeds, "budget": budget, "seed": seed}
    asked |= {"ignore": ignore or [], "on_leak": on_leak, "out": out}
    with screen_of() as screen:
        screen.transfer(tb.transfer(model, data, to, recipe, progress=screen.tell, **asked))


def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help=glance.parameters("api.py", "load")["run"])],
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGE|FOLDER|ARCHIVE|PATTERN", help="Images, folders or archives of images, quoted patterns."),
    ],
    top: Annotated[int, typer.Option(min=1, help="Number of classes to show per image.")] = 1,
    threshold: Annotated[
        float | None,
        typer.Option(
            metavar="P",
            min=0,
            max=1,
            help="Call a prediction unsure whose probability is below P; leave out boxes whose score is (default: 0.5).",
        ),
    ] = None,
    on_bad: Annotated[
        Literal["skip", "error"], typer.Option(help="Skip and count images that cannot be read, or stop at the first.")
    ] = "error",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
    csv: Annotated[
        bool,
        typer.Option("--csv", help="Print CSV: a row for each class that is shown, each box, or the share of each class."),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write the rows to a new file, .csv or .jsonl. The same command goes on where it was stopped."
        ),
    ] = None,
    draw: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Draw what a detector or a segmenter finds: a picture of each image.")
    ] = None,
) -> None:
    """Classify images, or find boxes or regions in them. One that cannot be read is an error, unless --on-bad skip is given."""
    import trickbag as tb
    from trickbag.display import predicted
    from trickbag.ground import store
    from trickbag.transfers.predictor import for_classifiers

    form = predicted.form_of(out, json, csv)
    with screen_of(quiet=form is not None) as screen:
        classifier = tb.load(run)
        if isinstance(classifier, tb.Predictor):
            for_classifiers(run, top=top > 1, out=out)
            found = _marks(classifier, images, draw, screen, threshold=threshold, on_bad=on_bad)
            screen.predictions(found, form, classifier.task)
            return
        if draw:
            raise UsageError(f"--draw is for boxes and regions, and {run} holds a classifier: trickbag explain draws for it.")
        asked: dict[str, Any] = {"top": top, "threshold": threshold or 0.0, "on_bad": on_bad}
        said = "sets" if classifier.makes_sets else "classification"
        if out is None:
            screen.predictions(classifier.predict(images, **asked, tell=screen.beside_rows), form, said)
            return
        each = min(top, len(classifier.classes))
        made = (run / "MANIFEST.json").read_text("utf-8")
        identity = f"{Path.cwd()} {run.resolve()} {made} {images} {each} {threshold or 0.0} {form}"
        with store.lock(out):
            growing = predicted.Growing(out, form or "csv", identity, each, screen.tell, predicted.HEADS[said])
            if growing.done:
                screen.note(f"{len(growing.done):,} images have their predictions already; what follows is of the others")
            for prediction in classifier.predict(images, **asked, without=growing, tell=screen.tell):
                growing.add(prediction)
            growing.end()
        screen.note(f"predictions: {out}")


def _marks(model: "Predictor", images: list[str], draw: Path | None, screen: "Screen", **asked: Any) -> Iterator[Any]:
    """What is found in each image, drawn into a new folder if there is to be one."""
    if draw is None:
        yield from model.predict(images, **asked, tell=screen.beside_rows)
        return
    from trickbag.ground import store

    if os.path.lexists(draw) and not (os.path.isdir(draw) and not any(draw.iterdir())):
        raise UsageError(f"--draw {draw}: this is there already. Name a new folder, so that no picture is written over.")
    for number, (found, picture) in enumerate(model.draw(images, **asked, tell=screen.beside_rows)):
        if not number:
            store.claim(draw)
        store.write(draw / f"{number:05d}-{file_name(Path(found.path).stem)}.png", picture)
        yield found
    screen.note(f"drawn: {draw}")


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help=glance.parameters("api.py", "export")["run"])],
    to: Annotated[Literal["onnx", "timm", "torch"], option("to", verb="export")],
    int8: Annotated[bool, option("int8", None, "--int8", verb="export")] = False,
    data: Annotated[str | None, option("data", "DATA", verb="export")] = None,
    out: Annotated[str | None, option("out", "DIR", verb="export")] = None,
    push: Annotated[str, option("push", "USER/NAME", verb="export")] = "",
) -> None:
    """Write a run's classifier for other programs, and compare what was written with the run, image by image."""
    import trickbag as tb

    with screen_of() as screen:
        found = tb.export(run, to, int8=int8, data=data, out=out, push=push, progress=screen.tell)
        screen.lines(*found.lines())


def explain(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE|FOLDER", help="Images, or folders of images.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the pictures.")] = Path("explained"),
    name: Annotated[
        str, typer.Option("--class", metavar="NAME", help="The class to explain. Default: the predicted one.")
    ] = "",
) -> None:
    """Draw which parts of each image speak for its class (Grad-CAM), one picture per image."""
    import trickbag as tb
    from trickbag.ground import store
    from trickbag.report import figures

    store.check_apart(store.folder_of(out), lambda file: file.name == store.MANIFEST or store.ours(file))
    with screen_of() as screen:
        for number, found in enumerate(tb.Classifier.load(run).explain(images, name)):
            if not number:
                store.claim(out)
            file = out / f"{number:05d}-{file_name(Path(found.path).stem)}.png"
            store.write(file, figures.heat(found.image, found.map, show(found.name), found.probability))
            screen.lines(f"{show(str(file))}: {show(found.name)}, {100 * found.probability:.1f} %")
