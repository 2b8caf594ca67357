"""What ``auto`` decides, and how a budget becomes a number of epochs. Laws, whatever its constants are."""

import math
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import album
import huggingface_hub
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import trickbag as tb
from trickbag.engine.speed import Timing
from trickbag.ground import store
from trickbag.ground.errors import UsageError
from trickbag.ground.events import Note, silent
from trickbag.ground.text import duration
from trickbag.models import networks
from trickbag.recipe import Recipe
from trickbag.runs import auto, run
from trickbag.runs.request import Request, request
from trickbag.tricks import calibrate

TIMING = Timing(0.002, 0.001, 1_000_000, 1.0)
KINDS = {"a": 0, "b": 1, "c": 2}
READ: dict[bool, Request] = {}
"""A request with and one without weights, for the test whose examples may not share a fixture of a function."""
SECONDS = st.floats(1e-6, 10, allow_nan=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data sets of small grey, small coloured and few images, and a file of weights."""
    root = tmp_path_factory.mktemp("auto")
    album.fill(root / "grey", KINDS, 30, channels=1)
    album.fill(root / "colour", KINDS, 30)
    album.fill(root / "few", KINDS, 5)
    store.save_tensors(root / "w.safetensors", networks.build("cifar_resnet8", 3, size=32).net.state_dict())
    return root


@pytest.fixture(autouse=True)
def no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No connection and no published weights on this machine: as HF_HUB_OFFLINE=1 with an empty HF_HOME."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TRICKBAG_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[Recipe]:
    """A machine of known speed, and a clock that stands still; the recipes that were timed on it."""
    asked: list[Recipe] = []

    def fastest(recipe: Recipe, *_: Any) -> tuple[Recipe, Timing, str]:
        asked.append(recipe)
        return recipe.edit(precision="fp32", channels_last=False), TIMING, "fp32 is the fastest here"

    monkeypatch.setattr(auto, "fastest", fastest)
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    return asked


def names(recipe: Recipe) -> set[str]:
    return {trick.name() for trick in recipe.tricks}


def tuned(folder: Path, data: str = "colour", **asked: Any) -> Request:
    """A request that begins with weights from a file."""
    return request(folder / data, model="cifar_resnet8", weights=folder / "w.safetensors", **asked)


def with_budget(wanted: Request, budget: float) -> Request:
    return replace(wanted, budget=budget, began=time.monotonic())


@pytest.mark.parametrize(("data", "asked"), [("grey", {}), ("colour", {"budget": 60}), ("few", {}), ("few", {"budget": 60})])
@pytest.mark.parametrize("weights", [False, True])
def test_nothing_is_left_open_and_each_choice_has_its_reason(
    folder: Path, timed: list[Recipe], data: str, asked: dict[str, Any], weights: bool
) -> None:
    decision = auto.decide(tuned(folder, data, **asked) if weights else request(folder / data, **asked), silent)
    recipe, reasons = decision.recipe, " ".join(decision.reasons)
    assert "auto" not in recipe.spelled().values()
    assert all(re.search(r"[a-z]{3} ", reason) for reason in decision.reasons)
    assert "fp32 is the fastest here" in decision.reasons
    assert weights or (recipe.model in reasons and f"{recipe.size} pixels" in reasons and f"{recipe.epochs} epochs" in reasons)
    assert not asked or not recipe.epochs or "budget" in reasons
    assert decision.seconds == pytest.approx(auto.expected(recipe, request(folder / data), TIMING))


def test_a_recipe_that_is_not_auto_is_taken_as_it_is(folder: Path, timed: list[Recipe]) -> None:
    decision = auto.decide(request(folder / "colour", "cifar"), silent)
    assert decision.recipe == Recipe.load("cifar").edit(precision="fp32", channels_last=False, compile=False)
    assert decision.reasons == ("fp32 is the fastest here",)


@pytest.mark.parametrize("data", ["grey", "colour", "few"])
@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("budget", [0, 0.5, 3600])
def test_what_the_user_set_stays(folder: Path, timed: list[Recipe], data: str, weights: bool, budget: float) -> None:
    fields = {"epochs": 7, "size": 40, "lr": 0.123, "batch_size": 5, "crop_share": 0.7, "weight_decay": 0.5, "keep": "last"}
    asked: dict[str, Any] = {"set_": fields | {"flip.p": 0.25}, "with_": ["mixup(alpha=0.4)"], "without": ["warmup"]}
    wanted = tuned(folder, data, **asked) if weights else request(folder / data, model="cifar_resnet8", **asked)
    recipe = auto.decide(with_budget(wanted, budget), silent).recipe
    assert {name: getattr(recipe, name) for name in fields} == fields
    assert recipe.model == "cifar_resnet8"
    assert recipe.weights == (str(folder / "w.safetensors") if weights else "none")
    assert {"mixup(alpha=0.4)", "flip(p=0.25)"} <= {str(trick) for trick in recipe.tricks}
    assert "warmup" not in names(recipe)


def test_from_scratch_is_for_the_user_to_choose(folder: Path, timed: list[Recipe]) -> None:
    recipe = auto.decide(request(folder / "colour", weights="none", set_={"epochs": 3}), silent).recipe
    assert recipe.weights == "none"
    assert "fit_head" not in names(recipe)


def test_small_grey_images_are_not_flipped(folder: Path, timed: list[Recipe]) -> None:
    grey, colour = (auto.decide(request(folder / data), silent) for data in ("grey", "colour"))
    assert "flip" not in names(grey.recipe)
    assert any("no flips" in reason for reason in grey.reasons)
    assert "flip" in names(colour.recipe)
    assert names(colour.recipe) - names(grey.recipe) == {"flip"}
    kept = auto.decide(request(folder / "grey", with_=["flip(p=0.1)"]), silent)
    assert "flip(p=0.1)" in {str(trick) for trick in kept.recipe.tricks}
    assert not any("no flips" in reason for reason in kept.reasons)


def test_with_few_images_per_class_only_the_classifier_is_trained(folder: Path, timed: list[Recipe]) -> None:
    decision = auto.decide(tuned(folder, "few"), silent)
    assert decision.recipe.epochs == 0
    assert "fit_head" in names(decision.recipe)
    assert "freeze_norms" not in names(decision.recipe)
    assert any("more than the classifier" in reason for reason in decision.reasons)


def test_with_weights_the_classifier_is_fitted_and_then_the_network_tuned(folder: Path, timed: list[Recipe]) -> None:
    decision = auto.decide(tuned(folder), silent)
    assert decision.recipe.epochs > 0
    assert "fit_head" in names(decision.recipe)
    assert decision.recipe.weights == str(folder / "w.safetensors")
    assert not names(decision.recipe) & {"freeze"}


def test_of_few_images_a_policy_of_the_users_own_takes_the_place_of_the_strong_one(folder: Path, timed: list[Recipe]) -> None:
    assert "trivialaugment" in names(auto.decide(tuned(folder), silent).recipe)
    decision = auto.decide(tuned(folder, with_=["three_augment"]), silent)
    assert "three_augment" in names(decision.recipe)
    assert "trivialaugment" not in names(decision.recipe)
    assert not any("strong augmentation" in reason for reason in decision.reasons)


def test_of_few_images_batch_norms_learn_nothing(folder: Path, timed: list[Recipe], monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless the user says otherwise, and where the network has any."""
    decision = auto.decide(tuned(folder), silent)
    assert "freeze_norms" in names(decision.recipe)
    assert any("batch norms stay as they are" in reason for reason in decision.reasons)
    asked = ("freeze_norms(until=0.0)", "zero_gamma", "norm_tuning", "ghost_norm")
    kept = {text: auto.decide(tuned(folder, with_=[text]), silent) for text in asked}
    for text, made in kept.items():
        assert [str(t) for t in made.recipe.tricks if "norms" in (t.slot, t.stilled)] == [text]
    named = auto.decide(tuned(folder, set_={"tricks": ["fit_head"]}), silent)
    assert names(named.recipe) == {"fit_head"}
    assert not any("batch norms" in reason for made in (named, *kept.values()) for reason in made.reasons)
    assert "zero_gamma" in names(auto.decide(request(folder / "colour", weights="none", with_=["zero_gamma"]), silent).recipe)
    store.save_tensors(folder / "vit.safetensors", networks.build("test_vit", 3, size=160).net.state_dict())
    vit = request(folder / "colour", model="test_vit", weights=folder / "vit.safetensors")
    assert "freeze_norms" not in names(auto.decide(vit, silent).recipe)
    monkeypatch.setattr(auto, "NORM_IMAGES", 5)
    assert "freeze_norms" not in names(auto.decide(tuned(folder), silent).recipe)


@pytest.mark.parametrize("weights", [False, True])
@given(train=SECONDS, judge=SECONDS, budget=st.floats(0.01, 1e6))
def test_a_budget_gives_as_many_epochs_as_fit(weights: bool, train: float, judge: float, budget: float) -> None:
    tricks = ("fit_head", "ema") if weights else ("cosine",)
    wanted = with_budget(READ[weights], budget)
    timing = Timing(train, judge, 0, 1.0)
    recipe = Recipe(epochs=50, tricks=tricks)
    made, reason = auto.shortened(recipe, wanted, timing)
    least = 0 if weights else 1
    room = auto.left(wanted) + 0.05  # the clock goes on
    assert least <= made.epochs <= recipe.epochs
    assert made.edit(epochs=recipe.epochs) == recipe
    assert made.epochs == least or auto.expected(made, wanted, timing) <= room
    more = auto.expected(recipe.edit(epochs=made.epochs + 1), wanted, timing)
    assert made.epochs == recipe.epochs or more > auto.left(wanted) - 0.05
    assert f"{made.epochs} epoch" in reason
    assert not re.search(r"\b1 epochs", reason)
    assert "budget" in reason


@pytest.fixture(scope="module", autouse=True)
def read(folder: Path) -> None:
    """Fill READ."""
    READ.update({True: tuned(folder), False: request(folder / "colour")})


def test_the_expected_time_counts_every_image_that_is_seen(folder: Path) -> None:
    wanted = request(folder / "colour")
    train, val, test = (int((wanted.data.images.splits == split).sum()) for split in ("train", "val", "test"))
    once = (val + test) * TIMING.judge
    each = train * TIMING.train + val * TIMING.judge
    assert auto.expected(Recipe(epochs=3), wanted, TIMING) == pytest.approx(once + 3 * each)
    assert auto.expected(Recipe(epochs=3, tricks=["ema"]), wanted, TIMING) > once + 3 * (each + val * TIMING.judge)
    fitted = once + (train + val) * TIMING.judge + 0.5 + 0.0003 * train
    assert auto.expected(Recipe(epochs=0, tricks=["fit_head"]), wanted, TIMING) == pytest.approx(fitted)


def test_planned_time_is_less_than_the_budget_and_the_clock_counts_from_the_request(
    folder: Path, timed: list[Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = with_budget(request(folder / "colour"), 60)
    assert 30 < auto.left(wanted) < 60
    before = auto.left(wanted)
    monkeypatch.setattr(time, "monotonic", lambda: 110.0)
    assert auto.left(wanted) == pytest.approx(before - 10)


@pytest.mark.parametrize("weights", [False, True])
def test_a_budget_that_is_too_small_trains_the_least_and_says_so(folder: Path, timed: list[Recipe], weights: bool) -> None:
    wanted = tuned(folder) if weights else request(folder / "colour")
    decision = auto.decide(with_budget(wanted, 1e-3), silent)
    assert decision.recipe.epochs == (0 if weights else 1)
    assert ("fit_head" in names(decision.recipe)) == weights
    assert any("budget" in reason and f"{decision.recipe.epochs} epoch" in reason for reason in decision.reasons)


@pytest.mark.parametrize(("fields", "cure"), [({}, "a smaller --model"), ({"epochs": 70}, "fewer --set epochs")])
@pytest.mark.parametrize("gone", [0.0, 100.0])
def test_what_exceeds_the_budget_is_named_beforehand(
    folder: Path, timed: list[Recipe], fields: dict[str, Any], cure: str, gone: float
) -> None:
    wanted = request(folder / "colour", set_=fields, budget=0.05, began=time.monotonic() - gone)
    decision = auto.decide(wanted, silent)
    (said,) = (reason for reason in decision.reasons if "exceed" in reason)
    assert f"exceed the budget of 0.05 s by about {duration(decision.seconds - 0.05 + gone)}" in said
    assert cure in said
    kept = auto.decide(with_budget(wanted, 1e6), silent)
    assert not any("exceed" in reason for reason in kept.reasons)


@pytest.mark.parametrize(("budget", "most"), [(0.0, 20.0), (40.0, 2.0), (7200.0, 20.0)])
def test_timing_gets_a_small_share_of_the_budget(
    folder: Path, timed: list[Recipe], monkeypatch: pytest.MonkeyPatch, budget: float, most: float
) -> None:
    """Larger images are then reckoned from what is known, and not timed again."""
    ends: list[float] = []

    def fastest(recipe: Recipe, _: Any, __: int, until: float) -> tuple[Recipe, Timing, str]:
        ends.append(until)
        monkeypatch.setattr(time, "monotonic", lambda: until)
        return recipe.edit(precision="fp32", channels_last=False), TIMING, "fp32 is the fastest"

    monkeypatch.setattr(auto, "fastest", fastest)
    auto.decide(with_budget(tuned(folder, set_={"epochs": 10}), budget), silent)
    assert ends == [pytest.approx(100.0 + most)]


def test_without_published_weights_it_starts_from_scratch_and_says_why(
    folder: Path, timed: list[Recipe], tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    for label, number in ((k, n) for k in KINDS for n in range(30)):
        (photos / label).mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(album.texture(KINDS[label], np.random.default_rng(number)))
        image.resize((120, 100)).save(photos / label / f"{number}.png")
    decision = auto.decide(request(photos), silent)
    assert decision.recipe.weights == "none"
    assert decision.recipe.epochs > 0
    assert "fit_head" not in names(decision.recipe)
    (said,) = (reason for reason in decision.reasons if "no connection" in reason)
    assert "from scratch" in said
    assert "--weights FILE" in said


@given(train=SECONDS, judge=SECONDS, budget=st.floats(1, 1e6))
def test_the_largest_images_that_hold_enough_epochs_are_chosen_and_timed_once(
    train: float, judge: float, budget: float
) -> None:
    timing, recipe = Timing(train, judge, 0, 1.0), Recipe(size=160, tricks=("fit_head",))
    timed: list[int] = []

    def fastest(tried: Recipe, *_: Any) -> tuple[Recipe, Timing, str]:
        timed.append(tried.size)
        return tried, timing.scaled((tried.size / 160) ** 2), ""

    def chosen(budget: float) -> Recipe:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(auto, "fastest", fastest)
            return auto.sized(recipe, with_budget(READ[True], budget), timing, math.inf)[0]

    def fits(size: int, epochs: int) -> bool:
        made, took = recipe.edit(size=size, epochs=epochs), timing.scaled((size / 160) ** 2)
        return auto.expected(made, READ[True], took) <= auto.SAFETY * budget - 0.2  # the clock goes on

    size = chosen(budget).size
    assert timed == [size] * (size != 160)
    enough = [size for size in auto.SIZES if fits(size, auto.LEAST_EPOCHS)]
    assert size >= max(enough, default=0)


def test_the_decision_is_taken_once_and_found_again(folder: Path, timed: list[Recipe], tmp_path: Path) -> None:
    told: list[str] = []

    def tell(event: Any) -> None:
        told.append(event.text if isinstance(event, Note) else "")

    wanted, out = request(folder / "colour", budget=60), tmp_path / "run"
    first = run.concrete(wanted, out, tell)
    text = (out / "recipe.toml").read_text()
    assert all(f"# {reason}" in text and reason in told for reason in auto.decide(wanted, silent).reasons)
    timed.clear()
    assert run.concrete(wanted, out, tell) == first
    assert timed == []


def test_a_resumed_run_goes_on_with_the_stored_decision(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(event: Any) -> None:
        if getattr(event, "epoch", 0) == 1:
            raise KeyboardInterrupt

    asked: dict[str, Any] = {
        "model": "cifar_resnet8", "budget": 3000, "out": tmp_path / "run", "set_": {"size": 16, "lr": 0.01, "epochs": 2}
    }  # fmt: skip
    with pytest.raises(KeyboardInterrupt):
        tb.train(folder / "colour", progress=stop, **asked)
    text = (tmp_path / "run" / "recipe.toml").read_text()
    monkeypatch.setattr(auto, "fastest", lambda *_: pytest.fail("timed again"))
    result = tb.train(folder / "colour", **asked)
    assert (result.folder / "recipe.toml").read_text() == text
    assert result.record["epochs"] == 2
    with pytest.raises(UsageError, match="holds another run"):
        tb.train(folder / "colour", **(asked | {"budget": 2000}))


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU takes fp16 well")
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_that_fp16_is_slow_on_a_cpu_is_said_before_anything_is_timed(folder: Path, timed: list[Recipe], precision: str) -> None:
    told: list[str] = []
    asked = request(folder / "colour", Recipe(model="cifar_resnet8", size=32, precision=precision))
    auto.decide(asked, lambda event: told.append(event.text if isinstance(event, Note) else ""))
    assert ["--set precision=bf16" in text for text in told] == ([True, False] if precision == "fp16" else [False])


def test_a_temperature_for_few_validation_images_is_said_to_be_uncertain(
    folder: Path, timed: list[Recipe], monkeypatch: pytest.MonkeyPatch, ask
) -> None:
    """The bound is measured: benchmarks/results/temperature.md."""
    album.recipe_file(folder / "tiny.toml")
    words = ["train", str(folder / "grey"), "--recipe", str(folder / "tiny.toml"), "--set", "epochs=1"]
    told = ask(*words, "--with", "calibrate", "--out", str(folder / "calibrated"))
    assert told.code == 0, told.err
    assert "calibrate is fitted to 9 validation images: with fewer than 200, probabilities may become far too sure" in told.out
    assert "fitted to" not in ask(*words, "--out", str(folder / "plain")).out
    monkeypatch.setattr(calibrate, "FEWEST", 9)
    assert "fitted to" not in ask(*words, "--with", "calibrate", "--seed", "1", "--out", str(folder / "enough")).out


@pytest.mark.parametrize(
    ("asked", "short"), [(["--budget", "0.01s"], True), (["--budget", "0.01s", "--set", "epochs=1"], False), ([], False)]
)
def test_that_a_budget_held_hardly_any_training_is_among_the_last_lines(
    folder: Path, ask, asked: list[str], short: bool
) -> None:
    album.recipe_file(folder / "tiny.toml")
    out = str(folder / f"short{len(asked)}")
    told = ask("train", str(folder / "grey"), "--recipe", str(folder / "tiny.toml"), *asked, "--out", out)
    assert told.code == 0, told.err
    last = told.out[told.out.index("trained cifar_resnet8") :]
    assert ("does not fit the budget of 0.01 s: 1 epoch is trained all the same. The scores are those of" in last) == short
    assert bool(tb.finish(out).record["short"]) == short
