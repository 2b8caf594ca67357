"""Which recipe is worth a proof: the one with the largest expected gain, of all that the tried tricks and values can make.

Interactions of two tricks that no other effect hides behind are shrunk to 0 as effects are to their mean (``belief``).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from trickbag.statistics.belief import Belief


@dataclass(frozen=True)
class Option:
    """Something that a recipe can have and the reference does not: a trick more, a trick less, or a field at another value."""

    name: str
    belief: Belief
    price: float
    """The factor by which it multiplies the time of a training."""


@dataclass(frozen=True)
class Nominee:
    """The options of the largest expected gain."""

    options: tuple[str, ...]
    belief: Belief
    price: float


def nominee(
    options: Sequence[Option], pairs: dict[tuple[str, str], Belief], excluded: frozenset[tuple[str, str]], most: float
) -> Nominee:
    """Of the sets of options whose price is at most ``most``, the one with the largest expected gain; none is a set too.

    ``pairs`` are what two options give together beyond what each gives (half of it, since an effect is a mean over the other's
    absence and presence); ``excluded`` are pairs that cannot stand together. The search begins with each single option and
    with none, and puts in, takes out or exchanges single ones as long as that gains.
    """
    by_name = {option.name: option for option in options}

    def allowed(chosen: frozenset[str]) -> bool:
        return price(chosen) <= most and not any({a, b} <= chosen for a, b in excluded)

    def price(chosen: frozenset[str]) -> float:
        return math.prod(by_name[name].price for name in chosen)

    def gain(chosen: frozenset[str]) -> float:
        return sum(by_name[name].belief.gain for name in chosen) + sum(
            _share(pair, chosen) * b.gain for pair, b in pairs.items()
        )

    def nearby(chosen: frozenset[str]) -> Sequence[frozenset[str]]:
        flipped = [chosen ^ {name} for name in by_name]
        return [near for near in (*flipped, *(one ^ {name} for one in flipped for name in by_name)) if allowed(near)]

    best = frozenset[str]()
    for start in (frozenset[str](), *(frozenset({name}) for name in by_name)):
        here = start if allowed(start) else frozenset[str]()
        while (there := max(nearby(here), key=lambda near: (gain(near), sorted(near)), default=here)) and gain(there) > gain(
            here
        ):
            here = there
        best = max(best, here, key=gain)
    variance = sum(by_name[name].belief.sd ** 2 for name in best)
    variance += sum((_share(pair, best) * b.sd) ** 2 for pair, b in pairs.items())
    return Nominee(tuple(name for name in by_name if name in best), Belief(gain(best), math.sqrt(variance)), price(best))


def _share(pair: tuple[str, str], chosen: frozenset[str]) -> float:
    """With what factor the interaction of two options enters the gain of a set over that of none.

    In coordinates of -1 and +1 an interaction b adds b x y / 4: 0 beyond the reference where both or none are there, -1/2 where
    only one of them is.
    """
    return -0.5 if len(chosen & set(pair)) == 1 else 0.0
