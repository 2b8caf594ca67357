"""The laws that every trick obeys: functions of a trick's name, which raise AssertionError with what to look at.

The tests try them on the whole bag, ``trickbag laws`` on a file of one's own. One that has nothing to say of a trick, as the
law of neutral values of one without any, says why; else it says nothing.
"""

import copy
import doctest
import inspect
import itertools
import math
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import annotated_types
import numpy as np
import torch

from trickbag.engine import assemble
from trickbag.engine import loop as engine_loop
from trickbag.engine.loop import Step
from trickbag.engine.outline import outline
from trickbag.ground import store, streams
from trickbag.ground.errors import UsageError
from trickbag.ground.spec import Spec
from trickbag.ground.streams import generator
from trickbag.laboratory.edges import EDGES, sentence
from trickbag.laboratory.lab import (
    CLASSES,
    SIZE,
    Trained,
    dataset,
    example,
    fingerprint,
    follow,
    loop,
    network,
    recipe,
    same,
    train,
    with_needed,
)
from trickbag.recipe import Recipe
from trickbag.trick import CARD, WATCHING, Batch, Trick, card, conflict, having, ordered
from trickbag.tricks import bag, find, parse

Law = Callable[[str], str | None]
FAMILIES = {"test_resnet": 32, "test_efficientnet": 32, "test_convnext": 32, "test_vit": 32}
"""Networks of four kinds, and the pixels of a side that they are tried with."""
FAR = 10**18
"""Of a number: no field takes both this and its negative."""
AFTER = {"finish", "view", "adapt", "predict", "sets"}
"""Plug points of what comes after training."""


@cache
def plain(model: str, size: int, batch_size: int, *tricks: str) -> Trained:
    """A training without any trick, or with some."""
    return train(*tricks, model=model, size=size, batch_size=batch_size)


def without(name: str, batch_size: int = 16) -> Trained:
    """A training of the network that the trick is tried on, without the trick."""
    trick = example(name)
    return plain(*network([trick]).values(), batch_size, *filter(None, [trick.needs]))


def rebuilt(trick: Trick, fields: dict[str, Any]) -> Trick:
    """The trick with other values."""
    return trick.build(Spec(trick.name(), (), {n: getattr(trick, n) for n in type(trick).model_fields} | fields))


def numbers(trick: type[Trick]) -> list[str]:
    """The fields that hold a number."""
    return [n for n, f in trick.model_fields.items() if isinstance(f.default, float | int) and not isinstance(f.default, bool)]


# what a reader needs
def spelling(name: str) -> str | None:
    """Its spelling and the trick are inverses."""
    trick = example(name)
    assert parse(str(trick)) == trick, f"{trick} is read back as {parse(str(trick))}"
    assert str(parse(str(trick))) == str(trick), f"{trick} is read back as {parse(str(trick))}"
    for field in numbers(type(trick)):
        info = type(trick).model_fields[field]
        low = [b.ge for b in info.metadata if isinstance(b, annotated_types.Ge)]
        changed = rebuilt(trick, {field: low[0] if low else info.default})
        assert parse(str(changed)) == changed, f"{changed} is read back as {parse(str(changed))}"
    return None


def documented(name: str) -> str | None:
    """Its card is whole: a title, Formula, Paper, Helps, Hurts and Costs, an example, and a line for each field."""
    kind = find(name)
    words = card(kind)
    assert words["Title"].endswith("."), "the first line of the file's docstring is a sentence with a full stop"
    missing = [word for word in CARD if not words.get(word)]
    assert not missing, (
        f"the file's docstring lacks {', '.join(f'{word}:' for word in missing)}, each at the beginning of a line"
    )
    assert list(words)[1:] == list(CARD), f"the file's docstring has its parts in another order than {', '.join(CARD)}"
    assert ">>>" in inspect.getsource(sys.modules[kind.__module__]), "no docstring has an example that runs (>>> …)"
    bare = [field for field, info in kind.model_fields.items() if not info.description]
    assert not bare, f"the field {', '.join(bare)} has no docstring: a line in triple quotes below it"
    assert kind.__doc__, f"the class {kind.__name__} has no docstring"
    assert example(name).plugs(), "it overrides no plug point"
    return None


def examples(name: str) -> str | None:
    """The examples in its docstrings give what they say."""
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE, verbose=False)
    for test in doctest.DocTestFinder().find(sys.modules[find(name).__module__]):
        runner.run(test, out=said.append)
    assert not runner.summarize(verbose=False).failed, "".join(said).strip().strip("*").strip()
    return None


def bounded(name: str) -> str | None:
    """Values out of bounds are refused by name, and every number has bounds."""
    kind, trick = find(name), example(name)
    for field, value in [*out_of_bounds(kind), ("nonsense", 1)]:
        assert refused(trick, field, value), f"{field}={value} is accepted"
    for field in numbers(kind):
        bounds = refused(trick, field, -FAR) or refused(trick, field, FAR)
        assert bounds, f"{field} has no bounds: write, for example, Annotated[float, Field(ge=0, le=1)]"
    return None


def refused(trick: Trick, field: str, value: float) -> bool:
    """Whether the trick refuses a value, which must be by name."""
    try:
        rebuilt(trick, {field: value})
    except UsageError as error:
        assert field in str(error), f"{field}={value} is refused without its name: {error}"
        return True
    return False


def out_of_bounds(trick: type[Trick]) -> Iterator[tuple[str, float]]:
    """Fields with values that they must refuse."""
    for field, info in trick.model_fields.items():
        if isinstance(info.default, tuple) or info.is_required():
            continue
        if field in numbers(trick):
            yield field, math.nan
            yield field, math.inf
        for bound in info.metadata:
            match bound:
                case annotated_types.Ge(ge=value) | annotated_types.Gt(gt=value):
                    yield field, value - 1  # type: ignore[operator]
                case annotated_types.Le(le=value) | annotated_types.Lt(lt=value):
                    yield field, value + 1  # type: ignore[operator]


def seated(name: str) -> str | None:
    """The outline of the loop shows it at each of its plug points."""
    lines = [line for line in outline(recipe(example(name)), len(CLASSES)) if str(example(name)) in line]
    plugs = example(name).plugs()
    assert len(lines) == len(plugs), f"it is shown at {len(lines)} of {len(plugs)} plug points"
    return None


# what it does
def neutral(name: str) -> str | None:
    """At its neutral value it changes nothing, bit for bit."""
    values = find(name).neutral
    if values is None:
        return "it names no neutral value"
    trick = rebuilt(example(name), values)
    trained = train(trick, **network([example(name)]))
    assert trained.same(without(name)), f"{trick} changes weights or predictions: see neutral, or what it does at that value"
    return None


def acting(name: str) -> str | None:
    """It acts: weights or predictions differ from those without it."""
    if find(name).neutral == {}:
        return "it is neutral as it is"
    # What acts on a few steps is seen in few; the others get more.
    acts = any(not train(example(name), batch_size=size).same(without(name, size)) for size in (16, 2))
    assert acts, f"a training with {example(name)} ends with the same weights and predictions as one without"
    return None


def shapes(name: str) -> str | None:
    """Shapes, types and the sums of targets are kept, for images of 1, 3 and 4 channels, and of two classes."""
    for channels, few in ((1, False), (3, False), (4, False), (3, True)):
        shapes_of(name, channels, few)
    return None


def shapes_of(name: str, channels: int, few: bool) -> None:
    """The same for images of so many channels, of few classes or not."""
    made = loop(recipe(example(name)), channels=channels, few=few)
    for trick in having(made.tricks, "augment"):
        image = torch.randint(0, 256, (channels, 20, 24), dtype=torch.uint8, generator=generator(0, "test"))
        for transform in trick.augment():
            before = image.clone()
            out = transform(image, SIZE, generator(0, name))
            told = f"augment makes {out.dtype} {list(out.shape)} of uint8 {list(image.shape)}"
            assert out.dtype == torch.uint8, told
            assert out.shape[0] == channels, told
            assert torch.equal(image, before), "augment writes to the pixels that all epochs share: work on a copy"
    for trick in having(made.tricks, "window"):
        top, left, height, width = trick.window(torch.tensor([[20, 24]]), lambda n: torch.rand(1, n).double())[0].tolist()
        inside = 0 <= top < top + height <= 20 and 0 <= left < left + width <= 24
        assert inside, f"window cuts {height} x {width} pixels at {top}, {left} of an image of 20 x 24"
    for trick in having(made.tricks, "mirror"):
        ways = trick.mirror(lambda n: torch.rand(2, n).double()).tolist()
        assert len(ways) == 2 and set(ways) <= set(range(4)), f"mirror says {ways} of two images: of each one of 0, 1, 2 and 3"
    for part, batch in made.loader.train(made.plan.epoch(0), 0):
        wanted = (len(part.rows), channels, part.size, part.size)
        assert batch.x.shape == wanted, f"a batch is {list(batch.x.shape)}, not {list(wanted)}"
        for trick in having(made.tricks, "batch"):
            _check_batch(trick, batch, 0.3)
        for trick in having(made.tricks, "weights"):
            found = trick.weights(batch.y, 0.3)
            assert found.shape == (len(batch.y),), f"weights gives {list(found.shape)} for {len(batch.y)} samples"


def _check_batch(trick: Trick, batch: Batch, t: float) -> None:
    out = trick.batch(batch, t, generator(0, trick.name()))
    assert out.x.shape == batch.x.shape, f"batch makes images {list(out.x.shape)} of {list(batch.x.shape)}"
    assert out.y.shape == batch.y.shape, f"batch makes targets {list(out.y.shape)} of {list(batch.y.shape)}"
    torch.testing.assert_close(out.y.sum(1), torch.ones(len(out.y)), msg="the targets that batch makes do not sum to 1")


def odd_batches(name: str) -> str | None:
    """It takes batches of one and of three images, of two classes and of three."""
    if "batch" not in example(name).plugs():
        return "it does not change batches"
    _, pixels = dataset()
    for count, few in itertools.product((1, 3), (True, False)):
        (trick,) = loop(recipe(example(name)), few=few).tricks
        y = torch.eye(2 if few else 3).repeat(2, 1)[:count]
        _check_batch(trick, Batch(torch.stack(pixels[:count]).float(), y, torch.arange(count)), 0.0)
    return None


# what is random, and what a run keeps
def resuming(name: str) -> str | None:
    """A training that was stopped and goes on ends with the same bits as an uninterrupted one."""
    check_resume(recipe(example(name)))
    return None


def resuming_elsewhere(name: str) -> str | None:
    """The same with the state of its optimiser laid out anew in memory: a file keeps no layout, by which torch's steps go."""
    if "optimizer" not in example(name).plugs():
        return "it has no optimiser"
    check_resume(recipe(example(name), channels_last=True))
    return None


def check_resume(made: Recipe) -> None:
    """Stopped before the last step and gone on, a training ends with the same bits; the recipe's tricks stay as they were."""
    spelled, fields = [str(trick) for trick in made.tricks], copy.deepcopy([dict(trick) for trick in made.tricks])
    whole = follow(loop(made))
    assert [str(trick) for trick in whole.loop.tricks] == spelled, "training changed the trick's fields"
    assert [dict(trick) for trick in made.tricks] == fields, "training changed the trick's fields"
    assert not any(trick.state() for trick in made.tricks), "run state on the recipe's own trick"
    stopped = loop(made)
    list(stopped.prepare())
    steps = stopped.judge.facts.steps
    for event in stopped.train():
        if isinstance(event, Step) and event.step == steps - 1:
            break
    resumed = loop(made)
    with tempfile.TemporaryDirectory() as place:
        with store.writing(Path(place) / "state") as folder:
            store.save_state(folder, stopped.state())
        resumed.load(store.load_state(Path(place) / "state"))
    again = follow(resumed)
    if again.same(whole) and fingerprint(again.loop.state()) == fingerprint(whole.loop.state()):
        return
    assert follow(loop(made)).same(whole), (
        "two trainings with the same seed differ: draw from the rng that is handed over alone"
    )
    raise AssertionError(
        "a resumed training differs: what is to last from step to step is made in setup, in attributes that end in _, and "
        "stands nowhere else"
    )


def apart(name: str) -> str | None:
    """It moves no other draw, and draws from no generator but its own."""
    trick = example(name)
    if name == "flip" or {"data", "order", "batch_size"} & set(trick.plugs()):
        assert conflict(trick, trick), "only one trick of a recipe may decide which images are drawn"
        return "it decides which images are drawn"
    mine, others = _asked(trick.name(), trick), _asked(trick.name(), *with_needed([trick])[1:])
    assert mine == others, f"others draw otherwise beside it: {sorted(set(mine) ^ set(others), key=repr)[:3]}"
    return None


def _asked(name: str, *tricks: Trick) -> list[tuple[Any, ...]]:
    """The streams that a training asks for, without the trick's own, of which none may draw from a global generator."""
    asked: list[tuple[Any, ...]] = []
    real = streams.key

    def spy(seed: int, stream: str, *keys: int) -> int:
        asked.append((seed, stream, *keys))
        return real(seed, stream, *keys)

    with patch.object(streams, "key", spy), patch.object(engine_loop, "key", spy), patch.object(assemble, "key", spy):
        made = loop(recipe("flip", *tricks))
        torch.manual_seed(5)
        before = _global_states()
        for part, batch in made.loader.train(made.plan.epoch(0), 0):
            for trick in having(made.tricks, "batch"):
                trick.batch(batch, part.t, generator(0, trick.name(), 0))
        for generator_, drawn, held in zip(("torch", "numpy", "random"), _global_states(), before, strict=True):
            assert drawn == held, f"it draws from the global generator of {generator_}: draw from the rng that is handed over"
        for event in made.train():
            if isinstance(event, Step) and event.step == 2:
                break
    return sorted({k for k in asked if k[0] == 0 and k[1] != name}, key=repr)


def _global_states() -> tuple[bytes, str, str]:
    return torch.get_rng_state().numpy().tobytes(), repr(np.random.get_state()), repr(random.getstate())


def ranks(name: str) -> str | None:
    """Two processes draw what one draws."""
    made = loop(recipe(example(name)))

    def rank(number: int, of: int) -> list[tuple[torch.Tensor, ...]]:
        one = copy.copy(made.loader)
        one.rank, one.ranks = number, of
        return [(batch.rows, batch.x, *(batch.unlabelled or ())) for _, batch in one.train(made.plan.epoch(1), 1)]

    for whole, *parts in zip(rank(0, 1), rank(0, 2), rank(1, 2), strict=True):
        for number, own in enumerate(parts):
            alike = all(torch.equal(values[number::2], mine) for values, mine in zip(whole, own, strict=True))
            assert alike, "a process of two sees other images than one alone: a draw must depend on the image, not on its batch"
    return None


def watching(name: str) -> str | None:
    """One that only watches or judges leaves the trajectory untouched."""
    if not set(example(name).plugs()) <= WATCHING:
        return "it does more than watch and judge"
    trained, bare = train(example(name)), without(name)
    assert same(trained.live, bare.live), "it changes the weights that are trained"
    assert trained.losses == bare.losses, "it changes the losses of training"
    return None


def beginning(name: str) -> str | None:
    """Before it begins it leaves the trajectory untouched, which a study relies on when it trains a common beginning once."""
    trick = example(name)
    network: Any = loop(recipe(trick)).model
    assert trick.brings or name not in network.companions, "it trains a module beside the network: write brings = True"
    if not 0 < trick.begin() < 1:
        return "it acts from the start, or after training"
    trained, bare = train(trick, batch_size=2), without(name, batch_size=2)
    plan = trained.loop.plan
    before = sum(part.t < trick.begin() for epoch in range(plan.epochs) for part in plan.epoch(epoch))
    assert 0 < before < len(trained.losses)
    assert trained.losses[:before] == bare.losses[:before], f"it acts before {trick.begins}={trick.begin():g}"
    assert trained.losses[before:] != bare.losses[before:], f"it does not act from {trick.begins}={trick.begin():g} on"
    return None


# with what it stands together
def families(name: str) -> str | None:
    """It trains two steps on each family of networks, or refuses in a sentence."""
    for family in FAMILIES:
        family_of(name, family)
    return None


def family_of(name: str, family: str) -> None:
    """The same on one of them."""
    try:
        made = loop(recipe(example(name), model=family, size=FAMILIES[family], batch_size=4, lr=1e-3))
        list(made.prepare())
        steps = [event for event in itertools.islice(made.train(), 2) if isinstance(event, Step)]
    except UsageError as error:
        sentence(error, family)
        return
    assert len(steps) == 2
    assert all(bool(event.loss.isfinite()) for event in steps), f"the loss on {family} is no finite number"


def neighbours(name: str) -> str | None:
    """With every other trick of its stage it commutes, or the two exclude each other."""
    for other, kind in bag().items():
        if other != name and kind.stage == find(name).stage:
            pair(name, other)
    return None


def pair(a: str, b: str) -> None:
    """The same of two tricks."""
    first, second = example(a), example(b)
    if reason := conflict(first, second):
        assert reason == conflict(first, second)
        for both in ((first, second), (second, first)):
            try:
                recipe(*both)
            except UsageError as error:
                assert "Choose one" in str(error), f"{a} and {b} are refused with {error}"
            else:
                raise AssertionError(f"{a} and {b} exclude each other and stand in one recipe")
        return
    assert ordered([first, second]) == ordered([second, first]), f"{a} and {b} act in the order in which they are typed"
    assert recipe(first, second).key == recipe(second, first).key, f"{a} and {b} make two recipes"
    if all(AFTER & set(trick.plugs()) for trick in (first, second)):  # in training all pairs meet elsewhere
        assert all(map(math.isfinite, train(first, second, epochs=1).losses)), f"the loss with {a} and {b} is no finite number"


LAWS: tuple[Law, ...] = (
    *(spelling, documented, examples, bounded, seated),
    *(neutral, acting, shapes, odd_batches),
    *EDGES,
    *(resuming, resuming_elsewhere, apart, ranks, watching, beginning),
    *(families, neighbours),
)
"""In the order in which they are tried: the cheap ones first."""
