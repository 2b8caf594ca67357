"""The command line: the only place that prints."""

import os
import shlex
import sys
import webbrowser
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from trickbag.ground import glance
from trickbag.ground.errors import UsageError
from trickbag.ground.text import file_name, show
from trickbag.terminal import BEGAN
from trickbag.terminal.start import begin

if TYPE_CHECKING:
    from trickbag.display.screen import Screen

# Threads that wait by spinning stall other programs, threads that sleep wake up late: benchmarks/results/spinning.md. GNU's
# OpenMP reads it when torch is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

app = typer.Typer(
    help="Train image classifiers with a bag of tricks, and measure on your own photos which tricks help.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _named(pattern: str) -> Callable[[str], list[str]]:
    """What completes a word to the names of files of the package."""
    return lambda incomplete: sorted(f.stem for f in glance.HERE.glob(pattern) if f.stem.startswith(incomplete))


TRICK_NAMES = _named("tricks/[!_]*.py")


def _option(name: str, metavar: str | None = None, *flags: str, verb: str = "train", more: str = "", **kind: Any) -> Any:
    """An option that means what a parameter of ``trickbag.api`` does."""
    return typer.Option(*flags, metavar=metavar, help=glance.parameters("api.py", verb)[name] + more, **kind)


_study = partial(_option, verb="study")
MANY = " May be repeated."
DataArgument = Annotated[str, typer.Argument(metavar="DATA", help=glance.parameters("api.py", "train")["data"])]
RecipeOption = Annotated[str, _option("recipe", "NAME|FILE", autocompletion=_named("recipes/*.toml"))]
ModelOption = Annotated[str | None, _option("model", "NAME")]
WeightsOption = Annotated[str | None, _option("weights", "FILE")]
WithOption = Annotated[list[str] | None, _option("with_", "SPEC", "--with", more=MANY, autocompletion=TRICK_NAMES)]
WithoutOption = Annotated[list[str] | None, _option("without", "NAME", more=MANY, autocompletion=TRICK_NAMES)]
SetOption = Annotated[list[str] | None, _option("set_", "FIELD=VALUE", "--set", more=MANY)]
SeedOption = Annotated[int, _option("seed", min=0, max=2_000_000_000)]
BudgetOption = Annotated[str, _option("budget", "TIME")]
OutOption = Annotated[str | None, _option("out", "DIR")]
OnBadOption = Annotated[Literal["skip", "error"], _option("on_bad")]
OnLeakOption = Annotated[Literal["skip", "error"], _option("on_leak")]
DepthOption = Annotated[int, _option("depth", "N", min=0)]
DEMO: dict[str, Any] = {
    "set_": {"model": "cifar_resnet8", "size": 8, "epochs": 8, "lr": 0.05, "tricks": ["flip"], "test_share": 0.45},
    "tricks": ["affine", "flip", "cosine", "ema"],
}
"""The study of the demo: seventy digits a class to learn from and many for the proof, a small network, eight epochs, so that 16
arms with 3 seeds take minutes. The reference mirrors images, as recipes for photos do, at a constant rate.

A mirrored digit is another sign, or none. Writing is slanted and shifted, which affine imitates, but that asks for longer
training. A learning rate that falls ends a short training with less noise, and so does an average of its last weights.
"""
DEMO_EPOCHS = 30
"""Of the training that the demo ends with."""
Designs = Literal["auto", "add-one", "leave-one-out", "two-sided", "stack", "factorial"]


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"trickbag {version('trickbag')}")
        raise typer.Exit


@app.callback()
def options(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version of trickbag and exit.")
    ] = False,
) -> None:
    """The options of trickbag itself."""


def screen_of(quiet: bool = False) -> "Screen":
    """The terminal or pipe; what draws on it is imported when something is drawn."""
    from trickbag.display.screen import Screen

    return Screen(quiet)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the images, the study and the run.")] = Path("runs/demo"),
) -> None:
    """Try everything on bundled images of digits: check them, study four tricks, train the recommended recipe."""
    import trickbag as tb
    from trickbag.data import digits

    with screen_of() as screen:
        data = digits.write(out / "digits")
        screen.note(f"wrote 1,797 digits of 8 x 8 pixels as PNG files in ten folders: {data}")
        screen.check(tb.check(data), brief=True)
        finished = tb.study(data, out=out / "study", workers="auto", progress=screen.tell, **DEMO)
        screen.study(finished)
        result = tb.train(data, finished.recommended, set_={"epochs": DEMO_EPOCHS}, out=out / "run", progress=screen.tell)
        screen.result(result)
        screen.lines(f"try next: {shlex.join(['trickbag', 'predict', str(result.folder), str(data / '3')])}")


@app.command()
def check(
    data: DataArgument,
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    on_bad: OnBadOption = "skip",
    depth: DepthOption = 0,
) -> None:
    """Check a data set: class counts, imbalance, duplicates, unreadable files, and what to do about them."""
    import trickbag as tb

    with screen_of(quiet=json) as screen:
        found = tb.check(data, on_bad=on_bad, depth=depth, progress=screen.tell)
        screen.json(found.as_json()) if json else screen.check(found)


@app.command()
def train(
    data: DataArgument,
    recipe: RecipeOption = "auto",
    model: ModelOption = None,
    weights: WeightsOption = None,
    budget: BudgetOption = "",
    with_: WithOption = None,
    without: WithoutOption = None,
    set_: SetOption = None,
    seed: SeedOption = 0,
    out: OutOption = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print what the training would do and cost, and stop.")] = False,
    on_bad: OnBadOption = "skip",
    on_leak: OnLeakOption = "skip",
    depth: DepthOption = 0,
) -> None:
    """Train a classifier on a data set and score it once on the test split.

    Run the same command again to continue a training that was stopped.
    """
    import trickbag as tb

    asked: dict[str, Any] = {"recipe": recipe, "model": model, "weights": weights, "budget": budget, "seed": seed}
    asked |= {"with_": with_ or [], "without": without or [], "set_": set_ or []}
    asked |= {"on_bad": on_bad, "on_leak": on_leak, "depth": depth, "began": BEGAN}
    with screen_of() as screen:
        if plan:
            screen.plan(tb.plan(data, progress=screen.tell, **asked))
        else:
            screen.result(tb.train(data, out=out, progress=screen.tell, **asked))


@app.command()
def finish(run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")]) -> None:
    """Score and seal a training that was stopped, with its best epoch so far."""
    import trickbag as tb

    with screen_of() as screen:
        screen.result(tb.finish(run, progress=screen.tell))


@app.command()
def study(
    context: typer.Context,
    data: DataArgument,
    file: Annotated[Path | None, typer.Argument(metavar="[STUDY.toml]", help="A TOML file with the options below.")] = None,
    recipe: Annotated[str | None, _study("recipe", "NAME|FILE")] = None,
    model: ModelOption = None,
    weights: WeightsOption = None,
    with_: WithOption = None,
    without: WithoutOption = None,
    set_: SetOption = None,
    tricks: Annotated[str, _study("tricks", "A,B,…|auto")] = "",
    combine: Annotated[list[str] | None, _study("combine", "A,B,…", more=MANY)] = None,
    vary: Annotated[list[str] | None, _study("vary", "FIELD=V1,V2,…", more=MANY)] = None,
    design: Annotated[Designs | None, _study("design")] = None,
    on: Annotated[Literal["val", "test"] | None, _study("on")] = None,
    rotate: Annotated[bool | None, _study("rotate", None, "--rotate/--no-rotate")] = None,
    folds: Annotated[str | None, _study("folds", "5x2")] = None,
    seeds: Annotated[int | None, _study("seeds")] = None,
    proof: Annotated[bool | None, _study("proof", None, "--proof/--no-proof", "--confirm")] = None,
    looks: Annotated[bool | None, _study("looks", None, "--looks")] = None,
    seed: Annotated[int | None, _study("seed")] = None,
    delta: Annotated[float | None, _study("delta")] = None,
    price: Annotated[float | None, _study("price")] = None,
    same: Annotated[int | None, _study("same")] = None,
    matched: Annotated[bool | None, _study("matched", None, "--matched")] = None,
    prior: Annotated[str | None, _study("prior", "FILE")] = None,
    teacher: Annotated[str | None, _study("teacher", "RUN|RECIPE")] = None,
    sharing: Annotated[bool | None, _study("sharing", None, "--sharing/--no-sharing")] = None,
    depth: Annotated[int | None, _study("depth", "N")] = None,
    budget: Annotated[str, _study("budget", "TIME")] = "",
    plan: Annotated[
        bool, typer.Option("--plan", help="Print what the study would train, cost and be able to detect, and stop.")
    ] = False,
    workers: Annotated[str, _study("workers", "N|auto")] = "1",
    ray: Annotated[str, _study("ray", "ADDRESS")] = "",
    out: Annotated[str | None, _study("out", "DIR")] = None,
) -> None:
    """Measure which tricks help on a data set: by how much, how certainly and at what cost.

    Run the same command again to continue a study that was stopped. With more tricks or seeds, only new runs are trained.
    """
    import trickbag as tb
    from trickbag.studies import conduct

    own = tb.Options.model_fields
    given = {name: value for name, value in context.params.items() if name in own and value not in (None, "", [])}
    with screen_of() as screen:
        if plan:
            from trickbag.studies.decisions import declared

            made = conduct.plan(data, file, out=out, began=BEGAN, tell=screen.tell, **given)
            screen.lines(*made.lines(), f"plan: {declared(made)}, the hash that the study stores before its first run")
        else:
            command = shlex.join(["trickbag", *sys.argv[1:]])
            told: dict[str, Any] = {"command": command, "began": BEGAN, "progress": screen.tell}
            screen.study(tb.study(data, file, workers=workers, ray=ray, out=out, **told, **given))


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(metavar="STUDY", help="The folder of a study.")],
    open_: Annotated[bool, typer.Option("--open", help="Show the report in the browser.")] = False,
) -> None:
    """Recompute the findings of a study from its stored predictions, and write its report and tables."""
    from trickbag.studies import conduct

    with screen_of() as screen:
        finished = conduct.report(folder)
        screen.study(finished)
    if open_:
        webbrowser.open((finished.folder / "report.html").resolve().as_uri())


@app.command()
def compare(
    what: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN…|TABLE…",
            help="Folders of finished runs; or CSV or Parquet tables with the columns method,seed,image,correct or "
            "method,seed,image,label and p_CLASS for each class, or method,seed,score.",
        ),
    ],
    reference: Annotated[
        str, typer.Option(metavar="METHOD", help="What the others are compared with. Default: the first method.")
    ] = "",
    networks: Annotated[
        bool, typer.Option("--networks", help="Compare single trained networks, whatever their seeds, not methods.")
    ] = False,
    delta: Annotated[
        float | None,
        typer.Option(min=0, max=100, help="Percentage points below which a difference does not matter. Default: 0.2."),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where the images lie, for thumbnails. Default: the folder of the first table."),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page with the differences and the images behind them.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Compare runs, or tables of anybody's results: which method is better on new photos, and by how much.

    Methods are compared over at least three seeds each, paired by seed and image.
    """
    import trickbag as tb

    if images and not html:
        raise UsageError("--images is for thumbnails on the page. Add --html FILE, or leave --images out.")
    with screen_of(quiet=json) as screen:
        found = tb.compare(*what, reference=reference, networks=networks, delta=delta, images=images)
        if html:
            from trickbag.ground import store

            store.write(html, found.html())
        screen.json(found.as_json()) if json else screen.comparison(found)
        if html:
            screen.note(f"page: {html}")


@app.command()
def atlas(
    studies: Annotated[list[Path], typer.Argument(metavar="STUDY…", help="The folders of studies.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for atlas.html and atlas.json.")] = Path("atlas"),
) -> None:
    """Combine studies of several data sets: what each trick gains on average, and what to expect on a new data set."""
    from trickbag.studies.atlas import atlas as combine

    with screen_of() as screen:
        screen.atlas(*combine(studies, out))


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")],
    data: DataArgument,
    with_: WithOption = None,
    open_set: Annotated[bool, _option("open_set", None, "--open-set", verb="evaluate")] = False,
    energy: Annotated[bool, _option("energy", None, "--energy", verb="evaluate")] = False,
    depth: DepthOption = 0,
    map_: Annotated[Path | None, _option("map_", "FILE", "--map", verb="evaluate")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Score a run on other data, optionally with test-time tricks. All splits of the data are scored together."""
    import trickbag as tb

    with screen_of(quiet=json) as screen:
        found = tb.evaluate(
            run,
            data,
            with_=with_ or [],
            open_set=open_set,
            energy=energy,
            depth=depth,
            map_=map_ or {},
            progress=screen.tell,
        )
        screen.json(found.as_json()) if json else screen.scores(found)


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")],
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGE|FOLDER|ARCHIVE|PATTERN", help="Images, folders or archives of images, quoted patterns."),
    ],
    top: Annotated[int, typer.Option(min=1, help="Number of classes to show per image.")] = 1,
    threshold: Annotated[
        float, typer.Option(metavar="P", min=0, max=1, help="Call a prediction unsure whose probability is below P.")
    ] = 0.0,
    on_bad: Annotated[
        Literal["skip", "error"], typer.Option(help="Skip and count images that cannot be read, or stop at the first.")
    ] = "error",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
    csv: Annotated[
        bool, typer.Option("--csv", help="Print CSV with the columns path, rank, class, probability, unsure.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write the rows to a new file, .csv or .jsonl. The same command goes on where it was stopped."
        ),
    ] = None,
) -> None:
    """Classify images. An image that cannot be read is an error, unless --on-bad skip is given."""
    import trickbag as tb
    from trickbag.display import predicted

    form = predicted.form_of(out, json, csv)
    with screen_of(quiet=form is not None) as screen:
        classifier = tb.load(run)
        asked: dict[str, Any] = {"threshold": threshold, "on_bad": on_bad, "tell": screen.tell}
        if out is None:
            screen.predictions(classifier.predict(images, top, **asked), form)
            return
        each = min(top, len(classifier.classes))
        identity = f"{run.resolve()} {(run / 'MANIFEST.json').read_text('utf-8')} {images} {each} {threshold} {form}"
        growing = predicted.Growing(out, form or "csv", identity, each)
        if growing.done:
            screen.note(f"{len(growing.done):,} images have their predictions already; what follows is of the others")
        for number, prediction in enumerate(classifier.predict(images, top, without=growing.done, **asked), 1):
            growing.add(prediction)
            if number % 1000 == 0:
                screen.note(f"{number:,} images predicted")
        growing.end()
        screen.note(f"predictions: {out}")


@app.command()
def tricks(
    spec: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="A trick, with values for --plot, for example cosine(final=0.1).", autocompletion=TRICK_NAMES
        ),
    ] = "",
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="Draw the curve of a schedule, or what an augmentation does to a photo."),
    ] = None,
) -> None:
    """List all tricks, or describe one: formula, paper, cost, when it helps and hurts, fields with their bounds."""
    with screen_of() as screen:
        if not spec and plot:
            raise UsageError("--plot draws one trick. Name it: trickbag tricks cosine --plot cosine.png.")
        if not spec:
            screen.bag(glance.shelf())
        else:
            from trickbag.tricks import find

            screen.card(find(spec.partition("(")[0]))
        if plot:
            from trickbag.ground import store
            from trickbag.report import sketch

            store.write(plot, sketch.picture(spec))
            screen.lines("", f"drawn: {plot}")


@app.command()
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

    with screen_of() as screen:
        for number, found in enumerate(tb.load(run).explain(images, name)):
            if not number:
                store.claim(out)
            file = out / f"{number:05d}-{file_name(Path(found.path).stem)}.png"
            store.write(file, figures.heat(found.image, found.map, show(found.name), found.probability))
            screen.lines(f"{show(str(file))}: {show(found.name)}, {100 * found.probability:.1f} %")


@app.command()
def loop(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A built-in recipe, or a TOML file.")] = "auto",
    model: ModelOption = None,
    weights: WeightsOption = None,
    with_: WithOption = None,
    without: WithoutOption = None,
    set_: SetOption = None,
) -> None:
    """Print the training loop with the tricks at each plug point, and the parameter groups."""
    from trickbag.engine.outline import outline
    from trickbag.runs.request import edited

    with screen_of() as screen:
        screen.lines(*outline(edited(recipe, model, weights, with_ or [], without or [], set_ or [])[0]))


def main() -> None:
    """Run the command line."""
    begin(app)
