"""The verbs in Python: what they take is what the command line takes, said once, and forgiving."""

import doctest
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from album import fill, recipe_file

import trickbag as tb
from trickbag import api
from trickbag.ground import glance
from trickbag.recipe import Recipe
from trickbag.studies.options import Options
from trickbag.terminal.cli import app
from trickbag.tricks import bag

VERBS = (
    "check",
    "evaluate",
    "export",
    "finish",
    "laws",
    "load",
    "plan",
    "plan_study",
    "review",
    "serve",
    "study",
    "train",
    "transfer",
)
PLANNED = {"plan": ("train", {"out"}), "plan_study": ("study", {"workers", "ray", "command"})}
"""A plan takes what a verb does, but for what changes no plan."""
PYTHON_ALONE = {"progress", "began", "command"}
"""Parameters that the command line answers itself."""


def said(verb: str) -> dict[str, str]:
    """What a verb's docstring says of its parameters."""
    of, without = PLANNED.get(verb, (verb, set()))
    return {name: text for name, text in glance.parameters("api.py", of).items() if name not in without}


@pytest.mark.parametrize("verb", VERBS)
def test_every_parameter_of_a_verb_is_typed_and_described(verb: str) -> None:
    found = inspect.signature(getattr(tb, verb)).parameters
    assert list(found) == list(said(verb))
    assert all(one.kind is not one.VAR_KEYWORD and one.annotation is not one.empty for one in found.values())
    assert all(len(text) > 10 and text.endswith(".") for text in said(verb).values())


def test_a_study_takes_what_its_file_may_hold_and_names_the_defaults() -> None:
    found = inspect.signature(tb.study).parameters
    rest = ["plugins", "workers", "ray", "out", "command", "began", "progress"]
    assert {*found} == {"data", "file", *Options.model_fields, *rest}
    for name, field in Options.model_fields.items():
        assert found[name].default is None
        if told := re.search(r"Default: ([\w.]+)\.$", said("study")[name]):
            assert told[1] in (str(field.default), {True: "yes"}.get(field.default))


@pytest.mark.parametrize("verb", ["check", "evaluate", "export", "review", "serve", "study", "train"])
def test_the_command_line_offers_the_same_with_the_same_words(verb: str) -> None:
    command = typer.main.get_command(app).commands[verb]  # type: ignore[attr-defined]
    offered: dict[str, Any] = {one.name: one.help for one in command.params if one.name not in ("json", "help")}
    assert {*said(verb)} - PYTHON_ALONE == {*offered} - {"plan", "run"} | ({"run"} & {*said(verb)})
    for name in ("seed", "out", "depth"):
        assert said(verb).get(name, "") == offered.get(name, "")


def test_what_is_public_is_what_is_listed() -> None:
    assert dir(tb) == sorted([*tb.__all__, *(trick.__name__ for trick in bag().values())])
    for name in dir(tb):
        assert getattr(tb, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'Mixup'"):
        tb.Mixup  # noqa: B018


def test_listing_the_names_imports_nothing_heavy() -> None:
    code = "import sys, trickbag; assert 'MixUp' in dir(trickbag); sys.exit(bool({'torch', 'numpy'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.fixture
def place(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "photos", {"a": 0, "b": 1}, 20)
    recipe_file(tmp_path / "tiny.toml")
    return tmp_path


@pytest.mark.parametrize(
    "asked",
    [
        {"with_": "mixup(alpha=0.4), ema", "set_": ["epochs=1"], "budget": "10m"},
        {"with_": ["mixup(alpha=0.4)", tb.Ema()], "set_": {"epochs": 1}, "budget": 600},
        {"with_": (trick for trick in (tb.MixUp(alpha=0.4), "ema")), "set_": "epochs=1", "budget": "600s"},
    ],
    ids=["texts", "a list", "an iterator"],
)
def test_every_way_to_ask_asks_for_the_same(place: Path, asked: dict[str, Any]) -> None:
    made = tb.plan("photos", "tiny.toml", **asked)
    same = tb.plan(Path("photos"), Recipe.load("tiny.toml"), with_=[tb.MixUp(alpha=0.4), tb.Ema()], set_={"epochs": 1})
    assert made.recipe == same.recipe
    assert {str(trick) for trick in made.recipe.tricks} >= {"mixup(alpha=0.4)", "ema"}


def test_the_plan_of_a_study_is_that_of_the_command_line(place: Path, ask) -> None:
    asked = {"recipe": "tiny.toml", "tricks": [tb.MixUp(alpha=0.4), "ema"], "set_": {"epochs": 1}, "seeds": 5}
    made = tb.plan_study("photos", **asked, out="planned")
    words = ["--recipe", "tiny.toml", "--tricks", "mixup(alpha=0.4),ema", "--set", "epochs=1", "--seeds", "5"]
    told = ask("study", "photos", *words, "--plan", "--out", "planned").out
    assert f"plan: {made.hash}, the hash that the study stores before its first run" in told
    steady = [line for line in made.lines() if not line.startswith(("time", "proof"))]
    assert [line for line in told.splitlines() if line in steady] == steady
    other = tb.Options(**asked | {"set_": {"epochs": 3}, "with_": "flip_tta"})
    assert tb.plan_study("photos", other, set_={"epochs": 1}, with_=(), out="planned").hash == made.hash
    assert len(made.seeds) == 5
    assert not [path for path in Path("planned").glob("*") if path.name == "study.json"]


def test_a_trick_is_taken_out_by_name_or_by_itself(place: Path) -> None:
    for without in ("ema", tb.Ema(), ["ema"]):
        made = tb.plan("photos", "tiny.toml", with_="ema, mixup", without=without, set_={"epochs": 1})
        assert [trick.name() for trick in made.recipe.tricks if trick.name() in ("ema", "mixup")] == ["mixup"]


def test_a_study_in_objects_is_the_study_in_texts() -> None:
    texts = {
        "tricks": "mixup(alpha=0.4),ema",
        "combine": ["mixup,ema"],
        "vary": ["lr=0.1,0.2"],
        "set_": ["epochs=3"],
        "budget": "2m",
    }
    objects = {
        "tricks": [tb.MixUp(alpha=0.4), tb.Ema()],
        "combine": [[tb.MixUp(), tb.Ema()]],
        "vary": {"lr": [0.1, 0.2]},
        "set_": {"epochs": 3},
        "budget": 120,
    }
    assert Options(**texts) == Options(**objects)
    assert Options(recipe=Path("tiny.toml")).recipe == "tiny.toml"
    one = Options(recipe=Recipe.load("cifar"))
    assert Options(**one.model_dump(by_alias=True)) == one


def test_progress_is_shown_where_it_is_wanted(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = {"recipe": "tiny.toml", "set_": {"epochs": 1}}
    tb.train("photos", **asked, out="silent")
    tb.train("photos", **asked, out="off", progress=False)
    assert capsys.readouterr() == ("", "")
    told: list[Any] = []
    tb.train("photos", **asked, out="told", progress=told.append)
    assert capsys.readouterr() == ("", "")
    assert told
    tb.train("photos", **asked, out="on", progress=True)
    shown = capsys.readouterr()
    assert not shown.out
    assert "epoch   1 of 1" in shown.err


def test_the_verbs_read_nothing_else_than_their_rooms() -> None:
    assert {name for name, value in vars(api).items() if getattr(value, "__module__", "") == api.__name__} == {*VERBS}


@pytest.mark.parametrize("name", tb.__all__)
def test_every_public_name_has_an_example_as_one_would_type_it(name: str) -> None:
    examples = doctest.DocTestFinder(recurse=False).find(getattr(tb, name), name, globs={})
    typed = "".join(example.source for test in examples for example in test.examples)
    assert "tb." in typed or f"{name}(" in typed, f"{name} has no example in its docstring"
    assert "\nExamples:\n    >>>" in str(inspect.getdoc(getattr(tb, name))), f"the site would not show the example of {name}"


@pytest.mark.parametrize("seed", [1.5, "a", None, -1, [0]])
def test_what_is_no_seed_is_refused_before_anything_is_trained(seed: Any, tmp_path: Path) -> None:
    with pytest.raises(tb.UsageError, match="give a whole number from 0"):
        tb.train(tmp_path / "nowhere", seed=seed)
