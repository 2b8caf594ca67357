"""OLTR against the paper's formulas in float64 and scikit-learn's class means."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from album import TINY, fill, recipe_file
from safetensors.torch import load_file, save_file
from scipy.special import softmax
from scipy.stats import spearmanr
from sklearn.neighbors import NearestCentroid
from torch import Tensor, nn

import trickbag as tb
from trickbag.engine.assemble import build_model
from trickbag.ground.errors import UsageError
from trickbag.laboratory.lab import loop, recipe, train
from trickbag.models import networks
from trickbag.runs.request import request
from trickbag.tricks.oltr import MetaClassifier, ModulatedAttention, class_means, least_distance, margin_loss, squashed

POOLED = ("resnet18", "mobilenetv3_small_050", "convnext_atto", "swin_tiny_patch4_window7_224")


def made(*specs: str, model: str = "cifar_resnet8", weights: str = "none") -> networks.Net:
    """The network as a run would build it."""
    chosen = recipe(*specs, model=model, size=side(model))
    return build_model(chosen, chosen.tricks, 5, 3, 0, weights)


def side(model: str) -> int:
    return 224 if "224" in model else 64


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def arrays(module: nn.Module) -> dict[str, Any]:
    """The weights of a module in float64, made of a size that tells."""
    for number, (name, parameter) in enumerate(module.named_parameters()):
        parameter.data = 0.3 * normal(*parameter.shape, seed=number) + (name == "memory")
    return {name: parameter.detach().numpy() for name, parameter in module.named_parameters()}


def test_attention_is_the_papers_formula() -> None:
    pool = ModulatedAttention(6).double()
    w = arrays(pool)
    assert w["query.weight"].shape == (3, 6)
    maps = normal(4, 6, 3, 2, seed=9)
    for f, found in zip(maps.flatten(2).numpy(), pool(maps).detach().numpy(), strict=True):
        f = f.T
        queries, values = (f @ w[f"{n}.weight"].T + w[f"{n}.bias"] for n in ("query", "value"))
        attended = softmax(queries @ (f @ w["key.weight"].T).T, 1) @ values @ w["out.weight"].T
        a = softmax(f @ w["score.weight"][0])
        assert a.sum() == pytest.approx(1)
        np.testing.assert_allclose(found, (f + a[:, None] * attended).mean(0), rtol=1e-12)


def test_attention_sees_no_order_of_places_and_takes_maps_of_any_size() -> None:
    pool = ModulatedAttention(4).double()
    arrays(pool)
    maps = normal(2, 4, 3, 4)
    torch.testing.assert_close(pool(maps.transpose(2, 3).flip(2)), pool(maps))
    assert pool(maps[:, :, :1, :1]).shape == pool(normal(2, 4, 7, 5)).shape == (2, 4)


@pytest.mark.parametrize("model", POOLED)
def test_attention_begins_as_the_mean_and_all_of_it_learns(model: str) -> None:
    plain, net = made(model=model).eval(), made("oltr", model=model).eval()
    net.load_state_dict({n: v for n, v in plain.state_dict().items() if n not in plain.head_names}, strict=False)
    x = normal(2, 3, side(model), side(model)).float()
    with torch.no_grad():
        torch.testing.assert_close(net(x).features, plain(x).features)
    nn.init.normal_(net.pool.out.weight)
    net.classifier.memory.data.normal_()
    net.train()(x).logits.square().sum().backward()
    # Maps of a single place have nothing to choose between.
    free = [p for n, p in net.pool.named_parameters() if model != "mobilenetv3_small_050" or n[:3] in ("val", "out")]
    learned = [*free, net.classifier.weight, *net.classifier.selector.parameters(), *net.classifier.hallucinator.parameters()]
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in learned)
    assert set(net.depths) == {name for name, _ in net.named_parameters()}


def test_the_nearest_of_the_memory_counts_and_its_distance_has_the_plain_gradient() -> None:
    x, memory = normal(7, 5).requires_grad_(), normal(4, 5, seed=1).requires_grad_()
    pairs = (x[:, None] - memory.detach()).square().sum(2).sqrt()
    found = least_distance(x, memory)
    torch.testing.assert_close(found[:, 0], pairs.min(1).values)
    weights = torch.arange(7.0, dtype=torch.float64)
    ours, plain = (torch.autograd.grad((weights * d).sum(), x)[0] for d in (found[:, 0], pairs.min(1).values))
    torch.testing.assert_close(ours, plain)


def test_near_features_keep_more_length_than_far_ones() -> None:
    v, distance = normal(6, 3).numpy(), np.array([0.01, 0.3, 1.0, 4.0, 20.0, 1e4])[:, None]
    u = 10 / distance * v
    expected = u / (1 + np.linalg.norm(u, axis=1, keepdims=True))
    found = squashed(torch.from_numpy(v), torch.from_numpy(distance), 10.0).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert spearmanr(np.linalg.norm(found, axis=1), -distance[:, 0])[0] > 0.9


def test_a_feature_that_the_memory_holds_is_finite_and_so_is_nothing_at_all() -> None:
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0]], requires_grad=True)
    classifier = MetaClassifier(nn.Linear(2, 2, bias=False), 10.0, 16.0)
    classifier.memory.data.copy_(x.data)
    logits = classifier(x)
    logits.sum().backward()
    assert logits.isfinite().all()
    assert x.grad.isfinite().all()
    assert squashed(x, torch.zeros(2, 1), 10.0).norm(dim=1).tolist() == pytest.approx([1, 0])


@pytest.mark.parametrize(("reach", "scale"), [(10.0, 16.0), (2.0, 5.0)])
def test_logits_are_the_papers_of_the_meta_embedding(reach: float, scale: float) -> None:
    classifier = MetaClassifier(nn.Linear(6, 4), reach, scale).double()
    w = arrays(classifier)
    x = normal(8, 6, seed=20)
    for direct, found in zip(x.numpy(), classifier(x).detach().numpy(), strict=True):
        o = softmax(w["hallucinator.weight"] @ direct + w["hallucinator.bias"])
        recalled = sum(share * centroid for share, centroid in zip(o, w["memory"], strict=True))
        e = np.tanh(w["selector.weight"] @ direct + w["selector.bias"])
        gamma = min(np.linalg.norm(direct - centroid) for centroid in w["memory"])
        meta = reach / gamma * (direct + e * recalled)
        length = np.linalg.norm(meta)
        squash = length / (1 + length) * meta / length
        expected = [scale * squash @ row / np.linalg.norm(row) for row in w["weight"]]
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_the_margin_loss_is_the_formula_for_soft_rows() -> None:
    x, memory = normal(6, 5).requires_grad_(), normal(3, 5, seed=1).requires_grad_()
    y = normal(6, 3, seed=2).softmax(1)
    y[0] = torch.tensor([0.0, 1.0, 0.0])
    d = (x[:, None] - memory).square().sum(2)
    margin = float(((1 - y) * d).detach().mean(1).median())  # some images are within it and some beyond
    each = [
        sum(y[i, k] * d[i, k] for k in range(3)) / 2
        + 0.01 * (margin - sum((1 - y[i, k]) * d[i, k] for k in range(3)) / 3).clamp_min(0)
        for i in range(6)
    ]
    expected, found = sum(each) / 6, margin_loss(x, y, memory, margin)
    torch.testing.assert_close(found, expected)
    (of_x, of_memory), (plain, _) = (torch.autograd.grad(loss, (x, memory), retain_graph=True) for loss in (found, expected))
    torch.testing.assert_close(of_x, plain)
    pull = (y[:, :, None] * (memory - x[:, None])).sum(0) / 6
    push = torch.autograd.grad(expected, memory)[0] - pull
    torch.testing.assert_close(of_memory, pull / (1 + y.sum(0)[:, None]) + push)


def test_the_memory_follows_as_in_the_authors_code() -> None:
    """DiscCentroidsLossFunc of the authors: each centre's gradient is divided by one more than its images in the batch."""
    x, memory, labels = normal(8, 5), normal(3, 5, seed=1).requires_grad_(), torch.tensor([0, 0, 0, 0, 1, 1, 0, 1])
    counts = torch.ones(3, dtype=torch.float64).scatter_add_(0, labels, torch.ones(8, dtype=torch.float64))
    gradient = torch.zeros(3, 5, dtype=torch.float64)
    gradient.scatter_add_(0, labels[:, None].expand(8, 5), memory.detach()[labels] - x)
    expected = gradient / counts[:, None] / 8
    found = torch.autograd.grad(margin_loss(x, torch.eye(3, dtype=torch.float64)[labels], memory, 0.0), memory)[0]
    torch.testing.assert_close(found, expected)


def test_a_mixed_row_draws_as_its_classes_do() -> None:
    x, memory, share = normal(1, 4), normal(3, 4, seed=1), 0.3
    rows = torch.eye(3, dtype=torch.float64)
    mixed = margin_loss(x, share * rows[:1] + (1 - share) * rows[1:2], memory, 0.0)
    torch.testing.assert_close(
        mixed, share * margin_loss(x, rows[:1], memory, 0.0) + (1 - share) * margin_loss(x, rows[1:2], memory, 0.0)
    )


def test_the_memory_begins_as_scikit_learns_class_means() -> None:
    begun = loop(recipe("oltr"))
    assert not begun.model.classifier.memory.any()
    x, y = begun.judge.features("train")
    list(begun.prepare())
    expected = NearestCentroid().fit(x.double().numpy(), y.argmax(1).numpy()).centroids_
    np.testing.assert_allclose(begun.model.classifier.memory.detach().numpy(), expected, rtol=1e-5, atol=1e-6)
    absent = class_means(x, torch.cat([y, torch.zeros(len(y), 1)], 1))
    assert not absent[3].any()
    torch.testing.assert_close(absent[:3].double(), torch.from_numpy(expected), rtol=1e-5, atol=1e-6)


def test_the_networks_own_classifier_recalls(tmp_path: Path) -> None:
    stage_one = made()
    save_file(stage_one.net.state_dict(), tmp_path / "model.safetensors")
    net = made("oltr", weights=str(tmp_path))
    assert torch.equal(net.classifier.hallucinator.weight, stage_one.net.fc.weight)
    assert torch.equal(net.classifier.hallucinator.bias, stage_one.net.fc.bias)


def test_the_margin_loss_alone_moves_the_memory() -> None:
    def moved(spec: str) -> Tensor:
        begun = loop(recipe(spec))
        list(begun.prepare())
        before = begun.model.classifier.memory.detach().clone()
        return train(spec).live["net.fc.memory"] - before

    assert not moved("oltr(weight=0)").any()
    assert moved("oltr").any(1).all()
    assert float(moved("oltr(weight=0.1)").norm()) > 1.1 * float(moved("oltr").norm())
    assert not torch.equal(moved("oltr"), moved("oltr(margin=1000)"))


def test_nothing_but_the_memory_is_spared_the_decay() -> None:
    begun = loop(recipe("oltr", weight_decay=0.3))
    names = {group["weight_decay"]: group["names"] for group in begun.groups}
    assert names[0.0] == ["net.fc.memory"]
    assert sorted(names[0.0] + names[0.3]) == sorted(name for name, _ in begun.model.named_parameters())


@pytest.mark.parametrize("spec", ["oltr", "oltr(attention=False)"])
def test_all_that_is_added_is_learned(spec: str) -> None:
    begun = loop(recipe(spec))
    list(begun.prepare())
    before = {name: value.clone() for name, value in begun.model.state_dict().items()}
    added = before.keys() - loop(recipe()).model.state_dict().keys()
    trained = train(spec)
    assert any("pool" in name for name in added) == (spec == "oltr")
    assert not any(torch.equal(trained.live[name], before[name]) for name in added)


@pytest.mark.parametrize(
    ("specs", "model", "words"),
    [
        (["oltr"], "vit_tiny_patch16_224", r"attends to maps, and vit_tiny_patch16_224 pools none.*oltr\(attention=False\)"),
        (["oltr(attention=False)"], "deit_tiny_distilled_patch16_224", "no single linear classifier"),
        (["oltr", "ldam"], "cifar_resnet8", "this network ends with MetaClassifier"),
        (["oltr", "gem_pool"], "cifar_resnet8", "both sit in the slot 'pool'"),
    ],
)
def test_what_it_cannot_serve_is_refused(specs: list[str], model: str, words: str) -> None:
    with pytest.raises(UsageError, match=rf"{words}.*\.$"):
        made(*specs, model=model)


@pytest.mark.parametrize("other", ["crt", "fit_head"])
def test_what_fits_a_linear_layer_refuses_it(other: str) -> None:
    with pytest.raises(UsageError, match="MetaClassifier"):
        train("oltr", other)


def test_without_attention_it_serves_a_network_of_tokens() -> None:
    net = made("oltr(attention=False)", model="vit_tiny_patch16_224")
    assert net(normal(2, 3, 224, 224).float()).logits.shape == (2, 5)
    assert net.head_names >= {f"net.head.{name}" for name in ("memory", "weight", "hallucinator.bias", "selector.bias")}


@pytest.mark.parametrize("spec", ["oltr", "oltr(attention=False, reach=5, scale=20)"])
def test_a_long_tail_is_learned_and_the_run_loads_as_it_was_trained(spec: str, cache: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for kind, (name, count) in enumerate({"many": 60, "some": 24, "few": 12}.items()):
        fill(photos, {name: kind}, count, seed=kind)
    text = TINY.replace("epochs = 2", "epochs = 12")
    run = tb.train(photos, recipe_file(tmp_path / "tiny.toml", text), with_=[spec], out=tmp_path / "run")
    assert run.record["test"]["macro_recall"] > 0.6  # chance is a third, and so is always the frequent class
    with np.load(run.folder / "predictions.npz", allow_pickle=False) as stored:
        logits, rows = torch.from_numpy(stored["test_logits"]), stored["test_rows"]
    files = request(photos, tmp_path / "tiny.toml", seed=run.record["seed"], with_=[spec]).data.images
    loaded = tb.load(run.folder)
    kept = load_file(run.folder / "model.safetensors")
    assert set(kept) == set(loaded.model.net.state_dict())
    assert kept["fc.memory"].any(1).all()
    found = list(loaded.predict([files.path(row) for row in rows], top=3))
    each = torch.tensor([[p.probabilities[p.classes.index(name)] for name in loaded.classes] for p in found])
    torch.testing.assert_close(each, logits.softmax(1), rtol=0, atol=1e-5)
