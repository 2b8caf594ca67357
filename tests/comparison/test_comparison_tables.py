"""Tables of results as people have them: what is read, and what is refused, with its line."""

import os
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import csv, parquet

from trickbag.comparison import tables
from trickbag.comparison.results import Results, Scores
from trickbag.ground import memory
from trickbag.ground.errors import UsageError

Write = Callable[[str], Path]
CORRECT = "method,seed,image,correct\nA,0,x,1\nA,0,y,0\nB,0,x,1\nB,0,y,1\n"
CLASSES = "method,seed,image,label,p_cat,p_dog\nA,0,x,cat,0.9,0.1\nA,0,y,dog,0.6,0.4\n"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def made(text: str | bytes, name: str = "table.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return made


def plain(found: Results | Scores) -> dict[tuple[str, str], dict[str, bool]]:
    """(method, seed) -> image -> right or wrong."""
    assert isinstance(found, Results)
    return {
        (run.method, run.seed): {found.names[i]: bool(right) for i, right in zip(run.images, run.correct, strict=True)}
        for run in found.runs
    }


ANSWERS = {("A", "0"): {"x": True, "y": False}, ("B", "0"): {"x": True, "y": True}}


@pytest.mark.parametrize(
    "text",
    [
        CORRECT,
        CORRECT.replace("\n", "\r\n"),
        CORRECT.replace(",", ";"),
        CORRECT.replace(",", "\t"),
        CORRECT.replace("\n", "\n\n"),
        CORRECT.replace(",", " , ").replace("method", "Method"),
        CORRECT.replace(",1\n", ",True\n").replace(",0\n", ",false\n"),
        CORRECT.replace(",1\n", ",1.0\n"),
        CORRECT.replace("image,", "epoch,image,").replace("0,x", "0,9,x").replace("0,y", "0,9,y"),
        "\ufeff" + CORRECT,
        "correct,image,seed,method\n1,x,0,A\n0,y,0,A\n1,y,0,B\n1,x,0,B",
        "method,seed,image,label,predicted\nA,0,x,cat,cat\nA,0,y,dog,cat\nB,0,x,cat,cat\nB,0,y,dog,dog\n",
        "method,seed,image,label,p_cat,p_dog\nA,0,x,cat,1,0\nA,0,y,dog,.6,.4\nB,0,y,dog,0.495,0.51\nB,0,x,cat,.501,.5\n",
    ],
)
def test_a_table_is_read_in_every_spelling(write: Write, text: str) -> None:
    assert plain(tables.read([write(text)])) == ANSWERS


def test_utf_16_is_read_and_bytes_that_are_no_utf_8_stay_names(write: Write) -> None:
    assert plain(tables.read([write(CORRECT.encode("utf-16"))])) == ANSWERS
    found = tables.read([write(CORRECT.encode().replace(b"x", b"caf\xe9"))])
    assert found.names[0] == "caf\udce9"


@pytest.mark.parametrize("kind", [pa.int8(), pa.bool_(), pa.float32(), pa.string()])
def test_parquet_is_read_whatever_its_types(tmp_path: Path, kind: pa.DataType) -> None:
    table = csv.read_csv(pa.py_buffer(CORRECT.encode()))
    right = table["correct"].cast(pa.bool_()) if kind == pa.bool_() else table["correct"].cast(kind)
    table = table.set_column(3, "correct", right).set_column(0, "method", table["method"].dictionary_encode())
    parquet.write_table(table, tmp_path / "t.parquet")
    assert plain(tables.read([tmp_path / "t.parquet"])) == ANSWERS


def test_several_tables_are_one_whatever_the_order_of_their_columns_and_rows(write: Write) -> None:
    one = write("method,seed,image,correct\nA,0,x,1\nA,0,y,0\n", "a.csv")
    other = write("image,correct,seed,method\ny,1,0,B\nx,1,0,B\n", "b.csv")
    assert plain(tables.read([one, other])) == ANSWERS
    first = write(CLASSES, "c.csv")
    second = write("method,seed,image,label,p_dog,p_cat\nB,0,x,cat,0.1,0.9\nB,0,y,dog,0.8,0.2\n", "d.csv")
    assert plain(tables.read([first, second])) == ANSWERS


def test_rows_in_any_order_give_the_same_runs(write: Write) -> None:
    rows = [f"{m},{s},im{i},{(i * 7 + s + len(m)) % 3 and 1}" for m in ("A", "Bee") for s in (10, 9) for i in range(40)]
    expected = plain(tables.read([write("method,seed,image,correct\n" + "\n".join(rows))]))
    assert [seed for _, seed in expected] == ["9", "10"] * 2
    random.Random(0).shuffle(rows)
    assert plain(tables.read([write("method,seed,image,correct\n" + "\n".join(rows))])) == expected


def test_a_table_of_many_parts_keeps_its_lines(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trickbag.comparison.sheets.BLOCK", 400)
    rows = [f"A,{i // 50},im{i % 50},{i % 2}" for i in range(500)]
    found = tables.read([write("method,seed,image,correct\n" + "\n".join(rows) + "\n")])
    assert sum(len(run.images) for run in found.runs) == 500
    rows[321] = rows[320]
    with pytest.raises(UsageError, match=r"table\.csv, line 323: .*already in .*line 322"):
        tables.read([write("method,seed,image,correct\n" + "\n".join(rows) + "\n")])


def test_groups_labels_and_probabilities_are_kept(write: Write) -> None:
    text = "method,seed,image,group,label,p_cat,p_dog\nA,0,x,g,cat,0.9,0.1\nA,0,y,g,dog,0.6,0.4\nA,0,z,,dog,0,1\n"
    found = tables.read([write(text)])
    assert isinstance(found, Results)
    assert found.groups[0] == found.groups[1] != found.groups[2]
    assert [found.classes[k] for k in found.labels] == ["cat", "dog", "dog"]
    np.testing.assert_allclose(found.runs[0].logits[:2], np.log([[0.9, 0.1], [0.6, 0.4]]), rtol=1e-6)
    assert found.runs[0].logits[2].min() == pytest.approx(np.log(1e-12)), "a probability of 0 is not minus infinity"


def test_a_run_without_answers_has_failed(write: Write) -> None:
    for failed in ("B,1,x,\nB,1,y,\n", "B,1,,\n"):
        runs = tables.read([write(CORRECT + failed)]).runs
        assert [run.failed for run in runs] == [False, False, True]
    runs = tables.read([write(CLASSES + "A,1,x,cat,,\nA,1,y,,,\n")]).runs
    assert [run.failed for run in runs] == [False, True]
    scores = tables.read([write("method,seed,score\nA,0,0.5\nA,1,\n")])
    assert [run.value for run in scores.runs] == [0.5, None]


def test_what_is_not_used_is_said(write: Write) -> None:
    assert tables.read([write(CORRECT)]).notes == ()
    text = CLASSES.replace("image,", "image,correct,x\u202e,").replace(",x,", ",x,1,2,").replace(",y,", ",y,1,2,")
    assert tables.read([write(text)]).notes == (r"Not used: the columns correct, x\u202e.",)


REFUSED = {
    "duplicate": (CORRECT + "A,0,x,1\n", r"line 6: method 'A', seed 0 has the image 'x' already in .*line 2"),
    "two labels": (CLASSES + "A,1,x,dog,1,0\n", r"line 4: the image 'x' has the label 'dog', but 'cat' in .*line 2"),
    "two groups": (
        "method,seed,image,group,correct\nA,0,x,1,1\nB,0,x,2,1\n",
        r"line 3: the image 'x' has the group '2', but '1' in .*line 2",
    ),
    "NaN": (CLASSES + "A,1,x,cat,nan,0.1\n", "line 4: a probability is NaN or empty"),
    "a hole": (CLASSES + "A,1,x,cat,,1\n", "line 4: a probability is NaN or empty"),
    "infinite": (CLASSES + "A,1,x,cat,inf,1\n", "line 4: a probability is not between 0 and 1"),
    "negative": (CLASSES + "A,1,x,cat,-.5,1.5\n", "line 4: a probability is not between 0 and 1"),
    "logits": (CLASSES + "A,1,x,cat,1,1\n", "line 4: the probabilities sum to 2 instead of 1"),
    "no class": (CLASSES + "A,1,x,fox,.5,.5\n", "line 4: the label 'fox' has no column p_fox"),
    "no number": (CLASSES + 'A,1,x,cat,"0,5",.5\n', "line 4: '0,5' in column 'p_cat' is not a number"),
    "NaN correct": (CORRECT + "A,1,x,nan\n", "line 6: correct is 'nan', not 0 or 1"),
    "a share": (CORRECT + "A,1,x,0.5\n", "line 6: correct is '0.5', not 0 or 1"),
    "half a run": (CORRECT + "A,1,x,1\n\nA,1,y,\n", "line 8: the answer is empty, but method 'A', seed 1 has 1 other answer"),
    "no method": (CORRECT + ",1,x,1\n", "line 6: the method is empty"),
    "no seed": (CORRECT + "A,,x,1\n", "line 6: the seed is empty"),
    "no image": (CORRECT + "A,1,,1\n", "line 6: the image is empty"),
    "cells": (CORRECT + "A,1\n", "line 6: 2 cells, not 4"),
    "no column": ("method,image,correct\nA,x,1\n", "line 1: the column seed is missing in method, image, correct"),
    "nothing said": ("method,seed,image\nA,0,x\n", "line 1: the column label is missing"),
    "twice": ("method,seed,image,correct,correct\nA,0,x,1,0\n", "line 1: the column 'correct' stands there twice"),
    "one class": ("method,seed,image,label,p_a\nA,0,x,a,1\n", "line 1: p_a is the only class"),
    "no rows": ("method,seed,image,correct\n", "has no rows below its header"),
    "empty": ("", "line 1: the column method is missing in an empty line"),
    "score twice": ("method,seed,score\nA,0,1\nA,0,2\n", r"line 3: method 'A' with seed 0 has a score already in .*line 2"),
    "NaN score": ("method,seed,score\nA,0,nan\n", "line 2: the score is 'nan', not a number"),
    "infinite score": ("method,seed,score\nA,0,1e999\n", "line 2: the score is '1e999', not a number"),
    "a picture": ("\x89PNG\r\n\x1a\n\0\0\0", "is neither CSV nor Parquet"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_table_that_makes_no_sense_is_refused_where_it_makes_none(write: Write, name: str) -> None:
    text, said = REFUSED[name]
    with pytest.raises(UsageError, match=said) as refusal:
        tables.read([write(text)])
    assert "table.csv" in str(refusal.value)
    assert str(refusal.value).endswith(".")


def test_tables_of_two_forms_are_not_mixed(write: Write) -> None:
    with pytest.raises(UsageError, match=r"right and wrong answers and .*probabilities"):
        tables.read([write(CORRECT, "a.csv"), write(CLASSES, "b.csv")])
    with pytest.raises(UsageError, match="same columns"):
        tables.read([write(CLASSES, "a.csv"), write(CLASSES.replace("dog", "fox"), "b.csv")])


def test_parquet_that_is_broken_or_holds_lists_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(UsageError, match="cannot be read as Parquet"):
        tables.read([path])
    parquet.write_table(pa.table({"method": [["A"]], "seed": [0], "image": ["x"], "correct": [1]}), path)
    with pytest.raises(UsageError, match="cannot be read as Parquet"):
        tables.read([path])


def test_a_table_that_memory_does_not_hold_is_refused_at_its_start(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trickbag.comparison.sheets.BLOCK", 1 << 12)
    path = write("method,seed,image,correct\n" + "".join(f"A,0,{i},1\n" for i in range(50_000)))
    taken = []
    monkeypatch.setattr("trickbag.comparison.rows.Rows._take", lambda self, part, line: taken.append(len(part.empty)))
    monkeypatch.setattr(memory, "available", lambda: 1_000_000)
    with pytest.raises(UsageError, match=r"would take about 0\.0 GB of memory, and 0\.0 GB are free"):
        tables.read([path])
    assert sum(taken) == 0


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "t.csv")
    with pytest.raises(UsageError, match="it is a named pipe, not a file"):
        tables.read([tmp_path / "t.csv"])
