"""What a study is asked for: the fields of a study's TOML file, of ``trickbag study`` and of ``tb.study``."""

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from trickbag.ground import files
from trickbag.ground.errors import UsageError
from trickbag.ground.text import brief

FOLDS = re.compile(r"(\d+)x(\d+)")


class Options(BaseModel):
    """A study's options.

    >>> Options(tricks=["mixup"], seeds=5).on
    'val'
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True, populate_by_name=True
    )

    recipe: str = "auto"
    """The reference arm: a built-in recipe, or a TOML file."""
    model: str | None = None
    """A timm model, or cifar_resnet8, 20, 32, 56."""
    weights: str | None = None
    """Where training starts: a .safetensors file, a run's folder, hub or none."""
    with_: Annotated[tuple[str, ...], Field(alias="with")] = ()
    """Tricks put into the reference arm."""
    without: tuple[str, ...] = ()
    """Tricks taken out of the reference arm."""
    set_: Annotated[dict[str, Any], Field(alias="set")] = {}
    """Fields of the reference arm."""
    tricks: tuple[str, ...] | Literal["auto"] = ()
    """The tricks to try, or auto: those that what is known of the data set suggests."""
    teacher: str = ""
    """A run's folder or a recipe from which tricks = "auto" may propose to distil."""
    vary: dict[str, tuple[Any, ...]] = {}
    """Fields to try at other values."""
    combine: tuple[tuple[str, ...], ...] = ()
    """Lists of tricks that are put in together, an arm for each list."""
    design: Literal["auto", "add-one", "leave-one-out", "two-sided", "stack", "factorial"] = "auto"
    """Which arms are trained; auto: two-sided up to 6 tricks, else factorial."""
    on: Literal["val", "test"] = "val"
    """Where the arms are judged and the recommended recipe is chosen; test is for reproducing published tables."""
    folds: Annotated[str, Field(pattern=r"^(\d+x\d+)?$")] = ""
    """Repeats x folds of cross-validation over training and validation images, as 5x2, in place of seeds: for small data."""
    seeds: Annotated[int, Field(ge=1, le=1000)] = 3
    """Runs of every arm, each with a seed of its own."""
    looks: bool = False
    """Whether arms on which there is a verdict, or which can no longer gain, after 3, 5 or 10 seeds get no more seeds. Each
    look spends a part of the 5 % of false findings, so the last one is stricter."""
    seed: Annotated[int, Field(ge=0)] = 0
    """The first seed; it also divides the data set where it has no splits."""
    delta: Annotated[float, Field(ge=0, le=100)] = 0.2
    """Percentage points that are no difference to you: half the width of the region of practical equivalence."""
    price: Annotated[float, Field(ge=1)] = 3.0
    """The most that the recommended recipe may cost, as a multiple of the reference's training time."""
    same: Annotated[int, Field(ge=0, le=10)] = 0
    """A/A arms: the reference with other seeds, to see the noise floor."""
    matched: bool = False
    """Whether the reference is also trained as long as each trick that costs over 5 % more takes."""
    sharing: bool = True
    """Whether what arms have in common is trained once. It changes no number."""
    budget: Annotated[float, Field(ge=0)] = 0.0
    """Seconds for the whole study: the design and the number of seeds that fit are chosen; 0 for no limit."""

    @model_validator(mode="after")
    def _looks_need_seeds(self) -> Self:
        if self.looks and self.folds:
            raise ValueError("looks are made after seeds; with folds all runs are needed. Leave one of them out")
        return self

    @classmethod
    def build(cls, fields: dict[str, Any], where: str = "") -> Self:
        """The options with these fields. Raises UsageError, beginning with ``where``, for what is unknown or out of range."""
        try:
            return cls(**fields)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"][:1])
            reason = first["msg"].removeprefix("Value error, ")
            if first["type"] == "extra_forbidden":
                reason = f"a study has no such field. It has: {', '.join(f.alias or n for n, f in cls.model_fields.items())}"
            said = f"{reason[0].lower()}{reason[1:].rstrip('.')}."
            raise UsageError(where + ": ".join(filter(None, [name, said]))) from None

    @classmethod
    def load(cls, file: str | Path, **changes: Any) -> Self:
        """The options of a TOML file, with changes. Raises UsageError where it cannot be read or holds what no study has."""
        path = Path(file)
        try:
            fields = tomllib.loads(files.text(path))
        except OSError as error:
            raise UsageError(f"study {brief(str(path))} cannot be read: {files.reason(error)}. Give a TOML file.") from None
        except tomllib.TOMLDecodeError as error:
            raise UsageError(f"study {path.name}: {error}.") from None
        return cls.build(fields | changes, f"study {path.name}: ")

    @property
    def blocks(self) -> tuple[int, int]:
        """Repeats and folds; (0, 0) without cross-validation."""
        match = FOLDS.fullmatch(self.folds)
        return (int(match[1]), int(match[2])) if match else (0, 0)
