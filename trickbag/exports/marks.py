"""A detector or a segmenter as an ONNX file, which has its name when what it finds is what the network finds.

The graph takes an image as the network wants it, scaled and padded; what follows is inside. torch's newer exporter cannot
follow torchvision's detectors, whose number of boxes depends on the image; its older one, which traces, can.
"""

import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import shorten
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.export import Dim

from trickbag.data.decode import Unreadable
from trickbag.exports.as_onnx import FAILURES, OPSET, opened
from trickbag.exports.graph import quiet
from trickbag.exports.parity import LEAST
from trickbag.exports.photos import clouds
from trickbag.ground import store
from trickbag.ground.errors import TrickbagError, UsageError
from trickbag.ground.events import Doing, Note, Tell
from trickbag.ground.records import MALFORMED
from trickbag.ground.shown import Sheet, Shown
from trickbag.ground.text import counted, show
from trickbag.statistics.detection import overlaps
from trickbag.transfers.evaluation import judging
from trickbag.transfers.folder import TransferRecord
from trickbag.transfers.moving import padded
from trickbag.transfers.predictor import Photo, Predictor

FILE, PARITY, DIFFERS = "model.onnx", "parity.json", ".differs"
MOST = 64
"""Photos that are compared, at most."""
SCORE, SAME = 0.05, 0.9
"""The least score of boxes that are compared, and how much two must overlap to be the same."""
OUTPUTS = {"detection": ["boxes", "labels", "scores"], "segmentation": ["probabilities"]}
Said = Sequence[NDArray[Any]]


class Graph(nn.Module):
    """uint8 [1, C, H, W] as the network wants it -> boxes [n, 4], labels [n] and scores [n], or probabilities [1, K, H, W]."""

    def __init__(self, model: Predictor) -> None:
        super().__init__()
        self.network, self.boxes = model.network, model.task == "detection"
        for name, values in (("mean", model.card.mean), ("std", model.card.std)):
            self.register_buffer(name, torch.tensor(values, device=model.fabric.device).mul(255)[:, None, None])
        self.mean: Tensor
        self.std: Tensor

    def forward(self, images: Tensor) -> Any:
        """The outputs in the order of OUTPUTS."""
        said = self.network.predict((images.float() - self.mean) / self.std)
        return said[0] if self.boxes else said.softmax(1)  # type: ignore[union-attr]


@dataclass(frozen=True)
class MarksParity:
    """A file beside its network, in fp32 and on the same pixels."""

    images: str
    """Which, and how many."""
    agreement: float
    """Share of the boxes that both find, or of the pixels that are of the same class, 0 to 1."""
    boxes: int | None
    """How many boxes the network found, of a score of at least SCORE; None for regions."""
    probability: float
    """The largest difference of a score or a probability of those."""
    side: float
    """The largest difference of a side of those boxes, in pixels of the canvas; 0 for regions."""

    @property
    def holds(self) -> bool:
        """Whether the file may be shipped."""
        return self.agreement >= LEAST


@dataclass(frozen=True, repr=False)
class MarksExported(Shown):
    """A detector or a segmenter as a file for other programs, and how it compares with the network."""

    folder: Path
    files: tuple[str, ...]
    parity: MarksParity

    def _sheet(self) -> Sheet:
        facts = {"agreement": f"{100 * self.parity.agreement:.2f} % on {self.parity.images}"}
        return Sheet(f"exported {self.folder / self.files[0]}", facts)

    def lines(self) -> Iterator[str]:
        """What was written and how well it agrees with the network, sentence by sentence."""
        found = self.parity
        yield f"exported {show(str(self.folder / self.files[0]))}, compared with the network on {found.images}"
        if found.boxes is not None:
            yield (
                f"{100 * found.agreement:.2f} % of {counted(found.boxes, 'box', 'boxes')} are found by both; largest "
                f"difference of a score {found.probability:.2g}, of a side {found.side:.2g} pixels"
            )
        else:
            yield (
                f"the same class for {100 * found.agreement:.3f} % of the pixels; largest difference of a probability "
                f"{found.probability:.2g}"
            )
        yield f"the figures are in {show(str(self.folder / PARITY))}"


def export(model: Predictor, data: Any, folder: Path, tell: Tell) -> MarksExported:
    """Write the file into a folder, and compare it on the images that judged the network, or on generated ones.

    Raises UsageError where ``data`` holds none of these, TrickbagError where torch cannot write the graph or the file differs.
    """
    what, photos = images_at_hand(model, data, tell)
    tell(Note(f"the file is to be compared with the network on {what}"))
    content = written(model)
    with TemporaryDirectory() as place:
        (Path(place) / FILE).write_bytes(content)
        found = compared(model, Path(place) / FILE, what, photos, tell)
    said = {"file": FILE, "run": TransferRecord.load(model.folder).request, "holds": found.holds}
    said |= {"sha256": hashlib.sha256(content).hexdigest(), "parity": asdict(found)}
    with store.lock(folder):
        store.claim(folder)
        for name in (FILE, FILE + DIFFERS):
            (folder / name).unlink(missing_ok=True)
        store.write(folder / PARITY, store.to_json(said, indent=2))
        store.write(folder / (FILE if found.holds else FILE + DIFFERS), content)
    if not found.holds:
        raise TrickbagError(
            f"{folder / FILE}{DIFFERS} is not the network: on {what} they agree on {100 * found.agreement:.1f} % alone. Do "
            f"not use it; {PARITY} has the figures."
        )
    return MarksExported(folder, (FILE,), found)


def written(model: Predictor) -> bytes:
    """The content of the ONNX file. Raises TrickbagError where torch cannot write it."""
    graph, (height, width) = Graph(model).eval(), model.card.canvas
    example = torch.zeros(1, len(model.card.mean), height, width, dtype=torch.uint8, device=model.fabric.device)
    names: dict[str, Any] = {"input_names": ["images"], "output_names": OUTPUTS[model.task], "opset_version": OPSET}
    if graph.boxes:
        names |= {"dynamo": False, "dynamic_axes": {name: {0: "boxes"} for name in OUTPUTS[model.task]}}
    else:
        names |= {
            "dynamo": True,
            "external_data": False,
            "verbose": False,
            "dynamic_shapes": {"images": {0: Dim("batch", min=1)}},
        }
        example = example.expand(2, -1, -1, -1)
    try:
        with quiet(), torch.no_grad(), TemporaryDirectory() as place:
            torch.onnx.export(graph, (example,), Path(place) / FILE, **names)
            made = onnx.load(Path(place) / FILE)
    except (*MALFORMED, torch.onnx.OnnxExporterError) as error:
        raise TrickbagError(f"torch cannot write {model.card.head} as ONNX ({shorten(str(error), 200)}).") from error
    for holder in [made, made.graph, *made.graph.node, *made.graph.input, *made.graph.output, *made.graph.initializer]:
        if hasattr(holder, "metadata_props"):
            del holder.metadata_props[:]
        holder.doc_string = ""
    made.producer_name = "trickbag"
    onnx.helper.set_model_props(made, described(model))
    content: bytes = made.SerializeToString()
    return content


def described(model: Predictor) -> dict[str, str]:
    """What the file says of itself."""
    card = model.card
    height, width = card.canvas
    scaled = {"longer side": card.size, "resizing": "bilinear, antialiased", "padded to": [height, width]}
    scaled |= {"where": "right and below", "with": [round(255 * value) for value in card.mean]}
    outputs = {
        "detection": "boxes [n, 4]: left, top, right, bottom in pixels of the input; labels [n], places in classes; scores [n]",
        "segmentation": "probabilities [batch, classes, height, width] of each pixel of the input",
    }
    batch = 1 if model.task == "detection" else "batch"
    facts = {
        "classes": card.classes,
        "input": f"uint8 [{batch}, {len(card.mean)}, {height}, {width}], upright",
        "output": outputs[model.task],
        "preprocessing": scaled,
        "network": card.head,
        "trickbag": version("trickbag"),
        "run": TransferRecord.load(model.folder).request,
    }
    return {name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for name, value in facts.items()}


def images_at_hand(model: Predictor, data: Any, tell: Tell) -> tuple[str, list[Photo]]:
    """Images to be compared on, as the network wants them, and which they are."""
    held = judging(model, data, tell)
    if held is None:
        made = [Image.fromarray(np.asarray(cloud).transpose(1, 2, 0).squeeze()) for cloud in clouds(len(model.card.mean), MOST)]
        found = [model.as_seen(_png(image)) for image in made]
        return f"{counted(len(found), 'generated image')}, as no photo is at hand", _fitting(model, found)
    split, scenes = held
    try:
        found = [model.as_seen(scenes.path(row)) for row in range(min(MOST, len(scenes)))]
    except (Unreadable, OSError) as error:
        raise TrickbagError(f"the photos can no longer be read: {error}.") from None
    kept = _fitting(model, found)
    return counted(len(kept), f"{split} image"), kept


def _png(image: Image.Image) -> bytes:
    image.save(file := io.BytesIO(), "PNG")
    return file.getvalue()


def _fitting(model: Predictor, photos: list[Photo]) -> list[Photo]:
    """Those that the canvas of training holds, which is that of the file."""
    return [photo for photo in photos if model.canvas(photo.size) == tuple(model.card.canvas)]


def compared(model: Predictor, file: Path, what: str, photos: list[Photo], tell: Tell) -> MarksParity:
    """How far what the file says is what the network says. Raises TrickbagError where onnxruntime cannot run it."""
    session, graph = opened(file), Graph(model).eval()
    fill, height, width = [float(round(255 * value)) for value in model.card.mean], *model.card.canvas
    same = total = boxes = 0
    probability = side = 0.0
    for number, photo in enumerate(photos, 1):
        x = padded(photo.pixels, (height, width), fill)[None]
        try:
            theirs = session.run(OUTPUTS[model.task], {"images": x.numpy()})
        except FAILURES as error:
            raise TrickbagError(f"onnxruntime cannot run {file.name}: {shorten(str(error), 200)}") from error
        with torch.inference_mode():
            said = graph(x.to(model.fabric.device))
        ours = [one.cpu().numpy() for one in (said if model.task == "detection" else [said])]
        if model.task == "detection":
            pairs, count = matched(ours, theirs)
            same, total, boxes = same + 2 * len(pairs), total + count, boxes + int((ours[2] >= SCORE).sum())
            for a, b in pairs:
                probability = max(probability, abs(float(ours[2][a] - theirs[2][b])))
                side = max(side, float(np.abs(ours[0][a] - theirs[0][b]).max()))
        else:
            same, total = same + int((ours[0].argmax(1) == theirs[0].argmax(1)).sum()), total + height * width
            probability = max(probability, float(np.abs(ours[0] - theirs[0]).max()))
        tell(Doing("comparing", number, len(photos)))
    if not total:
        raise UsageError(f"the network finds nothing on {what} by which a file could be judged. Give others with --data DATA.")
    return MarksParity(what, same / total, boxes if model.task == "detection" else None, probability, side)


def matched(ours: Said, theirs: Said) -> tuple[list[tuple[int, int]], int]:
    """Places of boxes that are the same in two answers of boxes, labels and scores, and how many there are in both together.

    Each box is taken once, the best of ours first; of those that only one has, both know why they are left.

    >>> one = [np.array([[0.0, 0, 9, 9]]), np.array([1]), np.array([0.9])]
    >>> matched(one, one), matched(one, [one[0], np.array([0]), one[2]])
    (([(0, 0)], 2), ([], 2))
    """
    mine, other = np.flatnonzero(ours[2] >= SCORE), np.flatnonzero(theirs[2] >= SCORE)
    shared = overlaps(ours[0][mine].astype(float), theirs[0][other].astype(float))
    shared = np.where(ours[1][mine][:, None] == theirs[1][other], shared, 0.0)
    pairs = []
    for place, row in enumerate(mine.tolist()):
        if len(other) and shared[place].max() >= SAME:
            best = int(shared[place].argmax())
            shared[:, best] = 0.0
            pairs.append((row, int(other[best])))
    return pairs, len(mine) + len(other)
