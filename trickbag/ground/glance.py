"""What source files say, read without running them: torch takes seconds to import, and a list or a help text must not."""

import ast
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parents[1]


class Listed(NamedTuple):
    """A trick in the list of all."""

    title: str
    """The first line of its card."""
    plugs: tuple[str, ...]
    """As ``trickbag.trick.Trick.plugs`` gives them."""


def shelf() -> dict[str, Listed]:
    """Every trick by name.

    >>> shelf()["mixup"].plugs
    ('batch',)
    """
    points = _methods(_class(_tree(HERE / "trick.py"), "Trick"))
    found = {}
    for file in sorted((HERE / "tricks").glob("[!_]*.py")):
        tree = _tree(file)
        own = next(_methods(node) for node in tree.body if isinstance(node, ast.ClassDef) and _bases(node) == ["Trick"])
        title = (ast.get_docstring(tree) or "").partition("\n")[0]
        found[file.stem] = Listed(title, tuple(point for point in points if point in own))
    return found


def classes() -> list[str]:
    """The classes of all tricks.

    >>> "MixUp" in classes()
    True
    """
    files = sorted((HERE / "tricks").glob("[!_]*.py"))
    return [re.search(r"^class (\w+)\(Trick\)", file.read_text("utf-8"), re.MULTILINE)[1] for file in files]  # type: ignore[index]


@cache
def parameters(file: str, name: str) -> dict[str, str]:
    """What the docstring of a function in a file of this package says of each of its parameters.

    >>> parameters("api.py", "train")["seed"]
    'The random seed. The same seed gives the same result.'
    """
    tree = _tree(HERE / file)
    text = next(ast.get_docstring(node) or "" for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name)
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
    return [base.id for base in node.bases if isinstance(base, ast.Name)]


def _methods(node: ast.ClassDef) -> list[str]:
    return [part.name for part in node.body if isinstance(part, ast.FunctionDef) and not part.decorator_list]
