"""Tokens on disk: one flat array per source and split, with document starts; written as a stream, read memory-mapped.

A directory holds `index.json` and, for each source and split, `<source>.<split>.tokens.npy` (uint16 or uint32),
`.starts.npy` (int64, documents + 1 offsets into the tokens), `.bytes.npy` (int64, UTF-8 bytes of each document's text)
and, for instruction data, `.mask.npy` (uint8, 1 where the token is to be learnt). Every document ends with `<eos>`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from pippin import files
from pippin.errors import UserError

FORMAT_VERSION = 1
_SOURCE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")
_SPLIT = re.compile(r"[A-Za-z0-9_-]+")


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """The stored type: uint16 while every id fits, else uint32."""
    return np.dtype("<u2" if vocab_size <= 65_536 else "<u4")


class _NpyStream:
    """A 1-D .npy file that grows: the header is written again with the length at the end."""

    def __init__(self, path: Path, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype
        self.length = 0
        self._file = path.open("wb")
        self._header()

    def _header(self) -> None:
        # NumPy leaves room in a header for the first axis to grow, so both headers have the same size.
        np.lib.format.write_array_header_1_0(
            self._file, {"descr": self.dtype.str, "fortran_order": False, "shape": (self.length,)}
        )

    def append(self, values: np.ndarray[Any, Any] | Sequence[int]) -> None:
        array = np.asarray(values, self.dtype)
        self._file.write(array.data)
        self.length += len(array)

    def finish(self) -> None:
        self._file.seek(0)
        self._header()
        self._file.close()

    def close(self) -> None:
        self._file.close()


class _Streams:
    """The open files of one source and split."""

    def __init__(self, stack: ExitStack, directory: Path, stem: str, dtype: np.dtype[Any], masked: bool) -> None:
        self.targets = 0
        self.masked = masked
        self.n_bytes = 0
        kinds = {"tokens": dtype, "starts": np.dtype("<i8"), "bytes": np.dtype("<i8")}
        if masked:
            kinds["mask"] = np.dtype("u1")
        self.files: dict[str, _NpyStream] = {}
        for kind, kind_dtype in kinds.items():
            temporary = stack.enter_context(files.atomic_path(directory / f"{stem}.{kind}.npy"))
            self.files[kind] = stream = _NpyStream(temporary, kind_dtype)
            stack.callback(stream.close)  # on an error: before the temporary file is removed
        self.files["starts"].append([0])


class TokenWriter:
    """Writes documents, in any order of sources and splits, without holding them in memory.

    Use as a context manager: on a normal end the files appear and `index.json` is written last, so a directory
    with an index is whole; on an error nothing is left.

    Args:
        directory: created when missing; an older index in it is replaced.
        vocab_size: ids must be below it; also chooses uint16 or uint32.
        eos_id: appended to every document.
    """

    def __init__(self, directory: str | Path, vocab_size: int, eos_id: int) -> None:
        if not 0 <= eos_id < vocab_size:
            raise ValueError(f"eos_id {eos_id} is not below vocab_size {vocab_size}")
        self.directory = Path(directory)
        self.vocab_size = vocab_size
        self.eos_id = eos_id
        self._stack = ExitStack()
        self._streams: dict[tuple[str, str], _Streams] = {}

    def __enter__(self) -> TokenWriter:
        return self

    def add(
        self, source: str, split: str, ids: Sequence[int], n_bytes: int, loss_mask: Sequence[int] | None = None
    ) -> None:
        """Append one document.

        Args:
            ids: without the final `<eos>`, which is added (never a target when there is a mask).
            n_bytes: length of the document's text in UTF-8 bytes.
            loss_mask: 1 where the token is to be learnt; all documents of a source and split have one, or none has.

        Raises:
            UserError: a name that cannot be part of a file name, an empty document, an id outside the vocabulary,
                a full disk.
        """
        streams = self._streams.get((source, split))
        if streams is None:
            if not _SOURCE.fullmatch(source) or not _SPLIT.fullmatch(split):
                raise UserError(f"source {source!r}, split {split!r}: only letters, digits, - and _ (source: also .)")
            self.directory.mkdir(parents=True, exist_ok=True)
            streams = _Streams(
                self._stack, self.directory, f"{source}.{split}", token_dtype(self.vocab_size), loss_mask is not None
            )
            self._streams[source, split] = streams
        starts = streams.files["starts"]
        where = f"source {source}, split {split}, document {starts.length - 1}"
        tokens = np.asarray(ids, np.int64)
        if not len(tokens):
            raise UserError(f"{where}: has no tokens; drop empty documents before packing")
        if tokens.min() < 0 or tokens.max() >= self.vocab_size:
            raise UserError(f"{where}: has token ids outside 0..{self.vocab_size - 1}; was it the right tokenizer?")
        if streams.masked != (loss_mask is not None):
            raise ValueError(f"{where}: some documents of this source and split have a loss mask and some have none")
        with files.full_disk_is_one_line(self.directory):
            streams.files["tokens"].append(np.append(tokens, self.eos_id))
            starts.append([streams.files["tokens"].length])
            streams.files["bytes"].append([n_bytes])
            if loss_mask is None:
                streams.targets += len(tokens) + 1
            else:
                mask = np.asarray(loss_mask, np.int64)
                if len(mask) != len(tokens) or ((mask != 0) & (mask != 1)).any():
                    raise ValueError(f"{where}: the loss mask must have one 0 or 1 for each of {len(tokens)} tokens")
                streams.files["mask"].append(np.append(mask, 0))
                streams.targets += int(mask.sum())
        streams.n_bytes += n_bytes

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._stack.__exit__(kind, error, trace)
            return
        with self._stack, files.full_disk_is_one_line(self.directory):
            for streams in self._streams.values():
                for stream in streams.files.values():
                    stream.finish()
            (self.directory / "index.json").unlink(missing_ok=True)  # never an old index over new arrays
        files.write_json(
            self.directory / "index.json",
            {
                "format_version": FORMAT_VERSION,
                "vocab_size": self.vocab_size,
                "eos_id": self.eos_id,
                "streams": [
                    {
                        "source": source,
                        "split": split,
                        "tokens": streams.files["tokens"].length,
                        "targets": streams.targets,
                        "documents": streams.files["starts"].length - 1,
                        "bytes": streams.n_bytes,
                        "mask": streams.masked,
                    }
                    for (source, split), streams in sorted(self._streams.items())
                ],
            },
        )


@dataclass(frozen=True)
class TokenStream:
    """One source and split, memory-mapped.

    Attributes:
        tokens: [n_tokens]; documents follow each other, each ends with eos.
        starts: [n_documents + 1]; document d is tokens[starts[d]:starts[d + 1]].
        doc_bytes: [n_documents], UTF-8 bytes of the text.
        mask: [n_tokens], 1 where the token is to be learnt; None = all.
        n_targets: tokens to be learnt.
    """

    path: Path
    tokens: np.ndarray[Any, Any]
    starts: np.ndarray[Any, Any]
    doc_bytes: np.ndarray[Any, Any]
    mask: np.ndarray[Any, Any] | None
    n_targets: int
    n_bytes: int
    vocab_size: int

    @property
    def n_tokens(self) -> int:
        return len(self.tokens)

    @property
    def n_documents(self) -> int:
        return len(self.starts) - 1

    def read(self, start: int, stop: int) -> np.ndarray[Any, Any]:
        """tokens[start:stop], each checked to be inside the vocabulary (so damage on disk is not trained on).

        Raises:
            UserError: an id is at or above vocab_size.
        """
        part = self.tokens[start:stop]
        if len(part) and part.max() >= self.vocab_size:
            raise UserError(
                f"{self.path}: token id {part.max()} at {start + int(part.argmax())} is not below the vocabulary's "
                f"{self.vocab_size}; the file is damaged, make it again"
            )
        return part


class TokenSet:
    """A directory written by `TokenWriter`.

    Attributes: directory, vocab_size, eos_id, entries {(source, split): its part of index.json}.

    Raises:
        UserError: no index, another format version, or an index with missing fields.
    """

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        index_path = self.directory / "index.json"
        if not index_path.exists():
            raise UserError(f"{index_path}: no such file; this is no directory of tokens, or its stage did not finish")
        index = files.read_json(index_path)
        version = index.get("format_version") if isinstance(index, dict) else None
        if version != FORMAT_VERSION:
            raise UserError(
                f"{index_path}: format_version {version}: this Pippin reads {FORMAT_VERSION}; make it again"
            )
        try:
            self.vocab_size = int(index["vocab_size"])
            self.eos_id = int(index["eos_id"])
            self.entries: dict[tuple[str, str], dict[str, Any]] = {
                (entry["source"], entry["split"]): {
                    **{key: int(entry[key]) for key in ("tokens", "targets", "documents", "bytes")},
                    "mask": bool(entry["mask"]),
                }
                for entry in index["streams"]
            }
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{index_path}: field missing or wrong ({error!r}); the file is damaged") from None

    def sources(self, split: str) -> list[str]:
        """Sources that have this split, in order of name."""
        return sorted(source for source, its_split in self.entries if its_split == split)

    def open(self, source: str, split: str) -> TokenStream:
        """Map one source and split.

        Raises:
            UserError: it is not in the index, a file is missing, truncated, or disagrees with the index.
        """
        entry = self.entries.get((source, split))
        if entry is None:
            there = ", ".join(f"{a}.{b}" for a, b in sorted(self.entries)) or "nothing"
            raise UserError(f"{self.directory}: has no source {source!r} with split {split!r}; there is {there}")

        def load(kind: str, dtype: np.dtype[Any], length: int) -> np.ndarray[Any, Any]:
            path = self.directory / f"{source}.{split}.{kind}.npy"
            try:
                # An empty file cannot be mapped; a plain view is several times faster to slice than np.memmap.
                array = np.asarray(np.load(path, mmap_mode="r" if length else None, allow_pickle=False))
            except FileNotFoundError:
                raise UserError(f"{path}: no such file, though index.json names it; make the tokens again") from None
            except (ValueError, EOFError, OSError) as error:
                raise UserError(f"{path}: damaged or truncated ({error}); make the tokens again") from None
            if array.dtype != dtype or array.shape != (length,):
                raise UserError(
                    f"{path}: holds {array.dtype} {list(array.shape)}, index.json says {dtype} [{length}]; "
                    "make the tokens again"
                )
            return array

        n_tokens, n_documents = entry["tokens"], entry["documents"]
        starts = load("starts", np.dtype("<i8"), n_documents + 1)
        if starts[0] != 0 or starts[-1] != n_tokens or not (starts[1:] > starts[:-1]).all():
            raise UserError(
                f"{self.directory / f'{source}.{split}.starts.npy'}: offsets do not rise from 0 to {n_tokens}; "
                "the file is damaged, make the tokens again"
            )
        return TokenStream(
            path=self.directory / f"{source}.{split}.tokens.npy",
            tokens=load("tokens", token_dtype(self.vocab_size), n_tokens),
            starts=starts,
            doc_bytes=load("bytes", np.dtype("<i8"), n_documents),
            mask=load("mask", np.dtype("u1"), n_tokens) if entry["mask"] else None,
            n_targets=entry["targets"],
            n_bytes=entry["bytes"],
            vocab_size=self.vocab_size,
        )
