"""Whole runs: what lies in a run's folder, that prediction is what was measured, and what other trainers get wrong."""

import copy
import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from album import TINY, fill, recipe_file
from PIL import Image
from reference import norm_statistics
from safetensors.torch import load_file, save_file
from sklearn.metrics import accuracy_score, log_loss
from torch.nn.modules.batchnorm import _BatchNorm

import trickbag as tb
from trickbag.engine.judge import Judge
from trickbag.engine.loop import Judged, Loop, Step
from trickbag.ground import store
from trickbag.ground.errors import TrickbagError
from trickbag.ground.events import Doing, EpochDone, Event
from trickbag.ground.streams import generator
from trickbag.laboratory import lab
from trickbag.runs import classifier
from trickbag.runs.request import request
from trickbag.trick import Batch
from trickbag.tricks import parse

KINDS = {"bag/red": 0, "c": 1, "shoe/red": 2}
FILES = {
    "recipe.toml", "result.json", "model.safetensors", "model.json", "predictions.npz", "log.jsonl", "check.json", "curves.png",
    "asked.json", "images.csv.gz", "images.npz",
    "confusion.png", "confusion.csv", "predictions.csv", "MANIFEST.json",
}  # fmt: skip
LEARNED = {"epochs": 10, "lr": 0.1}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRICKBAG_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    fill(folder / "photos", KINDS, 24)
    recipe_file(folder / "tiny.toml")
    return folder


@pytest.fixture(scope="module")
def finished(place: Path) -> tb.Result:
    """A run that has learnt the three textures, with tricks that act at prediction."""
    asked = {"with_": ["flip_tta", "calibrate"], "set_": LEARNED}
    return tb.train(place / "photos", place / "tiny.toml", out=place / "finished", **asked)


def arrays(run: tb.Result) -> dict[str, Any]:
    with np.load(run.folder / "predictions.npz", allow_pickle=False) as stored:
        return dict(stored)


def paths(data: Path, recipe: Path, run: tb.Result, split: str) -> list[Path]:
    """The files of a split, by the row ids that the run stored."""
    images = request(data, recipe, seed=run.record["seed"]).data.images
    return [images.path(row) for row in arrays(run)[f"{split}_rows"]]


def assert_predicts_what_was_measured(data: Path, recipe: Path, run: tb.Result) -> None:
    """Predictions from files are the stored ones: the same preprocessing, the same tricks, the same order of classes."""
    logits = torch.from_numpy(arrays(run)["test_logits"])
    loaded = tb.load(run.folder)
    predicted = list(loaded.predict(paths(data, recipe, run, "test"), top=99))
    assert [loaded.classes.index(p.classes[0]) for p in predicted] == logits.argmax(1).tolist()
    probabilities = [[p.probabilities[p.classes.index(name)] for name in loaded.classes] for p in predicted]
    torch.testing.assert_close(torch.tensor(probabilities), logits.softmax(1), rtol=0, atol=1e-5)


def test_a_finished_runs_folder_is_the_contract(finished: tb.Result) -> None:
    folder, record = finished.folder, json.loads((finished.folder / "result.json").read_text())
    assert {path.name for path in folder.iterdir()} == FILES
    manifest = json.loads((folder / "MANIFEST.json").read_text())["files"]
    assert set(manifest) == FILES - {"MANIFEST.json"}
    for name, known in manifest.items():
        content = (folder / name).read_bytes()
        assert known == {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    assert record == finished.record
    assert record["recipe_key"] == tb.Recipe.load(folder / "recipe.toml").key
    assert record["seed"] == 0
    assert record["epochs"] == 10
    assert record["seconds"] > 0
    assert record["images_per_second"] > 0
    assert len(record["data_fingerprint"]) == 32
    assert {"torch", "python", "cores", "device"} <= record["environment"].keys()
    for name in ("curves.png", "confusion.png"):
        with Image.open(folder / name) as image:
            assert min(image.size) > 100


def test_predictions_are_the_truth_that_result_json_tells_of(finished: tb.Result) -> None:
    stored = arrays(finished)
    assert set(stored) == {f"{split}_{what}" for split in ("val", "test") for what in ("logits", "labels", "rows")}
    for split in ("val", "test"):
        scores, labels = finished.record[split], stored[f"{split}_labels"]
        logits = torch.from_numpy(stored[f"{split}_logits"]).double()
        assert scores["n"] == len(labels) == len(stored[f"{split}_rows"])
        assert scores["top1"] == pytest.approx(accuracy_score(labels, logits.argmax(1)))
        assert scores["nll"] == pytest.approx(log_loss(labels, logits.softmax(1).numpy(), labels=range(3)), rel=1e-4)
        assert {"macro_recall", "macro_f1", "top5", "brier", "ece", "per_class", "top1_interval"} <= scores.keys()
    assert not set(stored["val_rows"]) & set(stored["test_rows"])
    assert finished.record["test"]["top1"] > 0.8


def test_the_model_card_holds_what_prediction_needs(finished: tb.Result) -> None:
    card = json.loads((finished.folder / "model.json").read_text())
    assert card["model"] == "cifar_resnet8"
    assert card["classes"] == sorted(KINDS)
    assert (card["size"], card["channels"], card["mean"], card["std"]) == (16, 3, [0.5] * 3, pytest.approx([0.25] * 3))
    assert card["tricks"] == ["flip_tta", "calibrate"]
    assert {"crop_share", "kept", "precision", "channels_last", "state"} <= card.keys()


def test_the_log_tells_epochs_and_never_the_test_split(finished: tb.Result) -> None:
    lines = [json.loads(line) for line in (finished.folder / "log.jsonl").read_text().splitlines()]
    epochs = [line for line in lines if line["kind"] == "epoch"]
    assert [line["epoch"] for line in epochs] == list(range(1, 11))
    assert all({"step", "t", "loss", "lr", "val", "kept", "seconds"} <= line.keys() for line in epochs)
    assert all("test" not in line for line in lines)
    best = max(epochs, key=lambda line: (line["val"]["top1"], -line["val"]["nll"], -line["epoch"]))
    assert finished.record["kept_epoch"] == best["epoch"] == [line for line in epochs if line["kept"]][-1]["epoch"]


def test_files_are_predicted_as_they_were_measured(place: Path, finished: tb.Result) -> None:
    assert_predicts_what_was_measured(place / "photos", place / "tiny.toml", finished)


def test_classes_of_the_same_name_in_two_folders_stay_two(place: Path, finished: tb.Result) -> None:
    fresh = fill(place / "fresh", KINDS, 11, seed=5)
    for name in ("shoe/red", "bag/red"):
        predicted = [p.classes[0] for p in tb.load(finished.folder).predict([fresh / name])]
        assert len(predicted) == 11
        assert predicted.count(name) >= 9
    scores = tb.evaluate(finished.folder, fresh).scores
    assert scores.n == 33
    assert scores.top1 > 0.8


def test_the_place_in_a_batch_changes_no_prediction(place: Path, finished: tb.Result) -> None:
    """35 images make a whole batch of 32 and an odd last one of 3; each must be its own image, mirrored for flip_tta."""
    files = sorted((place / "photos").rglob("*.png"))[:35]
    loaded = tb.load(finished.folder)
    together = list(loaded.predict(files, top=3))
    assert [p.path for p in together] == list(map(str, files))
    for row in (0, 31, 32, 34):
        (alone,) = loaded.predict([files[row]], top=3)
        assert alone.classes == together[row].classes
        assert alone.probabilities == pytest.approx(together[row].probabilities, abs=1e-5)


def test_the_same_call_again_returns_without_training(place: Path, finished: tb.Result) -> None:
    def written() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in finished.folder.iterdir()}

    told: list[Event] = []
    before = written()
    asked = {"with_": ["calibrate", "flip_tta"], "set_": LEARNED}
    again = tb.train(place / "photos", place / "tiny.toml", out=finished.folder, progress=told.append, **asked)
    assert again == finished
    assert written() == before
    assert not [e for e in told if isinstance(e, EpochDone) or (isinstance(e, Doing) and e.task.startswith("epoch"))]


def test_the_test_split_is_looked_at_once(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    real = Judge.outputs

    def watched(self: Judge, model: Any, split: str, *rest: Any) -> Any:
        looked.append(split)
        return real(self, model, split, *rest)

    monkeypatch.setattr(Judge, "outputs", watched)
    tb.train(place / "photos", place / "tiny.toml", out=place / "once", with_=["ema", "knn", "calibrate"])
    assert looked.count("test") == 1
    assert looked[-1] == "test"


def test_the_last_epoch_is_kept_where_it_is_wanted(place: Path) -> None:
    run = tb.train(place / "photos", place / "tiny.toml", out=place / "last", set_={"keep": "last", "epochs": 3, "lr": 3.0})
    lines = store.lines(run.folder / "log.jsonl")
    assert run.record["kept_epoch"] == 3
    assert all(line["kept"] for line in lines if line["kind"] == "epoch")
    scores = [line["val"]["top1"] for line in lines if line["kind"] == "epoch"]
    assert run.record["val"]["top1"] == scores[-1]


def test_a_validation_folder_without_the_first_class_shifts_nothing(place: Path) -> None:
    data, kinds = place / "gap", {"a": 0, "b": 1, "c": 2}
    fill(data / "train", kinds, 16)
    fill(data / "valid", {"b": 1, "c": 2}, 6, seed=1)
    fill(data / "Test", kinds, 7, seed=2)
    run = tb.train(data, place / "tiny.toml", out=place / "gap-run", set_=LEARNED)
    assert set(arrays(run)["val_labels"]) == {1, 2}
    assert arrays(run)["test_labels"].tolist() == [0] * 7 + [1] * 7 + [2] * 7
    assert run.record["test"]["top1"] > 0.8
    assert run.record["val"]["top1"] > 0.8
    for name in kinds:
        predicted = [p.classes[0] for p in tb.load(run.folder).predict([data / "Test" / name])]
        assert predicted.count(name) >= 5
    assert tb.evaluate(run.folder, data / "valid").scores.top1 == pytest.approx(run.record["val"]["top1"])


def test_an_unreadable_file_is_never_trained_on(place: Path) -> None:
    """The run is, to the bit, that on a folder where the file never was."""
    clean, dirty = fill(place / "clean", KINDS, 12), fill(place / "dirty", KINDS, 12)
    bad = dirty / "c" / "zz.png"
    bad.write_bytes((dirty / "c" / "00.png").read_bytes()[:300])
    without = tb.train(clean, place / "tiny.toml", out=place / "clean-run")
    run = tb.train(dirty, place / "tiny.toml", out=place / "dirty-run")
    assert json.loads((run.folder / "check.json").read_text())["left_out"] == {"c/zz.png": "truncated"}
    assert lab.same(*(load_file(folder / "model.safetensors") for folder in (run.folder, without.folder)))
    assert np.array_equal(arrays(run)["test_logits"], arrays(without)["test_logits"])
    with pytest.raises(TrickbagError, match=r"zz\.png cannot be predicted: truncated"):
        list(tb.load(run.folder).predict([bad]))


@pytest.mark.parametrize("channels", [1, 4])
def test_images_of_other_channels_are_trained_and_predicted(place: Path, channels: int) -> None:
    data = fill(place / f"of-{channels}", KINDS, 12, channels=channels)
    run = tb.train(data, place / "tiny.toml", out=place / f"run-{channels}")
    assert json.loads((run.folder / "model.json").read_text())["channels"] == channels
    assert_predicts_what_was_measured(data, place / "tiny.toml", run)


def test_training_goes_on_from_a_runs_weights(place: Path) -> None:
    first = tb.train(place / "photos", place / "tiny.toml", out=place / "first", set_={"epochs": 4})
    taken = tb.train(place / "photos", place / "tiny.toml", out=place / "taken", weights=first.folder, set_={"epochs": 0})
    np.testing.assert_allclose(arrays(taken)["test_logits"], arrays(first)["test_logits"], rtol=0, atol=1e-6)
    assert (taken.record["epochs"], taken.record["kept_epoch"]) == (0, 0)


def turned(run: Path, to: Path) -> Path:
    """The same classifier with its classes in the opposite order."""
    shutil.copytree(run, to)
    card, tensors = json.loads((to / "model.json").read_text()), load_file(to / "model.safetensors")
    card["classes"].reverse()
    for name in ("fc.weight", "fc.bias"):
        tensors[name] = tensors[name].flip(0)
    save_file(tensors, to / "model.safetensors")
    (to / "model.json").write_text(json.dumps(card))
    store.seal(to)
    return to


def test_a_teacher_answers_in_the_students_classes_and_normalisation(place: Path) -> None:
    teacher = recipe_file(
        place / "teacher.toml", TINY.replace("mean = [0.5]", "mean = [0.4]").replace("std = [0.25]", "std = [0.3]")
    )
    taught = tb.train(place / "photos", place / "tiny.toml", out=place / "taught", with_=[f"distill(teacher={str(teacher)!r})"])
    (run,) = place.glob("photos-teacher-*")
    assert tb.Recipe.load(run / "recipe.toml").mean == (0.4,)
    other = turned(run, place / "turned")

    x = torch.rand(5, 3, 16, 16, generator=generator(0, "pixels"))
    ours = ((0.5,) * 3, (0.25,) * 3)
    theirs = tb.load(run).predict_batch((x - 0.4) / 0.3).logits
    for folder in (run, other):
        answers = classifier.teacher(folder, sorted(KINDS), ours)((x - 0.5) / 0.25).logits
        torch.testing.assert_close(answers, theirs, rtol=0, atol=1e-4)
    assert tb.load(other).classes == tuple(sorted(KINDS, reverse=True))

    for number, folder in enumerate((run, other)):
        spec = f"distill(teacher={str(folder)!r})"
        same = tb.train(place / "photos", place / "tiny.toml", out=place / f"taught-{number}", with_=[spec])
        np.testing.assert_allclose(arrays(same)["test_logits"], arrays(taught)["test_logits"], rtol=0, atol=1e-5)


def trained_to_an_epoch(made: Loop) -> None:
    next(event for event in made.train() if isinstance(event, Judged))


def test_the_best_epoch_survives_a_resume_and_a_worse_one(tmp_path: Path) -> None:
    stopped = lab.loop(lab.recipe(epochs=3))
    trained_to_an_epoch(stopped)
    state = copy.deepcopy(stopped.state())
    state["best"][""]["rank"] = [1.0, 0.0]  # no epoch can be better
    with store.writing(tmp_path / "state") as folder:
        store.save_state(folder, state)
    resumed = lab.loop(lab.recipe(epochs=3))
    resumed.load(store.load_state(tmp_path / "state"))
    assert [bool(event.kept) for event in resumed.train() if isinstance(event, Judged)] == [False, False]
    assert resumed.best[""]["epoch"] == 1
    assert lab.same(resumed.best[""]["model"], stopped.best[""]["model"])


def test_views_at_test_time_are_of_the_same_image() -> None:
    made = lab.loop(lab.recipe("flip_tta", "crop_tta(crops=10)", epochs=1))
    trained_to_an_epoch(made)
    sizes = {}
    for made.judge.batch_size in (1, 5, 32):
        sizes[made.judge.batch_size] = made.judge.outputs(made.model, "test", made.tricks)[1]
    for size in (5, 32):
        torch.testing.assert_close(sizes[size], sizes[1], rtol=0, atol=1e-5)
    assert sizes[1].std(0).min() > 1e-3, "the images must not look alike to the network"


def test_an_average_is_judged_with_norm_statistics_of_its_own() -> None:
    trained = lab.follow(lab.loop(lab.recipe("ema(half_life=0.5)", keep="last")))
    made, live = trained.loop, trained.live
    kept, average = made.best["ema(half_life=0.5)"]["model"], copy.deepcopy(made.tricks[0].average_)
    for name, statistics in norm_statistics(average, [batch.x for batch in made.judge.batches()]).items():
        for key, expected in zip((f"{name}.running_mean", f"{name}.running_var"), statistics, strict=True):
            torch.testing.assert_close(kept[key].double(), expected, rtol=1e-4, atol=1e-5)
            assert not torch.allclose(live[key].double(), expected, rtol=1e-3), "the live statistics would do as well"


def test_an_average_works_on_a_run_of_60_steps() -> None:
    for spec in ("ema", "swa(start=0.5)"):
        trained = lab.train(spec, epochs=20, keep="last")
        assert trained.loop.step == 60
        labels = trained.loop.judge.loaders["test"].labels
        assert float((trained.logits.argmax(1) == labels).float().mean()) > 0.9


def test_mixing_and_smoothing_commute() -> None:
    batch = Batch(torch.rand(5, 3, 8, 8), torch.eye(5)[torch.tensor([0, 0, 1, 2, 4])], torch.arange(5))
    smoothing = parse("label_smoothing(eps=0.2)")
    for spec in ("mixup(alpha=1.0)", "cutmix"):
        mixing = parse(spec)
        one = mixing.batch(smoothing.batch(batch, 0.5, generator(0, "s")), 0.5, generator(0, "m"))
        two = smoothing.batch(mixing.batch(batch, 0.5, generator(0, "m")), 0.5, generator(0, "s"))
        torch.testing.assert_close(one.y, two.y)
        assert one.y.max() < 1
    assert lab.train("mixup", "label_smoothing").same(lab.train("label_smoothing", "mixup"))


@pytest.mark.parametrize("batch_size", [8, 16, 40])
def test_an_odd_last_batch_is_mixed(batch_size: int) -> None:
    """41 images: a remainder of 1 joins the last step, one of 9 is a step of its own."""
    made = lab.loop(lab.recipe("one_of(mixup, cutmix)", batch_size=batch_size))
    steps = [event for event in made.train() if isinstance(event, Step)]
    assert sum(step.images for step in steps) == 2 * 41
    assert min(step.images for step in steps) > 1
    assert len(steps) == made.judge.facts.steps
    assert all(bool(step.loss.isfinite()) for step in steps)


@pytest.mark.parametrize("tricks", [("freeze",), ("freeze", "ema(half_life=0.2)"), ("freeze", "sam")])
def test_a_frozen_networks_running_statistics_do_not_move(tricks: tuple[str, ...]) -> None:
    made = lab.loop(lab.recipe(*tricks))
    before = {name: value.clone() for name, value in made.model.state_dict().items()}
    trained = lab.follow(made)
    for state in (trained.live, next(iter(made.best.values()))["model"]):
        moved = {name for name, value in state.items() if not torch.equal(value, before[name])}
        assert moved == set(made.model.head_names)
    assert any(isinstance(module, _BatchNorm) for module in made.model.modules())


def test_accumulated_gradients_are_those_of_the_whole_batch() -> None:
    def gradient(micro: int) -> torch.Tensor:
        fields = {"model": "convnext_atto", "size": 32, "micro_batch": micro}  # layer norms: no statistics over the batch
        made = lab.loop(lab.recipe("class_weights", "mixup", **fields))
        _, batch = next(iter(made.loader.train(made.plan.epoch(0), 0)))
        made.model.train()
        loss = made.compute(made.tricks[0].batch(batch, 0.0, generator(0, "mixup")), 0.0)()
        return torch.cat([loss.reshape(1), *(p.grad.flatten() for p in made.model.parameters() if p.grad is not None)])

    whole = gradient(0)
    assert whole.numel() > 1_000_000
    for micro in (5, 16):
        torch.testing.assert_close(gradient(micro), whole, rtol=1e-3, atol=1e-5)


def test_features_are_computed_once_for_all_that_share_a_body() -> None:
    """And what another recipe finds computed still counts in its price."""
    made = lab.loop(lab.recipe())
    judge = made.judge
    judge.begin()
    judge.see(made.model)
    first = judge.features("train")[0]
    assert judge.features("train")[0] is first
    assert judge.spared == 0

    other = copy.deepcopy(made.model)
    torch.nn.init.zeros_(other.classifier.weight)
    judge.begin()
    judge.see(other)
    assert judge.features("train")[0] is first
    once = judge.spared
    assert once > 0
    judge.features("train")
    assert judge.spared == once

    torch.nn.init.zeros_(other.get_submodule("net.bn1").weight)
    assert not torch.equal(judge.features("train")[0], first)
    judge.see(made.model)
    torch.testing.assert_close(judge.features("train")[0], first)


def test_features_are_those_that_the_tricks_before_see() -> None:
    made = lab.loop(lab.recipe("flip_tta"))
    plain = made.judge.features("val")[0]
    made.judge.see(made.model, made.tricks)
    flipped = made.judge.features("val")[0]
    mirrored = torch.cat([made.model.eval()(batch.x.flip(-1)).features for batch in made.judge.judged("val")])
    torch.testing.assert_close(flipped, (plain + mirrored) / 2)
