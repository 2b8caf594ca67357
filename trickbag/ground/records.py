"""JSON of ours, read through the models that say what is in it: what does not fit its model is never believed.

Every JSON file that trickbag writes and reads again has a ``Record``, in the room that writes it. Its fields are the
documentation: ``docs/run-folder.md`` and ``docs/study-folder.md`` describe each.
"""

import hashlib
import json
import math
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NoReturn, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from trickbag.ground import files
from trickbag.ground.errors import TrickbagError, UsageError

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0, lt=2**53)]
Seconds = Annotated[float, Field(ge=0, le=1e12)]

MOST = 1 << 30
"""Bytes of a file of ours that is read whole."""
MALFORMED = (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError)
"""What code runs into that works with content which fits its model and still makes no sense."""


class Record(BaseModel):
    """The content of a JSON file, or a part of it. Keys that the model lacks are passed over: later versions add some."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="ignore", allow_inf_nan=False, use_attribute_docstrings=True, protected_namespaces=()
    )

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Self:
        """The record with these fields, whose tuples become lists. Raises ValueError where they do not fit."""
        return cls.model_validate(json.loads(json.dumps(fields)))

    def plain(self) -> dict[str, Any]:
        """The fields that were given, as plain values."""
        return self.model_dump(exclude_unset=True, by_alias=True)


class Open(Record):
    """A record of which nothing is known beforehand."""

    model_config = ConfigDict(extra="allow")


class Signed(Record):
    """A record that lies under no manifest and carries a hash of its own, so that a change by other hands shows."""

    digest: str = ""
    """SHA-256 of all other keys."""

    def plain(self) -> dict[str, Any]:
        """The fields that were given, as plain values, without the hash."""
        return self.model_dump(exclude_unset=True, by_alias=True, exclude={"digest"})

    def signed(self) -> dict[str, Any]:
        """The fields as plain values, with their hash."""
        return self.plain() | {"digest": self._digest()}

    def _digest(self) -> str:
        return hashlib.sha256(json.dumps(self.plain(), sort_keys=True).encode()).hexdigest()

    @model_validator(mode="after")
    def _as_it_was_signed(self) -> Self:
        if self.digest and self.digest != self._digest():
            raise ValueError("it was changed after trickbag wrote it")
        return self


R = TypeVar("R", bound=Record)


def read(path: Path, kind: type[R], remedy: str) -> R:
    """The record in a JSON file. Raises TrickbagError, which names the file and the field and ends with the remedy."""
    try:
        return parse(files.content(path, MOST), kind)
    except OSError as error:
        raise TrickbagError(f"{path} cannot be read: {files.reason(error)}. {remedy}") from None
    except ValueError as error:
        raise TrickbagError(f"{path} is damaged: {error}. {remedy}") from None


def parse(text: bytes, kind: type[R]) -> R:
    """The record in strict JSON. Raises ValueError, which names the field and what is wrong with it.

    >>> parse(b'{"digest": 7}', Signed)
    Traceback (most recent call last):
    ValueError: digest: input should be a valid string
    """
    try:
        value = json.loads(text, parse_constant=_no_number, parse_float=_finite)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"it is not JSON ({error})") from None
    try:
        found = kind.model_validate(value)
    except ValidationError as error:
        raise ValueError(_fault(error)) from None
    except UsageError as error:
        raise ValueError(f"{error}".rstrip(".")) from None
    if isinstance(found, Signed) and not found.digest:
        raise ValueError("it has no digest, so trickbag did not write it")
    return found


def _fault(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    reason = textwrap.shorten(first["msg"].removeprefix("Value error, "), 300, placeholder=" …")
    place = ".".join(map(str, first["loc"]))
    return f"{place[:200]}: {reason[0].lower()}{reason[1:]}" if place else reason


def _finite(text: str) -> float:
    return value if math.isfinite(value := float(text)) else _no_number(text)


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text[:20]} is not a JSON number")
