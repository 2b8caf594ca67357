"""No trick is taken without effect: on recipes of several kinds it changes what is predicted, or is refused in a sentence."""

from functools import cache
from typing import Any

import pytest

from trickbag.ground.errors import UsageError
from trickbag.laboratory.lab import Trained, example, follow, loop, network, recipe
from trickbag.recipe import Recipe, idle, recipe_names
from trickbag.runs.request import check_idle
from trickbag.studies.arms import Bench
from trickbag.trick import WITHOUT_STEPS, conflict
from trickbag.tricks import bag, parse

KINDS: dict[str, tuple[str, int]] = {"probe": ("fit_head", 0), "neighbours": ("knn(k=3)", 0), "means": ("ncm", 0)}
ACTING = [name for name in bag() if set(bag()[name].plugs()) & WITHOUT_STEPS or bag()[name].alters]


def built(kind: str, *names: str) -> Recipe:
    held, epochs = KINDS[kind]
    return recipe(held, *map(example, names), epochs=epochs, **network([example(name) for name in names]))


@cache
def predicted(kind: str, model: str, size: int) -> Trained:
    held, epochs = KINDS[kind]
    return follow(loop(recipe(held, epochs=epochs, model=model, size=size)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ACTING)
def test_a_trick_acts_or_is_refused(kind: str, name: str) -> None:
    if conflict(example(name), parse(KINDS[kind][0])):
        return
    made, why = built(kind, name), ""
    try:
        check_idle(made, {example(name).name()})
        found = follow(loop(made))
    except UsageError as refusal:
        why = str(refusal)
    assert why.endswith(".") if why else not found.answers(predicted(kind, made.model, made.size))


@pytest.mark.parametrize("name", [name for name in bag() if name not in ACTING])
def test_a_trick_of_steps_is_refused_where_there_are_none(name: str) -> None:
    made = built("probe", name)
    assert "epochs=0" in idle(example(name), made)
    check_idle(made, set())
    with pytest.raises(UsageError, match="Set epochs, or leave"):
        check_idle(made, {example(name).name()})


@pytest.mark.parametrize("name", recipe_names())
def test_no_recipe_brings_an_idle_trick(name: str) -> None:
    held: Any = Recipe.load(name)
    assert [idle(trick, held) for trick in held.tricks if idle(trick, held)] == []


@pytest.mark.parametrize("name", ["center_features", "l2_features", "pca_features(dims=8)"])
def test_changed_features_want_a_reader_behind_them(name: str) -> None:
    assert "no trick of this recipe reads" in idle(parse(name), recipe("fit_head", name))
    assert not idle(parse(name), recipe("ncm", name))


def test_what_stands_behind_its_reader_is_idle() -> None:
    why = idle(parse("l2_features"), recipe("knn", "l2_features"))
    assert why == "l2_features changes features that no trick of this recipe reads. Add ncm, or leave l2_features out."


def test_a_study_runs_no_arm_that_would_equal_its_reference() -> None:
    bench = Bench(Recipe.load("linear-probe"), [parse("center_features"), parse("mixup"), parse("calibrate")])
    assert [str(trick) for trick in bench.alone()] == ["calibrate"]
    assert bench.not_run.keys() == {"center_features", "mixup"}
    assert all(why.endswith(".") for why in bench.not_run.values())
