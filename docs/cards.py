"""Pages of the site that come from the tricks and recipes themselves: the bag as a table, a page for each trick."""

import html
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from trickbag.display.screen import bounds
from trickbag.recipe import recipe_names, recipe_text
from trickbag.report import sketch
from trickbag.trick import CARD, Trick, card, conflict
from trickbag.tricks import bag, parse

HOUSE = Path(__file__).parents[1]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Put the generated pages beside the written ones."""
    for path, content in pages():
        files.append(File.generated(config, path, content=content))
    return files


def pages() -> Iterator[tuple[str, str | bytes]]:
    """Path and content of each generated file."""
    for name in ("CHANGELOG.md", "CONTRIBUTING.md"):
        yield name, (HOUSE / name).read_text("utf-8")
    for file in sorted((HOUSE / "benchmarks" / "results").glob("*.md")):
        yield f"results/{file.name}", file.read_text("utf-8")
    yield "bag.md", "\n".join(table())
    yield "recipes.md", "\n".join(recipes())
    for name, trick in bag().items():
        drawn = bool({"lr", *sketch.AUGMENTING} & set(trick.plugs()))
        yield f"tricks/{name}.md", "\n".join(page(name, trick, drawn))
        if drawn:
            yield f"tricks/{name}.png", sketch.picture(name)


def table() -> Iterator[str]:
    """The bag as one table, by the stage at which a trick acts, with a box that filters its rows."""
    yield "---\nhide: [navigation, toc]\n---\n\n# The bag\n"
    yield "Each trick has a page with its formula, paper and fields, and what it helps and hurts. `trickbag tricks NAME`"
    yield "prints the same, and `trickbag study DATA --tricks A,B` measures what tricks do on your images.\n"
    yield '<input id="bag-filter" type="search" placeholder="Filter, as: schedule, label, nothing" aria-label="Filter tricks">'
    yield f'<p id="bag-count" role="status">{len(bag())} tricks</p>\n'
    yield '<div id="bag" markdown>\n'
    yield "| trick | stage | what it does | costs |"
    yield "|---|---|---|---|"
    for name, trick in sorted(bag().items(), key=lambda item: (item[1].stage, item[0])):
        words = card(trick)
        costs = re.split(r"[:;.,] |\.$", words["Costs"])[0]
        yield f"| [{name}](tricks/{name}.md) | {trick.stage.name.lower()} | {cell(words['Title'])} | {cell(costs)} |"
    yield "\n</div>"


def page(name: str, trick: type[Trick], drawn: bool) -> Iterator[str]:
    """One trick's page."""
    words = card(trick)
    yield f"# {name}\n\n{text(words['Title'])}\n\n```python\n{trick.usage()}\n```\n"
    if drawn:
        yield f"![{name}]({name}.png)\n"
    for word in CARD:
        yield f"**{word}.** {text(words[word])}\n"
    own = f"{', '.join(trick.plugs())}, at the stage {trick.stage.name}"
    yield f"**Plug points.** {own if trick.plugs() else 'those of the trick that it holds'}.\n"
    others = ", ".join(f"[{other}]({other}.md)" for other in excluded(name))
    yield f"**Excludes.** {others or 'nothing.'}\n"
    if trick.model_fields:
        yield "| field | default | bounds | what it is |\n|---|---|---|---|"
    for field, info in trick.model_fields.items():
        default = "required" if info.is_required() else f"`{info.default!r}`"
        yield f"| `{field}` | {default} | {cell(bounds(info))} | {cell(info.description or '')} |"


def recipes() -> Iterator[str]:
    """The built-in recipes as their files say."""
    yield "# Recipes\n"
    for name in sorted(recipe_names()):
        yield f"## {name}\n\n```toml\n{recipe_text(name)[0].rstrip()}\n```\n"


def excluded(name: str) -> list[str]:
    """The other tricks that cannot stand beside one."""
    own = example(name)
    return [other for other in bag() if other != name and conflict(own, example(other))]


def example(name: str) -> Trick:
    """The trick at its defaults, or as its example spells it."""
    return parse(bag()[name].example or name)


def text(words: str) -> str:
    """Words that Markdown leaves as they are."""
    escaped = html.escape(words, quote=False)
    return "".join(f"\\{sign}" if sign in "\\`*_[]" else sign for sign in escaped)


def cell(words: str) -> str:
    """Words in a table."""
    return " ".join(text(words).split()).replace("|", "\\|")
