"""Tables as files hold them: CSV in the delimiters and encodings that programs write, and Parquet, as rows of text."""

import codecs
import csv
import io
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from trickbag.data.listing import suffix
from trickbag.ground import files
from trickbag.ground.errors import UsageError

PARQUET_SUFFIXES = (".parquet", ".pq")
DELIMITERS = (",", ";", "\t", "|")
MOST_BYTES = 1 << 31
"""Of a CSV file: tens of millions of images."""

Cells = tuple[int, list[str]]
"""Where a row stands, and its cells."""


class Sheet(NamedTuple):
    """A table that has been opened."""

    name: str
    unit: str
    """What its rows are counted in: lines of CSV, rows of Parquet from 1."""
    header: list[str]
    """The names of the columns, without the spaces around them."""
    rows: Callable[[Sequence[int]], Iterator[Cells]]
    """Places of columns -> the cells there, row by row; bytes that are not UTF-8 are kept by surrogateescape."""


def opened(path: Path, known: Callable[[str], bool]) -> Sheet:
    """The table in a CSV or Parquet file; ``known`` tells the columns by which its delimiter is recognised.

    Raises UsageError where it cannot be read, here or while its rows are read.
    """
    return _parquet(path) if suffix(path.name) in PARQUET_SUFFIXES else _csv(path, known)


def western(text: str) -> str:
    r"""A text whose bytes were no UTF-8, as Windows in western languages writes it.

    >>> western("caf\udce9"), western("café")
    ('café', 'café')
    """
    if text.isascii() or not re.search("[\udc80-\udcff]", text):
        return text
    return text.encode("utf-8", "surrogateescape").decode("cp1252", "replace")


def _csv(path: Path, known: Callable[[str], bool]) -> Sheet:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise OSError(f"it is larger than {MOST_BYTES / 1e9:.0f} GB")
        text = _decoded(files.content(path, MOST_BYTES))
    except (OSError, UnicodeDecodeError) as error:
        reason = files.reason(error) if isinstance(error, OSError) else f"it is not text in UTF-16 ({error.reason})"
        raise UsageError(f"{path.name} cannot be read: {reason}. Save it as CSV in UTF-8.") from None
    if marked := re.match("sep=(.)\r?\n", text):  # a line for Excel, which says what parts its cells
        text = text[marked.end() :]
    skipped = 1 if marked else 0
    firsts = {delimiter: _first(text, delimiter) for delimiter in (marked[1] if marked else DELIMITERS)}
    delimiter = max(firsts, key=lambda one: (sum(known(name.strip()) for name in firsts[one]), len(firsts[one])))
    header = firsts[delimiter]
    spaced = any(name.startswith(" ") for name in header)

    def rows(columns: Sequence[int]) -> Iterator[Cells]:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=spaced, strict=True)
        line = 1 + skipped
        try:
            next(reader, None)
            while True:
                line = reader.line_num + 1 + skipped
                row = next(reader, None)
                if row is None:
                    return
                if row and len(row) != len(header):
                    raise UsageError(f"{path.name}, line {line}: {len(row)} fields, not {len(header)}. Quote commas in names.")
                if row:
                    yield line, [row[i] for i in columns]
        except csv.Error as error:
            raise UsageError(f"{path.name}, line {line}: this is not CSV ({error}). Quote names that hold quotes.") from None

    return Sheet(path.name, "line", [name.strip() for name in header], rows)


def _decoded(content: bytes) -> str:
    for mark in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        if content.startswith(mark):
            return content.decode("utf-16")
    for encoding, zeros in (("utf-16-le", content[1:64:2]), ("utf-16-be", content[:64:2])):
        if zeros and not any(zeros):
            return content.decode(encoding)
    return content.decode("utf-8-sig", "surrogateescape")


def _first(text: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader(io.StringIO(text[: 1 << 16], newline=""), delimiter=delimiter, strict=True), [])
    except csv.Error:
        return []


def _parquet(path: Path) -> Sheet:
    from pyarrow import ArrowException, parquet, types

    broken = (ArrowException, OSError, ValueError, OverflowError)

    def refusal(error: BaseException) -> UsageError:
        return UsageError(f"{path.name} cannot be read as Parquet ({str(error)[:200]}). Write it again.")

    def rows(columns: Sequence[int]) -> Iterator[Cells]:
        place = 0
        try:
            with parquet.ParquetFile(path) as file:
                schema = file.schema_arrow
                for i in columns:
                    if types.is_nested(schema.field(i).type) and not types.is_list(schema.field(i).type):
                        raise UsageError(
                            f"{path.name}: the column {schema.names[i]!r} holds the images themselves, not their paths. Write "
                            "each to a file, and a manifest with the columns path,label."
                        )
                for batch in file.iter_batches(columns=[schema.names[i] for i in columns]):
                    for row in zip(*(_texts(batch.column(schema.names[i])) for i in columns), strict=True):
                        place += 1
                        yield place, list(row)
        except broken as error:
            raise refusal(error) from None

    try:
        with files.regular(path), parquet.ParquetFile(path) as file:
            header = [name.strip() for name in file.schema_arrow.names]
    except broken as error:
        raise refusal(error) from None
    return Sheet(path.name, "row", header, rows)


def _texts(column: Any) -> Iterator[str]:
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column = column.cast(pa.large_binary())  # text that is no UTF-8 stays readable
    return map(_text, column.to_pylist())


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return os.fsdecode(value)
    return "" if value is None or value != value else str(value)
