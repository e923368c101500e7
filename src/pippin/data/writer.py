"""Who writes synthetic data: any model behind one interface, and a file of finished calls that outlives a kill.

A call is one sample for one conversation. The model of our own is in `pippin.writer`, which needs torch.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from pippin.data.endpoint import Endpoint, NoAnswer
from pippin.data.mixture import derive
from pippin.errors import UserError
from pippin.files import full_disk_is_one_line

PATIENCE = 10  # failures in a row that end it


class Writer(Protocol):
    """What writes texts; `name` is kept with what it wrote."""

    name: str

    def write(
        self, conversations: Sequence[Sequence[Mapping[str, object]]], *, n: int = 1, max_tokens: int,
        temperature: float = 1.0, seed: int = 0,
    ) -> list[list[str]]:  # fmt: skip
        """`n` texts for each conversation, in order; "" where the model gave nothing."""


class EndpointWriter:
    """A model behind an OpenAI-compatible server.

    Each sample is a request of its own with a seed of its own, as not every server knows `n`.

    Args:
        endpoint: server and model.
        workers: requests at the same time; does not change the order.
    """

    def __init__(self, endpoint: Endpoint, workers: int = 4) -> None:
        if workers < 1:
            raise UserError(f"workers: value {workers}: must be at least 1")
        self.name, self.workers, self._endpoint = endpoint.model, workers, endpoint
        self._failures = 0  # in a row
        self._answered = False

    def write(
        self, conversations: Sequence[Sequence[Mapping[str, object]]], *, n: int = 1, max_tokens: int,
        temperature: float = 1.0, seed: int = 0,
    ) -> list[list[str]]:  # fmt: skip
        """As `Writer.write`; a request that fails after its attempts gives "".

        Raises:
            UserError: ten failed in a row, or all of the first call: what is wrong will not mend itself.
        """

        def ask(number: int) -> str | NoAnswer:
            messages = conversations[number // n]
            try:
                return self._endpoint.ask(
                    messages, max_tokens=max_tokens, temperature=temperature, seed=derive(seed, number)
                )
            except NoAnswer as error:
                return error

        texts: list[str] = []
        with ThreadPoolExecutor(self.workers) as pool:
            try:
                answers = pool.map(ask, range(n * len(conversations)))
                for answer in answers:
                    texts.append(self._checked(answer))
                if texts and not self._answered:
                    raise self._gave_up(answer)
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
        return [texts[begin : begin + n] for begin in range(0, len(texts), n)]

    def _checked(self, answer: str | NoAnswer) -> str:
        if isinstance(answer, str):
            self._failures, self._answered = 0, True
            return answer
        self._failures += 1
        if self._failures >= PATIENCE:
            raise self._gave_up(answer)
        return ""

    def _gave_up(self, answer: object) -> UserError:
        return UserError(f"{self.name}: the last {self._failures} requests failed ({answer}); mend that first")


class KeptWriter:
    """A writer whose finished calls are kept in a file: asked the same again, also after a kill, it reads them.

    What is asked goes to the writer in groups of fixed content, so samples do not depend on what was kept.

    Args:
        writer: who writes.
        path: JSON lines, appended to; one line a group, whole or not at all.
        group: conversations in one; a kill loses at most one group of calls.
        max_calls: the most that may be asked of the writer in all, what the file holds included; None: no limit.
        progress: called with the number of calls done since the last call, kept ones included.
        keep_empty: whether a group with an empty text is kept; not where a text may be empty for want of an answer.

    Raises:
        UserError: the file is damaged before its last line; from `write`: the next group would go over the limit.
    """

    def __init__(
        self, writer: Writer, path: str | Path, group: int = 16, max_calls: int | None = None,
        progress: Callable[[int], None] | None = None, keep_empty: bool = False,
    ) -> None:  # fmt: skip
        if group < 1:
            raise UserError(f"group: value {group}: must be at least 1")
        self.name, self.calls, self.kept = writer.name, 0, 0
        self._writer, self._path, self._group = writer, Path(path), group
        self._max_calls, self._progress, self._keep_empty = max_calls, progress, keep_empty
        self._known = _read(self._path) if self._path.exists() else {}
        self.before = sum(len(row) for texts in self._known.values() for row in texts)

    def write(
        self, conversations: Sequence[Sequence[Mapping[str, object]]], *, n: int = 1, max_tokens: int,
        temperature: float = 1.0, seed: int = 0,
    ) -> list[list[str]]:  # fmt: skip
        """As `Writer.write`. `calls` counts what was asked of the writer, `kept` what was read of the `before`."""
        texts: list[list[str]] = []
        for begin in range(0, len(conversations), self._group):
            group = conversations[begin : begin + self._group]
            settings: dict[str, Any] = {"n": n, "max_tokens": max_tokens, "temperature": temperature}
            settings["seed"] = derive(seed, begin)
            asked = json.dumps([self.name, group, settings], sort_keys=True)
            key = hashlib.sha256(asked.encode()).hexdigest()
            if key in self._known:
                found = self._known[key]
                self.kept += n * len(group)
            else:
                made = self.before + self.calls
                if self._max_calls is not None and made + n * len(group) > self._max_calls:
                    raise UserError(
                        f"max_calls={self._max_calls}: reached after {made} calls, which are kept; raise it and run "
                        "the same command again to go on"
                    )
                found = self._writer.write(group, **settings)
                self.calls += n * len(group)
                if self._keep_empty or all(text for row in found for text in row):
                    self._keep(key, found)
            texts += found
            if self._progress is not None:
                self._progress(n * len(group))
        return texts

    def _keep(self, key: str, texts: list[list[str]]) -> None:
        self._known[key] = texts
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with full_disk_is_one_line(self._path), open(self._path, "ab") as file:
            file.write(json.dumps({"call": key, "texts": texts}, ensure_ascii=True).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())


def _read(path: Path) -> dict[str, list[list[str]]]:
    """The calls of a file; an end that a kill cut short is removed from it."""
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        os.truncate(path, whole)
    found: dict[str, list[list[str]]] = {}
    for number, line in enumerate(data[:whole].splitlines(), 1):
        try:
            row: Any = json.loads(line)
            found[str(row["call"])] = [[str(text) for text in texts] for texts in row["texts"]]
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{path}:{number}: not a finished call; the file is damaged, remove it") from None
    return found
