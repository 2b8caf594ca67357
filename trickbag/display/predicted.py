"""Predictions as rows, on standard output or in a file that grows: the same command goes on where it was stopped."""

import csv
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from trickbag.ground import files, store
from trickbag.ground.errors import TrickbagError, UsageError
from trickbag.ground.text import as_bytes, brief

if TYPE_CHECKING:  # torch takes seconds to import
    from trickbag.runs.classifier import Prediction

Form = Literal["csv", "json"]
HEAD = ("path", "rank", "class", "probability", "unsure")


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


def text(form: Form, prediction: "Prediction") -> str:
    """The rows of a prediction; names are what they are."""
    pairs = list(zip(prediction.classes, prediction.probabilities, strict=True))
    if form == "json":
        best = [{"class": name, "probability": round(value, 6)} for name, value in pairs]
        return json.dumps({"path": prediction.path, "predictions": best, "unsure": prediction.unsure}) + "\n"
    unsure = "yes" if prediction.unsure else "no"
    return row(*((prediction.path, rank, name, f"{value:.6f}", unsure) for rank, (name, value) in enumerate(pairs, 1)))


def row(*rows: tuple[object, ...]) -> str:
    """Rows of CSV."""
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(rows)
    return file.getvalue()


class Growing:
    """A file of predictions under way, ``FILE.part``; it gets its name when all are made."""

    def __init__(self, file: Path, form: Form, asked: str, each: int) -> None:
        """``asked``: whatever decides a row; ``each``: rows of an image. Raises UsageError where the file is there already."""
        if os.path.lexists(file):
            raise UsageError(f"--out {brief(str(file))} is there already. Remove it, or choose another name.")
        self.file, self.form, self.each = file, form, each
        self.part, self.asked = (file.with_name(f"{file.name}.part{ending}") for ending in ("", ".asked"))
        self.done: set[str] = set()
        before = self.asked.read_text("utf-8") if self.asked.is_file() else ""
        kept = "".join(self._whole()) if before == asked and self.part.is_file() else ""
        store.write(self.part, as_bytes(kept or (row(HEAD) if form == "csv" else "")))
        store.write(self.asked, asked)
        self.rows = self.part.open("ab")

    def _whole(self) -> Iterator[str]:
        """The rows of the images that are complete in the file."""
        content = self.part.read_bytes().decode("utf-8", "surrogateescape")
        if self.form == "json":
            for line in content.splitlines(keepends=True):
                if line.endswith("\n"):
                    self.done.add(json.loads(line)["path"])
                    yield line
            return
        yield row(HEAD)
        waiting: list[tuple[object, ...]] = []
        for cells in list(csv.reader(io.StringIO(content, newline="")))[1:]:
            waiting.append(tuple(cells))
            if len(cells) == len(HEAD) and len(waiting) == self.each and content.endswith("\n"):
                self.done.add(cells[0])
                yield row(*waiting)
                waiting = []

    def add(self, prediction: "Prediction") -> None:
        """Write a prediction, at once. Raises TrickbagError where it cannot be written."""
        try:
            self.rows.write(as_bytes(text(self.form, prediction)))
            self.rows.flush()
        except OSError as error:
            raise TrickbagError(f"{self.part} cannot be written: {files.reason(error)}. Make room, and go on.") from None

    def end(self) -> None:
        """Give the file its name."""
        self.rows.close()
        self.part.rename(self.file)
        self.asked.unlink(missing_ok=True)
