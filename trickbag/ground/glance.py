"""What source files say, read without running them: torch takes seconds to import, and a list or a help text must not."""

import ast
import re
from collections.abc import Iterable
from functools import cache
from importlib import metadata, util
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parents[1]
GROUP = "trickbag.tricks"
"""The entry point group in which an installed package names its tricks."""


CARD = ("Formula", "Paper", "Helps", "Hurts", "Costs")


class Listed(NamedTuple):
    """A trick in the list of all."""

    card: dict[str, str]
    """As ``trickbag.trick.card`` gives it."""
    plugs: tuple[str, ...]
    """As ``trickbag.trick.Trick.plugs`` gives them."""
    origin: str = ""
    """The file or the installed package that it comes from, where that is not trickbag."""


class Installed(NamedTuple):
    """A trick that an installed package enters in ``GROUP``."""

    module: str
    file: Path
    package: str
    """With its version."""


@cache
def installed() -> dict[str, Installed]:
    """The tricks that installed packages enter, by name; nothing is imported but what finds a package's folder."""
    found = {}
    for entry in metadata.entry_points(group=GROUP):
        root, *rest = entry.module.split(".")
        spec = util.find_spec(root)
        if not spec or not spec.origin:
            continue
        file = Path(spec.origin).parent.joinpath(*rest) if rest else Path(spec.origin)
        file = file.with_suffix(".py") if file.with_suffix(".py").is_file() else file / "__init__.py"
        if file.is_file():
            package = f"{entry.dist.name} {entry.dist.version}" if entry.dist else root
            found[entry.name] = Installed(entry.module, file, package)
    return found


def shelf(plugins: Iterable[Path] = ()) -> dict[str, Listed]:
    """Every trick by name, also those of installed packages and in some files.

    >>> shelf()["mixup"].plugs
    ('batch',)
    """
    points = _methods(_class(_tree(HERE / "trick.py"), "Trick"))
    places = {file.stem: (file, "") for file in sorted((HERE / "tricks").glob("[!_]*.py"))}
    places |= {name: (held.file, held.package) for name, held in sorted(installed().items()) if name not in places}
    places |= {file.stem: (file, str(file)) for file in plugins}
    found = {}
    for name, (file, origin) in places.items():
        tree = _tree(file)
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and set(_bases(node)) & {"Trick", "Timed"}:
                said, own = card(ast.get_docstring(tree) or ""), {p.name for p in node.body if isinstance(p, ast.FunctionDef)}
                found[name] = Listed(said, tuple(point for point in points if point in own), origin)
    return found


def card(docstring: str) -> dict[str, str]:
    r"""The docstring of a trick's file as a card: its first line under "Title", then the text under each word of CARD.

    >>> card("Flip.\n\nFormula: x.flip(-1)\nHelps: photos,\n  mostly.")
    {'Title': 'Flip.', 'Formula': 'x.flip(-1)', 'Helps': 'photos, mostly.'}
    """
    title, _, rest = docstring.strip().partition("\n")
    parts = re.split(rf"^({'|'.join(CARD)}):", rest, flags=re.MULTILINE)
    return {"Title": title} | {k: " ".join(v.split()) for k, v in zip(parts[1::2], parts[2::2], strict=True)}


def decorated(source: bytes, word: str) -> list[ast.FunctionDef]:
    r"""The functions of a file under a decorator whose last name is ``word``; none where it is no Python.

    >>> [node.name for node in decorated(b"@timm.models.register_model\ndef mine(): ...", "register_model")]
    ['mine']
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return []
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    return [node for node in functions if word in {ast.unparse(one).rpartition(".")[2] for one in node.decorator_list}]


def classes() -> list[str]:
    """The classes of all tricks.

    >>> "MixUp" in classes()
    True
    """
    files = sorted((HERE / "tricks").glob("[!_]*.py"))
    return [re.search(r"^class (\w+)\((?:Trick|Timed)\)", file.read_text("utf-8"), re.MULTILINE)[1] for file in files]  # type: ignore[index]


@cache
def parameters(file: str, name: str) -> dict[str, str]:
    """What the docstring of a function in a file of this package says of each of its parameters.

    >>> parameters("api.py", "train")["seed"]
    'The random seed. The same seed gives the same result.'
    """
    tree = _tree(HERE / file)
    nodes = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
    text = ast.get_docstring(nodes[-1]) or ""  # before it stand its overloads
    block = re.search(r"^Args:\n((?: +.*\n?)+)", text, re.MULTILINE)
    found = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", block[1] if block else "", re.MULTILINE)
    return {
        name: re.sub(r"``(\w+)``", r"--\1", " ".join(said.split())).replace("open_set", "open-set").replace("`", "")
        for name, said in found
    }


def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text("utf-8"))


def _class(tree: ast.Module, name: str) -> ast.ClassDef:
    return next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)


def _bases(node: ast.ClassDef) -> list[str]:
    return [ast.unparse(base).rpartition(".")[2] for base in node.bases]


def _methods(node: ast.ClassDef) -> list[str]:
    return [part.name for part in node.body if isinstance(part, ast.FunctionDef) and not part.decorator_list]
