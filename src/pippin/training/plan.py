"""How training is spread over processes: one line, a matter of the machines and no part of any result."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from pippin.errors import UserError
from pippin.model.config import ModelConfig

Recompute = Literal["none", "block"]
AXES = ("replica", "fsdp", "context", "tensor")
_REST = "auto"


@dataclass(frozen=True)
class Plan:
    """A mesh of processes, and what each does with its part.

    Neighbouring ranks share `tensor` first (which exchanges most), then `context`, `fsdp` and `replica`.

    Args:
        replica: copies of the whole model; gradients are summed over them.
        fsdp: processes that share weights, gradients and optimizer state, and split the rows of a batch.
        context: processes that split the tokens of each row.
        tensor: processes that split every matrix, the heads and the vocabulary.
        micro_batch: rows that go through the model at a time; 0: all rows of a process.
        recompute: "block" keeps a block's input only and computes the block again for its gradients.
        timeout_s: seconds after which a process that does not answer counts as lost.
    """

    replica: int = 1
    fsdp: int = 1
    context: int = 1
    tensor: int = 1
    micro_batch: int = 0
    recompute: Recompute = "none"
    timeout_s: int = 600

    def __str__(self) -> str:
        """The line that says it; empty for the defaults."""
        changed = (f for f in fields(self) if getattr(self, f.name) != f.default)
        return " ".join(f"{f.name}={getattr(self, f.name)}" for f in changed)

    @property
    def size(self) -> int:
        """Processes."""
        return self.replica * self.fsdp * self.context * self.tensor

    @property
    def readers(self) -> int:
        """Processes with rows of their own."""
        return self.replica * self.fsdp

    @property
    def sharers(self) -> int:
        """Processes with the same rows."""
        return self.context * self.tensor

    @classmethod
    def parse(cls, line: str, processes: int) -> Plan:
        """Read "fsdp=2 tensor=2 micro_batch=4"; what is not named has its default, one axis may be "auto".

        Raises:
            UserError: not such a line, or not for this number of processes.
        """
        values: dict[str, Any] = {}  # numbers, and words until they are read
        for word in line.split():
            name, _, text = word.partition("=")
            known = {f.name for f in fields(cls)}
            if name not in known or not text or name in values:
                raise UserError(f"parallel: {word!r}: write NAME=VALUE once for any of {', '.join(sorted(known))}")
            if name == "recompute":
                if text not in get_args(Recompute):
                    raise UserError(f"parallel: {word!r}: must be one of {', '.join(get_args(Recompute))}")
                values[name] = text
            elif name in AXES and text == _REST and _REST not in values.values():
                values[name] = text
            elif text.isascii() and text.isdigit() and (int(text) >= 1 or name == "micro_batch"):
                values[name] = int(text)
            else:
                raise UserError(f"parallel: {word!r}: must be a whole number of at least 1 (one axis may be {_REST})")
        product = 1
        for name in AXES:
            value = values.get(name, 1)
            product *= value if isinstance(value, int) else 1
        if _REST in values.values():
            (rest,) = (name for name, value in values.items() if value == _REST)
            values[rest] = max(1, processes // product)
            product *= processes // product
        if product != processes:
            raise UserError(
                f"parallel: {' x '.join(f'{name}={values.get(name, 1)}' for name in AXES)} needs {product} processes, "
                f"there are {processes}; give fsdp=auto, or start torchrun with --nproc-per-node {product}"
            )
        return cls(**values)

    def check(self, model: ModelConfig, batch_size: int, seq_len: int) -> None:
        """Raise UserError unless the model and its batches can be cut so."""
        parts = {
            "n_heads": model.n_heads, "n_kv_heads": model.n_kv_heads, "d_ff": model.d_ff, "vocab_size": model.vocab_size
        }  # fmt: skip
        for name, value in parts.items():
            if value % self.tensor:
                raise UserError(f"parallel: tensor={self.tensor} does not divide {name}={value}; choose a divisor")
        if self.tensor > 1 and model.qk_norm == "width":
            raise UserError(
                f"parallel: tensor={self.tensor}: qk_norm={model.qk_norm!r} is over all heads; use tensor=1"
            )
        if batch_size < self.readers:
            raise UserError(
                f"parallel: replica x fsdp = {self.readers} processes, but a batch has batch_size={batch_size} rows; "
                "use fewer processes there (context or tensor), or a larger batch"
            )
        if batch_size % self.readers:
            raise UserError(
                f"parallel: replica x fsdp = {self.readers} does not divide batch_size={batch_size}; choose a divisor"
            )
        own = batch_size // self.readers
        if self.micro_batch and own % self.micro_batch:
            raise UserError(
                f"parallel: micro_batch={self.micro_batch} does not divide the {own} rows of a process; "
                "choose a divisor"
            )
        chunks = 2 * self.context if self.context > 1 else 1
        if seq_len % (chunks * 1) or (seq_len // self.context) % self.tensor:
            raise UserError(
                f"parallel: context={self.context}, tensor={self.tensor}: seq_len={seq_len} is not a multiple of "
                f"{'2 x ' if self.context > 1 else ''}context and of context x tensor; choose others"
            )

    def rows(self, rank: int, batch_size: int) -> list[tuple[int, int]]:
        """First and last + 1 row of each micro-batch of a process."""
        own = batch_size // self.readers
        start = rank // (self.context * self.tensor) * own
        size = self.micro_batch or own
        return [(first, first + size) for first in range(start, start + own, size)]
