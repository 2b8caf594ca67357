"""Files of weights: the network that fits is found, and a prefix before all names is no obstacle."""

import json
from pathlib import Path
from typing import Any

import album
import pytest
import timm
import torch
from safetensors.torch import save_file

from trickbag.ground.errors import UsageError
from trickbag.ground.events import Note
from trickbag.models import weights
from trickbag.models.networks import build
from trickbag.runs.request import request


def saved(path: Path, name: str, prefix: str = "", classes: int = 3, **more: Any) -> str:
    torch.manual_seed(5)
    state = {prefix + key: value for key, value in timm.create_model(name, num_classes=classes).state_dict().items()}
    save_file(state | more.pop("extra", {}), path, **more)
    return str(path)


@pytest.mark.parametrize("prefix", ["module.", "model.", "backbone.", "_orig_mod.", "module._orig_mod.", "net.encoder."])
@pytest.mark.parametrize("name", ["cifar_resnet8", "vit_tiny_patch16_224"])
def test_a_prefix_before_all_names_is_left_out(tmp_path: Path, name: str, prefix: str) -> None:
    plain, other = saved(tmp_path / "plain.safetensors", name), saved(tmp_path / "other.safetensors", name, prefix)
    size = 32 if name.startswith("cifar") else 224
    one, two = (build(name, 3, 3, size, file).state_dict() for file in (plain, other))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert weights.prefix(other, name) == prefix
    assert weights.prefix(plain, name) == ""


def test_what_lies_beside_the_prefixed_names_is_left_aside(tmp_path: Path) -> None:
    more = {"head.fc.weight": torch.ones(7, 64), "step": torch.ones(1)}
    file = saved(tmp_path / "w.safetensors", "cifar_resnet8", "backbone.", extra=more)
    assert weights.network(file) == "cifar_resnet8"
    assert torch.equal(
        build("cifar_resnet8", 3, 3, 32, file).net.conv1.weight,
        timm_weight("cifar_resnet8"),  # type: ignore[arg-type]
    )


def timm_weight(name: str) -> torch.Tensor:
    torch.manual_seed(5)
    return timm.create_model(name, num_classes=3).conv1.weight


def test_two_networks_in_a_file_are_not_guessed_between(tmp_path: Path) -> None:
    twice = {f"teacher.{key}": value for key, value in timm.create_model("cifar_resnet8", num_classes=3).state_dict().items()}
    file = saved(tmp_path / "w.safetensors", "cifar_resnet8", "student.", extra=twice)
    with pytest.raises(UsageError, match="does not fit cifar_resnet8"):
        build("cifar_resnet8", 3, 3, 32, file)


@pytest.mark.parametrize("name", ["cifar_resnet20", "resnet18", "resnet50", "mobilenetv3_large_100", "vit_small_patch16_224"])
def test_the_network_is_found_by_its_tensors(tmp_path: Path, name: str) -> None:
    assert weights.network(saved(tmp_path / "model.safetensors", name)) == name
    assert weights.network(saved(tmp_path / "model2.safetensors", name, "module.", classes=11)) == name


def test_the_network_is_found_where_it_is_named(tmp_path: Path) -> None:
    odd = "lcnet_050"
    assert odd not in weights.KNOWN
    with pytest.raises(UsageError, match=r"match none of the common ones\. Name the model .* with --model"):
        weights.network(saved(tmp_path / "odd.safetensors", odd))
    assert weights.network(saved(tmp_path / "meta.safetensors", odd, metadata={"architecture": odd})) == odd
    assert weights.network(saved(tmp_path / f"{odd}.ra_in1k.safetensors", odd)) == odd
    file = saved(tmp_path / "model.safetensors", odd)
    for beside, key in (("config.json", "architecture"), ("model.json", "model")):
        (tmp_path / beside).write_text(json.dumps({key: odd}))
        assert weights.network(file) == odd
        (tmp_path / beside).write_text(json.dumps({key: "resnet18"}))
        with pytest.raises(UsageError, match="match none"):  # what is said is not believed unseen
            weights.network(file)
        (tmp_path / beside).unlink()


def test_a_training_from_a_file_takes_its_network_and_says_so(tmp_path: Path) -> None:
    album.fill(tmp_path / "photos", {"a": 0, "b": 1}, 6)
    file = saved(tmp_path / "w.safetensors", "cifar_resnet8", "module.")
    told: list[str] = []
    wanted = request(tmp_path / "photos", weights=file, tell=lambda e: told.append(e.text if isinstance(e, Note) else ""))
    assert wanted.recipe.model == "cifar_resnet8"
    assert f"{file} holds the weights of cifar_resnet8" in told
    assert f"{file}: names of tensors are read without 'module.' at their beginning" in told
    with pytest.raises(UsageError, match="There is no file"):
        request(tmp_path / "photos", weights=tmp_path / "none.safetensors")
