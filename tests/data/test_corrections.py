"""Corrections of labels: the same for every form of DATA, kept apart from other data, recorded, or refused in a sentence."""

import csv
import json
import os
import re
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from album import fill, recipe_file
from test_shards import shard

import trickbag as tb
from trickbag.data.audit import audit
from trickbag.data.corrections import corrected
from trickbag.data.reading import read
from trickbag.ground.errors import UsageError
from trickbag.runs.request import request

CLASSES = {"cat": 0, "dog": 1, "größe, 'é'": 2}


@pytest.fixture
def place(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "photos", CLASSES, 12)
    recipe_file(tmp_path / "tiny.toml")
    return tmp_path


def fixes(*rows: Sequence[str], head: Sequence[str] = ("path", "old", "new"), name: str = "fixes.csv") -> Path:
    with Path(name).open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        csv.writer(file).writerows([head, *rows])
    return Path(name)


def manifest(folder: Path) -> Path:
    rows = [(path.relative_to(folder.parent).as_posix(), path.parent.name) for path in sorted(folder.glob("*/*.png"))]
    with (folder.parent / "list.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "label"), *rows])
    return folder.parent / "list.csv"


def archive(folder: Path) -> Path:
    return Path(shutil.make_archive("photos", "zip", folder))


def shards(folder: Path) -> Path:
    members = {}
    for number, path in enumerate(sorted(folder.glob("*/*.png"))):
        members |= {f"{number:03d}.png": path.read_bytes(), f"{number:03d}.json": json.dumps({"label": path.parent.name})}
    shard(folder.parent / "train-0.tar", members)
    return Path("train-{0..0}.tar")


@pytest.mark.parametrize(
    "form", [lambda folder: folder, manifest, archive, shards], ids=["folder", "manifest", "zip", "shards"]
)
def test_paths_are_those_that_the_table_shows_in_every_form(place: Path, form) -> None:
    data = form(place / "photos")
    plain = read(data)
    name = {number: plain.classes[label] for number, label in enumerate(plain.labels)}
    other = dict(zip(plain.classes, plain.classes[1:] + plain.classes[:1], strict=True))
    file = fixes(
        (plain.paths[0], name[0], other[name[0]]), (plain.paths[5], name[5], "drop"), (f" ./{plain.paths[9]} ", name[9], "")
    )
    found = read(data, corrections=file)
    assert found.paths == tuple(path for row, path in enumerate(plain.paths) if row not in (5, 9))
    said = {path: found.classes[label] for path, label in zip(found.paths, found.labels, strict=True)}
    assert said.pop(plain.paths[0]) == other[name[0]]
    assert all(said[path] == name[row] for row, path in enumerate(plain.paths) if path in said)
    assert found.classes == plain.classes
    assert found.correction is not None
    assert (found.correction.file, found.correction.changed, found.correction.dropped) == ("fixes.csv", 1, 2)
    assert {gone.path for gone in found.ignored} >= {plain.paths[5], plain.paths[9]}
    assert "Corrections of fixes.csv: 1 label changed, 2 images dropped." in [f.message for f in audit(found).findings]


def test_other_spreadsheets_and_names_that_are_no_text_are_read(place: Path) -> None:
    wicked = b'photos/cat/\xff\n".png'
    os.link("photos/cat/00.png", wicked)
    Path("fixes.csv").write_bytes("note;NEW;old;path\nx;dog;cat;cat/01.png\n".encode("utf-16"))
    assert read("photos", corrections="fixes.csv").correction.changed == 1  # type: ignore[union-attr]
    found = read("photos", corrections=fixes((r"cat/\xff\x0a" + '".png', "cat", "dog")))
    assert found.labels[list(found.paths).index("cat/" + os.fsdecode(wicked).rpartition("/")[2])] == 1


GOOD = ("cat/00.png", "cat", "dog")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (
            [("cat/0.png", "cat", "dog")],
            r"fixes.csv, line 2: the data set has no image 'cat/0.png' \(there is 'cat/\d0\.png'\)\.",
        ),
        ([("/home/me/photos/dog/03.png", "dog", "cat")], r"line 2: .*there is 'dog/03.png'"),
        ([GOOD, ("cat/01.png", "dog", "cat")], "line 3: 'cat/01.png' is of the class 'cat' in the data set, not 'dog'"),
        ([("cat/01.png", "", "cat")], "line 2: 'cat/01.png' is of the class 'cat'"),
        ([("cat/01.png", "cat", "dgo")], r"no class 'dgo' \(there is 'dog'\)\. It has: cat, dog, größe.* write drop\."),
        ([GOOD, ("cat/00.png", "cat", "drop")], "line 3: 'cat/00.png' is already in fixes.csv, line 2"),
        ([], "fixes.csv corrects nothing"),
        ([("cat/\udcff.png", "cat", "dog")], "line 2: this is not UTF-8"),
        ([("cat/00.png", "cat")], "line 2: 2 fields, not 3"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(place: Path, ask, rows: list[Sequence[str]], said: str) -> None:
    fixes(*rows)
    told = ask("check", "photos", "--corrections", "fixes.csv")
    assert (told.code, told.out) == (2, "")
    assert re.search(said, told.err), told.err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the columns are nothing"),
        (b"path,old\ncat/00.png,cat\n", "the columns are 'path', 'old'"),
        (b"path,old,new,old\n", "the columns are"),
        (b"\x89PNG\r\n\x1a\n\0\0", "the columns are|cannot be read|not CSV"),
        (None, "there is no such file"),
    ],
)
def test_a_file_that_is_no_table_of_corrections_is_refused(place: Path, ask, content: bytes | None, said: str) -> None:
    if content is not None:
        Path("fixes.csv").write_bytes(content)
    told = ask("train", "photos", "--recipe", "tiny.toml", "--corrections", "fixes.csv", "--out", "run")
    assert told.code == 2
    assert re.search(said, told.err), told.err
    assert not Path("run").exists()


def test_a_folder_is_called_one(place: Path, ask) -> None:
    told = ask("check", "photos", "--corrections", "photos/cat")
    assert (told.code, "corrections 'photos/cat': it is a folder, not a file. Give the CSV file" in told.err) == (2, True)


def test_files_put_one_after_the_other_correct_what_was_corrected(place: Path) -> None:
    first, more = fixes(GOOD, ("dog/01.png", "dog", "cat")), fixes(("cat/00.png", "dog", "drop"), name="more.csv")
    Path("both.csv").write_bytes(first.read_bytes() + more.read_bytes())
    found = read("photos", corrections="both.csv").correction
    assert found is not None
    assert (found.changed, found.dropped) == (1, 1)
    Path("both.csv").write_bytes(first.read_bytes() + more.read_bytes() + more.read_bytes())
    with pytest.raises(UsageError, match=r"line 7: 'cat/00.png' is already in both.csv, line 5\."):
        read("photos", corrections="both.csv")


def test_no_image_may_be_left_and_a_class_may_be_called_drop(place: Path) -> None:
    fill(place / "tools", {"drop": 0, "lift": 1}, 2)
    found = read("tools", corrections=fixes(("lift/00.png", "lift", "drop"), ("lift/01.png", "lift", "")))
    assert found.correction is not None
    assert (found.counts().tolist(), found.correction.dropped) == ([3, 0], 1)
    rows = [(path, path.partition("/")[0], "") for path in read("tools").paths]
    with pytest.raises(UsageError, match="drops every image"):
        corrected(read("tools"), fixes(*rows))


def test_a_run_with_corrections_is_another_run_and_says_so(place: Path, ask) -> None:
    file = fixes(GOOD, ("dog/00.png", "dog", "drop"))
    words = ("train", "photos", "--recipe", "tiny.toml", "--set", "epochs=1", "--out", "run")
    assert ask(*words, "--corrections", str(file)).code == 0
    record = json.loads(Path("run/result.json").read_text())
    assert record["corrections"] == tb.check("photos", corrections=file).images.correction._asdict()  # type: ignore[union-attr]
    assert json.loads(Path("run/asked.json").read_text())["corrections"] == "fixes.csv: 1 label changed, 1 image dropped"
    assert "dropped by corrections" in Path("run/check.json").read_text()
    other = ask(*words)
    assert other.code == 2
    assert re.search(
        r"1 image is new \(dog/00.png\); 1 image is of another class \(cat/00.png\); corrections was fixes", other.err
    )
    file.write_text(file.read_text().replace("dog/00", "dog/01"))
    assert "holds another run" in ask(*words, "--corrections", str(file)).err
    # The labels decide, not the way they came about.
    file.write_text("path,old,new\ncat/00.png,cat,dog\n")
    one = request("photos", "tiny.toml", corrections=file)
    file.write_text("path,old,new\ncat/00.png,cat,dog\ncat/01.png,cat,cat\n")
    assert request("photos", "tiny.toml", corrections=file).key == one.key != request("photos", "tiny.toml").key


def test_a_stopped_run_goes_on_with_its_corrections(place: Path) -> None:
    from trickbag.runs import provenance

    wanted = request("photos", "tiny.toml", corrections=fixes(GOOD))
    assert wanted.source["corrections"] == str(place / "fixes.csv")
    assert request(recipe="tiny.toml", **wanted.source).key == wanted.key
    assert "corrections" not in provenance.fields(request("photos", "tiny.toml"))


def test_every_verb_that_reads_data_applies_them(place: Path, ask) -> None:
    file = str(fixes(GOOD, ("dog/00.png", "dog", "drop")))
    assert json.loads(ask("check", "photos", "--corrections", file, "--json").out)["classes"]["cat"] == {"unassigned": 11}
    planned = ask("train", "photos", "--recipe", "tiny.toml", "--corrections", file, "--plan").out
    assert sum(map(int, re.search(r"images: train (\d+), val (\d+), test (\d+)", planned).groups())) == 35  # type: ignore[union-attr]
    tb.train("photos", "tiny.toml", set_={"epochs": 1}, out="run")
    told = ask("evaluate", "run", "photos", "--corrections", file, "--json")
    found = json.loads(told.out)
    assert (found["n"], found["per_class"]["cat"]["images"], found["corrections"]["changed"]) == (35, 11, 1)
    assert "corrections of fixes.csv: 1 label changed, 1 image dropped" in told.err
    small = ("--recipe", "tiny.toml", "--set", "epochs=1", "--tricks", "ema", "--seeds", "2", "--out", "study")
    assert ask("study", "photos", *small, "--corrections", file).code == 0
    held = json.loads(Path("study/study.json").read_text())
    assert held["images"] == 35
    assert any(one["message"].startswith("Corrections of fixes.csv: 1 label changed") for one in held["check"])
    assert "is of another class" in ask("study", "photos", *small).err


def test_a_tar_is_not_touched_by_them(place: Path) -> None:
    with tarfile.open("photos.tar", "w") as tar:
        tar.add("photos", ".")
    before = Path("photos.tar").read_bytes()
    assert read("photos.tar", corrections=fixes(GOOD)).counts().tolist() == [11, 13, 12]
    assert read("photos.tar").counts().tolist() == [12, 12, 12]
    assert Path("photos.tar").read_bytes() == before
