"""The one spelling of a trick, ``mixup(alpha=0.4)``: in TOML, on the command line, in tables and in hashes.

``parse`` and ``spell`` are inverses. A value is a number, a string, a truth value, a tuple of values or another spec.
"""

import ast
from dataclasses import dataclass, field
from typing import Any

from trickbag.ground.errors import UsageError
from trickbag.ground.text import brief


@dataclass(frozen=True)
class Spec:
    """A name with positional and named values.

    >>> str(Spec("one_of", (Spec("mixup"), Spec("cutmix"))))
    'one_of(mixup, cutmix)'
    """

    name: str
    args: tuple[Any, ...] = ()
    fields: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        inside = [spell(value) for value in self.args] + [f"{k}={spell(v)}" for k, v in self.fields.items()]
        return f"{self.name}({', '.join(inside)})" if inside else self.name


def spell(value: Any) -> str:
    """A value as it stands in a spec.

    >>> spell((0.08, 1.0)), spell("a b"), spell(True)
    ('(0.08, 1.0)', "'a b'", 'True')
    """
    if isinstance(value, tuple | list):
        return "(" + ", ".join(map(spell, value)) + ("," if len(value) == 1 else "") + ")"
    return repr(value) if isinstance(value, int | float | str | None) else str(value)


def parse(text: str) -> Spec:
    """The spec that a text spells.

    >>> parse("mixup(alpha=0.4)")
    Spec(name='mixup', args=(), fields={'alpha': 0.4})
    >>> parse("mixup(alpha=")
    Traceback (most recent call last):
    trickbag.ground.errors.UsageError: 'mixup(alpha=' is not a trick: write name or name(field=value, …), paths in quotes.
    """
    try:
        value = _read(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        value = None
    if not isinstance(value, Spec):
        raise UsageError(f"{brief(text)} is not a trick: write name or name(field=value, …), paths in quotes.")
    return value


def _read(node: ast.expr) -> Any:
    match node:
        case ast.Name(id=name):
            return Spec(name)
        case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords):
            fields = {k.arg: _read(k.value) for k in keywords if k.arg is not None}
            if len(fields) != len(keywords):
                raise ValueError("a field was given twice or without a name")
            return Spec(name, tuple(map(_read, args)), fields)
        case ast.Tuple(elts=values) | ast.List(elts=values):
            return tuple(map(_read, values))
        case ast.Constant(value=int(number)) if number >= 1 << 63:
            raise ValueError("a whole number is larger than 64 bits")
        case ast.Constant(value=int() | float() | str() | bool() | None):
            return node.value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float())):
            return ast.literal_eval(node)
    raise ValueError("not a value")
