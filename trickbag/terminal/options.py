"""The options and arguments that commands share; their help is what ``trickbag.api`` says of its parameters."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from trickbag.ground import glance

if TYPE_CHECKING:
    from trickbag.display.screen import Screen


def _named(pattern: str) -> Callable[[str], list[str]]:
    """What completes a word to the names of files of the package."""
    return lambda incomplete: sorted(f.stem for f in glance.HERE.glob(pattern) if f.stem.startswith(incomplete))


def trick_names(context: typer.Context, incomplete: str) -> list[str]:
    """What completes a word to the names of tricks, also of those in installed packages and in files given before it."""
    given = [file for file in context.params.get("plugins") or () if file.is_file()]
    try:
        known = glance.shelf(given)
    except (OSError, ValueError, SyntaxError):  # of a file that holds no Python
        known = glance.shelf()
    return sorted(name for name in known if name.startswith(incomplete))


def option(name: str, metavar: str | None = None, *flags: str, verb: str = "train", more: str = "", **kind: Any) -> Any:
    """An option that means what a parameter of ``trickbag.api`` does."""
    return typer.Option(*flags, metavar=metavar, help=glance.parameters("api.py", verb)[name] + more, **kind)


study_option = partial(option, verb="study")
MANY = " May be repeated."
"""What the help of an option that may be given several times ends with."""
DataArgument = Annotated[str, typer.Argument(metavar="DATA", help=glance.parameters("api.py", "train")["data"])]
RecipeOption = Annotated[str, option("recipe", "NAME|FILE", autocompletion=_named("recipes/*.toml"))]
ModelOption = Annotated[str | None, option("model", "NAME")]
WeightsOption = Annotated[str | None, option("weights", "FILE")]
WithOption = Annotated[list[str] | None, option("with_", "SPEC", "--with", more=MANY, autocompletion=trick_names)]
WithoutOption = Annotated[list[str] | None, option("without", "NAME", more=MANY, autocompletion=trick_names)]
SetOption = Annotated[list[str] | None, option("set_", "FIELD=VALUE", "--set", more=MANY)]
PluginOption = Annotated[list[Path] | None, option("plugins", "FILE", "--plugin", more=MANY)]
SeedOption = Annotated[int, option("seed", min=0, max=2_000_000_000)]
BudgetOption = Annotated[str, option("budget", "TIME")]
OutOption = Annotated[str | None, option("out", "DIR")]
OnBadOption = Annotated[Literal["skip", "error"], option("on_bad")]
OnLeakOption = Annotated[Literal["skip", "error"], option("on_leak")]
CorrectionsOption = Annotated[str, option("corrections", "FILE")]
DepthOption = Annotated[int, option("depth", "N", min=0)]


@contextmanager
def known(plugins: list[Path] | None) -> Iterator[None]:
    """Inside, the plugins are known; torch, which they need, is imported where there are any."""
    if not plugins:
        yield
        return
    from trickbag.plugins import using

    with using(plugins):
        yield


def screen_of(quiet: bool = False) -> "Screen":
    """The terminal or pipe; what draws on it is imported when something is drawn."""
    from trickbag.display.screen import Screen

    return Screen(quiet)
