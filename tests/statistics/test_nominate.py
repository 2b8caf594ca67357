"""The nominee, against the best of all sets that can be made."""

import math
from itertools import chain, combinations

import numpy as np
import pytest

from trickbag.statistics.belief import Belief
from trickbag.statistics.nominate import Nominee, Option, nominee

NOTHING: frozenset[frozenset[str]] = frozenset()


def best(options, pairs, excluded, most=math.inf):
    """By trying all sets: in coordinates of -1 and +1, the expected value of a set over that of none."""

    def value(chosen):
        x = {o.name: 1 if o.name in chosen else -1 for o in options}
        own = sum(o.belief.gain * x[o.name] / 2 for o in options)
        return own + sum(b.gain * math.prod(x[name] for name in pair) / 4 for pair, b in pairs.items())

    names = [o.name for o in options]
    price = {o.name: o.price for o in options}
    sets = chain.from_iterable(combinations(names, n) for n in range(len(names) + 1))
    allowed = [s for s in sets if math.prod(price[n] for n in s) <= most and not any(pair <= set(s) for pair in excluded)]
    return max(value(s) for s in allowed) - value(())


@pytest.mark.parametrize("seed", range(12))
def test_nothing_gains_more(seed):
    rng = np.random.default_rng(seed)
    names = "abcdefg"
    options = [Option(n, Belief(float(rng.normal(0, 1)), 0.3), float(rng.uniform(0.7, 1.8))) for n in names]
    every = [frozenset(pair) for pair in combinations(names, 2)]
    pairs = {pair: Belief(float(rng.normal(0, 1)), 0.2) for pair in every if rng.random() < 0.5}
    excluded = frozenset(pair for pair in every if rng.random() < 0.15)
    for most in (math.inf, 1.5):
        found = nominee(options, pairs, excluded, most)
        assert found.belief.gain == pytest.approx(best(options, pairs, excluded, most))
        assert found.price <= most
        assert not any(pair <= set(found.options) for pair in excluded)


def test_what_is_expected_to_hurt_is_left_out_and_nothing_is_a_nominee_too():
    options = [Option("a", Belief(-0.1, 0.1), 1.0), Option("b", Belief(0.0, 0.1), 1.0)]
    assert nominee(options, {}, NOTHING) == Nominee((), (), Belief(0.0, 0.0), 1.0)


def test_two_that_help_only_together_are_found_together():
    """Each alone hurts a little; the interaction makes up for it."""
    options = [Option("a", Belief(0.5, 0.1), 1.0), Option("b", Belief(0.5, 0.1), 1.0)]
    found = nominee(options, {frozenset("ab"): Belief(1.2, 0.1)}, NOTHING)
    one, other, third = map(frozenset, "abc")
    alike = nominee(options, {}, NOTHING, together={frozenset({one, other}): 0.01, frozenset({one, third}): 5.0})
    assert alike.belief.sd == pytest.approx(0.2)  # as sure of the one as of the other
    assert found.options == ("a", "b")
    assert found.belief.gain == pytest.approx(1.0)
    assert found.belief.sd == pytest.approx(math.hypot(0.1, 0.1))


def test_of_two_that_exclude_each_other_the_better_one_stands():
    options = [Option("a", Belief(0.3, 0.1), 1.0), Option("b", Belief(0.4, 0.2), 1.1)]
    assert nominee(options, {}, frozenset({frozenset("ab")})) == Nominee(
        ("b",), ((frozenset("b"), 1.0),), Belief(0.4, 0.2), 1.1
    )


def test_how_sure_a_nominee_is_counts_what_its_effects_share_with_their_interaction():
    """A recipe with the one alone takes half of the interaction away, and with it half of what both do not know."""
    options = [Option("a", Belief(0.5, 0.3), 1.0), Option("b", Belief(-0.5, 0.3), 1.0)]
    one, pair = frozenset("a"), frozenset("ab")
    found = nominee(options, {pair: Belief(-0.1, 0.2)}, NOTHING, together={frozenset({one, pair}): 0.03})
    assert found.terms == ((one, 1.0), (pair, -0.5))
    assert found.belief == Belief(pytest.approx(0.55), pytest.approx(math.sqrt(0.3**2 + 0.1**2 - 0.03)))
