"""A classifier looks at images in any form, in order, a few at a time, and says what it could not read."""

import io
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from album import fill, recipe_file
from PIL import Image

import trickbag as tb
from trickbag.display.predicted import Growing, form_of
from trickbag.ground import store
from trickbag.ground.errors import TrickbagError, UsageError
from trickbag.ground.events import Doing, Note

KINDS = {"a": 0, "b": 1, "c": 2}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Photos, and a run that was trained on them."""
    folder = tmp_path_factory.mktemp("predict")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRICKBAG_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        fill(folder / "photos", KINDS, 20)
        recipe_file(folder / "tiny.toml")
        tb.train("photos", "tiny.toml", out="run", with_="flip_tta, calibrate", set_={"epochs": 2, "lr": 0.1})
        yield folder


@pytest.fixture(scope="module")
def known(place: Path) -> tb.Classifier:
    return tb.load("run")


def photo(number: int = 0) -> Path:
    return sorted(Path("photos/a").iterdir())[number]


def archive() -> str:
    with zipfile.ZipFile("one.zip", "w") as file:
        file.write(photo(), "in/it.png")
    return "one.zip"


FORMS = {
    "a path": lambda: str(photo()),
    "a Path": photo,
    "a pattern": lambda: str(photo())[:-5] + "?.png",
    "bytes": lambda: photo().read_bytes(),
    "an open file": lambda: io.BytesIO(photo().read_bytes()),
    "Pillow": lambda: Image.open(photo()),
    "an array": lambda: np.array(Image.open(photo()).convert("RGB")),
    "floats": lambda: np.array(Image.open(photo()).convert("RGB")) / 255,
    "a tensor": lambda: torch.from_numpy(np.array(Image.open(photo()).convert("RGB"))).movedim(-1, 0),
    "a batch": lambda: torch.from_numpy(np.array(Image.open(photo()).convert("RGB"))).movedim(-1, 0)[None],
    "an archive": archive,
    "a list": lambda: [photo()],
    "an iterator": lambda: iter([photo().read_bytes()]),
}


@pytest.mark.parametrize("form", FORMS)
def test_an_image_in_any_form_is_the_same_image(known: tb.Classifier, form: str) -> None:
    (expected,) = known.predict([photo()], 3)
    found = next(iter(known.predict(FORMS[form](), 3)))
    assert found.classes == expected.classes
    assert found.probabilities == pytest.approx(expected.probabilities, abs=1e-6)


def test_one_path_is_one_image_and_a_folder_all_of_its_images(known: tb.Classifier) -> None:
    assert [p.path for p in known.predict("photos/a")] == [
        f"photos/a/{path.name}" for path in sorted(Path("photos/a").iterdir())
    ]
    assert [p.path for p in known.predict(["photos/b", photo()])][-1] == str(photo())
    assert [p.path for p in known.predict([photo().read_bytes()] * 2)] == ["image 0", "image 1"]


def test_an_endless_iterator_is_read_as_it_is_asked(known: tb.Classifier) -> None:
    read = itertools.count()

    def endless() -> Iterator[bytes]:
        while True:
            next(read)
            yield photo().read_bytes()

    assert len(list(itertools.islice(known.predict(endless()), 100))) == 100
    assert next(read) < 300


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("https://x.org/a.jpg", "address on the web"),
        ("photos/*.gif", "matches no file"),
        ("", "is no image"),
        (["photos/a/00.png", ""], "is no image"),
        (5, "is no image"),
        (np.zeros((4, 4, 9), np.uint8), "1, 3 or 4 channels"),
        (np.full((4, 4, 3), 2.0), "outside of 0 to 1"),
    ],
)
def test_what_is_no_image_is_refused_in_a_sentence(known: tb.Classifier, asked: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        list(known.predict(asked))


def test_a_folder_without_images_is_said_and_other_files_are_passed_over(known: tb.Classifier, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no image"):
        list(known.predict(tmp_path))
    (tmp_path / "notes.md").write_text("hello")
    (tmp_path / "table").write_text("a,b\n1,2\n")
    (tmp_path / "rows.jsonl.part").touch()
    with pytest.raises(UsageError, match="holds no image"):
        list(known.predict(tmp_path))
    shutil.copy(photo(), tmp_path / "one")
    told: list[Any] = []
    assert [Path(p.path).name for p in known.predict(tmp_path, tell=told.append)] == ["one"]
    assert Note("3 files in folders are no image and passed over") in told


@pytest.mark.parametrize("on_bad", ["skip", "error"])
def test_what_cannot_be_read_takes_no_other_prediction_away(known: tb.Classifier, tmp_path: Path, on_bad: Any) -> None:
    for number in range(40):
        shutil.copy(photo(), tmp_path / f"{number:02d}.png")
    (tmp_path / "35.png").write_bytes(photo().read_bytes()[:60])
    made, told = [], list[Any]()
    asked = known.predict(tmp_path, on_bad=on_bad, tell=told.append)
    if on_bad == "skip":
        made = list(asked)
        left_out, counted = (event.text for event in told if isinstance(event, Note))
        assert "35.png is left out" in left_out
        assert "1 image could not be read" in counted
    else:
        with pytest.raises(TrickbagError, match=r"35\.png cannot be predicted"):
            made.extend(asked)
    assert [Path(p.path).stem for p in made] == [f"{n:02d}" for n in range(40 if on_bad == "skip" else 35) if n != 35]


def test_what_is_no_image_at_all_takes_no_prediction_before_it_away(known: tb.Classifier) -> None:
    asked = known.predict([photo()] * 5 + ["https://x.org/a.jpg"])
    assert [next(asked).path for _ in range(5)] == [str(photo())] * 5
    with pytest.raises(UsageError, match="address on the web"):
        next(asked)


def test_below_the_threshold_a_prediction_is_unsure(known: tb.Classifier, ask) -> None:
    found = {p.path: p for p in known.predict("photos", threshold=0.6)}
    assert {p.unsure for p in found.values()} == {True, False}
    assert all(p.unsure == (p.probabilities[0] < 0.6) for p in found.values())
    lines = ask("predict", "run", "photos", "--threshold", "0.6").out.splitlines()
    assert sum("unsure: " in line for line in lines) == sum(p.unsure for p in found.values())
    rows = [json.loads(line) for line in ask("predict", "run", "photos", "--threshold", "0.6", "--json").out.splitlines()]
    assert {row["path"]: row["unsure"] for row in rows} == {path: p.unsure for path, p in found.items()}


def test_as_a_module_it_says_the_same_of_pixels_of_any_size(known: tb.Classifier) -> None:
    module = known.module()
    assert isinstance(module, torch.nn.Module)
    for size in ((16, 16), (40, 23), (9, 64)):
        images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (5, 3, *size), np.uint8))
        images = images[:, : known.card.channels]
        expected = [dict(zip(p.classes, p.probabilities, strict=True)) for p in known.predict(images)]
        found = module(images)
        assert found.shape == (5, 3)
        for row, said in zip(found.tolist(), expected, strict=True):
            assert dict(zip(known.classes, row, strict=True)) == pytest.approx(said, abs=1e-5)
    assert module(images[:0]).shape == (0, 3)
    with pytest.raises(UsageError, match="give uint8"):
        module(images.float())


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl"])
def test_rows_in_a_file_go_on_where_they_were_stopped(place: Path, tmp_path: Path, ask, name: str) -> None:
    out, part = tmp_path / name, tmp_path / f"{name}.part"
    words = ["predict", "run", "photos", "--top", "2", "--out", str(out)]
    assert ask(*words).code == 0
    whole = out.read_text()
    assert not part.exists()
    assert ask(*words).code == 2
    lines = whole.splitlines(keepends=True)
    for cut in (0, 1, 2, 20, 21, len(lines)):
        for half in ("", "photos/a/ha" if name.endswith("csv") else '{"path": "pho'):
            out.unlink(missing_ok=True)
            part.write_text("".join(lines[:cut]) + half)
            part.with_name(f"{name}.part.signed").write_text("")
            assert ask(*words).code == 0, "asked for something else: begun anew"
            assert out.read_text() == whole


def test_a_killed_command_goes_on(place: Path, tmp_path: Path) -> None:
    many = tmp_path / "many"
    for number in range(300):
        (many / f"{number // 100}").mkdir(parents=True, exist_ok=True)
        os.link(photo(number % 20), many / f"{number // 100}" / f"{number:03d}.png")
    out = tmp_path / "rows.csv"
    command = [sys.executable, "-m", "trickbag", "predict", "run", str(many), "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    part = tmp_path / "rows.csv.part"
    while process.poll() is None and not (part.exists() and part.stat().st_size > 3000):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = part.read_text() if part.exists() else ""
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "have their predictions already" in done.stderr or not before
    assert "looking at images: 300 of 300" in done.stderr
    rows = out.read_text().splitlines()
    assert rows[1 : 1 + before.count("\n") - 1] == before.splitlines()[1 : before.count("\n")]
    assert [Path(row.split(",")[0]).stem for row in rows[1:]] == [f"{number:03d}" for number in range(300)]
    assert not list(tmp_path.glob("rows.csv.*"))


CHANGES: dict[str, Any] = {
    "words between": lambda rows: [*rows[:9], b"hello\n", *rows[9:]],
    "a byte less": lambda rows: [*rows[:9], rows[9][1:], *rows[10:]],
    "zeros": lambda rows: [*rows[:9], b"\0" * 40 + b"\n", *rows[9:]],
    "bytes": lambda rows: [*rows[:9], b"\xff\xfe\n", *rows[9:]],
    "half a line": lambda rows: [*rows[:9], rows[9][:5] + b"\n", *rows[10:]],
    "a probability": lambda rows: [*rows[:9], re.sub(rb"0\.\d{6}", b"0.987654", rows[9], count=1), *rows[10:]],
    "other JSON": lambda rows: [*rows[:9], b"[1, 2]\n", b'{"path": 5}\n', b"[" * 100_000 + b"\n", *rows[9:]],
}


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_rows_that_were_changed_meanwhile_lose_no_other(known: tb.Classifier, tmp_path: Path, form: str) -> None:
    made = list(known.predict("photos", 2))
    for name, change in CHANGES.items():
        out, told = tmp_path / f"{name}.{form}", list[Any]()
        begun = Growing(out, form_of(out, False, False) or "csv", "asked", 2)
        for prediction in made[:50]:
            begun.add(prediction)
        begun.close()
        whole = begun.part.read_bytes().splitlines(keepends=True)
        changed = b"".join(change(whole)) + b"half a li"
        begun.part.write_bytes(changed)
        again = Growing(out, begun.form, "asked", 2, told.append)
        assert 48 <= len(again.done) <= 50, name
        assert "was changed, in line" in told[0].text
        assert out.with_name(f"{out.name}.part.damaged").read_bytes() == changed
        for prediction in made:
            if prediction.path not in again.done:
                again.add(prediction)
        again.end()
        rows = out.read_bytes().splitlines(keepends=True)
        assert len(rows) == len(set(rows)) == (121 if form == "csv" else 60), name
        assert set(rows) > set(whole)


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_photos_that_were_exchanged_meanwhile_are_predicted_again(known: tb.Classifier, tmp_path: Path, form: str) -> None:
    shutil.copytree("photos", tmp_path / "photos")
    with zipfile.ZipFile(tmp_path / "some.zip", "w") as file:
        file.write("photos/a/00.png", "x/0.png")
    images, out = [str(tmp_path / "photos"), str(tmp_path / "some.zip")], tmp_path / f"rows.{form}"
    begun = Growing(out, form_of(out, False, False) or "csv", "asked", 1)
    for number, prediction in enumerate(known.predict(images, 1, without=begun)):
        begun.add(prediction)
        if number == 3:  # read already, and those before it in the batch
            (tmp_path / "photos/a/05.png").touch()
    begun.close()
    one, other, gone = (tmp_path / "photos" / name for name in ("a/00.png", "b/00.png", "c/19.png"))
    one.rename(tmp_path / "between")
    other.rename(one)
    (tmp_path / "between").rename(other)
    gone.unlink()
    told: list[Any] = []
    again = Growing(out, begun.form, "asked", 1, told.append)
    assert told[0].text == "3 images changed since: the predictions are made again."
    assert len(again.done) == 58
    made = list(known.predict(images, 1, without=again))
    assert sorted(p.path for p in made) == sorted(map(str, (one, tmp_path / "photos/a/05.png", other)))
    for prediction in made:
        again.add(prediction)
    again.end()
    text = out.read_text()
    assert text.count("\n") == 61 + (form == "csv")
    assert next(p.classes[0] for p in made if p.path == str(one)) == "b"
    assert [file.name for file in tmp_path.glob("rows.*")] == [out.name]


def test_a_quote_too_many_costs_work_and_no_row(known: tb.Classifier, tmp_path: Path) -> None:
    begun = Growing(tmp_path / "rows.csv", "csv", "asked", 1)
    for prediction in known.predict("photos", 1):
        begun.add(prediction)
    begun.close()
    whole = begun.part.read_text()
    begun.part.write_text(whole.replace("photos/b/03", '"photos/b/03'))
    again = Growing(tmp_path / "rows.csv", "csv", "asked", 1)
    assert len(again.done) == 23
    for prediction in known.predict("photos", 1, without=again):
        again.add(prediction)
    again.end()
    assert (tmp_path / "rows.csv").read_text() == whole


def test_two_commands_never_write_to_one_file(place: Path, tmp_path: Path, ask) -> None:
    out = tmp_path / "rows.csv"
    words = ["predict", "run", "photos", "--out", str(out)]
    with store.lock(out):
        told = ask(*words)
        assert told.code == 2
        assert "rows.csv is being written by another process" in told.err.splitlines()[-1]
        assert not out.with_name("rows.csv.part").exists()
    assert ask(*words).code == 0


@pytest.mark.parametrize(
    ("given", "known_of"),
    [
        (lambda: "photos", [60]),
        (lambda: ["photos/a", photo(), "photos/b"], [41, 41]),
        (lambda: np.zeros((40, 8, 8, 3), np.uint8), [40, 40]),
        (lambda: (photo() for _ in range(70)), []),
    ],
)
def test_progress_is_told_as_far_as_the_end_is_known(known: tb.Classifier, given: Any, known_of: list[int]) -> None:
    told: list[Any] = []
    made = list(known.predict(given(), tell=told.append))
    found = [(event.done, event.total) for event in told if isinstance(event, Doing)]
    assert [total for _, total in found][: len(known_of)] == known_of or not known_of
    assert not found or found[-1] == (len(made), len(made))
    assert bool(found) == bool(known_of)


def test_what_explains_says_what_predicts(known: tb.Classifier) -> None:
    (predicted,), (explained,) = known.predict(photo(), top=1), known.explain(photo())
    assert explained.name == predicted.classes[0]
    assert explained.probability == pytest.approx(predicted.probabilities[0], abs=1e-6)


def test_rows_of_another_command_are_set_aside_and_no_file_is_overwritten(tmp_path: Path) -> None:
    """The same words in another folder mean other photos."""
    out, told = tmp_path / "rows.csv", list[Any]()
    begun = Growing(out, "csv", "here", 1)
    begun.close()
    again = Growing(out, "csv", "there", 1, told.append)
    assert "of another command" in told[0].text
    assert out.with_name("rows.csv.part.damaged").exists()
    out.write_text("mine")
    with pytest.raises(TrickbagError, match="made by something else"):
        again.end()
    assert out.read_text() == "mine"


def test_no_progress_comes_between_rows(place: Path, ask) -> None:
    for form, rows in (("--csv", 61), ("--json", 60), ("", 60)):
        told = ask("predict", "run", "photos", *filter(None, [form]))
        assert len(told.out.splitlines()) == rows


def test_classes_of_other_names_are_mapped(place: Path, tmp_path: Path, ask) -> None:
    fill(tmp_path / "other", {"Alpha, first": 0, "b": 1, "B too": 1}, 6, seed=3)
    (tmp_path / "names.csv").write_text('"Alpha, first",a\nB too,b\n')
    with pytest.raises(UsageError, match="does not know"):
        tb.evaluate("run", tmp_path / "other")
    by_dict = tb.evaluate("run", tmp_path / "other", map_={"Alpha, first": "a", "B too": "b"})
    assert list(by_dict.scores.per_class.count) == [6, 12, 0]
    by_file = ask("evaluate", "run", str(tmp_path / "other"), "--map", str(tmp_path / "names.csv"), "--json")
    assert json.loads(by_file.out)["top1"] == by_dict.scores.top1
    for text, words in (("a,b,c\n", "line 1: write two columns"), ("nobody,a\n", "no class nobody")):
        (tmp_path / "names.csv").write_text(text)
        refused = ask("evaluate", "run", str(tmp_path / "other"), "--map", str(tmp_path / "names.csv"))
        assert refused.code == 2
        assert words in refused.err
