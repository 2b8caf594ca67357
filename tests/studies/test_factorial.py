"""Fractions of two-level designs have their size, balance, resolution and aliases, by brute force."""

import itertools

import numpy as np
import pytest

from trickbag.studies import factorial


@pytest.mark.parametrize("k", range(1, 17))
def test_cells_are_distinct_balanced_and_orthogonal_and_begin_with_none(k: int) -> None:
    signs = factorial.fraction(k)
    assert len(signs) == (2**k if k <= 4 else 16 if k <= 8 else 32)
    assert len(np.unique(signs, axis=0)) == len(signs)
    assert set(np.unique(signs)) == {-1.0, 1.0}
    assert (signs[0] == -1).all()
    assert np.array_equal(signs.T @ signs, len(signs) * np.eye(k))
    assert np.array_equal(signs.sum(0), np.zeros(k))


def resolution(signs: np.ndarray) -> int:
    """Length of the shortest set of columns whose product is constant: of the shortest word of the defining relation."""
    k = signs.shape[1]
    for length in range(1, k + 1):
        for columns in itertools.combinations(range(k), length):
            if abs(signs[:, columns].prod(1).sum()) == len(signs):
                return length
    return k + 1


@pytest.mark.parametrize("k", range(1, 17))
def test_resolution(k: int) -> None:
    assert resolution(factorial.fraction(k)) == (k + 1 if k <= 4 else 5 if k == 5 else 4)


@pytest.mark.parametrize("k", [6, 8, 9, 16])
def test_all_factors_together_are_a_cell_from_six_on(k: int) -> None:
    assert (factorial.fraction(k)[-1] == 1).all()


@pytest.mark.parametrize("k", [0, 17])
def test_sizes_that_no_fraction_has_are_refused(k: int) -> None:
    with pytest.raises(ValueError, match="1 to 16"):
        factorial.fraction(k)


@pytest.mark.parametrize("k", range(2, 17))
def test_the_alias_table_is_that_of_brute_force(k: int) -> None:
    signs = factorial.fraction(k) * np.where(np.arange(k) % 3 == 1, -1, 1)  # as if the reference held every third trick
    table = {frozenset(pair for pair, _ in chain): dict(chain) for chain in factorial.chains(signs)}
    pairs = list(itertools.combinations(range(k), 2))
    assert sorted(itertools.chain.from_iterable(table)) == pairs
    for one, other in itertools.combinations(pairs, 2):
        match = (signs[:, one[0]] * signs[:, one[1]]) @ (signs[:, other[0]] * signs[:, other[1]]) / len(signs)
        chain = next(chain for chain in table.values() if one in chain)
        assert match == (chain[one] * chain[other] if other in chain else 0)
    assert all(next(iter(chain.values())) == 1 for chain in table.values())
