"""Tricks for unequal classes against formulas in float64 and against scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from trickbag.ground.errors import UsageError
from trickbag.laboratory.lab import follow, loop, recipe, same
from trickbag.runs.outcome import finish
from trickbag.tricks import parse
from trickbag.tricks.crt import balanced_head
from trickbag.tricks.drw import effective_weights

COUNTS = (120, 40, 12)


@pytest.fixture(scope="module")
def tail():
    """Features and labels of three classes of unequal size that overlap, far from 0 and of unlike scales."""
    rng = np.random.default_rng(3)
    labels = np.repeat(np.arange(3), COUNTS)
    centres = np.array([[0, 0, 0, 0], [0.8, 0.8, 0, 0], [0.8, -0.5, 0.8, 0]])
    x = 7 + (centres[labels] + rng.normal(0, 1, (len(labels), 4))) * [3.0, 2.0, 1.0, 4.0]
    return x, labels


def retrained(x, labels, **changes):
    """The weights and biases that crt finds in float64."""
    options = {"epochs": 10, "batch_size": 32, "rate": 1.0, "decay": 1e-3} | changes
    rng = options.pop("rng", None) or torch.Generator().manual_seed(5)
    return balanced_head(torch.from_numpy(x), torch.eye(3, dtype=torch.float64)[labels], **options, rng=rng)


def test_crt_finds_the_class_balanced_logistic_regression(tail):
    """scikit-learn's weighs whole classes where crt draws images: probabilities agree within 0.02, the NLL within 0.1 %."""
    x, labels = tail
    centred = x - x.mean(0)
    scaled = centred / np.sqrt((centred**2).sum(1).mean())
    decay = 1e-3
    peer = LogisticRegression(class_weight="balanced", C=1 / (decay * len(x)), tol=1e-10, max_iter=10_000).fit(scaled, labels)
    weight, bias = retrained(x, labels, epochs=1500, batch_size=172, rate=0.2, decay=decay)
    ours = (torch.from_numpy(x) @ weight.T + bias).softmax(1).numpy()
    assert np.abs(ours - peer.predict_proba(scaled)).max() < 0.02
    balance = len(x) / (3 * np.bincount(labels))[labels]

    def nll(p):
        return float((balance * -np.log(p[np.arange(len(x)), labels])).mean())

    assert nll(ours) == pytest.approx(nll(peer.predict_proba(scaled)), rel=1e-3)


def test_crt_step_by_step_is_sgd_with_momentum_on_balanced_draws(tail):
    """Against torch's own optimiser, autograd and schedule, on the same draws, within rounding of float64."""
    x, labels = tail
    epochs, batch_size, rate, decay = 2, 16, 0.5, 0.01
    inputs = torch.from_numpy(x)
    centred = inputs - inputs.mean(0)
    scale = (centred**2).sum(1).mean().sqrt()
    head = nn.Linear(4, 3, dtype=torch.float64)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    groups = [{"params": [head.weight], "weight_decay": decay}, {"params": [head.bias]}]
    optimizer = torch.optim.SGD(groups, lr=rate, momentum=0.9)
    steps = epochs * -(-len(x) // batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    rng = torch.Generator().manual_seed(5)
    chances = torch.tensor([1 / COUNTS[label] for label in labels], dtype=torch.float64)
    for _ in range(steps):
        rows = torch.multinomial(chances, batch_size, replacement=True, generator=rng)
        optimizer.zero_grad()
        nn.functional.cross_entropy(head(centred[rows] / scale), torch.from_numpy(labels)[rows]).backward()
        optimizer.step()
        schedule.step()
    weight, bias = retrained(x, labels, epochs=epochs, batch_size=batch_size, rate=rate, decay=decay)
    torch.testing.assert_close(inputs @ weight.T + bias, head(centred / scale).detach(), rtol=1e-9, atol=1e-9)


def test_crt_raises_the_recall_of_the_rarest_class(tail):
    x, labels = tail
    plain = LogisticRegression(max_iter=10_000).fit(x, labels)
    weight, bias = retrained(x, labels)
    guess = (torch.from_numpy(x) @ weight.T + bias).argmax(1).numpy()
    rare = labels == 2
    assert (guess[rare] == 2).mean() > (plain.predict(x)[rare] == 2).mean() + 0.1


def test_crt_takes_features_of_any_length_and_constant_ones(tail):
    """Multiplying all features changes no logit; features that are all the same leave the logits finite."""
    x, labels = tail
    (small, offset), (large, shift) = retrained(x, labels), retrained(x * 1024, labels)
    z = torch.from_numpy(x)
    torch.testing.assert_close(z @ small.T + offset, 1024 * z @ large.T + shift)
    weight, bias = retrained(np.ones_like(x), labels)
    assert bool((torch.ones(1, 4, dtype=torch.float64) @ weight.T + bias).isfinite().all())


def test_crt_changes_the_classifier_alone_and_follows_the_seed():
    trained = follow(loop(recipe(parse("crt"), epochs=1)))
    before = trained.loop.best[""]["model"]
    after, again = (finish(trained.loop, trained.loop.recipe).model for _ in range(2))
    changed = {name for name, value in after.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == set(after.head_names)
    assert same(after.state_dict(), again.state_dict())


def test_crt_refuses_a_network_without_a_linear_classifier_before_training():
    class Odd(nn.Module):
        classifier = nn.Identity()

    with pytest.raises(UsageError, match=r"crt retrains a linear layer.*Identity"):
        parse("crt").setup(Odd(), None)


def test_effective_weights_are_the_papers():
    """Cui et al., eq. 2, summed as the series 1 + beta + ... + beta^(n - 1) in place of its closed form."""
    counts, beta = [500, 60, 7, 1], 0.99
    numbers = np.array([sum(beta**i for i in range(n)) for n in counts])
    expected = 1 / numbers
    expected *= sum(counts) / (expected @ counts)
    got = effective_weights(torch.tensor(counts), beta).numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-12)
    assert effective_weights(torch.tensor([3, 0]), 0.9999).tolist() == [1.0, 0.0]
    np.testing.assert_allclose(effective_weights(torch.tensor(counts), 0.0).numpy(), 1.0, rtol=1e-12)


def test_drw_weighs_from_its_start_on_and_mixed_rows_by_their_parts():
    made = loop(recipe(parse("drw(start=0.5, beta=0.9)")))
    trick = made.tricks[0]
    y = torch.tensor([[1.0, 0, 0], [0, 0, 1.0], [0.25, 0, 0.75]])
    assert trick.weights(y, 0.4999).tolist() == [1.0, 1.0, 1.0]
    w = effective_weights(made.judge.facts.counts, 0.9)
    expected = [w[0], w[2], w[0] / 4 + 3 * w[2] / 4]
    np.testing.assert_allclose(trick.weights(y, 0.5), expected, rtol=1e-6)
    images = w[made.loader.labels]
    assert float(images.mean()) == pytest.approx(1.0)
