"""The recipe: everything that decides a run except data and seed, as one frozen value; TOML in and out."""

import difflib
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from trickbag import tricks
from trickbag.ground import files, toml
from trickbag.ground.arguments import public
from trickbag.ground.errors import UsageError
from trickbag.ground.shown import Sheet, Shown
from trickbag.ground.text import brief, clipped, line
from trickbag.ground.typed import names, spellings
from trickbag.timed import edited
from trickbag.trick import WITHOUT_STEPS, Trick, Tricks, conflict, ordered

Precision = Literal["auto", "fp32", "bf16", "fp16"]
Fit = Literal["crop", "pad", "squash"]
CLASSIFIERS = "trickbag.recipes"
"""Where the built-in recipes of classifiers lie."""
LEAST_STD = 1e-4
"""Pixels have 256 levels; dividing by less than a fraction of one leaves the range of float32."""


def _tricks(value: Any) -> tuple[Trick, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(item, str | Trick) for item in value):
        raise ValueError('write a list of tricks, as ["flip", "mixup(alpha=0.4)"]')
    return ordered([tricks.parse(item) if isinstance(item, str) else item for item in value])


class Training(Shown, BaseModel):
    """What every training needs to know, of whatever kind."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True, protected_namespaces=()
    )
    built_in: ClassVar[str]
    """The package with those that have names."""

    model: str = "resnet50"
    """A timm classification model, or cifar_resnet8, 20, 32 or 56."""
    weights: str = "none"
    """Where training starts: none (from scratch), hub (published weights), a .safetensors file or a run's folder."""
    size: Annotated[int, Field(ge=8, le=4096)] = 224
    """Pixels of a side of the images that the network sees."""
    epochs: Annotated[int, Field(ge=0, le=100_000)] = 40
    """Passes over the training images; 0 trains no step."""
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)] = 32
    """Images per step over all devices."""
    micro_batch: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """Images per forward pass on a device, and one more where it would be left over: larger batches accumulate gradients; 0
    takes the whole batch at once."""
    lr: Annotated[float, Field(gt=0, le=1e30)] = 0.01
    """Learning rate, multiplied by the schedules."""
    weight_decay: Annotated[float, Field(ge=0, le=1e30)] = 1e-4
    """Weight decay."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Nesterov momentum of the default optimiser."""
    precision: Precision = "auto"
    """Arithmetic of the network: auto takes what a few timed steps show to be the fastest."""
    keep: Literal["best", "last"] = "best"
    """Which epoch is kept: the best on validation (top-1, then NLL) or the last."""
    val_share: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    """Share of the images held out for validation where the data set has no such split."""
    test_share: Annotated[float, Field(ge=0, lt=0.5)] = 0.2
    """Share of the images held out for the test where the data set has no such split; 0: there is no test, and validation,
    which chose the epoch, is all there is."""
    tricks: Annotated[tuple[Trick, ...], BeforeValidator(_tricks)] = ()
    """The tricks, in any order."""

    if not TYPE_CHECKING:  # type checkers make the signature from the fields

        def __init__(self, /, **fields: Any) -> None:
            """Raises UsageError for what is unknown or out of range."""
            for name in (name for name in fields if name not in type(self).model_fields):
                near = difflib.get_close_matches(name, type(self).model_fields, n=1)
                raise UsageError(f"a recipe has no field {brief(name)}{f'; did you mean {near[0]}?' if near else '.'}")
            try:
                super().__init__(**fields)
            except ValidationError as error:
                first = error.errors()[0]
                reason = first["msg"].removeprefix("Value error, ")
                name = f"{'.'.join(map(str, first['loc']))}={line(clipped(repr(first['input'])))}: " if first["loc"] else ""
                raise UsageError(f"{name}{reason[0].lower()}{reason[1:].rstrip('.')}.") from None

    def _sheet(self) -> Sheet:
        facts = {name: f"{getattr(self, name)}" for name in ("size", "epochs", "batch_size", "lr")}
        return Sheet(f"recipe {self.model}", facts | {"tricks": ", ".join(map(str, self.tricks))})

    @property
    def key(self) -> str:
        """The name of this recipe: a hash of its canonical spelling."""
        return hashlib.blake2b(json.dumps(self.spelled(), sort_keys=True).encode(), digest_size=8).hexdigest()

    def spelled(self) -> dict[str, Any]:
        """The fields as plain values, tricks by their spelling."""
        return {name: [str(t) for t in value] if name == "tricks" else value for name, value in self}

    @public
    def edit(self, with_: Tricks = (), without: Tricks = (), **fields: Any) -> Self:
        """The recipe with tricks put in (in place of one of the same name) or taken out, and fields set.

        A field may be that of a trick: ``{"mixup.alpha": 0.4}``. Raises UsageError for what cannot be done.
        """
        chosen = {trick.name(): trick for trick in self.build({"tricks": fields.pop("tricks", self.tricks)}).tricks}
        added = {trick.name(): trick for trick in ordered([tricks.parse(text) for text in spellings(with_)])}
        chosen |= added
        for name in names(without):
            if tricks.find(name).name() not in chosen:
                raise UsageError(f"--without {name}: the recipe has no such trick. It has: {', '.join(chosen) or 'none'}.")
            del chosen[name]
        check_added(chosen, added)
        own = {k: v for k, v in fields.items() if "." not in k}
        for path, value in fields.items():
            name, _, field = path.partition(".")
            if field:
                if name not in chosen:
                    raise UsageError(
                        f"{clipped(path)}: the recipe has no trick {clipped(name)}. Add it with --with {clipped(name)}."
                    )
                chosen[name] = edited(chosen[name], **{field: value})
        return self.build(dict(self) | own | {"tricks": tuple(chosen.values())})

    @classmethod
    @public
    def build(cls, fields: Mapping[str, Any], where: str = "") -> Self:
        """The recipe with these fields. Raises UsageError, beginning with ``where``, for what is unknown or out of range."""
        try:
            return cls(**fields)
        except UsageError as error:
            raise UsageError(f"{where}: {error}" if where else f"{error}") from None

    @classmethod
    @public
    def load(cls, source: str | Path) -> Self:
        """A built-in recipe by name, or the recipe in a TOML file.

        >>> Recipe.load("food101").epochs
        40
        """
        text, where = recipe_text(source, cls.built_in)
        try:
            fields = toml.parse(text)
        except ValueError as error:
            raise UsageError(f"recipe {where}: {error}.") from None
        try:
            return cls.build(fields, f"recipe {where}")
        except UsageError as error:
            raise UsageError(_with_line(str(error), text, where)) from None

    def toml(self, header: Iterable[str] = ()) -> str:
        """The recipe as TOML that ``load`` reads back, without the fields at their defaults."""
        lines = [f"# {line}" for line in header]
        for name, value in self.spelled().items():
            if name != "tricks" and value != type(self).model_fields[name].default:
                lines.append(f"{name} = {json.dumps(value)}")
        lines.append("tricks = [")
        lines += [f"    {json.dumps(str(trick))}," for trick in self.tricks]
        return "\n".join([*lines, "]", ""])


class Recipe(Training):
    """How a classifier is trained.

    Examples:
        >>> Recipe(tricks=["mixup(alpha=0.4)", "warmup"]).tricks[0].alpha
        0.4

    """

    built_in: ClassVar[str] = CLASSIFIERS

    fit: Fit = "crop"
    """How images become squares: crop cuts the longer sides, pad adds grey to the shorter ones, squash changes the shape."""
    crop_share: Annotated[float, Field(gt=0, le=1)] = 0.875
    """Judged images: side of the central crop as a share of the resized shorter side; with pad and squash all is shown."""
    channels_last: bool | Literal["auto"] = "auto"
    """Memory layout of images and convolutions: auto takes the faster."""
    compile: bool | Literal["auto"] = "auto"
    """Compile the network with torch.compile: auto does so on a GPU where a long training repays it."""
    mean: Annotated[tuple[Annotated[float, Field(ge=0, le=1)], ...], Field(max_length=1000)] = ()
    """Mean of each channel, 0 to 1; empty: what the weights were trained with."""
    std: Annotated[tuple[Annotated[float, Field(le=1)], ...], Field(max_length=1000)] = ()
    """Standard deviation of each channel, 0 to 1; empty: what the weights were trained with."""

    def model_post_init(self, _: Any) -> None:
        """Check what spans fields."""
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean has {len(self.mean)} values and std {len(self.std)}: give as many, one per channel")
        if any(not value >= LEAST_STD for value in self.std):
            raise ValueError(f"std: every value must be above 0, by {LEAST_STD:g} at least")


def check_added(chosen: Mapping[str, Trick], added: Mapping[str, Trick]) -> None:
    """Raise UsageError where a trick that was put in cannot stand beside one that the recipe has of its own.

    >>> check_added({"adamw": tricks.parse("adamw"), "lion": tricks.parse("lion")}, {"lion": tricks.parse("lion")})
    Traceback (most recent call last):
    trickbag.ground.errors.UsageError: adamw and lion both decide 'optimizer', which only one trick can. Choose one. The \
recipe brings adamw: --without adamw takes it out, and trickbag tricks lion says what goes with lion.
    """
    for name, new in added.items():
        for own in (trick for key, trick in chosen.items() if key not in added and name in chosen):
            if why := conflict(own, new):
                cure = f"--without {own.name()} takes it out, and trickbag tricks {name} says what goes with {name}"
                raise UsageError(f"{why} The recipe brings {own.name()}: {cure}.")


def idle(trick: Trick, recipe: Recipe) -> str:
    """Why one of a recipe's tricks would change nothing there, as a sentence; an empty string where it acts.

    >>> idle(tricks.parse("center_features"), Recipe.load("linear-probe").edit(["center_features"]))
    'center_features changes features that no trick of this recipe reads. Add knn or ncm, or leave center_features out.'
    """
    place = recipe.tricks.index(trick)
    answers = [other for other in recipe.tricks if other.reads_features]
    if trick.alters == "features" and not any(other.reads_features for other in recipe.tricks[place + 1 :]):
        readers = [
            name for name, t in tricks.bag().items() if t.reads_features and (t.stage, name) > (trick.stage, trick.name())
        ]
        reader = " or ".join(readers)
        return f"{trick} changes features that no trick of this recipe reads. Add {reader}, or leave {trick.name()} out."
    plugs = set(trick.plugs())
    steps = recipe.epochs or (trick.rebuilds and os.path.exists(recipe.weights))  # of its own, or of the run it begins with
    if trick.alters == "classifier" and answers and not (steps and {"model", "prepare", "loss"} & plugs):
        return f"{trick} changes what the classifier says, in whose place {answers[0]} answers. Leave one of the two out."
    if not steps and (trick.alters == "training" or not WITHOUT_STEPS & plugs):
        return f"{trick} acts in steps of training, and with epochs=0 there are none. Set epochs, or leave {trick.name()} out."
    return ""


def recipe_names(package: str = CLASSIFIERS) -> list[str]:
    """The built-in recipes of a package.

    >>> "food101" in recipe_names()
    True
    """
    return sorted(item.name.removesuffix(".toml") for item in resources.files(package).iterdir() if item.name.endswith(".toml"))


def recipe_text(source: str | Path, package: str = CLASSIFIERS) -> tuple[str, str]:
    """The TOML of a built-in recipe or a file, and its name for messages."""
    known = recipe_names(package)
    if str(source) in known:
        return (resources.files(package) / f"{source}.toml").read_text("utf-8"), str(source)
    path = Path(source)
    if not os.path.lexists(path):
        near = difflib.get_close_matches(str(source), known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"give a TOML file, or a built-in one: {', '.join(known)}."
        raise UsageError(f"there is no recipe {brief(str(source))}; {hint}")
    try:
        return files.text(path), path.name
    except OSError as error:
        raise UsageError(f"recipe {brief(str(path))} cannot be read: {files.reason(error)}. Give a TOML file.") from None


def _with_line(message: str, text: str, where: str) -> str:
    """The message with the line of the recipe that holds the field or trick it is about."""
    said = message.removeprefix(f"recipe {where}: ")
    for word in re.findall(r"'(\w+)'", said) + re.findall(r"[A-Za-z_]\w*", said):
        for number, row in enumerate(text.splitlines(), 1):
            if not row.lstrip().startswith("#") and re.search(rf"\b{word}\b", row):
                return f"recipe {where}, line {number}: {said}"
    return message
