"""What users write as TOML and on the command line is taken or refused in a sentence, whatever it is."""

import tomllib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trickbag.ground import toml
from trickbag.ground.errors import UsageError
from trickbag.ground.typed import assignments, seconds, varied
from trickbag.recipe import Recipe
from trickbag.runs.request import edited
from trickbag.studies.options import Options

BASE = Recipe.load("cifar").edit(["mixup", "cosine", "random_resized_crop", "ema"])
PARTS = [
    *("epochs", "lr", "mean", "std", "tricks", "mixup.alpha", "cosine.final", "random_resized_crop.scale", "model", "keep"),
    *("=", "[", "]", "{", "}", ".", ",", "'", '"', '"""', "\n", "#", "(", ")", "-", "\\", "\0", "\udcff", "é"),
    *("1", "0.5", "1e38", "1e300", "nan", "-inf", "9" * 5000, "9" * 400, "0x" + "f" * 4000, "2020-02-30", "12:00", "true"),
    *("[" * 3000, "{a=" * 1000, "a." * 5000, "mixup(", "mixup(alpha=1e999)", "one_of(" * 200, "flip"),
]
texts = st.lists(st.sampled_from(PARTS) | st.text(max_size=4), max_size=8).map("".join)


@given(st.sampled_from(PARTS[:10]), texts)
def test_a_field_set_to_anything(field: str, text: str) -> None:
    with suppress(UsageError):
        made, _ = edited(BASE, set_=assignments([f"{field}={text}"]))
        assert Recipe(**made.spelled()) == made


@given(texts)
def test_a_field_varied_over_anything(text: str) -> None:
    with suppress(UsageError):
        for value in varied([f"lr={text}"])["lr"]:
            BASE.edit(lr=value)


@given(texts)
def test_a_file_of_anything(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    for load in (Recipe.load, Options.load):
        with suppress(UsageError):
            load(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a." * 100_000 + "b = 1", "100 parts"),
        ("[" + "'a' . " * 200 + "b]", "100 parts"),
        ("x = " + "9" * 5000, "out of range"),
        ("x = 0x" + "f" * 4000, "64 bits"),
        ("x = " + "[" * 5000, "nested"),
    ],
)
def test_what_would_take_memory_or_time_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        toml.parse(text)


def test_a_list_of_numbers_is_no_key() -> None:
    text = f"mean = [{', '.join(['0.25'] * 500)}]"
    assert toml.parse(text) == tomllib.loads(text)


@pytest.mark.parametrize("field", ["lr=1e38", "mean=[1e300]", "std=[1e-300]", "weight_decay=1e39", "size=" + "9" * 5000])
def test_a_number_that_no_training_survives_is_refused(field: str) -> None:
    with pytest.raises(UsageError) as refused:
        edited(BASE, set_=assignments([field]))
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize(
    "asked",
    [
        {"folds": "1000000x2"},
        {"folds": "9" * 5000 + "x2"},
        {"vary": {"lr": [n / 1e6 for n in range(1, 10_001)]}},
        {"tricks": ["flip"] * 1001},
        {"seed": 1 << 32},
    ],
)
def test_a_study_of_too_many_runs_is_refused_by_count(asked: dict[str, object]) -> None:
    with pytest.raises(UsageError) as refused:
        Options.build(asked)
    assert len(str(refused.value)) < 300


def test_a_time_has_an_end() -> None:
    with pytest.raises(UsageError):
        seconds("9" * 400)
