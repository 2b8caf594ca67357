"""The list of seeded mutants is true of the code: each can be planted, in one place, and changes it."""

import pytest

from benchmarks.mutants import MUTANTS, ROOT, Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_every_mutant_can_be_planted(mutant: Mutant) -> None:
    assert (ROOT / "trickbag" / mutant.file).read_text("utf-8").count(mutant.old) == 1
    assert mutant.new != mutant.old
