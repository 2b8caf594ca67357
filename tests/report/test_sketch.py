"""What a trick does, drawn: curves at named points, photos that differ, and files that open."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from trickbag.ground.text import brief
from trickbag.report import sketch
from trickbag.trick import having
from trickbag.tricks import bag, parse


@pytest.mark.parametrize(
    ("spec", "points"),
    [
        ("cosine", {0: 1.0, 500: 0.5, 1000: 0.0}),
        ("step_decay", {249: 1.0, 250: 0.1, 999: 0.001}),
        ("warmup(share=0.5)", {249: 0.5, 500: 1.0}),
        ("linear_scaling(base_batch=128)", {0: 2.0}),
    ],
)
def test_a_schedule_is_drawn_from_its_own_factors(spec: str, points: dict[int, float]) -> None:
    drawn = sketch.schedule(parse(spec))
    assert len(drawn) == sketch.STEPS + 1
    for step, factor in points.items():
        assert drawn[step] == pytest.approx(factor, abs=1e-9)


def test_an_augmentation_is_shown_on_a_photo_and_leaves_it_as_it_was() -> None:
    photo = sketch.photo()
    before = photo.clone()
    views = sketch.augmented(parse("color_jitter"), photo, 3, 64)
    assert [view.shape for view in views] == [(3, 64, 64)] * 3
    assert not torch.equal(views[0], views[1])
    assert torch.equal(photo, before)


DRAWN = [name for name, trick in bag().items() if {"lr", *sketch.AUGMENTING} & set(trick.plugs())]


@pytest.mark.parametrize("name", DRAWN)
def test_every_schedule_and_every_augmentation_can_be_drawn(name: str, tmp_path: Path, ask) -> None:
    file = tmp_path / "drawn.png"
    told = ask("tricks", name, "--plot", str(file))
    assert told.code == 0, told.err
    assert told.out.rstrip().endswith(f"drawn: {file}")
    with Image.open(file) as image:
        assert np.asarray(image.convert("L")).std() > 5
    again = file.read_bytes()
    ask("tricks", name, "--plot", str(file))
    assert file.read_bytes() == again


def test_a_file_of_ones_own_is_not_drawn_over(tmp_path: Path, ask) -> None:
    file = tmp_path / "mine.png"
    Image.new("RGB", (3, 3)).save(file)
    own = file.read_bytes()
    told = ask("tricks", "cosine", "--plot", str(file))
    assert (told.code, told.err) == (
        2,
        f"trickbag: --plot {brief(str(file))} is there already. Remove it, or choose another name.\n",
    )
    assert file.read_bytes() == own


def test_what_cannot_be_drawn_is_said(tmp_path: Path, ask) -> None:
    assert not having([parse("adam")], "lr")
    told = ask("tricks", "adam", "--plot", str(tmp_path / "a.png"))
    assert (told.code, told.err) == (2, "trickbag: adam is neither a schedule nor an augmentation: there is nothing to draw.\n")
    assert "Name it" in ask("tricks", "--plot", str(tmp_path / "a.png")).err
    assert not list(tmp_path.iterdir())
