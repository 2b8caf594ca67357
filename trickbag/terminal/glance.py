"""What source files say, read without running them: torch takes seconds to import, and a list or a help text must not."""

import ast
from functools import cache
from inspect import cleandoc
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parents[1]


class Listed(NamedTuple):
    """A trick in the list of all."""

    title: str
    """The first line of its card."""
    plugs: tuple[str, ...]
    """As ``trickbag.trick.Trick.plugs`` gives them."""


class Described(NamedTuple):
    """A field of a class with annotations."""

    default: Any
    description: str


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


@cache
def fields(file: str, name: str) -> dict[str, Described]:
    """The fields of a class in a file of this package, with their defaults and the texts under them.

    >>> fields("studies/options.py", "Options")["seeds"].default
    3
    """
    body = _class(_tree(HERE / file), name).body
    found = {}
    for node, text in pairwise(body):
        match node, text:
            case ast.AnnAssign(target=ast.Name(id=field), value=ast.expr() as value), ast.Expr(
                value=ast.Constant(value=str(told))
            ):
                found[field] = Described(ast.literal_eval(value), " ".join(cleandoc(told).split()))
    return found


def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text("utf-8"))


def _class(tree: ast.Module, name: str) -> ast.ClassDef:
    return next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)


def _bases(node: ast.ClassDef) -> list[str]:
    return [base.id for base in node.bases if isinstance(base, ast.Name)]


def _methods(node: ast.ClassDef) -> list[str]:
    return [part.name for part in node.body if isinstance(part, ast.FunctionDef) and not part.decorator_list]
