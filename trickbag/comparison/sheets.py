"""Tables of any size, a part at a time: CSV in the usual delimiters and encodings, and Parquet."""

import codecs
import csv
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from trickbag.ground import files
from trickbag.ground.errors import UsageError
from trickbag.ground.text import brief, clipped
from trickbag.statistics.variance import Floats

PARQUET = (".parquet", ".pq")
BLOCK = 1 << 24
"""Bytes of CSV that are parsed at a time."""
LONGEST = 1 << 22
"""Bytes of a header, and by which the number of rows is judged."""
DELIMITERS = (",", ";", "\t", "|")


class Text(NamedTuple):
    """A column of text."""

    values: list[str]
    """Without the spaces around them; bytes that are not UTF-8 are kept by surrogateescape."""
    places: NDArray[np.int32]
    """[n] of each row's text in ``values``."""


class Part(NamedTuple):
    """Some rows."""

    texts: dict[str, Text]
    numbers: Floats
    """[n, K] NaN for an empty cell too."""
    empty: NDArray[np.bool_]
    """[n] whether all K cells are empty; all true where K is 0."""
    total: float
    """Rows of the whole file; of CSV about."""


class Sheet(NamedTuple):
    """A table whose header was read."""

    path: Path
    header: list[str]
    unit: str
    """What its rows are counted in: lines of CSV, rows of Parquet."""
    first: int
    """The number of the first row."""
    parts: Callable[[Sequence[str], Sequence[str]], Iterator[Part]]
    """Names of columns of text and of columns of numbers -> the rows."""


def opened(path: Path, known: Callable[[str], bool]) -> Sheet:
    """The table in a file; ``known`` tells the columns by which the delimiter of CSV is recognised.

    Raises UsageError where it cannot be read, here or while its parts are read.
    """
    try:
        with files.regular(path) as file:
            return _parquet(path, file) if path.suffix.lower() in PARQUET else _csv(path, file, known)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {files.reason(error)}.") from None


def _csv(path: Path, file: BinaryIO, known: Callable[[str], bool]) -> Sheet:
    start, size = file.read(LONGEST), path.stat().st_size
    total = size * start.count(b"\n") / max(1, len(start))
    wide = start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if b"\0" in start and not wide:
        raise UsageError(f"{path} is neither CSV nor Parquet. Save the table as CSV in UTF-8.")
    text = start.decode("utf-16", "replace") if wide else start.decode("utf-8-sig", "surrogateescape")
    firsts = [next(csv.reader([re.split("\r|\n", text, maxsplit=1)[0]], delimiter=one), []) for one in DELIMITERS]
    header = max(firsts, key=lambda names: (sum(known(name.strip()) for name in names), len(names)))
    delimiter = DELIMITERS[firsts.index(header)]
    names = [f"{place}" for place in range(len(header))]  # a header may name a column twice
    header = [name.strip() for name in header]

    def parts(texts: Sequence[str], numbers: Sequence[str]) -> Iterator[Part]:
        from pyarrow import csv as arrow

        own = {name: names[header.index(name)] for name in (*texts, *numbers)}
        kinds = {own[name]: pa.dictionary(pa.int32(), pa.binary()) for name in texts}
        kinds |= dict.fromkeys((own[name] for name in numbers), pa.float64())
        try:
            with files.regular(path) as content:
                reader = arrow.open_csv(
                    content,
                    arrow.ReadOptions(
                        use_threads=False,
                        block_size=min(BLOCK, size + 1),
                        column_names=names,
                        skip_rows=1,
                        encoding="utf-16" if wide else "utf8",
                    ),
                    arrow.ParseOptions(delimiter=delimiter, ignore_empty_lines=False),
                    arrow.ConvertOptions(column_types=kinds, include_columns=[*own.values()], null_values=[""]),
                )
                for batch in reader:
                    columns = {name: batch.column(place) for name, place in own.items()}
                    yield _part(columns, texts, numbers, total)
        except (pa.ArrowException, UnicodeError, OSError) as error:
            raise UsageError(_broken(path, str(error), header)) from None

    return Sheet(path, header, "line", 2, parts)


def _broken(path: Path, said: str, header: Sequence[str]) -> str:
    """What pyarrow says of CSV, in our words."""
    line = f", line {found[1]}" if (found := re.search(r"Row #(\d+)", said)) else ""
    if wrong := re.search(r"column #(\d+).*invalid value '(.*)'", said, re.DOTALL):
        name = clipped(header[int(wrong[1])], 40)
        return f"{path}{line}: {brief(wrong[2])} in column {name!r} is not a number. Write numbers with a decimal point."
    if counts := re.search(r"Expected (\d+) columns, got (\d+)", said):
        return f"{path}{line}: {counts[2]} cells, not {counts[1]}. Quote names that hold the delimiter."
    return f"{path}{line} cannot be read as CSV ({clipped(said, 200)}). Save it as CSV in UTF-8."


def _parquet(path: Path, file: BinaryIO) -> Sheet:
    from pyarrow import parquet

    def refusal(error: Exception) -> UsageError:
        return UsageError(f"{path} cannot be read as Parquet ({clipped(str(error), 200)}). Write it again.")

    try:
        with parquet.ParquetFile(file) as table:
            names, total = table.schema_arrow.names, table.metadata.num_rows
    except (pa.ArrowException, OSError, ValueError) as error:
        raise refusal(error) from None
    header = [name.strip() for name in names]

    def parts(texts: Sequence[str], numbers: Sequence[str]) -> Iterator[Part]:
        own = {name: names[header.index(name)] for name in (*texts, *numbers)}
        try:
            with files.regular(path) as content, parquet.ParquetFile(content) as table:
                for batch in table.iter_batches(columns=[*own.values()], use_threads=False):
                    columns = {name: batch.column(place) for name, place in own.items()}
                    coded = {name: _coded(columns[name]) for name in texts}
                    plain = {name: columns[name].cast(pa.float64()) for name in numbers}
                    yield _part(coded | plain, texts, numbers, total)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise refusal(error) from None

    return Sheet(path, header, "row", 1, parts)


def _coded(column: Any) -> Any:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if not pa.types.is_large_binary(column.type) and not pa.types.is_binary(column.type):
        column = column.cast(pa.large_string())
    return column.cast(pa.large_binary()).fill_null(b"").dictionary_encode()


def _part(columns: dict[str, Any], texts: Sequence[str], numbers: Sequence[str], total: float) -> Part:
    count = len(next(iter(columns.values())))
    empty = np.ones(count, bool)
    found = np.empty((count, len(numbers)))
    for place, name in enumerate(numbers):
        found[:, place] = columns[name].to_numpy(zero_copy_only=False)
        empty &= columns[name].is_null().to_numpy(zero_copy_only=False) if columns[name].null_count else False
    return Part({name: _text(columns[name]) for name in texts}, found, empty, total)


def _text(column: Any) -> Text:
    values = [value.decode("utf-8", "surrogateescape").strip() for value in column.dictionary.to_pylist()]
    return Text(values, column.indices.to_numpy().astype(np.int32, copy=False))
