"""Schedules, optimisers, gradients and batch sizes against formulas and independent implementations."""

from collections import defaultdict
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from timm.utils import adaptive_clip_grad
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD, lr_scheduler

from trickbag import tricks
from trickbag.engine.loop import param_groups
from trickbag.ground.errors import UsageError
from trickbag.laboratory.lab import loop, recipe
from trickbag.trick import Facts, Outputs, ordered


class Small(nn.Module):
    """Two convolutions with norms and a classifier, as tricks see a network."""

    head_names = frozenset({"classifier.weight", "classifier.bias"})
    depths = {"conv.weight": 0, "bn.weight": 0, "bn.bias": 0, "conv2.weight": 3, "bn2.weight": 3, "bn2.bias": 3}
    depths |= dict.fromkeys(head_names, 4)

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.bn = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)
        self.plain = nn.BatchNorm2d(4, affine=False)
        self.conv2, self.bn2 = nn.Conv2d(4, 5, 1, bias=False), nn.BatchNorm2d(5)
        self.classifier = nn.Linear(5, 3)

    def forward(self, x):
        maps = self.bn2(self.conv2(self.plain(self.bn(self.conv(x)).relu()))).relu()
        features = maps.mean((2, 3))
        return Outputs(maps, features, self.classifier(features))


@pytest.fixture
def step():
    """A network and how to compute the gradient of one batch, in float64."""
    model = Small().double()
    x = torch.randn(6, 3, 5, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def compute():
        for p in model.parameters():
            p.grad = None
        loss = cross_entropy(model(x).logits, torch.tensor([0, 1, 2, 0, 1, 2]))
        loss.backward()
        return loss.detach()

    return model, compute


def started(spec, steps):
    """A trick in a run of so many steps."""
    trick = tricks.parse(spec).fresh()
    if "setup" in trick.plugs():
        trick.setup(None, SimpleNamespace(facts=Facts(("a", "b"), torch.tensor([5, 5]), steps, 32, 8, 3, 0)))
    return trick


def by_torch(make, steps):
    """The learning rates of the first steps under a scheduler of torch, the largest being 1."""
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9)
    scheduler, found = make(optimizer), []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize(
    ("spec", "points"),
    [
        ("poly", {0: 1, 0.5: 0.25, 0.9: 0.01, 1: 0}),
        ("poly(power=0.5, final=0.5)", {0: 1, 0.75: 0.75, 1: 0.5}),
        ("exponential", {0: 1, 0.5: 0.1, 0.25: 10**-0.5, 1: 0.01}),
        ("one_cycle", {0: 0.04, 0.15: 0.52, 0.3: 1, 0.65: 0.500002, 1: 4e-6}),
        ("one_cycle(peak=0.5, start=0.5, final=0.2)", {0: 0.5, 0.25: 0.75, 0.5: 1, 0.75: 0.6, 1: 0.2}),
        ("cyclic", {0: 0.25, 0.0625: 0.625, 0.125: 1, 0.1875: 0.625, 0.25: 0.25, 0.875: 1}),
        ("cyclic(cycles=2, low=0.0, start=0.5, rise=0.0)", {0: 1, 0.49: 1, 0.5: 1, 0.625: 0.5, 0.75: 1, 0.875: 0.5}),
        ("cyclic(cycles=1, low=0.5, rise=0.8)", {0: 0.5, 0.4: 0.75, 0.8: 1, 0.9: 0.75}),
        ("sgdr", {0: 1, 1 / 30: 0.5, 1 / 15: 1, 2 / 15: 0.5, 3 / 15: 1, 7 / 15: 1, 11 / 15: 0.5, 1: 0}),
        ("sgdr(cycles=2, mult=1.0, final=0.2)", {0: 1, 0.25: 0.6, 0.4999999: 0.2, 0.5: 1, 0.75: 0.6}),
        ("warmup_stable_decay", {0: 1, 0.5: 1, 0.8: 1, 0.9: 0.5, 0.95: 0.25, 1: 0}),
        ("warmup_stable_decay(decay=1.0, final=0.5)", {0: 1, 0.5: 0.75, 1: 0.5}),
        ("warmup_stable_decay(decay=0.0)", {0: 1, 0.999: 1}),
    ],
)
def test_learning_rates_at_named_points(spec, points):
    trick = started(spec, 10**9)
    assert {t: trick.lr(t) for t in points} == pytest.approx(points, abs=1e-7)


STEPS = 60


@pytest.mark.parametrize(
    ("spec", "make"),
    [
        ("cosine", lambda o: lr_scheduler.CosineAnnealingLR(o, STEPS)),
        ("cosine(final=0.1)", lambda o: lr_scheduler.CosineAnnealingLR(o, STEPS, 0.1)),
        ("linear(final=0.2)", lambda o: lr_scheduler.LinearLR(o, 1.0, 0.2, STEPS)),
        ("step_decay(at=(0.25, 0.5), factor=0.3)", lambda o: lr_scheduler.MultiStepLR(o, [STEPS // 4, STEPS // 2], 0.3)),
        ("warmup(share=0.5)", lambda o: lr_scheduler.LinearLR(o, 2 / STEPS, 1.0, STEPS // 2 - 1)),
        ("one_cycle", lambda o: lr_scheduler.OneCycleLR(o, 1.0, STEPS)),
        (
            "one_cycle(peak=0.5, start=0.2, final=0.02)",
            lambda o: lr_scheduler.OneCycleLR(o, 1.0, STEPS, pct_start=0.5, div_factor=5.0, final_div_factor=10.0),
        ),
        ("poly(power=0.9)", lambda o: lr_scheduler.PolynomialLR(o, STEPS, power=0.9)),
        ("poly", lambda o: lr_scheduler.PolynomialLR(o, STEPS, power=2.0)),
        ("exponential(final=0.03)", lambda o: lr_scheduler.ExponentialLR(o, 0.03 ** (1 / STEPS))),
        ("sgdr", lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, STEPS // 15, 2)),
        ("sgdr(cycles=2, mult=3.0, final=0.1)", lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, STEPS // 4, 3, 0.1)),
        ("sgdr(cycles=5, mult=1.0)", lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, STEPS // 5)),
        ("cyclic", lambda o: lr_scheduler.CyclicLR(o, 0.25, 1.0, 7.5, cycle_momentum=False)),
        ("cyclic(cycles=3, low=0.1, rise=0.25)", lambda o: lr_scheduler.CyclicLR(o, 0.1, 1.0, 5, 15, cycle_momentum=False)),
    ],
)
def test_learning_rates_agree_with_torch_at_every_step(spec, make):
    trick = started(spec, STEPS)
    assert [trick.lr(i / STEPS) for i in range(STEPS)] == pytest.approx(by_torch(make, STEPS), abs=1e-9)


@pytest.mark.parametrize("steps", [1, 2, 3, 7])
def test_the_shortest_cycle_rises_and_ends(steps):
    """As torch's where torch can: a single step is taken at the peak."""
    found = [started("one_cycle", steps).lr(i / steps) for i in range(steps)]
    make = lambda o: lr_scheduler.OneCycleLR(o, 1.0, steps)  # noqa: E731
    assert found == pytest.approx(by_torch(make, steps) if steps > 3 else [1.0, 4e-6] if steps == 2 else found, abs=1e-9)
    assert max(found) <= 1
    assert found[-1] == pytest.approx(4e-6 if steps > 1 else 1.0)


def test_cycles_beside_swa_are_those_of_izmailov():
    """a(i) = (1 - t(i)) a1 + t(i) a2, t(i) = (mod(i - 1, c) + 1) / c, i = 1 ..., weights taken in where mod(i, c) = 0."""
    before, c, cycles = 30, 10, 3
    steps, a1, a2 = before + c * cycles, 0.05, 0.0005
    start = before / steps
    trick = started(f"cyclic(start={start}, cycles={cycles}, rise=0.0, low={a2 / a1})", steps)
    found = [a1 * trick.lr(i / steps) for i in range(steps)]
    paper = [(1 - t) * a1 + t * a2 for t in (((i - 1) % c + 1) / c for i in range(1, c * cycles + 1))]
    assert found[:before] == [a1] * before
    assert found[before:] == pytest.approx(paper)
    assert paper[c - 1 :: c] == pytest.approx([a2] * cycles)
    average, taken = tricks.parse(f"swa(start={start}, cycles={cycles})").fresh(), []
    average.setup(nn.Linear(1, 1), None)
    for i in range(1, steps + 1):
        average.after_step(nn.Linear(1, 1), i / steps)
        taken.append(average.taken_)
    assert [i for i in range(1, steps) if taken[i] > taken[i - 1]] == [before + k * c - 1 for k in range(1, cycles + 1)]


@pytest.mark.parametrize(("cycles", "images", "epochs"), [(5, 50, 3), (9, 60, 3), (10, 90, 7)])
def test_cycles_begin_at_the_steps_that_are_due(cycles, images, epochs):
    """Shares as the loop counts them: some lie a rounding error before the moment that they stand for."""
    done = [divmod(images * epochs * k // cycles, images) for k in range(cycles)]
    shares = [(epoch + position / images) / epochs for epoch, position in done]
    assert any(t < k / cycles for k, t in enumerate(shares))
    assert [tricks.parse(f"sgdr(cycles={cycles}, mult=1.0)").lr(t) for t in shares] == pytest.approx([1.0] * cycles)
    steps = images * epochs
    falling = started(f"cyclic(cycles={cycles}, low=0.0, rise=0.0)", steps)
    assert [falling.lr(t) for t in shares] == pytest.approx([1 - cycles / steps] * cycles)
    assert [falling.lr(t - 1 / steps) for t in shares[1:]] == pytest.approx([0.0] * (cycles - 1), abs=1e-9)


def test_the_largest_restarts_stay_in_bounds():
    trick = tricks.parse("sgdr(cycles=100, mult=10.0)")
    assert all(0 <= trick.lr(i / 1000) <= 1 for i in range(1000))


def test_the_stable_part_begins_to_matter_where_it_ends():
    assert tricks.parse("warmup_stable_decay(decay=0.25)").begin() == 0.75
    assert tricks.parse("cyclic(start=0.75)").begin() == 0.75


def test_schedules_share_a_seat():
    names = ["poly", "exponential", "one_cycle", "cyclic", "sgdr", "warmup_stable_decay", "cosine"]
    for a, b in pairwise(names):
        with pytest.raises(UsageError, match="slot 'decay'"):
            ordered([tricks.parse(a), tricks.parse(b)])
    assert len(ordered([tricks.parse("warmup"), tricks.parse("warmup_stable_decay"), tricks.parse("grow_batch")])) == 3


DECAY = {"conv.weight", "conv2.weight", "classifier.weight"}


def assert_steps(optimizer, model, compute, write, rtol=1e-9):
    """Four steps of an optimiser beside a reference: ``write(name, weight, gradient, number)`` is the weight after a step."""
    names, twins = zip(*((n, p.detach().clone()) for n, p in model.named_parameters()), strict=True)
    for number in range(1, 5):
        compute()
        grads = [p.grad.clone() for p in model.parameters()]
        twins = [write(n, w, g, number) for n, w, g in zip(names, twins, grads, strict=True)]
        optimizer.step()
        for p, want in zip(model.parameters(), twins, strict=True):
            torch.testing.assert_close(p.detach(), want, rtol=rtol, atol=1e-10)


def grouped(model):
    """Parameters with a decay of 0.1 and without, as an optimiser is handed them."""
    groups = param_groups(model, ordered([tricks.parse("no_bias_decay"), tricks.parse("head_lr(times=3.0)")]), 0.1)
    return [{k: v for k, v in group.items() if k != "names"} for group in groups]


@pytest.mark.parametrize(("momentum", "alpha"), [(0.0, 0.9), (0.8, 0.7)])
def test_rmsprop_takes_the_steps_of_its_formula(step, momentum, alpha):
    model, compute = step
    optimizer = tricks.parse(f"rmsprop(alpha={alpha}, momentum={momentum}, eps=0.01)").optimizer(grouped(model), 0.05)
    v, u = defaultdict(float), defaultdict(float)

    def write(name, w, g, number):
        g = g + 0.1 * (name in DECAY) * w
        v[name] = alpha * v[name] + (1 - alpha) * g**2
        u[name] = momentum * u[name] + g / (v[name].sqrt() + 0.01)
        return w - 0.05 * u[name]

    assert_steps(optimizer, model, compute, write)


def test_lars_takes_the_steps_of_its_formula(step):
    model, compute = step
    nn.init.zeros_(model.classifier.weight)
    optimizer = tricks.parse("lars(momentum=0.8, trust=0.02)").optimizer(grouped(model), 0.5)
    v = defaultdict(float)

    def write(name, w, g, number):
        if name in DECAY:
            scaled = w.any() and g.any()
            g = (0.02 * w.norm() / (g.norm() + 0.1 * w.norm()) if scaled else 1) * (g + 0.1 * w)
        v[name] = 0.8 * v[name] + g
        return w - 0.5 * v[name]

    assert_steps(optimizer, model, compute, write, rtol=1e-6)  # timm adds 1e-8 to the denominator


def test_lamb_takes_the_steps_of_its_formula(step):
    model, compute = step
    optimizer = tricks.parse("lamb(beta1=0.8, beta2=0.9, eps=0.01)").optimizer(grouped(model), 0.05)
    m, v = defaultdict(float), defaultdict(float)

    def loud():  # so long a gradient that clipping it would show
        compute()
        for p in model.parameters():
            p.grad *= 100

    def write(name, w, g, number):
        m[name], v[name] = 0.8 * m[name] + 0.2 * g, 0.9 * v[name] + 0.1 * g**2
        r = m[name] / (1 - 0.8**number) / ((v[name] / (1 - 0.9**number)).sqrt() + 0.01)
        if name in DECAY:
            r = (r + 0.1 * w) * w.norm() / (r + 0.1 * w).norm()
        return w - 0.05 * r

    assert_steps(optimizer, model, loud, write)


@pytest.mark.parametrize("name", ["rmsprop", "lars", "lamb"])
def test_optimisers_heed_the_rate_of_each_group(name):
    """The loop writes lr * lr_scale into each group: with a scale of zero the head stays."""
    made = loop(recipe(name, "head_lr(times=1e-30)", lr=0.1))
    before = {n: p.detach().clone() for n, p in made.model.named_parameters()}
    next(made.train())
    moved = {n for n, p in made.model.named_parameters() if not torch.equal(p, before[n])}
    assert moved
    assert not moved & made.model.head_names


@pytest.mark.parametrize("name", ["lars", "lamb"])
def test_layerwise_optimisers_refuse_weights_that_do_not_decay(name):
    with pytest.raises(UsageError, match=f"{name} scales.*weight_decay above 0"):
        loop(recipe(name, weight_decay=0.0))


@pytest.mark.parametrize("ratio", [0.001, 0.1, 1e6])
def test_agc_agrees_with_the_paper_and_leaves_the_classifier(step, ratio):
    model, compute = step
    nn.init.constant_(model.conv2.weight[0].detach(), 1e-9)  # a unit whose length is below the floor
    loss = compute()
    bare = {n: p.grad.clone() for n, p in model.named_parameters()}
    expected = {}
    for name, p in model.named_parameters():
        units = tuple(range(1, p.ndim)) if p.ndim > 1 else (0,)
        lengths, weights = (x.detach().square().sum(units, keepdim=True).sqrt() for x in (bare[name], p))
        factor = (ratio * weights.clamp_min(1e-3) / lengths.clamp_min(1e-6)).clamp_max(1)
        expected[name] = bare[name] if name in model.head_names else bare[name] * factor
    assert torch.equal(tricks.parse(f"agc(ratio={ratio})").gradient(compute, model, 0.0)(), loss)
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad, expected[name], rtol=1e-12, atol=1e-15)
    assert any(not torch.equal(expected[n], bare[n]) for n in bare) == (ratio < 1)


def test_agc_agrees_with_timm(step):
    model, compute = step
    compute()
    below = [p for name, p in model.named_parameters() if name not in model.head_names]
    adaptive_clip_grad(below, clip_factor=0.02)
    expected = [p.grad.clone() for p in model.parameters()]
    tricks.parse("agc(ratio=0.02)").gradient(compute, model, 0.0)()
    assert all(torch.equal(p.grad, want) for p, want in zip(model.parameters(), expected, strict=True))


def test_gradient_centralisation_is_the_projection_of_the_paper(step):
    """Eq. 2: P g, P = I - e e^T, e the unit vector of equal entries, for the rows of the matrix that a weight unfolds to."""
    model, compute = step
    model.register_parameter("narrow", nn.Parameter(torch.ones(3, 1, 1, dtype=torch.float64)))

    def with_narrow():
        loss = compute()
        model.narrow.grad = torch.ones_like(model.narrow)
        return loss

    loss = with_narrow()
    expected = {}
    for name, p in model.named_parameters():
        rows = p.grad.flatten(1) if p.ndim > 1 else p.grad
        e = torch.full((rows.shape[-1], 1), rows.shape[-1] ** -0.5, dtype=torch.float64)
        projected = rows @ (torch.eye(len(e), dtype=torch.float64) - e @ e.T) if p.ndim > 1 and len(e) > 1 else rows
        expected[name] = projected.view_as(p)
    assert torch.equal(tricks.parse("gradient_centralisation").gradient(with_narrow, model, 0.0)(), loss)
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad, expected[name], rtol=1e-12, atol=1e-14)


def test_gradients_that_are_missing_stay_missing(step):
    model, compute = step
    model.conv.weight.requires_grad_(False)
    for spec in ("agc", "gradient_centralisation"):
        tricks.parse(spec).gradient(compute, model, 0.0)()
        assert model.conv.weight.grad is None


@pytest.mark.parametrize("spec", ["agc(ratio=None)", "gradual_unfreeze(until=0.0)", "gradual_unfreeze(until=0.5)"])
def test_neutral_gradients_are_left_alone(step, spec):
    model, compute = step
    trick = tricks.parse(spec).fresh()
    if "setup" in trick.plugs():
        trick.setup(model, None)
    assert trick.gradient(compute, model, 0.5) is compute


HEAD, UPPER, LOWER = ({n for n, d in Small.depths.items() if d == depth} for depth in (4, 3, 0))


@pytest.mark.parametrize("also", [[], ["sam"], ["freeze(until=0.25)"], ["agc", "gradient_centralisation"]])
@pytest.mark.parametrize(
    ("t", "learning", "moving"),
    [
        (0.1, HEAD, set()),
        (0.299, HEAD, set()),
        (0.3, HEAD | UPPER, {"bn2"}),
        (0.599, HEAD | UPPER, {"bn2"}),
        (0.6, HEAD | UPPER | LOWER, {"bn", "plain", "bn2"}),
    ],
)
def test_layers_join_in_from_the_top(step, also, t, learning, moving):
    model, compute = step
    unfreeze = tricks.parse("gradual_unfreeze(until=0.6)").fresh()
    unfreeze.setup(model, None)
    for trick in ordered([unfreeze, *map(tricks.parse, also)]):
        compute = trick.gradient(compute, model, t)
    before = {n: v.clone() for n, v in model.state_dict().items()}
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(3):
        compute()
        optimizer.step()
    moved = {n for n, v in model.state_dict().items() if not torch.equal(v, before[n])}
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    assert moved == learning | {f"{norm}.{name}" for norm in moving for name in statistics}
    assert all(module.training for module in model.modules())
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("name", ["cifar_resnet8", "vit_tiny_patch16_224"])
def test_every_layer_of_a_network_joins_in_at_its_moment(name):
    made = loop(recipe("gradual_unfreeze(until=0.5)", model=name, size=32, batch_size=4))
    (trick,), depths = made.tricks, made.model.depths
    layers = sorted(set(depths.values()))
    assert {n for n, moment in trick.moments_.items() if moment == 0} == set(made.model.head_names)
    for n, moment in trick.moments_.items():
        below = len(layers) - 1 - layers.index(depths[n])
        assert moment == pytest.approx(0.5 * below / (len(layers) - 1))


@pytest.mark.parametrize(
    ("spec", "points"),
    [
        ("grow_batch", {0: 32, 0.2499: 32, 0.25: 64, 0.5: 128, 0.99: 256}),
        ("grow_batch(at=0.5, factor=5)", {0.49: 32, 0.5: 160, 0.99: 160}),
        ("grow_batch(factor=1)", {0: 32, 0.9: 32}),
    ],
)
def test_batch_sizes_at_named_points(spec, points):
    trick = tricks.parse(spec)
    assert {t: trick.batch_size(t, 32) for t in points} == points


@pytest.mark.parametrize("at", ["(0.5, 0.5)", "(0.5, 0.2)", "(0.0,)", "(1.0,)", "()", "1.5", "'half'"])
def test_grow_batch_refuses_moments_that_do_not_rise(at):
    with pytest.raises(UsageError, match="at"):
        tricks.parse(f"grow_batch(at={at})")


def test_grown_batches_show_every_image_once_and_are_counted():
    """41 images in 4 epochs, batches of 5, of 15 in the second half and of 41 (45 were wanted) in the last epoch."""
    made = loop(recipe("grow_batch(at=(0.5, 0.75), factor=3)", epochs=4, batch_size=5))
    epochs = [[len(part.rows) for part in made.plan.epoch(epoch)] for epoch in range(4)]
    assert epochs == [[5] * 7 + [6]] * 2 + [[15, 15, 11], [41]]
    assert made.judge.facts.steps == 8 + 8 + 3 + 1
    for epoch in range(4):
        rows = torch.cat([part.rows for part in made.plan.epoch(epoch)])
        assert sorted(rows.tolist()) == list(range(41))
    assert len(next(made.loader.train(made.plan.epoch(3), 3))[1].x) == 41
