"""Which recipe is worth a proof: the one with the largest expected gain, of all that the tried tricks and values can make."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from types import MappingProxyType

from trickbag.statistics.belief import Belief

Term = frozenset[str]
"""An effect, by the one option that it speaks of, or by the two of an interaction."""


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
    terms: tuple[tuple[Term, float], ...]
    """Effects of which its gain is made, with the factor of each."""
    belief: Belief
    price: float


def nominee(
    options: Sequence[Option],
    pairs: Mapping[Term, Belief],
    excluded: frozenset[frozenset[str]],
    most: float = math.inf,
    together: Mapping[frozenset[Term], float] = MappingProxyType({}),
) -> Nominee:
    """Of the sets of options whose price is at most ``most``, the one with the largest expected gain; none is a set too.

    ``pairs``: by how much the effect of one option is larger beside the other than without it; ``excluded``: pairs that cannot
    stand together; ``together``: the covariances of what is believed of two terms. An option's own belief is its mean over
    the other's absence and presence, so a pair takes half of its own away from a set that holds one of the two. The search
    begins with none and with each option, and puts in, takes out or exchanges single ones as long as that gains.

    >>> one, other = Option("one", Belief(0.01, 0.0), 1.0), Option("other", Belief(-0.002, 0.0), 1.0)
    >>> nominee([one, other], {}, frozenset()).options, nominee([one, other], {}, frozenset()).belief.gain
    (('one',), 0.01)
    """
    by_name = {option.name: option for option in options}
    names = list(by_name)

    def price(chosen: frozenset[str]) -> float:
        return math.prod(by_name[name].price for name in chosen)

    def allowed(chosen: frozenset[str]) -> bool:
        return price(chosen) <= most and not any(pair <= chosen for pair in excluded)

    def gain(chosen: frozenset[str]) -> float:
        own = sum(by_name[name].belief.gain for name in names if name in chosen)
        return own + sum(_share(pair, chosen) * belief.gain for pair, belief in pairs.items())

    def nearby(chosen: frozenset[str]) -> list[frozenset[str]]:
        flipped = [chosen ^ {name} for name in names]
        twice = [one ^ {name} for one in flipped for name in names]
        return [near for near in (*flipped, *twice) if allowed(near)]

    best: frozenset[str] = frozenset()
    for start in (best, *(frozenset({name}) for name in names)):
        here = start if allowed(start) else best
        while (there := max(nearby(here), key=gain, default=here)) and gain(there) > gain(here):
            here = there
        best = max(best, here, key=gain)
    chosen = tuple(name for name in names if name in best)
    beliefs = {Term({name}): by_name[name].belief for name in chosen} | dict(pairs)
    terms = {Term({name}): 1.0 for name in chosen} | {pair: share for pair in pairs if (share := _share(pair, best))}
    variance = sum((share * beliefs[term].sd) ** 2 for term, share in terms.items())
    variance += sum(2 * terms[a] * terms[b] * together.get(frozenset({a, b}), 0.0) for a, b in combinations(terms, 2))
    return Nominee(chosen, tuple(terms.items()), Belief(gain(best), math.sqrt(max(variance, 0.0))), price(best))


def _share(pair: Term, chosen: frozenset[str]) -> float:
    """With what factor an interaction enters the gain of a set over that of none.

    In coordinates of -1 and +1 an interaction b adds b x y / 4: nothing beyond the reference where both or none are there.
    """
    return -0.5 if len(chosen & pair) == 1 else 0.0
