"""The command line: the only place that prints."""

import os
import re
import signal
import sys
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from trickbag.errors import Interrupted, TrickbagError, UsageError
from trickbag.screen import Screen

# Threads that wait by spinning stall each other as soon as another program wants a core; read when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

app = typer.Typer(
    help="Train image classifiers with the whole bag of tricks, and measure which of them help.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

DataArgument = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="A folder of class folders (with train/val/test folders above them, or without), a CSV or Parquet manifest with "
        "the columns path,label[,split][,group], an archive of such a folder, torchvision:NAME or timm:NAME.",
    ),
]
RecipeOption = Annotated[str, typer.Option(metavar="NAME|FILE", help="A built-in recipe, or a TOML file.")]
ModelOption = Annotated[str | None, typer.Option(metavar="NAME", help="A timm model, or cifar_resnet8, 20, 32, 56.")]
WeightsOption = Annotated[
    str | None, typer.Option(metavar="FILE", help="Where training starts: a .safetensors file, a run's folder, hub or none.")
]
WithOption = Annotated[
    list[str] | None, typer.Option("--with", metavar="SPEC", help="Put a trick in, as 'mixup(alpha=0.4)'. May be repeated.")
]
WithoutOption = Annotated[list[str] | None, typer.Option(metavar="NAME", help="Take a trick out. May be repeated.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="FIELD=VALUE", help="Set a field of the recipe, or of a trick as in mixup.alpha=0.4. May be repeated."
    ),
]
SeedOption = Annotated[int, typer.Option(min=0, help="The seed that every draw is keyed by.")]
BudgetOption = Annotated[str, typer.Option(metavar="TIME", help="Time for the whole run, as 10m, 2h or 90s.")]
OutOption = Annotated[Path | None, typer.Option(metavar="DIR", help="The run's folder. Default: under runs/.")]
OnBadOption = Annotated[
    Literal["skip", "error"], typer.Option(help="Leave unreadable files out and list them, or stop at the list.")
]
OnLeakOption = Annotated[
    Literal["skip", "error"],
    typer.Option(help="Images that stand in two splits: leave the copy in the training split out and list it, or stop."),
]


@app.command()
def demo(out: Annotated[Path, typer.Option(metavar="DIR", help="Where the data and the run go.")] = Path("runs/demo")) -> None:
    """Check, train and score on the embedded data set: scikit-learn's digits, written as PNG folders."""
    import trickbag as tb
    from trickbag.data import digits

    with Screen() as screen:
        data = digits.write(out / "digits")
        screen.note(f"wrote 1,797 digits of 8 x 8 pixels as PNG files in ten folders: {data}")
        screen.check(tb.check(data), brief=True)
        result = tb.train(data, out=out / "run", tell=screen.tell)
        screen.result(result)
        screen.lines(f"try next: trickbag predict {result.folder} {data / '3'}   or   trickbag train YOUR_FOLDER --budget 10m")


@app.command()
def check(
    data: DataArgument,
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    on_bad: OnBadOption = "skip",
) -> None:
    """Say what is wrong with a data set: counts, imbalance, duplicates, what will be left out and why, and what to do."""
    import trickbag as tb

    with Screen(quiet=json) as screen:
        found = tb.check(data, on_bad=on_bad, tell=screen.tell)
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
    plan: Annotated[bool, typer.Option("--plan", help="Print what would be done and what it costs; train nothing.")] = False,
    on_bad: OnBadOption = "skip",
    on_leak: OnLeakOption = "skip",
) -> None:
    """Train a classifier on a data set and score it once on its test split.

    The same command again continues where it was stopped.
    """
    import trickbag as tb

    asked: dict[str, Any] = {"recipe": recipe, "model": model, "weights": weights, "budget": seconds(budget)}
    asked |= {"with_": with_ or [], "without": without or [], "set_": assignments(set_ or [])}
    asked |= {"seed": seed, "on_bad": on_bad, "on_leak": on_leak}
    with Screen() as screen:
        if plan:
            screen.plan(tb.plan(data, tell=screen.tell, **asked))
        else:
            screen.result(tb.train(data, out=out, tell=screen.tell, **asked))


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder that train wrote.")],
    data: DataArgument,
    with_: WithOption = None,
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Score a trained run on other data, with test-time tricks if wanted. All splits of the data are taken together."""
    import trickbag as tb

    with Screen(quiet=json) as screen:
        scores = tb.evaluate(run, data, with_=with_ or [], tell=screen.tell)
        screen.json(scores.as_json()) if json else screen.scores(scores, tb.load(run).classes)


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder that train wrote.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE|FOLDER", help="Images, or folders of images.")],
    top: Annotated[int, typer.Option(min=1, help="How many classes to show for each image.")] = 1,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV: path, rank, class, probability.")] = False,
) -> None:
    """Classify images. An image that cannot be read is an error: nothing is predicted in its place."""
    import trickbag as tb

    if json and csv:
        raise UsageError("--json and --csv exclude each other. Choose one.")
    with Screen(quiet=json or csv) as screen:
        screen.predictions(tb.load(run).predict(images, top), "json" if json else "csv" if csv else "text")


@app.command()
def tricks(name: Annotated[str | None, typer.Argument(metavar="NAME", help="A trick.")] = None) -> None:
    """List the bag, or show one trick's card: formula, paper, cost, what it helps and hurts, fields with bounds."""
    from trickbag.tricks import bag, find

    with Screen() as screen:
        screen.card(find(name)) if name else screen.bag(bag())


@app.command()
def explain(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A built-in recipe, or a TOML file.")] = "auto",
    model: ModelOption = None,
    weights: WeightsOption = None,
    with_: WithOption = None,
    without: WithoutOption = None,
    set_: SetOption = None,
) -> None:
    """Print the training loop with who sits at which plug point, and the parameter groups."""
    from trickbag.engine.explain import explain as lines
    from trickbag.request import edited

    with Screen() as screen:
        screen.lines(*lines(edited(recipe, model, weights, with_ or [], without or [], assignments(set_ or []))[0]))


def seconds(text: str) -> float:
    """A time as seconds; 0 for an empty text.

    >>> seconds("10m"), seconds("1.5h"), seconds("")
    (600.0, 5400.0, 0.0)
    """
    if not text:
        return 0.0
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip())
    if not match or float(match[1]) == 0:
        raise UsageError(f"--budget {text}: write a time as 90s, 10m or 2h.")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def assignments(texts: list[str]) -> dict[str, Any]:
    """FIELD=VALUE texts as a dict; values as in TOML, other text as it stands.

    >>> assignments(["epochs=3", "mixup.alpha=0.4", "model=resnet18", "mean=[0.5]"])
    {'epochs': 3, 'mixup.alpha': 0.4, 'model': 'resnet18', 'mean': [0.5]}
    """
    fields: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise UsageError(f"--set {text}: write FIELD=VALUE.")
        if name in fields:
            raise UsageError(f"--set {name} was given twice.")
        try:
            fields[name.strip()] = tomllib.loads(f"x = {value}")["x"]
        except tomllib.TOMLDecodeError:
            fields[name.strip()] = value.strip()
    return fields


def stop(number: int, _: Any) -> None:
    """End at once, wherever the work stands."""
    raise Interrupted("stopped. What was finished is kept; the same command continues.", number)


def main() -> None:
    """Run the command line; the user's mistakes end with a sentence and exit code 2, failures with 1."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    try:
        app()
    except (TrickbagError, Interrupted) as end:
        Screen.error(str(end))
        sys.exit(end.exit_code)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
