"""Many tricks at once: all pairs, and nearly all triples of three stages, that can stand in one recipe train two steps."""

import itertools
from functools import cache
from typing import Any

import numpy as np
import pytest

from trickbag.ground.errors import UsageError
from trickbag.laboratory.lab import example, loop, network, recipe
from trickbag.trick import conflict
from trickbag.tricks import bag

NAMES = tuple(name for name in bag() if network([example(name)])["model"] == network([])["model"])
"""Those that the smallest network takes; resnet_tweak needs a larger one, and meets its stage in the laws."""
LARGEST = 80
"""Tricks of a heap."""
NUMBER = 150
"""Heaps, which hold every pair; all triples would take hundreds."""
Heap = tuple[str, ...]


REFUSED = {
    "arcface": ("crt", "fit_head", "fixres", "lws", "tau_norm"),
    "cosine_classifier": ("arcface", "crt", "fit_head", "fixres", "ldam", "lws", "tau_norm"),
    "l2_sp": ("lamb", "lars"),
    "ldam": ("crt", "fit_head", "fixres", "lws", "tau_norm"),
    "oltr": ("arcface", "attention_crop_tta", "crt", "fit_head", "fixres", "ldam", "lws", "tau_norm"),
}
"""Pairs that have no seat in common, and of which one refuses the network that the other makes: its classifier has no bias, or
is no linear layer; or whose optimiser asks for weight decay, in whose place l2_sp stands."""


@cache
def allowed() -> np.ndarray:
    """[T, T] whether two tricks can stand in one recipe."""
    tricks = [example(name) for name in NAMES]
    table = np.zeros((len(tricks), len(tricks)), bool)
    for (i, a), (j, b) in itertools.combinations(enumerate(tricks), 2):
        refused = b.name() in REFUSED.get(a.name(), ()) or a.name() in REFUSED.get(b.name(), ())
        table[i, j] = table[j, i] = not conflict(a, b) and not refused
    return table


@pytest.mark.parametrize(("name", "other"), [(name, other) for name, others in REFUSED.items() for other in others])
def test_a_pair_that_is_left_out_is_refused_in_a_sentence(name: str, other: str) -> None:
    assert not conflict(example(name), example(other))
    with pytest.raises(UsageError, match=r".{20,}\.$"):
        loop(recipe(example(name), example(other)))


@cache
def wanted() -> np.ndarray:
    """[T, T, T] the triples of three stages that can stand in one recipe, in any order; (i, j, j) is a pair of any stages."""
    stage = np.array([bag()[name].stage for name in NAMES])
    pair = allowed() & (stage[:, None] != stage)
    return np.asarray(pair[:, :, None] & pair[:, None, :] & pair[None, :, :]) | allowed()[:, :, None] & np.eye(
        len(NAMES), dtype=bool
    )


@cache
def heaps() -> tuple[Heap, ...]:
    """Heaps that cover the wanted triples: a trick that most are left of, then each time the one that adds most.

    A triple counts more, the more tricks its own exclude: what fits into few heaps comes first. Pairs come before all triples.
    """
    rare = (~allowed()).sum(0).astype(np.float32)
    left, made = wanted() * rare[:, None, None] * rare[:, None] * rare, list[Heap]()
    left *= 1 + 20_000 * np.eye(len(NAMES), dtype=np.float32)
    while len(made) < NUMBER:
        chosen = [int(left.sum((1, 2)).argmax())]
        free, begun, whole = allowed()[chosen[0]].copy(), left[chosen[0]].copy(), np.zeros(len(NAMES))
        while len(chosen) < LARGEST and free.any():
            trick = int(np.where(free, whole + 0.02 * begun.sum(1), -1.0).argmax())
            chosen.append(trick)
            free &= allowed()[trick]
            whole += left[trick, chosen].sum(0)
            begun += left[trick]
        left[np.ix_(chosen, chosen, chosen)] = 0.0
        made.append(tuple(NAMES[trick] for trick in sorted(chosen)))
    return tuple(made)


def test_the_heaps_cover_every_pair_and_nearly_every_triple_of_three_stages() -> None:
    seen = np.zeros_like(wanted())
    for heap in heaps():
        places = [NAMES.index(name) for name in heap]
        seen[np.ix_(places, places, places)] = True
    pair = np.eye(len(NAMES), dtype=bool)
    assert not (wanted() & ~seen)[:, pair].any()
    assert wanted().sum() > 6 * 10_000
    assert (wanted() & seen).sum() > 0.94 * wanted().sum()


@pytest.mark.parametrize("number", range(NUMBER))
def test_a_heap_trains_two_steps(number: int) -> None:
    made = loop(recipe(*map(example, heaps()[number]), epochs=4, batch_size=4))
    list(made.prepare())
    steps: list[Any] = [event for event in itertools.islice(made.train(), 2) if hasattr(event, "images")]
    assert len(steps) == 2
    assert all(bool(step.loss.isfinite()) for step in steps)
