"""Losses, samplers and classifiers for unequal classes against formulas in float64, timm, torchvision and scikit-learn."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.special import expit, log_softmax, logsumexp
from sklearn.metrics import balanced_accuracy_score
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.neighbors import NearestCentroid
from timm.loss import BinaryCrossEntropy
from torch import nn
from torchvision.ops import sigmoid_focal_loss

from trickbag.engine.assemble import build_model
from trickbag.ground.errors import UsageError
from trickbag.ground.margins import margin_loss
from trickbag.ground.streams import generator
from trickbag.laboratory.lab import CLASSES, COUNTS, follow, loop, recipe, same, train
from trickbag.runs.outcome import finish
from trickbag.trick import Facts, Outputs
from trickbag.tricks import parse
from trickbag.tricks.focal import focal_loss
from trickbag.tricks.ldam import margins
from trickbag.tricks.lws import balanced_factors
from trickbag.tricks.ncm import directions, nearness
from trickbag.tricks.oversample import grown_order
from trickbag.tricks.progressive_sampling import progressive_order
from trickbag.tricks.sqrt_sampling import sqrt_order
from trickbag.tricks.tau_norm import GRID, macro_recall, normalised
from trickbag.tricks.undersample import shrunk_order

N = np.array([50, 12, 3, 1])
LOSSES = (
    "temperature(value=0.5)", "focal", "focal(gamma=0.5)", "bce", "poly1(eps=-0.5)", "ldam", "ldam(max_margin=0.2, scale=9.0)",
    "balanced_softmax", "logit_adjustment(tau=1.5)",
)  # fmt: skip


def ready(spelling, counts=N):
    """A trick that was set up on a network of as many classes as there are counts."""
    trick = parse(spelling)
    counts = torch.as_tensor(counts)
    facts = Facts(tuple(map(str, range(len(counts)))), counts, 10, 4, 16, 3, 0)
    if "setup" in trick.plugs():
        trick.setup(nn.Linear(2, len(counts)), SimpleNamespace(facts=facts))
    return trick


def loss_of(spelling, z, y, counts=N):
    """The loss [B] that a trick gives logits and targets in their own precision."""
    z, y = torch.as_tensor(z), torch.as_tensor(y)
    return ready(spelling, counts).loss(Outputs(z[:, :, None, None], z, z), y)


def margin_reference(z, y, largest, scale):
    """Cao et al., eq. 12 and 13, class by class."""
    delta = largest * (N.min() / N) ** 0.25
    each = [logsumexp(z - scale * delta[k] * np.eye(4)[k], axis=1) - (z[:, k] - scale * delta[k]) for k in range(4)]
    return (y * np.stack(each, 1)).sum(1)


REFERENCE = {
    "temperature(value=0.5)": lambda z, y: -(y * log_softmax(2 * z, 1)).sum(1),
    "focal": lambda z, y: -(y * (1 - np.exp(log_softmax(z, 1))) ** 2 * log_softmax(z, 1)).sum(1),
    "focal(gamma=0.5)": lambda z, y: -(y * np.sqrt(1 - np.exp(log_softmax(z, 1))) * log_softmax(z, 1)).sum(1),
    "bce": lambda z, y: -(y * np.log(expit(z)) + (1 - y) * np.log(1 - expit(z))).sum(1),
    "poly1(eps=-0.5)": lambda z, y: -(y * log_softmax(z, 1)).sum(1) - 0.5 * (y * (1 - np.exp(log_softmax(z, 1)))).sum(1),
    "ldam": lambda z, y: margin_reference(z, y, 0.5, 30.0),
    "ldam(max_margin=0.2, scale=9.0)": lambda z, y: margin_reference(z, y, 0.2, 9.0),
    "balanced_softmax": lambda z, y: -(y * np.log(N * np.exp(z) / (N * np.exp(z)).sum(1, keepdims=True))).sum(1),
    "logit_adjustment(tau=1.5)": lambda z, y: -(y * log_softmax(z + 1.5 * np.log(N / N.sum()), 1)).sum(1),
}


@pytest.fixture(scope="module")
def answers():
    """Logits of twelve images, and targets that are hard, smoothed and mixed."""
    rng = np.random.default_rng(1)
    hard = np.eye(4)[rng.integers(0, 4, 4)]
    return rng.normal(0, 3, (12, 4)), np.concatenate([hard, 0.9 * hard + 0.025, rng.dirichlet(np.ones(4), 4)])


@pytest.mark.parametrize("spelling", LOSSES)
def test_losses_are_their_formulas_on_hard_and_soft_rows(spelling, answers):
    np.testing.assert_allclose(loss_of(spelling, *answers), REFERENCE[spelling](*answers), rtol=2e-6, atol=1e-9)


@pytest.mark.parametrize("spelling", LOSSES)
def test_a_mixed_rows_loss_is_the_mix_of_its_classes_losses(spelling, answers):
    z, y = answers
    parts = np.stack([loss_of(spelling, z, np.broadcast_to(np.eye(4)[k], z.shape).copy()) for k in range(4)], 1)
    np.testing.assert_allclose(loss_of(spelling, z, y), (y * parts).sum(1), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("spelling", LOSSES)
def test_losses_and_gradients_stay_finite_at_extreme_logits_and_without_images_of_a_class(spelling):
    z = torch.tensor([[0.0, 0, 0, 0], [90, -90, 0, 0], [-90, 90, 90, 0], [30, 0, 0, 0], [0, 0, 0, 500]]).requires_grad_()
    for y in (torch.eye(4)[[0, 0, 0, 0, 3]], torch.eye(4)[[3, 3, 3, 3, 0]], torch.full((5, 4), 0.25)):
        for counts in (N, [7, 0, 0, 2], [0, 0, 0, 0]):
            loss = loss_of(spelling, z, y, counts)
            assert bool(loss.isfinite().all())
            assert bool(torch.autograd.grad(loss.sum(), z)[0].isfinite().all())


def test_focal_of_two_classes_is_torchvisions(answers):
    z = torch.from_numpy(answers[0][:, :2])
    y = torch.eye(2, dtype=z.dtype)[torch.arange(12) % 2]
    peer = sigmoid_focal_loss(z[:, 1] - z[:, 0], y[:, 1], alpha=-1, gamma=2)
    torch.testing.assert_close(focal_loss(z, y, 2.0), peer)


def test_bce_is_timms_summed_over_classes(answers):
    z, y = map(torch.from_numpy, answers)
    torch.testing.assert_close(loss_of("bce", z, y).mean(), BinaryCrossEntropy(smoothing=0, sum_classes=True)(z, y))


def test_balanced_softmax_is_logit_adjustment_at_one(answers):
    torch.testing.assert_close(loss_of("balanced_softmax", *answers), loss_of("logit_adjustment", *answers))


def test_a_class_without_images_counts_as_one_with_a_single_image(answers):
    for spelling in ("balanced_softmax", "logit_adjustment(tau=0.7)"):
        assert torch.equal(loss_of(spelling, *answers, [5, 0, 2, 9]), loss_of(spelling, *answers, [5, 1, 2, 9]))
    np.testing.assert_allclose(margins(torch.tensor([5, 0, 2, 9]), 0.5), [0.5 * (2 / 5) ** 0.25, 0, 0.5, 0.5 * (2 / 9) ** 0.25])


def test_ldam_is_exact_in_single_precision_where_the_class_is_nearly_certain():
    """At p = 1 - 1e-8 a margin of 15 still matters; the gradient is that of float64."""
    z = torch.tensor([[18.0, 0.0, -1.0], [0.0, 18.0, 18.0]], requires_grad=True)
    y, margin = torch.tensor([[1.0, 0, 0], [0, 1, 0]]), torch.tensor([15.0, 10.0, 5.0])
    wide = z.detach().double().requires_grad_()
    peer = nn.functional.cross_entropy(wide - margin * y, y.double(), reduction="none")
    loss = margin_loss(z, y, margin)
    torch.testing.assert_close(loss.double(), peer, rtol=1e-5, atol=0)
    torch.testing.assert_close(
        torch.autograd.grad(loss.sum(), z)[0].double(), torch.autograd.grad(peer.sum(), wide)[0], rtol=1e-5, atol=1e-7
    )


def test_ldam_judges_by_the_scaled_cosines_it_was_trained_with():
    trained = train("ldam(scale=20.0)")
    made = finish(trained.loop, trained.loop.recipe).model
    features = trained.loop.judge.outputs(made, "test")[0]
    cosine = cosine_similarity(features.double(), made.classifier.weight.detach().double())
    np.testing.assert_allclose(trained.logits, 20 * cosine, atol=1e-4)
    again = build_model(trained.loop.recipe, trained.loop.tricks, len(CLASSES), 3, 5, "none")
    again.load_state_dict(made.state_dict())
    assert torch.equal(trained.loop.judge.outputs(again, "test")[1], trained.logits)


def test_ldam_refuses_a_network_without_a_linear_classifier():
    for odd in (nn.Identity(), nn.Linear(4, 3, bias=False)):
        with pytest.raises(UsageError, match=rf"ldam replaces a linear layer with a bias.*{type(odd).__name__}"):
            parse("ldam").model(SimpleNamespace(classifier=odd))
    for other in ("crt", "lws", "tau_norm"):
        with pytest.raises(UsageError, match=r"linear layer with a bias.*CosineLinear"):
            loop(recipe("ldam", other))


def test_temperature_divides_the_judged_logits():
    trained = train("temperature(value=4.0)")
    bare = trained.loop.judge.outputs(finish(trained.loop, trained.loop.recipe).model, "test")[1]
    assert torch.equal(trained.logits, bare / 4)


# samplers

LABELS = torch.tensor([2] * 3 + [0] * 41 + [5] * 17 + [1] * 6)[torch.randperm(67, generator=generator(0, "labels"))]
"""Six classes, two of them without images."""
IMAGES = LABELS.bincount()


def sampled(sampler, epochs=400):
    """[epochs, K] how often each class was drawn; every order is checked to use up a class before it repeats an image."""
    drawn = []
    for epoch in range(epochs):
        rows = sampler(LABELS, generator(0, "sampler", epoch))
        times = rows.bincount(minlength=len(LABELS))
        for label in LABELS.unique():
            of = times[label == LABELS]
            assert int(of.max() - of.min()) <= 1
        drawn.append(LABELS[rows].bincount(minlength=len(IMAGES)))
    return torch.stack(drawn)


@pytest.mark.parametrize(
    ("sampler", "quota"),
    [
        (sqrt_order, 67 * IMAGES.sqrt() / IMAGES.sqrt().sum()),
        (lambda labels, rng: progressive_order(labels, 0.0, rng), IMAGES),
        (lambda labels, rng: progressive_order(labels, 0.3, rng), 67 * (0.7 * IMAGES / 67 + 0.3 * (IMAGES > 0) / 4)),
        (lambda labels, rng: progressive_order(labels, 1.0, rng), 67 * (IMAGES > 0) / 4),
        (grown_order, 41 * (IMAGES > 0)),
        (shrunk_order, 3 * (IMAGES > 0)),
    ],
    ids=["sqrt", "progressive at 0", "progressive at 0.3", "progressive at 1", "oversample", "undersample"],
)
def test_samplers_draw_each_class_by_its_quota(sampler, quota):
    """In every epoch within one draw, in the mean of 400 epochs within five standard errors of a uniform rounding."""
    drawn, quota = sampled(sampler), quota.double()
    assert bool(((drawn - quota).abs() < 1).all())
    assert drawn.sum(1).unique().tolist() == [round(float(quota.sum()))]
    np.testing.assert_allclose(drawn.double().mean(0), quota, atol=5 * 0.5 / 400**0.5)


def test_undersampling_shows_other_images_each_epoch_and_all_in_the_end():
    orders = [shrunk_order(LABELS, generator(0, "undersample", epoch)) for epoch in range(200)]
    assert len({tuple(order.sort().values.tolist()) for order in orders}) > 190
    assert torch.cat(orders).unique().tolist() == list(range(67))


@pytest.mark.parametrize("name", ["sqrt_sampling", "progressive_sampling", "oversample", "undersample"])
def test_epochs_that_grow_or_shrink_are_trained_to_their_end(name):
    """The steps that the plan foresees are the steps taken, and every image of each epoch's order is in one of them."""
    trained = train(name, batch_size=7, epochs=3)
    plan, facts = trained.loop.plan, trained.loop.judge.facts
    assert len(trained.losses) == facts.steps == plan.steps()
    each = {"oversample": 60, "undersample": 27}.get(name, 41)
    for epoch in range(3):
        parts = list(plan.epoch(epoch))
        assert sum(len(part.rows) for part in parts) == each
        assert parts[-1].after == (epoch + 1) / 3
    assert trained.loop.share == 1.0


def test_progressive_sampling_goes_from_images_to_classes_over_the_epochs():
    made = loop(recipe("progressive_sampling", epochs=5))
    n = np.array(COUNTS["train"])
    for epoch, share in enumerate((0, 0.25, 0.5, 0.75, 1, 1)):
        drawn = made.loader.labels[made.plan.rows(epoch)].bincount().numpy()
        assert (abs(drawn - ((1 - share) * n + share * 41 / 3)) < 1).all()


# after training


@pytest.fixture(scope="module")
def tail():
    """Features, far from 0 in one place, and labels of three overlapping classes of unequal size."""
    rng = np.random.default_rng(3)
    labels = np.repeat(np.arange(3), (120, 40, 12))
    centres = np.array([[0, 0, 0, 2], [1.5, 1.5, 0, 2], [1.5, -1, 1.5, 2]])
    return centres[labels] + rng.normal(0, 1, (len(labels), 4)), labels


def test_lws_step_by_step_is_sgd_with_momentum_on_balanced_draws(tail):
    """Against torch's own optimiser, autograd and schedule, on the same draws, within rounding of float64."""
    x, labels = tail
    z, targets = 6 * torch.from_numpy(x[:, :3]), torch.from_numpy(labels)
    scale = (z**2).mean().sqrt()
    factors = nn.Parameter(scale.expand(3).clone())
    optimizer = torch.optim.SGD([factors], lr=0.5, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 2 * 11)
    rng = generator(0, "lws")
    chances = 1 / torch.bincount(targets)[targets].double()
    for _ in range(2 * 11):
        rows = torch.multinomial(chances, 16, replacement=True, generator=rng)
        optimizer.zero_grad()
        nn.functional.cross_entropy(factors * z[rows] / scale, targets[rows]).backward()
        optimizer.step()
        schedule.step()
    found = balanced_factors(z, torch.eye(3, dtype=z.dtype)[targets], 2, 16, 0.5, generator(0, "lws"))
    torch.testing.assert_close(found, factors.detach() / scale, rtol=1e-9, atol=1e-9)
    assert float((found - 1).abs().max()) > 0.01


@pytest.mark.parametrize("size", [0.01, 1.0, 100.0])
def test_lws_lowers_the_class_balanced_loss_of_logits_of_any_size(tail, size):
    x, labels = tail
    z, targets = size * torch.from_numpy(x[:, :3]), torch.from_numpy(labels)
    y = torch.eye(3, dtype=z.dtype)[targets]
    factors = balanced_factors(z, y, 10, 16, 1.0, generator(0, "lws"))
    balance = 1 / torch.bincount(targets).double()
    before, after = (float(nn.functional.cross_entropy(z * f, targets, weight=balance)) for f in (1.0, factors))
    assert after < before - 0.01
    assert balanced_factors(0 * z, y, 1, 16, 1.0, generator(0, "lws")).isfinite().all()


def test_tau_norm_divides_by_the_length_to_the_power_tau():
    weight = np.random.default_rng(0).normal(0, 2, (5, 7))
    for tau in (0.0, 0.5, 1.0, 2.0):
        expected = weight / np.linalg.norm(weight, axis=1, keepdims=True) ** tau
        np.testing.assert_allclose(normalised(torch.from_numpy(weight), tau), expected, rtol=1e-12)
    lengths = normalised(torch.from_numpy(weight).float(), 1.0).norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones(5))
    assert normalised(torch.zeros(2, 3), 2.0).tolist() == [[0.0] * 3] * 2


def test_macro_recall_is_scikit_learns(tail):
    x, labels = tail
    z = torch.from_numpy(x[:, :3])
    never = torch.full((len(z), 1), -99.0)
    y = torch.eye(4)[labels]
    assert macro_recall(torch.cat([z, never], 1), y) == pytest.approx(balanced_accuracy_score(labels, z.argmax(1)), abs=1e-12)


def test_tau_norm_finds_the_power_between_two_classes():
    """4^(1 - tau) must be above 1.5 for images of one class and below 3 for those of the other: 0.3 is the first such tau."""
    head = nn.Linear(2, 2)
    nn.init.ones_(head.bias)
    head.weight.data = torch.tensor([[4.0, 0.0], [0.0, 1.0]])
    x, y = torch.tensor([[1.0, 1.5], [1.0, 1.5], [1.0, 3.0]]), torch.eye(2)[[0, 0, 1]]
    fit = SimpleNamespace(features={"val": (x, y)}.__getitem__)
    parse("tau_norm").finish(SimpleNamespace(classifier=head), fit, generator(0, "tau_norm"))
    torch.testing.assert_close(head.weight.data, torch.tensor([[4.0**0.7, 0.0], [0.0, 1.0]]))
    assert head.bias.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("spelling", ["tau_norm", "tau_norm(tau=0.7)"])
def test_tau_norm_takes_the_best_tau_on_validation_and_drops_the_biases(spelling):
    trained = train(spelling)
    judge, best = trained.loop.judge, trained.loop.best[""]["model"]
    before = {name.rpartition(".")[2]: value for name, value in best.items() if ".fc." in name}
    head = finish(trained.loop, trained.loop.recipe).model.classifier
    y, weight = judge.targets("val").argmax(1), before["weight"].double()
    trained.loop.model.load_state_dict(best)
    features = judge.outputs(trained.loop.model, "val")[0].double()

    def recall(tau):
        z = features @ (weight / weight.norm(dim=1, keepdim=True) ** tau).T
        return balanced_accuracy_score(y, z.argmax(1))

    tau = max(GRID, key=recall) if spelling == "tau_norm" else 0.7
    torch.testing.assert_close(head.weight.double(), weight / weight.norm(dim=1, keepdim=True) ** tau, rtol=1e-5, atol=1e-7)
    assert not head.bias.any()
    assert before["bias"].any()


@pytest.mark.parametrize("name", ["lws", "tau_norm(tau=0.7)"])
def test_what_follows_training_changes_the_classifier_alone_and_follows_the_seed(name):
    trained = follow(loop(recipe(name, epochs=1)))
    before = trained.loop.best[""]["model"]
    after, again = (finish(trained.loop, trained.loop.recipe).model for _ in range(2))
    changed = {key for key, value in after.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == set(after.head_names)
    assert same(after.state_dict(), again.state_dict())


@pytest.mark.parametrize("name", ["lws", "tau_norm"])
def test_what_follows_training_is_refused_before_it(name):
    with pytest.raises(UsageError, match=rf"{name} scales a linear layer with a bias.*Identity"):
        parse(name).setup(SimpleNamespace(classifier=nn.Identity()), None)


def test_ncm_is_scikit_learns_nearest_centroid(tail):
    """Of the cosines to its centroids, and of the Euclidean distances to these at length 1, as the paper has both."""
    x, labels = tail
    y = torch.eye(4, dtype=torch.float64)[labels]
    means = directions(torch.from_numpy(x), y).float()
    logits = nearness(torch.from_numpy(x), means)
    centroids = NearestCentroid().fit(x, labels).centroids_
    np.testing.assert_allclose(0.07 * logits[:, :3], cosine_similarity(x, centroids), atol=1e-6)
    unit = centroids / np.linalg.norm(centroids, axis=1, keepdims=True)
    peer = NearestCentroid().fit(np.concatenate([unit + 0.1, unit - 0.1]), [0, 1, 2, 0, 1, 2]).predict(x)
    assert (logits.argmax(1).numpy() == peer).all()
    assert bool((logits[:, 3] == -1 / torch.tensor(0.07)).all()), "a class without images"


def test_ncm_judges_by_the_features_of_the_training_images():
    trained = train("ncm")
    judge, model = trained.loop.judge, finish(trained.loop, trained.loop.recipe).model
    x, features = judge.outputs(model, "train")[0], judge.outputs(model, "test")[0]
    means = NearestCentroid().fit(x, trained.loop.loader.labels).centroids_
    np.testing.assert_allclose(0.07 * trained.logits, cosine_similarity(features, means), atol=1e-5)


def test_tricks_that_retrain_or_reclassify_exclude_each_other():
    for a, b in (
        ("lws", "tau_norm"),
        ("ldam", "focal"),
        ("balanced_softmax", "logit_adjustment"),
        ("oversample", "undersample"),
    ):
        with pytest.raises(UsageError, match="Choose one"):
            recipe(a, b)
