"""A run's folder whose files fit their manifest and still make no sense, were edited, or name what was judged."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from album import fill, recipe_file

import trickbag as tb
from trickbag.ground import store
from trickbag.ground.errors import TrickbagError, UsageError
from trickbag.ground.events import EpochDone
from trickbag.runs.outcome import csv_of

NAMES = {"b,ag/=red": 0, 'c"\nd': 1, "shoe/ré": 2}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("damage")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRICKBAG_CACHE", str(folder / "cache"))
        fill(folder / "photos", NAMES, 12)
        recipe_file(folder / "tiny.toml")
        yield folder


@pytest.fixture(scope="module")
def finished(place: Path) -> Path:
    return tb.train(place / "photos", place / "tiny.toml", out=place / "finished", with_=["calibrate"]).folder


def edited(run: Path, to: Path, name: str, field: str, value: Any) -> Path:
    """A copy of a run with one field of a JSON file at another value, sealed anew."""
    shutil.copytree(run, to)
    content = json.loads((to / name).read_text())
    *path, last = field.split(".")
    inner = content
    for key in path:
        inner = inner[key]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    (to / name).write_text(json.dumps(content))
    store.seal(to)
    return to


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("classes", None, "classes: field required"),
        ("classes", ["a", "b"], "make no network that can be used"),
        ("classes", ["a", "a", "b"], "a class is named twice"),
        ("channels", "3", "channels: input should be a valid integer"),
        ("channels", 4, "mean: there are 3 values for 4 channels"),
        ("std", [0.5, 0.5, 0], "std.2: input should be greater than 0"),
        ("size", 10**400, "size: input should be less than or equal to 4096"),
        ("precision", "int8", "precision: input should be"),
        ("model", "cifar_resnet20", "make no network that can be used"),
        ("state", {"calibrate": {"temperature_": "hot"}}, "make no network that can be used"),
        ("state", {"calibrate": {"temperature_": 0.0}}, "not all finite"),
        ("state", [], "state: input should be a valid dictionary"),
        ("tricks", [7], "tricks.0: input should be a valid string"),
    ],
)
def test_a_card_that_makes_no_sense_is_refused(finished: Path, tmp_path: Path, field: str, value: Any, says: str) -> None:
    run = edited(finished, tmp_path / "run", "model.json", field, value)
    with pytest.raises(TrickbagError) as refused:
        tb.load(run)
    assert "model.json" in str(refused.value)
    assert says in str(refused.value)
    assert "again" in str(refused.value)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("test", None, "test: field required"),
        ("trained", None, "trained: field required"),
        ("test.top1", 83, "test.top1: input should be less than or equal to 1"),
        ("val.nll", None, "val.nll: field required"),
        ("test.top1_interval", [0.1], "test.top1_interval: list should have at least 2 items"),
        ("val.per_class.count", [1], "the lists differ in length"),
        ("seconds", {}, "seconds: input should be a valid number"),
        ("kept_epoch", -1, "kept_epoch: input should be greater than or equal to 0"),
        ("request", 7, "request: input should be a valid string"),
    ],
)
def test_a_result_that_makes_no_sense_is_refused(finished: Path, tmp_path: Path, place: Path, field, value, says) -> None:
    run = edited(finished, tmp_path / "run", "result.json", field, value)
    for act in (
        lambda: tb.Result.load(run),
        lambda: tb.train(place / "photos", place / "tiny.toml", out=run, with_=["calibrate"]),
    ):
        with pytest.raises(TrickbagError, match=r"result\.json is damaged: .*Train the run again") as refused:
            act()
        assert says in str(refused.value)


@pytest.mark.parametrize("manifest", [{"files": {}}, {"files": {"log.jsonl": None}}, {}, []])
def test_a_manifest_that_lists_nothing_seals_nothing(finished: Path, tmp_path: Path, place: Path, manifest: Any) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    (run / "MANIFEST.json").write_text(json.dumps(manifest))
    (run / "model.json").write_text((run / "model.json").read_text().replace("0.25", "0.5"))
    for act in (
        lambda: tb.load(run),
        lambda: tb.Result.load(run),
        lambda: tb.train(place / "photos", place / "tiny.toml", out=run, with_=["calibrate"]),
    ):
        with pytest.raises(TrickbagError, match=r"MANIFEST\.json (does not list|is damaged)"):
            act()


class Killed(BaseException):
    pass


def kill(event: object) -> None:
    if isinstance(event, EpochDone):
        raise Killed


def begun(place: Path, run: Path) -> Path:
    """A run that was killed after its first epoch."""
    with pytest.raises(Killed):
        tb.train(place / "photos", place / "tiny.toml", out=run, progress=kill)
    return run


def test_a_stopped_run_refuses_a_recipe_that_was_edited_since(place: Path, tmp_path: Path) -> None:
    run = begun(place, tmp_path / "run")
    file = run / "recipe.toml"
    text = file.read_text()
    file.write_text(text.replace("lr = 0.05", "lr = 0.5"))
    with pytest.raises(
        UsageError, match=r"recipe\.toml was edited after the run began: lr is 0\.5 and was 0\.05\. Put it back"
    ):
        tb.train(place / "photos", place / "tiny.toml", out=run)
    file.write_text(f"# a note of mine\n{text}")
    straight = tb.train(place / "photos", place / "tiny.toml", out=tmp_path / "straight")
    resumed = tb.train(place / "photos", place / "tiny.toml", out=run)
    assert (run / "model.safetensors").read_bytes() == (straight.folder / "model.safetensors").read_bytes()
    assert resumed.record["recipe_key"] == straight.record["recipe_key"]


def test_what_a_stopped_run_was_begun_with_cannot_be_edited_either(place: Path, tmp_path: Path) -> None:
    run = begun(place, tmp_path / "run")
    file = run / ".work" / "request.json"
    for old, new in (("0.05", "0.5"), ("digest", "dijest"), ("{", "[")):
        content = file.read_text()
        assert old in content
        file.write_text(content.replace(old, new))
        with pytest.raises(TrickbagError, match=r"request\.json is damaged: .* Remove the folder, or choose another out"):
            tb.train(place / "photos", place / "tiny.toml", out=run)
        file.write_text(content)
    (run / "recipe.toml").unlink()  # killed before it was written
    tb.train(place / "photos", place / "tiny.toml", out=run)
    assert tb.Recipe.load(run / "recipe.toml").lr == 0.05


def test_a_checkpoint_of_another_shape_is_refused_in_a_sentence(place: Path, tmp_path: Path) -> None:
    run = begun(place, tmp_path / "run")
    for state in ({}, {"loop": {"epoch": 1}}, {"loop": []}):
        store.Checkpoints(run / ".work").save(2, state)
        with pytest.raises(TrickbagError, match=r"does not fit this training, as one of another version of trickbag"):
            tb.train(place / "photos", place / "tiny.toml", out=run)
    with store.writing(run / ".work" / "step-00000003") as folder:
        store.write(folder / "state.json", "[")
        store.save_tensors(folder / "state.safetensors", {})
    store.remove(run / ".work" / "step-00000002")
    told: list[str] = []
    tb.train(place / "photos", place / "tiny.toml", out=run, progress=lambda event: told.append(str(event)))
    assert [text for text in told if "was removed; training starts from the beginning" in text]


def test_a_killed_removal_of_the_checkpoints_is_finished_later(finished: Path, tmp_path: Path, place: Path) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    (run / "..work.4711.part" / "step-00000004").mkdir(parents=True)
    tb.train(place / "photos", place / "tiny.toml", out=run, with_=["calibrate"])
    assert [path.name for path in run.iterdir() if path.name.startswith(".")] == []


def test_predictions_name_each_image_its_class_and_what_was_said(finished: Path, place: Path) -> None:
    with (finished / "predictions.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    with np.load(finished / "predictions.npz", allow_pickle=False) as arrays:
        held = dict(arrays)
    classes = json.loads((finished / "model.json").read_text())["classes"]
    assert set(classes) == set(NAMES)
    for split in ("val", "test"):
        own = [line for line in lines if line["split"] == split]
        assert [line["true"] for line in own] == [classes[label] for label in held[f"{split}_labels"]]
        assert [line["predicted"] for line in own] == [classes[k] for k in held[f"{split}_logits"].argmax(1)]
        assert all((place / "photos" / line["path"]).is_file() and line["path"].startswith(line["true"]) for line in own)
        logits = np.exp(held[f"{split}_logits"].astype(float))
        assert [float(line["probability"]) for line in own] == pytest.approx((logits / logits.sum(1)[:, None]).max(1), abs=1e-6)
    with (finished / "confusion.csv").open(encoding="utf-8", newline="") as file:
        cells = [(c["split"], c["true"], c["predicted"]) for c in csv.DictReader(file) for _ in range(int(c["images"]))]
    assert sorted(cells) == sorted((line["split"], line["true"], line["predicted"]) for line in lines)


def test_names_that_are_no_utf8_keep_their_bytes() -> None:
    assert csv_of(("path",), [["caf\udce9.png"], ["=1+1"]]) == b"path\ncaf\xe9.png\n=1+1\n"


def test_what_result_json_takes_does_not_grow_with_the_square_of_the_classes(finished: Path) -> None:
    record = json.loads((finished / "result.json").read_text())

    def numbers(value: Any) -> int:
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        return sum(map(numbers, inner)) + (not isinstance(value, dict | list))

    for split in ("val", "test"):
        assert numbers(record[split]) <= 3 * len(NAMES) + 20


def test_the_folder_of_an_older_version_is_read_or_refused_in_a_sentence(finished: Path, tmp_path: Path) -> None:
    """Then the confusion matrix was in result.json, and no file named the images."""
    dense = edited(finished, tmp_path / "dense", "result.json", "test.confusion", [[1, 0, 0]] * 3)
    for name in ("predictions.csv", "confusion.csv"):
        (dense / name).unlink()
    store.seal(dense)
    assert tb.Result.load(dense).record == tb.Result.load(finished).record
    assert tb.load(dense).card.model == "cifar_resnet8"
