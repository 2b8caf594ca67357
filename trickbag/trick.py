"""The mechanism: what a trick is and where it plugs in. The one file to read before writing a trick.

The methods of ``Trick`` stand in the order in which an image meets them. What a trick may read is in a method's
arguments, what it may change is in the return value, and nothing else is handed to it. ``t`` in [0, 1) is always the
share of training done. A trick's fields are its configuration and never change; attributes whose names end in ``_``
are the state of a run, made in ``Trick.setup`` and saved and restored by the engine.
"""

import difflib
import math
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import IntEnum
from functools import cache
from itertools import takewhile
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple, Protocol, Self, cast

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Generator, Tensor, nn
from torch.optim import Optimizer

from trickbag.ground import glance
from trickbag.ground.errors import UsageError
from trickbag.ground.glance import CARD as CARD
from trickbag.ground.shown import Sheet, html
from trickbag.ground.spec import Spec, spell
from trickbag.ground.text import line


class Unlabelled(NamedTuple):
    """Images beside those of a training batch, of which no label is looked at."""

    x: Tensor
    """[B, M, V, C, H, W] float, normalised: M images in V views beside each training image."""
    rows: Tensor
    """[B, M] int64: which of all images that may stand beside others."""


class Batch(NamedTuple):
    """A training batch."""

    x: Tensor
    """[B, C, H, W] float, normalised."""
    y: Tensor
    """[B, K] float, rows sum to 1."""
    rows: Tensor
    """[B] int64: which training images."""
    views: Tensor | None = None
    """[B, V, C, H, W] further views of the same images, where a trick wants any."""
    version: int = 0
    """Which version of the images it shows, where a trick fixes some."""
    unlabelled: Unlabelled | None = None
    """What stands beside them, where a trick wants anything."""


class Outputs(NamedTuple):
    """What a network says of a batch."""

    maps: Tensor
    """[B, D, h, w] last feature map; for models without one, the features as [B, D, 1, 1]."""
    features: Tensor
    """[B, D] what the classifier sees."""
    logits: Tensor
    """[B, K]."""


class View(NamedTuple):
    """How a judged image is cut, in pixels: the shorter side is resized to ``resize``, then ``crop`` is cut from the centre."""

    resize: int
    crop: int


class Facts(NamedTuple):
    """What a trick may know of the run it sits in."""

    classes: tuple[str, ...]
    counts: Tensor
    """[K] training images per class."""
    steps: int
    batch_size: int
    """Images per step over all ranks."""
    size: int
    """Pixels of a side of the images that the recipe trains on."""
    channels: int
    seed: int
    epochs: int = 0
    """Passes over the training images."""
    unlabelled: int = 0
    """Images that may stand beside those of a batch: training images and those without labels; 0 where no trick wants any."""


class Network(Protocol):
    """A model as tricks see it: an ``nn.Module`` whose forward returns ``Outputs``."""

    classifier: nn.Module
    """The last layer, features -> logits; may be replaced."""
    pool: nn.Module
    """The pooling, maps [B, D, h, w] -> [B, D]; may be replaced. UsageError where the network has none of its own."""
    pooled: int
    """Channels D of the maps that the pooling sees."""
    shape: tuple[int, int, int]
    """Channels, height and width of the images that it was built for."""
    head_names: frozenset[str]
    """Names of the classifier's parameters."""
    companions: nn.ModuleDict
    """By the trick's name, modules that train beside the network, as a projection of features that a penalty alone asks; put in
    by ``Trick.setup``. The trained network is without them."""
    depths: Mapping[str, int]
    """Parameter name -> depth of its layer, 0 at the input; the classifier alone has the largest."""
    layers: Mapping[str, int]
    """The same as timm's optimisers count: what follows the last block counts to the classifier's layer."""

    def __call__(self, x: Tensor) -> Outputs:
        """[B, C, H, W] -> what the network says of each image."""
        ...


class Fit(Protocol):
    """What the engine hands to a trick that looks at data before or after training."""

    facts: Facts

    def features(self, split: str) -> tuple[Tensor, Tensor]:
        """[N, D] features and [N, K] targets of "train" or "val", judged views, as predicted by the network and the tricks that
        come before this one; computed once, shared by all who ask."""
        ...

    def logits(self, split: str) -> tuple[Tensor, Tensor]:
        """[N, K] logits and [N, K] targets, as predicted by the network and the tricks that come before this one."""
        ...

    def batches(self) -> Iterator[Batch]:
        """Training batches, augmented as by the tricks that act at this share of training, the same at every call."""
        ...

    def unlabelled(self, epochs: int, batch_size: int) -> Iterator[tuple[float, Tensor]]:
        """All images that may stand beside those of a batch, in as many epochs: the share done before each step, and the views
        [B, V, C, H, W] that the trick asks for in ``Trick.beside``."""
        ...

    def judged(self, split: str, size: int = 0) -> Iterator[Batch]:
        """The judged views of "train" or "val" in order, of ``size`` pixels; 0: of as many as the recipe trains on."""
        ...

    def groups(self) -> tuple[Tensor, Tensor]:
        """[N] groups, numbered from 0 on, and [N] labels of the training images; one without a group is a group of its own."""
        ...

    def answers(self, run: str) -> Tensor:
        """[V, N, K] logits of another run's network for the versions (``Trick.versions``) of all training images; computed
        once for all runs."""
        ...

    def network(self, run: str) -> nn.Module:
        """The trained network of another run (a folder, or a recipe that is trained first): frozen, in evaluation mode,
        normalised for this run's batches, its classes in this run's order."""
        ...


class Answers(Protocol):
    """What the engine hands to a trick that chooses the training images, before there are any."""

    def __call__(self, run: str, images: Any = None) -> Tensor:
        """What the network of another run, as ``Fit.network`` takes it, says of the judged views of an ``Images`` table, None:
        of the unlabelled images; probabilities [M, K]."""
        ...

    def out_of_fold(self, images: Any) -> Tensor:
        """What classifiers on the features of this run's network, as training finds it, say of labelled images (an ``Images``
        table): probabilities [N, K], each by a classifier that was fitted to images of other groups."""
        ...


Transform = Callable[[Tensor, int, Generator], Tensor]
"""(uint8 image [C, H, W], training size in pixels, generator) -> uint8 image [C, h, w]."""


class Beside(NamedTuple):
    """Which images stand beside those of a batch without a label (``Trick.beside``)."""

    each: int
    """How many beside each training image."""
    views: tuple[tuple[Transform, ...], ...]
    """For each view of an image the transforms that come after those of the recipe, and see [C, size, size]."""


Draw = Callable[[int], Tensor]
"""How many -> as many uniform draws in [0, 1) for each image [B, n], float64, its own whichever others stand beside it."""
LEFT_RIGHT, UPSIDE_DOWN = 1, 2
"""How an image is mirrored."""
Predict = Callable[[Tensor], Outputs]
Forward = Callable[[Batch], tuple[Batch, Outputs]]
"""A training batch -> the batch, whose targets may be others now, and what the network says of it."""
Views = Callable[[], Iterator[Tensor]]
"""The judged views of a set of images, a batch [B, C, H, W] at a time, each a sample of all; anew at each call."""
Compute = Callable[[], Tensor]
"""Clears the gradients, computes them anew for the current batch and returns the loss, a scalar."""
Groups = list[dict[str, Any]]
"""Parameter groups: ``params``, their ``names``, ``weight_decay``, and ``lr_scale``, a factor on the learning rate."""


class Stage(IntEnum):
    """The order in which tricks act; within a stage, by name."""

    SHAPE = 0
    """Cuts and resizes the image: what comes out is ``size`` pixels wide."""
    PIXEL = 1
    """Changes pixels of one image."""
    MIX = 2
    """Mixes images of a batch."""
    LABEL = 3
    """Changes targets, weights of samples, the loss."""
    GRADIENT = 4
    """Schedules, optimisers, parameter groups, the gradient."""
    CLIP = 5
    """Acts on the finished gradient."""
    WEIGHT = 6
    """Acts on or averages weights."""
    FEATURE = 7
    """Acts on the features of judged images."""
    EVAL = 8
    """Acts when images are judged."""
    SCORE = 9
    """Acts on the finished scores of all others."""
    ANSWER = 10
    """Makes of the final scores what is answered."""


class Combine(IntEnum):
    """How the tricks of a recipe share a plug point."""

    EACH = 0
    FOLD = 1
    CONCATENATE = 2
    ONE = 3
    PRODUCT = 4
    SUM = 5
    WRAP = 6


PLUG_POINTS: dict[str, Combine] = {
    "data": Combine.FOLD,
    "region": Combine.ONE,
    "window": Combine.ONE,
    "mirror": Combine.ONE,
    "augment": Combine.CONCATENATE,
    "views": Combine.ONE,
    "versions": Combine.ONE,
    "beside": Combine.ONE,
    "model": Combine.FOLD,
    "groups": Combine.FOLD,
    "optimizer": Combine.ONE,
    "setup": Combine.EACH,
    "prepare": Combine.FOLD,
    "order": Combine.ONE,
    "size": Combine.ONE,
    "batch_size": Combine.ONE,
    "lr": Combine.PRODUCT,
    "batch": Combine.FOLD,
    "forward": Combine.WRAP,
    "loss": Combine.ONE,
    "weights": Combine.PRODUCT,
    "select": Combine.PRODUCT,
    "penalty": Combine.SUM,
    "gradient": Combine.WRAP,
    "update": Combine.EACH,
    "after_step": Combine.EACH,
    "doubt": Combine.EACH,
    "finish": Combine.FOLD,
    "view": Combine.FOLD,
    "eval_model": Combine.ONE,
    "adapt": Combine.FOLD,
    "predict": Combine.WRAP,
    "sets": Combine.ONE,
}
WITHOUT_STEPS = frozenset({"data", "region", "model", "prepare", "finish", "view", "predict", "sets"})
"""What acts where no step is trained."""
EVALUATION = frozenset({"doubt", "setup", "finish", "view", "eval_model", "adapt", "predict", "sets"})
WATCHING = EVALUATION | {"after_step"}
LAST = math.nextafter(1.0, 0.0)
"""The largest share of training at which a step can begin."""


class Trick(BaseModel):
    """One unit of the bag. A subclass is the only class of its file in ``tricks/``; the file's name is the trick's name."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True, protected_namespaces=()
    )

    stage: ClassVar[Stage]
    slot: ClassVar[str] = ""
    """At most one trick of a recipe sits in a slot."""
    stilled: ClassVar[str] = ""
    """The slot whose trick holds still what this one acts on, if there is one: no recipe has both."""
    neutral: ClassVar[dict[str, Any] | None] = None
    """The values at which the trick does nothing, bit for bit; None where there are none."""
    begins: ClassVar[str] = ""
    """The field that holds the share of training at which the trick begins to matter, if one does."""
    networks: ClassVar[str] = ""
    """The field that names other runs whose networks the trick asks for, if one does."""
    folder: ClassVar[str] = ""
    """The field that names a folder of images without labels, if one does."""
    keeps: ClassVar[str] = ""
    """The field that holds the share of the training images that ``data`` leaves, if it leaves any out."""
    before: ClassVar[str] = ""
    """The field that holds how many passes over all images, labelled or not, are trained on before the first step, if any."""
    rebuilds: ClassVar[bool] = False
    """Whether the features of a network that was trained with the trick are others without it."""
    undone: ClassVar[bool] = False
    """Whether its ``finish`` takes back what its ``model`` did: the trained network is used without the trick."""
    brings: ClassVar[bool] = False
    """Whether its ``setup`` puts anything into ``Network.companions``, which is there from the first step on."""
    alters: ClassVar[Literal["", "features", "classifier", "training"]] = ""
    """Where all that it changes is one of these: the features that later tricks read, what the classifier says of features, or
    the training: a network that takes no step answers as without it."""
    reads_features: ClassVar[bool] = False
    """Whether it answers from the features of judged images, in place of the classifier."""
    positional: ClassVar[str | tuple[str, ...]] = ""
    """The field that takes all values given without a name, as a tuple; or several fields, which take one each, in order."""
    example: ClassVar[str] = ""
    """A spelling that stands for the trick where it needs values to be built; empty: its bare name."""
    needs: ClassVar[str] = ""
    """The spelling of another trick without which its example has nothing to act on, if there is one."""

    # before training
    def data(self, train: Any, unlabelled: Any, answers: Answers, rng: Generator) -> Any:
        """The training images (an ``Images`` table) -> those to train on, which may come from the unlabelled, the table of the
        folder that the trick names, with labels."""
        raise NotImplementedError

    def region(self, boxes: Tensor, judged: bool) -> Tensor:
        """The boxes [N, 4] of images that are trained on, or ``judged`` -> the part of each that is seen [N, 4], all else being
        cut away. Left, top, right, bottom, float64 in 0..1 of width and height; NaN where an image has no box."""
        raise NotImplementedError

    def window(self, sizes: Tensor, draw: Draw) -> Tensor:
        """Heights and widths of images [B, 2] -> the part of each that is resized to the training image [B, 4]: top, left,
        height and width, all whole pixels, int64."""
        raise NotImplementedError

    def mirror(self, draw: Draw) -> Tensor:
        """How images are mirrored [B]: 0 not at all, LEFT_RIGHT, UPSIDE_DOWN, or the sum of both; bool stands for the first
        two."""
        raise NotImplementedError

    def augment(self) -> list[Transform]:
        """Per image, in the loader, after its window and its mirroring."""
        raise NotImplementedError

    def views(self) -> int:
        """How many further views of an image a batch has. They differ in this trick's own ``augment``, which the image itself
        is then spared; all other draws are the same."""
        raise NotImplementedError

    def versions(self) -> int:
        """How many augmented versions of an image there are, in turn over the epochs and the same for every seed; 0: each epoch
        draws a new one."""
        raise NotImplementedError

    def beside(self) -> Beside:
        """Which images stand beside those of a batch, without labels: training images and those of the folder that the trick
        names, in as many views as it likes. Each view is drawn on its own: cut, mirrored and augmented as a training image is,
        then by transforms of this trick."""
        raise NotImplementedError

    def model(self, model: nn.Module) -> nn.Module:
        """Surgery and initialisation."""
        raise NotImplementedError

    def groups(self, groups: Groups, model: Any) -> Groups:
        """Parameter groups: weight decay, learning rates by layer."""
        raise NotImplementedError

    def optimizer(self, groups: Groups, lr: float) -> Optimizer:
        """The optimiser that replaces SGD with Nesterov momentum."""
        raise NotImplementedError

    def setup(self, model: Any, fit: Fit) -> None:
        """Make run state: attributes whose names end in ``_``. Called once, also before a resumed state is put in."""
        raise NotImplementedError

    def prepare(self, model: Any, fit: Fit) -> Any:
        """Change weights before the first step, having looked at the data; after every ``setup``, skipped on resume."""
        raise NotImplementedError

    # every epoch and step
    def order(self, labels: Tensor, epoch: int, rng: Generator) -> Tensor:
        """Labels [N] of the training images -> the rows that this epoch shows, in order."""
        raise NotImplementedError

    def size(self, t: float) -> int:
        """Pixels of a side of a training image."""
        raise NotImplementedError

    def batch_size(self, t: float, base: int) -> int:
        """Images per step over all ranks; ``base`` is the recipe's."""
        raise NotImplementedError

    def lr(self, t: float) -> float:
        """A factor on the learning rate."""
        raise NotImplementedError

    def batch(self, batch: Batch, t: float, rng: Generator) -> Batch:
        """A batch on the device -> a batch."""
        raise NotImplementedError

    def forward(self, forward: Forward, model: Any, t: float, rng: Generator) -> Forward:
        """How a training batch goes through the network; asked for once a step, called once for each of its parts."""
        raise NotImplementedError

    def loss(self, outputs: Outputs, y: Tensor) -> Tensor:
        """The loss [B] that replaces the cross-entropy."""
        raise NotImplementedError

    def weights(self, y: Tensor, t: float) -> Tensor:
        """Targets [B, K] -> weights of the samples [B]."""
        raise NotImplementedError

    def select(self, losses: Tensor, t: float) -> Tensor:
        """Losses of the samples [B], before any weights -> which of them count, or by how much [B]."""
        raise NotImplementedError

    def penalty(self, batch: Batch, outputs: Outputs, model: Any, t: float) -> Tensor:
        """A scalar that is added to the mean loss."""
        raise NotImplementedError

    def gradient(self, compute: Compute, model: Any, t: float) -> Compute:
        """How the gradient of a step is computed."""
        raise NotImplementedError

    def update(self, model: Any, t: float) -> None:
        """Change the weights after the optimiser's step; ``t`` is the share done after it."""
        raise NotImplementedError

    def after_step(self, model: Any, t: float) -> None:
        """Watch the weights, which stay untouched; ``t`` is the share done after the step, up to and with 1."""
        raise NotImplementedError

    # after training
    def doubt(self, images: int) -> str:
        """Why what the trick will learn from so many validation images deserves doubt, a sentence without its full stop; empty
        where it does not. Asked before the first step."""
        raise NotImplementedError

    def finish(self, model: Any, fit: Fit, rng: Generator) -> Any:
        """Change the trained model, or learn what ``predict`` needs."""
        raise NotImplementedError

    # when images are judged
    def view(self, view: View) -> View:
        """How a judged image is resized and cropped."""
        raise NotImplementedError

    def eval_model(self, model: Any) -> Any:
        """Which weights are judged: this model or a second one. Asked after every epoch, and before the first step where a
        trick has prepared the weights."""
        raise NotImplementedError

    def adapt(self, model: Any, views: Views) -> Any:
        """The network for a set of images that are judged together, which it may look at first, without their labels: a copy
        that was changed. UsageError where there are too few."""
        raise NotImplementedError

    def predict(self, predict: Predict) -> Predict:
        """How a batch [B, C, H, W] of judged views becomes ``Outputs``; the first of a recipe is the innermost."""
        raise NotImplementedError

    def sets(self, logits: Tensor) -> Tensor:
        """The final logits [B, K] of judged images -> of which classes each may be [B, K], bool."""
        raise NotImplementedError

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        for name, value in vars(cls).items():
            if callable(value) and not name.startswith("_") and name not in PLUG_POINTS and not hasattr(BaseModel, name):
                raise TypeError(f"{cls.__name__}.{name} is not a plug point. Plug points: {', '.join(PLUG_POINTS)}.")

    if not TYPE_CHECKING:  # type checkers make the signature of each trick from its fields, as pydantic does

        def __init__(self, /, **fields: Any) -> None:
            """Raises UsageError where a field is unknown, missing or out of bounds."""
            try:
                super().__init__(**fields)
            except ValidationError as error:
                raise UsageError(f"{line(str(self._spec(fields)))}: {self._fault(error)}") from None

    @classmethod
    def _fault(cls, error: ValidationError) -> str:
        first = error.errors()[0]
        where = str(first["loc"][0]) if first["loc"] else cls.name()
        if first["type"] == "extra_forbidden":
            near = difflib.get_close_matches(where, cls.model_fields, n=1)
            hint = f"; did you mean {near[0]}?" if near else "."
            return f"there is no field {where}{hint} All fields, with their defaults: {cls.usage()}."
        if first["type"] == "missing":
            return f"{where} is missing. Write {cls.usage()}."
        if first["type"] == "tuple_type" and where in cls.model_fields:
            return f"{where}: write several values in brackets, as in {cls.usage()}."
        reason = first["msg"].removeprefix("Value error, ")
        return f"{where}: {reason[0].lower()}{reason[1:].rstrip('.')}."

    @classmethod
    def build(cls, spec: Spec) -> Self:
        """The trick that a spec spells; nested specs are tricks already. Raises UsageError where there is none."""
        if isinstance(cls.positional, str) and cls.positional and spec.args:
            return cls(**spec.fields | {cls.positional: spec.args})
        given = dict(zip(cls.positional, spec.args, strict=False))
        if len(given) < len(spec.args) or given.keys() & spec.fields.keys():
            cure = f"write values with their names, {cls.usage()}" if cls.model_fields else f"{cls.name()} takes no values"
            raise UsageError(f"{line(str(spec))}: {cure}.")
        return cls(**spec.fields | given)

    @classmethod
    def _spec(cls, fields: Mapping[str, Any]) -> Spec:
        """The spec of these fields; those without a name come first."""
        named, args = dict(fields), ()
        if isinstance(cls.positional, tuple):
            args = tuple(named.pop(name) for name in takewhile(fields.__contains__, cls.positional))
        elif isinstance(named.get(cls.positional), tuple):
            args = named.pop(cls.positional)
        return Spec(cls.name(), args, named)

    @classmethod
    def name(cls) -> str:
        """The name of the trick: that of its file."""
        return cls.__module__.rpartition(".")[2]

    @classmethod
    def usage(cls) -> str:
        """The spelling with all fields at their defaults."""
        return str(Spec(cls.name(), (), {n: Spec("…") if f.is_required() else f.default for n, f in cls.model_fields.items()}))

    @classmethod
    @cache
    def plugs(cls) -> tuple[str, ...]:
        """The plug points that the trick overrides, in the order in which an image meets them."""
        return tuple(p for p in PLUG_POINTS if getattr(cls, p) is not getattr(Trick, p))

    @property
    def core(self) -> "Trick":
        """The trick itself; of one that lets another act for a part of training, that other."""
        return self

    @property
    def span(self) -> tuple[float, float]:
        """The shares of training between which the trick is asked at all."""
        return 0.0, 1.0

    def acts(self, t: float) -> bool:
        """Whether the trick is asked in a step that begins at ``t``; the end, at 1, counts to the last step."""
        begin, end = self.span
        return begin <= min(t, LAST) < end

    def begin(self) -> float:
        """The share of training from which the trick can change the trajectory or the result; 1.0 for evaluation alone.

        Watchers leave the trajectory untouched and say 1.0 too.
        """
        begin, end = self.span
        if begin >= end or set(self.plugs()) <= WATCHING:
            return 1.0
        # Others know from the start how many steps there are, and what is trained.
        if self.brings or {"order", "batch_size"} & set(self.plugs()):
            return 0.0
        return max(begin, float(getattr(self.core, self.begins)) if self.begins else 0.0)

    def others(self) -> tuple[str, ...]:
        """The runs whose networks the trick asks for."""
        named = getattr(self, self.networks) if self.networks else ()
        return (named,) if isinstance(named, str) else tuple(named)

    def place(self) -> str:
        """The folder of images without labels that the trick names; empty: none."""
        return str(getattr(self, self.folder)) if self.folder else ""

    def fresh(self) -> Self:
        """A copy without run state."""
        values: dict[str, Any] = {n: _fresh(getattr(self, n)) for n in type(self).model_fields}
        return cast(Self, self.model_construct(**values))

    def state(self) -> dict[str, Any]:
        """The run state by attribute: tensors, modules, numbers, strings."""
        return {n: v for n, v in self.__dict__.items() if n.endswith("_")}

    def __setattr__(self, name: str, value: Any) -> None:
        if name.endswith("_") and not name.startswith("_"):
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def _repr_html_(self) -> str:
        """Its card, for a notebook."""
        words = card(type(self))
        return html(Sheet(f"{self}: {words.pop('Title')}", words))

    def __str__(self) -> str:
        given = {n: getattr(self, n) for n, f in type(self).model_fields.items() if getattr(self, n) != f.default}
        return str(self._spec(given))

    def __hash__(self) -> int:
        return hash(str(self))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Trick) and str(self) == str(other)


def itself(run: str) -> float:
    """For what share of its epochs a recipe is trained where its tricks ask for the network of this run; 0: another run.

    >>> itself("self"), itself("self:0.2"), itself("self:2"), itself("food101")
    (1.0, 0.2, 0.0, 0.0)
    """
    named = re.fullmatch(r"self(?::(0?\.\d+))?", run)
    return float(named[1] or 1) if named else 0.0


Tricks = Annotated[str | Trick | Iterable[str | Trick], "tricks, such as 'mixup, ema', tb.MixUp() or a list of both"]
"""How tricks are asked for: spellings such as ``"mixup(alpha=0.4), ema"``, tricks such as ``tb.MixUp()``, or a list of both."""


def _fresh(value: Any) -> Any:
    if isinstance(value, Trick):
        return value.fresh()
    return tuple(map(_fresh, value)) if isinstance(value, tuple) else value


def ordered(tricks: Sequence[Trick]) -> tuple[Trick, ...]:
    """The tricks in the order in which they act, whatever was typed: by stage, then by name.

    Raises UsageError where two tricks have the same name, or at the same time the same slot or at-most-one plug point.
    """
    for i, a in enumerate(tricks):
        for b in tricks[i + 1 :]:
            if reason := conflict(a, b):
                raise UsageError(reason)
    return tuple(sorted(tricks, key=lambda trick: (trick.stage, trick.name())))


def conflict(a: Trick, b: Trick) -> str:
    """Why two tricks cannot stand in one recipe; an empty string where they can."""
    if a.name() == b.name():
        return f"{a} and {b}: a recipe holds a trick once. Choose one."
    for still, acting in ((a, b), (b, a)):
        if acting.stilled and acting.stilled == still.slot:
            return f"{still} holds still what {acting} acts on. Choose one."
    if rivals(a, b):
        batches = a.core is a and b.core is b and a.plugs() == b.plugs() == ("batch",)
        one_of = f", or write one_of({a.name()}, {b.name()})" if batches else ""
        return f"{a} and {b} both sit in the slot {a.slot!r}. Choose one{one_of}."
    if a.place() and b.place() and a.place() != b.place():
        return f"{a} and {b} name two folders of images without labels. Choose one, or put all images into it."
    for point in a.plugs() if together(a, b) else ():
        if PLUG_POINTS[point] is Combine.ONE and point in b.plugs():
            return f"{a} and {b} both decide {point!r}, which only one trick can. Choose one."
    return ""


def rivals(a: Trick, b: Trick) -> bool:
    """Whether one of two tricks stands in the other's place: of the same name, in the same slot at the same time, or held still
    by the other."""
    slots = (a.slot, b.slot), (a.slot, b.stilled), (a.stilled, b.slot)
    return a.name() == b.name() or (together(a, b) and any(one and one == other for one, other in slots))


def together(a: Trick, b: Trick) -> bool:
    """Whether there is a part of training in which both are asked."""
    return max(a.span[0], b.span[0]) < min(a.span[1], b.span[1])


def having(tricks: Sequence[Trick], point: str) -> list[Trick]:
    """Those tricks that override a plug point, in order."""
    return [trick for trick in tricks if point in trick.plugs()]


def acting(tricks: Sequence[Trick], point: str, t: float) -> list[Trick]:
    """Those tricks that override a plug point and are asked in a step that begins at ``t``, in order."""
    return [trick for trick in having(tricks, point) if trick.acts(t)]


def deciding(tricks: Sequence[Trick], point: str, t: float) -> Trick | None:
    """The one that decides an at-most-one plug point in a step that begins at ``t``."""
    return next(iter(acting(tricks, point, t)), None)


def watchers(tricks: Sequence[Trick]) -> list[Trick]:
    """Those tricks that look on at every step or have other weights judged, and leave the trajectory untouched."""
    return [trick for trick in tricks if trick.begin() == 1.0 and {"after_step", "eval_model"} & set(trick.plugs())]


def judged_weights(tricks: Sequence[Trick]) -> str:
    """Which weights are judged: the spelling of the trick that provides them, empty for the live ones."""
    return next(map(str, having(tricks, "eval_model")), "")


def regroup(groups: Groups, edit: Callable[[str, nn.Parameter], dict[str, Any]]) -> Groups:
    """Parameter groups split so that each parameter's group has the values that ``edit(name, parameter)`` returns.

    >>> import torch
    >>> p = nn.Parameter(torch.zeros(2))
    >>> groups = [{"params": [p], "names": ["norm.bias"], "weight_decay": 0.1, "lr_scale": 1.0}]
    >>> regroup(groups, lambda name, p: {"weight_decay": 0.0 if p.ndim == 1 else 0.1})[0]["weight_decay"]
    0.0
    """
    made: dict[str, dict[str, Any]] = {}
    for group in groups:
        rest = {k: v for k, v in group.items() if k not in ("params", "names")}
        for name, parameter in zip(group["names"], group["params"], strict=True):
            values = rest | edit(name, parameter)
            target = made.setdefault(spell(tuple(sorted(values.items()))), {"params": [], "names": [], **values})
            target["params"].append(parameter)
            target["names"].append(name)
    return list(made.values())


def drawn(labels: Tensor, quota: Tensor, rng: Generator) -> Tensor:
    """Labels [N] and draws per class [K] -> rows, shuffled; within a class every image comes once before any comes again.

    Quotas that are no whole numbers are rounded up or down, so that they hold in the mean and their sum within one draw
    (systematic sampling). A class without images has none.

    >>> labels = torch.tensor([0, 0, 0, 0, 0, 1])
    >>> labels[drawn(labels, torch.tensor([2, 4]), Generator())].bincount()
    tensor([2, 4])
    """
    counts = labels.bincount(minlength=len(quota))
    # The sums of shares are whole numbers within rounding.
    ends = torch.where(counts > 0, quota.double(), 0.0).cumsum(0).round(decimals=9) + torch.rand((), generator=rng).double()
    needs = ends.long().diff(prepend=ends.new_zeros(1, dtype=torch.int64)).tolist()
    rows = [
        own[torch.rand(-(-need // len(own)), len(own), generator=rng).argsort(1).flatten()[:need]]
        for own, need in zip(torch.split(labels.argsort(stable=True), counts.tolist()), needs, strict=True)
        if need
    ]
    order = torch.cat(rows) if rows else labels.new_empty(0)
    return order[torch.randperm(len(order), generator=rng)]


def card(trick: type[Trick]) -> dict[str, str]:
    """The docstring of a trick's file as a card, see ``glance.card``."""
    return glance.card(sys.modules[trick.__module__].__doc__ or "")
