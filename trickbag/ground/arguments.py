"""What Python code gives to a public function, checked against its annotations: values of a wrong type end here, by name."""

import functools
import inspect
import math
import reprlib
from collections.abc import Callable, Collection, Container, Iterable, Mapping
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, cast, get_args, get_origin

from trickbag.ground.errors import TrickbagError, UsageError
from trickbag.ground.spoken import Reader, in_python
from trickbag.ground.text import line
from trickbag.ground.typed import several

Function = TypeVar("Function", bound=Callable[..., Any])
WORDS: dict[Any, str] = {
    str: "a text",
    Path: "a path",
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    Mapping: "a dict",
    Iterable: "a list",
    Collection: "a list",
    Container: "a list or a set",
    Callable: "a function",
}

PARAMETERS = set[str]()
"""Of all that is public."""


class Between(NamedTuple):
    """The range of a number, in ``Annotated``."""

    low: float
    high: float = math.inf

    def __str__(self) -> str:
        return f"from {self.low:g}" + (f" to {self.high:,}" if self.high < math.inf else "")


Share = Annotated[float, Between(0, 1)]
Whole = Annotated[int, Between(0)]


def public(function: Function) -> Function:
    """The function, which refuses what its annotations do not take with a UsageError; values reach it as they were given.

    A text in ``Annotated`` says what is taken. Errors from inside name parameters in place of the command line's options.

    >>> @public
    ... def shrink(share: Annotated[float, Between(0, 1)], *names: str | Path): ...
    >>> shrink(0.5, "a", Path("b"))
    >>> shrink(2)
    Traceback (most recent call last):
    trickbag.ground.errors.UsageError: share=2: give a number from 0 to 1.
    >>> shrink(0.5, "a", None)
    Traceback (most recent call last):
    trickbag.ground.errors.UsageError: names=None: give a path.
    """
    signature = inspect.signature(function)
    PARAMETERS.update(signature.parameters)
    kinds = {name: one.annotation for name, one in signature.parameters.items() if one.annotation is not one.empty}
    many = {name for name, one in signature.parameters.items() if one.kind is one.VAR_POSITIONAL}

    @functools.wraps(function)
    def checked(*args: Any, **named: Any) -> Any:
        try:
            given = signature.bind(*args, **named).arguments
        except TypeError:  # a parameter is missing or unknown: the function says so under its own name
            given = {}
        for name, kind in kinds.items():
            values = given.get(name, ()) if name in many else [given[name]] if name in given else ()
            for value in values:
                if not fits(value, kind):
                    raise UsageError(f"{name}={line(reprlib.repr(value))}: give {words(kind)}.")
        try:
            return function(*args, **named)
        except TrickbagError as error:
            if not Reader.typed:
                error.args = (in_python(str(error), PARAMETERS),)
            raise

    return cast(Function, checked)


def fits(value: Any, kind: Any) -> bool:
    """Whether a value is what an annotation says. No iterator is read, and a text is no list.

    >>> fits(3, float | None), fits(True, float), fits(float("nan"), float), fits("never", Literal["skip", "error"])
    (True, False, False, False)
    >>> fits(["a"], Iterable[str]), fits([1], Iterable[str]), fits("a", Iterable[str])
    (True, False, False)
    """
    origin, parts = get_origin(kind) or kind, get_args(kind)
    if origin in (Union, UnionType):
        return any(fits(value, part) for part in parts)
    if origin is Annotated:
        ranges = [one for one in parts[1:] if isinstance(one, Between)]
        return fits(value, parts[0]) and all(one.low <= value <= one.high for one in ranges)
    if origin is Literal:
        return isinstance(value, str) and value in parts
    if origin in (int, float):
        number = isinstance(value, Integral if origin is int else Real) and not isinstance(value, bool)
        return number and (origin is int or _finite(value))
    if origin in (Iterable, Collection):
        return several(value) and (not isinstance(value, Collection) or all(fits(one, parts[0]) for one in value))
    if origin is Mapping:
        return isinstance(value, Mapping) and all(fits(k, parts[0]) and fits(v, parts[1]) for k, v in value.items())
    if origin is Container:  # it may know what it holds without a list of it
        return isinstance(value, Container) and not isinstance(value, str)
    return origin is Any or isinstance(value, origin)


def _finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that no float can be
        return False


def words(kind: Any) -> str:
    """What an annotation takes.

    >>> words(str | Path | None), words(Literal["skip", "error"]), words(Annotated[float | str, "seconds"] | None)
    ('a path', "'skip' or 'error'", 'seconds')
    >>> words(OSError | Path), words(ValueError)
    ('an OSError or a path', 'a ValueError')
    """
    origin, parts = get_origin(kind) or kind, get_args(kind)
    if origin is Annotated:
        said = [one for one in parts[1:] if isinstance(one, str)]
        return said[0] if said else " ".join([words(parts[0]), *map(str, parts[1:])])
    if origin in (Union, UnionType, Literal):
        left = {NoneType, *([str] if Path in parts else [])}  # None stands for not to give it, and a path may be a text
        each = [repr(part) if origin is Literal else words(part) for part in parts if part not in left]
        return " or ".join(filter(None, [", ".join(each[:-1]), each[-1]]))
    name = getattr(origin, "__name__", str(origin))
    return WORDS.get(origin, f"{'an' if name[0] in 'AEIOU' else 'a'} {name}")
