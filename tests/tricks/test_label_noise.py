"""Losses, selection and cleaning for labels that lie, against the papers' formulas in float64 and scikit-learn."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.nn.functional import cross_entropy

from trickbag.data.images import Images
from trickbag.engine.assemble import assemble
from trickbag.engine.crossfit import out_of_fold
from trickbag.engine.loop import mean_loss
from trickbag.engine.speed import time_steps
from trickbag.ground.errors import UsageError
from trickbag.ground.events import Note
from trickbag.ground.streams import generator
from trickbag.laboratory.lab import CLASSES, MISLABELLED, dataset, fabric_of, follow, loop, recipe, train
from trickbag.trick import Batch, Outputs
from trickbag.tricks import parse
from trickbag.tricks.bi_tempered import bi_tempered_loss, tempered_log_softmax
from trickbag.tricks.clean_labels import believed
from trickbag.tricks.drop_hardest import kept

LOSSES = (
    "generalized_cross_entropy", "generalized_cross_entropy(q=1.0)", "generalized_cross_entropy(q=0.01)",
    "symmetric_cross_entropy", "symmetric_cross_entropy(alpha=6.0, beta=0.1)",
    "bi_tempered", "bi_tempered(t1=0.2, t2=4.0)", "bi_tempered(t1=0.5, t2=1.0)", "bi_tempered(t1=1.0, t2=1.5)",
    "bootstrap", "bootstrap(beta=0.95, kind='soft')",
)  # fmt: skip
NEUTRAL = (
    "generalized_cross_entropy(q=0.0)", "symmetric_cross_entropy(alpha=1.0, beta=0.0)", "bi_tempered(t1=1.0, t2=1.0)",
    "bootstrap(beta=1.0)", "bootstrap(beta=1.0, kind='soft')",
)  # fmt: skip


def loss_of(spelling, z, y):
    """The loss [B] that a trick gives logits and targets in their own precision."""
    z, y = torch.as_tensor(z), torch.as_tensor(y)
    return parse(spelling).loss(Outputs(z[:, :, None, None], z, z), y)


def generalized(q):
    """Zhang and Sabuncu, eq. 6, by whole rows of classes."""
    return lambda z, y: (y * (1 - softmax(z, 1) ** q) / q).sum(1)


def symmetric(alpha, beta):
    """Wang et al., eq. 5 to 7, class by class with log 0 = -4: of a row of targets the mean over its classes."""

    def of_class(z, k):
        p, one = softmax(z, 1), np.eye(z.shape[1])[k]
        return -alpha * np.log(p[:, k]) - beta * (p * np.where(one > 0, 0.0, -4.0)).sum(1)

    return lambda z, y: sum(y[:, k] * of_class(z, k) for k in range(z.shape[1]))


def tempered(z, t):
    """exp_t(z - c) of each row, with the c at which it sums to 1 found by bisection."""

    def exp_t(u):
        return np.exp(u) if t == 1 else np.maximum(1 + (1 - t) * u, 0) ** (1 / (1 - t))

    def normalised(row):
        top = row.max()
        c = brentq(lambda c: exp_t(row - c).sum() - 1, top, top + 1e6, xtol=1e-14, rtol=1e-14, maxiter=1000)
        return exp_t(row - c)

    return np.stack([normalised(row) for row in z])


def bi_tempered(t1, t2):
    """Amid et al., eq. 7 as it stands, of each class, weighted by the row of targets."""

    def log_t(x):
        return np.log(x) if t1 == 1 else (x ** (1 - t1) - 1) / (1 - t1)

    def of_class(p, k):
        one = np.eye(p.shape[1])[k][None]
        own = log_t(1.0) - log_t(p[:, k])
        return own - ((one ** (2 - t1) - p ** (2 - t1)).sum(1)) / (2 - t1)

    return lambda z, y: sum(y[:, k] * of_class(tempered(z, t2), k) for k in range(z.shape[1]))


def bootstrap(beta, kind):
    """Reed et al., eq. 6 and 7."""

    def loss(z, y):
        own = softmax(z, 1) if kind == "soft" else np.eye(z.shape[1])[z.argmax(1)]
        return -((beta * y + (1 - beta) * own) * log_softmax(z, 1)).sum(1)

    return loss


REFERENCE = dict(
    zip(
        LOSSES,
        (
            *(generalized(0.7), generalized(1.0), generalized(0.01)),
            *(symmetric(0.1, 1.0), symmetric(6.0, 0.1)),
            *(bi_tempered(0.8, 1.2), bi_tempered(0.2, 4.0), bi_tempered(0.5, 1.0), bi_tempered(1.0, 1.5)),
            *(bootstrap(0.8, "hard"), bootstrap(0.95, "soft")),
        ),
        strict=True,
    )
)


@pytest.fixture(scope="module", params=[2, 4])
def answers(request):
    """Logits of twelve images of two or four classes, and targets that are hard, smoothed and mixed."""
    classes, rng = request.param, np.random.default_rng(1)
    hard = np.eye(classes)[rng.integers(0, classes, 4)]
    return rng.normal(0, 3, (12, classes)), np.concatenate(
        [hard, 0.9 * hard + 0.1 / classes, rng.dirichlet(np.ones(classes), 4)]
    )


@pytest.mark.parametrize("spelling", LOSSES)
def test_losses_are_their_formulas_on_hard_and_soft_rows(spelling, answers):
    np.testing.assert_allclose(loss_of(spelling, *answers), REFERENCE[spelling](*answers), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("spelling", LOSSES)
def test_gradients_are_those_of_the_formulas(spelling, answers):
    """Against central differences of the reference; an image whose two best answers tie has no slope, and none here has."""
    z, y = answers
    mine = torch.tensor(z, requires_grad=True)
    (found,) = torch.autograd.grad(loss_of(spelling, mine, y).sum(), mine)
    step = 1e-5 * np.eye(z.shape[1])
    slopes = [(REFERENCE[spelling](z + d, y) - REFERENCE[spelling](z - d, y)) / 2e-5 for d in step]
    np.testing.assert_allclose(found, np.stack(slopes, 1), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("spelling", LOSSES)
def test_a_mixed_rows_loss_is_the_mix_of_its_classes_losses(spelling, answers):
    z, y = answers
    parts = [loss_of(spelling, z, np.broadcast_to(one, z.shape).copy()) for one in np.eye(z.shape[1])]
    np.testing.assert_allclose(loss_of(spelling, z, y), (y * np.stack(parts, 1)).sum(1), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("spelling", LOSSES)
def test_logits_of_ten_thousand_give_the_loss_of_float64_and_a_finite_gradient(spelling):
    wide = torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 1e4], [1e4, 1e4, 1e4], [0.0, -1e4, 9990.0]], dtype=torch.float64)
    narrow = wide.float().requires_grad_()
    for y in (torch.eye(3)[[0, 0, 0, 0]], torch.eye(3)[[1, 1, 1, 1]], torch.full((4, 3), 1 / 3)):
        loss = loss_of(spelling, narrow, y)
        torch.testing.assert_close(loss.double(), loss_of(spelling, wide, y.double()), rtol=1e-5, atol=1e-6)
        assert bool(torch.autograd.grad(loss.sum(), narrow)[0].isfinite().all())


@pytest.mark.parametrize("spelling", LOSSES)
def test_one_image_alone_has_the_loss_it_has_among_others(spelling, answers):
    z, y = answers
    alone = np.concatenate([loss_of(spelling, z[row : row + 1], y[row : row + 1]) for row in range(len(z))])
    np.testing.assert_allclose(alone, loss_of(spelling, z, y), rtol=1e-12)


@pytest.mark.parametrize("spelling", NEUTRAL)
def test_neutral_losses_are_the_cross_entropy(spelling, answers):
    z, y = map(torch.from_numpy, answers)
    torch.testing.assert_close(loss_of(spelling, z, y), cross_entropy(z, y, reduction="none"), rtol=1e-12, atol=0)


def test_small_exponents_come_to_the_cross_entropy(answers):
    z, y = map(torch.from_numpy, answers)
    plain = cross_entropy(z, y, reduction="none")
    torch.testing.assert_close(loss_of("generalized_cross_entropy(q=1e-7)", z, y), plain, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(loss_of("bi_tempered(t1=0.9999999, t2=1.0000001)", z, y), plain, rtol=1e-5, atol=1e-6)


def test_symmetric_cross_entropy_is_poly1_scaled(answers):
    poly1 = 0.1 * loss_of("poly1(eps=40.0)", *answers)
    torch.testing.assert_close(loss_of("symmetric_cross_entropy", *answers), poly1, rtol=1e-12, atol=0)


@pytest.mark.parametrize("t", [1.0, 1.0001, 1.2, 2.0, 4.0])
@pytest.mark.parametrize("classes", [1, 2, 1000])
@pytest.mark.parametrize("scale", [0.0, 5.0, 1e4])
def test_tempered_probabilities_sum_to_one_and_are_those_of_bisection(t, classes, scale):
    z = scale * np.random.default_rng(0).normal(size=(3, classes))
    p = tempered_log_softmax(torch.from_numpy(z), t).exp()
    np.testing.assert_allclose(p.sum(1), 1, rtol=1e-12)
    assert tempered_log_softmax(torch.from_numpy(z).float(), t).exp().sum(1).numpy() == pytest.approx(1, abs=1e-5)
    if classes < 1000:
        np.testing.assert_allclose(p, tempered(z, t), rtol=1e-6, atol=1e-12)


def test_the_bounded_losses_have_their_ceilings():
    z, y = torch.tensor([[1e4, 0.0, 0.0]]), torch.tensor([[0.0, 1.0, 0.0]])
    assert float(loss_of("generalized_cross_entropy(q=0.5)", z, y)) == pytest.approx(2)
    assert float(bi_tempered_loss(z, y, 0.8, 1.0)) == pytest.approx(5)
    assert float(loss_of("symmetric_cross_entropy(alpha=0.001, beta=2.0)", z, y)) == pytest.approx(0.001 * 1e4 + 8)


@pytest.mark.parametrize(
    ("losses", "share", "expected"),
    [
        ([0.1, 5.0, 0.3, 0.2], 0.5, [2, 0, 0, 2]),
        ([0.1, 5.0, 0.3, 0.2], 0.0, [1, 1, 1, 1]),
        ([0.1, 5.0, 0.3, 0.2], 0.1, [1 / 0.9, 0.6 / 0.9, 1 / 0.9, 1 / 0.9]),
        ([7.0], 0.9, [1]),
        ([2.0, 2.0, 2.0], 1 / 3, [0, 1.5, 1.5]),
        ([-1e4, 1e4], 0.5, [2, 0]),
    ],
)
def test_kept_images_share_the_weight_of_those_dropped(losses, share, expected):
    weights = kept(torch.tensor(losses), share)
    assert weights.tolist() == pytest.approx(expected, abs=1e-6)
    assert float(weights.mean()) == pytest.approx(1, abs=1e-6)
    assert weights.dtype == torch.float32


def test_dropped_images_are_those_of_a_trimmed_mean():
    """The mean of the smallest of 50 losses, as sorting in float64 gives it, for every share that drops whole images."""
    losses = np.random.default_rng(2).exponential(size=50)
    for dropped in range(46):
        mine = float((kept(torch.from_numpy(losses), dropped / 50) * torch.from_numpy(losses)).mean())
        assert mine == pytest.approx(np.sort(losses)[: 50 - dropped].mean(), rel=1e-9)


@pytest.mark.parametrize(
    ("spelling", "shares"),
    [
        ("drop_hardest(share=0.4)", {0: 0, 0.05: 0.1, 0.1: 0.2, 0.2: 0.4, 0.9: 0.4}),
        ("drop_hardest(share=0.4, warmup=0.0)", {0: 0.4, 0.9: 0.4}),
        ("drop_hardest(share=0.4, warmup=1.0)", {0: 0, 0.5: 0.2}),
    ],
)
def test_the_share_grows_from_nothing_over_the_warm_up(spelling, shares):
    losses = torch.arange(10.0).double()
    for t, share in shares.items():
        torch.testing.assert_close(parse(spelling).select(losses, t), kept(losses, share))


def test_selection_goes_by_losses_before_weights_and_sends_no_gradient():
    """The heaviest class has the largest weighted loss but the smallest bare one: it stays, and the mean is over those kept."""
    made = loop(recipe("drop_hardest(share=0.5, warmup=0.0)", "class_weights", "focal"))
    drop, weigh = (next(t for t in made.tricks if t.name() == name) for name in ("drop_hardest", "class_weights"))
    weigh.class_weight_ = torch.tensor([1.0, 1.0, 100.0])
    logits = torch.tensor([[3.0, 0, 0], [0, 0.5, 0], [0, 0, 1.5], [2.0, 0, 0]], requires_grad=True)
    y = torch.eye(3)[[0, 1, 2, 2]]
    outputs = Outputs(logits[:, :, None, None], logits, logits)
    total = mean_loss(made.tricks, Batch(logits, y, torch.arange(4)), outputs, made.model, 0.5)
    each = loss_of("focal", logits, y)
    torch.testing.assert_close(total, (each[0] + 100 * each[2]) / 2)
    assert drop.select(each.detach(), 0.5).tolist() == [2, 0, 2, 0]
    (slope,) = torch.autograd.grad(total, logits)
    assert slope[[1, 3]].eq(0).all()
    assert slope[[0, 2]].ne(0).any(1).all()


def test_a_loss_that_is_no_number_is_not_hidden_by_being_dropped():
    logits = torch.tensor([[0.0, 1.0], [torch.nan, 0.0]])
    outputs = Outputs(logits[:, :, None, None], logits, logits)
    batch = Batch(logits, torch.eye(2), torch.arange(2))
    assert mean_loss([parse("drop_hardest(share=0.5, warmup=0.0)")], batch, outputs, nn.Identity(), 0.5).isnan()


@pytest.mark.parametrize(
    "spelling", ["generalized_cross_entropy", "symmetric_cross_entropy", "bi_tempered", "bootstrap", "drop_hardest"]
)
def test_training_in_bf16_is_near_to_that_in_fp32(spelling):
    low, high = (train(spelling, precision=precision, lr=0.01) for precision in ("bf16", "fp32"))
    assert low.losses == pytest.approx(high.losses, rel=0.05)
    assert low.losses != high.losses


def planted(share, kinds=3, count=60, seed=0):
    """Features of classes that lie apart, their true classes, and labels of which a share is wrong."""
    rng = np.random.default_rng(seed)
    true = np.repeat(np.arange(kinds), count)
    wrong = rng.random(len(true)) < share
    labels = np.where(wrong, (true + rng.integers(1, kinds, len(true))) % kinds, true)
    return 3 * np.eye(kinds)[true] + rng.normal(0, 0.5, (len(true), kinds)), true, labels


@pytest.mark.parametrize("share", [0.2, 0.4])
@pytest.mark.parametrize("kinds", [2, 3])
def test_most_planted_labels_are_found_and_corrected(share, kinds):
    """By scikit-learn's probabilities for images that it was not fitted to."""
    x, true, labels = planted(share if kinds > 2 else share - 0.05, kinds)
    p = np.zeros((len(x), kinds))
    for fold in range(5):
        mine = np.arange(len(x)) % 5 == fold
        p[mine] = LogisticRegression().fit(x[~mine], labels[~mine]).predict_proba(x[mine])
    mended = believed(labels, p)
    assert (mended == true).mean() > 0.97
    assert (mended != labels)[labels == true].mean() < 0.03


def table(kind, **changes):
    """The laboratory's training images with labels changed, after the trick, and what it was told."""
    images = replace(dataset()[0].images.split("train"), **changes)
    asked = []

    def out_of_fold(own):
        asked.append(own)
        return torch.eye(3, dtype=torch.float64)[[1] * 20 + [1] * 12 + [2] * 9] * 0.9 + 0.1 / 3

    trick = parse(f"clean_labels(kind={kind!r})")
    return images, trick.data(images, images, SimpleNamespace(out_of_fold=out_of_fold), generator(0, "test")), asked


def test_images_are_left_out_or_corrected_and_others_stay_as_they_are():
    labels = np.array([1] * 18 + [0] * 2 + [1] * 12 + [2] * 9)
    images, dropped, asked = table("drop", labels=labels)
    assert asked[0] is images
    gone = sorted({*images.paths} - {*dropped.paths})
    assert set(gone) <= {"train/a/18.png", "train/a/19.png"}
    assert gone
    images, corrected, _ = table("correct", labels=labels)
    assert corrected.paths == images.paths
    assert [images.paths[row] for row in np.flatnonzero(corrected.labels != labels)] == gone
    assert set(corrected.labels[corrected.labels != labels]) == {1}
    assert np.array_equal(images.labels, labels)


@pytest.mark.parametrize("kind", ["drop", "correct"])
def test_the_mislabelled_image_of_the_laboratory_is_found_before_training(kind):
    told = []
    data, pixels = dataset()
    made = assemble(
        recipe(f"clean_labels(kind={kind!r})", "class_weights"), data, pixels, 0, fabric_of("fp32"), lambda *_: nn.Identity(),
        tell=told.append,
    )  # fmt: skip
    before, after = data.images.split("train"), made.loader.pixels.images
    place = before.paths.index(MISLABELLED)
    said = {"drop": "1 left out", "correct": "1 given another label"}[kind]
    assert [event.text for event in told if isinstance(event, Note)] == [f"{made.tricks[0]}: 41 training images, {said}"]
    if kind == "drop":
        assert after.paths == (*before.paths[:place], *before.paths[place + 1 :])
    else:
        assert after.labels[place] == CLASSES.index("b")
    assert made.judge.facts.counts.tolist() == [19, 12 + (kind == "correct"), 9]
    assert len(made.loader.pixels) == len(after)
    assert made.loader.labels.tolist() == after.labels.tolist()
    for split in ("val", "test"):
        assert made.judge.loaders[split].labels.tolist() == data.images.split(split).labels.tolist()


def test_what_is_judged_out_of_fold_is_the_network_as_training_finds_it():
    """The same network twice is asked the same; norms' statistics and weights stay what they were."""
    plain, clean = loop(recipe("flip")), loop(recipe("flip", "clean_labels"))
    for (name, a), (_, b) in zip(plain.model.state_dict().items(), clean.model.state_dict().items(), strict=True):
        assert torch.equal(a, b), name
    again = loop(recipe("flip", "clean_labels"))
    assert again.loader.pixels.images.paths == clean.loader.pixels.images.paths
    assert follow(again).same(follow(clean))


def test_too_few_images_to_judge_labels_are_refused():
    data, pixels = dataset()
    rows = [n for n, path in enumerate(data.images.paths) if not path.startswith("train") or path[-6:-4] < "04"]
    few = data._replace(images=data.images.take(rows))
    with pytest.raises(UsageError, match="No class has 5 images"):
        assemble(recipe("clean_labels"), few, [pixels[n] for n in rows], 0, fabric_of("fp32"), lambda *_: nn.Identity())


def test_a_class_of_one_group_loses_no_more_than_others():
    """As all photos of a kind from one camera: who judges them has never seen their class."""
    labels, groups = np.repeat([0, 1, 2], 40), np.r_[:80, np.full(40, 80)]
    names, splits = tuple(map(str, range(120))), np.full(120, "train")
    images = Images(Path(), names, labels, splits, groups, ("a", "b", "c"))
    features = np.random.default_rng(0).normal(size=(120, 8)) + 2 * np.eye(3, 8)[labels]
    answers = SimpleNamespace(out_of_fold=lambda own: torch.from_numpy(out_of_fold(features, own, lambda event: None)))
    kept = parse("clean_labels").data(images, images, answers, generator(0, "test"))
    assert kept.counts()[2] == 40
    assert min(kept.counts()) > 30


def test_timing_a_few_steps_judges_no_labels(monkeypatch):
    def forbidden(*_):
        raise AssertionError("a timed step asks for features of all images")

    monkeypatch.setattr("trickbag.engine.answers.out_of_fold", forbidden)
    data, pixels = dataset()
    assert time_steps(recipe("clean_labels"), data, pixels, 0, steps=1).train > 0
