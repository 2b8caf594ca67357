"""The body's maps are those of the run's own forward pass, and nothing is left of what made its classes."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from album import fill, recipe_file
from torch import Tensor, nn

import trickbag as tb
from trickbag.engine.loop import param_groups
from trickbag.ground.errors import UsageError
from trickbag.ground.norms import batch_norms, moved
from trickbag.models import networks
from trickbag.models.card import Card
from trickbag.runs.classifier import Classifier
from trickbag.transfers.body import Body, network

SURGERY = 'resnet_tweak(variant="d"), blur_pool, squeeze_excite, gem_pool(learn=True), stochastic_depth'
STAGES = ("act1", "layer1", "layer2", "layer3", "layer4")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A short run whose tricks changed stem, blocks and pooling, on images that were normalised in a way of their own."""
    folder = tmp_path_factory.mktemp("body")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRICKBAG_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        fill(folder / "photos", {"a": 0, "b": 1}, 12)
        recipe_file(folder / "tiny.toml")
        fields = {"size": 48, "epochs": 1, "mean": [0.1, 0.2, 0.3]}
        tb.train("photos", "tiny.toml", out="run", model="test_resnet", with_=SURGERY, set_=fields)
        yield str(folder / "run")


def watched(net: nn.Module, x: Tensor, names: tuple[str, ...]) -> list[Tensor]:
    """What modules of a network say in its own forward pass."""
    seen: dict[str, Tensor] = {}
    for name in names:
        net.get_submodule(name).register_forward_hook(lambda _, __, out, name=name: seen.update({name: out}))
    with torch.no_grad():
        net(x)
    return [seen[name] for name in names]


def test_the_maps_of_a_run_are_those_of_its_own_forward_pass(run: str) -> None:
    x = torch.randn(2, 3, 64, 96)
    body = Body(network(run), "frozen").eval()
    own = Classifier.load(run).model.eval()
    theirs = watched(own.net, x, STAGES)
    with torch.no_grad():
        assert [torch.equal(*pair) for pair in zip(body(x), theirs, strict=True)] == [True] * 5
        assert torch.equal(theirs[-1], own(x).maps)
    assert body.strides == (2, 4, 8, 16, 32)
    assert (body.mean, body.std) == ((0.1, 0.2, 0.3), (0.25, 0.25, 0.25))
    assert {"SEModule", "BlurPool2d", "DropPath"} <= {type(module).__name__ for module in body.modules()}


def test_a_body_is_rebuilt_from_the_card_of_its_run_without_the_run(run: str) -> None:
    trained = Body(network(run), "frozen")
    rebuilt = Body(network(Card.load(Path(run))), "frozen")
    rebuilt.load_state_dict(trained.state_dict())
    x = torch.randn(1, 3, 32, 32)
    assert all(torch.equal(*pair) for pair in zip(trained.eval()(x), rebuilt.eval()(x), strict=True))
    assert rebuilt.mean == trained.mean


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_convnext", "resnetv2_18", "cifar_resnet8"])
def test_every_parameter_of_a_body_bears_on_its_maps(name: str) -> None:
    body = Body(network(name), "trained")
    maps = body(torch.randn(2, 3, 64, 96))
    shapes = [(2, channels, 64 // s, 96 // s) for s, channels in zip(body.strides, body.channels, strict=True)]
    assert [tuple(found.shape) for found in maps] == shapes
    sum(found.square().mean() for found in maps).backward()
    assert [n for n, p in body.named_parameters() if p.grad is None] == []
    assert {n for n, _ in body.named_parameters()} <= body.layers.keys()


def test_weights_of_a_file_come_without_its_classifier(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    torch.manual_seed(1)
    source = networks.build("test_efficientnet", 7, size=64)
    save_file(source.net.state_dict(), tmp_path / "file.safetensors")
    body = Body(network("test_efficientnet", str(tmp_path / "file.safetensors"), 64), "frozen")
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(body.eval()(x)[-1], source.eval()(x).maps)


def test_frozen_norms_neither_move_nor_learn(run: str) -> None:
    body = Body(network(run), "frozen")
    before = {name: value.clone() for name, value in body.state_dict().items()}
    norms = {id(p) for norm in batch_norms(body) for p in norm.parameters()}
    optimizer = torch.optim.SGD([p for group in param_groups(body, (), 0.0) for p in group["params"]], lr=0.1)
    for _ in range(2):
        body.train()
        body(torch.randn(2, 3, 64, 64))[-1].square().mean().backward()
        optimizer.step()
    after = body.state_dict()
    of_norms = {name for name, _ in body.named_buffers()} | {n for n, p in body.named_parameters() if id(p) in norms}
    assert of_norms
    assert {name for name in before if torch.equal(before[name], after[name])} == of_norms
    assert not any(moved(norm) for norm in batch_norms(body))


def test_trained_norms_move_and_count_from_nothing(run: str) -> None:
    body = Body(network(run), "trained")
    assert not any(moved(norm) for norm in batch_norms(body))
    body.train()(torch.randn(2, 3, 64, 64))
    assert all(moved(norm) for norm in batch_norms(body))


@pytest.mark.parametrize("name", ["test_vit", "mixer_s32_224", "convmixer_768_32"])
def test_what_has_no_maps_of_several_strides_is_refused_by_name(name: str) -> None:
    with pytest.raises(UsageError, match=rf"^{name} .*Choose a convolutional network"):
        Body(network(name), "frozen")


def test_a_network_of_ones_own_without_maps_is_refused_by_name() -> None:
    net = networks.build("cifar_resnet8", 2, size=32)
    net.net = nn.Sequential(nn.Conv2d(3, 4, 3))
    with pytest.raises(UsageError, match=r"cifar_resnet8 has no forward_intermediates"):
        Body(net, "frozen")
