"""timm models as tricks see them: one pass, timm's own logits; weights from real files and a real hub cache."""

import os
import pickle
import re
import struct
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.functional import cross_entropy

from trickbag.ground.errors import UsageError
from trickbag.models.networks import Net, build

FAMILIES = {
    "cifar_resnet8": 32,
    "resnet18": 64,
    "resnet50": 64,
    "inception_v3": 96,
    "mobilenetv2_100": 64,
    "mobilenetv3_small_100": 64,
    "densenet121": 64,
    "efficientnet_b0": 64,
    "resnext50_32x4d": 64,
    "legacy_seresnet18": 64,
    "convnext_atto": 64,
    "vit_tiny_patch16_224": 64,
    "swin_tiny_patch4_window7_224": 64,
    "deit_tiny_distilled_patch16_224": 64,
    "resnetv2_18": 64,
    "efficientvit_m0": 64,
}
NO_PLAIN_HEAD = {"deit_tiny_distilled_patch16_224", "resnetv2_18"}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def images(size: int, n: int = 2, channels: int = 3) -> torch.Tensor:
    return torch.randn(n, channels, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", FAMILIES)
def test_outputs_are_those_of_timm_and_the_network_learns(name: str) -> None:
    net, x, y = build(name, 5, size=FAMILIES[name]), images(FAMILIES[name]), torch.tensor([0, 3])
    assert net.training
    net.eval()
    with torch.no_grad():
        outputs = net(x)
        assert torch.equal(outputs.logits, net.net(x))
    assert outputs.logits.shape == (2, 5)
    assert outputs.features.ndim == 2
    assert outputs.maps.ndim == 4
    assert len(outputs.maps) == 2
    names = {n for n, _ in net.named_parameters()}
    assert set(net.depths) == names > net.head_names
    assert {n for n, depth in net.depths.items() if depth == max(net.depths.values())} == net.head_names
    if name not in NO_PLAIN_HEAD:
        assert torch.equal(net.classifier(outputs.features), outputs.logits)
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3)
    net.train()
    for _ in range(2):
        optimizer.zero_grad()
        cross_entropy(net(x).logits, y).backward()
        optimizer.step()
    assert all(p.isfinite().all() for p in net.parameters())
    net.eval()
    with torch.no_grad():
        assert not torch.equal(net(x).logits, outputs.logits)


@pytest.mark.parametrize("name", ["resnet18", "ghostnet_050", "deit_tiny_distilled_patch16_224"])
def test_training_draws_dropout_as_timm_does(name: str) -> None:
    net, x = build(name, 5, size=64), images(64)
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.5
    net.net.drop_rate = 0.5
    torch.manual_seed(3)
    ours, state = net(x), torch.get_rng_state()
    torch.manual_seed(3)
    theirs = net.net(x)
    assert torch.equal(ours.logits, theirs)
    assert torch.equal(state, torch.get_rng_state())
    assert not torch.equal(net(x).logits, theirs)


def test_maps_are_the_patches_in_their_places() -> None:
    net = build("vit_tiny_patch16_224", 5, size=64).eval()
    tokens = net.net.forward_features(images(64))
    maps = net(images(64)).maps
    assert maps.shape == (2, 192, 4, 4)
    assert torch.equal(maps[1, :, 2, 3], tokens[1, 1 + 2 * 4 + 3])
    swin = build("swin_tiny_patch4_window7_224", 5, size=64).eval()
    assert torch.equal(swin(images(64)).maps[0, :, 1, 0], swin.net.forward_features(images(64))[0, 1, 0])


def test_features_are_what_the_classifier_sees() -> None:
    net = build("resnet18", 5, size=64).eval()
    outputs = net(images(64))
    torch.testing.assert_close(outputs.features, outputs.maps.mean((2, 3)))
    distilled = build("deit_tiny_distilled_patch16_224", 5, size=64).eval()
    tokens = distilled.net.forward_features(images(64))
    assert torch.equal(distilled(images(64)).features, tokens[:, :2].flatten(1))


def test_the_classifier_can_be_replaced() -> None:
    net = build("convnext_atto", 5, size=64).eval()
    net.classifier = nn.Linear(net.classifier.in_features, 9)
    outputs = net(images(64))
    assert outputs.logits.shape == (2, 9)
    assert torch.equal(outputs.logits, net.net(images(64)))
    assert net.head_names == {"net.head.fc.weight", "net.head.fc.bias"}
    with pytest.raises(UsageError, match="no single linear classifier"):
        build("deit_tiny_distilled_patch16_224", 5, size=64).classifier = nn.Linear(192, 9)


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_050", "convnext_atto", "cifar_resnet8"])
def test_the_pooling_can_be_replaced(name: str) -> None:
    """By a mean it gives the same; by a maximum the largest of each map reaches the classifier."""

    class Mean(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((2, 3))

    class Largest(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.amax((2, 3))

    model, x = build(name, 3, size=64).eval(), torch.randn(2, 3, 64, 64)
    before = model(x)
    model.pool = Mean()
    assert isinstance(model.pool, Mean)
    torch.testing.assert_close(model(x).logits, before.logits)
    model.pool = Largest()
    after = model(x)
    assert not torch.allclose(after.logits, before.logits)
    if after.maps.shape[1] == after.features.shape[1] and name != "convnext_atto":  # which has a norm between
        torch.testing.assert_close(after.features, before.maps.amax((2, 3)))


def test_a_network_without_a_pooling_says_so() -> None:
    with pytest.raises(UsageError, match=r"vit_tiny_patch16_224 has no pooling to replace\. Choose a convolutional model"):
        build("vit_tiny_patch16_224", 3).pool  # noqa: B018


def test_depth_grows_from_the_input() -> None:
    depths = build("resnet18", 5, size=64).depths
    inward = [
        "net.conv1.weight",
        "net.layer1.0.conv1.weight",
        "net.layer1.1.bn2.bias",
        "net.layer4.0.conv1.weight",
        "net.fc.bias",
    ]
    assert [depths[n] for n in inward] == sorted({depths[n] for n in inward})
    assert depths["net.conv1.weight"] == depths["net.bn1.weight"] == 0
    plain = build("csatv2", 5, size=64).depths
    assert plain["net.head.fc.weight"] == max(plain.values())


def test_scales_start_at_one_and_zero_gamma_is_a_trick() -> None:
    norms = [m for m in build("resnet18", 5, size=64).modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 20
    assert all((m.weight == 1).all() for m in norms)


def test_preprocessing_is_the_models_own() -> None:
    net = build("resnet18", 5, size=64)
    assert (net.size, net.crop_share) == (288, 1.0)
    assert net.mean == (0.485, 0.456, 0.406)
    assert build("mobilenetv2_100", 5, size=64).crop_share == 0.875
    grey, five = build("resnet18", 5, 1, 64), build("resnet18", 5, 5, 64)
    assert grey.mean == (pytest.approx(0.449),)
    assert five.std == (0.229, 0.224, 0.225, 0.229, 0.224)
    assert (build("cifar_resnet20", 5, size=32).size, build("cifar_resnet20", 5, size=32).crop_share) == (32, 1.0)


@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (32, 0.46), (56, 0.85)])
def test_cifar_networks_have_the_papers_size(depth: int, millions: float) -> None:
    net = build(f"cifar_resnet{depth}", 10, size=32)
    assert round(sum(p.numel() for p in net.parameters()) / 1e6, 2) == millions
    layers = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers) == depth


def test_a_cifar_shortcut_is_the_subsampled_image_with_zero_channels() -> None:
    net = build("cifar_resnet8", 10, channels=1, size=32).eval()
    block = net.net.layer2[0]
    block.zero_init_last()
    x = images(8, channels=16).abs()
    expected = torch.zeros(2, 32, 4, 4)
    expected[:, 8:24] = x[:, :, ::2, ::2]
    assert torch.equal(block(x), expected)
    assert net(images(32, channels=1)).maps.shape == (2, 64, 8, 8)


@pytest.mark.parametrize(
    ("name", "size", "says"),
    [
        ("resnet81", 64, "no model 'resnet81'.* resnet18"),
        ("cifar_resnet21", 32, "cifar_resnet20"),
        ("resnet18.nonsense", 64, "no model 'resnet18.nonsense'"),
        ("hf-hub:timm/resnet18", 64, "no model"),
        ("inception_v3", 32, "inception_v3 cannot read images of 3 channels and 32 x 32 pixels"),
    ],
)
def test_what_cannot_be_built_is_said(name: str, size: int, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        build(name, 5, size=size)


def test_a_model_of_one_size_refuses_others() -> None:
    with pytest.raises(UsageError, match="built for 64 x 64 pixels, not 32 x 32"):
        build("vit_tiny_patch16_224", 5, size=64)(images(32))


def saved(folder: Path, name: str, classes: int, half: bool = False, **options: int) -> Path:
    torch.manual_seed(7)
    state = timm.create_model(name, num_classes=classes, **options).state_dict()
    file = folder / f"{name}.safetensors"
    save_file({n: t.half() if half and t.is_floating_point() else t for n, t in state.items()}, file)
    return file


@pytest.mark.parametrize("name", ["test_resnet", "inception_v3", "cifar_resnet8", "deit_tiny_distilled_patch16_224"])
def test_a_file_brings_all_but_the_classifier(tmp_path: Path, name: str) -> None:
    size = {"inception_v3": 96, "cifar_resnet8": 32}.get(name, 224)
    file = saved(tmp_path, name, 1000, half=True)
    net = build(name, 5, size=size, weights=str(file))
    assert net.pretrained
    state, held = net.net.state_dict(), load_file(file)
    heads = {n.removeprefix("net.") for n in net.head_names}
    assert all(torch.equal(state[n], held[n].to(state[n].dtype)) for n in held.keys() - heads)
    assert all(len(state[n]) == 5 for n in heads)
    assert {t.dtype for t in state.values() if t.is_floating_point()} == {torch.float32}


def test_a_fresh_head_is_timms_own(tmp_path: Path) -> None:
    file = saved(tmp_path, "mobilenetv2_100", 1000)
    torch.manual_seed(5)
    ours = build("mobilenetv2_100", 5, size=64, weights=str(file)).classifier
    torch.manual_seed(5)
    theirs = timm.create_model("mobilenetv2_100", num_classes=5).classifier
    assert torch.equal(ours.weight, theirs.weight)


def test_a_classifier_that_fits_is_kept(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    saved(tmp_path, "test_resnet", 7).rename(tmp_path / "run" / "model.safetensors")
    held = load_file(tmp_path / "run" / "model.safetensors")
    assert torch.equal(build("test_resnet", 7, size=64, weights=str(tmp_path / "run")).classifier.weight, held["fc.weight"])
    assert build("test_resnet", 4, size=64, weights=str(tmp_path / "run")).classifier.out_features == 4


def test_first_layers_follow_the_channels_as_in_timm(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    held = load_file(saved(tmp_path, "test_resnet", 1000))
    file = str(tmp_path / "test_resnet.safetensors")
    first = next(n for n, t in held.items() if t.ndim == 4)
    grey = build("test_resnet", 5, 1, 64, file).net.state_dict()[first]
    torch.testing.assert_close(grey, held[first].sum(1, keepdim=True))
    six = build("test_resnet", 5, 6, 64, file).net.state_dict()[first]
    torch.testing.assert_close(six, held[first].repeat(1, 2, 1, 1) / 2)
    held = load_file(saved(tmp_path, "test_resnet", 1000, in_chans=1))
    assert torch.equal(build("test_resnet", 5, 1, 64, file).net.state_dict()[first], held[first])
    assert not [r for r in caplog.records if r.levelname == "WARNING"]
    with pytest.raises(UsageError, match=f"{first} is .* there and .* in the model"):
        build("test_resnet", 5, 3, 64, file)


def test_position_embeddings_follow_the_size(tmp_path: Path) -> None:
    file = saved(tmp_path, "vit_tiny_patch16_224", 1000)
    net = build("vit_tiny_patch16_224", 5, size=64, weights=str(file))
    assert net.net.pos_embed.shape == (1, 17, 192)
    assert torch.equal(net.net.pos_embed[:, 0], load_file(file)["pos_embed"][:, 0])


@pytest.mark.parametrize("name", ["inception_v3", "dla34", "test_vit", "resnet34"])
def test_weights_of_another_model_are_refused(tmp_path: Path, name: str) -> None:
    file = saved(tmp_path, "resnet18", 1000)
    with pytest.raises(UsageError, match=f"does not fit {name}: .*--model"):
        build(name, 5, size=FAMILIES.get(name, 160), weights=str(file))


@pytest.mark.parametrize("change", ["lack", "more", "shape"])
@pytest.mark.parametrize("name", ["test_resnet", "dla34"])
def test_a_tensor_that_does_not_fit_is_named(tmp_path: Path, name: str, change: str) -> None:
    state = load_file(file := saved(tmp_path, name, 1000))
    odd = sorted(n for n, t in state.items() if t.ndim == 4)[3]
    if change == "lack":
        del state[odd]
    elif change == "shape":
        state[odd] = state[odd][:, :1].contiguous()
    else:
        state[odd := "odd.weight"] = torch.zeros(3)
    save_file(state, file)
    if (name, change) == ("dla34", "more"):
        assert build(name, 5, size=64, weights=str(file)).pretrained  # timm lets this family have more
        return
    with pytest.raises(UsageError, match=f"does not fit {name}: .*{odd}"):
        build(name, 5, size=64, weights=str(file))


def test_pickles_and_damaged_files_are_refused_unread(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "executed"),)

    good = saved(tmp_path, "test_resnet", 1000).read_bytes()
    lying = struct.pack("<Q", 1 << 60) + good[8:]
    files = {
        "bomb": pickle.dumps(Bomb()),
        "cut": good[:-5000],
        "empty": b"",
        "lying": lying,
        "text": b"\x02" + bytes(7) + b"[]",
    }
    for name, data in files.items():
        (tmp_path / f"{name}.safetensors").write_bytes(data)
        with pytest.raises(UsageError, match=f"{name}.safetensors cannot be read as a safetensors file"):
            build("test_resnet", 5, size=64, weights=str(tmp_path / f"{name}.safetensors"))
    for name, says in {
        "bomb.pth": "not a .safetensors file",
        "gone.safetensors": "no file",
        "run": "no file .*run/model.safetensors",
    }.items():
        if name == "run":
            (tmp_path / name).mkdir()
        elif name == "bomb.pth":
            (tmp_path / name).write_bytes(files["bomb"])
        with pytest.raises(UsageError, match=says):
            build("test_resnet", 5, size=64, weights=str(tmp_path / name))
    assert not (tmp_path / "executed").exists()


REFUSAL = (
    "The weights of resnet18 cannot be fetched: no connection to the hub. "
    "Give a file with --weights FILE, or train from scratch with --weights none."
)
FROM_HUB = """
import torch
from trickbag.ground.errors import UsageError
from trickbag.models.networks import build

net = build("test_resnet", 5, size=64, weights="hub")
first = net.net.state_dict()["conv1.0.weight"]
print(float(first.double().sum()), net.pretrained, net(torch.zeros(1, 3, 64, 64)).logits.shape[1])
try:
    build("resnet18", 5, size=64, weights="hub")
except UsageError as error:
    print(error)
"""


def test_the_hubs_cache_is_read_and_what_it_lacks_is_said(tmp_path: Path) -> None:
    """The cache as the hub's client lays it out: a reference to a revision, whose folder holds the files."""
    repo, revision = tmp_path / "hub" / "models--timm--test_resnet.r160_in1k", "0123456789" * 4
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(revision)
    (repo / "snapshots" / revision).mkdir(parents=True)
    file = saved(tmp_path, "test_resnet", 1000)
    expected = float(load_file(file)["conv1.0.weight"].double().sum())
    file.rename(repo / "snapshots" / revision / "model.safetensors")
    # A fresh process, because the hub's client reads its settings when it is imported.
    environment = {n: v for n, v in os.environ.items() if n != "HF_HUB_CACHE"} | {
        "HF_HOME": str(tmp_path),
        "HF_HUB_OFFLINE": "1",
    }
    done = subprocess.run([sys.executable, "-c", FROM_HUB], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{expected} True 5\n{REFUSAL}\n"


def test_a_hub_that_does_not_answer_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UsageError, match=re.escape(REFUSAL)):
        build("resnet18", 5, size=64, weights="hub")


def test_a_model_without_published_weights_is_said() -> None:
    with pytest.raises(UsageError, match="No weights of cifar_resnet20 are published"):
        build("cifar_resnet20", 10, size=32, weights="hub")


def test_building_leaves_the_draws_to_the_caller() -> None:
    def weights() -> dict[str, torch.Tensor]:
        torch.manual_seed(11)
        net: Net = build("resnet18", 5, size=64)
        return net.state_dict() | {"next": torch.rand(3)}

    first, second = weights(), weights()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[n], second[n]) for n in first)
    torch.manual_seed(11)
    timm.create_model("resnet18", num_classes=5)
    assert torch.equal(first["next"], torch.rand(3))
