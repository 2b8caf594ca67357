"""What Python hands out shows itself: a line at the prompt, a table in a notebook, and nothing that a name smuggles in."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import study_lab
from album import fill, recipe_file

import trickbag as tb
from trickbag.runs.classifier import Prediction

KINDS = {"a": 0, "<b onclick=x>": 1, "c": 2}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One of each."""
    place = tmp_path_factory.mktemp("shown")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRICKBAG_CACHE", str(place / "cache"))
        fill(place / "photos", KINDS, 20)
        recipe_file(place / "tiny.toml")
        run = tb.train(place / "photos", place / "tiny.toml", out=place / "run", set_={"epochs": 1})
        other = tb.train(place / "photos", place / "tiny.toml", out=place / "other", set_={"epochs": 1}, with_="flip_tta")
        study_lab.album(place / "album", study_lab.COUNTS)
        return {
            "audit": tb.check(place / "photos"),
            "plan": tb.plan(place / "photos", place / "tiny.toml"),
            "study plan": tb.plan_study(place / "album", recipe=study_lab.recipe(place), tricks="flip"),
            "doctor": tb.doctor(),
            "images": tb.check(place / "photos").images,
            "result": run,
            "evaluation": tb.evaluate(run.folder, place / "photos"),
            "comparison": tb.compare(run.folder, other.folder),
            "study": study_lab.done(place, "study", tricks="flip"),
            "classifier": run.classifier,
            "prediction": next(iter(run.classifier.predict([place / "photos"]))),
            "recipe": tb.Recipe.load("auto"),
            "trick": tb.MixUp(alpha=0.4),
        }


NAMES = (
    "audit",
    "plan",
    "study plan",
    "doctor",
    "images",
    "result",
    "evaluation",
    "comparison",
    "study",
    "classifier",
    "prediction",
    "recipe",
    "trick",
)


@pytest.mark.parametrize("name", NAMES)
def test_everything_shows_itself(made: dict[str, Any], name: str) -> None:
    text, page = repr(made[name]), made[name]._repr_html_()
    assert "\n" not in text
    assert len(text) < 1000
    assert re.fullmatch(r"<strong>.+</strong><table>.*</table>(<p>.*</p>)?", page, re.DOTALL)
    assert "<b onclick" not in page
    assert "&lt;b onclick" in page or name not in ("evaluation", "classifier", "prediction")


def test_a_result_says_what_its_files_say(made: dict[str, Any]) -> None:
    result = made["result"]
    assert result.curves() == (result.folder / "curves.png").read_bytes()
    assert result.confusion()._repr_png_().startswith(b"\x89PNG")
    assert f"test top-1 {100 * result.record['test']['top1']:.1f} %" in repr(result)
    with np.load(result.folder / "predictions.npz") as arrays:
        logits, labels = arrays["test_logits"], arrays["test_labels"]
    wrong = int((logits.argmax(1) != labels).sum())
    errors = result.errors()
    assert sum(error.split == "test" for error in errors) == wrong > 0
    assert result.errors(2) == errors[:2]
    assert [error.probability for error in errors] == sorted((error.probability for error in errors), reverse=True)
    assert all(error.true != error.predicted and Path(error.path).parts[0] == error.true for error in errors)


def test_a_study_is_a_table(made: dict[str, Any]) -> None:
    table = made["study"].table()
    assert table.column_names[:2] == ["name", "kind"] or "difference" in table.column_names
    assert table.num_rows == len(made["study"].effects)
    assert table.to_pandas()["difference"].tolist() == pytest.approx([e.difference for e in made["study"].effects], nan_ok=True)


def test_long_tables_are_cut_in_a_notebook() -> None:
    page = Prediction("x", tuple(map(str, range(40))), (0.025,) * 40)._repr_html_()
    assert page.count("<tr>") == 13
    assert page.endswith("<p>and 28 more</p>")
