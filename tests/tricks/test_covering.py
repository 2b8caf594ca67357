"""Tricks of three stages at once: every triple that can stand in one recipe trains two steps in one of some heaps."""

import itertools
from functools import cache
from typing import Any

import numpy as np
import pytest
from lab import example, loop, network, recipe

from trickbag.ground.errors import UsageError
from trickbag.trick import conflict
from trickbag.tricks import bag

NAMES = tuple(name for name in bag() if network([example(name)])["model"] == network([])["model"])
"""Those that the smallest network takes; resnet_tweak needs a larger one, and meets its stage in the laws."""
LARGEST = 40
"""Tricks of a heap."""
Heap = tuple[str, ...]


REFUSED = {
    "cosine_classifier": ("crt", "fit_head", "fixres", "ldam", "lws", "tau_norm"),
    "ldam": ("crt", "fit_head", "fixres", "lws", "tau_norm"),
    "oltr": ("attention_crop_tta", "crt", "fit_head", "fixres", "ldam", "lws", "tau_norm"),
}
"""Pairs that have no seat in common, and of which one refuses the network that the other makes: its classifier has no bias, or
is no linear layer."""


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
    """[T, T, T] the triples i < j < k of three stages that can stand in one recipe."""
    stage = np.array([bag()[name].stage for name in NAMES])
    other = stage[:, None] != stage
    pair = allowed() & other
    triples = pair[:, :, None] & pair[:, None, :] & pair[None, :, :]
    place = np.arange(len(NAMES))
    return np.asarray(triples & (place[:, None, None] < place[:, None]) & (place[:, None] < place))


@cache
def heaps() -> tuple[Heap, ...]:
    """Heaps that cover all wanted triples: each begins with one that is left and takes in what fits, in a random order."""
    rng, left, made = np.random.default_rng(0), wanted().copy(), []
    while left.any():
        chosen = list(np.argwhere(left)[rng.integers(left.sum())])
        gain = left.sum((1, 2)) + left.sum((0, 2)) + left.sum((0, 1))
        for trick in np.argsort(-gain * rng.uniform(0.5, 1, len(NAMES))):
            if len(chosen) < LARGEST and all(allowed()[trick, other] for other in chosen):
                chosen.append(trick)
        ordered = sorted(int(trick) for trick in chosen)
        for triple in itertools.combinations(ordered, 3):
            left[triple] = False
        made.append(tuple(NAMES[trick] for trick in ordered))
    return tuple(made)


def test_the_heaps_cover_every_triple_of_three_stages() -> None:
    seen = np.zeros_like(wanted())
    for heap in heaps():
        for triple in itertools.combinations([NAMES.index(name) for name in heap], 3):
            seen[triple] = True
    assert not (wanted() & ~seen).any()
    assert wanted().sum() > 10_000


@pytest.mark.parametrize("number", range(700))
def test_a_heap_trains_two_steps(number: int) -> None:
    """As many tests as there could be heaps: those beyond the last one have nothing to do."""
    if number >= len(heaps()):
        return
    made = loop(recipe(*map(example, heaps()[number]), epochs=4, batch_size=4))
    list(made.prepare())
    steps: list[Any] = [event for event in itertools.islice(made.train(), 2) if hasattr(event, "images")]
    assert len(steps) == 2
    assert all(bool(step.loss.isfinite()) for step in steps)
