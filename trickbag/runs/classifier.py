"""A trained classifier: all that prediction needs, in ``model.safetensors`` and ``model.json``."""

import copy
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from trickbag import plugins, tricks
from trickbag.data.findings import some
from trickbag.data.sniff import Unreadable
from trickbag.data.sources import Source, sources
from trickbag.engine.assemble import Normal, build_model, plain_view
from trickbag.engine.cutting import cut
from trickbag.engine.gradcam import grad_cam
from trickbag.engine.judge import judged_view, mixed, predictor
from trickbag.engine.loop import load_trick_state
from trickbag.engine.pixels import fitted
from trickbag.engine.precision import fabric_for
from trickbag.engine.scores import finite
from trickbag.engine.sets import sets_of
from trickbag.ground import store
from trickbag.ground.arguments import Between, Share, public
from trickbag.ground.errors import TrickbagError, UsageError
from trickbag.ground.events import Tell, silent
from trickbag.ground.records import MALFORMED
from trickbag.ground.shown import Sheet, Shown, html
from trickbag.ground.typed import spellings
from trickbag.models import networks
from trickbag.models.card import CARD, WEIGHTS, Card, check_trained
from trickbag.recipe import Recipe
from trickbag.runs.stream import batches, unreadable
from trickbag.trick import Facts, Outputs, Trick, Tricks, having, ordered

BATCH = 32


class Prediction(NamedTuple):
    """The classes of one image, the most probable first.

    Examples:
        >>> import trickbag as tb
        >>> (found,) = tb.load("run").predict("photos/cat/00.png")
        >>> sorted(found.classes), round(sum(found.probabilities), 4)
        (['cat', 'dog'], 1.0)

    """

    path: str
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]
    unsure: bool = False
    """Whether the largest probability is below the threshold that was asked for."""
    set: tuple[str, ...] | None = None
    """The classes that the image may be of, the most probable first, where the run has a trick that makes sets (conformal)."""

    def _repr_html_(self) -> str:
        rows = [(name, f"{100 * p:.1f} %") for name, p in zip(self.classes, self.probabilities, strict=True)]
        facts = {} if self.set is None else {"set": ", ".join(self.set)}
        return html(Sheet(self.path, facts, ("class", "probability"), rows))


class Explanation(NamedTuple):
    """Where the network sees the class that it says."""

    path: str
    name: str
    probability: float
    """By the network alone, without test-time tricks."""
    image: Tensor
    """uint8 [C, h, w], as the network sees it."""
    map: Tensor
    """[h, w] in 0..1, see ``trickbag.engine.gradcam.grad_cam``."""


class Classifier(Shown):
    """A network with its class map, preprocessing and evaluation tricks; ``card`` is the content of ``model.json``.

    Examples:
        >>> import trickbag as tb
        >>> tb.load("run")
        <classifier cifar_resnet8: classes 2 (cat, dog), pixels 16>

    """

    def __init__(self, model: networks.Net, chosen: Sequence[Trick], card: Card) -> None:
        self.model, self.tricks, self.card = model, ordered(chosen), card
        self.classes: tuple[str, ...] = tuple(card.classes)
        self.fabric = fabric_for(card.precision)
        model.to(self.fabric.device).to(memory_format=torch.channels_last if card.channels_last else torch.contiguous_format)
        recipe = _recipe(card)
        self.fit, self.plain = recipe.fit, plain_view(recipe)
        self.view = judged_view(self.plain, self.tricks)
        self.predict_batch = predictor(model, self.tricks, self.fabric.autocast)
        self.adapting = having(self.tricks, "adapt")
        """Tricks that are still to adapt the network to the images that it judges."""
        self.makes_sets = bool(having(self.tricks, "sets"))

    def _sheet(self) -> Sheet:
        classes = f"{len(self.classes):,} ({some(self.classes, 5)})"
        facts = {"classes": classes, "pixels": str(self.card.size), "tricks": ", ".join(map(str, self.tricks))}
        return Sheet(f"classifier {self.card.model}", {name: text for name, text in facts.items() if text})

    @classmethod
    @public
    def load(cls, run: str | Path, with_: Tricks = ()) -> "Classifier":
        """The classifier of a run's folder, with more tricks for evaluation put in.

        Raises UsageError where the folder holds no finished run or a trick needs training, TrickbagError where it is damaged.
        """
        folder = Path(run)
        check_trained(folder)
        if reason := store.verify(folder, CARD, WEIGHTS):
            raise TrickbagError(f"{folder} is damaged: {reason}. Train it again or restore it.")
        with plugins.using(kept=folder):
            return cls._load(folder, ordered([tricks.parse(text) for text in spellings(with_)]))

    @classmethod
    def _load(cls, folder: Path, extra: Sequence[Trick]) -> "Classifier":
        for trick in extra:
            if set(trick.plugs()) - {"setup", "view", "adapt", "predict"}:
                raise UsageError(f"{trick} needs training images: train with --with {trick.name()} instead.")
        card = Card.load(folder)
        try:
            found = cls(*_rebuilt(folder, card, extra), card)
            found.try_out()
        except MALFORMED as error:
            raise TrickbagError(
                f"{folder}: {CARD} and {WEIGHTS} make no network that can be used ({type(error).__name__}: {error}). Train the "
                "run again, or restore both from a copy."
            ) from error
        return found

    def try_out(self) -> None:
        """Look at a black image. Raises ValueError where what comes out is no prediction."""
        black = torch.zeros(self.card.channels, self.card.size, self.card.size, dtype=torch.uint8)
        logits = next(map(self._outputs, self._cut([black]))).logits
        if logits.shape != (1, len(self.classes)) or not logits.isfinite().all():
            raise ValueError(f"logits of shape {list(logits.shape)} for {len(self.classes)} classes, or not all finite")

    def outputs(self, images: Iterable[Tensor]) -> Iterator[Outputs]:
        """Outputs of uint8 images [C, h, w], a batch at a time. Raises UsageError as ``check_apart`` does."""
        self.check_apart()
        yield from map(self._outputs, self._cut(images))

    def check_apart(self) -> None:
        """Raise UsageError where a trick wants to see all images before one is judged."""
        if self.adapting:
            raise UsageError(
                f"{self.adapting[0]} adapts the network to all images that are judged together, which only evaluate and "
                f"predict know. Train a run without it: --without {self.adapting[0].name()}."
            )

    def adapted(self, images: int, read: Callable[[Sequence[int]], Iterator[Tensor]]) -> "Classifier":
        """The classifier for so many images that are judged together, which tricks may adapt its network to; itself where none
        does. ``read`` gives uint8 images [C, h, w] by their places, in the order in which they are asked for."""
        other, order = copy.copy(self), mixed(images).tolist()
        for trick in self.adapting:
            other.model = trick.adapt(other.model, lambda: map(self._batch, self._cut(read(order))))
            other.predict_batch = predictor(other.model, self.tricks, self.fabric.autocast)
        other.adapting = []
        return other

    def _cut(self, images: Iterable[Tensor]) -> Iterator[list[Tensor]]:
        """What is judged of uint8 images [C, h, w], a batch at a time."""
        views = (cut(fitted(image, self.fit, self.card.kept), self.view) for image in images)
        while batch := list(islice(views, BATCH)):
            yield batch

    def _outputs(self, images: list[Tensor]) -> Outputs:
        return self.predict_batch(self._batch(images))

    def _batch(self, images: list[Tensor]) -> Tensor:
        mean, std = (
            torch.tensor(v, device=self.fabric.device).mul(255)[:, None, None] for v in (self.card.mean, self.card.std)
        )
        memory = torch.channels_last if self.card.channels_last else torch.contiguous_format
        x = torch.stack(images).to(self.fabric.device).to(torch.float32, memory_format=memory)
        return (x - mean) / std

    @public
    def predict(
        self,
        images: Any,
        top: Annotated[int, Between(1)] = 5,
        *,
        threshold: Share = 0.0,
        on_bad: Literal["skip", "error"] = "error",
        without: Container[str] = (),
        tell: Tell = silent,
    ) -> Iterator[Prediction]:
        """The ``top`` most probable classes of each image, in order, as they are asked for.

        ``images``: a path of an image, a folder or an archive of images, or a pattern; bytes or an open file; an image of
        Pillow, an array [H, W] or [H, W, C], a tensor [C, H, W], uint8 or floats from 0 to 1; or any list or iterator of
        these, of which no more than a few batches are held (``trickbag.data.sources.sources``). A prediction whose largest
        probability is below ``threshold`` is unsure. What cannot be read is an error after the predictions before it, or with
        ``on_bad="skip"`` left out and told; names in ``without`` are left out.

        Raises TrickbagError at what cannot be read, since a prediction is never made on something else, and where the network
        gives no numbers for an image; UsageError for what is no image at all.
        """
        judge = self
        if self.adapting:  # which looks at all of them twice
            images = list(sources(images, tell))
            judge = self.adapted(len(images), lambda order: self._read([images[place] for place in order]))
        for batch in batches(images, self._pixels, BATCH, on_bad=on_bad, without=without, tell=tell):
            yield from judge.best(batch, top, threshold)

    def _read(self, images: Sequence[Source]) -> Iterator[Tensor]:
        """Those that can be read."""
        for batch in batches(images, self._pixels, BATCH, on_bad="skip", tell=silent):
            yield from (pixels for _, pixels in batch)

    def _pixels(self, source: Source) -> Tensor:
        return source.pixels(self.card.channels, self.card.kept)

    def best(self, batch: Sequence[tuple[str, Tensor]], top: int, threshold: float) -> Iterator[Prediction]:
        """The predictions of names and uint8 images [C, h, w]; see ``predict``."""
        names = [name for name, _ in batch]
        for outputs in self.outputs(pixels for _, pixels in batch):
            p = finite(outputs.logits, names).softmax(1).cpu()
            best = p.topk(min(top, len(self.classes)), dim=1)
            rows = zip(names, best.values.tolist(), best.indices.tolist(), self._sets(outputs.logits), strict=True)
            for name, values, ranks, held in rows:
                yield Prediction(name, tuple(self.classes[k] for k in ranks), tuple(values), values[0] < threshold, held)

    def _sets(self, logits: Tensor) -> list[tuple[str, ...] | None]:
        """Of each image the classes that it may be of, the most probable first."""
        sets = sets_of(self.tricks, logits)
        if sets is None:
            return [None] * len(logits)
        ranked = logits.cpu().argsort(dim=1, descending=True, stable=True).tolist()
        return [tuple(self.classes[k] for k in row if held[k]) for row, held in zip(ranked, sets.tolist(), strict=True)]

    def module(self) -> "Judging":
        """The classifier as a plain module of torch: uint8 images [B, C, H, W] of any size -> probabilities [B, K].

        Resizing, cutting, normalising and test-time tricks are inside; the order of the classes is that of ``classes``.
        """
        return Judging(self)

    @public
    def explain(self, images: Any, name: str = "") -> Iterator[Explanation]:
        """Where the network sees the predicted class, or the one of a ``name``, in each image; for images see ``predict``.

        Raises TrickbagError at a file that cannot be read and where the network gives no numbers for an image, UsageError for
        an unknown class and a network without maps.
        """
        for source in sources(images):
            yield self.look(source.name, self._decode(source), name)

    @public
    def look(self, path: str, pixels: Tensor, name: str = "") -> Explanation:
        """The same of one uint8 image [C, h, w]."""
        if name and name not in self.classes:
            raise UsageError(f"the run does not know the class {name!r}. It knows: {some(self.classes, 10)}.")
        image = cut(fitted(pixels, self.fit, self.card.kept), self.plain)
        p = finite(next(self.outputs([pixels])).logits, [path])[0].softmax(0)
        k = self.classes.index(name) if name else int(p.argmax())
        maps, outputs = grad_cam(self.model, self._batch([image]), torch.tensor([k], device=self.fabric.device))
        finite(torch.cat([outputs.logits.detach(), maps.flatten(1)], 1), [path])
        return Explanation(path, self.classes[k], float(p[k]), image, maps[0].cpu())

    def _decode(self, source: Source) -> Tensor:
        try:
            return self._pixels(source)
        except (Unreadable, OSError) as error:
            raise unreadable(source.name, error) from None


class Judging(nn.Module):
    """A classifier from pixels to probabilities, see ``Classifier.module``."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.model = classifier.model
        self._classifier = [classifier]  # in a list: the classifier is no part of the module's state

    def forward(self, images: Tensor) -> Tensor:
        """uint8 images [B, C, H, W] -> probabilities [B, K] on the network's device. Raises UsageError for anything else."""
        (classifier,) = self._classifier
        channels = classifier.card.channels
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != channels:
            given = f"{str(images.dtype).removeprefix('torch.')} {list(images.shape)}"
            raise UsageError(f"images of {given}: give uint8 [B, {channels}, H, W].")
        parts = [outputs.logits.float().softmax(1) for outputs in classifier.outputs(images)]
        return torch.cat(parts) if parts else torch.zeros(0, len(classifier.classes))


class Renormalised(nn.Module):
    """A frozen network of another run for batches that were normalised for this one; its classes in this run's order."""

    def __init__(self, model: nn.Module, theirs: Normal, ours: Normal, order: Sequence[int]) -> None:
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        (our_mean, our_std), (their_mean, their_std) = (
            [torch.tensor(v)[:, None, None] for v in pair] for pair in (ours, theirs)
        )
        self.factor = nn.Parameter(our_std / their_std, requires_grad=False)
        self.offset = nn.Parameter((our_mean - their_mean) / their_std, requires_grad=False)
        self.order = list(order)

    def forward(self, x: Tensor) -> Outputs:
        """A batch [B, C, H, W] of this run -> the other network's outputs."""
        outputs: Outputs = self.model(x * self.factor + self.offset)
        return outputs._replace(logits=outputs.logits[:, self.order])


def teacher(run: Path, classes: Sequence[str], ours: Normal) -> nn.Module:
    """The network of a run, for another run's batches. Raises UsageError where its classes are others."""
    other = Classifier.load(run)
    if set(other.classes) != set(classes):
        raise UsageError(f"the teacher {run} knows other classes than this data set. Train a teacher on the same classes.")
    if other.card.channels != len(ours[0]):
        raise UsageError(f"the teacher {run} sees {other.card.channels} channels and these images have {len(ours[0])}.")
    normal = tuple(other.card.mean), tuple(other.card.std)
    return Renormalised(other.model, normal, ours, [other.classes.index(c) for c in classes]).to(other.fabric.device)


def export(
    model: networks.Net, chosen: Sequence[Trick], recipe: Recipe, classes: Sequence[str], normal: Normal, kept: int
) -> tuple[dict[str, Tensor], Card]:
    """The tensors and the card of a trained network, as ``Classifier.load`` reads them."""
    points = {"region", "model", "view", "adapt", "predict", "sets"}
    used = [trick for trick in chosen if points & set(trick.plugs()) and not trick.undone]
    tensors = {name.removeprefix("net."): value for name, value in model.state_dict().items()}
    state: dict[str, dict[str, Any]] = {}
    for trick in used:
        for name, value in trick.state().items():
            if isinstance(value, Tensor):
                tensors[f"tricks/{trick.name()}/{name}"] = value
            else:
                state.setdefault(trick.name(), {})[name] = value
    card = Card(
        model=recipe.model,
        channels=len(normal[0]),
        classes=list(classes),
        size=recipe.size,
        fit=recipe.fit,
        crop_share=recipe.crop_share,
        kept=kept,
        mean=list(normal[0]),
        std=list(normal[1]),
        precision=recipe.precision,
        channels_last=recipe.channels_last,
        tricks=[str(trick) for trick in used],
        state=state,
    )
    return tensors, card


def _rebuilt(folder: Path, card: Card, extra: Sequence[Trick]) -> tuple[networks.Net, list[Trick]]:
    """The network and the tricks of a run's folder, with more tricks."""
    model, chosen = untrained(card)
    tensors = store.load_tensors(folder / WEIGHTS)
    model.load_state_dict({f"net.{k}": v for k, v in tensors.items() if not k.startswith("tricks/")})
    model.to(fabric_for(card.precision).device)  # where tricks then make their state
    chosen |= {trick.name(): trick for trick in extra}
    for trick in having(list(chosen.values()), "setup"):
        trick.setup(model, _Facts(card))
    state = _state(card.state, tensors)
    for name, trick in chosen.items():
        load_trick_state(trick, state.get(name, {}))
    return model.requires_grad_(False), list(chosen.values())


def untrained(card: Card) -> tuple[networks.Net, dict[str, Trick]]:
    """The network of a card before its weights come, and the tricks that the card spells, by name."""
    chosen = {trick.name(): trick for trick in map(tricks.parse, card.tricks)}
    model = build_model(_recipe(card), ordered(list(chosen.values())), len(card.classes), card.channels, 0, "none")
    return model, chosen


def _recipe(card: Card) -> Recipe:
    return Recipe(model=card.model, size=card.size, fit=card.fit, crop_share=card.crop_share)


def _state(values: dict[str, dict[str, Any]], tensors: dict[str, Tensor]) -> dict[str, dict[str, Any]]:
    state = {name: dict(fields) for name, fields in values.items()}
    for key, tensor in tensors.items():
        if key.startswith("tricks/"):
            _, name, field = key.split("/")
            state.setdefault(name, {})[field] = tensor
    return state


class _Facts:
    """What a trick may know of a trained run: the facts and other runs, no images."""

    def __init__(self, card: Card) -> None:
        classes = tuple(card.classes)
        self.facts = Facts(classes, torch.zeros(len(classes)), 0, 0, card.size, card.channels, 0)
        self.network = lambda run: teacher(Path(run), classes, (tuple(card.mean), tuple(card.std)))

    def __getattr__(self, name: str) -> Any:
        raise UsageError(f"a trick asks for {name} of the training images, which a trained run no longer has.")
