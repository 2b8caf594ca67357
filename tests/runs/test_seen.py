"""No image that a run is judged on was trained on before: by the run itself, or by one that it builds on."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from album import TINY, fill, recipe_file

import trickbag as tb
from trickbag.data.images import Images
from trickbag.ground.events import Event, Note
from trickbag.runs import seen
from trickbag.runs.request import Request, request
from trickbag.runs.run import carry_out
from trickbag.studies.folds import Judging
from trickbag.studies.planning import Planner
from trickbag.terminal import cli

KINDS = {"1": 0, "2": 1, "11": 2}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRICKBAG_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Photos, more photos, a recipe, and two runs of it, with seeds 0 and 1."""
    folder = tmp_path_factory.mktemp("seen")
    fill(folder / "photos", KINDS, 20)
    fill(folder / "more", {"x": 0, "y": 2}, 6, seed=9)
    recipe_file(folder / "tiny.toml")
    recipe_file(folder / "tuned.toml", f'{TINY}weights = "first"\n')
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for seed, name in enumerate(("first", "second")):
            tb.train("photos", "tiny.toml", out=name, seed=seed)
        yield folder


@pytest.fixture(autouse=True)
def inside(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


def asked(data: str = "photos", seed: int = 1, tell: Any = None, **words: Any) -> Request:
    return request(data, "tiny.toml", seed=seed, **({"tell": tell} if tell else {}), **words)


def contents(images: Images, *splits: str) -> set[str]:
    return {content for split in splits for content in images.split(split).hashes}


def notes(told: list[Event]) -> str:
    return "\n".join(event.text for event in told if isinstance(event, Note))


@pytest.mark.parametrize(
    "words",
    [
        {"weights": "first"},
        {"weights": "first/model.safetensors"},
        {"with_": ["distill(teacher='first')"]},
        {"with_": ["distill(teacher='first', cached=True)"]},
        {"with_": ["distill(teacher='tuned.toml')"]},
        {"with_": ["ensemble('first')"]},
        {"with_": ["soup('first')"]},
        {"with_": ["pseudo_label(unlabelled='more', teacher='first')"]},
    ],
    ids=str,
)
def test_a_run_keeps_the_splits_of_the_run_that_it_builds_on(words: dict[str, Any]) -> None:
    first, told = asked(seed=0).data.images, list[Event]()
    assert contents(asked().data.images, "val", "test") & contents(first, "train"), "another seed divides otherwise"
    own = asked(tell=told.append, **words).data.images
    assert own.splits.tolist() == first.splits.tolist()
    assert "first trained on 42 of these 60 images: the splits are kept as they were then" in notes(told)


def test_a_run_that_builds_on_one_that_did_may_not_judge_on_what_that_was_trained_on(tmp_path: Path) -> None:
    shutil.copytree("photos", tmp_path / "grown")
    fill(tmp_path / "grown", KINDS, 40, seed=5)  # the first 20 of each class are replaced, so that all is new
    for name in KINDS:
        for file in sorted(Path("photos", name).iterdir()):
            shutil.copy(file, tmp_path / "grown" / name / f"old-{file.name}")
    first = asked(seed=0).data.images
    grown = asked(str(tmp_path / "grown"), weights="first").data.images
    assert contents(first, "test") < contents(grown, "test")
    assert contents(first, "val") < contents(grown, "val")
    new = grown.take([row for row, content in enumerate(grown.hashes) if content not in first.hashes])
    assert [len(new.split(split)) for split in ("train", "val", "test")] == [84, 12, 24], "new ones by the shares"
    middle = tb.train(tmp_path / "grown", "tiny.toml", weights="first", set_={"epochs": 0}, out=tmp_path / "middle", seed=4)
    last = asked(seed=7, weights=str(middle.folder)).data.images
    assert not contents(last, "val", "test") & contents(first, "train"), "what the first knew, the second has from it"


def test_runs_that_leave_nothing_to_judge_are_an_error(tmp_path: Path) -> None:
    shutil.copytree("first", tmp_path / "all")
    every = seen.hashes(asked().data.images.hashes)
    (tmp_path / "all" / seen.IMAGES).write_bytes(seen.Seen(np.sort(every), every[:0], every[:0]).packed())
    with pytest.raises(tb.UsageError, match="no image is left for val") as caught:
        asked(with_=[f"ensemble('first', '{tmp_path / 'all'}')"])
    assert f"trained on by first, {tmp_path / 'all'}" in str(caught.value)


def given(root: Path) -> Path:
    """The first run's photos with splits of one's own: half of each class is the test, a fifth validation."""
    for name in KINDS:
        for number, file in enumerate(sorted(Path("photos", name).iterdir())):
            split = "test" if number % 2 else "val" if number % 5 == 0 else "train"
            (root / split / name).mkdir(parents=True, exist_ok=True)
            shutil.copy(file, root / split / name / file.name)
    return root


def test_a_given_test_split_that_was_trained_on_is_told_with_its_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, told = given(tmp_path / "given"), list[Event]()
    wanted = request(data, "tiny.toml", weights="first", set_={"epochs": 0}, tell=told.append)
    trained = contents(asked(seed=0).data.images, "train")
    number = {split: len(trained & contents(wanted.data.images, split)) for split in ("val", "test")}
    assert number["test"] > 10
    assert f"first trained on {number['test']} of the 30 test images: the test score is too good" in notes(told)
    result = carry_out(wanted, tmp_path / "run")
    assert {split: result.record["splits"][split]["trained_before"] for split in number} == number
    assert number["test"] == next(
        len(f["paths"]) for f in json.loads((result.folder / "check.json").read_text())["findings"] if " test " in f["message"]
    )
    asked_for = ["--recipe", "tiny.toml", "--weights", "first", "--set", "epochs=0", "--out", str(result.folder)]
    cli.app(["train", str(data), *asked_for], standalone_mode=False)
    assert f"{number['test']} of the 30 test images were trained on by a run that this one" in capsys.readouterr().out


def test_a_fold_has_a_teacher_of_its_own() -> None:
    """A teacher that another fold has trained knows this fold's images."""
    wanted = asked(with_=["distill(teacher='tiny.toml')"])
    images, judging = wanted.data.images, Judging("val", 3, 0, 0, 0.1)
    blocks = [replace(wanted, data=wanted.data._replace(images=judging.table(images, turn))) for turn in (0, 1)]
    assert blocks[0].key != blocks[1].key


@pytest.mark.parametrize(("words", "images"), [({}, 6), ({"folds": "1x3"}, 48)])
def test_a_study_tells_what_the_runs_of_its_arms_were_trained_on(words: dict[str, Any], images: int) -> None:
    told: list[Event] = []
    fields = {"recipe": "tiny.toml", "tricks": ["distill(teacher='first')"], "seed": 1, "seeds": 1}
    held = Planner("photos", None, None, None, told.append, fields | words)
    held.planned()
    judged = contents(held.data.images, *(("train", "val") if words else ("val",)))
    number = len(judged & contents(asked(seed=0).data.images, "train"))
    message = f"first trained on {number} of the {images} validation images"
    assert number > 0
    assert message in notes(told)
    assert any(message in finding.message for finding in held.wanted.audit.findings), "the report has it too"


def test_an_evaluation_tells_what_was_trained_on_and_the_score_without_it(capsys: pytest.CaptureFixture[str]) -> None:
    found = tb.evaluate("first", "photos")
    record = tb.Result.load("first").record
    assert (found.scores.n, found.trained_on, found.chosen_on) == (60, 42, 6)
    assert found.unseen is not None
    assert (found.unseen.n, found.unseen.top1) == (12, pytest.approx(record["test"]["top1"]))
    cli.app(["evaluate", "first", "photos"], standalone_mode=False)
    said = capsys.readouterr().out
    assert "the run was trained on 42 and was validated on 6 of these 60 images, so the score above is too good" in said
    assert f"without them: top-1 {100 * record['test']['top1']:.1f} %" in said


def test_an_evaluation_on_new_images_has_nothing_to_tell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path / "new", KINDS, 3, seed=77)
    found = tb.evaluate("first", tmp_path / "new")
    assert (found.trained_on, found.chosen_on, found.unseen) == (0, 0, None)
    cli.app(["evaluate", "first", str(tmp_path / "new")], standalone_mode=False)
    assert "too good" not in capsys.readouterr().out


def test_names_and_places_do_not_hide_a_known_image_and_other_runs_count(tmp_path: Path) -> None:
    for name in KINDS:
        (tmp_path / "moved" / name).mkdir(parents=True)
        for number, file in enumerate(sorted(Path("photos", name).iterdir())):
            shutil.copy(file, tmp_path / "moved" / name / f"{99 - number}.png")
    assert tb.evaluate("first", tmp_path / "moved").trained_on == 42
    both = contents(asked(seed=0).data.images, "train") | contents(asked(seed=1).data.images, "train")
    assert len(both) > 42
    assert tb.evaluate("first", tmp_path / "moved", with_=["ensemble('second')"]).trained_on == len(both)


def test_pseudo_labelled_images_count_as_trained_on(tmp_path: Path) -> None:
    spelled = "pseudo_label(unlabelled='more', teacher='first', threshold=0.01)"
    run = tb.train("photos", "tiny.toml", with_=[spelled], set_={"epochs": 0}, out=tmp_path / "run")
    for name in ("x", "y"):
        shutil.copytree(Path("more", name), tmp_path / "judged" / {"x": "1", "y": "2"}[name])
    assert tb.evaluate(run.folder, tmp_path / "judged").trained_on == 12


def test_what_a_teacher_of_this_run_alone_was_trained_on_counts(tmp_path: Path) -> None:
    run = tb.train("photos", "tiny.toml", with_="data_pruning(keep=0.5), distill", set_={"epochs": 1}, out=tmp_path / "run")
    assert tb.evaluate(run.folder, "photos").trained_on == 42


def test_machine_readable_scores_have_a_name_beside_each_number(capsys: pytest.CaptureFixture[str]) -> None:
    cli.app(["evaluate", "first", "photos", "--json"], standalone_mode=False)
    told = json.loads(capsys.readouterr().out)
    logits = np.array(tb.evaluate("first", "photos").scores.confusion)
    order = sorted(KINDS)
    assert order == ["1", "11", "2"], "not the order in which people count"
    assert told["per_class"].keys() == set(KINDS)
    assert {name: values["images"] for name, values in told["per_class"].items()} == dict.fromkeys(KINDS, 20)
    for name, row in zip(order, logits, strict=True):
        assert told["confusion"][name] == {said: n for said, n in zip(order, row.tolist(), strict=True) if n}
        assert told["per_class"][name]["recall"] == pytest.approx(told["confusion"][name].get(name, 0) / 20)
    assert told["trained_on"] == 42
    assert told["unseen"]["n"] == 12
