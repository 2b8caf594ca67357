"""What a study's answer begins with where hardly anything was trained."""

from types import SimpleNamespace
from typing import Any

import pytest
from study_lab import done

from trickbag.recipe import Recipe
from trickbag.studies.answer import untrained


def test_that_no_epoch_was_trained_is_what_the_answer_begins_with(place) -> None:
    made = done(place, "untrained", {"epochs": 0}, tricks="flip_tta", with_=["fit_head"], seeds=1)
    assert made.findings.answer[0].startswith("No epoch was trained, only the classifier fitted")
    assert made.findings.sharing.trained_steps == 0


@pytest.mark.parametrize(
    ("epochs", "options", "said"),
    [
        (1, {"budget": 30.0, "set": {}}, "The budget of 30 s held one epoch for each run"),
        (1, {"budget": 30.0, "set": {"epochs": 1}}, ""),
        (1, {"budget": 0.0, "set": {}}, ""),
        (2, {"budget": 30.0, "set": {}}, ""),
    ],
)
def test_that_a_budget_held_one_epoch_is_said(epochs: int, options: dict[str, Any], said: str) -> None:
    study: Any = SimpleNamespace(arms=[SimpleNamespace(recipe=Recipe(epochs=epochs))], facts={"options": options})
    found = untrained(study)
    assert found.startswith(said)
    assert bool(found) == bool(said)
