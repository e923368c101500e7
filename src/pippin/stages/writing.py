"""What the stages of synthetic data share: who writes, what that costs at most, and the file of finished calls."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field

from pippin.data.endpoint import Endpoint
from pippin.data.tokenizer import Tokenizer
from pippin.data.writer import EndpointWriter, KeptWriter
from pippin.errors import UserError
from pippin.pipeline import Context, Stage

CALLS = "calls.jsonl"
KEY = "PIPPIN_WRITER_KEY"  # environment variable with the key of a server, unless the user names another
GROUP = 16  # conversations that are asked together, and that a kill may cost
PER_CALL_S = 2.0  # for the estimate


@dataclass(frozen=True, kw_only=True)
class WritingStage(Stage):
    """A stage whose texts a model writes, or templates where neither `writer` nor `served` is given.

    Finished calls are kept in `calls/calls.jsonl`: the same command goes on from there after a kill.

    Args:
        writer: stage of a model of ours.
        served: name of a model behind an OpenAI-compatible server.
        url: of that server.
        key_variable: the environment variable that holds the server's key; the key is written nowhere.
        workers: requests to the server at the same time.
        timeout_s: of one request.
        max_calls: the most samples that may be asked for, those of earlier attempts included.
    """

    writer: Stage | None = None
    served: str = ""
    url: str = field(default="", metadata={"how": True})
    key_variable: str = field(default=KEY, metadata={"how": True})
    workers: int = field(default=4, metadata={"how": True})
    timeout_s: float = field(default=120.0, metadata={"how": True})
    max_calls: int = field(default=10_000, metadata={"how": True})

    def __post_init__(self) -> None:
        if bool(self.served) != bool(self.url):
            raise UserError(
                f"served, url: {self.served!r}, {self.url!r}: a server needs both; without one leave both out"
            )
        if self.served and self.writer is not None:
            raise UserError("served, writer: both are given; let one of them write")
        for name in ("workers", "max_calls"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}: value {getattr(self, name)}: must be at least 1")

    @property
    def offline(self) -> bool:
        """Whether templates write."""
        return self.writer is None and not self.served

    def seconds(self, calls: int) -> float:
        """A rough figure for so many calls, for `cost`."""
        return 0.0 if self.offline else PER_CALL_S * calls / (self.workers if self.served else 1)

    def opened(self, ctx: Context, calls: int, progress: Callable[[int], None]) -> KeptWriter:
        """The writer; `offline` stages have none. What it will be asked at most is said.

        Args:
            calls: an upper bound, for the line.
            progress: see `KeptWriter`.

        Raises:
            UserError: the file of finished calls is damaged, or what opening the model raises.
        """
        path = ctx.out("calls") / CALLS
        if self.served:
            endpoint = Endpoint(self.url, self.served, os.environ.get(self.key_variable, ""), self.timeout_s)
            kept = KeptWriter(EndpointWriter(endpoint, self.workers), path, GROUP, self.max_calls, progress)
        else:
            from pippin.interop.load import load_model  # torch, which a server does without
            from pippin.writer import ModelWriter

            assert self.writer is not None
            directory = ctx.artifact(self.writer, "model")
            model = ModelWriter(load_model(directory), Tokenizer.load(directory), ctx.label(self.writer))
            kept = KeptWriter(model, path, GROUP, self.max_calls, progress, keep_empty=True)
        ctx.say(f"{kept.name}: at most {calls:,} calls, {kept.before:,} of them kept; max_calls is {self.max_calls:,}")
        return kept
