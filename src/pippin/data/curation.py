"""Documents in, curated Parquet out: quality rules and exact deduplication, with an audit of every document."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pippin import files
from pippin.data import filters
from pippin.data.records import Document
from pippin.errors import UserError

_DOCUMENTS = pa.schema([(name, pa.string()) for name in ("id", "source", "split", "text", "licence")])
_AUDIT = pa.schema(
    [("id", pa.string()), ("source", pa.string()), ("kept", pa.bool_()), ("reason", pa.string()), ("chars", pa.int64())]
)
_ROWS = 4096  # rows held before they are written


class _Table:
    """A Parquet file that grows by row groups."""

    def __init__(self, stack: ExitStack, path: Path, schema: pa.Schema) -> None:
        temporary = stack.enter_context(files.atomic_path(path))
        self._writer = stack.enter_context(pq.ParquetWriter(temporary, schema, compression="zstd"))
        self._schema = schema
        self._rows: list[dict[str, Any]] = []

    def add(self, **row: Any) -> None:
        self._rows.append(row)
        if len(self._rows) >= _ROWS:
            self.flush()

    def flush(self) -> None:
        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
            self._rows = []


class Curator:
    """Writes the documents that pass to `<directory>/<source>.parquet`, and one audit row for each that came.

    Use as a context manager; the files appear when it ends well. A document is dropped for a quality rule
    (`filters.problem`) or because its text, without regard to case and spacing, was there before. Audit reasons read
    "what" or "what: detail".

    Attributes:
        documents, bytes: {(source, split): kept}.
        dropped: {(source, what): count}.
    """

    def __init__(self, directory: Path, audit: Path) -> None:
        self.directory = directory
        self.documents: Counter[tuple[str, str]] = Counter()
        self.bytes: Counter[tuple[str, str]] = Counter()
        self.dropped: Counter[tuple[str, str]] = Counter()
        self._audit_path = audit
        self._seen: dict[bytes, str] = {}
        self._stack = ExitStack()
        self._tables: dict[str, _Table] = {}

    def __enter__(self) -> Curator:
        self._audit = _Table(self._stack, self._audit_path, _AUDIT)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            with files.full_disk_is_one_line(self.directory):
                for table in (self._audit, *self._tables.values()):
                    table.flush()
        self._stack.__exit__(kind, error, trace)

    def add(self, document: Document, judge: bool = True) -> bool:
        """Keep or drop one document; `judge=False` leaves out the quality rules (for generated text)."""
        text, source, split = document["text"], document["source"], document["split"]
        reason = filters.problem(text) if judge else None
        if reason is None:
            first = self._seen.setdefault(filters.content_key(text), document["id"])
            if first is not document["id"]:
                reason = f"duplicate: {first}"
        if reason is not None:
            self.drop(document["id"], source, reason, len(text))
            return False
        if source not in self._tables:
            self._tables[source] = _Table(self._stack, self.directory / f"{source}.parquet", _DOCUMENTS)
        self._tables[source].add(
            id=document["id"], source=source, split=split, text=text, licence=document["meta"]["licence"]
        )
        self._audit.add(id=document["id"], source=source, kept=True, reason="", chars=len(text))
        self.documents[source, split] += 1
        self.bytes[source, split] += len(text.encode("utf-8"))
        return True

    def drop(self, where: str, source: str, reason: str, chars: int = 0) -> None:
        """Record something that is left out."""
        self._audit.add(id=where, source=source, kept=False, reason=reason, chars=chars)
        self.dropped[source, reason.partition(":")[0]] += 1

    def summary(self) -> dict[str, Any]:
        """Counts by source: documents and bytes kept on each side, and documents dropped by reason."""
        return {
            source: {
                "documents": {split: n for (s, split), n in sorted(self.documents.items()) if s == source},
                "bytes": {split: n for (s, split), n in sorted(self.bytes.items()) if s == source},
                "dropped": {what: n for (s, what), n in sorted(self.dropped.items()) if s == source},
            }
            for source in sorted({s for s, _ in (*self.documents, *self.dropped)})
        }


def sources_in(directory: Path) -> list[str]:
    """The sources of a directory that a `Curator` wrote.

    Raises:
        UserError: there is none.
    """
    found = sorted(path.stem for path in Path(directory).glob("*.parquet"))
    if not found:
        raise UserError(f"{directory}: has no documents (.parquet)")
    return found


def read_documents(directory: Path, source: str, split: str | None = None) -> Iterator[Document]:
    """The curated documents of one source, of one side or both, in their order; reads a row group at a time.

    Raises:
        UserError: no such source, or a damaged file.
    """
    path = Path(directory) / f"{source}.parquet"
    if not path.exists():
        raise UserError(f"source {source!r}: not in {directory}; it has {', '.join(sources_in(directory))}")
    try:
        table = pq.ParquetFile(path)
        for batch in table.iter_batches(batch_size=_ROWS):
            for row in batch.to_pylist():
                if split is None or row["split"] == split:
                    meta = {"licence": row["licence"]}
                    yield Document(id=row["id"], source=row["source"], text=row["text"], split=row["split"], meta=meta)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: cannot be read as Parquet ({str(error).splitlines()[0]}); run curate again") from None
