"""The command line: the only place that prints."""

import os
import shlex
import sys
import webbrowser
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from trickbag.ground import glance, wants
from trickbag.ground.errors import UsageError
from trickbag.terminal import BEGAN, own, serving, using
from trickbag.terminal.doctor import doctor
from trickbag.terminal.options import (
    MANY,
    BudgetOption,
    CorrectionsOption,
    DataArgument,
    DepthOption,
    ModelOption,
    OnBadOption,
    OnLeakOption,
    OutOption,
    PluginOption,
    RecipeOption,
    SeedOption,
    SetOption,
    WeightsOption,
    WithOption,
    WithoutOption,
    known,
    option,
    screen_of,
    study_option,
    trick_names,
)
from trickbag.terminal.start import begin

# Threads that wait by spinning stall other programs, threads that sleep wake up late: benchmarks/results/spinning.md. GNU's
# OpenMP reads it when torch is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

app = typer.Typer(
    help="Train image classifiers with a bag of tricks, and measure on your own photos which tricks help.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


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
    boxes: Annotated[bool, option("boxes", None, "--boxes", verb="check")] = False,
    regions: Annotated[bool, option("regions", None, "--regions", verb="check")] = False,
    ignore: Annotated[list[str] | None, option("ignore", "NAME|VALUE", verb="check", more=MANY)] = None,
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    on_bad: OnBadOption = "skip",
    depth: DepthOption = 0,
    corrections: CorrectionsOption = "",
    labels: Annotated[bool, option("labels", None, "--labels", verb="check")] = False,
    model: Annotated[str | None, option("model", "NAME", verb="check")] = None,
    weights: Annotated[str | None, option("weights", "FILE", verb="check")] = None,
) -> None:
    """Check a data set: class counts, imbalance, duplicates, unreadable files, boxes, and what to do about them."""
    import trickbag as tb

    with screen_of(quiet=json) as screen:
        asked: dict[str, Any] = {"boxes": boxes, "regions": regions, "ignore": ignore or []}
        asked |= {"on_bad": on_bad, "depth": depth, "corrections": corrections, "labels": labels}
        found = tb.check(data, model=model, weights=weights, progress=screen.tell, **asked)
        if json:
            screen.json(found.as_json())
        else:
            screen.scenes(found) if boxes or regions else screen.check(found)


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
    plugins: PluginOption = None,
    seed: SeedOption = 0,
    out: OutOption = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print what the training would do and cost, and stop.")] = False,
    on_bad: OnBadOption = "skip",
    on_leak: OnLeakOption = "skip",
    depth: DepthOption = 0,
    corrections: CorrectionsOption = "",
) -> None:
    """Train a classifier on a data set and score it once on the test split.

    Run the same command again to continue a training that was stopped.
    """
    import trickbag as tb

    asked: dict[str, Any] = {"recipe": recipe, "model": model, "weights": weights, "budget": budget, "seed": seed}
    asked |= {"with_": with_ or [], "without": without or [], "set_": set_ or [], "plugins": plugins or []}
    asked |= {"on_bad": on_bad, "on_leak": on_leak, "depth": depth, "corrections": corrections, "began": BEGAN}
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
    recipe: Annotated[str | None, study_option("recipe", "NAME|FILE")] = None,
    model: ModelOption = None,
    weights: WeightsOption = None,
    with_: WithOption = None,
    without: WithoutOption = None,
    set_: SetOption = None,
    plugins: PluginOption = None,
    tricks: Annotated[str, study_option("tricks", "A,B,…|auto")] = "",
    combine: Annotated[list[str] | None, study_option("combine", "A,B,…", more=MANY)] = None,
    vary: Annotated[list[str] | None, study_option("vary", "FIELD=V1,V2,…", more=MANY)] = None,
    design: Annotated[Designs | None, study_option("design")] = None,
    on: Annotated[Literal["val", "test"] | None, study_option("on")] = None,
    rotate: Annotated[bool | None, study_option("rotate", None, "--rotate/--no-rotate")] = None,
    folds: Annotated[str | None, study_option("folds", "5x2")] = None,
    seeds: Annotated[int | None, study_option("seeds")] = None,
    proof: Annotated[bool | None, study_option("proof", None, "--proof/--no-proof", "--confirm")] = None,
    looks: Annotated[bool | None, study_option("looks", None, "--looks")] = None,
    seed: Annotated[int | None, study_option("seed")] = None,
    delta: Annotated[float | None, study_option("delta")] = None,
    price: Annotated[float | None, study_option("price")] = None,
    same: Annotated[int | None, study_option("same")] = None,
    matched: Annotated[bool | None, study_option("matched", None, "--matched")] = None,
    prior: Annotated[str | None, study_option("prior", "FILE")] = None,
    teacher: Annotated[str | None, study_option("teacher", "RUN|RECIPE")] = None,
    sharing: Annotated[bool | None, study_option("sharing", None, "--sharing/--no-sharing")] = None,
    depth: Annotated[int | None, study_option("depth", "N")] = None,
    corrections: Annotated[str, study_option("corrections", "FILE")] = "",
    budget: Annotated[str, study_option("budget", "TIME")] = "",
    transfer: Annotated[list[str] | None, study_option("transfer", "TASK:FOLDER", more=MANY)] = None,
    transfer_set: Annotated[list[str] | None, study_option("transfer_set", "FIELD=VALUE", "--transfer-set", more=MANY)] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Print what the study would train, cost and be able to detect, and stop.")
    ] = False,
    workers: Annotated[str, study_option("workers", "N|auto")] = "1",
    ray: Annotated[str, study_option("ray", "ADDRESS")] = "",
    out: Annotated[str | None, study_option("out", "DIR")] = None,
) -> None:
    """Measure which tricks help on a data set: by how much, how certainly and at what cost.

    Run the same command again to continue a study that was stopped. With more tricks or seeds, only new runs are trained.
    """
    import trickbag as tb

    fields = tb.Options.model_fields
    given = {name: value for name, value in context.params.items() if name in fields and value not in (None, "", [], ())}
    with screen_of() as screen:
        given |= {"plugins": plugins or [], "out": out, "began": BEGAN, "progress": screen.tell}
        if plan:
            screen.lines(*tb.plan_study(data, file, **given).lines())
        else:
            command = shlex.join(["trickbag", *sys.argv[1:]])
            screen.study(tb.study(data, file, workers=workers, ray=ray, command=command, **given))


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(metavar="STUDY", help="The folder of a study.")],
    open_: Annotated[bool, typer.Option("--open", help="Show the report in the browser.")] = False,
) -> None:
    """Recompute the findings of a study from its stored predictions, and write its report and tables."""
    from trickbag.studies.finished import report as recomputed

    with screen_of() as screen:
        finished = recomputed(folder)
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
    if html:
        from trickbag.ground import store

        store.check_free(html, "--html")
    with screen_of(quiet=json) as screen:
        found = tb.compare(*what, reference=reference, networks=networks, delta=delta, images=images)
        if html:
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


for _verb in (
    using.evaluate,
    using.predict,
    using.explain,
    using.review,
    using.export,
    using.transfer,
    serving.serve,
    own.laws,
    doctor,
):
    app.command()(_verb)


@app.command()
def tricks(
    spec: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="A trick, with values for --plot, for example cosine(final=0.1).", autocompletion=trick_names
        ),
    ] = "",
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="Draw the curve of a schedule, or what an augmentation does to a photo."),
    ] = None,
    for_: Annotated[
        str,
        typer.Option("--for", metavar="WORDS", help="Tricks whose cards say 'few images', 'label noise' or other words."),
    ] = "",
    plugins: PluginOption = None,
) -> None:
    """List all tricks by what they help with, or describe one: formula, paper, cost, when it helps and hurts, its fields."""
    if not spec and plot:
        raise UsageError("--plot draws one trick. Name it: trickbag tricks cosine --plot cosine.png.")
    if spec and for_:
        raise UsageError(f"--for searches all tricks. Leave {spec} out, or --for.")
    with screen_of() as screen, known(plugins):
        if for_:
            screen.found(wants.asked(for_, glance.shelf(plugins or [])))
        elif not spec:
            screen.bag(glance.shelf(plugins or []))
        else:
            from trickbag.tricks import find

            screen.card(find(spec.partition("(")[0]))
        if plot:
            from trickbag.ground import store
            from trickbag.report import sketch

            store.check_free(plot, "--plot")
            store.write(plot, sketch.picture(spec))
            screen.lines("", f"drawn: {plot}")


@app.command()
def loop(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A built-in recipe, or a TOML file.")] = "auto",
    model: ModelOption = None,
    weights: WeightsOption = None,
    with_: WithOption = None,
    without: WithoutOption = None,
    set_: SetOption = None,
    plugins: PluginOption = None,
) -> None:
    """Print the training loop with the tricks at each plug point, and the parameter groups."""
    from trickbag.engine.outline import outline
    from trickbag.runs.request import edited

    with screen_of() as screen, known(plugins):
        screen.lines(*outline(edited(recipe, model, weights, with_ or [], without or [], set_ or [])[0]))


def main() -> None:
    """Run the command line."""
    begin(app)
