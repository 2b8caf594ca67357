"""Pictures: real PNG, equal for equal input, and they show what they should."""

import io
import math
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from trickbag.report.figures import confusion, curves


def a_log(epochs: int = 4, kept: int = 3, raw: bool = True) -> list[dict[str, Any]]:
    log: list[dict[str, Any]] = []
    for epoch in range(1, epochs + 1):
        steps = (100 * epoch - 50, 100 * epoch)
        log += [{"kind": "step", "step": s, "loss": 2 / math.sqrt(s), "lr": 0.1, "images_per_second": 90.0} for s in steps]
        scores = {"val": {"top1": 0.5 + 0.1 * epoch}} | ({"raw": {"top1": 0.4 + 0.1 * epoch}} if raw else {})
        lines = {"kind": "epoch", "epoch": epoch, "step": 100 * epoch, "loss": 1 / epoch, "lr": 0.1, "seconds": 2.0}
        log.append(lines | scores | {"kept": epoch == kept})
    return log


def pixels(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


def near(image: np.ndarray, color: str, reach: int = 30) -> int:
    rgb = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return int((np.abs(image - rgb).max(2) < reach).sum())


def test_equal_input_gives_equal_bytes_without_version_or_date() -> None:
    matrix = [[5, 1], [0, 4]]
    assert curves(a_log()) == curves(a_log())
    assert confusion(matrix, ["a", "b"]) == confusion(matrix, ["a", "b"])
    for png in (curves(a_log()), confusion(matrix, ["a", "b"])):
        with Image.open(io.BytesIO(png)) as image:
            assert set(image.info) <= {"dpi", "Software"}
            assert image.info.get("Software", "trickbag") == "trickbag"


def test_matplotlib_settings_are_left_alone() -> None:
    before = dict(mpl.rcParams)
    curves(a_log())
    assert dict(mpl.rcParams) == before


def test_curves_show_judged_raw_and_kept() -> None:
    with_raw, without = pixels(curves(a_log())), pixels(curves(a_log(raw=False)))
    assert near(with_raw, "#c8661d") > 500 > 50 > near(without, "#c8661d")
    assert curves(a_log(kept=3)) != curves(a_log(kept=2))
    assert near(pixels(curves(a_log())), "#2f7d5b") > near(pixels(curves(a_log(kept=0))), "#2f7d5b")


@pytest.mark.parametrize("log", [[], a_log()[:1], a_log()[:3], a_log(epochs=1, kept=1)])
def test_a_log_may_be_short(log: list[dict[str, Any]]) -> None:
    assert pixels(curves(log)).shape[0] > 400


def test_a_diverged_run_is_drawn() -> None:
    log = [
        *a_log(),
        {"kind": "step", "step": 450, "loss": math.nan, "lr": 0.1},
        {"kind": "step", "step": 470, "loss": math.inf, "lr": 0.1},
    ]
    assert pixels(curves(log)).shape == pixels(curves(a_log())).shape


def test_rows_are_normalised() -> None:
    dark = "#12467f"
    once, often = pixels(confusion([[1, 0], [0, 1]], ["a", "b"])), pixels(confusion([[900, 0], [0, 1]], ["a", "b"]))
    assert near(once, dark) == pytest.approx(near(often, dark), rel=0.01)
    # A class without images leaves its row white: half of the dark cells are gone.
    assert near(pixels(confusion([[1, 0], [0, 0]], ["a", "b"])), dark) < 0.7 * near(once, dark)


def test_counts_are_printed_up_to_twenty_classes() -> None:
    few, many = np.eye(20, dtype=int), np.eye(21, dtype=int)
    assert confusion((3 * few).tolist(), ["x"] * 20) != confusion((4 * few).tolist(), ["x"] * 20)
    assert confusion((3 * many).tolist(), ["x"] * 21) == confusion((4 * many).tolist(), ["x"] * 21)


def test_names_are_shown_up_to_forty_classes() -> None:
    def drawn(classes: int, name: str) -> bytes:
        return confusion(np.eye(classes, dtype=int).tolist(), [name] * classes)

    assert drawn(40, "apple") != drawn(40, "pear")
    assert drawn(41, "apple") == drawn(41, "pear")


def test_a_thousand_classes_show_a_lone_confusion() -> None:
    matrix = np.eye(1000, dtype=int)
    plain = pixels(confusion(matrix.tolist(), ["x"] * 1000))
    matrix[500, 100:110] = 5
    assert (pixels(confusion(matrix.tolist(), ["x"] * 1000)) != plain).any()


@pytest.mark.parametrize("name", ["$x^2$", r"\frac{1}{2}$ $", "$unbalanced", "two\nlines\tand\0more", "寿司", "n" * 300, ""])
def test_names_are_text_and_not_formulas(name: str) -> None:
    assert pixels(confusion([[1, 0], [0, 1]], [name, "b"])).size


def test_a_formula_is_drawn_as_typed() -> None:
    # As a formula, both would be the same picture: spaces mean nothing there.
    assert confusion([[1]], ["$a b$"]) != confusion([[1]], ["$ab$"])
