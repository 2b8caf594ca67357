"""Pictures of a run as PNG bytes: equal input gives equal bytes, and no state is shared between calls."""

import io
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from PIL import Image

INK, QUIET, GRID = "#1f2933", "#5f6c7b", "#e4e7eb"
BLUE, ORANGE, GREEN = "#1f5fa8", "#c8661d", "#2f7d5b"
BLUES = LinearSegmentedColormap.from_list("blues", ["#ffffff", "#c6dbf0", "#5b9bd0", "#12467f"])
COUNTS_UP_TO, LABELS_UP_TO = 20, 40
LABEL_LENGTH = 22
DPI = 120
SHARES = (0, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1)


def curves(log: Sequence[Mapping[str, Any]]) -> bytes:
    """The lines of a run's log -> PNG: loss and learning rate per step and epoch, top-1 on validation, the kept epoch.

    Epoch lines have ``epoch, step, loss, lr``, ``val`` (as judged: its ``top1``, 0..1), ``raw`` (the weights as trained, if
    other weights are judged) and ``kept``; step lines have ``step, loss, lr``.
    """
    epochs = [line for line in log if line["kind"] == "epoch"]
    figure = Figure(figsize=(7.5, 7.0), dpi=DPI, layout="constrained", facecolor="white")
    top, middle, bottom = figure.subplots(3, 1, sharex=True, height_ratios=[3, 3, 1.2])
    per_epoch = epochs[-1]["step"] / epochs[-1]["epoch"] if epochs and epochs[-1]["epoch"] else 1
    fine = [(line["step"] / per_epoch, line) for line in log]
    _style(top, "training loss")
    steps = [(x, line["loss"]) for x, line in fine if line["kind"] == "step"]
    top.plot(*_columns(steps), color=BLUE, alpha=0.35, linewidth=1)
    top.plot(*_columns([(line["epoch"], line["loss"]) for line in epochs]), color=BLUE, linewidth=2, marker="o", markersize=3.5)
    _style(middle, "validation top-1")
    middle.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    for key, label, color, line_style in (("raw", "weights as trained", ORANGE, "--"), ("val", "as judged", GREEN, "-")):
        points = [(line["epoch"], line[key]["top1"]) for line in epochs if line.get(key)]
        if points:
            middle.plot(*_columns(points), line_style, color=color, linewidth=2, marker="o", markersize=3.5, label=label)
    _mark_kept(middle, epochs)
    if middle.get_legend_handles_labels()[0]:
        middle.legend(facecolor="white", edgecolor="none", framealpha=0.9, fontsize=9, labelcolor=INK, loc="best")
    _style(bottom, "learning rate")
    bottom.plot(*_columns([(x, line["lr"]) for x, line in fine]), color=QUIET, linewidth=1.5)
    bottom.set_ylim(bottom=0)
    bottom.set_xlabel("epoch" if epochs else "step", color=INK)
    bottom.set_xlim(left=0)
    bottom.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    figure.align_ylabels()
    return _png(figure)


def schedule(factors: Sequence[float], name: str) -> bytes:
    """Factors on the learning rate at evenly spread shares of training -> PNG."""
    figure = Figure(figsize=(6.4, 2.6), dpi=DPI, layout="constrained", facecolor="white")
    axes = figure.subplots()
    _style(axes, "times the learning rate")
    axes.plot(np.linspace(0, 1, len(factors)), factors, color=BLUE, linewidth=2)
    axes.set(xlim=(0, 1), ylim=(0, None))
    axes.set_xlabel("share of training", color=INK)
    axes.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    axes.set_title(name, color=INK, fontsize=10, parse_math=False)
    return _png(figure)


def gallery(images: Sequence[Any], name: str, columns: int = 4) -> bytes:
    """Images uint8 [3, h, w] of one size -> PNG, the first one as it was."""
    rows = math.ceil(len(images) / columns)
    figure = Figure(figsize=(1.9 * columns, 1.95 * rows + 0.3), dpi=DPI, layout="constrained", facecolor="white")
    for axes in figure.subplots(rows, columns).flat:
        axes.set_axis_off()
    for axes, image in zip(figure.axes, images, strict=False):
        axes.imshow(np.asarray(image).transpose(1, 2, 0))
    figure.suptitle(name, color=INK, fontsize=10, parse_math=False)
    return _png(figure)


def heat(image: Any, places: Any, name: str, share: float) -> bytes:
    """An image uint8 [C, h, w], a map [h, w] in 0..1, a class and its probability -> PNG: the image, and the map over it."""
    pixels = np.asarray(image).transpose(1, 2, 0)
    pixels = pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., 0]
    figure = Figure(figsize=(6.4, 3.5), dpi=DPI, layout="constrained", facecolor="white")
    for axes, shown in zip(figure.subplots(1, 2), (False, True), strict=True):
        axes.imshow(pixels, cmap="gray", vmin=0, vmax=255)
        if shown:
            axes.imshow(np.asarray(places), cmap="inferno", alpha=0.55, vmin=0, vmax=1)
        axes.set_axis_off()
    figure.suptitle(f"{_label(name)}: {100 * share:.1f} %", color=INK, fontsize=10, parse_math=False)
    return _png(figure)


def glow(image: Any, places: Any) -> bytes:
    """An image uint8 [C, h, w] and a map [h, w] in 0..1 -> PNG of its size: the image in grey, coloured by the map."""
    grey = np.asarray(image, dtype=np.float64)[:3].mean(0)[..., None]
    share = np.asarray(places, dtype=np.float64)
    cover = 0.15 + 0.5 * share[..., None]
    shown = (1 - cover) * grey + cover * 255 * colormaps["inferno"](share)[..., :3]
    file = io.BytesIO()
    Image.fromarray(shown.clip(0, 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def confusion(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> bytes:
    """Images [K][K] by class (row) and prediction (column), and K names -> PNG; colour is the share of a row, 0..1.

    Up to 20 classes the counts are printed; above 40 the names are left out.
    """
    counts = np.asarray(matrix, dtype=np.int64).reshape(len(classes), len(classes))
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = 4.2 + 0.32 * min(len(classes), LABELS_UP_TO) if len(classes) <= LABELS_UP_TO else 10.0
    figure = Figure(figsize=(side + 0.8, side), dpi=DPI, layout="constrained", facecolor="white")
    axes = figure.subplots()
    # The root makes rare confusions visible, which are what one looks for.
    norm = PowerNorm(0.5, 0, 1)
    # With more cells than pixels a lone confusion would fall between pixels, unless averages are drawn.
    drawn = axes.imshow(shares, cmap=BLUES, norm=norm, interpolation="auto")
    axes.set_xlabel("predicted", color=INK)
    axes.set_ylabel("class", color=INK)
    axes.tick_params(colors=INK, length=0, labelsize=9)
    axes.spines[:].set_color(GRID)
    if len(classes) <= LABELS_UP_TO:
        names = [_label(name) for name in classes]
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor", parse_math=False)
        axes.set_yticks(range(len(names)), names, parse_math=False)
    else:
        axes.set(xticks=[], yticks=[], ylabel=f"class (of {len(classes):,})")
    if len(classes) <= COUNTS_UP_TO:
        for (row, column), count in np.ndenumerate(counts):
            if count:
                color = "white" if shares[row, column] > 0.3 else INK
                axes.text(column, row, f"{count}", ha="center", va="center", fontsize=8, color=color)
    percent = PercentFormatter(1, symbol=" %", decimals=0)
    bar = figure.colorbar(drawn, ax=axes, fraction=0.04, pad=0.02, ticks=SHARES, format=percent)
    bar.set_label("share of the class", color=INK)
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=INK, length=0, labelsize=9)
    return _png(figure)


def _mark_kept(axes: Axes, epochs: Sequence[Mapping[str, Any]]) -> None:
    kept = [line for line in epochs if line.get("kept") and line.get("val")]
    if not kept:
        return
    epoch, top1 = kept[-1]["epoch"], kept[-1]["val"]["top1"]
    axes.axvline(epoch, color=GREEN, linewidth=1, linestyle=":", zorder=1)
    ring: dict[str, Any] = {"markersize": 9, "markerfacecolor": "none", "markeredgecolor": GREEN, "markeredgewidth": 2}
    axes.plot([epoch], [top1], marker="o", linestyle="none", zorder=4, label=f"kept: epoch {epoch}, {100 * top1:.1f} %", **ring)


def _style(axes: Axes, label: str) -> None:
    axes.set_ylabel(label, color=INK)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRID)
    axes.tick_params(colors=QUIET, length=0, labelsize=9)


def _columns(points: Sequence[tuple[float, float | None]]) -> tuple[list[float], list[float]]:
    """Points -> x and y, with gaps where a value is missing or not finite."""
    ys = [math.nan if y is None or not math.isfinite(y) else y for _, y in points]
    return [x for x, _ in points], ys


def _label(name: str) -> str:
    """A class name on one line, shortened in the middle."""
    if len(name) > LABEL_LENGTH:
        name = f"{name[: LABEL_LENGTH // 2]}…{name[1 - LABEL_LENGTH // 2 :]}"
    return "".join(char if char.isprintable() else "·" for char in name)


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        # matplotlib draws a box for letters that its font lacks, which is all that can be done.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(file, format="png", metadata={"Software": "trickbag"}, bbox_inches="tight", pad_inches=0.12)
    return file.getvalue()
