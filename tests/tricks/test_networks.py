"""Surgery on networks against timm's, torchvision's and the papers' own."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from album import fill, recipe_file
from safetensors.torch import load_file, save_file
from scipy.special import softmax
from timm.layers.blur_pool import BlurPool2d
from timm.layers.drop import DropPath
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d, dropout, pad, relu

import trickbag as tb
from trickbag.engine.assemble import build_model
from trickbag.engine.loop import param_groups
from trickbag.ground.errors import UsageError
from trickbag.laboratory.lab import loop, recipe, train
from trickbag.models import networks
from trickbag.runs.request import request
from trickbag.tricks import parse

SURGERY = (
    "resnet_tweak", "squeeze_excite", "blur_pool", "stochastic_depth", "dropout", "gem_pool", "attention_pool",
    "cosine_classifier",
)  # fmt: skip
POOLED = ("resnet18", "mobilenetv3_small_050", "convnext_atto", "swin_tiny_patch4_window7_224")


def made(*specs: str, model: str = "cifar_resnet8", classes: int = 5, weights: str = "none", size: int = 64) -> networks.Net:
    """The network as a run would build it, each norm with statistics of its own."""
    chosen = recipe(*specs, model=model, size=size)
    net = build_model(chosen, chosen.tricks, classes, 3, 0, weights)
    rng = torch.Generator().manual_seed(1)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2, generator=rng)
            module.running_var.uniform_(0.5, 2, generator=rng)
    return net


def images(count: int = 2, size: int = 64) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(3))


def assert_same_network(net: networks.Net, reference: nn.Module, size: int = 64) -> None:
    """The same names and shapes of weights, and the same function, in evaluation and in training."""
    reference.load_state_dict(net.net.state_dict(), strict=True)
    with torch.no_grad():
        for mode in (False, True):
            torch.testing.assert_close(net.train(mode)(images(size=size)).logits, reference.train(mode)(images(size=size)))


def multiply_adds(net: nn.Module) -> int:
    """Of one image of 224 pixels, in convolutions and linear layers."""
    total = 0

    def count(module: Any, args: Any, out: Tensor) -> None:
        nonlocal total
        total += out.numel() * module.weight[0].numel()

    layers = [module for module in net.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    hooks = [module.register_forward_hook(count) for module in layers]
    with torch.no_grad():
        net.eval()(torch.zeros(1, 3, 224, 224))
    for hook in hooks:
        hook.remove()
    return total


@pytest.fixture(scope="module")
def resnet50(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file that stands for published weights."""
    path = tmp_path_factory.mktemp("weights") / "resnet50.safetensors"
    save_file(timm.create_model("resnet50", num_classes=2).state_dict(), path)
    return str(path)


def test_variants_cost_what_the_paper_says() -> None:
    found = {v: made(f"resnet_tweak(variant='{v}')", model="resnet50", classes=1000) for v in "abcd"}
    cost = {v: multiply_adds(net) for v, net in found.items()}
    for variant, billions in {"a": 3.8, "b": 4.1, "c": 4.3, "d": 4.3}.items():
        assert sum(p.numel() for p in found[variant].parameters()) == pytest.approx(25e6, rel=0.03)
        assert cost[variant] / 1e9 == pytest.approx(billions, abs=0.065)
    # The 1x1 convolutions at the head of three stages see four times as many places in B as in A.
    first = [(256, 128, 28), (512, 256, 14), (1024, 512, 7)]
    assert cost["b"] - cost["a"] == sum(inside * outside * 3 * side**2 for inside, outside, side in first)
    # The stem's 7x7 on 3 channels becomes 3x3 of 32, 32 and 64 channels on the same 112 x 112 places.
    assert cost["c"] - cost["b"] == 112**2 * (9 * (3 * 32 + 32 * 32 + 32 * 64) - 49 * 3 * 64)
    assert cost["d"] == cost["c"]


@pytest.mark.parametrize(
    ("model", "variant", "twin"),
    [
        ("resnet50", "c", "resnet50c"),
        ("resnet50", "d", "resnet50d"),
        ("resnet18", "d", "resnet18d"),
        ("resnet18", "b", "resnet18"),
    ],
)
def test_variants_are_timms(model: str, variant: str, twin: str) -> None:
    assert_same_network(made(f"resnet_tweak(variant='{variant}')", model=model), timm.create_model(twin, num_classes=5))


@pytest.mark.parametrize("variant", ["a", "b"])
def test_plain_variants_are_torchvisions_with_the_stride_in_place(variant: str) -> None:
    reference = torchvision.models.resnet50(num_classes=5)
    for stage in (reference.layer2, reference.layer3, reference.layer4):
        if variant == "a":
            stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
    assert_same_network(made(f"resnet_tweak(variant='{variant}')", model="resnet50"), reference)


def test_the_stem_is_drawn_as_timm_draws_it() -> None:
    net, twin = made("resnet_tweak", model="resnet50").net, timm.create_model("resnet50d")
    for layer in (0, 3, 6):
        ours, theirs = net.conv1[layer].weight.detach(), twin.conv1[layer].weight.detach()
        assert float(ours.std()) == pytest.approx(float(theirs.std()), rel=0.1)
    drawn_anew = made("resnet_tweak", "xavier", model="resnet50").net.conv1[3].weight.detach()
    assert float(drawn_anew.abs().max()) == pytest.approx((6 / (2 * 32 * 9)) ** 0.5, rel=0.01)


@pytest.mark.parametrize(
    ("model", "specs"), [("resnet18", ("resnet_tweak",)), ("resnet50", ("resnet_tweak", "squeeze_excite"))]
)
def test_with_zero_gamma_the_output_is_the_identity_paths(model: str, specs: tuple[str, ...]) -> None:
    net = made(*specs, "zero_gamma", model=model).eval()
    inside = net.net
    with torch.no_grad():
        x = inside.maxpool(inside.act1(inside.bn1(inside.conv1(images()))))
        for stage in (inside.layer1, inside.layer2, inside.layer3, inside.layer4):
            first = stage[0].downsample
            if first is not None:
                halved = avg_pool2d(x, 2) if stage is not inside.layer1 else x
                x = relu(first[2](conv2d(halved, first[1].weight)))
        torch.testing.assert_close(net(images()).maps, x)
        torch.testing.assert_close(net(images()).logits, inside.fc(x.mean((2, 3))))


@pytest.mark.parametrize(
    ("spec", "model", "words"),
    [
        ("resnet_tweak(variant='a')", "cifar_resnet8", "cifar_resnet8 is not one"),
        ("resnet_tweak(variant='c')", "cifar_resnet8", "cifar_resnet8 is not one"),
        ("resnet_tweak", "cifar_resnet8", "cifar_resnet8 is not one"),
        ("resnet_tweak", "convnext_atto", "convnext_atto is not one"),
        ("resnet_tweak", "resnet18d", "no 7x7"),
        ("resnet_tweak(variant='a')", "resnet18", "no bottleneck"),
        ("squeeze_excite", "seresnet50", "no residual blocks without gates"),
        ("squeeze_excite", "mobilenetv3_small_050", "no residual blocks without gates"),
        ("squeeze_excite", "regnety_002", "no residual blocks without gates"),
        ("squeeze_excite", "convnext_atto", "no residual blocks without gates"),
        ("blur_pool", "convnext_atto", "no block"),
        ("stochastic_depth", "densenet121", "no residual blocks"),
        ("gem_pool", "vit_tiny_patch16_224", "no pooling"),
        ("attention_pool", "vit_tiny_patch16_224", "no pooling"),
        ("dropout", "deit_tiny_distilled_patch16_224", "no single linear classifier"),
        ("cosine_classifier", "deit_tiny_distilled_patch16_224", "no single linear classifier"),
    ],
)
def test_networks_that_a_trick_cannot_serve_are_refused(spec: str, model: str, words: str) -> None:
    with pytest.raises(UsageError, match=rf"{words}.*\. .*\.$"):
        made(spec, model=model)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("resnet_tweak", r"discard pretrained weights of resnet50\. The pretrained network with this tweak is resnet50d\."),
        ("resnet_tweak(variant='c')", r"with this tweak is resnet50c\."),
        ("resnet_tweak(variant='a')", r"discard pretrained weights of resnet50\. Leave it out\."),
        ("squeeze_excite", r"with gates is seresnet50\."),
        ("blur_pool", r"that blurs is resnetblur50\."),
    ],
)
def test_pretrained_weights_are_not_destroyed(spec: str, words: str, resnet50: str) -> None:
    with pytest.raises(UsageError, match=words):
        made(spec, model="resnet50", weights=resnet50)


def test_pretrained_weights_stay_where_a_trick_keeps_their_function(resnet50: str) -> None:
    plain = made(model="resnet50", weights=resnet50).eval()
    specs = ("resnet_tweak(variant='b')", "stochastic_depth", "dropout", "attention_pool")
    kept = made(*specs, model="resnet50", weights=resnet50).eval()
    with torch.no_grad():
        torch.testing.assert_close(kept(images()).features, plain(images()).features)


def test_gates_are_timms() -> None:
    assert_same_network(made("squeeze_excite", model="resnet50"), timm.create_model("seresnet50", num_classes=5))


@pytest.mark.parametrize(("ratio", "inner"), [(16, [1, 2, 4]), (4, [4, 8, 16]), (1000, [1, 1, 1])])
def test_gates_weigh_channels_as_the_formula_says(ratio: int, inner: list[int]) -> None:
    net = made(f"squeeze_excite(ratio={ratio})").eval().double()
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    with torch.no_grad():
        maps = relu(net.net.bn1(net.net.conv1(x)))
        for stage, width in enumerate(inner):
            (block,) = net.net.get_submodule(f"layer{stage + 1}")
            branch = block.bn2(block.conv2(relu(block.bn1(block.conv1(maps)))))
            w1, b1, w2, b2 = (p.flatten(1) if p.ndim > 1 else p for p in block.se.parameters())
            assert len(b1) == width
            gate = 1 / (1 + torch.exp(-(relu(branch.mean((2, 3)) @ w1.T + b1) @ w2.T + b2)))
            wider = (branch.shape[1] - maps.shape[1]) // 2
            shortcut = maps[:, :, ::2, ::2] if wider else maps
            maps = relu(branch * gate[:, :, None, None] + pad(shortcut, (0, 0, 0, 0, wider, wider)))
        torch.testing.assert_close(net(x).maps, maps)


@pytest.mark.parametrize("model", ["resnet18", "resnet50", "efficientnet_b0"])
def test_blurs_are_timms(model: str) -> None:
    options = {"drop_path_rate": 0.0} if model == "efficientnet_b0" else {}
    assert_same_network(made("blur_pool", model=model), timm.create_model(model, num_classes=5, aa_layer=BlurPool2d, **options))


def test_blur_and_the_tweak_make_timms_network_of_both() -> None:
    assert_same_network(made("blur_pool", "resnet_tweak", model="resnet50"), timm.create_model("resnetblur50d", num_classes=5))


def test_blur_smooths_with_the_binomial_before_it_halves() -> None:
    net, plain = made("blur_pool").eval(), made().eval()
    assert net.state_dict().keys() == plain.state_dict().keys()
    block, old = net.net.layer2[0], plain.net.layer2[0]
    x = relu(images(size=32))[:, :1].repeat(1, 16, 1, 1)
    with torch.no_grad():
        fine = relu(old.bn1(conv2d(x, old.conv1.weight, stride=1, padding=1)))
        kernel = torch.tensor([1.0, 2.0, 1.0]).outer(torch.tensor([1.0, 2.0, 1.0])) / 16
        channels = fine.shape[1]
        smooth = conv2d(pad(fine, (1, 1, 1, 1), "reflect"), kernel.expand(channels, 1, 3, 3), stride=2, groups=channels)
        shortcut = pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 8, 8))
        torch.testing.assert_close(block(x), relu(old.bn2(old.conv2(smooth)) + shortcut))


def test_maps_too_small_to_blur_are_refused_before_training() -> None:
    with pytest.raises(UsageError, match="images of 16 pixels are too small"):
        loop(recipe("blur_pool", model="resnet18", size=16))


@pytest.mark.parametrize(
    ("model", "blocks", "places"),
    [
        ("cifar_resnet8", 3, 1),
        ("resnet18", 8, 1),
        ("resnet50", 16, 1),
        ("convnext_atto", 12, 1),
        ("deit_tiny_patch16_224", 12, 2),
    ],
)
def test_branches_survive_by_the_papers_linear_rule(model: str, blocks: int, places: int) -> None:
    net = made("stochastic_depth(rate=0.4)", model=model, size=224 if "224" in model else 64)
    dropped = [m.drop_prob for m in net.modules() if isinstance(m, DropPath)]
    last = 1 - 0.4
    survive = [1 - level / blocks * (1 - last) for level in range(1, blocks + 1) for _ in range(places)]
    np.testing.assert_allclose(1 - np.array(dropped), survive)


def test_blocks_without_a_shortcut_are_not_counted() -> None:
    net = made("stochastic_depth(rate=0.4)", model="mobilenetv3_small_050")
    skips = [m.drop_path for m in net.modules() if getattr(m, "has_skip", False)]
    np.testing.assert_allclose([m.drop_prob for m in skips], 0.4 * np.arange(1, len(skips) + 1) / len(skips))
    assert sum(isinstance(m, DropPath) for m in net.modules()) == len(skips) > 3


def test_a_dropped_branch_leaves_the_shortcut_and_the_others_grow() -> None:
    net = made("stochastic_depth(rate=0.6)")
    block = net.net.layer3[0]  # the last of three
    x = relu(images(1, 8))[:, :1].repeat(4000, 32, 1, 1)
    torch.manual_seed(0)
    with torch.no_grad():
        whole = made().eval().net.layer3[0]
        branch = whole.bn2(whole.conv2(relu(whole.bn1(whole.conv1(x[:1])))))
        shortcut = pad(x[:1, :, ::2, ::2], (0, 0, 0, 0, 16, 16))
        block.eval()
        assert torch.equal(block(x[:1]), relu(branch + shortcut))
        block.drop_path.train()
        found = block(x)
    gone = (found == relu(shortcut)).flatten(1).all(1)
    assert float(gone.float().mean()) == pytest.approx(0.6, abs=0.03)
    torch.testing.assert_close(found[~gone], relu(branch / 0.4 + shortcut).expand_as(found[~gone]))


@pytest.mark.parametrize("spec", ["stochastic_depth(rate=0.9)", "dropout(rate=0.9)"])
@pytest.mark.parametrize("model", ["cifar_resnet8", "resnet18", "convnext_atto", "deit_tiny_patch16_224"])
def test_what_is_drawn_in_training_is_absent_when_judged(spec: str, model: str) -> None:
    size = 224 if "224" in model else 64
    plain, net = made(model=model, size=size), made(spec, model=model, size=size)
    net.load_state_dict(plain.state_dict())
    x = images(size=size)
    with torch.no_grad():
        assert torch.equal(net.eval()(x).logits, plain.eval()(x).logits)
        assert not torch.equal(net.train()(x).logits, plain.train()(x).logits)


def test_dropout_is_timms_of_the_same_draw() -> None:
    net, reference = made("dropout(rate=0.3)", model="resnet18"), timm.create_model("resnet18", num_classes=5, drop_rate=0.3)
    reference.load_state_dict(net.net.state_dict(), strict=True)
    with torch.no_grad():
        torch.manual_seed(4)
        found = net.train()(images(8))
        torch.manual_seed(4)
        assert torch.equal(found.logits, reference.train()(images(8)))
    assert torch.equal(found.features, found.maps.mean((2, 3)))  # whole


@pytest.mark.parametrize("other", ["crt", "fit_head", "freeze", "head_lr", "layer_decay", "cosine_classifier", "gem_pool"])
def test_dropout_leaves_the_classifier_what_it_was(other: str) -> None:
    net = made("dropout", other)
    assert isinstance(net.classifier, nn.Linear)
    assert net.head_names == made(other).head_names
    trained = train("dropout", other)
    assert trained.logits.isfinite().all()
    assert trained.live.keys() == train(other).live.keys()


def test_dropout_comes_before_the_cosine() -> None:
    net = made("dropout(rate=0.5)", "cosine_classifier")
    torch.manual_seed(2)
    with torch.no_grad():
        kept = dropout(features := images(64)[:, 0, 0], 0.5)
        torch.manual_seed(2)
        found = net.train().classifier(features)
        torch.testing.assert_close(found, 10 * nn.functional.cosine_similarity(kept[:, None], net.classifier.weight, dim=2))


@pytest.mark.parametrize("p", [1.0, 2.5, 3.0, 60.0])
@pytest.mark.parametrize("learn", [True, False])
def test_gem_is_the_papers_formula(p: float, learn: bool) -> None:
    net = made(f"gem_pool(p={p}, learn={learn})").eval()
    maps = relu(torch.randn(4, 64, 5, 3, generator=torch.Generator().manual_seed(1))) * 20
    exact = np.maximum(maps.double().numpy(), 1e-6)
    # Divided by the largest beforehand: 20 to the power of 60 has no float.
    most = exact.max((2, 3), keepdims=True)
    expected = most[..., 0, 0] * ((exact / most) ** p).mean((2, 3)) ** (1 / p)
    if p > 1 or learn:
        (parameter,) = net.pool.parameters()
        assert parameter.requires_grad == learn
        np.testing.assert_allclose(net.pool(maps).detach(), expected, rtol=1e-4)
    with torch.no_grad():
        outputs = net(images())
    torch.testing.assert_close(outputs.features, net.pool(outputs.maps).detach())
    assert (outputs.features >= outputs.maps.mean((2, 3)) * (1 - 1e-5)).all()


def test_gems_gradient_is_that_of_its_formula() -> None:
    pool = made("gem_pool").pool
    maps = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(1)).double() + 0.1
    p = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    leaf = maps.clone().requires_grad_()
    weights = torch.arange(6.0).reshape(2, 3)
    (leaf.pow(p).mean((2, 3)).pow(1 / p) * weights).sum().backward()
    ours = maps.float().requires_grad_()
    (pool(ours) * weights).sum().backward()
    torch.testing.assert_close(ours.grad, leaf.grad.float())
    torch.testing.assert_close(pool.log_p.grad, (3 * p.grad).float()[None])  # dp / d log p = p


def test_gem_of_nothing_is_nothing_and_has_a_gradient() -> None:
    pool, maps = made("gem_pool").pool, torch.zeros(1, 2, 3, 3, requires_grad=True)
    found = pool(maps)
    found.sum().backward()
    torch.testing.assert_close(found, torch.full((1, 2), 1e-6))
    assert pool.log_p.grad.isfinite().all()
    assert maps.grad.isfinite().all()


@pytest.mark.parametrize("model", ["cifar_resnet8", *POOLED])
def test_attention_begins_as_the_mean(model: str) -> None:
    size = 224 if "224" in model else 64
    plain, net = made(model=model, size=size).eval(), made("attention_pool", model=model, size=size).eval()
    net.load_state_dict(plain.state_dict(), strict=False)
    with torch.no_grad():
        torch.testing.assert_close(net(images(size=size)), plain(images(size=size)))


def test_attention_is_a_softmax_over_places() -> None:
    net = made("attention_pool").eval()
    nn.init.normal_(net.pool.score)
    with torch.no_grad():
        outputs = net(images())
    maps, w = outputs.maps.double().numpy(), net.pool.score.detach().double().numpy()
    flat = maps.reshape(*maps.shape[:2], -1)
    shares = softmax(np.einsum("bdn,d->bn", flat, w), 1)
    np.testing.assert_allclose(outputs.features, np.einsum("bdn,bn->bd", flat, shares), rtol=1e-4, atol=1e-6)
    assert shares.std() > 0.01  # not the mean any more


@pytest.mark.parametrize("model", POOLED)
@pytest.mark.parametrize("spec", ["gem_pool", "attention_pool"])
def test_poolings_serve_every_family_that_pools(spec: str, model: str) -> None:
    net = made(spec, model=model, size=224 if "224" in model else 64).train()
    outputs = net(images(size=224 if "224" in model else 64))
    outputs.logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in net.pool.parameters())
    assert set(net.depths) == {name for name, _ in net.named_parameters()}


def test_cosines_are_those_of_the_formula() -> None:
    net = made("cosine_classifier(scale=7)").eval()
    with torch.no_grad():
        outputs = net(images())
    x, w = outputs.features.double().numpy(), net.classifier.weight.detach().double().numpy()
    norms = np.linalg.norm(x, axis=1)[:, None] * np.linalg.norm(w, axis=1)
    np.testing.assert_allclose(outputs.logits, 7 * (x @ w.T) / norms, rtol=1e-4, atol=1e-5)
    assert net.head_names == {"net.fc.weight", "net.fc.scale"}
    torch.testing.assert_close(net.classifier(outputs.features * 100), outputs.logits)


@pytest.mark.parametrize("other", ["crt", "fit_head"])
def test_what_fits_a_bias_refuses_the_cosine(other: str) -> None:
    with pytest.raises(UsageError, match="CosineLinear"):
        train("cosine_classifier", other)


@pytest.mark.parametrize("spec", ["squeeze_excite", "gem_pool", "attention_pool", "cosine_classifier"])
def test_what_a_surgery_adds_is_learned(spec: str) -> None:
    begun = loop(recipe(spec)).model.state_dict()
    added = begun.keys() - loop(recipe()).model.state_dict().keys()
    trained = train(spec)
    assert added
    assert not any(torch.equal(trained.live[name], begun[name]) for name in added)


@pytest.mark.parametrize("spec", SURGERY)
def test_every_parameter_is_in_one_group(spec: str) -> None:
    net = made(spec, model="resnet18")
    tricks = [parse(text) for text in ("head_lr", "layer_decay", "no_bias_decay")]
    names = [name for group in param_groups(net, tricks, 0.1) for name in group["names"]]
    assert sorted(names) == sorted(name for name, _ in net.named_parameters())


@pytest.mark.parametrize("spec", [*SURGERY, "all"])
def test_a_run_with_surgery_is_loaded_as_it_was_trained(spec: str, cache: Path, tmp_path: Path) -> None:
    data = fill(tmp_path / "photos", {"a": 0, "b": 1, "c": 2}, 10)
    wanted = {"with_": [spec]}
    if spec in ("all", "resnet_tweak"):
        specs = [name for name in SURGERY if name != "gem_pool"] if spec == "all" else [spec]
        wanted = {"with_": [*specs, "zero_gamma", "xavier"], "model": "resnet18", "set_": {"size": 32}}
    run = tb.train(data, recipe_file(tmp_path / "tiny.toml"), out=tmp_path / "run", **wanted)
    with np.load(run.folder / "predictions.npz", allow_pickle=False) as stored:
        logits, rows = torch.from_numpy(stored["test_logits"]), stored["test_rows"]
    files = request(data, tmp_path / "tiny.toml", seed=run.record["seed"], **wanted).data.images
    loaded = tb.load(run.folder)
    assert set(load_file(run.folder / "model.safetensors")) == set(loaded.model.net.state_dict())
    found = list(loaded.predict([files.path(row) for row in rows], top=3))
    each = torch.tensor([[p.probabilities[p.classes.index(name)] for name in loaded.classes] for p in found])
    torch.testing.assert_close(each, logits.softmax(1), rtol=0, atol=1e-5)
