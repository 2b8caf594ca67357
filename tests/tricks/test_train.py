"""Schedules, optimisers, gradients and starting weights against formulas and independent implementations."""

import math

import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from torch import nn
from torch.nn.functional import cross_entropy
from torchvision.ops import FrozenBatchNorm2d

from trickbag import tricks
from trickbag.engine.loop import param_groups
from trickbag.ground.errors import UsageError
from trickbag.laboratory.lab import follow, loop, recipe
from trickbag.models.networks import build
from trickbag.trick import Facts, Outputs, Trick, ordered


class Small(nn.Module):
    """Convolution, norm and classifier, as tricks see a network."""

    shape = (3, 8, 8)
    depths = {"conv.weight": 0, "norm.weight": 1, "norm.bias": 1, "classifier.weight": 2, "classifier.bias": 2}
    layers = depths
    head_names = frozenset({"classifier.weight", "classifier.bias"})

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)
        self.classifier = nn.Linear(4, 3)

    def forward(self, x):
        maps = self.norm(self.conv(x)).relu()
        features = maps.mean((2, 3))
        return Outputs(maps, features, self.classifier(features))


class Wrapped(nn.Module):
    """A timm network as tricks see it."""

    def __init__(self, net, pretrained=False, size=64):
        super().__init__()
        self.net, self.pretrained, self.shape = net, pretrained, (3, size, size)

    def forward(self, x):
        return self.net(x)


class SomeFit:
    def __init__(self, steps=100, batch_size=32):
        self.facts = Facts(("a", "b"), torch.tensor([5, 5]), steps, batch_size, 8, 3, 0)


def started(spec: str, **facts) -> Trick:
    trick = tricks.parse(spec).fresh()
    if "setup" in trick.plugs():
        trick.setup(None, SomeFit(**facts))
    return trick


def make_compute(model, x, y):
    def compute():
        for p in model.parameters():
            p.grad = None
        loss = cross_entropy(model(x).logits, y)
        loss.backward()
        return loss.detach()

    return compute


@pytest.fixture
def step():
    """A network and how to compute the gradient of one batch, in float64."""
    model = Small().double()
    x = torch.randn(6, 3, 5, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return model, make_compute(model, x, torch.tensor([0, 1, 2, 0, 1, 2]))


@pytest.mark.parametrize(
    ("spec", "points"),
    [
        ("cosine", {0: 1, 1 / 3: 0.75, 0.5: 0.5, 2 / 3: 0.25, 1: 0}),
        ("cosine(final=0.2)", {0: 1, 0.5: 0.6, 1: 0.2}),
        ("cosine(final=1.0)", {0.3: 1, 0.9: 1}),
        ("linear", {0: 1, 0.25: 0.75, 1: 0}),
        ("linear(final=0.5)", {0: 1, 0.5: 0.75, 1: 0.5}),
        ("linear(final=1.0)", {0.3: 1, 0.9: 1}),
        ("step_decay", {0: 1, 0.2499: 1, 0.25: 0.1, 0.5: 0.01, 0.7499: 0.01, 0.99: 0.001}),
        ("step_decay(at=(0.375, 0.75))", {14.99 / 40: 1, 15 / 40: 0.1, 29.99 / 40: 0.1, 30 / 40: 0.01}),
        ("step_decay(factor=1.0)", {0: 1, 0.9: 1}),
        ("warmup", {0: 0.2, 0.01: 0.4, 0.04: 1, 0.05: 1, 0.9: 1}),
        ("warmup(share=0.0)", {0: 1, 0.5: 1}),
        ("warmup(share=0.004)", {0: 1, 0.5: 1}),
        ("warmup(share=1.0)", {0: 0.01, 0.5: 0.51, 0.99: 1}),
        ("linear_scaling", {0: 0.125, 0.9: 0.125}),
        ("linear_scaling(base_batch=8)", {0: 4}),
    ],
)
def test_learning_rates_at_named_points(spec, points):
    trick = started(spec)
    assert {t: trick.lr(t) for t in points} == pytest.approx(points, abs=1e-12)


def test_moments_of_step_decay_are_exact_at_epochs():
    trick = tricks.parse("step_decay(at=(0.1, 0.3, 0.7))")
    for moment, drops in ((3, 1), (9, 2), (21, 3)):
        t = moment * 53 / (30 * 53)
        assert trick.lr(t) == pytest.approx(0.1**drops)
        assert trick.lr(math.nextafter(t, 0)) == pytest.approx(0.1 ** (drops - 1))


@pytest.mark.parametrize("at", ["(0.5, 0.5)", "(0.5, 0.2)", "(0.0,)", "(1.0,)", "()"])
def test_step_decay_refuses_moments_that_do_not_rise(at):
    with pytest.raises(UsageError, match="at"):
        tricks.parse(f"step_decay(at={at})")


@pytest.mark.parametrize(("name", "reference"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)])
def test_optimisers_take_the_steps_of_torch_with_their_fields(step, name, reference):
    model, compute = step
    twin = Small().double()
    groups = [{"params": list(model.parameters()), "weight_decay": 0.1, "lr_scale": 1.0}]
    ours = tricks.parse(f"{name}(beta1=0.8, beta2=0.9, eps=0.01)").optimizer(groups, 0.05)
    theirs = reference(twin.parameters(), lr=0.05, betas=(0.8, 0.9), eps=0.01, weight_decay=0.1, foreach=False)
    for _ in range(3):
        compute()
        for p, q in zip(model.parameters(), twin.parameters(), strict=True):
            q.grad = p.grad.clone()
        ours.step()
        theirs.step()
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-10, atol=1e-12)
    assert ours.param_groups[0]["lr_scale"] == 1.0


@pytest.mark.parametrize("spec", ["adam(eps=0.01)", "adamw(eps=0.01)", ""])
def test_fused_steps_go_by_the_layout_of_convolutions(spec):
    """Channels last and not, some layers frozen at first: the steps of torch's plain loops.

    With so large an eps, a gradient of rounding alone is no step.
    """
    for layout in (False, True):
        made = recipe(*filter(None, [spec]), "gradual_unfreeze", lr=0.01, channels_last=layout)
        fused, plain = loop(made), loop(made)
        for group in plain.optimizer.param_groups:
            group["fused"] = group["foreach"] = False
        torch.testing.assert_close(follow(fused).losses, follow(plain).losses, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(fused.model.state_dict(), plain.model.state_dict(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv2_050", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_no_bias_decay_agrees_with_timm(name):
    with torch.device("meta"):
        net = timm.create_model(name, num_classes=3)
    groups = param_groups(net, [tricks.parse("no_bias_decay")], 0.1)
    found = {n: group["weight_decay"] for group in groups for n in group["names"]}
    names = {id(p): n for n, p in net.named_parameters()}
    kept_out = net.no_weight_decay() if hasattr(net, "no_weight_decay") else ()
    theirs = param_groups_weight_decay(net, 0.1, no_weight_decay_list=kept_out)
    expected = {names[id(p)]: group["weight_decay"] for group in theirs for p in group["params"]}
    # timm decays the table of swin's relative positions where the list, of names without depth, does not catch it.
    tables = {n: 0.0 for n in expected if n.endswith("relative_position_bias_table")}
    assert found == expected | tables
    assert sum(len(group["params"]) for group in groups) == len(list(net.parameters()))


def test_layer_decay_agrees_with_timm():
    net = timm.create_model("vit_tiny_patch16_224", num_classes=3, depth=4, embed_dim=12)
    theirs = param_groups_layer_decay(net, 0.1, layer_decay=0.6, no_weight_decay_list=net.no_weight_decay())
    names = {id(p): n for n, p in net.named_parameters()}
    expected = {names[id(p)]: (group["lr_scale"], group["weight_decay"]) for group in theirs for p in group["params"]}
    net.layers = timm.models.group_parameters(net, net.group_matcher(coarse=False), reverse=True)
    groups = param_groups(net, ordered([tricks.parse("layer_decay(rate=0.6)"), tricks.parse("no_bias_decay")]), 0.1)
    found = {n: (group["lr_scale"], group["weight_decay"]) for group in groups for n in group["names"]}
    assert found == expected


@pytest.mark.parametrize("name", ["convnext_atto", "resnet10t", "efficientnet_lite0", "swin_tiny_patch4_window7_224"])
def test_layer_decay_agrees_with_timm_on_networks_as_they_are_built(name):
    """Some have a norm between the last block and the classifier, which timm counts to the classifier's layer."""
    net = build(name, 3, size=64)
    theirs = param_groups_layer_decay(net.net, layer_decay=0.6)
    names = {id(p): n for n, p in net.named_parameters()}
    expected = {names[id(p)]: group["lr_scale"] for group in theirs for p in group["params"]}
    groups = param_groups(net, [tricks.parse("layer_decay(rate=0.6)")], 0.1)
    assert {n: group["lr_scale"] for group in groups for n in group["names"]} == expected


def test_head_and_layer_rates_multiply_and_each_parameter_has_one_group():
    specs = ["head_lr(times=4.0)", "layer_decay(rate=0.5)", "no_bias_decay"]
    groups = param_groups(Small(), ordered([tricks.parse(s) for s in specs]), 0.1)
    found = sorted((n, g["lr_scale"], g["weight_decay"]) for g in groups for n in g["names"])
    assert found == [
        ("classifier.bias", 4.0, 0.0),
        ("classifier.weight", 4.0, 0.1),
        ("conv.weight", 0.25, 0.1),
        ("norm.bias", 0.5, 0.0),
        ("norm.weight", 0.5, 0.0),
    ]


def test_sam_takes_the_gradient_of_the_papers_second_point(step):
    model, compute = step
    rho = 0.7
    twin = Small().double()
    twin.load_state_dict(model.state_dict())
    loss = compute()
    theta = nn.utils.parameters_to_vector(model.parameters()).detach()
    g = torch.cat([p.grad.flatten() for p in model.parameters()])
    statistics = {n: b.clone() for n, b in model.named_buffers()}
    nn.utils.vector_to_parameters(theta + rho * g / g.norm(), model.parameters())
    compute()
    expected = [p.grad.clone() for p in model.parameters()]

    x = torch.randn(6, 3, 5, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ours = make_compute(twin, x, torch.tensor([0, 1, 2, 0, 1, 2]))
    found = tricks.parse(f"sam(rho={rho})").gradient(ours, twin, 0.0)()
    for p, want in zip(twin.parameters(), expected, strict=True):
        torch.testing.assert_close(p.grad, want, rtol=1e-12, atol=1e-14)
    assert torch.equal(nn.utils.parameters_to_vector(twin.parameters()), theta)
    assert torch.equal(found, loss)
    for name, buffer in twin.named_buffers():
        assert torch.equal(buffer, statistics[name]), name


def test_sam_stands_a_gradient_of_zero_and_missing_ones():
    model = nn.ModuleList([nn.Linear(2, 1), nn.Linear(2, 1)])

    def compute():
        loss = 0 * model[0](torch.ones(1, 2)).sum()
        loss.backward()
        return loss.detach()

    tricks.parse("sam").gradient(compute, model, 0.0)()
    assert not model[0].weight.grad.any()
    assert model[1].weight.grad is None


@pytest.mark.parametrize(("norm", "length"), [(0.01, 0.01), (1e6, None)])
def test_clipping_bounds_the_norm_over_all_parameters(step, norm, length):
    model, compute = step
    loss = compute()
    bare = torch.cat([p.grad.flatten() for p in model.parameters()])
    assert torch.equal(tricks.parse(f"clip_gradient(norm={norm})").gradient(compute, model, 0.0)(), loss)
    clipped = torch.cat([p.grad.flatten() for p in model.parameters()])
    torch.testing.assert_close(clipped, bare if length is None else bare * length / bare.norm(), rtol=1e-3, atol=0)


@pytest.mark.parametrize("spec", ["sam(rho=0.0)", "clip_gradient(norm=None)", "freeze(until=0.0)", "freeze_norms(until=0.0)"])
def test_neutral_gradients_are_left_alone(step, spec):
    model, compute = step
    assert tricks.parse(spec).gradient(compute, model, 0.0) is compute


@pytest.mark.parametrize("spec", ["clip_gradient(norm=0.0)", "clip_gradient(norm=1e999)", "sam(rho=-1)", "adam(beta1=1.0)"])
def test_values_out_of_bounds_are_refused(spec):
    with pytest.raises(UsageError, match=r"norm|rho|beta1"):
        tricks.parse(spec)


@pytest.mark.parametrize(
    ("spec", "learns"),
    [
        ("freeze(until=0.5)", {"classifier.weight", "classifier.bias"}),
        ("freeze_norms(until=0.5)", {"conv.weight", "classifier.weight", "classifier.bias"}),
    ],
)
@pytest.mark.parametrize("also", [[], ["sam"]])
def test_what_is_frozen_does_not_move_and_all_else_does(step, spec, learns, also):
    model, compute = step
    model.train()
    before = {n: v.clone() for n, v in model.state_dict().items()}
    for trick in ordered([tricks.parse(s) for s in [spec, *also]]):
        compute = trick.gradient(compute, model, 0.49)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(3):
        compute()
        optimizer.step()
    assert {n for n, v in model.state_dict().items() if not torch.equal(v, before[n])} == learns
    assert model.norm.training
    assert all(p.requires_grad for p in model.parameters())


def test_a_thawed_network_learns_as_a_whole(step):
    model, compute = step
    thawed = tricks.parse("freeze(until=0.5)").gradient(compute, model, 0.5)
    thawed()
    assert all(p.grad is not None for p in model.parameters())


def test_a_frozen_norm_computes_what_torchvisions_does():
    """In a network whose norms have met images, as pretrained ones have."""
    model, other = Small().double(), Small().double()
    x, y = torch.randn(6, 3, 5, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64), torch.tensor([0, 1, 2] * 2)
    model(3 * x + 1)
    other.norm = FrozenBatchNorm2d(4, eps=model.norm.eps).double()
    other.load_state_dict({n: v for n, v in model.state_dict().items() if n != "norm.num_batches_tracked"})
    loss = tricks.parse("freeze_norms").gradient(make_compute(model, x, y), model, 0.9)()
    torch.testing.assert_close(loss, make_compute(other, x, y)(), rtol=1e-12, atol=0)
    for name, parameter in other.named_parameters():
        torch.testing.assert_close(model.get_parameter(name).grad, parameter.grad, rtol=1e-10, atol=1e-14)
    assert model.norm.weight.grad is None


def test_freeze_norms_is_refused_where_there_are_none():
    with pytest.raises(UsageError, match="this network trains none"):
        loop(recipe("freeze_norms", model="vit_tiny_patch16_224", size=32))


@pytest.mark.parametrize("name", ["zero_gamma", "ghost_norm", "norm_tuning"])
def test_what_acts_on_norms_is_refused_beside_frozen_ones(name):
    with pytest.raises(UsageError, match=f"^freeze_norms holds still what {name} acts on. Choose one."):
        recipe("freeze_norms", name)


class Block(nn.Module):
    """A hand-made residual block, as in He et al. 2016."""

    def __init__(self):
        super().__init__()
        self.shortcut = nn.Identity()
        self.conv, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, x):
        return self.shortcut(x) + self.norm(self.conv(x))


def test_zero_gamma_makes_blocks_the_identity():
    net = timm.create_model("resnet18", zero_init_last=False)
    x = torch.rand(2, 64, 7, 7)  # not negative: the ReLU behind the sum lets it through
    assert not torch.equal(net.layer1[0](x), x)
    tricks.parse("zero_gamma").model(Wrapped(net))
    assert torch.equal(net.layer1[0](x), x)
    torch.testing.assert_close(net.layer2[0](x), net.layer2[0].downsample(x).relu())
    assert not (net.layer1[0].bn1.weight == 0).any()
    own = nn.Sequential(nn.Conv2d(3, 4, 1), Block())
    tricks.parse("zero_gamma").model(Wrapped(own))
    assert torch.equal(own[1](x[:, :4]), x[:, :4])


@pytest.mark.parametrize(
    "name", ["resnet50", "resnext50_32x4d", "regnetx_002", "seresnet18", "resnest14d", "res2net50_26w_4s", "skresnet18"]
)
def test_zero_gamma_finds_the_norms_that_timm_zeroes(name):
    with torch.random.fork_rng():
        net = timm.create_model(name, zero_init_last=False)
        reference = timm.create_model(name, zero_init_last=True)
    tricks.parse("zero_gamma").model(Wrapped(net))
    zeroed, wanted = (
        {n for n, p in m.named_parameters() if p.ndim == 1 and n.endswith("weight") and not p.any()} for m in (net, reference)
    )
    assert zeroed == wanted
    assert zeroed


def test_zero_gamma_leaves_blocks_without_a_skip():
    net = timm.create_model("mobilenetv2_050")
    tricks.parse("zero_gamma").model(Wrapped(net))
    blocks = [m for m in net.modules() if hasattr(m, "has_skip")]
    assert {block.has_skip for block in blocks} == {True, False}
    for block in blocks:
        last = block.bn3 if hasattr(block, "bn3") else block.bn2
        assert block.has_skip == (not last.weight.any())


@pytest.mark.parametrize(
    ("model", "message"),
    [(Small(), "no residual block"), (Wrapped(timm.create_model("resnet10t"), pretrained=True), "pretrained")],
)
def test_zero_gamma_refuses(model, message):
    with pytest.raises(UsageError, match=message):
        tricks.parse("zero_gamma").model(model)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vit_tiny_patch16_224", {"img_size": 64}),
        ("convnext_atto", {}),
        ("resnetv2_18", {}),
        ("ghostnet_050", {}),
        ("pvt_v2_b0", {}),
        ("vgg11_bn", {}),
        ("csatv2", {}),  # whose layer norms of one channel say their bias
    ],
)
def test_zero_gamma_refuses_blocks_that_end_otherwise(name, options):
    with pytest.raises(UsageError, match="no residual block"):
        tricks.parse("zero_gamma").model(Wrapped(timm.create_model(name, **options), size=64))


@pytest.mark.parametrize(
    "name", ["dla46_c", "pvt_v2_b0", "tiny_vit_5m_224", "swinv2_cr_tiny_ns_224", "gcvit_xxtiny", "ghostnet_050", "levit_128s"]
)
def test_zero_gamma_leaves_a_network_alive_or_refuses_it(name):
    """Of these it once zeroed norms that end no residual branch, so that all images had the same features."""
    net, why = build(name, 3, size=64), ""
    try:
        tricks.parse("zero_gamma").model(net)
    except UsageError as refusal:
        why = str(refusal)
    assert not why or why.endswith("."), why
    outputs = net(torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    outputs.logits.square().sum().backward()
    assert (outputs.features.detach().std(0) > 0).any()
    assert next(net.parameters()).grad.any()


@pytest.mark.parametrize(("name", "size", "branches"), [("levit_128s", 64, 18), ("mobilenetv2_050", 32, 10), ("dla34", 32, 12)])
def test_zero_gamma_finds_every_branch_that_ends_with_a_norm(name, size, branches):
    net = build(name, 3, size=size)
    tricks.parse("zero_gamma").model(net)
    assert sum(not p.any() for n, p in net.named_parameters() if n.endswith("weight") and p.ndim == 1) == branches


class Gated(nn.Module):
    """A branch whose norm is followed by a gate, and a norm that stands before a layer."""

    def __init__(self, ends_with_norm):
        super().__init__()
        self.first, self.second, self.gate = nn.BatchNorm2d(4), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)
        self.conv, self.ends_with_norm = nn.Conv2d(4, 4, 3, padding=1, bias=False), ends_with_norm

    def forward(self, x):
        branch = self.second(self.conv(self.first(x))) if self.ends_with_norm else self.conv(self.second(self.first(x)))
        return x + branch * self.gate(branch.mean((2, 3), keepdim=True)).sigmoid()


def test_zero_gamma_tells_a_norm_that_ends_a_branch_from_one_before_a_layer():
    """Both make the block the identity at a scale of zero: the second only as long as its layer has no bias."""
    ends, before = (nn.Sequential(nn.Conv2d(3, 4, 1), Gated(kind)) for kind in (True, False))
    tricks.parse("zero_gamma").model(Wrapped(ends))
    assert [bool(norm.weight.any()) for norm in (ends[1].first, ends[1].second)] == [True, False]
    with pytest.raises(UsageError, match="no residual block"):
        tricks.parse("zero_gamma").model(Wrapped(before))


def test_zero_gamma_refuses_a_network_that_starts_so_by_itself():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), Block())
    nn.init.zeros_(net[1].norm.weight)
    with pytest.raises(UsageError, match="start as the identity by themselves"):
        tricks.parse("zero_gamma").model(Wrapped(net))
