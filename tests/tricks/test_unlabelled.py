"""Images without labels, beside those of a step and before the first: which, in what views, and what tricks make of them."""

import copy
import itertools
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import album
import numpy as np
import pytest
import torch
from pretended import CUDA, OnAccelerator, accelerator
from torch import Tensor, nn
from torch.nn.functional import interpolate, pixel_shuffle

import trickbag as tb
from trickbag.engine.assemble import assemble
from trickbag.engine.crowd import Crowd
from trickbag.engine.loader import Keys
from trickbag.engine.loop import Loop, Step, micro_batches
from trickbag.engine.speed import Timing, time_steps
from trickbag.ground.errors import UsageError
from trickbag.ground.streams import key
from trickbag.laboratory.lab import dataset, fabric_of, loop, recipe, train
from trickbag.laboratory.laws import check_resume
from trickbag.models.networks import build
from trickbag.runs import auto
from trickbag.runs.request import request
from trickbag.runs.seen import Seen
from trickbag.trick import Batch, Facts, Outputs, Unlabelled, conflict
from trickbag.tricks import parse
from trickbag.tricks.fixmatch import answered, consistency, flexible, free, strong, sure
from trickbag.tricks.mean_teacher import distance, ramped
from trickbag.tricks.mean_teacher import follow as catch_up
from trickbag.tricks.pretrain import BYOL, MAE, altered, contrastive, hidden, reconstruction, regression

LABELLED, ALL = 41, 50
"""Training images of the laboratory, and with those that have no labels."""
FIXMATCH, TEACHER = "fixmatch(unlabelled='more', threshold=0.3)", "mean_teacher(unlabelled='more')"
KINDS = (
    FIXMATCH,
    "fixmatch(unlabelled='more', kind='flexible', threshold=0.4)",
    "fixmatch(unlabelled='more', kind='free')",
)


def steps(made: Loop, epoch: int) -> list[Batch]:
    return [batch for _, batch in made.loader.train(made.plan.epoch(epoch), epoch)]


def unlabelled(batch: Batch) -> Unlabelled:
    assert batch.unlabelled is not None
    return batch.unlabelled


# what stands beside a step's images
@pytest.mark.parametrize("ratio", [1, 7])
def test_all_images_come_once_before_any_comes_again(ratio: int) -> None:
    made = loop(recipe(f"fixmatch(unlabelled='more', ratio={ratio})"))
    assert made.judge.facts.unlabelled == ALL
    seen = torch.cat([unlabelled(batch).rows.flatten() for batch in steps(made, 0)])
    assert len(seen) == ratio * LABELLED
    for part in seen.split(ALL):
        assert len(part.unique()) == len(part)
    again = torch.cat([unlabelled(batch).rows.flatten() for batch in steps(made, 1)])
    assert not torch.equal(seen, again), "each epoch has an order of its own"


@pytest.mark.parametrize("batch_size", [5, 64])
def test_what_stands_beside_an_image_depends_on_its_place_alone(batch_size: int) -> None:
    def all_of(size: int) -> tuple[Tensor, Tensor]:
        found = [unlabelled(batch) for batch in steps(loop(recipe(FIXMATCH, "flip", batch_size=size)), 1)]
        return torch.cat([one.x for one in found]), torch.cat([one.rows for one in found])

    for one, other in zip(all_of(batch_size), all_of(16), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("trick", [FIXMATCH, TEACHER])
def test_training_images_are_what_they_are_without_it(trick: str) -> None:
    others = "flip", "random_resized_crop", "trivialaugment", "mixup"
    for mine, plain in zip(steps(loop(recipe(*others, trick)), 1), steps(loop(recipe(*others)), 1), strict=True):
        assert torch.equal(mine.x, plain.x)
        assert plain.unlabelled is None


def test_views_are_drawn_apart_and_the_strong_one_is_altered_after_the_recipe() -> None:
    made = loop(recipe(FIXMATCH, "flip", "random_resized_crop", "rotate"))
    weak, altered = unlabelled(steps(made, 0)[0]).x.unbind(2)
    assert weak.shape == altered.shape == (16, 1, 3, 16, 16)
    crowd = cast(Crowd, made.loader.beside)
    part = next(made.plan.epoch(0))
    bare = copy.copy(crowd)
    bare.beside = crowd.beside._replace(views=((), ()))
    first, second = bare(part, 0, slice(None)).x.unbind(2)
    assert not torch.equal(first, second), "windows, mirrors and angles of a view are its own"
    torch.testing.assert_close(weak, (first.float() / 255 - 0.5) / 0.25)
    rows, copies = (values.flatten() for values in crowd.rows(part, 0))
    keys = Keys(key(made.plan.seed, crowd.name, 1), 0, rows, copies)
    expected = torch.stack([strong(image[0], 16, keys.generator("fixmatch", i, 0)) for i, image in enumerate(second)])
    torch.testing.assert_close(altered[:, 0], (expected.float() / 255 - 0.5) / 0.25)


def test_views_of_another_trick_spare_the_images_beside() -> None:
    plain, with_views = (loop(recipe(FIXMATCH, *more)) for more in ((), ("augmix",)))
    for mine, other in zip(steps(plain, 0), steps(with_views, 0), strict=True):
        assert torch.equal(unlabelled(mine).x, unlabelled(other).x)


@pytest.mark.parametrize("size", [0, 1, 3, 16, 40])
def test_micro_batches_take_along_what_stands_beside_their_images(size: int) -> None:
    batch = Batch(torch.arange(16.0)[:, None], torch.eye(16), torch.arange(16))
    beside = Unlabelled(torch.arange(32.0).view(16, 2, 1), torch.arange(32).view(16, 2))
    for part, _ in micro_batches(batch._replace(unlabelled=beside), size):
        assert torch.equal(unlabelled(part).rows[:, 0], 2 * part.rows)
        assert torch.equal(unlabelled(part).x.long()[:, :, 0], unlabelled(part).rows)


@pytest.mark.parametrize("trick", [FIXMATCH, TEACHER])
def test_a_training_in_parts_is_that_of_whole_batches(trick: str) -> None:
    """But for rounding, where no norm goes by its batch."""
    fields: dict[str, Any] = {"model": "test_vit", "size": 32, "epochs": 1, "lr": 0.01, "batch_size": 12}
    whole, parts = (train(trick, **fields, micro_batch=size) for size in (0, 5))
    np.testing.assert_allclose(whole.losses, parts.losses, rtol=1e-4)


def test_timed_steps_have_training_images_beside_them_where_no_folder_was_read() -> None:
    data, pixels = dataset()
    bare, made = data._replace(images=data.images.take(data.images.splits != "unlabelled")), recipe(FIXMATCH)
    assembled = assemble(made, bare, pixels, 0, fabric_of("fp32"), lambda *_: nn.Identity())
    assert assembled.judge.facts.unlabelled == LABELLED
    assert [unlabelled(batch).rows.shape for batch in steps(assembled, 0)] == [(16, 1), (16, 1), (9, 1)]
    assert time_steps(made, bare, pixels, 0, steps=2).train > 0


@pytest.mark.parametrize("other", [TEACHER, "pseudo_label(unlabelled='elsewhere')"])
def test_tricks_that_would_share_one_place_are_refused(other: str) -> None:
    reason = conflict(parse(FIXMATCH), parse(other))
    assert "Choose one" in reason
    assert reason == conflict(parse(FIXMATCH), parse(other))
    assert not conflict(parse(FIXMATCH), parse("pseudo_label(unlabelled='more')"))


# a whole run
@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRICKBAG_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    album.fill(Path("photos"), {"a": 0, "b": 1}, 10)
    album.fill(Path("more"), {"any": 2}, 7, seed=1)
    (Path("more") / "copy.png").write_bytes((Path("photos") / "a" / "00.png").read_bytes())
    album.recipe_file(Path("tiny.toml"))
    return tmp_path


def test_a_run_takes_the_folder_once_without_copies_and_says_what_it_saw(place: Path) -> None:
    asked: Any = {"with_": "fixmatch(unlabelled='more'), pseudo_label(unlabelled='more', threshold=0.6)", "set_": {"epochs": 1}}
    made = tb.train("photos", "tiny.toml", **asked, out="run")
    assert made.record["test"]["n"] == 4
    assert len(Seen.load(made.folder).train) == 14 + 7, "of the folder all but the copy, whether they got a label or not"
    assert request("photos", "tiny.toml", **asked).key == made.record["request"]
    (Path("more") / "any" / "00.png").unlink()
    assert request("photos", "tiny.toml", **asked).key != made.record["request"]


# the mathematics, in float64
def reference_thresholds(counts: np.ndarray, images: int) -> np.ndarray:
    """Zhang et al. 2021, equations 6 (with warm-up, 11) and 12."""
    beta = counts / max(counts.max(), images - counts.sum(), 1)
    return beta / (2 - beta)


@pytest.mark.parametrize("counts", [[0, 0], [1, 0], [5, 5], [0, 7, 2], [100, 1, 40, 3]])
@pytest.mark.parametrize("spare", [0, 1, 50])
def test_flexible_thresholds_are_the_papers(counts: list[int], spare: int) -> None:
    images = sum(counts) + spare
    expected = reference_thresholds(np.array(counts, float), images)
    np.testing.assert_allclose(flexible(torch.tensor(counts), images).double().numpy(), expected, rtol=1e-6)


def test_free_thresholds_are_the_papers() -> None:
    """Wang et al. 2023, equations 5 to 8, step by step in float64."""
    trick, rng = cast(Any, parse("fixmatch(unlabelled='more', kind='free')").fresh()), np.random.default_rng(0)
    trick.setup(nn.Linear(1, 1), fit(classes=4, steps=100))
    keep = 0.5 ** (1 / (100 * 0.02))
    tau, means = 0.25, np.full(4, 0.25)
    for step in range(6):
        np.testing.assert_allclose(free(trick.means_), tau * means / means.max(), rtol=1e-5)
        q = rng.dirichlet(np.ones(4), 9)
        tau = keep * tau + (1 - keep) * q.max(1).mean()
        means = keep * means + (1 - keep) * q.mean(0)
        trick._step = [(torch.from_numpy(part).float(), torch.arange(len(part))) for part in np.split(q, [4])]
        trick.update(None, (step + 1) / 100)


def fit(classes: int = 3, steps: int = 10, images: int = 20) -> Any:
    facts = Facts(tuple("abcdefgh"[:classes]), torch.full((classes,), 5), steps, 4, 16, 3, 0, 1, images)
    return SimpleNamespace(facts=facts)


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("scale", [1.0, 30.0, 1e4])
def test_the_consistency_is_the_papers(classes: int, scale: float) -> None:
    """Sohn et al. 2020, equation 4, in float64."""
    rng = np.random.default_rng(classes)
    weak, other = (torch.from_numpy(scale * rng.standard_normal((40, classes))).float() for _ in range(2))
    thresholds = torch.from_numpy(rng.uniform(0.3, 0.9, classes)).float()
    loss = 0.0
    for z, s in zip(weak.double().numpy(), other.double().numpy(), strict=True):
        q = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
        if q.max() >= thresholds[q.argmax()]:
            loss += np.log(np.exp(s - s.max()).sum()) + s.max() - s[q.argmax()]
    found = consistency(weak, other, thresholds)
    assert found.isfinite()
    np.testing.assert_allclose(found.double(), loss / 40, rtol=1e-5)


def test_where_nothing_is_sure_nothing_is_learned() -> None:
    other = torch.full((3, 2), 1e4, requires_grad=True)
    loss = consistency(torch.zeros(3, 2), other, torch.full((2,), 0.95))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss == 0
    assert cast(Tensor, other.grad).abs().sum() == 0
    assert consistency(torch.zeros(1, 2), torch.zeros(1, 2), torch.zeros(2)).item() == pytest.approx(math.log(2))


def test_an_answer_lasts_until_another_is_sure() -> None:
    last = torch.full((4,), 3)
    q = torch.tensor([[0.9, 0.05, 0.05], [0.4, 0.3, 0.3]])
    last = sure(q, torch.tensor([2, 1]), 0.8, last)
    assert last.tolist() == [3, 3, 0, 3]
    last = sure(q.flip(1), torch.tensor([1, 2]), 0.8, last)
    assert last.tolist() == [3, 2, 0, 3], "the second image is unsure and keeps its answer"
    assert answered(q.double()).tolist() == pytest.approx([0.65, 0.65, 0.175, 0.175])


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_strong_view_keeps_form_and_covers_at_most_a_square_of_half_the_side(channels: int) -> None:
    seen = set()
    for number in range(40):
        rng = torch.Generator().manual_seed(number)
        image = torch.randint(0, 256, (channels, 16, 16), dtype=torch.uint8, generator=rng)
        made = strong(image, 16, rng)
        assert made.shape == image.shape
        assert made.dtype == torch.uint8
        grey = (made == 128).all(0)
        assert grey.sum() >= 16
        seen.add(int(grey.sum()))
    assert len(seen) > 3, "the square lies at many places"


@pytest.mark.parametrize("classes", [2, 7])
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_the_distance_is_the_papers(classes: int, scale: float) -> None:
    """Tarvainen and Valpola 2017: squared differences of softmax outputs, in float64; their mean over classes times K."""
    rng = np.random.default_rng(classes)
    z, r = (scale * rng.standard_normal((30, classes)) for _ in range(2))
    p, q = (np.exp(x - x.max(1, keepdims=True)) for x in (z, r))
    p, q = p / p.sum(1, keepdims=True), q / q.sum(1, keepdims=True)
    expected = classes * ((p - q) ** 2).mean()
    found = distance(torch.from_numpy(z).float(), torch.from_numpy(r).float())
    np.testing.assert_allclose(found.double(), expected, rtol=1e-4, atol=1e-7)
    assert distance(torch.from_numpy(z[:1]), torch.from_numpy(z[:1])) == 0


def test_the_weight_rises_as_in_the_paper() -> None:
    for step in range(101):
        t, ramp = step / 100, 0.25
        expected = math.exp(-5 * (1 - min(t / ramp, 1)) ** 2)
        assert ramped(t, ramp) == pytest.approx(expected, rel=1e-12)


def test_the_teacher_is_the_average_of_the_paper() -> None:
    """theta' <- a theta' + (1 - a) theta with a = min(1 - 1 / k, 2^(-s / half_life)), weights and steps of other lengths."""
    model = nn.Linear(2, 1, bias=False).double()
    trick = cast(Any, parse("mean_teacher(unlabelled='more', half_life=0.1)").fresh())
    trick.setup(model, fit())
    assert trick.eval_model(model) is model
    average, t = model.weight.detach().clone().numpy(), 0.0
    for step in range(1, 30):
        with torch.no_grad():
            model.weight += step
        length = 0.01 + 0.001 * (step % 5)
        t += length
        trick.update(model, t)
        alpha = min(1 - 1 / step, 0.5 ** (length / 0.1))
        average = alpha * average + (1 - alpha) * model.weight.detach().numpy()
        np.testing.assert_allclose(trick.teacher_.weight.detach().numpy(), average, rtol=1e-9)
    assert trick.eval_model(model) is trick.teacher_
    assert not trick.teacher_.weight.requires_grad


def test_buffers_of_the_teacher_follow_the_network() -> None:
    teacher, model = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    model(torch.randn(4, 2))
    catch_up(teacher, model, 0.5)
    assert torch.equal(teacher.running_mean, model.running_mean)


def test_the_teacher_goes_by_the_norms_as_the_network_does() -> None:
    made = loop(recipe(TEACHER, "freeze_norms"))
    modes = []
    trick = cast(Any, made.tricks[[trick.name() for trick in made.tricks].index("mean_teacher")])
    norm = next(m for m in trick.teacher_.modules() if isinstance(m, nn.BatchNorm2d))
    norm.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    list(itertools.islice(made.train(), 2))
    assert modes == [False, False]


@pytest.mark.parametrize("trick", [*KINDS, TEACHER])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_losses_stay_finite_and_learn(trick: str, precision: str) -> None:
    trained = train(trick, precision=precision, epochs=3)
    assert all(map(math.isfinite, trained.losses))
    assert trained.losses[-1] < trained.losses[0] + 0.5


@pytest.mark.parametrize("spec", KINDS[1:])
def test_thresholds_of_each_kind_are_kept_over_a_stop(spec: str) -> None:
    check_resume(recipe(spec))


@pytest.mark.parametrize("spec", KINDS[1:])
def test_thresholds_of_each_kind_keep_to_the_device_and_never_make_the_host_wait(spec: str) -> None:
    with accelerator() as device:
        made = loop(recipe(spec), fabric=OnAccelerator(accelerator="cpu"))
        taken = itertools.islice((event for event in made.train() if isinstance(event, Step)), 2)
        next(taken)
        device.waits.clear()
        next(taken)
        assert not device.waits
        assert {value.device for value in made.tricks[0].state().values()} == {CUDA}


def test_a_threshold_that_would_not_count_is_refused() -> None:
    with pytest.raises(UsageError, match="Leave threshold out"):
        parse("fixmatch(unlabelled='more', kind='free', threshold=0.5)")


def test_the_penalty_learns_from_the_strong_view_alone() -> None:
    made = loop(recipe("fixmatch(unlabelled='more', threshold=0.01)"))
    (trick,), batch = made.tricks, steps(made, 0)[0]
    x = unlabelled(batch).x.clone().requires_grad_()
    outputs = made.model(batch.x)
    beside = unlabelled(batch)._replace(x=x)
    trick.penalty(batch._replace(unlabelled=beside), outputs, made.model, 0.0).backward()  # type: ignore[no-untyped-call]
    weak, altered = cast(Tensor, x.grad).unbind(2)
    assert weak.abs().sum() == 0
    assert altered.abs().sum() > 0


# before the first step
@pytest.mark.parametrize("size", [2, 9])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_the_contrastive_loss_is_the_papers(size: int, scale: float) -> None:
    """Chen et al. 2020, equation 1 and algorithm 1, pair by pair in float64."""
    a, b = torch.from_numpy(scale * np.random.default_rng(size).standard_normal((2, size, 5))).float()
    z = torch.cat([a, b]).double().numpy()
    alike = np.array([[u @ v / np.linalg.norm(u) / np.linalg.norm(v) for v in z] for u in z])
    loss = 0.0
    for i in range(2 * size):
        j = (i + size) % (2 * size)
        loss -= alike[i, j] / 0.1 - np.log(sum(np.exp(alike[i, k] / 0.1) for k in range(2 * size) if k != i))
    np.testing.assert_allclose(contrastive(a, b, 0.1).double(), loss / (2 * size), rtol=1e-4, atol=1e-4)


def test_the_regression_is_the_papers() -> None:
    """Grill et al. 2020, equation 2, in float64."""
    p, z = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 6, 4)))
    expected = np.mean([((u / u.norm() - v / v.norm()) ** 2).sum().item() for u, v in zip(p, z, strict=True)])
    assert regression(p, z).item() == pytest.approx(expected, rel=1e-9)


def test_the_average_of_byol_is_the_papers() -> None:
    """Grill et al. 2020, section 3.2: 1 - (1 - tau) (cos(pi k / K) + 1) / 2 stays, tau 0.99; no gradient goes through it."""
    seen = Outputs(torch.zeros(1, 3, 1, 1), torch.zeros(1, 3), torch.zeros(1, 2))
    learner = BYOL(nn.Identity(), seen, torch.Generator())
    new, old = (cast(Any, body).projector[0].weight for body in (learner.body, learner.average))
    with torch.no_grad():
        new += 1
    for t in (0.0, 0.3, 1.0):
        before, stays = old.clone(), 1 - 0.01 * (math.cos(math.pi * t) + 1) / 2
        learner.follow(t)
        torch.testing.assert_close(old, stays * before + (1 - stays) * new.detach(), rtol=1e-6, atol=1e-7)
    assert not old.requires_grad
    assert new.requires_grad


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [8, 40])
def test_an_altered_view_keeps_form_and_leaves_the_image_as_it_was(channels: int, size: int) -> None:
    image = torch.randint(0, 256, (channels, size, size), dtype=torch.uint8)
    kept, made = image.clone(), [altered(image, size, torch.Generator().manual_seed(n)) for n in range(8)]
    assert all(one.shape == image.shape and one.dtype == torch.uint8 for one in made)
    assert torch.equal(image, kept)
    assert not any(torch.equal(one, other) for one, other in itertools.combinations(made, 2))


def test_each_epoch_before_training_shows_every_image_once_in_two_views() -> None:
    made = loop(recipe("pretrain(unlabelled='more')"))
    assert all(batch.unlabelled is None for batch in steps(made, 0)), "in training there is nothing beside a step"
    told: list[Any] = []
    made.judge.tell = told.append
    shares, views = zip(*made.judge.unlabelled(2, 7), strict=True)
    assert [len(x) for x in views] == 2 * [7] * 7, "50 images: the last one has no other to be told from"
    assert shares == pytest.approx([step / 14 for step in range(14)])
    assert (told[-1].done, told[-1].total) == (14, 14)
    assert not torch.equal(views[0][:, 0], views[0][:, 1])
    again = [x for _, x in made.judge.unlabelled(2, 7)]
    assert all(torch.equal(one, other) for one, other in zip(views, again, strict=True))
    crowd = Crowd(made.judge.loaders["beside"], made.tricks[0])
    assert [sum(map(len, crowd.parts(torch.arange(ALL), size))) for size in (7, 25, 50, 999)] == [49, 50, 50, 50]


@pytest.mark.parametrize("method", ["simclr", "byol", "mae"])
def test_pretraining_keeps_the_network_alone_and_the_classifier_as_it_was(method: str) -> None:
    made = loop(recipe(f"pretrain(method='{method}', epochs=2, images=16)"))
    before = {name: value.clone() for name, value in made.model.state_dict().items()}
    list(made.prepare())
    after = made.model.state_dict()
    assert before.keys() == after.keys()
    assert not torch.equal(after["net.conv1.weight"], before["net.conv1.weight"])
    assert all(torch.equal(after[name], before[name]) for name in cast(Any, made.model).head_names)
    assert all(p.grad is None for p in made.model.parameters())


def test_simclr_learns_to_tell_images_apart() -> None:
    made = loop(recipe("pretrain(epochs=12, images=25, rate=0.003)"))

    def loss() -> float:
        with torch.no_grad():
            _, x = next(made.judge.unlabelled(1, ALL))
            a, b = (made.model.eval()(view).features for view in x.unbind(1))
            return float(contrastive(a - a.mean(0), b - b.mean(0), 0.1))

    before = loss()
    list(made.prepare())
    assert loss() < before - 0.2


def test_mae_learns_what_is_blanked() -> None:
    """On stripes, of which the rest of an image says where they go on."""
    torch.manual_seed(0)
    made = loop(recipe("pretrain(method='mae')"))
    learner = MAE(made.model, made.model(torch.zeros(1, *made.model.shape)), torch.Generator())
    x = (
        torch.linspace(0, 12, made.model.shape[-1])
        .add(torch.rand(64, 1) * 6)
        .sin()[:, None, None]
        .expand(64, *made.model.shape)
    )
    optimizer = torch.optim.AdamW(learner.parameters(), 3e-3)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        losses.append(learner(x))
        losses[-1].backward()
        optimizer.step()
    assert losses[0] > 0.9, "at first it is no better than the mean of each square"
    assert sum(losses[-5:]) / 5 < 0.5


@pytest.mark.parametrize("pixels", [1, 3])
@pytest.mark.parametrize("halves", [1, 2])
def test_mae_compares_blanked_squares_alone(pixels: int, halves: int) -> None:
    """With the formula in float64, square by square."""
    rng = np.random.default_rng(pixels)
    images = rng.normal(size=(2, 3, 4 * pixels, 4 * pixels))
    blanked = rng.random((2, 4, 4)) < 0.5
    maps = torch.from_numpy(rng.normal(size=(2, 3 * (pixels * halves) ** 2, 4 // halves, 4 // halves)))
    predicted = pixel_shuffle(maps, halves)
    errors = []
    for image, i, j in np.argwhere(blanked):
        square = images[image, :, i * pixels : (i + 1) * pixels, j * pixels : (j + 1) * pixels].reshape(-1)
        wanted = (square - square.mean()) / np.sqrt(square.var() + 1e-6)
        errors.append(((predicted[image, :, i, j].numpy() - wanted) ** 2).mean())
    found = reconstruction(predicted, torch.from_numpy(images), torch.from_numpy(blanked)[:, None].double())
    assert found.item() == pytest.approx(np.mean(errors), rel=1e-12)


def test_mae_sees_nothing_of_what_it_predicts() -> None:
    made = loop(recipe("pretrain(method='mae')"))
    learner = MAE(made.model, made.model(torch.zeros(1, *made.model.shape)), torch.Generator())
    x = torch.randn(4, *made.model.shape)
    blanked = hidden(4, learner.squares, torch.Generator())
    seen: list[Tensor] = []
    hook = made.model.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    learner(x)
    hook.remove()
    shown = interpolate(blanked, x.shape[-2:])
    assert torch.equal(seen[0], torch.where(shown == 0, x, 0))
    assert 0.5 < shown.mean() < 0.7


@pytest.mark.parametrize(
    ("name", "size", "squares"), [("vit_tiny_patch16_224", 224, 14), ("resnet18", 100, 8), ("resnet18", 64, 8)]
)
def test_mae_divides_images_as_the_network_does(name: str, size: int, squares: int) -> None:
    model = build(name, 3, 3, size)
    learner = MAE(model, model.eval()(torch.zeros(1, 3, size, size)), torch.Generator())
    assert learner.squares == squares
    assert learner(torch.randn(2, 3, size, size)).isfinite()


def test_mae_wants_a_map() -> None:
    model = build("resnet18", 3, 3, 32)
    with pytest.raises(UsageError, match="one at 32 pixels"):
        MAE(model, model.eval()(torch.zeros(1, 3, 32, 32)), torch.Generator())


def test_a_loss_that_is_no_number_is_said() -> None:
    made = loop(recipe("pretrain(epochs=1, images=16)"))
    with torch.no_grad():
        next(made.model.parameters()).fill_(math.inf)
    with pytest.raises(UsageError, match="Lower its rate"):
        list(made.prepare())


def test_pretraining_is_in_the_price(place: Path) -> None:
    asked = request("photos", "tiny.toml")
    timing = Timing(train=2.0, judge=1.0, memory=0, loss=1.0)
    plain = auto.expected(asked.recipe.edit(["pretrain(epochs=0)"]), asked, timing)
    for spec, views in (
        ("pretrain(epochs=3)", 3 * 2 * 14),
        ("pretrain(epochs=3, method='mae')", 3 * 14),
        ("pretrain(epochs=3, unlabelled='more')", 3 * 2 * (14 + 8)),
    ):
        assert auto.expected(asked.recipe.edit([spec]), asked, timing) - plain == pytest.approx(views * 2.0)
