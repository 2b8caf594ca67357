"""Predictions as rows, on standard output or in a file that grows: the same command goes on where it was stopped."""

import csv
import hashlib
import io
import json
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from trickbag.ground import files, store
from trickbag.ground.cache import stamp
from trickbag.ground.errors import TrickbagError, UsageError
from trickbag.ground.events import Note, Tell, silent
from trickbag.ground.text import as_bytes, brief, counted, show

if TYPE_CHECKING:  # torch takes seconds to import
    from trickbag.runs.classifier import Prediction
    from trickbag.transfers.predictor import Detection, Segmentation

Form = Literal["csv", "json"]
HEAD = ("path", "rank", "class", "probability", "unsure")
HEADS = {
    "classification": HEAD,
    "sets": (*HEAD, "set"),
    "detection": ("path", "rank", "class", "score", "left", "top", "right", "bottom"),
    "segmentation": ("path", "class", "share"),
}
"""The columns of CSV, by what a model says: ``sets`` is a classification with sets of classes, each of them a row of CSV."""


def form_of(out: Path | None, as_json: bool, as_csv: bool) -> Form | None:
    """Rows of which form are asked for; None for text. Raises UsageError where that is not clear."""
    if as_json and as_csv:
        raise UsageError("--json and --csv cannot be combined. Choose one.")
    if as_json or as_csv or out is None:
        return "json" if as_json else "csv" if as_csv else None
    by_name: dict[str, Form] = {".csv": "csv", ".json": "json", ".jsonl": "json", ".ndjson": "json"}
    if found := by_name.get(out.suffix.lower()):
        return found
    raise UsageError(f"--out {brief(str(out))}: name a file that ends in .csv or .jsonl, or give --csv or --json.")


def text(form: Form, said: Any) -> str:
    """The rows of what is said of an image; names are what they are. An image without a box has one row, of rank 0."""
    if hasattr(said, "boxes"):
        return _boxes(form, said)
    if hasattr(said, "shares"):
        return _shares(form, said)
    return _classes(form, said)


def _boxes(form: Form, said: "Detection") -> str:
    if form == "json":
        sides = ("left", "top", "right", "bottom")
        found = [
            {"class": box.name, "score": round(box.score, 6)} | {side: round(getattr(box, side), 2) for side in sides}
            for box in said.boxes
        ]
        return json.dumps({"path": said.path, "boxes": found}) + "\n"
    if not said.boxes:
        return row((said.path, 0, "", "", "", "", "", ""))
    cells = [
        (rank, box.name, f"{box.score:.6f}", *(f"{side:.2f}" for side in box[2:])) for rank, box in enumerate(said.boxes, 1)
    ]
    return row(*((said.path, *rest) for rest in cells))


def _shares(form: Form, said: "Segmentation") -> str:
    if form == "json":
        return json.dumps({"path": said.path, "shares": {name: round(share, 6) for name, share in said.shares.items()}}) + "\n"
    return row(*((said.path, name, f"{share:.6f}") for name, share in said.shares.items()))


def _classes(form: Form, prediction: "Prediction") -> str:
    pairs = list(zip(prediction.classes, prediction.probabilities, strict=True))
    if form == "json":
        best = [{"class": name, "probability": round(value, 6)} for name, value in pairs]
        said = {"path": prediction.path, "predictions": best, "unsure": prediction.unsure}
        return json.dumps(said | ({} if prediction.set is None else {"set": prediction.set})) + "\n"
    held = () if prediction.set is None else (row(prediction.set).rstrip("\n"),)
    last = ("yes" if prediction.unsure else "no", *held)
    return row(*((prediction.path, rank, name, f"{value:.6f}", *last) for rank, (name, value) in enumerate(pairs, 1)))


def line(said: Any) -> str:
    """The same for a person."""
    if hasattr(said, "boxes"):
        found = [
            f"{show(box.name)} {100 * box.score:.1f} % ({box.left:.0f}, {box.top:.0f}) to ({box.right:.0f}, {box.bottom:.0f})"
            for box in said.boxes
        ] or ["nothing found"]
    elif hasattr(said, "shares"):
        shares = sorted(said.shares.items(), key=lambda one: -one[1])
        found = [f"{show(name)} {100 * share:.1f} %" for name, share in shares if share]
    else:
        found = [f"{show(name)} {100 * value:.1f} %" for name, value in zip(said.classes, said.probabilities, strict=True)]
        found[0] = ("unsure: " if said.unsure else "") + found[0]
        found += [] if said.set is None else [f"set: {', '.join(map(show, said.set)) or 'empty'}"]
    return "   ".join([show(said.path), *found])


def row(*rows: tuple[object, ...]) -> str:
    """Rows of CSV."""
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(rows)
    return file.getvalue()


def state(name: str) -> str:
    """What the system says of an image's file, or of the archive that holds it; empty where there is none."""
    for path in (Path(name), *Path(name).parents):
        try:
            status = path.stat()
        except (OSError, ValueError):
            continue
        return "" if stat.S_ISDIR(status.st_mode) else "-".join(map(str, stamp(status)))
    return ""


class Growing:
    """A file of predictions under way, ``FILE.part``; it gets its name when all are made.

    ``FILE.part.signed`` beside it has a hash of what was asked, and for each image one of its rows and the state that its file
    had before it was read. As a container it holds the images that need no prediction any more.
    """

    def __init__(
        self, file: Path, form: Form, asked: str, each: int, tell: Tell = silent, head: tuple[str, ...] = HEAD
    ) -> None:
        """``asked``: whatever decides a row; ``each``: rows of an image; ``head``: the columns of CSV.

        Rows that are no longer what was written are set aside with their file, which is told, and the others kept, but for
        those of images that changed. Raises UsageError where the file is there already.
        """
        if os.path.lexists(file):
            raise UsageError(f"--out {brief(str(file))} is there already. Remove it, or choose another name.")
        self.file, self.form, self.each, self.head = file, form, each, head
        self.part, signed = (file.with_name(f"{file.name}.part{ending}") for ending in ("", ".signed"))
        self.signed: dict[str, str] = {}
        """Of the rows that were written: a hash of them to the state of their image."""
        self.done: set[str] = set()
        self.ahead: dict[str, str] = {}
        """The states of images that are being read."""
        self.damaged = self.changed = 0
        first, *known = (signed.read_text("ascii", "replace") if signed.is_file() else "").split("\n")
        same = first == _digest(asked)
        if not same and os.path.lexists(self.part):
            tell(Note(f"{self.part} is of another command: it is now {store.set_aside(self.part).name}."))
        written = dict(line.split(" ", 1) for line in known if " " in line)
        kept = "".join(self._whole(written)) if same and self.part.is_file() else ""
        if self.damaged:
            aside = store.set_aside(self.part).name
            tell(
                Note(
                    f"{self.part} was changed, in line {self.damaged:,} for one: it is now {aside}. The predictions of "
                    f"{counted(len(self.done), 'image')} are kept, and those that cannot be read made again."
                )
            )
        if self.changed:
            tell(Note(f"{counted(self.changed, 'image')} changed since: the predictions are made again."))
        store.write(self.part, as_bytes(kept or self._head()))
        store.write(signed, "".join(f"{line}\n" for line in (_digest(asked), *map(" ".join, self.signed.items()))))
        self.rows, self.signatures = self.part.open("ab"), signed.open("a", encoding="ascii")

    def __contains__(self, name: object) -> bool:
        if name in self.done:
            return True
        if isinstance(name, str):
            self.ahead[name] = state(name)
        return False

    def _whole(self, written: Mapping[str, str]) -> Iterator[str]:
        """The rows in the file that are whole and as they were ``written``; an end that was not is no damage."""
        content = self.part.read_bytes().decode("utf-8", "surrogateescape").rpartition("\n")[0]
        yield self._head()
        for line, path, rows in (self._lines if self.form == "json" else self._groups)(content):
            digest = _digest(rows)
            if digest not in written:
                self.damaged = line
            elif state(path) in ("", written[digest]):
                self.done.add(path)
                self.signed[digest] = written[digest]
                yield rows
            else:
                self.changed += 1

    def _head(self) -> str:
        return row(self.head) if self.form == "csv" else ""

    def _lines(self, written: str) -> Iterator[tuple[int, str, str]]:
        for number, line in enumerate(written.split("\n") if written else (), 1):
            try:
                match json.loads(line):
                    case {"path": str(path), "predictions": list(best), "unsure": bool()} if len(best) == self.each:
                        yield number, path, line + "\n"
                        continue
            except (ValueError, RecursionError):
                pass
            yield number, "", ""

    def _groups(self, written: str) -> Iterator[tuple[int, str, str]]:
        reader, group = csv.reader(io.StringIO(written, newline="")), list[list[str]]()
        try:
            for cells in reader:
                if reader.line_num == 1 and cells == list(self.head):
                    continue
                group.append(cells)
                if len(cells) != len(self.head) or cells[:2] != [group[0][0], str(len(group))]:
                    yield reader.line_num, "", ""
                    group = [cells] if len(cells) == len(self.head) and cells[1] == "1" else []
                if len(group) == self.each:
                    yield reader.line_num, cells[0], row(*map(tuple, group))
                    group = []
        except csv.Error:
            yield reader.line_num, "", ""

    def add(self, prediction: "Prediction") -> None:
        """Write a prediction, at once. Raises TrickbagError where it cannot be written."""
        rows = text(self.form, prediction)
        try:
            self.signatures.write(f"{_digest(rows)} {self.ahead.pop(prediction.path, None) or state(prediction.path)}\n")
            self.signatures.flush()  # first: a row without its hash would count as damaged
            self.rows.write(as_bytes(rows))
            self.rows.flush()
        except OSError as error:
            raise TrickbagError(f"{self.part} cannot be written: {files.reason(error)}. Make room, and go on.") from None

    def close(self) -> None:
        """Stop writing; what is written stays, to go on with."""
        self.rows.close()
        self.signatures.close()

    def end(self) -> None:
        """Give the file its name. Raises TrickbagError where another has it by now."""
        self.close()
        if os.path.lexists(self.file):
            raise TrickbagError(f"{self.file} was made by something else meanwhile. The predictions are in {self.part}.")
        self.part.rename(self.file)
        Path(self.signatures.name).unlink(missing_ok=True)


def _digest(text: str) -> str:
    return hashlib.sha256(as_bytes(text)).hexdigest()
