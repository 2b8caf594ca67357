"""Recipes: the built-in ones are what they say, files are read with clear errors, edits do what they name."""

import itertools
import math
import tomllib
from pathlib import Path
from typing import Any

import album
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from trickbag.engine.loop import Step
from trickbag.engine.outline import outline
from trickbag.ground import store
from trickbag.ground.errors import UsageError
from trickbag.laboratory.lab import loop
from trickbag.models import networks
from trickbag.recipe import Recipe, recipe_names, recipe_text
from trickbag.terminal.cli import app
from trickbag.trick import having
from trickbag.tricks import parse
from trickbag.tricks.xavier import Xavier

PAPER_FAMILIES = {
    "resnet50": 64, "inception_v3": 96, "mobilenetv1_100": 32, "mobilenetv2_100": 32, "densenet121": 32, "efficientnet_b0": 32,
    "resnext50_32x4d": 32, "seresnet50": 32,
}  # fmt: skip
BUILT_IN = ("auto", "cifar", "food101", "he2019-baseline", "linear-probe", "one-nn")


def learning_rate(recipe: Recipe, epoch: float) -> float:
    return recipe.lr * math.prod(trick.lr(epoch / recipe.epochs) for trick in having(recipe.tricks, "lr"))


def two_steps(recipe: Recipe) -> list[Step]:
    """Two steps on the laboratory's images, after whatever a trick prepares."""
    made = loop(recipe)
    list(made.prepare())
    return list(itertools.islice((event for event in made.train() if isinstance(event, Step)), 2))


def weights_of(model: str, folder: Path) -> str:
    """A file with random weights, as a user would have one with published weights."""
    torch.manual_seed(0)
    file = folder / f"{model}.safetensors"
    store.save_tensors(file, networks.build(model, 10, size=96).net.state_dict())
    return str(file)


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text)
    return path


def test_the_built_in_recipes_are_found() -> None:
    assert set(BUILT_IN) <= set(recipe_names())


@pytest.mark.parametrize("name", recipe_names())
def test_a_built_in_recipe_goes_through_toml_and_back(name: str, tmp_path: Path) -> None:
    recipe = Recipe.load(name)
    again = Recipe.load(written(tmp_path, recipe.toml(["why it is so"])))
    assert again == recipe
    assert again.key == recipe.key
    assert again.toml() == recipe.toml()


@pytest.mark.parametrize("name", recipe_names())
def test_a_built_in_recipe_opens_with_command_cost_and_result(name: str) -> None:
    header = list(itertools.takewhile(lambda line: line.startswith("#"), recipe_text(name)[0].splitlines()))
    words = ["Command:", "Cost:", "Result:"]
    places = [next((i for i, line in enumerate(header) if line.startswith(f"# {word} ")), -1) for word in words]
    assert places[0] == 0, f"the first line is not '# Command: …': {header[:1]}"
    assert -1 not in places
    assert places == sorted(places)
    assert "trickbag train " in header[0]
    assert name == "auto" or f"--recipe {name}" in header[0]


@pytest.mark.parametrize("name", recipe_names())
def test_a_built_in_recipe_is_drawn(name: str) -> None:
    recipe = Recipe.load(name)
    text = "\n".join(outline(recipe))
    assert all(text.count(str(trick)) >= len(trick.plugs()) for trick in recipe.tricks)
    assert "parameters" in text


@pytest.mark.parametrize("name", recipe_names())
def test_a_built_in_recipe_trains(name: str, tmp_path: Path) -> None:
    recipe = Recipe.load(name)
    given = "none" if recipe.weights == "none" and name != "auto" else weights_of(recipe.model, tmp_path)
    small = recipe.edit(size=32, batch_size=20, weights=given, precision="fp32", channels_last=False)
    if not recipe.epochs:
        made = loop(small)
        assert [event.kept for event in made.prepare()] == [{""}]
        assert list(made.train()) == []
        return
    steps = two_steps(small.edit(epochs=1))
    assert len(steps) == 2
    assert all(bool(step.loss.isfinite()) for step in steps)


@pytest.mark.parametrize("family", PAPER_FAMILIES)
def test_the_papers_networks_train_two_steps(family: str) -> None:
    fields = {"model": family, "size": PAPER_FAMILIES[family], "batch_size": 4, "channels_last": False}
    steps = two_steps(Recipe.load("he2019-baseline").edit(**fields))
    assert len(steps) == 2
    assert all(bool(step.loss.isfinite()) for step in steps)


@pytest.mark.parametrize(("epoch", "rate"), [(0, 0.1), (29, 0.1), (30, 0.01), (59, 0.01), (60, 1e-3), (89, 1e-3), (90, 1e-4)])
def test_the_learning_rates_of_the_papers_baseline(epoch: int, rate: float) -> None:
    assert learning_rate(Recipe.load("he2019-baseline"), epoch) == pytest.approx(rate)


@pytest.mark.parametrize(("epoch", "rate"), [(0, 1e-4), (14, 1e-4), (15, 1e-5), (29, 1e-5), (30, 1e-6), (39, 1e-6)])
def test_the_learning_rates_of_the_food_experiment(epoch: int, rate: float) -> None:
    assert learning_rate(Recipe.load("food101"), epoch) == pytest.approx(rate)


def test_the_papers_baseline_is_the_papers() -> None:
    recipe = Recipe.load("he2019-baseline")
    assert (recipe.model, recipe.weights, recipe.size, recipe.epochs, recipe.batch_size) == ("resnet50", "none", 224, 120, 256)
    assert (recipe.lr, recipe.momentum, recipe.weight_decay, recipe.precision) == (0.1, 0.9, 1e-4, "fp32")
    assert [255 * v for v in recipe.mean] == pytest.approx([123.68, 116.779, 103.939])
    assert [255 * v for v in recipe.std] == pytest.approx([58.393, 57.12, 57.375])
    assert {trick.name(): dict(trick) for trick in recipe.tricks} == {
        "random_resized_crop": {"scale": (0.08, 1.0), "ratio": pytest.approx((3 / 4, 4 / 3))},
        "flip": {"p": 0.5, "vertical": 0.0},
        "color_jitter": {"hue": 0.4, "saturation": 0.4, "brightness": 0.4},
        "lighting": {"std": 0.1},
        "step_decay": {"at": (0.25, 0.5, 0.75), "factor": 0.1},
        "xavier": {},
    }
    optimizer = loop(recipe.edit(model="cifar_resnet8", size=16, channels_last=False)).optimizer
    assert isinstance(optimizer, torch.optim.SGD)
    assert optimizer.defaults["nesterov"] is True


def test_the_food_experiment_is_the_published_one() -> None:
    recipe = Recipe.load("food101")
    assert (recipe.model, recipe.weights, recipe.size, recipe.epochs, recipe.batch_size) == ("resnet18", "hub", 224, 40, 32)
    assert (recipe.lr, recipe.weight_decay, recipe.precision) == (1e-4, 0.0, "fp32")
    assert recipe.mean == (0.485, 0.456, 0.406)
    assert recipe.std == (0.229, 0.224, 0.225)
    assert {str(trick) for trick in recipe.tricks} == {
        "adam", "flip", "random_resized_crop(scale=(0.8, 1.0))", "step_decay(at=(0.375, 0.75))"
    }  # fmt: skip


def test_the_plan_prints_the_papers_numbers_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRICKBAG_CACHE", str(tmp_path / "cache"))
    data = tmp_path / "photos"
    for split, count in (("train", 2), ("val", 1), ("test", 1)):
        album.fill(data / split, {"a": 0, "b": 1}, count, seed=len(split))
    asked = ["--recipe", "he2019-baseline", "--plan", "--model", "mobilenetv1_100", "--set", "channels_last=false"]
    said = CliRunner().invoke(app, ["train", str(data), *asked], catch_exceptions=False)
    assert said.exit_code == 0
    for line in (
        "pixels: 224 in training; judged images: shorter side 256, centre 224",
        "normalised by: mean 123.68, 116.779, 103.939; std 58.393, 57.12, 57.375 (of 255)",
        "learning rate: 0.1 at epoch 0, 0.01 at epoch 30, 0.001 at epoch 60, 0.0001 at epoch 90, 0.0001 at epoch 119",
        "steps: 120 in 120 epochs",
        "batch_size = 256",
        'precision = "fp32"',
    ):
        assert line in said.output
    printed = tomllib.loads(said.output[said.output.index('model = "') : said.output.index("images: ")])
    recipe = Recipe.build(printed)
    assert recipe == Recipe.load("he2019-baseline").edit(model="mobilenetv1_100", channels_last=False, compile=False)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("# epochz\nepochs = 3\nepochz = 4\n", 3, "did you mean epochs"),
        ('epochs = 3\nbatch_size = "many"\n', 2, "batch_size='many'"),
        ("epochs = 2.5\n", 1, "integer"),
        ("epochs = 3\n\nlr = nan\n", 3, "finite"),
        ("epochs = 3\nlr = inf\n", 2, "finite"),
        ("epochs = 3\nsize = 4\n", 2, "greater than or equal to 8"),
        ("mean = [0.5]\nstd = [0.0]\n", 2, "above 0"),
        ("epochs = 3\nmean = [0.5, 0.5]\nstd = [0.5]\n", 2, "2 values and std 1"),
        ('tricks = [\n  "flip",\n  "mixup",\n  "cutmix",\n]\n', 3, "one_of"),
        ('tricks = [\n  "flip",\n  "mixup(alpha=-1)",\n]\n', 3, "alpha"),
        ('tricks = [\n  "flip",\n  "mixpu",\n]\n', 3, "did you mean mixup"),
        ('epochs = 3\ntricks = "flip"\n', 2, "list of tricks"),
        ("epochs = 3\ntricks = [3]\n", 2, "list of tricks"),
    ],
)
def test_an_error_in_a_file_names_file_and_line(text: str, line: int, words: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as refused:
        Recipe.load(written(tmp_path, text))
    message = str(refused.value)
    assert message.startswith(f"recipe mine.toml, line {line}: ")
    assert words in message
    assert message.endswith((".", "?"))
    assert "\n" not in message


def test_what_is_no_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"recipe mine.toml: .*line 2"):
        Recipe.load(written(tmp_path, "epochs = 3\nmodel = \n"))
    with pytest.raises(UsageError, match="did you mean food101"):
        Recipe.load("food102")
    (tmp_path / "latin.toml").write_bytes(b"# \xe9\n")
    with pytest.raises(UsageError, match=r"latin.toml' cannot be read"):
        Recipe.load(tmp_path / "latin.toml")


def test_edits() -> None:
    old = Recipe(tricks=["mixup(alpha=0.4)", "warmup", "random_erasing(p=0.5)"])
    spelled = old.toml()

    def tricks(**asked: Any) -> set[str]:
        return {str(trick) for trick in old.edit(**asked).tricks}

    assert tricks(with_=["mixup(alpha=0.6)"]) == {"mixup(alpha=0.6)", "warmup", "random_erasing(p=0.5)"}
    assert tricks(with_=["mixup"]) == {"mixup", "warmup", "random_erasing(p=0.5)"}
    assert tricks(without=["mixup"], with_=["flip"]) == {"flip", "warmup", "random_erasing(p=0.5)"}
    assert tricks(without=["mixup", "warmup", "random_erasing"]) == set()
    assert tricks(tricks=["flip"], with_=["warmup"]) == {"flip", "warmup"}
    edited = old.edit(with_=["cosine"], epochs=3, **{"random_erasing.p": 0.25, "cosine.final": 0.1})
    assert edited.epochs == 3
    assert {str(t) for t in edited.tricks} == {"cosine(final=0.1)", "mixup(alpha=0.4)", "random_erasing", "warmup"}
    assert dict(edited) | {"epochs": old.epochs, "tricks": old.tricks} == dict(old)
    assert old.toml() == spelled


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("clean_labels(kind=correct)", "clean_labels(kind='correct')"),
        ("dihedral(turns=false)", "dihedral(turns=False)"),
        ("ordinal(levels=(low, high))", "ordinal('low', 'high')"),
        ("ordinal(low, high)", "ordinal('low', 'high')"),
        ("until(trick=mixup, share=0.5)", "until(mixup, 0.5)"),
    ],
)
def test_a_word_that_can_be_no_trick_needs_no_quotes(typed: str, meant: str) -> None:
    assert str(parse(typed)) == meant


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"without": ["cutmix"]}, "no such trick. It has: mixup"),
        ({"without": ["mixpu"]}, "did you mean mixup"),
        ({"with_": ["cutmix"]}, 'both sit in the slot.* The recipe brings mixup: without="mixup" takes it out'),
        ({"with_": ["cutmix", "resize_mix"]}, "^cutmix and resize_mix both sit in the slot.*mix\\)\\.$"),
        ({"with_": ["mixup(alpha=nan)"]}, "finite number"),
        ({"with_": ["mixup(alpha=true)"]}, "alpha: input should be a valid number"),
        ({"with_": ["random_resized_crop(scale=0.5)"]}, r"scale: write several values in brackets, as in .*scale=\(0.08"),
        ({"with_": ["placebo(mixup)"]}, "placebo takes no values"),
        ({"epohcs": 3}, "did you mean epochs"),
        ({"epochs": -1}, "epochs=-1"),
        ({"cutmix.alpha": 0.3}, 'Add it with with_="cutmix"'),
        ({"mixup.beta": 0.3}, "no field beta"),
        ({"mixup.alpha": math.nan}, "alpha"),
    ],
)
def test_edits_that_cannot_be_done_are_refused(asked: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Recipe(tricks=["mixup"]).edit(**asked)


def test_the_key_is_that_of_the_content() -> None:
    spellings = ["mixup(alpha=0.4)", "label_smoothing", "warmup", "cosine"]
    keys = {Recipe(tricks=order).key for order in itertools.permutations(spellings)}
    assert len(keys) == 1
    recipe = Recipe(tricks=spellings)
    assert recipe.edit(with_=["warmup(share=0.05)"]).key == recipe.key  # its default
    others = {recipe.edit(**{n: v}).key for n, v in (("lr", 0.02), ("epochs", 3), ("keep", "last"), ("mixup.alpha", 0.3))}
    assert len(others | keys) == 5


def test_xavier_draws_as_torch_does_and_sets_biases_and_norms() -> None:
    def network() -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 8, (3, 5)), nn.BatchNorm2d(8), nn.LayerNorm(4), nn.Linear(8, 4))

    torch.manual_seed(1)
    made = Xavier().model(network())
    torch.manual_seed(1)
    reference = network()  # takes draws of its own
    torch.manual_seed(1)
    network()
    for layer in (reference[0], reference[3]):
        nn.init.xavier_uniform_(layer.weight)
    assert torch.equal(made[0].weight, reference[0].weight)
    assert torch.equal(made[3].weight, reference[3].weight)
    assert not made[0].bias.any()
    assert not made[3].bias.any()
    for norm in made[1:3]:
        nn.init.uniform_(norm.weight)
        nn.init.uniform_(norm.bias)
    made = Xavier().model(made)
    assert all(bool((norm.weight == 1).all()) and not norm.bias.any() for norm in made[1:3])


def test_xavier_counts_the_channels_of_a_group() -> None:
    layer = Xavier().model(nn.Sequential(nn.Conv2d(512, 512, 3, groups=512)))[0]
    a = math.sqrt(6 / (9 + 9))
    assert float(layer.weight.detach().abs().max()) <= a
    assert float(layer.weight.detach().var()) == pytest.approx(a * a / 3, rel=0.1)


def test_xavier_refuses_pretrained_weights(tmp_path: Path) -> None:
    file = weights_of("cifar_resnet8", tmp_path)
    with pytest.raises(UsageError, match="xavier would destroy pretrained weights"):
        Xavier().model(networks.build("cifar_resnet8", 3, size=32, weights=file))


def test_xavier_leaves_other_tricks_starting_weights_alone() -> None:
    """Zeroed scales stay zero whatever was typed first."""
    fields = {"model": "cifar_resnet8", "size": 16, "precision": "fp32", "channels_last": False}
    for order in (("xavier", "zero_gamma"), ("zero_gamma", "xavier")):
        model = loop(Recipe(tricks=[parse(name) for name in order], **fields)).model
        assert any(not norm.weight.any() for norm in model.modules() if isinstance(norm, nn.BatchNorm2d))
