"""Fine-tuning, heads and losses for it against formulas in float64, timm and torch."""

import copy
import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import timm
import torch
from album import fill
from scipy.stats import kstest
from timm.task import FeatureDistillationTask, TokenDistillationTask
from torch import Tensor, nn
from torch.nn.functional import conv2d, cross_entropy, linear, normalize

import trickbag as tb
from trickbag.engine.assemble import assemble
from trickbag.engine.loop import Loop, Step, param_groups
from trickbag.engine.prefix import still
from trickbag.ground.errors import UsageError
from trickbag.ground.norms import batch_norms
from trickbag.laboratory.lab import CLASSES, dataset, fabric_of, follow, loop, recipe, same
from trickbag.models.card import Card
from trickbag.models.networks import Net, build
from trickbag.runs.outcome import finish
from trickbag.trick import Batch, Outputs, Trick
from trickbag.tricks import find, parse
from trickbag.tricks.arcface import CosineLinear, turned
from trickbag.tricks.feature_distill import projection
from trickbag.tricks.label_aware_smoothing import amounts, smoothing
from trickbag.tricks.lora import LowRank
from trickbag.tricks.norm_tuning import of_norms
from trickbag.tricks.ordinal import places_of, soft_ranks
from trickbag.tricks.supervised_contrastive import contrast, square


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def outputs(logits: Tensor) -> Outputs:
    return Outputs(logits[:, :, None, None], logits, logits)


def targets(count: int, classes: int, *, soft: bool) -> Tensor:
    """One-hot rows, or rows of two classes as mixing makes them."""
    y = torch.eye(classes, dtype=torch.float64)[torch.arange(count) % classes]
    return 0.7 * y + 0.3 * y.roll(1, 0) if soft else y


def trained(*tricks: str, **fields: Any) -> tuple[Loop, dict[str, Tensor]]:
    """A loop at its end, and the weights that it started from."""
    made = loop(recipe(*tricks, **fields))
    list(made.prepare())
    before = copy.deepcopy(made.model.state_dict())
    list(made.train())
    return made, before


def moved(made: Loop, before: dict[str, Tensor]) -> set[str]:
    """The names of what training changed."""
    return {name for name, value in made.model.state_dict().items() if not torch.equal(value, before[name])}


# lora
@pytest.mark.parametrize("layer", [nn.Linear(5, 7), nn.Conv2d(5, 7, 3, padding=1, bias=False), nn.Conv2d(5, 7, 1)], ids=str)
def test_a_low_rank_change_is_the_papers_second_path(layer: nn.Linear | nn.Conv2d) -> None:
    """h = W x + s U (V x), for a convolution one of few channels and then one of 1 x 1, in float64."""
    change = LowRank(layer.weight.double(), rank=2, scale=0.75)
    nn.init.normal_(change.up, generator=rng(1))
    weight, (down, up) = layer.weight.double(), (change.down, change.up)
    if isinstance(layer, nn.Linear):
        x = torch.randn(3, 5, dtype=torch.float64, generator=rng())
        expected, found = linear(x, weight) + 0.75 * linear(linear(x, down), up), linear(x, change(weight))
    else:
        x, pad = torch.randn(3, 5, 6, 6, dtype=torch.float64, generator=rng()), layer.padding
        inner = conv2d(x, down.view(2, *weight.shape[1:]), padding=pad)
        expected = conv2d(x, weight, padding=pad) + 0.75 * conv2d(inner, up[:, :, None, None])
        found = conv2d(x, change(weight), padding=pad)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("model", "size", "most"), [("resnet18", 32, 0.027), ("vit_small_patch16_224", 32, 0.029)])
def test_lora_trains_a_few_per_cent_of_the_weights_and_starts_as_the_network(model: str, size: int, most: float) -> None:
    net = build(model, 10, size=size).eval()
    x = torch.randn(2, 3, size, size, generator=rng())
    count, expected = sum(p.numel() for p in net.parameters()), net(x).logits
    made: Net = parse("lora").model(net)
    (group,) = param_groups(made, [parse("lora")], 0.0)
    assert 0.02 < sum(p.numel() for p in group["params"]) / count < most
    assert made.head_names < {*group["names"]}
    assert torch.equal(made(x).logits, expected)


@pytest.mark.parametrize(("model", "size"), [("cifar_resnet8", 16), ("test_vit", 48), ("test_convnext", 64)])
def test_lora_moves_factors_and_classifier_alone_and_merges_into_a_plain_network(model: str, size: int) -> None:
    made, before = trained("lora(rank=2, alpha=3)", model=model, size=size, keep="last")
    changed = moved(made, before)
    assert {name for name in changed if not name.endswith((".up", ".down"))} == made.model.head_names
    assert any(name.endswith(".up") for name in changed)
    merged, again = (finish(made, made.recipe).model for _ in range(2))
    plain = build(model, len(CLASSES), size=size)
    weights = merged.state_dict()
    assert weights.keys() == plain.state_dict().keys()
    assert same(weights, again.state_dict())
    live = made.model.state_dict()
    for name, value in weights.items():
        place = name.removesuffix(".weight") + ".parametrizations.weight."
        if place + "original" in live:
            up, down = (live[f"{place}0.{own}"].double() for own in ("up", "down"))
            expected = before[place + "original"].double() + 1.5 * (up @ down).view(value.shape)
            torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-7)
        else:
            assert name in merged.head_names or torch.equal(value, before[name])
    x = torch.randn(4, 3, size, size, generator=rng())
    torch.testing.assert_close(merged.eval()(x).logits, made.model.eval()(x).logits, rtol=1e-4, atol=1e-4)


def test_a_run_with_lora_is_loaded_as_a_plain_one(tmp_path: Path, cache: Path) -> None:
    fill(tmp_path / "photos", {"a": 0, "b": 1}, 14)
    small = {"size": 16, "epochs": 1, "batch_size": 8, "precision": "fp32"}
    out = tmp_path / "run"
    tb.train(tmp_path / "photos", "cifar", model="cifar_resnet8", weights="none", with_="lora", set_=small, out=out)
    loaded = tb.load(out)
    assert "lora" not in " ".join(Card.load(out).tricks)
    assert loaded.model.state_dict().keys() == build("cifar_resnet8", 2, size=16).state_dict().keys()
    assert tb.train(
        tmp_path / "photos", "cifar", model="cifar_resnet8", weights=out, with_="lora", set_=small, out=tmp_path / "more"
    ).record["val"]["n"]


def test_lora_refuses_a_rank_that_no_layer_has_room_for() -> None:
    with pytest.raises(UsageError, match=r"lora\(rank=512\): no layer .* Lower rank\.$"):
        loop(recipe("lora(rank=512)"))


# norm_tuning
@pytest.mark.parametrize(
    ("model", "size", "most"), [("resnet18", 64, 0.0015), ("vit_small_patch16_224", 224, 0.0011), ("convnext_atto", 64, 0.0025)]
)
def test_norm_tuning_trains_less_than_a_weight_in_four_hundred(model: str, size: int, most: float) -> None:
    net = build(model, 10, size=size)
    named, norms = dict(net.named_parameters()), of_norms(net)
    kinds = (nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)
    own = {id(p) for module in net.modules() if isinstance(module, kinds) for p in module.parameters(recurse=False)}
    assert norms == {name for name, p in named.items() if id(p) in own}
    assert 0.001 < sum(named[name].numel() for name in norms | net.head_names) / sum(p.numel() for p in named.values()) < most


@pytest.mark.parametrize(("model", "size"), [("cifar_resnet8", 16), ("test_vit", 48)])
def test_norm_tuning_moves_norms_and_classifier_alone(model: str, size: int) -> None:
    made, before = trained("norm_tuning", model=model, size=size)
    changed = {name for name in moved(made, before) if name in dict(made.model.named_parameters())}
    assert changed == of_norms(made.model) | made.model.head_names
    assert all(int(norm.num_batches_tracked) for norm in batch_norms(made.model))


def test_norm_tuning_lets_pooling_and_companions_learn() -> None:
    made, before = trained("norm_tuning", "gem_pool", "supervised_contrastive(projection=4)")
    changed = moved(made, before)
    assert any(".global_pool." in name for name in changed)
    assert {name for name in before if name.startswith("companions.")} <= changed


def test_norm_tuning_refuses_a_network_without_norms() -> None:
    with pytest.raises(UsageError, match=r"this network has none\. Use freeze or lora instead\.$"):
        parse("norm_tuning").setup(nn.Linear(2, 2), None)


# l2_sp
def test_l2_sp_has_the_gradient_of_the_formula_and_no_weight_decay() -> None:
    alpha, beta = 0.3, 0.05
    made, start = trained(f"l2_sp(alpha={alpha}, beta={beta})", "fit_head", epochs=1)
    (trick,) = (trick for trick in made.tricks if trick.name() == "l2_sp")
    assert all(torch.equal(p, start[name]) for name, p in trick.start_.named_parameters()), (
        "the start has the fitted classifier"
    )
    assert [group["weight_decay"] for group in made.groups] == [0.0]
    made.model.zero_grad()
    penalty = trick.penalty(None, None, made.model, 0.5)
    penalty.backward()
    total = 0.0
    for name, p in made.model.named_parameters():
        own = name in made.model.head_names
        factor, away = (beta, p.detach().double()) if own else (alpha, p.detach().double() - start[name].double())
        torch.testing.assert_close(p.grad.double(), factor * away, rtol=1e-4, atol=1e-7)
        total += factor / 2 * float(away.square().sum())
    assert float(penalty.detach()) == pytest.approx(total, rel=1e-5)


def test_l2_sp_keeps_the_weights_nearer_to_their_start() -> None:
    def distance(*tricks: str) -> float:
        made, start = trained(*tricks, weight_decay=0.0)
        body = [(name, p) for name, p in made.model.named_parameters() if name not in made.model.head_names]
        return math.sqrt(sum(float((p.detach() - start[name]).square().sum()) for name, p in body))

    assert distance("l2_sp(alpha=5, beta=0)") < 0.8 * distance()


# wise_ft
@pytest.mark.parametrize("alpha", [0.0, 0.25])
def test_wise_ft_judges_weights_between_the_fitted_start_and_the_end(alpha: float) -> None:
    made, start = trained(f"wise_ft(alpha={alpha})", "fit_head")
    judged = made.judge.weights(made.model, made.tricks[-1])
    for name, p in judged.named_parameters():
        expected = (1 - alpha) * start[name].double() + alpha * made.model.get_parameter(name).double()
        torch.testing.assert_close(p.double(), expected, rtol=1e-5, atol=1e-7)
    (norm, *_), (live, *_) = batch_norms(judged), batch_norms(made.model)
    assert not torch.equal(norm.running_mean, live.running_mean), "norm statistics are those of the weights between"


def test_wise_ft_leaves_training_alone_so_that_a_study_shares_it() -> None:
    assert parse("wise_ft").begin() == 1.0


# drop_patches
def test_drop_patches_is_timms_own() -> None:
    net: Any = parse("drop_patches(rate=0.25)").model(build("test_vit", 5, size=64))
    peer = timm.create_model("test_vit", num_classes=5, img_size=64, patch_drop_rate=0.25)
    peer.load_state_dict(net.net.state_dict(), strict=True)
    x, seen = torch.randn(2, 3, 64, 64, generator=rng()), []
    net.net.blocks[0].register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[1]))
    for training in (True, False):
        torch.manual_seed(3)
        ours = net.train(training)(x).logits
        torch.manual_seed(3)
        assert torch.equal(ours, peer.train(training)(x))
    assert seen == [1 + 12, 1 + 16]


@pytest.mark.parametrize("model", ["resnet18", "swin_tiny_patch4_window7_224", "eva02_tiny_patch14_224"])
def test_drop_patches_refuses_other_networks_by_name(model: str) -> None:
    with pytest.raises(UsageError, match=rf"{model} has no place where timm drops patches"):
        parse("drop_patches").model(build(model, 3, size=224))


def test_drop_patches_refuses_maps_in_the_place_of_tokens() -> None:
    """timm's SAM drops rows of maps there; it alone has the place and no prefix tokens, and 90 million weights."""
    net: Any = build("test_vit", 3, size=48)
    del net.net.num_prefix_tokens
    with pytest.raises(UsageError, match="has no place where timm drops patches"):
        parse("drop_patches").model(net)


def test_features_below_dropped_patches_are_not_looked_up() -> None:
    for name, found in (("drop_patches(rate=0)", True), ("drop_patches", False)):
        net: Any = parse(name).model(build("test_vit", 3, size=48))
        for p in (p for own, p in net.named_parameters() if own not in net.head_names):
            p.requires_grad_(False)
        assert still(net.train()) == found


# arcface
def arcface_peer(cosines: np.ndarray, y: np.ndarray, margin: float, scale: float) -> np.ndarray:
    """The loss of each row as pytorch-metric-learning has it for a label, summed over the labels of a row, in float64."""
    losses = np.zeros(len(y))
    for row, k in np.argwhere(y > 0):
        angle = np.arccos(np.clip(cosines[row, k], -1 + 1e-7, 1 - 1e-7))
        late = np.cos(angle) - margin * np.sin(margin)
        logits = scale * cosines[row]
        logits[k] = scale * (np.cos(angle + margin) if angle <= np.pi - margin else late)
        top = logits.max()
        losses[row] += y[row, k] * (top + np.log(np.exp(logits - top).sum()) - logits[k])
    return losses


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize(("count", "classes"), [(7, 2), (1, 2), (9, 5)])
@pytest.mark.parametrize(("margin", "scale"), [(0.5, 30.0), (1.2, 8.0), (0.0, 30.0)])
def test_the_loss_of_arcface_is_the_librarys(margin: float, scale: float, count: int, classes: int, soft: bool) -> None:
    cosines = torch.rand(count, classes, dtype=torch.float64, generator=rng()) * 1.98 - 0.99
    y = targets(count, classes, soft=soft)
    found = parse(f"arcface(margin={margin}, scale={scale})").loss(outputs(scale * cosines), y)
    np.testing.assert_allclose(found, arcface_peer(cosines.numpy(), y.numpy(), margin, scale), rtol=1e-6, atol=1e-9)
    if margin == 0:
        torch.testing.assert_close(found, cross_entropy(scale * cosines, y, reduction="none"), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("cosine", [1.0, -1.0, 1.0000001, -1.0000001])
def test_arcface_is_finite_at_both_ends_of_the_cosine_with_a_slope_that_is(cosine: float) -> None:
    logits = torch.tensor([[cosine, 0.0]]).mul(10_000.0).requires_grad_()
    loss = parse("arcface(scale=1000)").loss(outputs(logits / 10), torch.eye(2)[:1]).sum()
    loss.backward()
    assert loss.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_the_margin_never_raises_a_cosine_and_keeps_their_order() -> None:
    cosines = torch.linspace(-1, 1, 2001, dtype=torch.float64)
    for margin in (0.1, 0.5, math.pi / 2):
        found = turned(cosines, margin)
        assert (found <= cosines + 1e-6).all()
        assert (found.diff() > -1e-6).all()


@pytest.mark.parametrize("centers", [1, 3])
def test_a_class_has_the_cosine_of_its_nearest_center(centers: int) -> None:
    head = CosineLinear(4, 5, 10.0, centers)
    x = torch.randn(6, 4, generator=rng())
    x[0] = 0
    rows = head.weight.double().detach().view(5, centers, 4)
    expected = 10 * torch.einsum("bd,kcd->bkc", normalize(x.double(), dim=1), normalize(rows, dim=2)).amax(2)
    for factor in (1.0, 1e4):
        torch.testing.assert_close(head(factor * x).double(), expected, rtol=1e-5, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(head(x.bfloat16()).double(), head(x.bfloat16().float()).double())


def test_sub_centers_are_trained_saved_and_exported(tmp_path: Path, cache: Path) -> None:
    fill(tmp_path / "photos", {"a": 0, "b": 1}, 14)
    small = {"size": 16, "epochs": 1, "batch_size": 8, "precision": "fp32"}
    out = tmp_path / "run"
    tb.train(
        tmp_path / "photos", "cifar", model="cifar_resnet8", weights="none", with_="arcface(sub_centers=3)", set_=small, out=out
    )
    head: Any = tb.load(out).model.classifier
    assert head.weight.shape == (6, 64)
    assert tb.export(out, "torch")


# supervised_contrastive
def contrast_peer(z: np.ndarray, y: np.ndarray, temperature: float) -> float:
    """Equation 2 of the paper, image by image; a row of two classes is alike to another as much as they have in common."""
    total = 0.0
    for i in range(len(z)):
        others = [j for j in range(len(z)) if j != i]
        alike = {j: float(y[i] @ y[j]) for j in others}
        log_sum = np.log(sum(np.exp(z[i] @ z[j] / temperature) for j in others)) if others else 0.0
        loss = -sum(alike[j] * (z[i] @ z[j] / temperature - log_sum) for j in others)
        total += loss / max(1.0, sum(alike.values()))
    return total / len(z)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize(("count", "classes"), [(8, 2), (7, 3), (4, 4), (1, 2)])
def test_the_contrast_is_the_papers(count: int, classes: int, soft: bool) -> None:
    """Among them a class of one image, no class of two, and a batch of one."""
    z = normalize(torch.randn(count, 6, dtype=torch.float64, generator=rng()), dim=1)
    y = targets(count, classes, soft=soft)
    expected = contrast_peer(z.numpy(), y.numpy(), 0.1)
    assert float(contrast(z, y, 0.1)) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    narrow = z.float().requires_grad_()
    found = contrast(narrow, y.float(), 1e-3)
    found.backward()
    assert float(found.detach()) == pytest.approx(contrast_peer_stable(z.float().double(), y, 1e-3), rel=1e-4, abs=1e-6)
    assert narrow.grad is not None
    assert narrow.grad.isfinite().all()


def contrast_peer_stable(z: Tensor, y: Tensor, temperature: float) -> float:
    """The same where exponentials overflow, by torch's cross-entropy over all other rows."""
    total = 0.0
    for i in range(len(z)):
        others = torch.arange(len(z)) != i
        if others.any():
            alike = (y @ y[i])[others]
            total += float(cross_entropy((z @ z[i])[others][None] / temperature, alike[None])) / max(1.0, float(alike.sum()))
    return total / len(z)


def test_views_count_to_their_image_and_the_projection_learns_and_goes() -> None:
    made, before = trained("supervised_contrastive(projection=4, crops=2)")
    trick: Any = made.tricks[0]
    layers = [name for name in before if name.startswith("companions.")]
    assert len(layers) == 4
    assert {*layers} <= moved(made, before)
    assert {made.model.layers[name] for name in layers} == {max(made.model.layers.values())}
    assert {made.model.depths[name] for name in layers} == {max(made.model.depths.values())}
    assert not [name for name in finish(made, made.recipe).model.state_dict() if name.startswith("companions.")]
    _, batch = next(made.loader.train(made.plan.epoch(0), 0))
    made.model.eval()
    whole = batch.y  # of the views, which show one image alone
    batch = batch._replace(x=batch.x.lerp(batch.x.flip(0), 0.25), y=batch.y.lerp(batch.y.flip(0), 0.25))
    said = made.model(batch.x)
    features = torch.cat([said.features, *(made.model(view).features for view in batch.views.unbind(1))])
    z = normalize(made.model.companions["supervised_contrastive"](features).double(), dim=1)
    expected = 0.5 * contrast_peer(z.detach().numpy(), torch.cat([batch.y, whole, whole]).double().numpy(), 0.1)
    assert float(trick.penalty(batch, said, made.model, 0.5).detach()) == pytest.approx(expected, rel=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        assert float(trick.penalty(batch, said, made.model, 0.5).detach()) == pytest.approx(expected, rel=0.05)


def test_a_view_is_a_part_of_the_image() -> None:
    image = torch.arange(240, dtype=torch.uint8).view(1, 12, 20)
    assert torch.equal(square(image, 1.0, 0.99, 0.99), image)
    corner = square(image, 0.25, 0.999, 0.999)
    assert corner.shape == image.shape
    assert int(corner.min()) >= int(image[0, 6:, 10:].min())


def test_views_show_from_a_fifth_of_the_image_to_all_of_it() -> None:
    (view,) = parse("supervised_contrastive").augment()
    image = torch.arange(100, dtype=torch.uint8).view(1, 100, 1).expand(1, 100, 100)
    shown = [view(image, 100, rng(seed)) for seed in range(300)]
    areas = [((int(one.max()) - int(one.min()) + 1) / 100) ** 2 for one in shown]
    assert kstest(areas, "uniform", args=(0.2, 0.8)).pvalue > 0.01


# targets
@pytest.mark.parametrize("shape", ["concave", "linear", "convex"])
def test_label_aware_smoothing_is_the_papers(shape: str) -> None:
    """Equations 3 to 6, with the sines of the authors' code."""
    n, head, tail = np.array([500, 120, 33, 7]), 0.4, 0.1
    quarter = (n - n[-1]) * np.pi / (2 * (n[0] - n[-1]))
    eps = {
        "concave": tail + (head - tail) * np.sin(quarter),
        "linear": tail + (head - tail) * (n - n[-1]) / (n[0] - n[-1]),
        "convex": head + (head - tail) * np.sin(1.5 * np.pi + quarter),
    }[shape]
    found: Any = amounts(torch.from_numpy(n), head, tail, shape)  # type: ignore[arg-type]
    np.testing.assert_allclose(found, eps, rtol=1e-12)
    z = np.random.default_rng(0).normal(size=4)
    logs = z - np.log(np.exp(z).sum())
    for k in range(4):
        q = np.full(4, eps[k] / 3)
        q[k] = 1 - eps[k]
        np.testing.assert_allclose(smoothing(found)[k], q, rtol=1e-12)
        ours = cross_entropy(torch.from_numpy(z)[None], torch.eye(4, dtype=torch.float64)[k : k + 1] @ smoothing(found))
        assert float(ours) == pytest.approx(-(q @ logs))


def test_label_aware_smoothing_of_equal_classes_and_of_two() -> None:
    assert amounts(torch.tensor([5, 5, 5]), 0.3, 0.0, "concave").tolist() == [0.3, 0.3, 0.3]
    np.testing.assert_allclose(smoothing(torch.tensor([0.3, 0.0])), [[0.7, 0.3], [0, 1]], rtol=1e-6)
    (trick,) = loop(recipe("label_aware_smoothing")).tricks
    y = torch.eye(3)
    mixed = 0.25 * y[:1] + 0.75 * y[2:]
    found, mix = (trick.batch(Batch(y, rows, torch.arange(len(rows))), 0.0, rng()).y for rows in (y, mixed))
    torch.testing.assert_close(mix, 0.25 * found[:1] + 0.75 * found[2:])
    assert found.diag().tolist() == sorted(found.diag().tolist()), "the lab's first class is the largest"


@pytest.mark.parametrize(("classes", "spread"), [(2, 1.0), (5, 0.5), (5, 40.0), (101, 1e-3)])
def test_ordinal_targets_are_the_papers(classes: int, spread: float) -> None:
    places = np.random.default_rng(0).permutation(classes)
    found = soft_ranks(torch.from_numpy(places), spread).numpy()
    for k in range(classes):
        phi = np.array([(places[k] - r) ** 2 / spread for r in places])
        np.testing.assert_allclose(found[k], np.exp(-phi) / np.exp(-phi).sum(), rtol=1e-12, atol=1e-300)
    assert (found.argmax(1) == np.arange(classes)).all()


def test_the_order_of_classes_is_that_of_the_field_of_numbers_or_of_names() -> None:
    assert places_of(["-1", "0.5", "10", "2"], []) == [0, 1, 3, 2]
    assert places_of(["10", "2", "many"], []) == [0, 1, 2]
    assert places_of(["10", "nan", "1", "2"], []) == [1, 3, 0, 2], "by name, where one is no number"
    (trick,) = loop(recipe("ordinal('c', 'a', 'b', spread=1)")).tricks
    y = trick.batch(Batch(torch.zeros(3), torch.eye(3), torch.arange(3)), 0.0, rng()).y
    assert y[2].argsort(descending=True).tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ordinal('a', 'b')", r"'c' is missing\. Name all 3 classes"),
        ("ordinal('a', 'b', 'c', 'd')", "'d' is no class of these images"),
        ("ordinal('a', 'a', 'b', 'c')", "levels: a class stands there twice"),
    ],
)
def test_an_order_that_is_none_is_refused(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        loop(recipe(text))


@pytest.mark.parametrize("name", ["label_aware_smoothing", "ordinal"])
def test_only_one_trick_softens_the_labels(name: str) -> None:
    with pytest.raises(UsageError, match="both sit in the slot 'smoothing'"):
        recipe("label_smoothing", name)


# group_dro
def with_groups(text: str, groups: np.ndarray) -> Loop:
    """A loop on the lab's images with these groups of the training images."""
    data, pixels = dataset()
    own = data.images.groups.copy()
    own[data.images.splits == "train"] = groups
    object.__setattr__(images := copy.copy(data.images), "groups", own)
    made = recipe(text)
    return assemble(made, data._replace(images=images), pixels, 0, fabric_of("fp32"), lambda *_: nn.Identity())


@pytest.mark.parametrize("by", ["both", "group", "class"])
def test_group_dro_is_the_authors_algorithm(by: str) -> None:
    made = with_groups(f"group_dro(by='{by}', rate=0.7, adjustment=0.9)", 1000 + np.arange(41) % 2 * 7)
    (trick,) = made.tricks
    groups, labels = made.judge.groups()
    assert groups.tolist() == [row % 2 for row in range(41)]
    names = [{"both": (g, k), "group": g, "class": k}[by] for g, k in zip(groups.tolist(), labels.tolist(), strict=True)]
    n = {name: names.count(name) for name in names}
    q = dict.fromkeys(n, 1 / len(n))
    draws = np.random.default_rng(0)
    for size in (16, 5, 1):
        rows = torch.from_numpy(draws.permutation(41)[:size])
        z, y = torch.from_numpy(draws.normal(0, 2, (size, 3))), torch.eye(3, dtype=torch.float64)[labels[rows]]
        each = cross_entropy(z, y, reduction="none")
        seen = [names[row] for row in rows.tolist()]
        losses = {
            name: float(np.mean([loss for loss, own in zip(each.tolist(), seen, strict=True) if own == name]))
            for name in {*seen}
        }
        for name, loss in losses.items():
            q[name] *= math.exp(0.7 * (loss + 0.9 / math.sqrt(n[name])))
        q = {name: value / sum(q.values()) for name, value in q.items()}
        batch = Batch(torch.zeros(size), y, rows)
        found = trick.loss(outputs(z), y).mean() + trick.penalty(batch, outputs(z), None, 0.0)
        assert float(found) == pytest.approx(sum(q[name] * loss for name, loss in losses.items()), rel=1e-6)


def test_group_dro_stays_finite_with_logits_of_any_size() -> None:
    made = with_groups("group_dro(rate=100)", np.arange(41) % 3)
    (trick,) = made.tricks
    for sign in (1, -1):
        z = (sign * 1e4 * torch.eye(3)[:2]).requires_grad_()
        batch = Batch(torch.zeros(2), torch.eye(3)[:2], torch.arange(2))
        (trick.loss(outputs(z), batch.y).mean() + trick.penalty(batch, outputs(z), None, 0.0)).backward()
        assert z.grad is not None
        assert z.grad.isfinite().all()
    assert trick.log_q_.isfinite().all()


@pytest.mark.parametrize("by", ["both", "group"])
def test_group_dro_refuses_data_without_groups(by: str) -> None:
    """Also where a few images have exact copies, which are groups like any other."""
    copies = np.r_[0, 0, 0, 1, 1, range(2, 38)]
    for groups in (np.arange(41), copies):
        with pytest.raises(UsageError, match=r"most training images share none\. Give a manifest with a column group"):
            with_groups(f"group_dro(by='{by}')", groups)


# feature_distill
def taught(made: Any, teacher: nn.Module) -> Loop:
    """A loop of the lab with this teacher."""
    data, pixels = dataset()
    return assemble(made, data, pixels, 0, fabric_of("fp32"), lambda *_: teacher)


def wide() -> Net:
    return build("test_resnet", len(CLASSES), size=32).eval().requires_grad_(False)


@pytest.mark.parametrize("model", ["test_efficientnet", "test_resnet"])
def test_feature_distillation_is_timms(model: str) -> None:
    """With and without a projection."""
    teacher = wide()
    made = taught(recipe("feature_distill(weight=2.5)", model=model, size=32), teacher)
    (trick,) = made.tricks
    task = FeatureDistillationTask(made.model.net, teacher.net, criterion=nn.CrossEntropyLoss(), verbose=False)
    layer: Any = made.model.companions["feature_distill"]
    if model == "test_resnet":
        assert task.trainable_module.projection is None
        assert isinstance(layer, nn.Identity)
    else:
        task.trainable_module.projection.load_state_dict(layer.state_dict())
    made.model.eval()
    x, y = torch.randn(4, 3, 32, 32, generator=rng()), torch.arange(4) % 3
    # Both networks see the same numbers.
    task.teacher.normalize_input = lambda x, *_: x  # type: ignore[method-assign]
    expected = task.eval()(x, y)
    batch = Batch(x, torch.eye(3)[y], torch.arange(4))
    with torch.no_grad():
        found = trick.penalty(batch, made.model(x), made.model, 0.0)
    torch.testing.assert_close(found, 2.5 * expected["kd_loss"].detach())


def test_the_projection_learns_resumes_and_is_no_part_of_the_result() -> None:
    made = recipe("feature_distill", "ema(half_life=0.2)")
    whole, stopped, resumed = (taught(made, wide_) for wide_ in [wide()] for _ in range(3))
    before = whole.model.companions["feature_distill"].weight.clone()
    ended = follow(whole)
    assert not torch.equal(whole.model.companions["feature_distill"].weight, before)
    assert not [name for name in finish(whole, made).model.state_dict() if name.startswith("companions.")]
    for event in stopped.train():
        if isinstance(event, Step) and event.step == 3:
            break
    resumed.load(copy.deepcopy(stopped.state()))
    assert follow(resumed).same(ended)


def test_a_projection_is_drawn_from_its_own_generator() -> None:
    assert torch.equal(projection(3, 2, rng(1)).weight, projection(3, 2, rng(1)).weight)


def test_tricks_that_freeze_exclude_each_other() -> None:
    with pytest.raises(UsageError, match="both sit in the slot 'tuned'"):
        recipe("lora", "norm_tuning")
    assert find("lora").undone
    assert not Trick.undone


# token_distill
DISTILLED = "deit_tiny_distilled_patch16_224"


@pytest.mark.parametrize(("kind", "scale"), [("hard", 1.0), ("soft", 1.0), ("soft", 1e4)])
def test_token_distillation_is_timms(kind: Literal["hard", "soft"], scale: float) -> None:
    teacher = wide()
    with torch.no_grad():
        teacher.net.fc.weight.mul_(scale)
    made = taught(recipe(f"token_distill(alpha=0.3, kind='{kind}', T=2.0)"), teacher)
    (trick,), model = made.tricks, made.model
    loss = nn.CrossEntropyLoss()
    task = TokenDistillationTask(
        model.net, teacher.net, criterion=loss, distill_type=kind, task_loss_weight=0.7, temperature=2.0, verbose=False
    )
    # Both networks see the same numbers.
    task.teacher.normalize_input = lambda x, *_: x  # type: ignore[method-assign]
    x, y = torch.randn(4, *model.shape, generator=rng()), torch.arange(4) % 3
    expected = task.train()(x, y)
    model.net.set_distilled_training(False)
    batch = Batch(x, torch.eye(3)[y], torch.arange(4))
    batch, found = trick.forward(lambda batch: (batch, model(batch.x)), model, 0.0, rng())(batch)
    torch.testing.assert_close(found.logits, expected["output"])
    labels = float(trick.weights(batch.y, 0.0)[0]) * cross_entropy(found.logits, batch.y)
    torch.testing.assert_close(labels + trick.penalty(batch, found, model, 0.0), expected["loss"])


def test_each_classifier_learns_from_its_own_teacher_and_both_are_judged() -> None:
    made = taught(recipe("token_distill(alpha=1.0)"), wide())
    before = {name: value.clone() for name, value in made.model.state_dict().items()}
    follow(made)
    after, model = made.model.state_dict(), made.model.eval()
    assert torch.allclose(after["net.head.bias"], before["net.head.bias"], atol=1e-3), "the labels had no weight"
    assert not torch.allclose(after["net.head_dist.bias"], before["net.head_dist.bias"], atol=1e-3)
    outputs = model(torch.randn(2, *model.shape, generator=rng()))
    token, distilled = outputs.features.chunk(2, 1)
    torch.testing.assert_close(outputs.logits, (model.net.head(token) + model.net.head_dist(distilled)) / 2)


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224"])
def test_token_distillation_refuses_networks_with_one_classifier(name: str) -> None:
    with pytest.raises(UsageError, match=rf"^token_distill: {name} has no second classifier"):
        parse("token_distill").model(build(name, 3, size=224))
