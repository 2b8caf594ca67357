"""What a finished detector or segmenter is used for: predicting, drawing, scoring, looking, serving, shipping."""

import csv
import io
import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import album
import marked
import numpy as np
import pytest
import torch
from PIL import Image

import trickbag as tb
from trickbag.ground import store
from trickbag.ground.errors import TrickbagError, UsageError
from trickbag.ground.events import Note
from trickbag.mistakes.scenes import EXCUSED as GREY
from trickbag.mistakes.scenes import RIGHT as GREEN
from trickbag.mistakes.scenes import WRONG as RED
from trickbag.mistakes.scenes import _counts, balanced, inked
from trickbag.scenes.reading import read
from trickbag.statistics.detection import Found, Truth, matched
from trickbag.transfers.folder import SEEN, unpacked
from trickbag.transfers.judge import beside, in_pixels

WRITERS: dict[str, Callable[..., Path]] = {"detection": marked.voc, "segmentation": marked.regions}
HEADS = {"detection": "fcos", "segmentation": "fcn"}
SMALL: dict[str, Any] = {"size": 32, "epochs": 1, "batch_size": 2}
Known = dict[str, tb.Predictor]
Ask = Callable[..., Any]
NAMES = {"detection": "detector", "segmentation": "segmenter"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A classifier, and on its body a detector and a segmenter, each with its data."""
    place = tmp_path_factory.mktemp("using")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRICKBAG_CACHE", str(place / "cache"))
        patch.chdir(place)
        album.fill(place / "photos", {"a": 0, "b": 1}, 8)
        tb.train("photos", "cifar", model="cifar_resnet8", set_={"size": 16, "epochs": 1, "precision": "fp32"}, out="run")
        for task, write in WRITERS.items():
            made = tb.transfer("run", write(place / task), task, set_=SMALL | {"head": HEADS[task]}, out=NAMES[task])  # type: ignore[arg-type]
            assert made.runs[0].folder == Path(NAMES[task]) / "seed-0"
        yield place


@pytest.fixture(autouse=True)
def there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRICKBAG_CACHE", str(place / "cache"))
    monkeypatch.chdir(place)


@pytest.fixture(scope="module")
def known(place: Path) -> dict[str, tb.Predictor]:
    return {task: tb.load(name) for task, name in NAMES.items()}


def photo(name: str = "a") -> Path:
    return Path(f"detection/JPEGImages/{name}.png")


def archive() -> str:
    return shutil.make_archive("one", "zip", root_dir="detection/JPEGImages", base_dir="a.png")


FORMS: dict[str, Callable[[], Any]] = {
    "a path": lambda: str(photo()),
    "a Path": photo,
    "a pattern": lambda: "detection/JPEGImages/a*.png",
    "bytes": lambda: photo().read_bytes(),
    "an open file": lambda: io.BytesIO(photo().read_bytes()),
    "Pillow": lambda: Image.open(photo()),
    "an array": lambda: np.array(Image.open(photo())),
    "floats": lambda: np.array(Image.open(photo())) / 255,
    "a tensor": lambda: torch.from_numpy(np.array(Image.open(photo()))).movedim(-1, 0),
    "a batch": lambda: np.array(Image.open(photo()))[None],
    "an archive": archive,
    "a list": lambda: [photo()],
    "an iterator": lambda: iter([photo()]),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("task", WRITERS)
def test_an_image_in_any_form_is_the_same_image(known: Known, task: str, form: str) -> None:
    asked = {"threshold": 0.0} if task == "detection" else {}
    (expected,), (found,) = known[task].predict([photo()], **asked), known[task].predict(FORMS[form](), **asked)
    if task == "detection":
        assert found.boxes
        assert found.boxes == expected.boxes
    else:
        assert np.array_equal(found.regions, expected.regions)
        assert found.regions.shape == (30, 40)


@pytest.mark.parametrize("task", WRITERS)
def test_what_is_predicted_is_what_was_judged(known: Known, place: Path, task: str) -> None:
    """The scores in ``result.json`` follow from what ``predict`` says of the same files."""
    scenes = read(place / task, task).split("test")  # type: ignore[arg-type]
    model = known[task]
    photos = [model.as_seen(scenes.path(row)) for row in range(len(scenes))]
    seen: Any = [beside(scenes, row, one) for row, one in enumerate(model.look(photos))]
    judged: Any = unpacked(Path(NAMES[task]) / "seed-0" / SEEN, "test")
    if task == "detection":
        assert seen[0].scores == pytest.approx(judged[0].scores, abs=1e-5)
        assert len(seen[0].scores) > 5
    else:
        assert np.abs(np.stack(seen) - judged).sum() <= 0.01 * judged.sum()


def test_boxes_lie_in_pixels_of_the_upright_image(known: Known, tmp_path: Path) -> None:
    """A photo that the camera held sideways, and one whose JPEG is decoded at a quarter of its size."""
    upright = Image.fromarray(album.texture(0, np.random.default_rng(0))).resize((720, 600))
    note = Image.Exif()
    note[0x0112] = 6
    upright.save(tmp_path / "plain.png")
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=note)
    upright.save(tmp_path / "large.jpg", quality=100, subsampling=0)
    model = known["detection"]
    plain, turned, large = (model.as_seen(tmp_path / name) for name in ("plain.png", "turned.png", "large.jpg"))
    assert plain.size == turned.size == large.size == (600, 720)
    assert torch.equal(plain.pixels, turned.pixels)
    assert (plain.pixels.int() - large.pixels.int()).abs().float().mean() < 4
    boxes = [[box[2:] for box in found.boxes] for found in model.predict([tmp_path / "plain.png"], threshold=0)]
    assert boxes[0]
    assert max(right for _, _, right, _ in boxes[0]) > 300
    assert all(0 <= left < right <= 720 and 0 <= top < bottom <= 600 for left, top, right, bottom in boxes[0])


@pytest.mark.parametrize("task", WRITERS)
def test_no_neighbour_and_no_shape_changes_what_is_said(known: Known, task: str, tmp_path: Path) -> None:
    """Upright and lying images in turn, of which some do not fit the canvas of training."""
    sizes = [(40, 30), (30, 90), (90, 30), (40, 30), (5, 300)]
    paths = [marked.photo(tmp_path / f"{n}.png", *size, n) for n, size in enumerate(sizes)]
    asked: dict[str, Any] = {"threshold": 0} if task == "detection" else {}
    together = list(known[task].predict(tmp_path, **asked))
    assert [Path(found.path) for found in together] == paths
    for path, (width, height), found in zip(paths, sizes, together, strict=True):
        (alone,) = known[task].predict(path, **asked)
        if task == "detection":
            assert np.allclose([box[2:] for box in alone.boxes], [box[2:] for box in found.boxes], atol=0.05)
        else:
            assert found.regions.shape == (height, width)
            assert (alone.regions == found.regions).mean() > 0.99


def test_an_endless_iterator_is_read_as_it_is_asked(known: Known) -> None:
    read = itertools.count()

    def endless() -> Iterator[Path]:
        while True:
            next(read)
            yield photo()

    assert len(list(itertools.islice(known["segmentation"].predict(endless()), 20))) == 20
    assert next(read) < 100


def test_a_threshold_leaves_boxes_out_and_regions_have_none(known: Known) -> None:
    (every,) = known["detection"].predict(photo(), threshold=0)
    least = every.boxes[len(every.boxes) // 2].score
    (some,) = known["detection"].predict(photo(), threshold=least)
    assert some.boxes == tuple(box for box in every.boxes if box.score >= least)
    assert next(known["detection"].predict(photo())).boxes == tuple(box for box in every.boxes if box.score >= 0.5)
    with pytest.raises(UsageError, match="from 0 to 1"):
        next(known["detection"].predict(photo(), threshold=1.5))
    with pytest.raises(UsageError, match="is for boxes"):
        next(known["segmentation"].predict(photo(), threshold=0.5))


def test_the_largest_photos_need_no_memory_for_all_classes() -> None:
    """Class after class, the answer is that of all together."""
    scores = torch.randn(7, 24, 32, generator=torch.Generator().manual_seed(0))
    whole = torch.nn.functional.interpolate(scores[None], (95, 130), mode="bilinear")[0].argmax(0)
    assert np.array_equal(in_pixels(scores, (95, 130), (24, 32)), whole.numpy())


def test_the_command_prints_rows_and_lines(ask: Ask, known: Known) -> None:
    words = ("predict", "detector", str(photo()), str(photo("e")))
    (first, second) = known["detection"].predict([photo(), photo("e")], threshold=0.0)
    rows = list(csv.DictReader(io.StringIO(ask(*words, "--threshold", "0", "--csv").out)))
    assert [row["path"] for row in rows] == [first.path] * len(first.boxes) + [second.path] * len(second.boxes)
    assert [float(row["left"]) for row in rows[: len(first.boxes)]] == pytest.approx([b.left for b in first.boxes], abs=0.006)
    assert [row["rank"] for row in rows[:2]] == ["1", "2"]
    told = [json.loads(line) for line in ask(*words, "--threshold", "0", "--json").out.splitlines()]
    assert [one["class"] for one in told[0]["boxes"]] == [box.name for box in first.boxes]
    none = list(csv.DictReader(io.StringIO(ask(*words, "--threshold", "1", "--csv").out)))
    assert [(row["path"], row["rank"], row["class"]) for row in none] == [(first.path, "0", ""), (second.path, "0", "")]
    assert ask(*words, "--threshold", "1").out.splitlines() == [f"{one.path}   nothing found" for one in (first, second)]
    shares = list(csv.DictReader(io.StringIO(ask("predict", "segmenter", str(photo()), "--csv").out)))
    assert [row["class"] for row in shares] == list(known["segmentation"].classes)
    assert sum(float(row["share"]) for row in shares) == pytest.approx(1, abs=1e-5)
    (line,) = ask("predict", "segmenter", str(photo())).out.splitlines()
    assert "%" in line
    assert json.loads(ask("predict", "segmenter", str(photo()), "--json").out)["shares"].keys() == {r["class"] for r in shares}


def test_pictures_show_what_was_found_and_lie_over_no_file(ask: Ask, tmp_path: Path) -> None:
    plain = Image.new("RGB", (400, 300), "white")
    plain.save(tmp_path / "猫 .png")
    for name, words in (("detector", ["--threshold", "0"]), ("segmenter", [])):
        out = tmp_path / name
        told = ask("predict", name, str(tmp_path / "猫 .png"), str(photo()), "--draw", str(out), *words)
        assert told.code == 0, told.err
        assert f"drawn: {out}" in told.out
        pictures = sorted(out.glob("*.png"))
        assert [path.name for path in pictures] == ["00000-猫 .png", "00001-a.png"]
        pixels = np.asarray(Image.open(pictures[0]))
        assert (pixels != 255).any(-1).mean() > 0.01
        assert np.asarray(Image.open(pictures[1])).shape[1] >= 320, "a small image is enlarged"
        before = pictures[0].read_bytes()
        again = ask("predict", name, str(photo()), "--draw", str(out))
        assert again.code == 2
        assert "is there already" in again.err
        assert pictures[0].read_bytes() == before
    (tmp_path / "file").write_text("mine")
    assert ask("predict", "detector", str(photo()), "--draw", str(tmp_path / "file")).code == 2
    assert (tmp_path / "file").read_text() == "mine"


def test_what_cannot_be_read_takes_no_other_away(ask: Ask, known: Known, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(photo().read_bytes()[:60])
    told: list[Any] = []
    found = known["detection"].predict([photo(), bad, photo("b")], on_bad="skip", tell=told.append)
    assert [one.path for one in found] == [str(photo()), str(photo("b"))]
    assert Note("1 image could not be read and has no prediction") in told
    assert ask("predict", "detector", str(photo()), str(bad)).code == 1
    assert ask("predict", "detector", str(photo()), str(bad), "--on-bad", "skip").code == 0


WRONG = {
    ("predict", "detector", "{photo}", "--top", "3"): "classifiers alone take --top",
    ("predict", "detector", "{photo}", "--out", "rows.csv"): "classifiers alone take --out",
    ("predict", "run", "{photo}", "--draw", "drawn"): "holds a classifier: trickbag explain",
    ("predict", "segmenter", "{photo}", "--threshold", "0.4"): "a threshold is for boxes",
    ("explain", "detector", "{photo}"): "holds a detector or a segmenter",
    ("transfer", "detector", "detection", "--to", "detection"): "is a detector or a segmenter already",
    ("transfer", "detector/seed-0", "detection", "--to", "detection"): "is a detector or a segmenter already",
    ("train", "photos", "--recipe", "cifar", "--weights", "detector/seed-0"): "detector",
}


@pytest.mark.parametrize("words", WRONG, ids=" ".join)
def test_what_a_detector_is_not_for_is_said_in_a_sentence(ask: Ask, words: tuple[str, ...]) -> None:
    told = ask(*(word.format(photo=photo()) for word in words))
    assert told.code == 2, told
    assert WRONG[words] in told.err
    assert "Traceback" not in told.err


def test_of_several_seeds_one_is_named_and_a_damaged_one_is_not_believed(tmp_path: Path) -> None:
    for seed in ("seed-0", "seed-1"):
        shutil.copytree("detector/seed-0", tmp_path / seed)
    with pytest.raises(UsageError, match=r"holds 2 seeds\. Choose one"):
        tb.load(tmp_path)
    assert tb.load(tmp_path / "seed-1").task == "detection"
    weights = tmp_path / "seed-1" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(TrickbagError, match=r"model\.safetensors"):
        tb.load(tmp_path / "seed-1")
    tensors = store.load_tensors(tmp_path / "seed-0" / "model.safetensors")
    name = next(name for name, value in tensors.items() if value.is_floating_point())
    store.save_tensors(tmp_path / "seed-0" / "model.safetensors", tensors | {name: tensors[name] * float("nan")})
    (tmp_path / "seed-0" / "MANIFEST.json").unlink()
    store.seal(tmp_path / "seed-0")
    with pytest.raises(TrickbagError, match="no numbers"):
        tb.load(tmp_path / "seed-0")
    with pytest.raises(UsageError, match="holds no trained classifier"):
        tb.load(tmp_path / "nowhere")


@pytest.mark.parametrize("task", WRITERS)
def test_on_its_own_data_it_scores_as_it_was_judged_and_counts_what_it_knows(ask: Ask, task: str) -> None:
    found = tb.evaluate(NAMES[task], task)
    record = json.loads((Path(NAMES[task]) / "seed-0" / "result.json").read_text())
    assert (found.whole.n, found.trained_on, found.chosen_on) == (5, 3, 1)
    assert found.unseen.n == 1
    for name, value in record["test"]["measures"].items():
        assert found.unseen.measures[name] == pytest.approx(value, abs=0.02)
    told = ask("evaluate", NAMES[task], task)
    assert told.code == 0, told.err
    assert "it trained on 3 and was validated on 1 of these images, so the scores above are too good" in told.out
    assert json.loads(ask("evaluate", NAMES[task], task, "--json").out) == json.loads(json.dumps(found.as_json()))


def test_on_other_data_classes_go_by_name(ask: Ask, tmp_path: Path) -> None:
    """Those of a data set with more classes have other numbers in it."""
    names = {"cat": "zebra", "dog": "cat"}
    photos = marked.PHOTOS.items()
    moved = {
        name: one._replace(boxes=[box._replace(name=names[box.name]) for box in one.boxes])
        for name, one in marked.PHOTOS.items()
    }
    refused = ask("evaluate", "detector", str(marked.voc(tmp_path / "other", moved)))
    assert refused.code == 2
    assert "has the class zebra, which is not known here. Known are: cat, dog" in refused.err
    assert ask("evaluate", "detector", "segmentation").code == 2
    dogs = {n: one._replace(boxes=[box for box in one.boxes if box.name == "dog"]) for n, one in photos}
    assert np.isnan(tb.evaluate("detector", marked.voc(tmp_path / "dogs", dogs)).whole.measures["map"] or 0) == 0
    plain = marked.regions(tmp_path / "more")
    for file in plain.rglob("labels/*.png"):
        values = np.array(Image.open(file))
        values[-1] = 9
        marked.save_region(file, values)
    told: list[Any] = []
    found = tb.evaluate("segmenter", plain, progress=told.append)
    assert any("pixels of class 9 are not counted" in event.text for event in told if isinstance(event, Note))
    assert list(found.whole.classes) == ["class 0", "class 1", "class 4"]


@pytest.mark.parametrize(
    "words", [["--with", "flip_tta"], ["--open-set"], ["--depth", "1"], ["--corrections", "c.csv"]], ids=" ".join
)
def test_options_of_classifiers_are_refused_by_name(ask: Ask, words: list[str]) -> None:
    told = ask("evaluate", "detector", "detection", *words)
    assert told.code == 2
    assert f"classifiers alone take {words[0]}." in told.err


@pytest.mark.parametrize("task", WRITERS)
def test_the_page_shows_the_worst_images_beside_their_truth(ask: Ask, task: str, tmp_path: Path) -> None:
    found = tb.review(NAMES[task], out=tmp_path / "page.html")
    assert (found.split, found.measures.n, [one.path for one in found.worst]) == ("test", 1, [PLACES[task]])
    text = (tmp_path / "page.html").read_text()
    assert text.count("data:image/jpeg;base64,") == 2
    assert "<script" not in text
    assert "default-src 'none'" in text
    assert found.worst[0].truth.size == found.worst[0].found.size or task == "segmentation"
    told = ask("review", NAMES[task], "--data", task, "--out", str(tmp_path / "again.html"))
    assert told.code == 0, told.err
    assert found.worst[0].said in told.out
    assert (tmp_path / "again.html").read_text() == text, "the same page again"


PLACES = {"detection": "JPEGImages/e.png", "segmentation": "test/images/e.png"}


def test_the_page_is_of_the_images_that_judged(ask: Ask, tmp_path: Path) -> None:
    shutil.copytree("detection", tmp_path / "moved")
    assert ask("review", "detector", "--data", str(tmp_path / "moved"), "--out", str(tmp_path / "a.html")).code == 0
    marked.photo(tmp_path / "moved" / "JPEGImages" / "e.png", seed=77)
    told = ask("review", "detector", "--data", str(tmp_path / "moved"), "--out", str(tmp_path / "b.html"))
    assert told.code == 2
    assert "holds none of the images that judged" in told.err
    shutil.copytree("detector", tmp_path / "elsewhere")
    record = tmp_path / "elsewhere" / "seed-0" / "result.json"
    record.write_text(record.read_text().replace(json.loads(record.read_text())["data_fingerprint"], "0" * 32))
    (record.parent / "MANIFEST.json").unlink()
    store.seal(record.parent)
    told = ask("review", str(tmp_path / "elsewhere"))
    assert told.code == 2
    assert "Say where with --data DATA" in told.err


def test_right_wrong_and_missed_are_told_apart() -> None:
    """Two boxes of which one is found, and one that is nowhere: green, red; the score from which on F1 is highest."""
    true = Truth(np.array([[0.0, 0, 10, 10], [20, 0, 30, 10]]), np.array([0, 1]), np.zeros(2, bool))
    said = Found(np.array([[0.0, 0, 10, 10], [5, 5, 9, 9], [21, 0, 31, 10]]), np.array([0, 0, 1]), np.array([0.9, 0.8, 0.1]))
    one = matched(said, true, 2)
    assert _counts(one, 0.5) == (1, 1, 1)
    assert _counts(one, 0.05) == (2, 1, 0)
    assert _counts(one, 0.5, 1) == (0, 0, 1)
    assert balanced([one]) == 0.1
    alone = matched(Found(said.xyxy[:2], said.labels[:2], said.scores[:2]), true, 2)
    assert balanced([alone, alone]) == 0.9


def test_boxes_of_one_score_have_each_its_own_colour() -> None:
    """Of three that are equally sure one is right, one is wrong, and one lies in a box that is ignored."""
    true = Truth(np.array([[0.0, 0, 10, 10], [20, 0, 40, 10]]), np.array([1, 1]), np.array([False, True]))
    boxes = np.array([[22.0, 0, 30, 10], [0, 0, 10, 10], [0, 0, 9, 9], [60, 0, 70, 10]])
    said = Found(boxes, np.array([1, 1, 0, 1]), np.array([0.5, 0.5, 0.6, 0.5]))
    rows, inks = inked(said, matched(said, true, 2), 0.5)
    assert dict(zip(rows, inks, strict=True)) == {0: GREY, 1: GREEN, 2: RED, 3: RED}
    assert inked(said, matched(said, true, 2), 0.55) == ([2], [RED])


def test_an_image_that_the_canvas_of_training_does_not_hold_has_a_larger_one(known: Known, tmp_path: Path) -> None:
    model = known["segmentation"]
    card = model.card.model_copy(update={"size": 64, "canvas": [32, 64]})
    wide = tb.Predictor(model.network, card, model.folder)
    assert [wide.canvas(size) for size in ((30, 64), (15, 30), (64, 30))] == [(32, 64), (32, 64), (64, 64)]
    (found,) = wide.predict(marked.photo(tmp_path / "tall.png", 30, 64))
    assert found.regions.shape == (64, 30)
