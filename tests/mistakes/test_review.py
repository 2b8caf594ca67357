"""What a review finds of a run and of a study, beside what their files say, and what it refuses."""

import csv
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from album import fill, recipe_file
from PIL import Image

import trickbag as tb
from trickbag.data.images import Images
from trickbag.engine.crossfit import out_of_fold
from trickbag.ground.errors import TrickbagError, UsageError
from trickbag.runs.folder import kept_table
from trickbag.statistics.label_errors import ranked
from trickbag.statistics.neighbours import remoteness

KINDS = {"cat": 0, "dog": 1, "owl": 2}
SMALL = {"epochs": 6, "batch_size": 8}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Photos, one of which has a near copy in another class, a run and a study."""
    folder = tmp_path_factory.mktemp("review")
    fill(folder / "photos", KINDS, 14)
    rng = np.random.default_rng(5)
    for name in ("cat", "dog"):
        Image.fromarray(rng.integers(0, 255, (40, 40, 3), np.uint8).repeat(2, 0).repeat(2, 1)).save(
            folder / "photos" / name / "odd.png"
        )
    shutil.move(folder / "photos" / "cat" / "odd.png", folder / "photos" / "dog" / "twin.png")
    shutil.copy(folder / "photos" / "dog" / "twin.png", folder / "photos" / "owl" / "twin.png")
    with Image.open(folder / "photos" / "owl" / "twin.png") as twin:
        twin.resize((60, 60)).save(folder / "photos" / "owl" / "twin.png")
    recipe_file(folder / "tiny.toml")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRICKBAG_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        tb.train("photos", "tiny.toml", set_=SMALL, out="run")
        tb.study("photos", recipe="tiny.toml", set_=SMALL, tricks="ema", folds="1x3", out="study")
        yield folder


def test_a_review_of_a_run_says_what_its_files_say(place: Path, ask) -> None:
    found = tb.review("run")
    rows = list(csv.DictReader(Path("run/predictions.csv").read_text().splitlines()))
    assert found.confusion.sum() == len(rows)
    wrong = {row["path"]: row for row in rows if row["true"] != row["predicted"]}
    assert {one.path for one in found.wrong} == {*wrong}
    assert [one.probability for one in found.wrong] == sorted((one.probability for one in found.wrong), reverse=True)
    for one in found.wrong:
        assert (one.true, one.predicted, one.split) == tuple(wrong[one.path][key] for key in ("true", "predicted", "split"))
        assert one.probability == pytest.approx(float(wrong[one.path]["probability"]), abs=1e-6)
    record = json.loads(Path("run/result.json").read_text())
    for k, one in enumerate(found.per_class):
        parts = [record[split]["per_class"] for split in ("val", "test")]
        assert one.images == sum(part["count"][k] for part in parts)
        assert one.recall == pytest.approx(sum(part["count"][k] * part["recall"][k] for part in parts) / one.images)
        assert one.times == sum(w["true"] == one.name and w["predicted"] == one.taken_for for w in wrong.values())
    assert Path("run/review.html").read_text() == found.html()
    told = ask("review", "run", "--out", "other.html")
    assert told.code == 0
    assert ask("review", "run", "--out", "other.html").code == 0
    Path("notes.html").write_text("my notes on trickbag")
    assert ask("review", "run", "--out", "notes.html").code == 2
    assert Path("notes.html").read_text() == "my notes on trickbag"
    assert found.answer[0] in told.out
    assert Path("other.html").read_text() == found.html()
    assert "review of run" in repr(found)
    assert "probable label error" in found._repr_html_()


def test_near_copies_of_all_splits_and_what_is_unlike_all_others_are_listed(place: Path) -> None:
    found = tb.review("run")
    assert [set(pair.paths) for pair in found.copies] == [{"dog/twin.png", "owl/twin.png"}]
    assert {*found.copies[0].labels} == {"dog", "owl"}
    assert len(found.unlike) > 4
    assert [one.distance for one in found.unlike] == sorted((one.distance for one in found.unlike), reverse=True)


def test_a_study_judges_every_image_out_of_its_fold(place: Path) -> None:
    from trickbag.studies.record import Study

    found, study, table = tb.review("study"), Study.load("study"), kept_table(Path("study"))
    sums = dict[int, list[np.ndarray]]()
    for cell in (*study.row(study.arms[0]), *study.proofs(study.arms[0])):
        assert cell is not None
        with np.load(study.place.run(cell.key) / "predictions.npz") as arrays:
            logits = arrays["test_logits"].astype(float)
            p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
            for row, own, label in zip(arrays["test_rows"], p, arrays["test_labels"], strict=True):
                assert table[[*table][row]][0] == study.held.classes[label]
                sums.setdefault(int(row), []).append(own)
    rows = sorted(sums)
    assert found.confusion.sum() == len(rows) == sum(row[1] != "test" for row in table.values())
    p = np.array([np.mean(sums[row], axis=0) for row in rows])
    labels = np.array([found.classes.index(table[[*table][row]][0]) for row in rows])
    assert [one.path for one in found.label_errors] == [[*table][rows[n]] for n in ranked(labels, p)]
    assert found.total == len(table) == 45
    assert any("untrained network" in note for note in found.notes)
    assert not found.unlike


def test_what_cannot_be_reviewed_is_refused(place: Path, ask) -> None:
    for folder in ("photos", "nowhere"):
        told = ask("review", folder)
        assert told.code == 2
        assert "holds no finished run and no study" in told.err
    told = ask("review", str(next(Path("study/runs").glob("[!.]*"))))
    assert (told.code, "holds no trained classifier" in told.err) == (2, True)
    kept = Path("run/result.json").read_bytes()
    for out in (".", "", "run/result.json", "photos/a/00.png"):
        assert "is no name of a page" in ask("review", "run", "--out", out).err
    assert Path("run/result.json").read_bytes() == kept
    shutil.copytree("run", "torn")
    Path("torn/predictions.npz").write_bytes(b"PK")
    with pytest.raises(TrickbagError, match="damaged"):
        tb.review("torn")
    fill(Path("others"), {"x": 0, "y": 1}, 3)
    with pytest.raises(UsageError, match="none of the images that were judged"):
        tb.review("run", "others")


def test_photos_that_moved_or_changed_are_told_and_found_again(place: Path, tmp_path: Path) -> None:
    shutil.copytree("run", tmp_path / "run")
    shutil.copytree("photos", tmp_path / "moved")
    Path("photos").rename("away")
    try:
        found = tb.review(tmp_path / "run")
        assert any("--data DATA" in note for note in found.notes)
        assert (found.copies, found.unlike) == ((), ())
        assert "data:image" not in found.html()
        again = tb.review(tmp_path / "run", tmp_path / "moved")
        assert len(again.copies) == 1
        assert "data:image/jpeg" in again.html()
    finally:
        Path("away").rename("photos")
    changed = tmp_path / "moved" / again.wrong[0].path
    Image.new("RGB", (30, 30)).save(changed)
    assert any("1 image is gone or changed, of 45" in note for note in tb.review(tmp_path / "run", tmp_path / "moved").notes)


def test_corrections_of_a_review_apply_to_the_run_they_came_from(place: Path) -> None:
    found = tb.review("study")
    errors = [*found.label_errors][:2] or [tb.data.audit.LabelError("cat/00.png", "cat", "dog", 1, 0)]
    with Path("corrections.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "old", "new"), *((e.path, e.given, e.suggested) for e in errors)])
    checked = tb.check("photos", corrections="corrections.csv").images
    assert checked.correction is not None
    assert checked.correction.changed == len(errors)


def test_check_finds_planted_label_errors_by_the_features_of_a_run(place: Path, tmp_path: Path, ask) -> None:
    fill(tmp_path / "planted", KINDS, 24, seed=3)
    (tmp_path / "planted" / "cat" / "03.png").rename(tmp_path / "planted" / "owl" / "cat3.png")
    (tmp_path / "planted" / "dog" / "05.png").rename(tmp_path / "planted" / "cat" / "dog5.png")
    words = ("check", str(tmp_path / "planted"), "--labels", "--weights", "run", "--model", "cifar_resnet8")
    told = ask(*words)
    assert told.code == 0, told.err
    found = json.loads(ask(*words, "--json").out)["label_errors"]
    suggested = {one["path"]: (one["given"], one["suggested"]) for one in found}
    assert suggested["owl/cat3.png"] == ("owl", "cat")
    assert suggested["cat/dog5.png"] == ("cat", "dog")
    assert len(found) < 12
    assert f"probable label errors: {len(found)} of 72 images" in told.out
    assert f"{found[0]['path']}: {found[0]['given']}, rather {found[0]['suggested']}" in told.out
    assert [one["quality"] for one in found] == sorted(one["quality"] for one in found)
    assert "label_errors" not in json.loads(ask("check", "photos", "--json").out)


def test_classes_and_groups_of_few_images_are_judged_without_a_warning(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = np.array([0] * 20 + [1] * 20 + [2] * 2)
    groups = np.array([*range(38), 38, 38, 39, 39])
    names = tuple(f"{n}.png" for n in range(42))
    images = Images(tmp_path, names, labels, np.full(42, ""), groups, ("a", "b", "c"))
    features = rng.normal(size=(42, 4)) + 3 * np.eye(4)[labels]
    features[38:40] = 8 * np.eye(4)[3]
    p = out_of_fold(features, images, lambda event: None)
    np.testing.assert_allclose(p.sum(1), 1)
    assert (p.argmax(1) == labels)[:38].mean() > 0.9
    assert (p[38:40, 1] < 0.8).all(), "both of a group are judged by what learned from neither"
    assert p[-2:].tolist() == [[0, 0, 1]] * 2, "of a class that no other group has, nothing speaks against the label"
    one = replace(images, groups=np.zeros(42, int))
    with pytest.raises(UsageError, match="No class has 5 images"):
        out_of_fold(features, one, lambda event: None)


def test_check_without_weights_says_what_it_needs(place: Path, ask) -> None:
    fill(Path("few"), {"a": 0, "b": 1}, 3)
    for words, said in (
        (("photos", "--weights", "none", "--labels"), "give --weights FILE"),
        (("photos", "--weights", "run"), "Give --labels too"),
        (("few", "--labels", "--weights", "run"), "No class has 5 images"),
    ):
        told = ask("check", *words)
        assert told.code == 2
        assert said in told.err


def test_remoteness_is_the_mean_distance_to_the_nearest() -> None:
    x = np.random.default_rng(0).normal(size=(40, 5))
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    distances = np.sort(1 - unit @ unit.T, axis=1)[:, 1:11]
    np.testing.assert_allclose(remoteness(x), distances.mean(1), atol=1e-6)
    assert remoteness(np.ones((1, 3))).tolist() == [0.0]
    assert remoteness(np.zeros((3, 2))).tolist() == [1.0, 1.0, 1.0]
