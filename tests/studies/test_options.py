"""Options of a study that are no options."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import trickbag as tb
from trickbag.ground.errors import TrickbagError, UsageError
from trickbag.studies.folder import STUDY, StudyRecord

ODD: tuple[Any, ...] = (3, 1.5, True, [3], [["mixup"]], [{"a": 1}], {"a": 1}, {"lr": [[]]}, [], "", "=", "nosuch")


@pytest.mark.parametrize("name", [field.alias or name for name, field in tb.Options.model_fields.items()])
def test_what_is_no_option_is_refused_and_nothing_else_is_raised(name: str) -> None:
    """As a TOML or a JSON file may hold it."""
    for value in ODD:
        with suppress(UsageError):
            assert isinstance(tb.Options.build({name: value}), tb.Options)


@pytest.mark.parametrize(("name", "value"), [("vary", [{}]), ("set", None), ("set", [1]), ("budget", [2]), ("combine", 3)])
def test_options_that_are_none_make_a_stored_study_damaged(tmp_path: Path, name: str, value: Any) -> None:
    written = StudyRecord.model_construct(options={name: value})
    (tmp_path / STUDY).write_text(written.model_dump_json(exclude_unset=True, warnings=False), "utf-8")
    with pytest.raises(TrickbagError, match=r"study\.json is damaged: "):
        StudyRecord.load(tmp_path)
