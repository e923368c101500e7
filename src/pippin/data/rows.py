"""The values of a file of records: JSON lines or one JSON list (both also with .gz behind), or the rows of Parquet."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pippin.errors import UserError


def read_rows(path: Path, of: str) -> Iterator[tuple[int, Any]]:
    """(number of the line, item or row from 1, its value or a ValueError that says what is wrong with it).

    Empty lines are passed over, and counted. Parquet has no missing fields: a null in its rows is one.

    Args:
        of: what is in the file, for the error: "conversations".

    Raises:
        UserError: there is no such file, or it cannot be read as a whole; one line that names it.
    """
    if not path.is_file():
        what = "a folder" if path.is_dir() else "no such file"
        raise UserError(f"{path}: {what}; give a .jsonl, .json or .parquet file of {of}")
    if path.suffix.lower() == ".parquet":
        yield from _parquet(path)
        return
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix.lower() == ".gz" else path.read_bytes()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path}: not a whole gzip file ({error}); fetch it again") from None
    if data.lstrip()[:1] == b"[":
        items = _json(data)
        if isinstance(items, ValueError):
            raise UserError(f"{path}: {items}")
        yield from enumerate(items, 1)
        return
    for number, line in enumerate(data.split(b"\n"), 1):
        if line.strip():
            yield number, _json(line)


def _json(text: bytes) -> Any:
    try:
        return json.loads(text.decode("utf-8"))
    except UnicodeDecodeError as error:
        return ValueError(f"byte {error.start + 1}: not UTF-8; save the file as UTF-8")
    except RecursionError:
        return ValueError("not valid JSON (nested too deeply); write one object a line")
    except ValueError as error:
        return ValueError(f"not valid JSON ({error}); write one object a line")


def _parquet(path: Path) -> Iterator[tuple[int, Any]]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise UserError(f"{path}: reading Parquet needs pyarrow; install pippin[data]") from None
    try:
        with pq.ParquetFile(path) as file:
            rows = (row for batch in file.iter_batches(batch_size=1000) for row in batch.to_pylist())
            yield from enumerate(map(_without_nulls, rows), 1)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path}: not a whole Parquet file ({str(error).splitlines()[0]}); fetch it again") from None


def _without_nulls(value: Any) -> Any:
    """A struct holds the fields of all rows: those that a row does not have are null in it."""
    if isinstance(value, dict):
        return {name: _without_nulls(field) for name, field in value.items() if field is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value
