"""JSON of ours is read through models, which the documentation describes; what does not fit one is said in a sentence."""

import json
from pathlib import Path
from typing import Any

import pytest

from trickbag.ground import records, store
from trickbag.ground.errors import TrickbagError
from trickbag.ground.records import Count, Record, Share, Signed
from trickbag.models.card import Card
from trickbag.runs import folder as of_runs
from trickbag.studies import folder as of_studies
from trickbag.studies.prior import AtlasRecord

DOCS = Path(__file__).parents[2] / "docs"


class Tally(Record):
    """Some numbers."""

    share: Share
    counts: list[Count] = []


class Kept(Signed):
    """A text."""

    text: str


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "it is not JSON"),
        (b"\xff\xfe{}", "it is not JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"share": NaN}', "NaN is not a JSON number"),
        (b'{"share": 1e999}', "1e999 is not a JSON number"),
        (b'{"share": ' + b"9" * 5000 + b"}", "it is not JSON"),
        (b"[]", "valid dictionary"),
        (b"{}", "share: field required"),
        (b'{"share": "0.5"}', "share: input should be a valid number"),
        (b'{"share": true}', "share: input should be a valid number"),
        (b'{"share": 1.5}', "share: input should be less than or equal to 1"),
        (b'{"share": 0.5, "counts": [1, -1]}', "counts.1: input should be greater than or equal to 0"),
    ],
)
def test_what_does_not_fit_its_model_is_said_with_file_field_and_remedy(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(TrickbagError) as refused:
        records.read(tmp_path / "a.json", Tally, "Make it again.")
    assert str(refused.value).startswith(f"{tmp_path / 'a.json'} is damaged: ")
    assert says in str(refused.value)
    assert str(refused.value).endswith(". Make it again.")


def test_a_missing_file_and_a_folder_in_its_place_are_said(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for name in ("none", "folder", "nul\0name"):
        with pytest.raises(TrickbagError, match=r"(cannot be read|is damaged): .*\. Make it again\."):
            records.read(tmp_path / name, Tally, "Make it again.")


def test_keys_that_a_later_version_adds_are_passed_over(tmp_path: Path) -> None:
    found = records.parse(b'{"share": 1, "later": [1, 2]}', Tally)
    assert found.plain() == {"share": 1.0}


def test_a_signed_record_shows_any_change(tmp_path: Path) -> None:
    store.write(tmp_path / "a.json", store.to_json(Kept(text="so \udcff").signed()))
    assert records.read(tmp_path / "a.json", Kept, "").text == "so \udcff"
    held = json.loads((tmp_path / "a.json").read_text())
    for changed in (held | {"text": "not so"}, {"text": "so \udcff"}, held | {"digest": "0"}):
        store.write(tmp_path / "a.json", store.to_json(changed))
        with pytest.raises(TrickbagError, match=r"was changed after trickbag wrote it|has no digest"):
            records.read(tmp_path / "a.json", Kept, "")


def fields(kind: type[Record]) -> set[str]:
    """The keys of a record and of the records in it."""
    found = set(kind.model_fields)
    for field in kind.model_fields.values():
        for inner in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(inner, type) and issubclass(inner, Record):
                found |= fields(inner)
    return found


@pytest.mark.parametrize(
    ("kind", "pages"),
    [
        (store.Manifest, ["run-folder.md"]),
        (Card, ["run-folder.md"]),
        (of_runs.RunRecord, ["run-folder.md"]),
        (of_runs.Begun, ["run-folder.md"]),
        (of_runs.Divergence, ["run-folder.md"]),
        (of_runs.LogLine, ["run-folder.md", "study-folder.md"]),
        (of_studies.StudyRecord, ["study-folder.md"]),
        (of_studies.RunOfStudy, ["study-folder.md", "run-folder.md"]),
        (of_studies.LedgerLine, ["study-folder.md"]),
        (AtlasRecord, ["atlas.md"]),
    ],
)
def test_every_key_of_our_files_is_described(kind: type[Record], pages: list[str]) -> None:
    text = "".join((DOCS / page).read_text("utf-8") for page in pages)
    words: Any = set(text.replace("`", '"').split('"'))
    assert fields(kind) - words == set()
