"""Values of a wrong type or out of range, given in Python: a sentence that names the parameter, never an error from inside."""

import inspect
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
import torch

import trickbag as tb
from trickbag import tricks
from trickbag.ground.arguments import Between, fits
from trickbag.ground.arguments import public as public_one

NOT_FOR_USERS = {
    "Classifier": {"adapted", "best", "outputs"},
    "Images": {"of", "path", "take", "joined"},
    "Options": {"given"},
    "Predictor": {"as_seen", "canvas", "drawn", "least", "look", "photo", "said"},
    "Recipe": {"model_post_init", "toml"},
    "Scenes": {"path", "per_image", "region", "take"},
    "ScenesAudit": {"details"},
    "StudyPlan": {"build"},
}
"""Methods that trickbag calls itself."""
ASKED: dict[str, dict[str, Any]] = {
    "check": {"data": "nowhere"},
    "evaluate": {"run": "nowhere", "data": "nowhere"},
    "export": {"run": "nowhere"},
    "finish": {"run": "nowhere"},
    "laws": {"file": "nowhere.py"},
    "load": {"run": "nowhere"},
    "plan": {"data": "nowhere"},
    "plan_study": {"data": "nowhere", "tricks": "mixup"},
    "review": {"folder": "nowhere"},
    "serve": {"port": 0},
    "study": {"data": "nowhere", "tricks": "mixup"},
    "train": {"data": "nowhere"},
    "transfer": {"model": "nowhere", "data": "nowhere", "to": "detection"},
    "Classifier.explain": {"images": ()},
    "Classifier.load": {"run": "nowhere"},
    "Classifier.look": {"path": "", "pixels": torch.zeros(0)},
    "Classifier.predict": {"images": ()},
    "Options.build": {"fields": {}},
    "Predictor.draw": {"images": ()},
    "Predictor.load": {"folder": "nowhere"},
    "Predictor.predict": {"images": ()},
    "Recipe.build": {"fields": {}},
    "StudyPlan.resolves": {"seeds": 3},
}
"""What each verb needs, so that it ends before it trains."""


def odd() -> Iterator[Any]:
    yield from (None, 3, -1, 10**400, 2.5, math.nan, math.inf, True, b"x", "", "\0", "x" * 5000, "never", Path("none"), 1j)
    yield from (object(), [None], {3: 3}, {"a": None}, iter([3]), len, int, np.zeros(3), np.float32(3), torch.zeros(2))


def public() -> Iterator[tuple[str, Callable[..., Any], dict[str, Any]]]:
    """Every function and method of what is public, with what it needs besides."""
    for name in tb.__all__:
        found = getattr(tb, name)
        if inspect.isfunction(found):
            yield name, found, ASKED.get(name, {})
        for method, function in inspect.getmembers(found, inspect.isroutine) if inspect.isclass(found) else ():
            plain = getattr(function, "__func__", function)
            inside = method.startswith("_") or method in NOT_FOR_USERS.get(name, ())
            if not inside and getattr(plain, "__module__", "").startswith("trickbag"):
                yield f"{name}.{method}", function, ASKED.get(f"{name}.{method}", {})


def said(function: Callable[..., Any], parameter: inspect.Parameter, value: Any, asked: dict[str, Any]) -> str:
    """What a call says of a value; nothing where it takes it. A method speaks before it looks at itself."""
    itself = (None,) if "self" in inspect.signature(function).parameters else ()
    named = parameter.kind not in (parameter.VAR_POSITIONAL, parameter.POSITIONAL_ONLY)
    try:
        function(*itself, **asked | {parameter.name: value}) if named else function(value, **asked)
    except tb.TrickbagError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(("where", "function", "asked"), [pytest.param(*one, id=one[0]) for one in public()])
def test_no_value_ends_in_an_error_from_inside(
    where: str,
    function: Callable[..., Any],
    asked: dict[str, Any],
    tmp_path: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, parameter in inspect.signature(function).parameters.items():
        if name == "self" or parameter.kind is parameter.VAR_KEYWORD or parameter.annotation is Any:
            continue
        values = [value for value in odd() if "." not in where or not fits(value, parameter.annotation)]
        sentences = [said(function, parameter, value, asked) for value in values]
        assert any(text.startswith(f"{name}=") for text in sentences), f"{where} takes anything as {name}"
        assert all(text.endswith((".", "?")) and "\n" not in text for text in filter(None, sentences)), sentences


@pytest.mark.parametrize(
    ("verb", "asked", "words"),
    [
        ("check", {"on_bad": "x"}, "on_bad='x': give 'skip' or 'error'."),
        ("check", {"progress": "x"}, "progress='x': give True or False or a function."),
        ("check", {"depth": -1}, "depth=-1: give a whole number from 0."),
        ("check", {"labels": "no"}, "labels='no': give True or False."),
        ("train", {"with_": 3}, "with_=3: give tricks, such as 'mixup, ema', tb.MixUp() or a list of both."),
        ("train", {"set_": None}, "set_=None: give a dict such as {'epochs': 3}, or a list such as ['epochs=3']."),
        ("train", {"began": math.nan}, "began=nan: give a number."),
        ("train", {"out": 7}, "out=7: give a path."),
        ("train", {"plugins": [7]}, "plugins=[7]: give a Python file, or a list of files."),
        ("train", {"plugins": iter([7])}, "plugin '7': give a Python file."),
        ("train", {"seed": 2.0}, "seed=2.0: give a whole number from 0 to 2,000,000,000."),
        ("train", {"budget": [3]}, "budget=[3]: give seconds, or a time such as '10m'."),
        ("train", {"data": None}, "data=None: give a path, a list of (path or image, label), arrays of images and labels, a "),
        ("doctor", {"clear": "no"}, "clear='no': give True or False."),
        ("serve", {"threshold": math.nan}, "threshold=nan: give a number from 0 to 1."),
        ("serve", {"port": 65536}, "port=65536: give a whole number from 0 to 65,535."),
        ("metric", {"better": "x"}, "better='x': give 'higher' or 'lower'."),
    ],
)
def test_the_sentence_names_what_was_given_and_what_is_taken(verb: str, asked: dict[str, Any], words: str) -> None:
    with pytest.raises(tb.UsageError) as refused:
        getattr(tb, verb)(**ASKED.get(verb, {}) | asked)
    assert str(refused.value).startswith(words)


def test_values_that_are_taken_reach_the_function_as_they_were_given() -> None:
    @public_one
    def same(values: Iterable[str], number: float, *more: Annotated[int, Between(0)]) -> Any:
        return values, number, more

    values, number = iter(["a", "b"]), np.float32(0.5)
    found = same(values, number, 1, np.int64(2))
    assert found[0] is values
    assert found[1] is number
    assert [type(one) for one in found[2]] == [int, np.int64]
    assert list(values) == ["a", "b"]
    with pytest.raises(TypeError, match="same\\(\\) missing 1 required positional argument: 'number'"):
        same([])  # type: ignore[call-arg]


def test_a_classifier_refuses_a_threshold_before_it_looks_at_an_image(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photos)
    classifier = tb.load("run")
    for threshold in (math.nan, -0.1, 1.5, "0.5"):
        with pytest.raises(tb.UsageError, match=r"threshold=.*: give a number from 0 to 1"):
            classifier.predict("photos", threshold=threshold)  # type: ignore[arg-type]
    with pytest.raises(tb.UsageError, match="without='cat': give a list"):
        classifier.predict("photos", without="cat")
    with pytest.raises(tb.TrickbagError, match="cannot be predicted: unreadable: File name too long"):
        list(classifier.predict("x" * 5000))
    with pytest.raises(tb.TrickbagError, match="no name holds a NUL"):
        tb.review("run", "photos", out="\0.html")


def test_a_trick_in_python_is_refused_with_the_words_of_the_command_line(ask, tmp_path: Path) -> None:
    for wrong, spelled in [
        (lambda: tb.MixUp(alpha=-1), "mixup(alpha=-1)"),
        (lambda: tb.MixUp(alhpa=1), "mixup(alhpa=1)"),  # type: ignore[call-arg]
        (lambda: tb.OneOf(choices=(tb.MixUp(),)), "one_of(mixup)"),
    ]:
        with pytest.raises(tb.UsageError) as refused:
            wrong()
        assert ask("train", str(tmp_path), "--with", spelled).err == f"trickbag: {refused.value}\n"
    assert str(tb.OneOf(choices=(tb.MixUp(), tb.CutMix()))) == "one_of(mixup, cutmix)"
    assert str(inspect.signature(tb.MixUp)) == "(*, alpha: typing.Annotated[float, Ge(ge=0)] = 0.2) -> None"


@pytest.mark.parametrize("kind", [tb.Recipe, tb.Options, *tricks.bag().values()])
def test_no_value_of_a_field_ends_in_an_error_from_inside(kind: Any) -> None:
    for name in [*kind.model_fields, "unknown"]:
        for value in odd():
            with suppress(tb.UsageError):
                kind(**{name: value})


def test_a_recipe_within_options_is_refused_by_its_own_field() -> None:
    with pytest.raises(tb.UsageError, match=r"^epochs=-1: input should be greater than or equal to 0\.$"):
        tb.Options(recipe=tb.Recipe.load("cifar").spelled() | {"epochs": -1})  # type: ignore[arg-type]
    kept = tb.Options(recipe=tb.Recipe.load("cifar"), seeds=5)
    assert tb.Options.model_validate(kept.model_dump()) == kept == tb.Options.model_validate_json(kept.model_dump_json())


@pytest.mark.parametrize(
    ("call", "read", "command", "told"),
    [
        (lambda: tb.train("photos", with_="mixpu"), "with plugins.", "train photos --with mixpu", "with --plugin."),
        (lambda: tb.train("photos", out="posterize.py"), "out='post", "train photos --out posterize.py", "--out 'post"),
        (lambda: tb.evaluate("run", "photos", energy=True), "open_set too", "evaluate run photos --energy", "--open-set too"),
        (
            lambda: tb.Recipe.load("cifar").edit(mixup=1),
            "recipe has no field",
            "loop cifar --set mixup=1",
            "recipe has no field",
        ),
    ],
)
def test_an_error_names_parameters_in_python_and_options_on_the_command_line(
    call: Callable[[], Any], read: str, command: str, told: str, photos: Path, monkeypatch: pytest.MonkeyPatch, ask
) -> None:
    monkeypatch.chdir(photos)
    answer = ask(*command.split())
    assert answer.code == 2
    assert told in answer.err
    with pytest.raises(tb.UsageError) as refused:
        call()
    assert read in str(refused.value)
    assert "--" not in str(refused.value)
