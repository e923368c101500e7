"""One system's measurements on the engine, in a process of its own: JSON in, JSON out.

Without torch, so that the peak memory is that of a user who chats. `peers/llama_speed.py` has the same form.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pippin.device.engine import Adapter, Engine, Model, Speculation

PHASES = ("matrix", "attention", "norm", "head", "sample", "wait")
# Prompt tokens before decoding is timed: about the speed with an empty cache, as llama.cpp's own bench has it.
START = 8


class Worker:
    """A model, its adapters and one engine; every public method is a task and returns what it measured.

    Args:
        request: `model` (a directory), `mode`, `context` (tokens), and if needed `adapters` (directories) and `draft`.
    """

    def __init__(self, request: dict[str, Any]) -> None:
        self.model = Model(request["model"])
        self.draft = Model(request["draft"]) if request.get("draft") else None
        self.adapters = [Adapter(self.model, directory) for directory in request.get("adapters", [])]
        self.mode, self.context = request["mode"], request["context"]
        self._rng = np.random.default_rng(request["seed"])
        self._engine: tuple[int, Engine] | None = None

    def decode(self, threads: int, tokens: int) -> float:
        """Tokens a second of one sequence after a short prompt, through the first adapter if there is one."""
        engine = self._open(threads)
        engine.submit(self._prompt(START), max_tokens=tokens + 2, adapter=self._adapter(0))
        _until_event(engine)
        engine.step()
        start = time.perf_counter()
        for _ in range(tokens):
            engine.step()
        return tokens / (time.perf_counter() - start)

    def prefill(self, threads: int, tokens: int) -> float:
        """Seconds from the submission of a prompt, which shares nothing with an earlier one, to its first token."""
        engine, prompt = self._open(threads), self._prompt(tokens)
        start = time.perf_counter()
        engine.submit(prompt, max_tokens=1, adapter=self._adapter(0))
        _until_event(engine)
        return time.perf_counter() - start

    def batch(self, threads: int, sequences: int, tokens: int, adapters: bool) -> float:
        """Tokens a second over all sequences; with `adapters` they take turns, none among them."""
        engine = self._open(threads)
        choices = [None, *self.adapters] if adapters else [None]
        running = self._start(engine, START, [choices[number % len(choices)] for number in range(sequences)], tokens)
        start = time.perf_counter()
        made = sum(len(engine.step()) for _ in range(tokens))
        elapsed = time.perf_counter() - start
        _stop(engine, running)
        return made / elapsed

    def passes(self, threads: int, rows: int, repeats: int) -> list[float]:
        """Seconds of a pass that gives logits for 1, 2, ... `rows` tokens in a row, as when guesses are checked."""
        engine = self._open(threads)

        def timed(count: int) -> float:
            prompt = self._prompt(count)
            start = time.perf_counter()
            engine.logits(prompt, count)
            return time.perf_counter() - start

        return [statistics.median(timed(count) for _ in range(repeats)) for count in range(1, rows + 1)]

    def swap(self, threads: int, repeats: int) -> dict[str, float]:
        """Seconds: `submit` through another adapter than before, and the first token with and without a change."""
        engine = self._open(threads)

        def timed(adapter: Adapter) -> tuple[float, float]:
            prompt = self._prompt(1)
            start = time.perf_counter()
            engine.submit(prompt, max_tokens=1, adapter=adapter)
            submitted = time.perf_counter()
            _until_event(engine)
            return submitted - start, time.perf_counter() - start

        changed = [timed(self.adapters[number % 2]) for number in range(repeats)]
        same = [timed(self.adapters[0]) for _ in range(repeats)]
        return {
            "submit": statistics.median(one for one, _ in changed),
            "changed": statistics.median(one for _, one in changed),
            "same": statistics.median(one for _, one in same),
        }

    def profile(self, threads: int, prompt: int, sequences: int, steps: int) -> dict[str, float]:
        """Seconds of `steps` decoding steps of some sequences (0: of the prompts' own passes), by phase and "whole".

        The phases are the engine's own clock, as the calling thread sees them (csrc/pippin.h).
        """
        engine = self._open(threads)
        before, start = engine.stats(), time.perf_counter()
        running = self._start(engine, prompt, [self._adapter(0)] * sequences, steps)
        if steps:
            before, start = engine.stats(), time.perf_counter()
            for _ in range(steps):
                engine.step()
        whole, after = time.perf_counter() - start, engine.stats()
        _stop(engine, running)
        return {"whole": whole} | {phase: 1e-9 * (after[f"{phase}_ns"] - before[f"{phase}_ns"]) for phase in PHASES}

    def open_adapter(self, directory: str) -> float:
        """Seconds to read an adapter into memory."""
        start = time.perf_counter()
        Adapter(self.model, directory)
        return time.perf_counter() - start

    def text(self, threads: int, prompt: list[int], tokens: int, speculate: Speculation) -> dict[str, Any]:
        """Greedy continuation of a text: `seconds` after the first token, its `tokens`, `passes` and their `rows`."""
        engine = self._open(threads)
        engine.submit(prompt, max_tokens=tokens, speculate=speculate)
        made = [event.token for event in _until_event(engine)]
        before, start = engine.stats(), time.perf_counter()
        while engine.pending():
            made += [event.token for event in engine.step()]
        elapsed = time.perf_counter() - start
        counted = {name: value - before[name] for name, value in engine.stats().items()}
        return {
            "seconds": elapsed, "tokens": [token for token in made if token is not None], "passes": counted["steps"],
            "rows": counted["rows"], "guessed": counted["drafted"], "kept": counted["accepted"],
        }  # fmt: skip

    def _open(self, threads: int) -> Engine:
        if self._engine is None or self._engine[0] != threads:
            self._engine = None  # before the next one is made
            engine = Engine(
                self.model, draft=self.draft, mode=self.mode, threads=threads, kv_tokens=self.context, max_sequences=16
            )
            self._engine = threads, engine
        return self._engine[1]

    def _start(self, engine: Engine, prompt: int, adapters: list[Adapter | None], tokens: int) -> list[int]:
        """Random prompts of one length, each through its adapter, up to the first token of every one."""
        requests = [engine.submit(self._prompt(prompt), max_tokens=tokens + 8, adapter=each) for each in adapters]
        waiting = set(requests)
        while waiting:
            waiting -= {event.request for event in engine.step()}
        return requests

    def _adapter(self, number: int) -> Adapter | None:
        return self.adapters[number] if self.adapters else None

    def _prompt(self, tokens: int) -> list[int]:
        return self._rng.integers(0, self.model.config.vocab_size, tokens).tolist()


def _stop(engine: Engine, requests: list[int]) -> None:
    for request in requests:
        engine.cancel(request)
    while engine.pending():
        engine.step()


def _until_event(engine: Engine) -> list[Any]:
    while not (events := engine.step()):
        pass
    return events


def peak_memory() -> int:
    """Most bytes of memory that this process held, the mapped model included."""
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage's figure counts the process that started this one, too
        lines = status.read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    """Do the tasks of the request on standard input, in their order."""
    request = json.load(sys.stdin)
    worker = Worker(request)
    tasks: dict[str, Callable[..., Any]] = {
        name: getattr(worker, name)
        for name in ("decode", "prefill", "batch", "passes", "profile", "swap", "open_adapter", "text")
    }
    values = [tasks[task.pop("do")](**task) for task in request["tasks"]]
    print(json.dumps({"values": values, "bytes_per_token": worker.model.bytes_per_token, "peak": peak_memory()}))


if __name__ == "__main__":
    main()
