"""Tricks that act when images are judged, against the papers' formulas: sets of classes, thinned networks, new statistics."""

import csv
import io
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from album import fill, recipe_file
from scipy.special import softmax
from scipy.stats import binom
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.functional import one_hot

import trickbag as tb
from trickbag import tricks
from trickbag.display import predicted
from trickbag.engine.sets import Coverage
from trickbag.ground.errors import UsageError
from trickbag.laboratory import lab
from trickbag.recipe import Recipe
from trickbag.runs.folder import predictions
from trickbag.runs.request import check_idle
from trickbag.serving.desk import ClassifierDesk
from trickbag.serving.limits import Limits
from trickbag.studies.arms import Bench
from trickbag.trick import Facts, Outputs, ordered

METHODS = ("lac", "aps", "raps(0.05, 2)")
KINDS = {"a": 0, "b": 1, "c, d": 2}
LIMITS = Limits(images=8, megabytes=8, megapixels=8, seconds=9, queue=2)


class Held:
    """What the engine hands over: logits of validation, and how many training images there are of each class."""

    def __init__(self, logits: Tensor | None = None, labels: Tensor | None = None, counts: tuple[int, ...] = (5, 5, 5)) -> None:
        self.facts = Facts(tuple("abcdefghij"[: len(counts)]), torch.tensor(counts), 10, 32, 6, 3, 0)
        self.held, self.labels = logits, labels

    def logits(self, split: str) -> tuple[Tensor, Tensor]:
        assert split == "val"
        assert self.held is not None
        assert self.labels is not None
        return self.held, one_hot(self.labels, self.held.shape[1]).float()


def fitted(spec: str, fit: Any, model: nn.Module | None = None) -> Any:
    trick: Any = tricks.parse(spec).fresh()
    trick.setup(model or nn.Linear(1, 1), fit)
    trick.finish(model, fit, torch.Generator())
    return trick


# sets of classes


def conformal(method: str, coverage: float) -> str:
    name, _, rest = method.partition("(")
    more = dict(zip(("charge", "free"), rest.strip(")").split(", "), strict=False)) if rest else {}
    return f"conformal({', '.join(f'{k}={v}' for k, v in {'coverage': coverage, 'method': repr(name), **more}.items())})"


def by_the_paper(method: str, p: np.ndarray, threshold: float) -> set[int]:
    """The set of one image, grown class by class from the most probable one."""
    order = sorted(range(len(p)), key=lambda k: (-p[k], k))
    if method == "lac":
        return {k for k in order if p[k] >= 1 - threshold} | {order[0]}
    held, total = set(), 0.0
    for rank, k in enumerate(order, 1):
        if total + (0.05 * max(0, rank - 2) if method.startswith("raps") else 0) > threshold:
            break
        held.add(k)
        total += p[k]
    return held


def drawn(n: int, classes: int, seed: int, sharp: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels that are drawn from them, so that the network is right as often as it says."""
    rng = np.random.default_rng(seed)
    z = sharp * rng.normal(size=(n, classes))
    return z, np.array([rng.choice(classes, p=softmax(row)) for row in z])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("n", "classes", "coverage"), [(60, 2, 0.9), (61, 5, 0.8), (99, 10, 0.95), (9, 3, 0.9), (40, 4, 0.55)])
def test_sets_are_those_of_the_papers(method: str, n: int, classes: int, coverage: float) -> None:
    z, labels = drawn(n, classes, seed=n)
    trick = fitted(conformal(method, coverage), Held(torch.from_numpy(z), torch.from_numpy(labels), (1,) * classes))
    enough = -(-(n + 1) * round(100 * coverage) // 100)
    # The threshold of the papers: the least at which so many validation images are in their sets.
    p = softmax(z, 1)
    counts = [
        sum(label in by_the_paper(method, row, trick.threshold_ + shift) for row, label in zip(p, labels, strict=True))
        for shift in (1e-12, -1e-12)
    ]
    assert counts[0] >= enough
    assert counts[1] < enough or trick.threshold_ == 0 or method == "lac"
    if method == "lac":
        scores = 1 - p[np.arange(n), labels]
        assert trick.threshold_ == pytest.approx(np.quantile(scores, enough / n, method="inverted_cdf"), abs=1e-12)
    new, _ = drawn(200, classes, seed=1)
    found = trick.sets(torch.from_numpy(new))
    for row, held in zip(softmax(new, 1), found, strict=True):
        assert set(held.nonzero()[:, 0].tolist()) == by_the_paper(method, row, trick.threshold_ + 1e-12)
    assert found.any(1).all()


@pytest.mark.parametrize("method", METHODS)
def test_the_right_class_is_in_its_set_as_often_as_was_promised(method: str) -> None:
    held = []
    for seed in range(60):
        z, labels = (torch.from_numpy(part) for part in drawn(149, 6, seed, sharp=1.0))
        trick = fitted(conformal(method, 0.8), Held(z[:49], labels[:49], (1,) * 6))
        held.append(Coverage.of(trick.sets(z[49:]), labels[49:]).held)
    error = np.std(held, ddof=1) / np.sqrt(len(held))
    assert 0.8 - 3 * error < np.mean(held) < 0.8 + 1 / 50 + 3 * error


@pytest.mark.parametrize(("coverage", "fewest"), [(0.9, 9), (0.95, 19), (0.93, 14), (0.5, 1)])
@pytest.mark.parametrize("enough", [False, True])
def test_too_few_images_promise_nothing_and_say_so(coverage: float, fewest: int, enough: bool) -> None:
    images = fewest - (not enough)
    z, labels = torch.zeros(images, 3), torch.zeros(images, dtype=torch.int64)
    trick = fitted(f"conformal(coverage={coverage}, method='aps')", Held(z, labels))
    assert bool(trick.sets(torch.tensor([[9.0, 0, 0]])).all()) != enough
    said = trick.doubt(images)
    assert ("every set will hold all classes" in said) != enough
    assert enough or f"Give at least {fewest} of them" in said


def test_what_few_images_promise_is_what_they_give() -> None:
    trick: Any = tricks.parse("conformal")
    assert not trick.doubt(1000)
    # Of 30 scores the 28th smallest is the threshold: a share x of new images lies below it where at most 27 of 30 lie below x.
    (low, high) = map(int, re.findall(r"with 30 validation images .* class of (\d+) to (\d+) % of new", trick.doubt(30))[0])
    assert binom.sf(27, 30, (low - 0.6) / 100) < 0.025 < binom.sf(27, 30, (low + 0.6) / 100)
    assert binom.sf(27, 30, (high - 0.6) / 100) < 0.975 < binom.sf(27, 30, (high + 0.6) / 100)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sets_stand_extreme_logits_ties_and_a_single_image(method: str, dtype: torch.dtype) -> None:
    z = torch.tensor([[1e4, 0, -1e4], [-1e4, 1e4, 0], [0, 0, 0], [0, 0, 1e4]] * 5, dtype=dtype)
    labels = torch.tensor([0, 1, 0, 2] * 5)
    trick = fitted(conformal(method, 0.7), Held(z, labels))
    sets = trick.sets(z)
    assert np.isfinite(trick.threshold_)
    assert sets.gather(1, labels[:, None]).all()
    assert sets[0].tolist() == [True, False, False]
    assert torch.equal(trick.sets(z[2:3]), sets[2:3])


@pytest.mark.parametrize("fields", ["charge=0.2", "method='lac', free=2", "method='aps', charge=0.0"])
def test_what_only_raps_uses_is_refused_elsewhere(fields: str) -> None:
    with pytest.raises(UsageError, match="work only with method='raps'"):
        tricks.parse(f"conformal({fields})")


def test_one_trick_makes_sets() -> None:
    with pytest.raises(UsageError, match="a recipe holds a trick once"):
        lab.recipe("conformal", "conformal(coverage=0.8)")


def test_coverage_of_no_image_and_of_one() -> None:
    none = Coverage.of(torch.zeros(0, 3, dtype=torch.bool), torch.zeros(0, dtype=torch.int64))
    assert (none.n, none.held, none.size, none.size_interval) == (0, None, None, None)
    one = Coverage.of(torch.tensor([[True, True, False]]), torch.tensor([1]))
    assert (one.held, one.size, one.size_interval) == (1.0, 2.0, None)
    sizes = np.array([1, 2, 1, 3, 3, 1])
    many = Coverage.of(torch.arange(3) < torch.from_numpy(sizes)[:, None], torch.tensor([0, 1, 2, 2, 2, 1]))
    margin = 2.5706 * sizes.std(ddof=1) / np.sqrt(6)  # Student's, 5 degrees of freedom
    assert many.held == pytest.approx(4 / 6)
    assert many.size_interval == pytest.approx((sizes.mean() - margin, sizes.mean() + margin), abs=1e-3)


def test_a_study_has_nothing_to_measure_of_sets() -> None:
    bench = Bench(Recipe.load("linear-probe"), [tricks.parse("conformal"), tricks.parse("calibrate")])
    assert [str(trick) for trick in bench.alone()] == ["calibrate"]
    assert "leaves all predictions as they are" in bench.not_run["conformal"]


# post-hoc logit adjustment


def answer(logits: Tensor) -> Any:
    return lambda x: Outputs(x, x.flatten(1), logits[: len(x)])


@pytest.mark.parametrize("counts", [(90, 9, 1), (3, 0, 40), (1, 1), (1, 1000), (500, 20, 30, 1)])
@pytest.mark.parametrize("tau", [0.5, 1.0, 2.0])
def test_post_hoc_adjustment_divides_by_the_shares(counts: tuple[int, ...], tau: float) -> None:
    z = 3 * torch.randn(7, len(counts), generator=torch.Generator().manual_seed(1))
    trick = fitted(f"posthoc_logit_adjustment(tau={tau})", Held(counts=counts))
    share = np.maximum(counts, 1) / np.maximum(counts, 1).sum()
    expected = softmax(z.double().numpy(), 1) / share**tau
    found = trick.predict(answer(z))(torch.zeros(7, 1)).logits
    np.testing.assert_allclose(found.softmax(1), expected / expected.sum(1, keepdims=True), rtol=1e-4, atol=1e-7)
    single = trick.predict(answer(z))(torch.zeros(1, 1)).logits
    assert torch.equal(single, found[:1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_post_hoc_adjustment_stands_extreme_logits(dtype: torch.dtype) -> None:
    z = torch.tensor([[1e4, 0.0, -1e4]], dtype=dtype)
    found = fitted("posthoc_logit_adjustment", Held(counts=(100, 10, 1))).predict(answer(z))(torch.zeros(1, 1)).logits
    assert found.dtype == dtype
    assert found.softmax(1).tolist() == [[1.0, 0.0, 0.0]]


def test_scores_are_calibrated_then_adjusted_then_answered_in_sets() -> None:
    found = ordered([tricks.parse(name) for name in ("conformal", "posthoc_logit_adjustment", "calibrate", "knn")])
    assert [trick.name() for trick in found] == ["knn", "calibrate", "posthoc_logit_adjustment", "conformal"]


# Monte Carlo dropout


class Small(nn.Module):
    """A linear classifier of six features that are dropped."""

    def __init__(self, rate: float = 0.3, classes: int = 3) -> None:
        super().__init__()
        self.name, self.layer, self.drop = "small", nn.Linear(6, classes), nn.Dropout(rate)
        nn.init.normal_(self.layer.weight, generator=torch.Generator().manual_seed(2))

    def forward(self, x: Tensor) -> Outputs:
        features = x.flatten(1)[:, :6]
        return Outputs(features[..., None, None], features, self.layer(self.drop(features)))


def judging(model: nn.Module) -> Any:
    def plain(x: Tensor) -> Outputs:
        with torch.inference_mode():
            found: Outputs = model.eval()(x)
        return found

    return plain


@pytest.mark.parametrize(("rate", "classes"), [(0.3, 3), (0.5, 2)])
def test_many_passes_are_the_mean_over_all_masks(rate: float, classes: int) -> None:
    model, x = Small(rate, classes), torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    expected = np.zeros((5, classes))
    weight, bias = (parameter.detach().double().numpy() for parameter in (model.layer.weight, model.layer.bias))
    for kept in itertools.product((0, 1), repeat=6):
        chance = np.prod([1 - rate if one else rate for one in kept])
        expected += chance * softmax((x.double().numpy() * kept / (1 - rate)) @ weight.T + bias, 1)
    outputs = tricks.parse("mc_dropout(passes=1000)").predict(judging(model))(x)
    np.testing.assert_allclose(outputs.logits.exp(), expected, atol=0.05)  # some four standard errors
    torch.testing.assert_close(outputs.features, x)
    few = tricks.parse("mc_dropout(passes=2)").predict(judging(model))(x)
    assert not torch.allclose(few.logits, outputs.logits, atol=0.01)


def test_an_image_has_one_answer_in_every_batch_and_moves_no_generator() -> None:
    model, x = Small(), torch.randn(9, 6, generator=torch.Generator().manual_seed(0))
    predict = tricks.parse("mc_dropout").predict(judging(model))
    before = torch.get_rng_state()
    whole = predict(x).logits
    torch.testing.assert_close(torch.cat([predict(one[None]).logits for one in x]), whole)
    torch.testing.assert_close(predict(x.flip(0)).logits.flip(0), whole)
    assert torch.equal(predict(x).logits, whole)
    assert torch.equal(torch.get_rng_state(), before)
    assert not model.training


def test_dropped_passes_stand_extreme_logits_and_autocast() -> None:
    model = Small()
    with torch.no_grad():
        model.layer.weight.mul_(1e4)
    x = torch.ones(2, 6)
    found = tricks.parse("mc_dropout(passes=4)").predict(judging(model))(x).logits
    assert found.isfinite().all()
    torch.testing.assert_close(found.exp().sum(1), torch.ones(2))
    with torch.autocast("cpu", torch.bfloat16):
        assert tricks.parse("mc_dropout(passes=4)").predict(judging(Small()))(x).logits.isfinite().all()


def test_dropout_outside_stays_as_it_is() -> None:
    x = torch.ones(4, 6)
    tricks.parse("mc_dropout").predict(judging(Small()))(x)
    assert torch.equal(F.dropout(x, 0.5, training=False), x)


def test_a_network_without_dropout_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match=r"of which cifar_resnet8 has none\. Add the trick dropout"):
        lab.loop(lab.recipe("mc_dropout").edit(tricks=["mc_dropout"]))
    model = Small(rate=0.0)
    with pytest.raises(UsageError, match="of which small has none"):
        tricks.parse("mc_dropout").setup(model, Held())
    model = Small().train()
    tricks.parse("mc_dropout").setup(model, Held())
    assert model.training


# adaptive batch normalisation


def views(x: Tensor, *sizes: int) -> Any:
    return lambda: iter(torch.split(x, list(sizes)))


def normed() -> nn.Sequential:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()
    model[1].num_batches_tracked += 1  # as of a norm that was trained
    return model


@pytest.mark.parametrize("sizes", [(8, 8), (12, 4), (15, 1), (16,)])
def test_batch_norms_take_the_means_over_new_batches(sizes: tuple[int, ...]) -> None:
    model, x = normed(), 3 + 2 * torch.randn(16, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    adapted = tricks.parse("adabn").adapt(model, views(x, *sizes))
    with torch.no_grad():
        seen = model[0](x).double().numpy().transpose(1, 0, 2, 3)
    if sizes[-1] == 1:  # which joins the batch before it
        sizes = (16,)
    ends = np.cumsum(sizes)
    parts = [seen[:, end - size : end].reshape(4, -1) for end, size in zip(ends, sizes, strict=True)]
    share = np.array(sizes) / 16
    np.testing.assert_allclose(adapted[1].running_mean, share @ [part.mean(1) for part in parts], rtol=1e-4)
    np.testing.assert_allclose(adapted[1].running_var, share @ [part.var(1, ddof=1) for part in parts], rtol=1e-4)
    assert torch.equal(model[1].running_mean, torch.zeros(4))
    assert not adapted.training
    assert adapted[1].momentum == 0.1


def test_norms_that_training_has_not_moved_stay_as_the_classifier_knows_them() -> None:
    model, x = normed(), 3 + torch.randn(16, 3, 6, 6)
    model[1].num_batches_tracked.zero_()
    adapted = tricks.parse("adabn").adapt(model, views(x, 8, 8))
    assert torch.equal(adapted[1].running_mean, torch.zeros(4))
    with pytest.raises(UsageError, match="with epochs=0 there are none"):
        check_idle(lab.recipe("adabn", epochs=0), {"adabn"})
    with pytest.raises(UsageError, match="freeze_norms holds still what adabn acts on"):
        lab.recipe("freeze_norms", "adabn")


def test_one_image_has_no_statistics() -> None:
    for sizes in ((1,), ()):
        with pytest.raises(UsageError, match="one image has none"):
            tricks.parse("adabn").adapt(normed(), views(torch.zeros(sum(sizes), 3, 6, 6), *sizes))


def test_a_network_without_batch_norms_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match="batch norms, of which test_vit has none"):
        lab.loop(lab.recipe("adabn", model="test_vit", size=32))


def test_each_split_is_judged_with_its_own_statistics() -> None:
    made = lab.loop(lab.recipe("adabn"))
    list(itertools.chain(made.prepare(), made.train()))
    trick = tricks.parse("adabn")
    for split in ("val", "test"):
        own = torch.cat([batch.x for batch in made.judge.judged(split)])
        expected = trick.adapt(made.model, lambda own=own: iter([own]))(own).logits
        found = made.judge.outputs(made.model, split, [trick])[1]
        torch.testing.assert_close(found, expected.detach(), rtol=1e-3, atol=1e-4)


# a run, from training to what is shown


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Photos, a run that answers with sets, one that adapts, and one that does neither."""
    folder = tmp_path_factory.mktemp("judging")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRICKBAG_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        fill(folder / "photos", KINDS, 30)
        fill(folder / "new", KINDS, 4, seed=3)
        recipe_file(folder / "tiny.toml")
        fields = {"epochs": 1, "lr": 0.002, "val_share": 0.3, "test_share": 0.3}
        more = "calibrate, posthoc_logit_adjustment, dropout, mc_dropout(passes=2)"
        tb.train("photos", "tiny.toml", out="sets", with_=f"conformal(coverage=0.8), {more}", set_=fields)
        tb.train("photos", "tiny.toml", out="adapts", with_="adabn", set_=fields)
        tb.train("photos", "tiny.toml", out="plain", set_=fields)
        yield folder


def test_a_run_measures_its_sets_on_the_test_images_alone(place: Path) -> None:
    record = json.loads(Path("sets/result.json").read_text("utf-8"))
    val, test = (predictions(Path("sets/predictions.npz"), split, 3) for split in ("val", "test"))
    p, said = softmax(val.logits.astype(float), 1), softmax(test.logits.astype(float), 1)
    n = len(val.labels)
    scores = np.sort(1 - p[np.arange(n), val.labels])
    held = [by_the_paper("lac", row, scores[-(-8 * (n + 1) // 10) - 1] + 1e-9) for row in said]
    found = record["test"]["sets"]
    assert "sets" not in record["val"]
    assert (found["by"], found["chosen"]) == ("conformal(coverage=0.8)", True)
    right = np.array([label in own for own, label in zip(held, test.labels, strict=True)])
    sizes = np.array([len(own) for own in held])
    assert found["whole"]["held"] == pytest.approx(right.mean())
    assert found["whole"]["size"] == pytest.approx(sizes.mean())
    for label, own in enumerate(found["classes"]):
        rows = test.labels == label
        assert (own["n"], own["held"]) == (rows.sum(), pytest.approx(right[rows].mean()))
    names = tb.load("sets").classes
    lines = csv.DictReader(io.StringIO(Path("sets/predictions.csv").read_text("utf-8")))
    files = [line["path"] for line in lines if line["split"] == "test"]
    shown = list(tb.load("sets").predict([f"photos/{file}" for file in files]))
    assert [set(one.set or ()) for one in shown] == [{names[k] for k in own} for own in held]
    assert all((one.set or ("",))[0] == one.classes[0] for one in shown)


def test_sets_are_shown_with_predictions(place: Path, ask: Any) -> None:
    (one,) = tb.load("sets").predict("new/a/00.png")
    assert one.set
    assert f"set: {', '.join(one.set)}" in ask("predict", "sets", "new/a/00.png").out
    assert json.loads(ask("predict", "sets", "new/a/00.png", "--json").out)["set"] == list(one.set)
    rows = list(csv.DictReader(io.StringIO(ask("predict", "sets", "new", "--csv").out)))
    assert len(rows) == 12
    assert list(rows[0])[-1] == "set"
    assert tuple(next(csv.reader([rows[0]["set"]]))) == one.set
    assert ask("predict", "sets", "new", "--out", "rows.csv", "--top", "2").code == 0
    assert Path("rows.csv").read_text("utf-8").startswith(",".join(predicted.HEADS["sets"]))
    assert "set" in one._repr_html_()
    assert "set" not in ask("predict", "plain", "new", "--csv").out.splitlines()[0]
    assert "set" not in json.loads(ask("predict", "plain", "new/a/00.png", "--json").out)
    assert next(tb.load("plain").predict("new")).set is None


def test_sets_are_measured_on_other_images(place: Path, ask: Any) -> None:
    found = tb.evaluate("sets", "new")
    assert found.sets
    assert found.sets.whole.n == 12
    assert "sets of conformal(coverage=0.8) hold the right class for" in ask("evaluate", "sets", "new").out
    told = json.loads(ask("evaluate", "sets", "new", "--json").out)["sets"]
    assert set(told["classes"]) == set(KINDS)
    assert tb.evaluate("adapts", "new").sets is None


def test_a_served_run_answers_with_sets(place: Path) -> None:
    desk = ClassifierDesk("sets", tb.load("sets"), LIMITS)
    entry: dict[str, Any] = {"name": "x"}
    desk._judge([(entry, torch.zeros(3, 20, 20, dtype=torch.uint8))], type("Wish", (), {"top": 1, "threshold": 0.0})())
    assert set(entry["set"]) <= set(KINDS)
    desk.close()


def test_an_exported_file_thins_and_adjusts_alike_and_says_which_sets_it_lacks(place: Path) -> None:
    made = tb.export("sets", "torch")
    assert "not the sets of conformal(coverage=0.8)" in "\n".join(made.lines())
    assert made.parity.alike.agreement == 1.0


def test_a_run_adapts_to_all_images_of_a_call_whatever_their_order(place: Path) -> None:
    known = tb.load("adapts")
    files = sorted(map(str, Path("new").rglob("*.png")))
    said = {one.path: one for one in known.predict(files)}
    again = {one.path: one for one in tb.load("adapts").predict(files)}
    assert said == again
    few = {one.path: one for one in known.predict(files[:4])}
    assert few != {path: said[path] for path in few}
    assert tb.evaluate("adapts", "new").scores.n == 12
    Path("torn.png").write_bytes(Path(files[0]).read_bytes()[:100])
    assert len(list(known.predict([*files, "torn.png"], on_bad="skip"))) == 12


def test_what_looks_at_one_image_refuses_to_adapt(place: Path, ask: Any) -> None:
    told = ask("predict", "adapts", "new/a/00.png")
    assert (told.code, "one image has none" in told.err) == (2, True)
    for words in (["explain", "adapts", "new"], ["export", "adapts", "--to", "torch"], ["export", "adapts", "--to", "onnx"]):
        told = ask(*words)
        assert (told.code, "adabn adapts the network to all images" in told.err) == (2, True)
    with pytest.raises(UsageError, match="adabn adapts the network"):
        ClassifierDesk("adapts", tb.load("adapts"), LIMITS)
    with pytest.raises(UsageError, match="adabn adapts the network"):
        tb.load("adapts").module()(torch.zeros(2, 3, 20, 20, dtype=torch.uint8))


def test_what_needs_training_images_is_not_put_into_a_run(place: Path) -> None:
    for spec in ("posthoc_logit_adjustment", "conformal"):
        with pytest.raises(UsageError, match="needs training images"):
            tb.evaluate("plain", "new", with_=spec)
    with pytest.raises(UsageError, match="of which cifar_resnet8 has none"):
        tb.evaluate("plain", "new", with_="mc_dropout")


def test_a_run_adapts_when_it_is_evaluated(place: Path) -> None:
    plain, adapted, trained = (
        tb.evaluate("plain", "new"),
        tb.evaluate("plain", "new", with_="adabn"),
        tb.evaluate("adapts", "new"),
    )
    assert plain.scores.nll != adapted.scores.nll == trained.scores.nll
