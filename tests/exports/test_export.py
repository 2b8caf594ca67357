"""Exported files are what their runs are, in programs without trickbag, and what differs has no name to ship."""

import argparse
import gzip
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from album import fill, recipe_file
from hub import TOKEN, standing_in
from torch import Tensor
from torchvision.transforms.v2 import functional as F

import trickbag as tb
from trickbag.engine.cutting import cut
from trickbag.engine.pixels import fitted
from trickbag.exports import as_onnx, as_timm, model_card, shipping
from trickbag.exports.graph import Square, Whole, traced
from trickbag.exports.parity import plain
from trickbag.exports.photos import Photos, given
from trickbag.ground import store
from trickbag.ground.errors import TrickbagError, UsageError
from trickbag.laboratory import lab
from trickbag.recipe import Fit
from trickbag.runs.classifier import Classifier
from trickbag.runs.classifier import export as parts
from trickbag.runs.outcome import finish
from trickbag.trick import View, having
from trickbag.tricks import bag

PAGE = Path(__file__).parents[2] / "docs" / "ship.md"
KINDS = {"a": 0, "b | <i>": 1, "c": 2}
JUDGING = [name for name, trick in bag().items() if {"view", "predict"} & set(trick.plugs())]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Photos, and runs that were trained on them: with tricks that judge, and of a network of timm's."""
    folder = tmp_path_factory.mktemp("export")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRICKBAG_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        fill(folder / "photos", KINDS, 20)
        recipe_file(folder / "tiny.toml")
        fields = {"epochs": 3, "lr": 0.1, "crop_share": 0.8}
        tb.train("photos", "tiny.toml", out="run", with_="flip_tta, ncm, calibrate", set_=fields)
        tb.train("photos", "tiny.toml", out="plain", model="test_resnet", with_="calibrate", set_=fields | {"size": 32})
        yield folder


@pytest.fixture(scope="module")
def made(place: Path) -> tb.Exported:
    return tb.export("run", "onnx", int8=True, data="photos")


@pytest.fixture(scope="module")
def program(place: Path) -> tb.Exported:
    return tb.export("run", "torch", data="photos")


@pytest.fixture(scope="module")
def folder(place: Path) -> tb.Exported:
    return tb.export("plain", "timm", data="photos", out="run-timm")


def photos(known: Classifier, count: int = 5) -> list[Tensor]:
    """Photos of the validation and test images, decoded."""
    names = sorted(Path("photos/a").iterdir())[:count]
    return [torch.from_numpy(np.array(as_image(name))).movedim(-1, 0).contiguous() for name in names]


def as_image(path: Path) -> Any:
    from PIL import Image

    return Image.open(path).convert("RGB")


def alone(code: str, *words: str) -> str:
    """What a program prints that has neither trickbag nor the tests on its path."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    head = "import sys\nclass No:\n    def find_spec(self, name, *_):\n        assert not name.startswith('trickbag')\n"
    head += "sys.meta_path.insert(0, No())\n"
    done = subprocess.run(
        [sys.executable, "-c", head + code, *words], env=clean, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
@pytest.mark.parametrize("view", [View(18, 16), View(40, 40)], ids=["smaller", "larger"])
def test_the_graph_cuts_the_squares_that_the_run_sees(fit: Fit, view: View) -> None:
    rng = np.random.default_rng(0)
    square = Square(fit, 24, view if fit == "crop" else View(view.crop, view.crop))
    for size in ((1, 1), (1, 200), (5, 7), (24, 24), (31, 90), (90, 31), (160, 121), (30, 400), (333, 250)):
        coarse = torch.from_numpy(rng.integers(0, 256, (3, 4, 5), dtype=np.uint8))
        image = F.resize(coarse, list(size), antialias=True) if min(size) > 1 else coarse[:, :1, :1].expand(3, *size).clone()
        theirs = square(image[None].expand(2, -1, -1, -1))
        ours = cut(fitted(image, fit, 24), square.view)
        assert theirs.shape == (2, 3, view.crop, view.crop)
        assert torch.equal(theirs[0], theirs[1])
        assert (theirs[0] - ours).abs().max() <= 2, size
        assert (theirs[0] - ours).abs().mean() < 0.5, size


def trained_with(*tricks: Any, **fields: Any) -> Classifier:
    """The classifier of a training in the laboratory."""
    loop = lab.train(*tricks, epochs=1, **fields).loop
    done = finish(loop, loop.recipe)
    _, card = parts(done.model, done.tricks, loop.recipe, lab.CLASSES, loop.loader.normal, round(1.5 * loop.recipe.size))
    return Classifier(done.model, done.tricks, card)


@pytest.mark.parametrize("name", JUDGING)
def test_every_trick_that_judges_does_so_in_the_graph(name: str) -> None:
    known = trained_with(lab.example(name))
    image = lab.dataset()[1][0]
    with torch.no_grad():
        assert torch.allclose(Whole(known)(image[None]), known.module()(image[None]), atol=0.02)


@pytest.mark.parametrize(("tricks", "fields"), [(("attention_crop_tta",), {}), ((), {"model": "test_vit", "size": 32})])
def test_a_graph_is_for_any_number_of_images(tricks: tuple[str, ...], fields: dict[str, Any]) -> None:
    known, images = trained_with(*tricks, **fields), torch.stack(lab.dataset()[1][:3])
    program = traced(known).module()
    for batch in (images[:1], images):
        assert torch.allclose(program(batch), known.module()(batch), atol=0.02)


class Lacking(torch.nn.Module):
    """What torch's converter has no operator for."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")


def test_what_the_converter_lacks_is_refused_by_name() -> None:
    program = torch.export.export(Lacking(), (torch.zeros(2, 3),))
    with pytest.raises(TrickbagError, match=r"cannot write cifar_resnet8 with the tricks oltr .*_cdist.* --to torch"):
        as_onnx.converted(program, {"network": "cifar_resnet8", "tricks": "oltr"})


def test_a_network_that_no_file_holds_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(as_onnx, "MOST", 10)
    with pytest.raises(TrickbagError, match="--to torch"):
        as_onnx.converted(torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(2, 2),)), {})


def test_a_program_with_onnxruntime_alone_says_what_the_run_says(place: Path, made: tb.Exported) -> None:
    assert sorted(file.name for file in made.folder.iterdir()) == [
        "MANIFEST.json", "model.int8.onnx", "model.onnx", "parity.json",
    ]  # fmt: skip
    known = plain(tb.load("run"))
    images = torch.stack(photos(known))
    np.save(place / "images.npy", images.numpy())
    code = (
        "import json, numpy as np, onnxruntime as ort\n"
        "session = ort.InferenceSession(sys.argv[1])\n"
        "facts = session.get_modelmeta().custom_metadata_map\n"
        "images = np.load(sys.argv[2])\n"
        "said = [session.run(None, {'images': part})[0].tolist() for part in (images[:1], images[:2], images)]\n"
        "shape = session.get_inputs()[0].shape\n"
        "assert 'torch' not in sys.modules\n"
        "print(json.dumps([said, facts, shape]))"
    )
    said, facts, shape = json.loads(alone(code, str(made.folder / "model.onnx"), str(place / "images.npy")))
    expected = known.module()(images)
    for part in said:
        assert np.abs(np.array(part) - expected[: len(part)].numpy()).max() < 0.02
    assert shape == ["batch", 3, "height", "width"]
    assert json.loads(facts["classes"]) == list(KINDS)
    assert json.loads(facts["preprocessing"])["cut to"] == 16
    assert json.loads(facts["calibration"])["calibrate"]["temperature_"] > 0
    assert {"run", "trickbag", "input", "output", "network", "tricks"} <= facts.keys()


def test_the_file_is_whole_and_does_not_tell_of_this_machine(made: tb.Exported) -> None:
    for name in ("model.onnx", "model.int8.onnx"):
        content = (made.folder / name).read_bytes()
        model = onnx.load_from_string(content)
        assert not [tensor for tensor in model.graph.initializer if tensor.data_location]
        assert b"site-packages" not in content
        assert str(Path(tb.__file__).parent).encode() not in content


def test_the_figures_are_those_of_the_run(made: tb.Exported) -> None:
    told = json.loads((made.folder / "parity.json").read_text())
    record = json.loads(Path("run/result.json").read_text())
    right = sum(round(record[split]["top1"] * record[split]["n"]) for split in ("val", "test"))
    n = record["val"]["n"] + record["test"]["n"]
    found = told["parity"]["alike"]
    assert (told["holds"], found["n"], found["agreement"]) == (True, n, 1.0)
    assert round(found["accuracy"]["before"] * n) == right == round(found["accuracy"]["after"] * n)
    assert found["accuracy"]["interval"][0] < 0 < found["accuracy"]["interval"][1]
    assert {(one["batch"], one["height"]) for one in told["parity"]["shapes"]} >= {(1, 48), (2, 600), (7, 90)}
    assert told["parity"]["grey"] <= 2
    assert "validation and test images of the run" in told["parity"]["images"]
    shown = repr(made) + made._repr_html_() + "\n".join(made.lines())
    assert "100.00 % of" in shown
    assert f"the same class for {n} of {n}" in shown
    assert re.search(r"\n\d+\.\d\d % of the pixels differ, by at most [012] of 255 levels\n", shown)


def test_the_network_alone_is_in_whole_numbers(made: tb.Exported) -> None:
    model = onnx.load(made.folder / "model.int8.onnx")
    makers = {output: node for node in model.graph.node for output in node.output}
    fed = {node.name: [makers.get(name) for name in node.input] for node in model.graph.node}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert convolutions
    assert all(part and part.op_type == "DequantizeLinear" for node in convolutions for part in fed[node.name][:2])
    others = [node for node in model.graph.node if node.op_type == "MatMul" and not node.name.startswith(as_onnx.NETWORK)]
    assert len(others) >= 4, "two matrices for each of two resizings, and the class means"
    assert not any(part and part.op_type == "DequantizeLinear" for node in others for part in fed[node.name])
    scales = [part.input[1] for node in convolutions for part in fed[node.name][1:2] if part]
    sizes = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    assert all(list(sizes[name]) and sizes[name][0] > 1 for name in scales), "a scale for each channel"
    told = made.int8
    assert told.calibrated == 60 - made.parity.alike.n
    assert told.bytes[1] < told.bytes[0]
    assert told.alike.accuracy
    assert told.alike.accuracy.interval
    assert told.speeds[0] <= told.speed <= told.speeds[1]


def sharpened(model: onnx.ModelProto) -> None:
    """The same class for every image, and another probability."""
    last = next(node for node in reversed(model.graph.node) if node.op_type == "Softmax")
    model.graph.initializer.append(onnx.helper.make_tensor("twentieth", onnx.TensorProto.FLOAT, [], [0.05]))
    model.graph.node.insert(len(model.graph.node) - 1, onnx.helper.make_node("Mul", [last.input[0], "twentieth"], ["flat"]))
    last.input[0] = "flat"


def frozen(model: onnx.ModelProto) -> None:
    """As where the example was one image."""
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def wrong(model: onnx.ModelProto) -> None:
    """A graph that runs and says something else."""
    last = next(node for node in reversed(model.graph.node) if node.op_type == "Softmax")
    model.graph.node.insert(len(model.graph.node) - 1, onnx.helper.make_node("Neg", [last.input[0]], ["other"]))
    last.input[0] = "other"


def blurred(model: onnx.ModelProto) -> None:
    """As where another resizing stands in place of ours: every pixel is off."""
    first = next(node for node in model.graph.node if as_onnx.SQUARES in node.input)
    half = onnx.helper.make_tensor("half", onnx.TensorProto.FLOAT, [], [0.1])
    model.graph.initializer.append(half)
    at = list(model.graph.node).index(first)
    model.graph.node.insert(at, onnx.helper.make_node("Mul", [as_onnx.SQUARES, "half"], ["dark"]))
    first.input[list(first.input).index(as_onnx.SQUARES)] = "dark"


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (frozen, "fails on images"),
        (wrong, "another class"),
        (blurred, "a probability differs by"),
        (sharpened, r"images of the run[^:]*: a probability differs by 0\.\d+ \(0\.02 may\)\. Do"),
    ],
)
def test_what_differs_has_no_name_to_ship(
    made: tb.Exported,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ask,
    fault: Callable[[onnx.ModelProto], None],
    reason: str,
) -> None:
    model = onnx.load(made.folder / "model.onnx")
    fault(model)
    monkeypatch.setattr(shipping, "traced", lambda _: None)
    monkeypatch.setattr(as_onnx, "converted", lambda *_: model)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model.onnx").write_bytes(b"an earlier one")
    mine = ask("export", "run", "--to", "onnx", "--out", str(tmp_path / "out"))
    assert (mine.code, "holds other files, for example 'model.onnx'" in mine.err) == (2, True)
    (tmp_path / "out" / "parity.json").write_text("{}")
    told = ask("export", "run", "--to", "onnx", "--out", str(tmp_path / "out"))
    assert told.code == 1
    assert re.search(r"model\.onnx\.differs is not the run, cifar_resnet8 with .*flip_tta.*calibrate", told.err), told.err
    assert re.search(reason, told.err)
    assert "Do not use it" in told.err
    assert not (tmp_path / "out" / "model.onnx").exists()
    assert (tmp_path / "out" / "model.onnx.differs").exists()
    assert json.loads((tmp_path / "out" / "parity.json").read_text())["holds"] is False


@pytest.fixture
def quick(made: tb.Exported, program: tb.Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes time is done already: the run's graph, and the same in ONNX."""
    graph, model = torch.export.load(program.folder / "model.pt2"), onnx.load(made.folder / "model.onnx")
    monkeypatch.setattr(shipping, "traced", lambda _: graph)
    monkeypatch.setattr(as_onnx, "converted", lambda *_: model)


@pytest.mark.parametrize(
    ("run", "to", "room"), [("run", "onnx", 0.1), ("run", "torch", 0.1), ("run", "torch", 1.1), ("plain", "timm", 0.1)]
)
def test_a_full_disk_is_a_sentence(place: Path, quick: None, tmp_path: Path, ask, run: str, to: str, room: float) -> None:
    """The largest file that may be written stands in for the room that is left: it fails with the same call."""
    most = int(room * Path(run, "model.safetensors").stat().st_size)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        told = ask("export", run, "--to", to, "--out", str(tmp_path / "out"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert told.code == 1
    assert re.search(r"cannot write .*out.* Free some space, or choose another folder\.\n$", told.err), told.err
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] in ([".out.lock"], [".out.lock", "MANIFEST.json"])


def test_room_is_asked_for_before_an_export(place: Path, tmp_path: Path, ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store.shutil, "disk_usage", lambda _: argparse.Namespace(free=100_000))
    told = ask("export", "run", "--to", "torch", "--out", str(tmp_path / "out"))
    assert told.code == 1
    assert re.search(r": the files need 0\.6 MB, and 0\.1 MB are free\.", told.err), told.err
    assert [file.name for file in tmp_path.iterdir()] == [".out.lock"]


def test_a_class_whose_name_is_no_text_reads_back(place: Path, ask, monkeypatch: pytest.MonkeyPatch) -> None:
    stray = "c\udcff é"
    fill(place / "stray", {"a": 0, stray: 1}, 20)
    tb.train("stray", "tiny.toml", out="stray-run", model="test_resnet", set_={"size": 32, "lr": 0.1})
    graph = traced(tb.load("stray-run"))
    monkeypatch.setattr(shipping, "traced", lambda _: graph)
    for to in ("onnx", "torch", "timm"):
        told = ask("export", "stray-run", "--to", to, "--data", "stray")
        assert told.code == 0, told.err
    said = onnx.load("stray-run-onnx/model.onnx").metadata_props
    assert json.loads(next(one.value for one in said if one.key == "classes")) == ["a", stray]
    more = {"trickbag.json": ""}
    torch.export.load("stray-run-torch/model.pt2", extra_files=more)
    assert json.loads(json.loads(more["trickbag.json"])["classes"]) == ["a", stray]
    assert json.loads(Path("stray-run-timm/config.json").read_text())["label_names"] == ["a", stray]


def test_without_an_image_no_accuracy_is_said(
    place: Path, made: tb.Exported, monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    model = onnx.load(made.folder / "model.onnx")
    with monkeypatch.context() as patch:
        patch.setattr(shipping, "traced", lambda _: None)
        patch.setattr(as_onnx, "converted", lambda *_: model)
        kept = tb.export("run", "onnx", out=tmp_path / "cached")
    assert kept.parity.alike.accuracy == made.parity.alike.accuracy
    monkeypatch.setenv("TRICKBAG_CACHE", str(tmp_path / "empty"))
    # Without vector instructions a quarter of the pixels is resized otherwise, and ncm is in two minds about one cloud.
    found = tb.export("plain", "torch", out=tmp_path / "generated")
    assert found.parity.alike.accuracy is None
    assert "no photo is at hand" in found.parity.images
    assert any("no accuracy" in line for line in found.lines())
    with pytest.raises(UsageError, match="say with data where its photos lie"):
        tb.export("run", "onnx", int8=True, out=tmp_path / "int8")


def test_images_that_were_trained_on_give_no_accuracy(place: Path, tmp_path: Path) -> None:
    known, (path, *_) = tb.load("run"), next(row for row in table() if row[2] == "train")
    (tmp_path / "own" / path.split("/")[0]).mkdir(parents=True)
    shutil.copy(Path("photos") / path, tmp_path / "own" / path)
    fill(tmp_path / "new", KINDS, 2, seed=5)

    def at_hand(data: str, run: str = "run") -> Photos:
        return given(Path(run), known, tmp_path / data, lambda _: None)

    own, new = at_hand("own"), at_hand("new")
    fill(tmp_path / "others", {"a": 0, "zebra": 1}, 1)
    with pytest.raises(UsageError, match=r"'zebra', which the run does not know\. .*\. Give photos of these classes alone\.$"):
        at_hand("others")
    assert (own.labels, "trained on" in own.what) == (None, True)
    assert (len(new.judged), new.labels is not None, new.training) == (6, True, None)
    assert "has not seen" in new.what
    shutil.copytree("run", tmp_path / "run", ignore=shutil.ignore_patterns("images.npz"))
    silent = at_hand("new", str(tmp_path / "run"))
    assert (silent.labels, "may have seen" in silent.what) == (None, True)


def table() -> list[list[str]]:
    """The images of the run: path, class, split, content."""
    return [line.split(",") for line in gzip.decompress(Path("run/images.csv.gz").read_bytes()).decode().splitlines()[1:]]


def test_a_program_with_torch_alone_says_what_the_run_says(place: Path, program: tb.Exported) -> None:
    assert program.parity.alike.agreement == 1
    known = plain(tb.load("run"))
    images = torch.stack(photos(known, 7))
    np.save(place / "seven.npy", images.numpy())
    code = (
        "import json, numpy as np, torch\n"
        "extra = {'trickbag.json': ''}\n"
        "model = torch.export.load(sys.argv[1], extra_files=extra).module()\n"
        "images = torch.from_numpy(np.load(sys.argv[2]))\n"
        "with torch.no_grad():\n"
        "    said = [model(part).tolist() for part in (images[:1], images[:2], images, images[:3, :, :25, :20])]\n"
        "print(json.dumps([said, extra['trickbag.json']]))"
    )
    said, facts = json.loads(alone(code, str(program.folder / "model.pt2"), str(place / "seven.npy")))
    for part, asked in zip(said, (images[:1], images[:2], images, images[:3, :, :25, :20]), strict=True):
        assert np.abs(np.array(part) - known.module()(asked).numpy()).max() < 0.02
    assert json.loads(json.loads(facts)["classes"]) == list(KINDS)


def test_timm_loads_a_folder_with_the_logits_of_the_run(place: Path, folder: tb.Exported) -> None:
    known = plain(tb.load("plain"))
    squares = torch.stack([cut(fitted(image, known.fit, known.card.kept), known.view) for image in photos(known)])
    mean, std = (torch.tensor(values)[:, None, None] for values in (known.card.mean, known.card.std))
    prepared = (squares / 255 - mean) / std
    np.save(place / "prepared.npy", prepared.numpy())
    code = (
        "import json, numpy as np, timm, torch\n"
        "model = timm.create_model('local-dir:' + sys.argv[1], pretrained=True).eval()\n"
        "with torch.no_grad():\n"
        "    said = model(torch.from_numpy(np.load(sys.argv[2])))\n"
        "prepared = timm.data.resolve_model_data_config(model)\n"
        "print(json.dumps([said.tolist(), model.pretrained_cfg['label_names'], prepared['input_size'], prepared['crop_pct']]))"
    )
    said, names, size, share = json.loads(alone(code, str(folder.folder), str(place / "prepared.npy")))
    assert torch.allclose(torch.tensor(said), known.predict_batch(prepared).logits, atol=1e-4)
    assert (names, size, share) == (list(KINDS), [3, 32, 32], 0.8)
    assert "b \\| &lt;i&gt;" in (folder.folder / "README.md").read_text("utf-8")


def test_the_model_card_says_how_good_how_sure_and_what_not(place: Path) -> None:
    card, record = model_card.written(Path("plain")), json.loads(Path("plain/result.json").read_text())
    for split in ("val", "test"):
        low, high = record[split]["top1_interval"]
        top1, n = record[split]["top1"], record[split]["n"]
        assert f"{100 * top1:.1f} % | {100 * low:.1f} to {100 * high:.1f} | {n} |" in card
    assert f"{60 - 2 * record['val']['n']} images for training" in card or "images for training" in card
    for part in ("## How to load", "## Data", "## Metrics", "## Limits", "timm.create_model", "library_name: timm"):
        assert part in card
    assert str(place) not in card
    assert not re.search(r"\{[{%]", card)
    (program,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    compile(program, "card", "exec")
    assert "\n\nThe epoch was chosen" in card, "a line after a table would be a row of it"
    assert "&#" not in card


def test_the_programs_of_the_page_run_without_trickbag(
    place: Path, made: tb.Exported, program: tb.Exported, folder: tb.Exported
) -> None:
    programs = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    as_image(min(Path("photos/a").iterdir())).save("photo.jpg")
    said = alone("\n".join(programs)).splitlines()
    assert len(said) == len(programs) == 3
    assert all(line.startswith(tuple(KINDS)) for line in said)


@pytest.mark.parametrize(
    ("model", "tricks", "named"),
    [
        ("cifar_resnet8", (), "cifar_resnet8 is no model of timm's"),
        ("test_resnet", ("flip_tta",), "without flip_tta"),
        ("test_resnet", ("knn",), "without knn"),
        ("test_resnet", ("crop_tta", "calibrate"), "without crop_tta,"),
        ("test_resnet", ("gem_pool",), "with gem_pool is another network"),
        ("test_resnet", ("blur_pool",), "with blur_pool is another network"),
        ("test_resnet", ("cosine_classifier",), "with cosine_classifier is another network"),
        ("test_resnet", ("xavier", "l2_features", "temperature(value=2.0)"), ""),
    ],
)
def test_what_a_folder_of_timm_cannot_hold_is_refused_by_name(model: str, tricks: tuple[str, ...], named: str) -> None:
    known = trained_with(*tricks, model=model, size=48)
    if named:
        with pytest.raises(UsageError, match=named):
            as_timm.network(known)
        return
    assert having(known.tricks, "predict")
    x = torch.randn(2, 3, 48, 48)
    with torch.no_grad():
        assert torch.allclose(as_timm.network(known)(x), known.predict_batch(x).logits, atol=1e-5)


def test_a_folder_is_pushed_to_the_hub_and_a_token_that_may_not_is_told(place: Path) -> None:
    command = [sys.executable, "-m", "trickbag", "export", "plain", "--to", "timm", "--out", "pushed", "--push"]
    with standing_in() as hub:
        env = os.environ | {"HF_ENDPOINT": hub.address, "HF_HOME": str(place / "hf"), "HF_HUB_DISABLE_XET": "1"}
        env["HF_TOKEN"] = TOKEN
        done = subprocess.run(
            [*command, "ada/shoes"], env=env, cwd=place, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr
        assert f"{hub.address}/ada/shoes" in done.stdout
        held = hub.held["ada/shoes"]
        assert held.keys() == {"README.md", "config.json", "model.safetensors"}
        assert all(content == (place / "pushed" / name).read_bytes() for name, content in held.items())
        code = (
            "import json, os, sys\nfrom pathlib import Path\nfrom trickbag.exports import hub\n"
            "for os.environ['HF_TOKEN'], name in json.loads(sys.argv[1]):\n"
            "    try:\n        hub.check(name)\n        hub.push(Path('pushed'), ['README.md'], name)\n"
            "    except hub.TrickbagError as error:\n        print(error.exit_code, error)\n"
        )
        asked = json.dumps([("another", "ada/shoes"), (TOKEN, "bob/shoes"), ("", "ada/shoes"), (TOKEN, "shoes")])
        done = subprocess.run(
            [sys.executable, "-c", code, asked], env=env, cwd=place, capture_output=True, text=True, timeout=300, check=False
        )
    lines = done.stdout.splitlines()
    said = ("1 .* does not know the token", "1 .* may not write there", "2 --push needs a token", "2 --push 'shoes'")
    assert len(lines) == 4, done.stderr
    for line, words in zip(lines, said, strict=True):
        assert re.match(words, line), line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "--to", "torch", "--int8"], "--int8 is for --to onnx"),
        (["run", "--to", "onnx", "--push", "ada/shoes"], "safetensors alone"),
        (["run", "--to", "onnx", "--out", "run"], "is a run"),
        (["photos", "--to", "onnx"], "no trained classifier"),
        (["run", "--to", "timm", "--out", "refused"], "cifar_resnet8 is no model of timm's"),
        (["run", "--to", "onnx", "--data", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_is_a_sentence(place: Path, ask, words: list[str], said: str) -> None:
    told = ask("export", *words)
    assert (told.code, said in told.err) == (2, True), told.err
    assert not Path("refused").exists()


def test_without_the_extra_the_command_says_what_to_install(place: Path, ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    monkeypatch.delitem(sys.modules, "trickbag.exports.as_onnx")
    told = ask("export", "run", "--to", "onnx")
    assert told.code == 2
    assert "pip install 'trickbag[export]'" in told.err
