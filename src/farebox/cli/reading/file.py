"""The rows of a CSV, JSON lines or Parquet file, one after the other, in bounded memory."""

import csv
import gzip
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from msgspec import Struct

from farebox.cli.reading.mapping import FileMapping, Format, columns_of
from farebox.cli.reading.row import RowCode, RowFault
from farebox.events.json_text import NotJson, decode_json

LINE_BYTES_MAX = 1 << 20
_ROWS_A_BATCH = 2_000
_GZIP = b"\x1f\x8b"
_ENDINGS: Mapping[str, Format] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}

Numbered = tuple[int, Mapping[str, Any] | RowFault]


class FileUnreadable(Exception):
    """The file is not what it is said to be, or ends too early; the message says how."""


class RowFile(Protocol):
    """An open file. `size` and `done()` say how far it was read, in whatever unit suits it."""

    size: int

    def columns(self) -> frozenset[str] | None:
        """Return the names of its columns; None where each row has its own."""

    def rows(self, after: int) -> Iterator[Numbered]:
        """Yield the rows after that number (the first is 1); raises FileUnreadable."""

    def done(self) -> int:
        """Return how much of `size` was read."""


class _Raw(Struct, frozen=True):
    """The file as it lies on disk, and its text, unpacked."""

    disk: BufferedReader
    text: BinaryIO


def format_of(path: Path, mapping: FileMapping) -> Format | None:
    """Return the format that the mapping names, or else the file's ending."""
    endings = [ending.lower() for ending in path.suffixes if ending.lower() != ".gz"]
    return mapping.format or (_ENDINGS.get(endings[-1]) if endings else None)


@contextmanager
def open_rows(path: Path, kind: Format, mapping: FileMapping) -> Iterator[RowFile]:
    """Open the file; raises FileUnreadable, OSError."""
    if kind == "parquet":
        yield _ParquetRows(path, columns_of(mapping))
        return
    with path.open("rb") as disk:
        packed = disk.peek(2)[:2] == _GZIP
        text = cast("BinaryIO", gzip.GzipFile(fileobj=disk)) if packed else disk
        raw = _Raw(disk, text)
        size = path.stat().st_size
        tabs = ".tsv" in path.suffixes and mapping.csv.delimiter == ","
        delimiter = "\t" if tabs else mapping.csv.delimiter
        yield (
            _JsonRows(raw, size)
            if kind == "jsonl"
            else _CsvRows(raw, size, delimiter, mapping.csv.encoding)
        )


def _lines(raw: _Raw) -> Iterator[bytes]:
    """Yield lines with their ends; one that is too long is cut, and its rest left out."""
    try:
        while line := raw.text.readline(LINE_BYTES_MAX + 1):
            yield line
            rest = line
            while len(rest) > LINE_BYTES_MAX and not rest.endswith(b"\n"):
                rest = raw.text.readline(LINE_BYTES_MAX + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise FileUnreadable(f"the gzip file is broken: {error}") from None


class _JsonRows:
    """JSON lines: a row is a line, so that its number is that of the line."""

    def __init__(self, raw: _Raw, size: int) -> None:
        self._raw = raw
        self.size = size

    def columns(self) -> frozenset[str] | None:
        return None

    def done(self) -> int:
        return self._raw.disk.tell()

    def rows(self, after: int) -> Iterator[Numbered]:
        for number, line in enumerate(_lines(self._raw), 1):
            if number > after and not line.isspace():
                yield number, _json_row(line)


def _json_row(line: bytes) -> Mapping[str, Any] | RowFault:
    if len(line) > LINE_BYTES_MAX:
        return RowFault(RowCode.ROW_TOO_LARGE, f"a line has at most {LINE_BYTES_MAX} bytes")
    try:
        value = decode_json(line)
    except NotJson as error:
        return RowFault(RowCode.ROW_MALFORMED, f"the line is no JSON: {error}")
    if not isinstance(value, dict):
        return RowFault(RowCode.ROW_MALFORMED, "the line is no JSON object")
    return value


class _CsvRows:
    """CSV (RFC 4180) with a header; the first row after it is 1, empty lines do not count."""

    def __init__(self, raw: _Raw, size: int, delimiter: str, encoding: str) -> None:
        self._raw = raw
        self._encoding = "utf-8-sig" if encoding.lower() in ("utf-8", "utf8") else encoding
        self._first = True
        self.size = size
        self._reader = csv.reader(self._text_lines(), delimiter=delimiter, strict=True)
        self._header = self._read_header()

    def columns(self) -> frozenset[str] | None:
        return frozenset(self._header)

    def done(self) -> int:
        return self._raw.disk.tell()

    def _text_lines(self) -> Iterator[str]:
        for number, line in enumerate(_lines(self._raw), 1):
            if len(line) > LINE_BYTES_MAX:
                raise FileUnreadable(f"line {number} has more than {LINE_BYTES_MAX} bytes")
            # The mark of the byte order stands before the first line only.
            encoding = self._encoding if self._first else self._encoding.removesuffix("-sig")
            self._first = False
            # What is no text becomes half a surrogate pair, which the event is refused for.
            yield line.decode(encoding, "surrogateescape")

    def _read_header(self) -> list[str]:
        try:
            header = next(self._reader, [])
        except csv.Error as error:
            raise FileUnreadable(f"the header is no CSV: {error}") from None
        if not header or len(set(header)) < len(header):
            raise FileUnreadable("the first line must name every column, each once")
        return header

    def rows(self, after: int) -> Iterator[Numbered]:
        number = 0
        while True:
            fault: RowFault | None = None
            cells: list[str] | None = []
            try:
                cells = next(self._reader, None)
            except csv.Error as error:
                fault = RowFault(RowCode.ROW_MALFORMED, f"the line is no CSV: {error}")
            if cells is None:
                return
            if not cells and fault is None:
                continue
            number += 1
            if number > after:
                yield number, fault or self._row(cells)

    def _row(self, cells: list[str]) -> Mapping[str, Any] | RowFault:
        if len(cells) != len(self._header):
            message = f"the row has {len(cells)} cells, the header {len(self._header)}"
            return RowFault(RowCode.ROW_MALFORMED, message)
        return dict(zip(self._header, cells, strict=True))


class _ParquetRows:
    """Parquet, a row group at a time and of it only the columns that are mapped."""

    def __init__(self, path: Path, wanted: frozenset[str] | None) -> None:
        import pyarrow
        import pyarrow.parquet

        try:
            self._file = pyarrow.parquet.ParquetFile(path, memory_map=True)
        except pyarrow.ArrowException as error:
            raise FileUnreadable(f"this is no Parquet file: {error}") from None
        self._wanted = wanted
        self._done = 0
        self.size = self._file.metadata.num_rows

    def columns(self) -> frozenset[str] | None:
        return frozenset(self._file.schema_arrow.names)

    def done(self) -> int:
        return self._done

    def rows(self, after: int) -> Iterator[Numbered]:
        import pyarrow

        try:
            first = 1
            for group in range(self._file.metadata.num_row_groups):
                count = self._file.metadata.row_group(group).num_rows
                if first + count - 1 > after:
                    yield from self._group_rows(group, first, after)
                first += count
        except pyarrow.ArrowException as error:
            raise FileUnreadable(f"the Parquet file is broken: {error}") from None

    def _group_rows(self, group: int, first: int, after: int) -> Iterator[Numbered]:
        names = None if self._wanted is None else sorted(self._wanted)
        number = first
        for batch in self._file.iter_batches(_ROWS_A_BATCH, row_groups=[group], columns=names):
            for row in _in_microseconds(batch).to_pylist():
                self._done = number
                if number > after:
                    yield number, {name: _exact(value) for name, value in row.items()}
                number += 1


def _in_microseconds(batch: Any) -> Any:
    """Cut times to the microsecond, as events do; Python knows no finer ones."""
    import pyarrow

    fields = [
        field.with_type(pyarrow.timestamp("us", field.type.tz))
        if pyarrow.types.is_timestamp(field.type) and field.type.unit == "ns"
        else field
        for field in batch.schema
    ]
    return batch.cast(pyarrow.schema(fields), safe=False)


def _exact(value: Any) -> Any:
    """Take a binary floating-point number as the shortest decimal that is the same number."""
    match value:
        case float():
            return Decimal(repr(value)) if value - value == 0 else str(value)
        case dict():
            return {name: _exact(member) for name, member in value.items()}
        case list():
            return [_exact(member) for member in value]
        case bytes():
            return value.decode(errors="surrogateescape")
        case _:
            return value
