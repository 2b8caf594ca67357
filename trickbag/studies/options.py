"""What a study is asked for: the fields of a study's TOML file, of ``trickbag study`` and of ``tb.study``."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_serializer, model_validator

from trickbag.ground import files, toml
from trickbag.ground.arguments import public
from trickbag.ground.errors import UsageError
from trickbag.ground.streams import MOST_SEED
from trickbag.ground.text import brief, clipped
from trickbag.ground.typed import assignments, seconds, several, spellings, varied
from trickbag.recipe import Recipe
from trickbag.tricks import names

FOLDS = re.compile(r"(\d{1,9})x(\d{1,9})")
TRANSFER = re.compile(r"(detection|segmentation):(.+)", re.DOTALL)
"""A task and the folder of its data."""
MOST_RUNS = 1000
"""Of an arm, and most arms of a study."""
DESIGNS = Literal["auto", "add-one", "leave-one-out", "two-sided", "stack", "factorial"]
Spellings = Annotated[tuple[str, ...], BeforeValidator(spellings)]
Word = Annotated[str, BeforeValidator(str)]
"""Also a path."""


def _recipe(given: Any) -> Any:
    return str(given) if isinstance(given, Path) else Recipe.build(given) if isinstance(given, Mapping) else given


def _tricks(given: Any) -> Any:
    return given if given == "auto" else spellings(given)


def _lists(given: Any) -> list[list[str]]:
    return [spellings(one) for one in (given if several(given) else [given])]


def _given(given: Any) -> Any:
    return [*given] if several(given) else [given]


class Options(BaseModel):
    """A study's options: the parameters of ``trickbag.study``, which says what each means.

    Examples:
        >>> Options(tricks=["mixup"], seeds=5).on
        'val'

    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, populate_by_name=True)

    recipe: Annotated[str | Recipe, BeforeValidator(_recipe)] = "auto"
    model: str | None = None
    weights: Word | None = None
    with_: Annotated[Spellings, Field(alias="with")] = ()
    without: Spellings = ()
    set_: Annotated[dict[str, Any], BeforeValidator(assignments), Field(alias="set")] = {}
    tricks: Annotated[tuple[str, ...] | Literal["auto"], BeforeValidator(_tricks)] = ()
    prior: Word = ""
    teacher: Word = ""
    vary: Annotated[dict[str, tuple[Any, ...]], BeforeValidator(varied)] = {}
    combine: Annotated[tuple[tuple[str, ...], ...], BeforeValidator(_lists)] = ()
    design: DESIGNS = "auto"
    on: Literal["val", "test"] = "val"
    rotate: bool | None = None
    folds: Annotated[str, Field(pattern=r"^(\d{1,9}x\d{1,9})?$")] = ""
    seeds: Annotated[int, Field(ge=1, le=1000)] = 3
    proof: bool | None = None
    looks: bool = False
    seed: Annotated[int, Field(ge=0, le=MOST_SEED)] = 0
    delta: Annotated[float, Field(ge=0, le=100)] = 0.2
    price: Annotated[float, Field(ge=1)] = 3.0
    same: Annotated[int, Field(ge=0, le=10)] = 0
    matched: bool = False
    sharing: bool = True
    depth: Annotated[int, Field(ge=0)] = 0
    corrections: Word = ""
    budget: Annotated[float, BeforeValidator(seconds), Field(ge=0)] = 0.0
    transfer: Annotated[tuple[str, ...], BeforeValidator(_given)] = ()
    transfer_set: Annotated[dict[str, Any], BeforeValidator(assignments)] = {}

    if not TYPE_CHECKING:  # type checkers make the signature from the fields

        def __init__(self, /, **fields: Any) -> None:
            """Raises UsageError for what is unknown or out of range."""
            try:
                super().__init__(**fields)
            except ValidationError as error:
                first = error.errors()[0]
                name = clipped(".".join(str(part) for part in first["loc"][:1]))
                reason = first["msg"].removeprefix("Value error, ").replace("a valid tuple", "a list")
                if first["type"] == "extra_forbidden":
                    known = ", ".join(field.alias or n for n, field in type(self).model_fields.items())
                    reason = f"a study has no such field. It has: {known}"
                said = f"{reason[0].lower()}{reason[1:].rstrip('.')}."
                raise UsageError(": ".join(filter(None, [name, said]))) from None

    @field_serializer("recipe")
    def _spelled(self, recipe: str | Recipe) -> str | dict[str, Any]:
        return recipe if isinstance(recipe, str) else recipe.spelled()

    @model_validator(mode="after")
    def _countable(self) -> Self:
        if math.prod(self.blocks) > MOST_RUNS:
            raise ValueError(f"folds: {self.folds} are more than {MOST_RUNS:,} runs of every arm. Write fewer")
        arms = len(self.tricks) * (self.tricks != "auto") + len(self.combine) + sum(map(len, self.vary.values()))
        if arms > MOST_RUNS:
            raise ValueError(
                f"{arms:,} arms are asked for by tricks, combine and vary; {MOST_RUNS:,} are the most. Write fewer"
            )
        return self

    @model_validator(mode="after")
    def _one_way_to_judge(self) -> Self:
        if self.rotate and self.on == "test":
            raise ValueError("rotate judges folds of the training and validation images, on = test the test images. Remove one")
        if self.folds and (self.rotate is not None or self.on == "test"):
            other = "on = test" if self.on == "test" else "rotate"
            raise ValueError(f"folds say which images judge, and so does {other}. Remove one")
        return self

    @model_validator(mode="after")
    def _transfers_have_data(self) -> Self:
        for text in self.transfer:
            if not TRANSFER.fullmatch(text):
                raise ValueError(f"transfer {clipped(text)!r}: write detection:FOLDER or segmentation:FOLDER")
            if self.transfer.count(text) > 1:
                raise ValueError(f"transfer {clipped(text)!r} is given twice. Remove one")
        if self.transfer_set and not self.transfer:
            raise ValueError("transfer_set changes how detectors and segmenters are trained, and none is. Give transfer too")
        return self

    @model_validator(mode="after")
    def _looks_need_seeds(self) -> Self:
        if self.looks and self.folds:
            raise ValueError("looks stop after some seeds, but folds need all runs. Remove one of them")
        return self

    @classmethod
    @public
    def build(cls, fields: Mapping[str, Any], where: str = "") -> Self:
        """The options with these fields. Raises UsageError, beginning with ``where``, for what is unknown or out of range."""
        try:
            return cls(**fields)
        except UsageError as error:
            raise UsageError(f"{where}{error}") from None

    @classmethod
    def given(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Those arguments of a call that are options, and are not left open by None."""
        fields = cls.model_fields.items()
        return {field.alias or name: arguments[name] for name, field in fields if arguments[name] is not None}

    @classmethod
    @public
    def load(cls, file: str | Path, **changes: Any) -> Self:
        """The options of a TOML file, with changes; those in a table, as of ``set``, join the file's.

        Raises UsageError where it cannot be read or holds what no study has.
        """
        fields, where = _read(file), f"study {Path(file).name}: "
        fields.pop("plugins", None)  # known already, and by their content part of the recipes
        changed = {
            (cls.model_fields[name].alias or name if name in cls.model_fields else name): v for name, v in changes.items()
        }
        tables = {"set": assignments, "transfer_set": assignments, "vary": varied}
        changed |= {name: read(changed[name]) for name, read in tables.items() if name in changed}
        joined = {n: fields[n] | v for n, v in changed.items() if isinstance(v, dict) and isinstance(fields.get(n), dict)}
        return cls.build(fields | changed | joined, where)

    @property
    def blocks(self) -> tuple[int, int]:
        """Repeats and folds; (0, 0) without cross-validation."""
        match = FOLDS.fullmatch(self.folds)
        return (int(match[1]), int(match[2])) if match else (0, 0)


def plugins_of(file: Options | str | Path | None) -> list[str]:
    """The plugins that a TOML file of options names: what its tricks, networks and metrics are found in."""
    named = _read(file).get("plugins", []) if isinstance(file, str | Path) else []
    found = [named] if isinstance(named, str) else named
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise UsageError(f"study {Path(str(file)).name}: plugins: write a Python file, or a list of them.")
    return found


def _read(file: str | Path) -> dict[str, Any]:
    path = Path(file)
    try:
        return toml.parse(files.text(path))
    except OSError as error:
        advice = "Separate tricks by commas: --tricks mixup,ema." if str(path) in names() else "Give a TOML file."
        raise UsageError(f"study {brief(str(path))} cannot be read: {files.reason(error)}. {advice}") from None
    except ValueError as error:
        raise UsageError(f"study {path.name}: {error}.") from None
