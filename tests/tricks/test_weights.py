"""Averages, teachers and fitted heads against independent implementations."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from trickbag import tricks
from trickbag.ground.errors import UsageError
from trickbag.trick import Batch, Outputs


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.classifier = nn.BatchNorm1d(3), nn.Linear(3, 2)

    def forward(self, x):
        return self.classifier(self.norm(x))


def walk(model, step: int) -> None:
    """Move weights and norm statistics somewhere else."""
    rng = torch.Generator().manual_seed(step)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=rng, dtype=p.dtype))
        model.norm.running_mean.fill_(step)


def averaged(spec: str, steps: int, watch=lambda model, t: None):
    """A trick that has watched a walk of some steps, and the network that walked."""
    trick, model = tricks.parse(spec).fresh(), Normed().double()
    trick.setup(model, None)
    for step in range(1, steps + 1):
        walk(model, step)
        live = [p.clone() for p in model.parameters()]
        trick.after_step(model, step / steps)
        assert all(torch.equal(p, q) for p, q in zip(model.parameters(), live, strict=True))
        watch(model, step / steps)
    return trick, model


def assert_same_weights(a, b):
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("steps", [1, 60, 600])
def test_ema_is_that_of_torch_debiased(steps):
    keep = 0.5 ** (1 / (0.02 * steps))
    zeros = Normed().double()
    for p in zeros.parameters():
        nn.init.zeros_(p)
    reference = AveragedModel(zeros, multi_avg_fn=get_ema_multi_avg_fn(keep))
    reference.update_parameters(zeros)  # torch copies the first: from here on it is the plain recursion from zero
    trick, model = averaged("ema(half_life=0.02)", steps, lambda model, t: reference.update_parameters(model))
    with torch.no_grad():
        for p in reference.module.parameters():
            p.div_(1 - keep**steps)
    judged = trick.eval_model(model)
    assert_same_weights(judged, reference.module)
    assert judged is not model


def test_ema_forgets_by_half_in_a_half_life_whatever_the_number_of_steps():
    for steps in (100, 1000):
        trick, model = tricks.parse("ema(half_life=0.2)").fresh(), Normed()
        with torch.no_grad():
            model.classifier.bias.fill_(1.0)
            trick.setup(model, None)
            for step in range(1, steps + 1):
                if step > 0.8 * steps:
                    model.classifier.bias.fill_(0.0)
                trick.after_step(model, step / steps)
        # Four half-lives of ones, then one of zeros: (1/2 - 1/32) of a mass of (1 - 1/32).
        assert float(trick.eval_model(model).classifier.bias[0]) == pytest.approx((1 / 2 - 1 / 32) / (1 - 1 / 32), abs=1e-5)


def test_swa_is_that_of_torch_over_its_moments():
    reference = AveragedModel(Normed().double())
    moments = {0.8, 0.85, 0.9, 0.95, 1.0}
    trick, model = averaged(
        "swa(cycles=5)", 60, lambda model, t: reference.update_parameters(model) if round(t, 6) in moments else None
    )
    assert int(reference.n_averaged) == 5
    assert_same_weights(trick.eval_model(model), reference.module)


def test_swa_counts_moments_that_one_step_passes():
    weights = []
    trick, model = averaged(
        "swa(start=0.0, cycles=5)",
        2,
        lambda model, t: weights.append(nn.utils.parameters_to_vector(model.parameters()).detach()),
    )
    found = nn.utils.parameters_to_vector(trick.eval_model(model).parameters())
    torch.testing.assert_close(found, (2 * weights[0] + 3 * weights[1]) / 5)


@pytest.mark.parametrize("spec", ["ema", "swa"])
def test_averages_hold_the_live_statistics_and_want_no_gradient(spec):
    trick, model = averaged(spec, 60)
    judged = trick.eval_model(model)
    assert torch.equal(judged.norm.running_mean, model.norm.running_mean)
    assert judged.norm.running_mean is not model.norm.running_mean
    assert not any(p.requires_grad for p in judged.parameters())
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize(("spec", "t"), [("ema(half_life=0.0)", 1.0), ("swa(start=1.0)", 1.0), ("swa", 0.77), ("ema", None)])
def test_the_live_network_is_judged_where_there_is_no_average(spec, t):
    trick, model = tricks.parse(spec).fresh(), Normed()
    trick.setup(model, None)
    if t is not None:
        trick.after_step(model, t)
    assert trick.eval_model(model) is model


@pytest.mark.parametrize("spec", ["ema", "swa(start=0.5, cycles=3)"])
def test_a_resumed_average_is_the_uninterrupted_one(spec):
    whole, model = averaged(spec, 40)
    half, other = tricks.parse(spec).fresh(), Normed().double()
    half.setup(other, None)
    for step in range(1, 41):
        walk(other, step)
        half.after_step(other, step / 40)
        if step == 30:
            saved = {k: v.state_dict() if isinstance(v, nn.Module) else v for k, v in half.state().items()}
            half = half.fresh()
            half.setup(Normed().double(), None)
            for name, value in saved.items():
                half.average_.load_state_dict(value) if name == "average_" else setattr(half, name, value)
    # The walks begin at different random weights: compare what the averages add to them.
    start = nn.utils.parameters_to_vector(model.parameters()) - nn.utils.parameters_to_vector(other.parameters())
    gap = nn.utils.parameters_to_vector(whole.eval_model(model).parameters()) - nn.utils.parameters_to_vector(
        half.eval_model(other).parameters()
    )
    torch.testing.assert_close(gap, start.detach(), rtol=1e-9, atol=1e-9)


class Teacher(nn.Module):
    def forward(self, x):
        assert not torch.is_grad_enabled()
        return Outputs(x, x, 3 * x)


class TeacherFit:
    def network(self, run):
        assert run == "runs/teacher"
        return Teacher()


def test_distillation_is_the_formula_with_the_teacher_first():
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    z = torch.randn(5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    trick = tricks.parse("distill(teacher='runs/teacher', alpha=0.7, T=2.5)").fresh()
    trick.setup(None, TeacherFit())
    batch = Batch(x, torch.eye(4, dtype=torch.float64)[[0, 1, 2, 3, 0]], torch.arange(5))
    expected = 0.0
    for r, s in zip((3 * x).numpy(), z.numpy(), strict=True):
        p, q = (np.exp(v / 2.5) / np.exp(v / 2.5).sum() for v in (r, s))
        expected += (p * np.log(p / q)).sum() / 5
    found = trick.penalty(batch, Outputs(z, z, z), None, 0.0)
    assert float(found) == pytest.approx(0.7 * 2.5**2 * expected, rel=1e-6)
    assert trick.weights(batch.y, 0.0).tolist() == pytest.approx([0.3] * 5)
    assert trick.state() == {}


def test_distillation_without_weight_needs_no_teacher():
    trick = tricks.parse("distill(alpha=0.0)").fresh()
    trick.setup(None, None)
    z = torch.randn(2, 3)
    assert float(trick.penalty(Batch(z, z, z), Outputs(z, z, z), None, 0.0)) == 0.0
    assert trick.weights(z, 0.0).tolist() == [1.0, 1.0]


class HeadFit:
    """Features of the digits, far from standard and with soft targets as rows."""

    def __init__(self):
        x, y = load_digits(return_X_y=True)
        self.x, self.y = torch.from_numpy(x * 3 + 40).float(), torch.from_numpy(y)
        self.parts = {"train": slice(0, 600), "val": slice(600, 900), "test": slice(900, None)}

    def features(self, split):
        return self.x[self.parts[split]], nn.functional.one_hot(self.y[self.parts[split]], 10).float()


class WithHead(nn.Module):
    def __init__(self, classifier):
        super().__init__()
        self.classifier = classifier


def test_fitted_head_is_sklearns_regression_at_one_penalty():
    fit, model = HeadFit(), WithHead(nn.Linear(64, 10))
    assert tricks.parse("fit_head(l2=(0.1,))").prepare(model, fit) is model
    x, y = fit.features("train")
    scale = float(x.var(0, correction=0).mean().sqrt())
    z = ((x - x.mean(0)) / scale).numpy()
    reference = LogisticRegression(C=1 / (0.1 * len(z)), tol=1e-8, max_iter=5000).fit(z, y.argmax(1).numpy())
    p = model.classifier(x).softmax(1).detach().numpy()
    np.testing.assert_allclose(p, reference.predict_proba(z), atol=2e-3)


def test_fitted_head_chooses_its_penalty_on_validation():
    fit = HeadFit()
    x, y = fit.features("val")

    def nll(spec):
        model = WithHead(nn.Linear(64, 10))
        tricks.parse(spec).prepare(model, fit)
        return float(nn.functional.cross_entropy(model.classifier(x), y).detach()), model

    alone = {l2: nll(f"fit_head(l2=({l2},))")[0] for l2 in (3.0, 0.1, 0.003, 0.00001)}
    best, model = nll("fit_head(l2=(0.00001, 0.1, 3.0, 0.003))")
    assert min(alone, key=alone.get) in (0.1, 0.003)
    assert best == pytest.approx(min(alone.values()), rel=0.02)
    x, y = fit.features("test")
    assert float((model.classifier(x).argmax(1) == y.argmax(1)).float().mean()) > 0.89


def test_fitted_head_stands_features_that_never_change():
    fit, model = HeadFit(), WithHead(nn.Linear(64, 10))
    fit.x = torch.ones_like(fit.x)
    tricks.parse("fit_head").prepare(model, fit)
    assert all(bool(p.isfinite().all()) for p in model.parameters())


@pytest.mark.parametrize("classifier", [nn.Conv2d(64, 10, 1), nn.Linear(64, 10, bias=False)])
def test_fitted_head_refuses_other_classifiers(classifier):
    with pytest.raises(UsageError, match="linear layer with a bias"):
        tricks.parse("fit_head").setup(WithHead(classifier), HeadFit())
