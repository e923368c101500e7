"""The teacher's labels, computed once and kept: 2 bytes a token (4 for vocabularies above 65,536)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pippin.data.loader import windows
from pippin.data.packing import TokenSet, TokenStream, TokenWriter, token_dtype
from pippin.errors import UserError
from pippin.interop.load import load_model
from pippin.model.config import ModelConfig
from pippin.pipeline import Context, Cost, Stage
from pippin.stages.tokenize import TokenStage
from pippin.training.loop import TrainSpec
from pippin.training.teacher import most_likely

SPLIT = "train"


@dataclass(frozen=True, kw_only=True)
class Labels(Stage):
    """Ask a frozen teacher for its most likely token at every training position (afm 4.3: hard labels, one id each).

    Artifact `labels/`: the sources as `data.packing` stores them, document for document, with the teacher's token in
    the place of each true one. So a label is found like a token, whatever the order of rows, mixture, batch size or
    number of processes.

    What a teacher says depends on what it sees before. It sees what a student of the same `seq_len` will see: the
    windows of the loader's "windows" mode, cut every `seq_len` tokens, each document in its own segment, nothing from
    before the window's first token. So the labels are those that the teacher would have given during training, and a
    distillation with rows of another length needs other labels; it is refused.

    Args:
        tokens: what to label.
        teacher, teacher_model: who labels, and its shape.
        sources: of the tokens; each is labelled whole.
        seq_len: of the rows.
        batch_size: rows at a time; no part of the result, up to ties.
        compute: the teacher's type while it computes.
    """

    tokens: TokenStage
    teacher: Stage
    teacher_model: ModelConfig
    sources: tuple[str, ...]
    seq_len: int
    batch_size: int = 16
    compute: Literal["bfloat16", "float32"] = "bfloat16"

    def __post_init__(self) -> None:
        if not self.sources or self.batch_size < 1:
            raise UserError(
                f"sources, batch_size: {self.sources}, {self.batch_size}: name a source, and at least 1 row"
            )
        if not 1 <= self.seq_len <= self.teacher_model.max_seq_len:
            raise UserError(
                f"seq_len={self.seq_len}: must lie between 1 and the teacher's max_seq_len "
                f"{self.teacher_model.max_seq_len}"
            )

    def run(self, ctx: Context) -> None:
        directory = ctx.artifact(self.tokens, "tokens")
        spec = TrainSpec(steps=1, batch_size=self.batch_size, seq_len=self.seq_len, compute=self.compute)
        teacher = load_model(ctx.artifact(self.teacher, "model"), spec.dtype).requires_grad_(False).eval()
        token_set = TokenSet(directory)
        streams = {source: token_set.open(source, SPLIT) for source in self.sources}
        total = sum(stream.n_tokens for stream in streams.values())
        agreed = 0
        with (
            TokenWriter(ctx.out("labels"), token_set.vocab_size, token_set.eos_id) as writer,
            ctx.track(total) as bar,
        ):
            for source, stream in streams.items():
                given = _chunks(teacher, directory, source, self.seq_len, self.batch_size)
                for document, labels in enumerate(_by_document(given, stream)):
                    start, stop = int(stream.starts[document]), int(stream.starts[document + 1])
                    learnt = stream.read_mask(start, stop - 1)
                    mask = None if learnt is None else learnt.tolist()
                    n_bytes = int(stream.doc_bytes[document])
                    writer.add(source, SPLIT, labels[:-1].tolist(), n_bytes, mask, end_id=int(labels[-1]))
                    agreed += int((labels == stream.read(start, stop)).sum())
                    bar.advance(stop - start)
        width = token_dtype(token_set.vocab_size).itemsize
        ctx.result(tokens=total, bytes_per_token=width, teacher_right=round(agreed / total, 4))

    def cost(self) -> Cost:
        size = self.tokens.cost().bytes  # of text: about as many as the tokens' two bytes
        tokens = size // 4
        return Cost(tokens=0, flops=tokens * self.teacher_model.forward_flops_per_token(self.seq_len), bytes=size)


def _chunks(
    teacher: Any, directory: Path, source: str, seq_len: int, batch_size: int
) -> Iterator[np.ndarray[Any, Any]]:
    """The labels of the stream in order, some rows at a time; the last row's padding is part of the last."""
    for batch in windows(directory, source, SPLIT, seq_len, batch_size):
        yield most_likely(teacher, batch).flatten().numpy()


def _by_document(chunks: Iterator[np.ndarray[Any, Any]], stream: TokenStream) -> Iterator[np.ndarray[Any, Any]]:
    """The labels cut where the documents of the stream are."""
    held = np.zeros(0, np.int64)
    for length in np.diff(stream.starts).tolist():
        parts, n = [held], len(held)
        while n < length:
            parts.append(next(chunks))
            n += len(parts[-1])
        held = np.concatenate(parts) if len(parts) > 1 else held
        yield held[:length]
        held = held[length:]
