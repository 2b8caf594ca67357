"""From a run to files for other programs, none of which has its name before it was compared with the run."""

import hashlib
import importlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from torch import Tensor

from trickbag.exports import as_timm, as_torch, hub, model_card, parity
from trickbag.exports.graph import traced
from trickbag.exports.photos import Photos, generated, given, remembered
from trickbag.ground import store
from trickbag.ground.errors import TrickbagError, UsageError
from trickbag.ground.events import Note, Tell, silent
from trickbag.ground.shown import Sheet, Shown
from trickbag.ground.text import brief, show
from trickbag.models.card import CARD, transferred
from trickbag.runs.classifier import Classifier
from trickbag.runs.folder import RunRecord
from trickbag.transfers.predictor import Predictor, for_classifiers
from trickbag.trick import Stage, having

if TYPE_CHECKING:
    from trickbag.exports.int8 import Int8  # which imports what the extra brings
    from trickbag.exports.marks import MarksExported

To = Literal["onnx", "timm", "torch"]
PARITY, INT8, DIFFERS = "parity.json", "model.int8.onnx", ".differs"
INSTALL = "ONNX takes packages that are not installed: pip install 'trickbag[export]'"


class Form(NamedTuple):
    """What a run becomes."""

    files: tuple[str, ...]
    """The first one has the weights."""
    make: Callable[[Path, Classifier, Path], parity.Program]
    """(run, its classifier, a folder) -> what the files say that were written to the folder."""


@dataclass(frozen=True, repr=False)
class Exported(Shown):
    """A run as files for other programs, and how they were compared with it.

    Examples:
        >>> import trickbag as tb
        >>> tb.export("run", "torch", data="photos", out="exported").files
        ('model.pt2',)

    """

    folder: Path
    files: tuple[str, ...]
    """Names in the folder; the first one has the weights."""
    parity: parity.Parity
    int8: "Int8 | None" = None
    """Where it was asked for."""
    address: str = ""
    """On the hub, where it was pushed."""
    without: str = ""
    """The trick whose sets of classes the files lack, if the run has one: they give probabilities."""

    def _sheet(self) -> Sheet:
        alike = self.parity.alike
        facts = {"agreement": f"{100 * alike.agreement:.2f} % of {self.parity.images}"}
        facts |= {"largest difference": f"{alike.probability:.4f} of a probability, {self.parity.grey:g} of 255 levels"}
        facts |= {"top-1": told(alike.accuracy)} if alike.accuracy else {}
        facts |= {"int8": told(self.int8.alike.accuracy)} if self.int8 and self.int8.alike.accuracy else {}
        facts |= {"hub": self.address} if self.address else {}
        return Sheet(f"exported {self.folder / self.files[0]}", facts)

    def lines(self) -> Iterator[str]:
        """What was written and how well it agrees with the run, sentence by sentence."""
        found, whole = self.parity, self.int8
        yield f"exported {show(str(self.folder / self.files[0]))}, compared with the run on {found.images}"
        yield from described(found.alike)
        yield f"{100 * found.grey_share:.2f} % of the pixels differ, by at most {found.grey:g} of 255 levels"
        batches = ", ".join(map(str, parity.BATCHES))
        largest = max(shape.probability for shape in found.shapes)
        yield f"batches of {batches} at {len(parity.SIZES)} sizes: largest difference of a probability {largest:.4f}"
        if found.predict:
            yield (
                "beside trickbag predict, in the run's own precision and with JPEG files decoded as small as they are needed: "
                f"the same class for {100 * found.predict.agreement:.2f} %, largest difference {found.predict.probability:.4f}"
            )
        if found.alike.accuracy is None:
            yield "no accuracy is said, as no image is at hand that was labelled and not trained on (--data)"
        if whole:
            yield f"int8, calibrated on {whole.calibrated} training images, beside fp32:"
            yield from described(whole.alike)
            before, after = whole.bytes
            low, high = whole.speeds
            yield f"{before / 1e6:.2f} MB become {after / 1e6:.2f}"
            yield f"{whole.speed:.2f} times as fast ({low:.2f} to {high:.2f}; {whole.how})"
        yield f"the figures are in {show(str(self.folder / PARITY))}"
        if self.without:
            yield f"the files give probabilities, not the sets of {self.without}: trickbag predict makes those"
        if self.address:
            yield f"on the hub: {self.address}"


def described(found: parity.Alike) -> Iterator[str]:
    """How far two answers are the same, in words."""
    same = round(found.agreement * found.n)
    yield f"the same class for {same:,} of {found.n:,}; largest difference of a probability {found.probability:.4f}"
    if found.accuracy:
        yield f"top-1 {told(found.accuracy)}"


def told(found: parity.Accuracy) -> str:
    """Two accuracies and their difference, in words.

    >>> told(parity.Accuracy(0.82, 0.8, -0.02, None))
    '82.0 % and 80.0 %: -2.0 points'
    """
    said = f"{100 * found.before:.1f} % and {100 * found.after:.1f} %: {100 * found.difference:+.1f} points"
    return f"{said} ({100 * found.interval.low:.1f} to {100 * found.interval.high:.1f})" if found.interval else said


def export(
    run: str | Path,
    to: To = "onnx",
    *,
    int8: bool = False,
    data: str | Path | None = None,
    out: str | Path | None = None,
    push: str = "",
    tell: Tell = silent,
) -> "Exported | MarksExported":
    """Write a run's classifier for other programs, and compare what was written with the run.

    Raises UsageError for what cannot be exported, by name; TrickbagError where the files differ from the run, which then have
    names that nobody ships.
    """
    run = Path(run)
    if transferred(run):
        return _marks(run, to, data, out, tell, int8=int8, push=push)
    form = _form(to, int8, push)
    classifier = Classifier.load(run)
    classifier.check_apart()
    folder = _folder(run, to, form, out)
    photos = given(run, classifier, data, tell) if data is not None else remembered(run, classifier) or generated(classifier)
    tell(Note(f"the file is to be compared with the run on {photos.what}"))
    if int8 and not photos.training:
        raise UsageError("--int8 looks at training images of the run: say with --data where its photos lie.")
    with store.lock(folder):
        store.check_room(folder.resolve().parent, classifier.model.state_dict(), 3 if int8 else 2, "the files")
        place = folder.with_name(f".{folder.name}.making")
        store.remove(place)  # what a killed export left
        place.mkdir()
        try:
            made = _made(run, form, classifier, photos, place, folder, int8, tell)
        finally:
            store.remove(place)
    address = hub.push(folder, made.files, push) if push else ""
    return replace(made, address=address, without=", ".join(map(str, having(classifier.tricks, "sets"))))


def _marks(
    run: Path, to: To, data: str | Path | None, out: str | Path | None, tell: Tell, **others: int | str
) -> "MarksExported":
    """A detector or a segmenter: as ONNX alone."""
    if to != "onnx":
        raise UsageError(f"--to {brief(str(to))}: a detector or a segmenter becomes an ONNX file alone. Choose --to onnx.")
    for_classifiers(run, **others)
    form = _form(to, False, "")
    from trickbag.exports import marks  # what it needs is an extra

    return marks.export(Predictor.load(run), data, _folder(run, to, form, out), tell)


def _made(
    run: Path, form: Form, classifier: Classifier, photos: Photos, place: Path, folder: Path, int8: bool, tell: Tell
) -> Exported:
    """The files in a place of their own, compared, and then in their folder."""
    said: dict[str, Any] = {"file": form.files[0], "run": RunRecord.load(run).request}
    failed, found, whole = None, None, None
    with store.told(folder):
        program = form.make(run, classifier, place)
    try:
        found = parity.measured(program, classifier, photos, tell)
    except TrickbagError as error:
        failed = error
    holds = found is not None and not found.faults
    said |= {"sha256": hashlib.sha256((place / form.files[0]).read_bytes()).hexdigest(), "holds": holds}
    said |= {"parity": asdict(found)} if found else {"failed": str(failed)}
    if holds and int8:
        from trickbag.exports import int8 as whole_numbers

        assert photos.training is not None
        with store.told(folder):
            count = whole_numbers.quantised(place / form.files[0], photos.training, place / INT8)
        whole = whole_numbers.compared(place / form.files[0], place / INT8, count, photos, tell)
        said |= {"int8": asdict(whole)}
    store.claim(folder)
    weights, *others = form.files
    for name in (weights, weights + DIFFERS, INT8):
        (folder / name).unlink(missing_ok=True)
    for name in [*others, *([INT8] if whole else [])]:
        store.write(folder / name, (place / name).read_bytes())
    store.write(folder / PARITY, store.to_json(said, indent=2))
    store.write(folder / (weights if holds else weights + DIFFERS), (place / weights).read_bytes())
    if found is None or not holds:
        reason = " and ".join(found.faults) if found else str(failed).rstrip(".")
        named = f"{classifier.card.model} with {', '.join(map(str, classifier.tricks)) or 'no trick'}"
        raise TrickbagError(
            f"{folder / weights}{DIFFERS} is not the run, {named}. Compared on {photos.what}: {reason}. Do not use it; "
            f"{PARITY} has the figures."
        ) from failed
    return Exported(folder, form.files, found, whole)


def _form(to: To, int8: bool, push: str) -> Form:
    if to not in FORMS:
        raise UsageError(f"--to {brief(str(to))}: choose one of {', '.join(FORMS)}.")
    if int8 and to != "onnx":
        raise UsageError(f"--int8 is for --to onnx, not {to}.")
    if push and to != "timm":
        raise UsageError(f"--push takes safetensors alone, which --to timm writes, not {to}.")
    if push:
        hub.check(push)
    if to == "onnx":
        try:
            importlib.import_module("trickbag.exports.as_onnx")
        except ImportError as error:
            if (error.name or "").partition(".")[0] == "trickbag":
                raise
            raise UsageError(f"{INSTALL} (there is no {error.name}).") from None
    return FORMS[to]


def _folder(run: Path, to: str, form: Form, out: str | Path | None) -> Path:
    """Where the files go: a new or an empty folder, or one that an export of this form made."""
    folder = store.folder_of(out if out is not None else run.resolve().with_name(f"{run.resolve().name}-{to}"))
    if os.path.lexists(folder / CARD):
        raise UsageError(f"--out {folder} is a run. Name a folder of its own.")
    made = {*form.files, form.files[0] + DIFFERS, INT8, PARITY, store.MANIFEST} if os.path.isfile(folder / PARITY) else ()
    store.check_apart(folder, lambda file: file.name in made)
    return folder


def _onnx(run: Path, classifier: Classifier, place: Path) -> parity.Program:
    from trickbag.exports import as_onnx

    model = as_onnx.converted(traced(classifier), facts(run, classifier))
    (place / "model.onnx").write_bytes(model.SerializeToString())
    return as_onnx.program(place / "model.onnx")


def _torch(run: Path, classifier: Classifier, place: Path) -> parity.Program:
    as_torch.save(traced(classifier), facts(run, classifier), place / "model.pt2")
    return as_torch.program(place / "model.pt2")


def _timm(run: Path, classifier: Classifier, place: Path) -> parity.Program:
    as_timm.save(classifier, place)
    (place / "README.md").write_text(model_card.written(run), "utf-8")
    return as_timm.program(place, classifier)


FORMS = {
    "onnx": Form(("model.onnx",), _onnx),
    "torch": Form(("model.pt2",), _torch),
    "timm": Form(("model.safetensors", "config.json", "README.md"), _timm),
}


def facts(run: Path, classifier: Classifier) -> dict[str, str]:
    """What a file says of itself: classes, preprocessing and where it comes from, in JSON where it is more than a word."""
    card, view = classifier.card, classifier.view
    found: dict[str, Any] = {
        "classes": card.classes,
        "input": f"uint8 [batch, {card.channels}, height, width], {_bands(card.channels)}, of any size, upright",
        "output": "probabilities [batch, classes]",
        "preprocessing": {
            "where": "in the graph",
            "fit": card.fit,
            "first made smaller to": card.kept,
            "resized to": view.resize,
            "cut to": view.crop,
            "resizing": "bilinear, antialiased",
            "mean": card.mean,
            "std": card.std,
        },
        "network": card.model,
        "tricks": [str(trick) for trick in classifier.tricks],
        "calibration": _state(classifier, Stage.SCORE) or "none: the softmax of the logits",
        "sets": _state(classifier, Stage.ANSWER) or "none",
        "trickbag": version("trickbag"),
        "run": RunRecord.load(run).request,
    }
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in found.items()}


def _state(classifier: Classifier, stage: Stage) -> dict[str, dict[str, Any]]:
    """What the tricks of a stage learned, as plain values."""
    return {
        str(trick): {name: value.tolist() if isinstance(value, Tensor) else value for name, value in trick.state().items()}
        for trick in classifier.tricks
        if trick.stage is stage
    }


def _bands(channels: int) -> str:
    return {1: "grey", 3: "RGB"}.get(channels, "bands as in training")
