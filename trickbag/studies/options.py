"""What a study is asked for: the fields of a study's TOML file, of ``trickbag study`` and of ``tb.study``."""

import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from trickbag.ground import files, toml
from trickbag.ground.errors import UsageError
from trickbag.ground.streams import MOST_SEED
from trickbag.ground.text import brief, clipped

FOLDS = re.compile(r"(\d{1,9})x(\d{1,9})")
MOST_RUNS = 1000
"""Of an arm, and most arms of a study."""


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
    """A timm model, or cifar_resnet8, 20, 32 or 56."""
    weights: str | None = None
    """Initial weights: a .safetensors file, a run's folder, hub or none."""
    with_: Annotated[tuple[str, ...], Field(alias="with")] = ()
    """Tricks added to the reference arm."""
    without: tuple[str, ...] = ()
    """Tricks removed from the reference arm."""
    set_: Annotated[dict[str, Any], Field(alias="set")] = {}
    """Fields of the reference arm."""
    tricks: tuple[str, ...] | Literal["auto"] = ()
    """The tricks to try; auto: those that the check of the data set suggests."""
    prior: str = ""
    """A file that trickbag atlas wrote."""
    teacher: str = ""
    """A run's folder or a recipe from which tricks = "auto" may propose to distil."""
    vary: dict[str, tuple[Any, ...]] = {}
    """Fields to try with other values."""
    combine: tuple[tuple[str, ...], ...] = ()
    """Lists of tricks to add together; each list is an arm."""
    design: Literal["auto", "add-one", "leave-one-out", "two-sided", "stack", "factorial"] = "auto"
    """Which arms to train; auto: factorial where the tricks can be combined, otherwise add-one."""
    on: Literal["val", "test"] = "val"
    """The split on which arms are compared and the recommended recipe is chosen. val may rotate: see rotate. test reproduces
    published tables."""
    rotate: bool | None = None
    """Whether each seed judges another fold of the training and validation images, so that more seeds are more images; unset:
    where the data set has no validation split of its own."""
    folds: Annotated[str, Field(pattern=r"^(\d{1,9}x\d{1,9})?$")] = ""
    """Repeated cross-validation in place of seeds, for small data: repeats x folds, for example 5x2, over the training and
    validation images."""
    seeds: Annotated[int, Field(ge=1, le=1000)] = 3
    """Runs per arm, each with its own seed."""
    proof: bool | None = None
    """Whether to put the best candidate to the proof: fresh seeds, on images that have chosen nothing. Unset: where there are
    such images, and the budget holds it."""
    looks: bool = False
    """Whether to stop training arms that are decided after 3, 5 or 10 seeds. Each interim analysis spends a part of the 5 % of
    false findings, so the last one is stricter."""
    seed: Annotated[int, Field(ge=0, le=MOST_SEED)] = 0
    """The first seed; it also splits a data set that has no splits."""
    delta: Annotated[float, Field(ge=0, le=100)] = 0.2
    """The largest difference that does not matter to you, in percentage points (the region of practical equivalence)."""
    price: Annotated[float, Field(ge=1)] = 3.0
    """The most that the recommended recipe may cost, as a multiple of the training time of the reference."""
    same: Annotated[int, Field(ge=0, le=10)] = 0
    """Number of A/A arms: the reference with other seeds, to measure the noise."""
    matched: bool = False
    """Whether to also train the reference for as long as each trick takes that costs over 5 % more."""
    sharing: bool = True
    """Whether to train once what arms have in common. The results are the same."""
    depth: Annotated[int, Field(ge=0)] = 0
    """How many folders make a class, where folders name the classes; 0 for all of them."""
    budget: Annotated[float, Field(ge=0)] = 0.0
    """Time for the whole study, in seconds; the design and the number of seeds are chosen to fit. 0: no limit."""

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
    def _looks_need_seeds(self) -> Self:
        if self.looks and self.folds:
            raise ValueError("looks stop after some seeds, but folds need all runs. Remove one of them")
        return self

    @classmethod
    def build(cls, fields: dict[str, Any], where: str = "") -> Self:
        """The options with these fields. Raises UsageError, beginning with ``where``, for what is unknown or out of range."""
        try:
            return cls(**fields)
        except ValidationError as error:
            first = error.errors()[0]
            name = clipped(".".join(str(part) for part in first["loc"][:1]))
            reason = first["msg"].removeprefix("Value error, ").replace("a valid tuple", "a list")
            if first["type"] == "extra_forbidden":
                reason = f"a study has no such field. It has: {', '.join(f.alias or n for n, f in cls.model_fields.items())}"
            said = f"{reason[0].lower()}{reason[1:].rstrip('.')}."
            raise UsageError(where + ": ".join(filter(None, [name, said]))) from None

    @classmethod
    def load(cls, file: str | Path, **changes: Any) -> Self:
        """The options of a TOML file, with changes; those in a table, as of ``set``, join the file's.

        Raises UsageError where it cannot be read or holds what no study has.
        """
        path = Path(file)
        try:
            fields = toml.parse(files.text(path))
        except OSError as error:
            raise UsageError(f"study {brief(str(path))} cannot be read: {files.reason(error)}. Give a TOML file.") from None
        except ValueError as error:
            raise UsageError(f"study {path.name}: {error}.") from None
        changed = {
            (cls.model_fields[name].alias or name if name in cls.model_fields else name): v for name, v in changes.items()
        }
        joined = {n: fields[n] | v for n, v in changed.items() if isinstance(v, dict) and isinstance(fields.get(n), dict)}
        return cls.build(fields | changed | joined, f"study {path.name}: ")

    @property
    def blocks(self) -> tuple[int, int]:
        """Repeats and folds; (0, 0) without cross-validation."""
        match = FOLDS.fullmatch(self.folds)
        return (int(match[1]), int(match[2])) if match else (0, 0)
