"""The network of an ONNX file in whole numbers, calibrated on training images; how good and how fast beside the file itself."""

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnxruntime import InferenceSession
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torchvision.transforms.v2 import functional as F

from trickbag.engine.pixels import Pixels
from trickbag.exports.as_onnx import IMAGES, NETWORK, PROBABILITIES, opened
from trickbag.exports.graph import quiet
from trickbag.exports.parity import Alike, alike
from trickbag.exports.photos import Photos
from trickbag.ground.events import Doing, Tell
from trickbag.ground.text import counted

CALIBRATED = 128
"""Training images, evenly spread, by which the ranges of activations are found."""
KINDS = ("Conv", "Gemm", "MatMul")
TURNS = 9
BATCH, SIDE = 8, 256
"""Images, and pixels of a side, of a turn."""


@dataclass(frozen=True)
class Int8:
    """A file in whole numbers beside the one that it was made of."""

    file: str
    calibrated: int
    """Training images that were looked at."""
    images: str
    alike: Alike
    """``before`` is the file in fp32."""
    bytes: tuple[int, int]
    """Of the file in fp32 and of this one."""
    speed: float
    """Images per second as a multiple of the file in fp32, the median over turns."""
    speeds: tuple[float, float]
    """The least and the largest of the turns."""
    how: str
    """Of what the speed was measured."""


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, pixels: Pixels) -> None:
        rows = np.unique(np.linspace(0, len(pixels) - 1, min(CALIBRATED, len(pixels))).round().astype(int))
        self.images: Iterator[NDArray[np.uint8]] = (pixels[int(row)][None].numpy() for row in rows)
        self.count = len(rows)

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        image = next(self.images, None)
        return None if image is None else {IMAGES: image}


def quantised(file: Path, training: Pixels, target: Path) -> int:
    """Write the network of a file in whole numbers; resizing, normalising and the tricks stay in fp32.

    Weights are int8 with a scale for each channel, activations uint8 with one for each tensor, from the least to the largest
    value on ``CALIBRATED`` training images, whose number is returned. Weights use 7 bits, since processors without VNNI add
    pairs of products in 16 bits, which 8 would fill.
    """
    reader = _Reader(training)
    with quiet():
        quant_pre_process(file, target, skip_symbolic_shape=True)  # puts batch norms into the convolutions before them
    model = onnx.load(target)
    nodes = [node.name for node in model.graph.node if node.name.startswith(NETWORK) and node.op_type in KINDS]
    with quiet():
        quantize_static(
            model,
            target,
            reader,
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(KINDS),
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_quantize=nodes,
        )
    return reader.count


def compared(file: Path, whole: Path, calibrated: int, photos: Photos, tell: Tell) -> Int8:
    """The file in whole numbers beside the one in fp32, on all photos, and their speed in turns."""
    sessions = [opened(path) for path in (file, whole)]
    said: list[list[torch.Tensor]] = [[], []]
    for row in range(len(photos.judged)):
        image = photos.judged[row][None].numpy()
        for own, session in zip(said, sessions, strict=True):
            own.append(torch.from_numpy(session.run([PROBABILITIES], {IMAGES: image})[0]))
        tell(Doing("comparing int8 with fp32", row + 1, len(photos.judged)))
    found = alike(torch.cat(said[0]), torch.cat(said[1]), photos)
    ratios = list(_speeds(sessions, photos.judged))
    return Int8(
        whole.name,
        calibrated,
        photos.what,
        found,
        (file.stat().st_size, whole.stat().st_size),
        statistics.median(ratios),
        (min(ratios), max(ratios)),
        f"{TURNS} turns of {BATCH} images of {SIDE} x {SIDE} pixels, {counted(torch.get_num_threads(), 'thread')}",
    )


def _speeds(sessions: list[InferenceSession], pixels: Pixels) -> Iterator[float]:
    """The time in fp32 as a multiple of that in whole numbers, turn by turn, after one to warm up."""
    images = [F.resize(pixels[row % len(pixels)], [SIDE, SIDE], antialias=True) for row in range(BATCH)]
    batch = torch.stack(images).numpy()
    for turn in range(1 + TURNS):
        took = []
        for session in sessions:
            began = time.perf_counter()
            session.run([PROBABILITIES], {IMAGES: batch})
            took.append(time.perf_counter() - began)
        if turn:
            yield took[0] / took[1]
