"""Optimisers, and norms and filters in their service, against the papers' formulas in float64 and other libraries."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import onnxruntime
import pytest
import timm
import torch
from reference import norm_statistics
from safetensors.torch import save_file
from timm.layers.std_conv import StdConv2d
from timm.optim.lion import Lion as TimmLion
from timm.optim.nadamw import NAdamW as TimmNAdamW
from torch import Tensor, nn
from torch.nn.functional import conv2d

from trickbag.engine.assemble import build_model
from trickbag.engine.loop import Step, param_groups
from trickbag.exports.graph import quiet
from trickbag.ground.errors import UsageError
from trickbag.ground.norms import batch_norms, estimate_norms
from trickbag.laboratory import laws
from trickbag.laboratory.lab import follow, loop, recipe, train
from trickbag.models.networks import Net, build
from trickbag.trick import Trick
from trickbag.tricks import parse
from trickbag.tricks.ghost_norm import Ghost
from trickbag.tricks.weight_standardisation import Standardised

STEPS = 20
SHAPES: tuple[tuple[int, ...], ...] = ((6, 5), (8, 4, 3, 3), (7,), (1,))
DECAY = 0.1
OPTIMISERS = ("nadamw", "lion", "adopt", "adan", "muon", "schedule_free", "schedule_free(base='adamw')")
Gradients = list[Tensor]
Rates = list[float]


def drawn(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rate(step: int) -> float:
    """A learning rate that rises and falls."""
    return 0.01 * (1 + step % 7) / 7


def gradient(shape: tuple[int, ...], step: int) -> Tensor:
    """Gradients with a common part, so that a momentum agrees with some of them."""
    return drawn(shape, 1000 + step) + 0.3 * drawn(shape, 7)


# The papers' steps: weights, gradients and learning rates -> weights.
def nadamw(w: Tensor, gradients: Gradients, rates: Rates) -> Tensor:
    m, v = torch.zeros_like(w), torch.zeros_like(w)
    for t, (g, lr) in enumerate(zip(gradients, rates, strict=True), 1):
        m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g**2
        ahead, second = (0.8 * m + 0.2 * g) / (1 - 0.8**t), v / (1 - 0.9**t)
        w = w - lr * DECAY * w - lr * ahead / (second.sqrt() + 0.01)
    return w


def lion(w: Tensor, gradients: Gradients, rates: Rates) -> Tensor:
    m = torch.zeros_like(w)
    for g, lr in zip(gradients, rates, strict=True):
        w = w - lr * ((0.8 * m + 0.2 * g).sign() + DECAY * w)
        m = 0.9 * m + 0.1 * g
    return w


def adopt(w: Tensor, gradients: Gradients, rates: Rates) -> Tensor:
    m, v = torch.zeros_like(w), gradients[0] ** 2
    for t, (g, lr) in enumerate(zip(gradients[1:], rates[1:], strict=True), 1):
        m = 0.8 * m + 0.2 * (g / v.sqrt().clamp_min(0.01)).clamp(-(t**0.25), t**0.25)
        w, v = w - lr * (m + DECAY * w), 0.9 * v + 0.1 * g**2
    return w


def adan(w: Tensor, gradients: Gradients, rates: Rates) -> Tensor:
    b1, b2, b3 = 0.05, 0.1, 0.2  # the paper's: 1 minus ours
    m, v, n = torch.zeros(3, *w.shape, dtype=w.dtype)
    for t, (old, g, lr) in enumerate(zip([gradients[0], *gradients[:-1]], gradients, rates, strict=True), 1):
        m, v = (1 - b1) * m + b1 * g, (1 - b2) * v + b2 * (g - old)
        n = (1 - b3) * n + b3 * (g + (1 - b2) * (g - old)) ** 2
        first, change = m / (1 - (1 - b1) ** t), v / (1 - (1 - b2) ** t)
        scale = lr / ((n / (1 - (1 - b3) ** t)).sqrt() + 0.01)
        w = (w - scale * (first + (1 - b2) * change)) / (1 + lr * DECAY)
    return w


def schedule_free(beta2: float | None) -> Callable[[Tensor, Gradients, Rates], Tensor]:
    """Algorithm 1 with x, y and z; the gradients are given, and y comes back."""

    def steps(x: Tensor, gradients: Gradients, rates: Rates) -> Tensor:
        z, y, v, total = x, x, torch.zeros_like(x), 0.0
        for t, (g, lr) in enumerate(zip(gradients, rates, strict=True), 1):
            if beta2 is not None:
                v = beta2 * v + (1 - beta2) * g**2
                g = g / ((v / (1 - beta2**t)).sqrt() + 1e-8)
            z = z - lr * (g + DECAY * y)
            total += lr**2
            x = (1 - lr**2 / total) * x + lr**2 / total * z
            y = 0.2 * z + 0.8 * x
        return y

    return steps


REFERENCES: dict[str, Callable[[Tensor, Gradients, Rates], Tensor]] = {
    "nadamw(beta1=0.8, beta2=0.9, eps=0.01)": nadamw,
    "lion(beta1=0.8, beta2=0.9)": lion,
    "adopt(beta1=0.8, beta2=0.9, eps=0.01)": adopt,
    "adan(beta1=0.95, beta2=0.9, beta3=0.8, eps=0.01)": adan,
    "schedule_free(beta=0.8)": schedule_free(None),
    "schedule_free(base='adamw', beta=0.8, beta2=0.9)": schedule_free(0.9),
}


@pytest.mark.parametrize("spec", REFERENCES)
def test_steps_are_the_papers_in_every_group(spec: str) -> None:
    """Of weights of any shape, at the learning rate of their group, which rises and falls."""
    trick, scales = parse(spec), (1.0, 0.5)
    weights = [[nn.Parameter(drawn(shape, number)) for number, shape in enumerate(SHAPES)] for _ in scales]
    groups = [{"params": own, "weight_decay": DECAY, "lr_scale": s} for own, s in zip(weights, scales, strict=True)]
    optimizer = trick.optimizer(groups, 0.01)
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = rate(step) * group["lr_scale"]
            for p in group["params"]:
                p.grad = gradient(p.shape, step)
        optimizer.step()
    for own, scale in zip(weights, scales, strict=True):
        rates = [scale * rate(step) for step in range(STEPS)]
        for number, (found, shape) in enumerate(zip(own, SHAPES, strict=True)):
            wanted = REFERENCES[spec](drawn(shape, number), [gradient(shape, step) for step in range(STEPS)], rates)
            torch.testing.assert_close(found.detach(), wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("spec", OPTIMISERS)
def test_weights_without_decay_keep_their_size_where_the_gradient_is_nothing(spec: str) -> None:
    kept, decayed = (nn.Parameter(torch.ones(4, 4)) for _ in range(2))
    groups = [{"params": [p], "weight_decay": d, "lr_scale": 1.0} for p, d in ((kept, 0.0), (decayed, 0.5))]
    optimizer = parse(spec).optimizer(groups, 0.1)
    for _ in range(3):
        for p in (kept, decayed):
            p.grad = torch.zeros_like(p)
        optimizer.step()
    assert torch.equal(kept, torch.ones(4, 4))
    assert bool((decayed < 0.96).all())


@pytest.mark.parametrize("spec", OPTIMISERS)
@pytest.mark.parametrize("size", [1e4, 1e-30, 0.0])
def test_steps_are_finite_for_gradients_of_any_size(spec: str, size: float) -> None:
    weights = [nn.Parameter(drawn(shape, number).float()) for number, shape in enumerate(SHAPES)]
    optimizer = parse(spec).optimizer([{"params": weights, "weight_decay": 0.01, "lr_scale": 1.0}], 1e-3)
    for step in range(5):
        for p in weights:
            p.grad = (size * gradient(p.shape, step)).float()
        optimizer.step()
    assert all(bool(p.isfinite().all()) for p in weights)


@pytest.mark.parametrize("spec", OPTIMISERS)
def test_a_training_resumes_beside_schedules_groups_and_layers_that_thaw(spec: str) -> None:
    laws.check_resume(
        recipe(spec, "warmup(share=0.2)", "gradual_unfreeze", "layer_decay", "no_bias_decay", "cautious", lr=1e-3)
    )


@pytest.mark.parametrize("spec", [*OPTIMISERS, "cautious", "ghost_norm(images=4)", "weight_standardisation"])
def test_bfloat16_trains_weights_in_float32(spec: str) -> None:
    trained = train(spec, precision="bf16", lr=1e-3)
    assert all(torch.tensor(trained.losses).isfinite())
    assert all(value.isfinite().all() for value in trained.live.values())
    assert {p.dtype for p in trained.loop.model.parameters()} == {torch.float32}


# muon
def matrices(spec: str, weights: list[nn.Parameter], decay: float = DECAY) -> Iterator[None]:
    """Steps of an optimiser on the same gradients."""
    optimizer = parse(spec).optimizer([{"params": weights, "weight_decay": decay, "lr_scale": 1.0}], 0.01)
    for step in range(STEPS):
        for p in weights:
            p.grad = drawn(tuple(p.shape), 1000 + step).to(p.dtype)
        optimizer.step()
        yield


@pytest.mark.parametrize("shape", [(6, 5), (5, 6), (16, 8, 3, 3), (12, 4, 1, 1), (8, 8)])
def test_muon_is_torchs_on_convolutions_as_matrices(shape: tuple[int, ...]) -> None:
    ours = nn.Parameter(drawn(shape, 0).float())
    theirs = nn.Parameter(ours.detach().clone().flatten(1))
    reference = torch.optim.Muon([theirs], lr=0.01, weight_decay=DECAY, momentum=0.9, adjust_lr_fn="match_rms_adamw")
    for step, _ in enumerate(matrices("muon(momentum=0.9)", [ours])):
        theirs.grad = drawn(shape, 1000 + step).float().flatten(1)
        reference.step()
    torch.testing.assert_close(ours.detach().flatten(1), theirs.detach(), rtol=1e-5, atol=1e-6)


def test_muons_steps_have_the_singular_values_of_the_formula() -> None:
    """Within five times the rounding of bfloat16, once for each product."""
    weight = nn.Parameter(torch.zeros(32, 64, dtype=torch.float64))
    next(matrices("muon(momentum=0.0)", [weight], decay=0.0))
    u, s, v = torch.linalg.svd(drawn((32, 64), 1000), full_matrices=False)
    x = s / s.square().sum().sqrt()
    for _ in range(5):
        x = 3.4445 * x - 4.7750 * x**3 + 2.0315 * x**5
    wanted = -0.01 * 0.2 * 64**0.5 * u @ x.diag() @ v
    assert 0.6 < float(x.min()) < float(x.max()) < 1.3
    assert float((weight.detach() - wanted).norm() / wanted.norm()) < 5 * 2**-8


def test_muon_moves_all_else_as_nadamw() -> None:
    shapes = ((7,), (1,), (3, 40), (4, 600), (1, 9, 8), (8, 1, 3, 3))
    ours, theirs = ([nn.Parameter(drawn(shape, 0)) for shape in shapes] for _ in range(2))
    spec = "nadamw(beta1=0.8, beta2=0.9, eps=1e-7)"
    for _ in zip(matrices("muon(beta1=0.8, beta2=0.9)", ours), matrices(spec, theirs), strict=True):
        pass
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["cifar_resnet8", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "mobilenetv2_050"])
def test_muon_takes_the_matrices_below_the_classifier(name: str) -> None:
    net = build(name, 10, size=32 if name[:3] != "swi" else 224)
    groups = param_groups(net, [parse("muon"), parse("no_bias_decay")], 0.1)
    rest = {n for group in groups if group.get("use_fallback") for n in group["names"]}
    assert net.head_names <= rest
    parameters = dict(net.named_parameters())
    assert all(n.endswith("weight") and parameters[n].ndim > 1 for n in parameters.keys() - rest)
    others = {n for n in rest - net.head_names if parameters[n].ndim > 1}
    assert all(n.endswith(("pos_embed", "cls_token", "relative_position_bias_table")) for n in others)
    assert {group["weight_decay"] for group in groups} == {0.0, 0.1}


# cautious
class Straight(nn.Module):
    """Weights of several shapes, whose gradients are given."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.ParameterList(nn.Parameter(drawn(shape, n)) for n, shape in enumerate(SHAPES))


def patchy(shape: tuple[int, ...], step: int) -> Tensor:
    """Gradients that are nothing here and there, where a momentum is not."""
    return gradient(shape, step) * (drawn(shape, 2000 + step) > -0.5)


def cautiously(model: Straight, optimizer: torch.optim.Optimizer, trick: Trick | None) -> None:
    """Steps of an optimiser, with the trick around each, on layers of which one has no gradient."""
    if trick:
        trick.setup(model, None)  # type: ignore[arg-type]
    for step in range(STEPS):

        def compute(step: int = step) -> Tensor:
            for p in list(model.weights)[:-1]:
                p.grad = patchy(tuple(p.shape), step)
            return torch.zeros(())

        (trick.gradient(compute, model, 0.0) if trick else compute)()
        optimizer.step()
        if trick:
            trick.update(model, 0.0)
            assert trick.state() == {"before_": []}


@pytest.mark.parametrize(("name", "theirs"), [("nadamw", TimmNAdamW), ("lion", TimmLion)])
def test_caution_is_timms(name: str, theirs: Any) -> None:
    ours, twin = Straight(), Straight()
    group = {"params": list(ours.parameters()), "weight_decay": 0.0, "lr_scale": 1.0}
    cautiously(ours, parse(name).optimizer([group], 0.01), parse("cautious").fresh())
    cautiously(twin, theirs(twin.parameters(), lr=0.01, weight_decay=0.0, caution=True), None)
    for p, q in zip(ours.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-10)
    assert torch.equal(ours.weights[-1], Straight().weights[-1])


def test_caution_is_the_formula_with_sgd() -> None:
    model = Straight()
    cautiously(model, torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=0.1), parse("cautious").fresh())
    for number, shape in enumerate(SHAPES[:-1]):
        w = drawn(shape, number)
        m = torch.zeros_like(w)
        for step in range(STEPS):
            g = patchy(shape, step)
            m = 0.9 * m + g + 0.1 * w
            phi = (m * g > 0).double()
            w = w - 0.01 * m * phi * phi.numel() / phi.sum().clamp_min(1e-3 * phi.numel())
        torch.testing.assert_close(model.weights[number].detach(), w, rtol=1e-10, atol=1e-12)


def test_no_weight_moves_against_its_gradient() -> None:
    made = loop(recipe("cautious", "warmup", momentum=0.9))
    before = [p.detach().clone() for p in made.model.parameters()]
    for event in made.train():
        if isinstance(event, Step):
            moved = [p.detach() - old for p, old in zip(made.model.parameters(), before, strict=True)]
            for step, p in zip(moved, made.model.parameters(), strict=True):
                assert bool((step * p.grad <= 0).all())
            before = [p.detach().clone() for p in made.model.parameters()]


# schedule_free
@pytest.mark.parametrize("base", ["sgd", "adamw"])
def test_the_average_is_judged(base: str) -> None:
    """x of the formula, from y = (1 - beta) z + beta x; with one learning rate, the mean of all z."""
    trick, model = parse(f"schedule_free(base='{base}', beta=0.7)").fresh(), Straight()
    optimizer = trick.optimizer([{"params": list(model.parameters()), "weight_decay": 0.0, "lr_scale": 1.0}], 0.01)
    assert trick.eval_model(model) is model
    points: list[list[Tensor]] = []
    for step in range(STEPS):
        for p in list(model.weights)[:-1]:
            p.grad = gradient(tuple(p.shape), step)
        optimizer.step()
        points.append([optimizer.state[p]["z"].clone() for p in list(model.weights)[:-1]])
    judged = trick.eval_model(model)
    assert not any(p.requires_grad for p in judged.parameters())
    assert torch.equal(judged.weights[-1], model.weights[-1])
    for x, *each in zip(list(judged.weights)[:-1], *points, strict=True):
        torch.testing.assert_close(x.data, torch.stack(each).mean(0), rtol=1e-10, atol=1e-12)


def test_the_average_has_norm_statistics_of_its_own() -> None:
    made = loop(recipe("schedule_free", lr=0.5))
    follow(made)
    (average,) = [trick for trick in made.tricks if trick.name() == "schedule_free"]
    judged = made.judge.weights(made.model, average)
    assert judged is not made.model
    batches = [batch.x for batch in made.judge.batches()]
    for name, (means, variances) in norm_statistics(copy.deepcopy(judged), batches).items():
        norm: Any = judged.get_submodule(name)
        torch.testing.assert_close(norm.running_mean, means.float(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(norm.running_var, variances.float(), rtol=1e-4, atol=1e-5)


def test_a_learning_rate_of_zero_moves_nothing() -> None:
    p = nn.Parameter(torch.ones(2))
    optimizer = parse("schedule_free").optimizer([{"params": [p], "weight_decay": 0.1, "lr_scale": 1.0}], 0.0)
    p.grad = torch.ones(2)
    optimizer.step()
    assert torch.equal(p, torch.ones(2))


@pytest.mark.parametrize("other", ["cosine", "step_decay", "adamw", "ema"])
def test_schedule_free_takes_the_place_of_schedule_optimiser_and_average(other: str) -> None:
    with pytest.raises(UsageError, match="Choose one"):
        recipe("schedule_free", other)


# ghost_norm
def ghosts(kind: str, images: int) -> tuple[nn.Module, nn.Module]:
    """A network with norms that see parts, and one of the same weights with norms that see the batch."""
    torch.manual_seed(0)
    plain = timm.create_model(kind, num_classes=3)
    for norm in batch_norms(plain):
        nn.init.uniform_(norm.weight, 0.5, 2)
        nn.init.normal_(norm.bias)
    return parse(f"ghost_norm(images={images})").model(copy.deepcopy(plain)), plain


@pytest.mark.parametrize("kind", ["cifar_resnet8", "resnet10t", "mobilenetv3_small_050", "test_efficientnet"])
def test_ghosts_take_the_places_of_norms_and_are_judged_as_they_are(kind: str) -> None:
    """BatchNormAct2d too, whose class has the activation."""
    ghost, plain = ghosts(kind, 2)
    assert all(isinstance(norm, Ghost) for norm in batch_norms(ghost))
    assert [type(norm).__mro__[2] for norm in batch_norms(ghost)] == [type(norm) for norm in batch_norms(plain)]
    assert ghost.state_dict().keys() == plain.state_dict().keys()
    x = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(copy.deepcopy(ghost).eval()(x), plain.eval()(x))


@pytest.mark.parametrize("kind", [nn.BatchNorm2d, timm.layers.BatchNormAct2d])
@pytest.mark.parametrize(
    ("count", "images", "parts"), [(8, 4, (4, 4)), (11, 3, (4, 4, 3)), (7, 4, (7,)), (1, 2, (1,)), (9, 2, (3, 2, 2, 2))]
)
def test_each_part_has_statistics_of_its_own(kind: Any, count: int, images: int, parts: tuple[int, ...]) -> None:
    """The paper's formula in float64; running statistics move by the momentum towards the mean over images."""
    norm = kind(4, momentum=0.3).double()
    nn.init.normal_(norm.weight)
    norm.running_mean.normal_()
    x = drawn((count, 4, 5, 5), 3)
    mean, var = norm.running_mean.clone(), norm.running_var.clone()
    found = parse(f"ghost_norm(images={images})").model(nn.Sequential(norm))(x)
    wanted: list[Tensor] = []
    statistics: list[Tensor] = []
    for part in x.split(parts):
        flat = part.transpose(0, 1).flatten(1)
        scaled = (part - flat.mean(1)[:, None, None]) / (flat.var(1, correction=0) + norm.eps).sqrt()[:, None, None]
        wanted.append(scaled * norm.weight[:, None, None] + norm.bias[:, None, None])
        statistics.append(torch.stack([flat.mean(1), flat.var(1)]) * (len(part) / count))
    expected = torch.cat(wanted)
    torch.testing.assert_close(found, expected.relu() if kind is not nn.BatchNorm2d else expected)
    over_images = torch.stack(statistics).sum(0)
    torch.testing.assert_close(norm.running_mean, 0.7 * mean + 0.3 * over_images[0])
    torch.testing.assert_close(norm.running_var, 0.7 * var + 0.3 * over_images[1])
    assert norm.momentum == 0.3


def test_statistics_estimated_anew_are_the_mean_over_all_parts() -> None:
    net = nn.Sequential(nn.BatchNorm2d(3)).double()
    parse("ghost_norm(images=2)").model(net)
    batches = [drawn((count, 3, 4, 4), count) for count in (4, 6, 3)]
    estimate_norms(net, batch_norms(net), batches)
    parts = [part for batch in batches for part in batch.tensor_split(len(batch) // 2)]
    flat = [part.transpose(0, 1).flatten(1) for part in parts]
    share = torch.tensor(list(map(len, parts)), dtype=torch.float64) / sum(map(len, parts))
    torch.testing.assert_close(net[0].running_mean, (torch.stack([f.mean(1) for f in flat]) * share[:, None]).sum(0))
    torch.testing.assert_close(net[0].running_var, (torch.stack([f.var(1) for f in flat]) * share[:, None]).sum(0))


def test_a_batch_of_one_part_is_that_of_the_plain_norm() -> None:
    assert train("ghost_norm(images=2)", batch_size=4).losses != train(batch_size=4).losses
    ghost, plain = ghosts("cifar_resnet8", 4)
    x = torch.randn(7, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(ghost.train()(x), plain.train()(x))
    for name, value in ghost.state_dict().items():
        assert torch.equal(value, plain.state_dict()[name]), name


def test_a_judged_batch_is_not_cut() -> None:
    """A graph that is traced for another program holds for batches of any size."""
    net = parse("ghost_norm(images=2)").model(nn.Sequential(nn.BatchNorm2d(3)))
    names = [net.train(mode)(torch.ones(4, 3, 2, 2)).grad_fn.name() for mode in (True, False)]
    assert names == ["CatBackward0", "NativeBatchNormBackward0"]


def test_ghosts_compile() -> None:
    ghost = parse("ghost_norm(images=2)").model(nn.Sequential(nn.BatchNorm2d(4)))
    twin = copy.deepcopy(ghost)
    compiled: Any = torch.compile(ghost, backend="eager")
    for step in range(2):
        x = drawn((5, 4, 3, 3), step).float()
        torch.testing.assert_close(compiled(x), twin(x))
    torch.testing.assert_close(ghost.state_dict(), twin.state_dict())


def test_ghosts_are_refused_where_they_would_change_nothing() -> None:
    with pytest.raises(UsageError, match="this network has none"):
        loop(recipe("ghost_norm(images=2)", model="vit_tiny_patch16_224", size=32))
    with pytest.raises(UsageError, match=r"cuts batches of 32 images or more, and batch_size is 31\. Set fewer images"):
        loop(recipe("ghost_norm", batch_size=31))
    loop(recipe("ghost_norm", batch_size=32))


# weight_standardisation
def standardised_net(model: str, size: int = 32) -> Net:
    return build_model(made := recipe("weight_standardisation", model=model, size=size), made.tricks, 3, 3, 0, "none")


@pytest.mark.parametrize("model", ["cifar_resnet8", "resnet10t", "tf_mobilenetv3_small_075", "regnety_002"])
def test_a_network_is_that_of_standardised_weights(model: str) -> None:
    """Of each convolution with a norm right after it: of all but those of gates and heads."""
    net = standardised_net(model).double()
    plain = build(model, 3, size=32).double()
    plain.load_state_dict(net.state_dict())
    done = {name for name, m in net.named_modules() if isinstance(m, Standardised)}
    with torch.no_grad():
        for name, module in plain.named_modules():
            if name in done:
                w: Tensor = module.weight  # type: ignore[assignment]
                flat = w.flatten(1)
                scale = (flat.var(1, correction=0, keepdim=True) + 1e-6).sqrt()
                w.copy_(((flat - flat.mean(1, keepdim=True)) / scale).reshape(w.shape))
        x = drawn((2, 3, 32, 32), 1)
        for mode in (False, True):
            torch.testing.assert_close(net.train(mode)(x).logits, plain.train(mode)(x).logits)
    others = {name for name, m in plain.named_modules() if isinstance(m, nn.Conv2d)} - done
    assert all(".se." in name or name == "net.conv_head" for name in others)


def test_filters_of_equal_weights_and_of_huge_ones_are_finite() -> None:
    net: Any = standardised_net("cifar_resnet8")
    with torch.no_grad():
        net.net.conv1.weight[0] = 3.0
        net.net.conv1.weight[1] *= 1e4
    outputs = net(torch.full((4, 3, 16, 16), 1e4))
    outputs.logits.square().sum().backward()
    assert bool(outputs.logits.isfinite().all())
    assert all(bool(p.grad.isfinite().all()) for p in net.parameters())


def test_the_gradient_is_that_of_the_formula() -> None:
    conv = nn.Conv2d(3, 4, 3, padding=1).double()
    net = nn.Sequential(conv, nn.BatchNorm2d(4).double())
    net.shape = (3, 6, 6)  # type: ignore[assignment]
    own = conv.weight.detach().clone().requires_grad_()
    x = drawn((2, 3, 6, 6), 1)
    changed: Any = parse("weight_standardisation").model(net.float())
    changed.double()[0](x).square().sum().backward()
    flat = own.flatten(1)
    scaled = (flat - flat.mean(1, keepdim=True)) / (flat.var(1, correction=0, keepdim=True) + 1e-6).sqrt()
    conv2d(x, scaled.reshape(own.shape), conv.bias.detach(), padding=1).square().sum().backward()
    torch.testing.assert_close(changed[0].weight.grad, own.grad)


@pytest.mark.parametrize("options", [{}, {"stride": 2, "padding": 1, "groups": 2, "bias": True}, {"dilation": 2, "padding": 2}])
def test_a_convolution_is_timms(options: dict[str, Any]) -> None:
    theirs = StdConv2d(4, 6, 3, **{"padding": 0} | options)
    plain = nn.Conv2d(4, 6, 3, **{"bias": False} | options)
    plain.load_state_dict(theirs.state_dict())
    x = drawn((2, 4, 9, 9), 1).float()
    torch.testing.assert_close(Standardised(plain)(x), theirs(x), rtol=1e-5, atol=1e-5)


def test_a_convolution_answers_the_same_as_onnx(tmp_path: Any) -> None:
    conv, x, path = Standardised(nn.Conv2d(3, 4, 3)).eval(), drawn((1, 3, 5, 5), 1).float(), str(tmp_path / "conv.onnx")
    with quiet():
        torch.onnx.export(conv, (x,), path, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(path)
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), conv(x).detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("model", ["convnext_atto", "vit_tiny_patch16_224", "resnetv2_18", "resnetv2_50x1_bit"])
def test_networks_without_norms_behind_plain_convolutions_are_refused(model: str) -> None:
    with pytest.raises(UsageError, match=r"has too few\. Remove it"):
        standardised_net(model)


def test_pretrained_weights_are_refused(tmp_path: Any) -> None:
    save_file(timm.create_model("resnet10t", num_classes=3).state_dict(), path := str(tmp_path / "resnet10t.safetensors"))
    made = recipe("weight_standardisation", model="resnet10t")
    with pytest.raises(UsageError, match="resnetv2_50x1_bit"):
        build_model(made, made.tricks, 3, 3, 0, path)
