"""Training that starts from the weights of another run, whatever surgery that run's network had."""

import json
from pathlib import Path

import pytest
import torch
from album import fill, recipe_file
from safetensors.torch import load_file, save_file

from trickbag.api import train
from trickbag.engine.assemble import build_model
from trickbag.ground.errors import UsageError
from trickbag.models.card import CARD, Card
from trickbag.recipe import Recipe
from trickbag.runs.request import request
from trickbag.trick import having
from trickbag.tricks import bag, find, parse

BASE = Recipe(model="resnet18", size=64)
REFUSING = ("drop_patches", "token_distill")
"""Those that want another network than this one."""
SURGEONS = [
    find(name).example or name
    for name, trick in bag().items()
    if "model" in trick.plugs() and not trick.undone and name not in REFUSING
]


def network(recipe: Recipe, seed: int, weights: str = "none", classes: int = 5):
    return build_model(recipe, recipe.tricks, classes, 3, seed, weights)


def stored(folder: Path, spec: str) -> dict[str, torch.Tensor]:
    """A folder with what --weights reads of a run: the tensors of its network and its tricks, and which tricks those were."""
    recipe = BASE.edit(with_=[spec])
    state = {name: tensor.contiguous() for name, tensor in network(recipe, 0).net.state_dict().items()}
    save_file(state | {"tricks/knn/bank_": torch.ones(3)}, folder / "model.safetensors")
    used = [str(trick) for trick in having(recipe.tricks, "model")]
    card = Card(
        model=recipe.model, channels=3, classes=list("abcde"), size=recipe.size, crop_share=1.0, kept=recipe.size,
        mean=[0.5] * 3, std=[0.25] * 3, precision="fp32", channels_last=False, tricks=used, state={},
    )  # fmt: skip
    (folder / CARD).write_text(json.dumps(card.plain()), "utf-8")
    return state


@pytest.mark.parametrize("spec", SURGEONS)
def test_a_run_hands_on_its_network_or_it_is_said_what_lacks(tmp_path: Path, spec: str) -> None:
    state = stored(tmp_path, spec)
    if parse(spec).rebuilds:
        with pytest.raises(UsageError, match=r"was trained with .* Add --with"):
            network(BASE, 1, str(tmp_path))
        made = network(BASE.edit(with_=[spec]), 1, str(tmp_path))
    else:
        made = network(BASE, 1, str(tmp_path))
    assert made.pretrained
    heads = {name.removeprefix("net.") for name in made.head_names}
    got = made.net.state_dict()
    body = [name for name in state if not name.startswith("fc.")]
    assert len(body) > 100
    assert all(torch.equal(got[name], state[name]) for name in body)
    same_head = all(name in state and state[name].shape == got[name].shape for name in heads)
    assert same_head == all(name in state and torch.equal(got[name], state[name]) for name in heads)


@pytest.mark.parametrize("spec", SURGEONS)
def test_whether_features_are_others_without_the_trick_is_true(tmp_path: Path, spec: str) -> None:
    torch.manual_seed(0)
    bare, x = network(BASE, 0), torch.rand(2, 3, 64, 64)
    operated = network(BASE.edit(with_=[spec]), 0)
    with torch.no_grad():
        for parameter in operated.parameters():
            parameter.add_(0.01 * torch.randn(parameter.shape))
        own, theirs = (
            {name: tensor for name, tensor in net.state_dict().items() if not name.startswith("net.fc.")}
            for net in (bare, operated)
        )
        same = {name: tensor.shape for name, tensor in own.items()} == {name: tensor.shape for name, tensor in theirs.items()}
        if same:
            bare.load_state_dict(theirs, strict=False)
            same = torch.equal(bare.eval()(x).features, operated.eval()(x).features)
    assert parse(spec).rebuilds == (not same)


def test_the_classifier_of_a_rebuilt_network_is_kept_where_it_fits(tmp_path: Path) -> None:
    state, recipe = stored(tmp_path, "gem_pool"), BASE.edit(with_=["gem_pool"])
    assert torch.equal(network(recipe, 1, str(tmp_path)).classifier.weight, state["fc.weight"])
    assert network(recipe, 1, str(tmp_path), classes=7).classifier.out_features == 7


@pytest.mark.parametrize("name", REFUSING)
def test_surgery_that_is_not_tried_here_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"^{name}: resnet18 has no"):
        network(BASE.edit(with_=[name]), 0)


def test_a_rebuilt_network_of_another_model_is_refused(tmp_path: Path) -> None:
    stored(tmp_path, "gem_pool")
    with pytest.raises(UsageError, match=r"does not fit resnet34: it lacks layer"):
        network(Recipe(model="resnet34", size=64).edit(with_=["gem_pool"]), 1, str(tmp_path))


def test_a_second_training_starts_where_the_first_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a pooling, a classifier of another make and neighbours, whose tensors lie in the run's file too."""
    monkeypatch.setenv("TRICKBAG_CACHE", str(tmp_path / "cache"))
    fill(tmp_path / "photos", {"a": 0, "b": 1}, 16)
    recipe = recipe_file(tmp_path / "tiny.toml")
    spelled = ["gem_pool", "knn(k=3)", "cosine_classifier"]
    first = train(tmp_path / "photos", recipe, out=tmp_path / "first", with_=spelled)
    assert any(name.startswith("tricks/") for name in load_file(first.folder / "model.safetensors"))
    asked = {"weights": first.folder, "with_": ["gem_pool"], "set_": {"epochs": 0}}
    second = train(tmp_path / "photos", recipe, out=tmp_path / "second", **asked)
    before, after = (load_file(run.folder / "model.safetensors") for run in (first, second))
    body = [name for name in after if not name.startswith("fc.") and not name.endswith("num_batches_tracked")]
    assert "global_pool.inner.log_p" in body
    assert all(torch.equal(before[name], after[name]) for name in body)


def test_other_weights_in_the_folder_make_another_run(tmp_path: Path) -> None:
    fill(tmp_path / "photos", {"a": 0, "b": 1}, 16)
    recipe = recipe_file(tmp_path / "tiny.toml")
    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors")
    before = request(tmp_path / "photos", recipe, weights=tmp_path).key
    assert request(tmp_path / "photos", recipe, weights=tmp_path).key == before
    save_file({"x": torch.ones(2)}, tmp_path / "model.safetensors")
    assert request(tmp_path / "photos", recipe, weights=tmp_path).key != before
