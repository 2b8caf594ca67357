"""A frozen network is asked once for each view of an image, and the training is the same but for rounding."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trickbag.engine import prefix
from trickbag.engine.speed import time_steps
from trickbag.laboratory.lab import COUNTS, Trained, dataset, follow, loop, recipe, train
from trickbag.models.networks import Net

TRAIN = sum(COUNTS["train"])
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images went through a network whose backward pass or features are wanted, call by call."""
    counts: list[int] = []

    def counting(real: Any) -> Any:
        def counted(self: Net, x: Tensor) -> Any:
            if self.net.training:
                counts.append(len(x))
            return real(self, x)

        return counted

    for name in ("forward", "features"):
        monkeypatch.setattr(Net, name, counting(getattr(Net, name)))
    return counts


def with_and_without(monkeypatch: pytest.MonkeyPatch, asked: list[int], *tricks: str, **fields: object) -> tuple[int, int]:
    """Images that the network is asked about with looking up and without; the two trainings agree."""
    made: list[Trained] = []
    counts: list[int] = []
    for most in (prefix.MOST_BYTES, 0):
        monkeypatch.setattr(prefix, "MOST_BYTES", most)
        asked.clear()
        made.append(train(*tricks, **{"epochs": 4, "keep": "last", **fields}))
        counts.append(sum(asked))
    for name, value in made[0].live.items():
        torch.testing.assert_close(value, made[1].live[name], **CLOSE)
    torch.testing.assert_close(torch.tensor(made[0].losses), torch.tensor(made[1].losses), **CLOSE)
    torch.testing.assert_close(made[0].logits, made[1].logits, **CLOSE)
    return counts[0], counts[1]


@pytest.mark.parametrize("also", [(), ("label_smoothing",), ("dropout",), ("class_weights", "adamw"), ("balanced_sampling",)])
def test_a_frozen_network_is_asked_once_about_an_image(
    also: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, asked: list[int]
) -> None:
    few, many = with_and_without(monkeypatch, asked, "freeze", *also)
    assert few == TRAIN
    assert many >= 4 * 30


def test_it_is_asked_again_where_it_learns(monkeypatch: pytest.MonkeyPatch, asked: list[int]) -> None:
    """Frozen for two epochs of four."""
    few, many = with_and_without(monkeypatch, asked, "freeze(until=0.5)")
    assert (few, many) == (3 * TRAIN, 4 * TRAIN + 32)  # of the second, the first batch tells that features are too many


def test_each_fixed_version_is_looked_up(monkeypatch: pytest.MonkeyPatch, asked: list[int]) -> None:
    tricks = ("freeze", "flip", "distill(teacher='another', cached=True, fixed=2)")
    few, many = with_and_without(monkeypatch, asked, *tricks)
    assert few == 2 * TRAIN < many


@pytest.mark.parametrize(
    "tricks",
    [
        ("freeze", "flip"),
        ("freeze", "random_resized_crop"),
        ("freeze", "color_jitter"),
        ("freeze", "mixup"),
        ("freeze", "cutmix"),
        ("freeze", "progressive_resizing"),
        ("freeze", "manifold_mixup"),
        ("freeze", "augmix"),
        ("label_smoothing",),
        ("gradual_unfreeze(until=0.2)",),
    ],
)
def test_what_never_comes_again_is_not_looked_up(tricks: tuple[str, ...]) -> None:
    made = loop(recipe(*tricks, epochs=4))
    follow(made)
    assert not made.prefix.features


def test_chance_within_the_network_is_no_frozen_beginning() -> None:
    made = loop(recipe("freeze", "stochastic_depth(rate=0.5)", model="resnet18", size=48, epochs=4))
    follow(made)
    assert not made.prefix.features


def test_moving_statistics_and_chances_are_seen() -> None:
    made = loop(recipe(epochs=4)).model.train()
    for name, parameter in made.named_parameters():
        parameter.requires_grad_(name in made.head_names)
    assert not prefix.still(made)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    assert prefix.still(made)
    made.net.add_module("left_out", nn.Dropout(0.1))
    assert not prefix.still(made)


def test_a_pass_over_all_images_is_no_timed_step(asked: list[int]) -> None:
    data, pixels = dataset()
    time_steps(recipe("freeze", epochs=4, batch_size=4), data, pixels, 0)
    assert set(asked) == {4}
