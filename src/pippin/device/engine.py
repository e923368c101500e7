"""Packed models on the native engine: open, submit, step; one sequence, many, or a stream.

A step is one forward pass over all sequences that run, each with its own adapter or none (report section 4: adapters
are swapped, the base stays). `generate.py` has the same functions for this engine and for the torch model.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from pippin.device import library as native
from pippin.errors import UserError
from pippin.interop.directory import read_packed_config
from pippin.interop.lora import WEIGHTS, base_signature, check_base, read_lora_config, trained_on
from pippin.model.config import ModelConfig

Mode = Literal["fast", "exact"]
KV = Literal["float32", "bfloat16", "int8"]
Speculation = Literal["no", "lookup", "draft"]
Finish = Literal["", "stop_id", "stop_text", "length", "cancelled"]
"""How a request ended; "" while it runs."""

Floats = np.ndarray[Any, np.dtype[np.float32]]
_QK_NORM = {"none": 0, "head": 1, "width": 2}


class Event(NamedTuple):
    """One token of a request, or its end.

    Attributes:
        request: the number that `submit` gave.
        token: its next token; None if it ended without one.
        finish: how it ended, "" while it goes on. With "stop_id" the token is the one that stopped it.
        settled: bytes of the answer's text that no stop text can take back any more.
        logprob: natural log of the token's probability before penalty, temperature and truncation.
    """

    request: int
    token: int | None
    finish: Finish
    settled: int
    logprob: float


class Model:
    """A packed model directory in memory; several engines can share one.

    Args:
        directory: see docs/format.md.
        resident: read the weights into memory of huge pages: faster to read from, by up to a third here, and a change
            of the file cannot end the process. False maps the file: nothing is copied, several processes share it.

    Attributes:
        directory, config: where it is, and its shape.
        bytes_per_token: what a token's forward pass reads of weights, tables and head.

    Raises:
        UserError: the engine is not built, or a file is missing, damaged or of another format.
    """

    def __init__(self, directory: str | Path, *, resident: bool = True) -> None:
        self.directory = Path(directory)
        self.config, _ = read_packed_config(directory)
        shape = _shape(self.config)
        shape.resident = resident
        path = str(self.directory / "model.safetensors").encode()
        self._handle = native.call("pippin_model_open", path, ctypes.byref(shape))
        weakref.finalize(self, native.library().pippin_model_close, self._handle)
        self.bytes_per_token: int = native.library().pippin_model_bytes_per_token(self._handle)
        self._signature = ""

    def signature(self) -> str:
        """`base_signature` of the directory; all of it is read once."""
        self._signature = self._signature or base_signature(self.directory)
        return self._signature


class Adapter:
    """An adapter directory (PEFT layout) in memory, in 16 bits; any number fit one model.

    Raises:
        UserError: a file is missing or damaged, or the adapter belongs to another base or is of another kind.
    """

    def __init__(self, model: Model, directory: str | Path) -> None:
        directory = Path(directory)
        if not directory.is_dir():
            raise UserError(f"{directory}: no such directory; expected an adapter with adapter_config.json")
        config = read_lora_config(directory)
        if config.ranks or config.alphas:
            raise UserError(
                f"{directory}: rank_pattern or alpha_pattern: the engine takes one rank and alpha; "
                "write it anew with `pippin export --to peft`"
            )
        self.rank = config.rank
        if trained_on(directory) is not None:  # else another tool wrote it, and the whole base need not be read
            check_base(directory, model.signature())
        path = str(directory / WEIGHTS).encode()
        self._handle = native.call("pippin_adapter_open", model._handle, path, self.rank, config.scale)
        weakref.finalize(self, native.library().pippin_adapter_close, self._handle)


class Engine:
    """Continuous batching over one model: requests go in at any time, every step gives each running one its next token.

    All methods may be called from several threads; `step`, `score` and `logits` wait for each other.

    Args:
        model: what answers.
        draft: a small model with the same vocabulary that guesses for `speculate="draft"`.
        mode: "exact" computes in float32, "fast" with int8 activations (one scale for 64 inputs).
        kv: how keys and values are stored; default: float32 in exact mode, else bfloat16.
        threads: 0 for one per core that this process may use.
        max_sequences: requests that run at the same time; others wait.
        prefill_chunk: prompt tokens of one step at most, so that running streams do not stall.
        kv_tokens: room for keys and values, over all sequences; 0: for 4 of the model's full length, at most 32,768.
        kernels: "avx512", "avx2", "neon" or "portable"; "" for the best that this processor has.

    Raises:
        UserError: a value is out of range, or there is no memory.
    """

    def __init__(
        self,
        model: Model,
        *,
        draft: Model | None = None,
        mode: Mode = "fast",
        kv: KV | None = None,
        threads: int = 0,
        max_sequences: int = 16,
        prefill_chunk: int = 128,
        kv_tokens: int = 0,
        kernels: str = "",
    ) -> None:
        if mode not in get_args(Mode):
            raise UserError(f"mode: value {mode!r}: must be one of {', '.join(get_args(Mode))}")
        kv = kv or ("float32" if mode == "exact" else "bfloat16")
        if kv not in get_args(KV):
            raise UserError(f"kv: value {kv!r}: must be one of {', '.join(get_args(KV))}")
        _fits(threads=threads, max_sequences=max_sequences, prefill_chunk=prefill_chunk)
        _fits(64, kv_tokens=kv_tokens)
        self.model, self.config, self.mode = model, model.config, mode
        self.adapters: list[Adapter] = []
        kv_tokens = kv_tokens or max(model.config.max_seq_len, min(4 * model.config.max_seq_len, 32_768))
        options = native.Options(
            threads,
            mode == "exact",
            get_args(KV).index(kv),
            max_sequences,
            prefill_chunk,
            0,
            kv_tokens,
            kernels.encode(),
        )
        self._handle = native.call(
            "pippin_engine_open", model._handle, None if draft is None else draft._handle, ctypes.byref(options)
        )
        weakref.finalize(self, native.library().pippin_engine_close, self._handle)
        self._room = 16 * max_sequences

    def add_adapter(self, adapter: Adapter) -> int:
        """Keep an adapter at hand for the functions of `generate.py`; the number by which they know it."""
        self.adapters.append(adapter)
        return len(self.adapters) - 1

    def set_text(self, tokens: Sequence[bytes]) -> None:
        """Tell the bytes of every token of the vocabulary; stop texts need it."""
        ends = np.cumsum([len(token) for token in tokens], dtype=np.int64)
        data = np.frombuffer(b"".join(tokens) or b"\0", np.uint8)
        pointers = data.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8)), _int64(ends)
        native.call("pippin_engine_set_text", self._handle, *pointers, len(tokens))

    def submit(
        self,
        prompt: Sequence[int],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        seed: int = 0,
        stop_ids: Collection[int] = (),
        stop: Sequence[str] = (),
        adapter: Adapter | None = None,
        speculate: Speculation = "no",
    ) -> int:
        """Queue a request; its number, which the events carry.

        Args:
            prompt: token ids.
            max_tokens: the most to produce.
            temperature: 0 = the most likely token; else logits are divided by it before a token is drawn.
            top_k: draw only from the k most likely tokens; 0 = from all.
            top_p: draw only from the most likely tokens that together hold this probability (after top_k).
            min_p: draw only from tokens with at least this share of the largest probability.
            repetition_penalty: logits of tokens that occurred are divided (if positive) or multiplied by it.
            seed: the answer is a function of it and of the request, whatever runs beside.
            stop_ids: the answer ends when one is produced.
            stop: the answer ends before the first of these texts (see `set_text`).
            adapter: of this engine's model.
            speculate: guess further tokens and keep those that the model would have drawn: from what followed the same
                tokens before ("lookup"), or with the draft model. What is drawn is distributed as without.

        Raises:
            UserError: a value is out of range, or prompt and answer never fit the model or the engine.
        """
        _fits(top_k=top_k)
        _fits(64, max_tokens=max_tokens)
        texts = [text.encode() for text in stop]
        request = native.Request(
            tokens=_int32(prompt), n_tokens=len(prompt), max_tokens=max_tokens, temperature=temperature, top_k=top_k,
            top_p=top_p, min_p=min_p, repetition_penalty=repetition_penalty,
            speculate=get_args(Speculation).index(speculate), seed=seed % 2**64,
            stop_ids=_int32(list(stop_ids)), n_stop_ids=len(stop_ids),
            stop_texts=(ctypes.c_char_p * len(texts))(*texts), stop_lengths=_int64(np.array([len(t) for t in texts])),
            n_stop_texts=len(texts), adapter=None if adapter is None else adapter._handle,
        )  # fmt: skip
        return int(native.call("pippin_submit", self._handle, ctypes.byref(request)))

    def cancel(self, request: int) -> None:
        """End a request at the next step; one that has ended is left alone."""
        native.library().pippin_cancel(self._handle, request)

    def pending(self) -> int:
        """Requests that wait or run."""
        return int(native.library().pippin_pending(self._handle))

    def step(self) -> list[Event]:
        """One forward pass; the new tokens of all requests, in the order in which they were drawn."""
        events = (native.Event * self._room)()  # one for each call: another thread may step before these are read
        count = native.call("pippin_step", self._handle, events, self._room)
        finishes: tuple[Finish, ...] = get_args(Finish)
        return [
            Event(e.request, None if e.token < 0 else e.token, finishes[e.finish], e.settled, e.logprob)
            for e in events[:count]
        ]

    def stats(self) -> dict[str, int]:
        """Counters since the start and the use of pages; the fields of `pippin_stats` in csrc/pippin.h."""
        stats = native.Stats()
        native.library().pippin_get_stats(self._handle, ctypes.byref(stats))
        return {name: getattr(stats, name) for name, *_ in native.Stats._fields_}

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        adapters: Sequence[Adapter | None],
        progress: Callable[[int], None] | None = None,
        *,
        seed: int = 0,
        **settings: Any,
    ) -> list[list[int]]:
        """Continue all prompts; stop tokens are left out. Prompt i is drawn with `seed` + i.

        `progress` is called with the number of prompts finished since the last call; for `settings` see `submit`.
        """
        numbers = [
            self.submit(prompt, adapter=adapter, seed=seed + place, **settings)
            for place, (prompt, adapter) in enumerate(zip(prompts, adapters, strict=True))
        ]
        out: dict[int, list[int]] = {number: [] for number in numbers}
        left = len(numbers)
        while left:
            ended = 0
            for event in self.step():
                if event.request not in out:
                    continue
                if event.token is not None and event.finish != "stop_id":
                    out[event.request].append(event.token)
                ended += event.finish != ""
            left -= ended
            if ended and progress is not None:
                progress(ended)
        return [out[number] for number in numbers]

    def stream(self, prompt: Sequence[int], *, adapter: Adapter | None = None, **settings: Any) -> Iterator[int]:
        """The tokens of one answer as they are drawn, without a stop token. Errors are raised by the call itself."""
        number = self.submit(prompt, adapter=adapter, **settings)

        def tokens() -> Iterator[int]:
            running = True
            try:
                while running:
                    for event in self.step():
                        if event.request != number:
                            continue
                        running = event.finish == ""
                        if event.token is not None and event.finish != "stop_id":
                            yield event.token
            finally:
                if running:
                    self.cancel(number)

        return tokens()

    def score(self, tokens: Sequence[int], adapter: Adapter | None = None) -> np.ndarray[Any, np.dtype[np.float64]]:
        """log p(tokens[i] | tokens[:i]) for i = 1 .. n - 1, float64 [n - 1]."""
        out = np.zeros(len(tokens), np.float64)
        handle = None if adapter is None else adapter._handle
        pointer = out.ctypes.data_as(ctypes.POINTER(ctypes.c_double))
        native.call("pippin_score", self._handle, _int32(tokens), len(tokens), handle, pointer)
        return out[:-1]

    def logits(self, tokens: Sequence[int], last: int = 1, adapter: Adapter | None = None) -> Floats:
        """Logits after each of the last tokens, float32 [last, vocab_size]."""
        out = np.zeros((max(last, 1), self.config.vocab_size), np.float32)
        handle = None if adapter is None else adapter._handle
        native.call("pippin_logits", self._handle, _int32(tokens), len(tokens), handle, last, _float32(out))
        return out

    def project(self, layer: int, which: int, x: Floats) -> Floats:
        """One projection (0 to 6: q k v o gate up down) of vectors [n, in], float32 [n, out]; for tests and benches."""
        c = self.config
        q, kv = c.n_heads * c.d_head, c.n_kv_heads * c.d_head
        out = np.zeros((len(x), (q, kv, kv, c.d_model, c.d_ff, c.d_ff, c.d_model)[which]), np.float32)
        x = np.ascontiguousarray(x, np.float32)
        native.call("pippin_project", self._handle, layer, which, _float32(x), len(x), _float32(out))
        return out


def kernels() -> list[str]:
    """The names of the kernels that work on this processor, best first."""
    names = ctypes.create_string_buffer(200)
    native.library().pippin_kernels(names, len(names))
    return names.value.decode().split()


def read_bandwidth(size_bytes: int, threads: int, rounds: int) -> float:
    """Bytes a second of a plain read of memory, the best of `rounds`: the limit of decoding."""
    return float(native.library().pippin_read_bandwidth(size_bytes, threads, rounds))


def _shape(config: ModelConfig) -> native.Config:
    scaling = config.rope_scaling
    sizes = {name: getattr(config, name) for name in (
        "vocab_size", "d_model", "n_layers", "n_heads", "n_kv_heads", "d_head", "d_ff", "max_seq_len",
    )}  # fmt: skip
    _fits(**sizes)
    return native.Config(
        **sizes,
        **{name: getattr(config, name) for name in (
            "rope_before_norm", "qkv_bias", "post_norm", "tied", "rope_base", "norm_eps",
        )},
        qk_norm=_QK_NORM[config.qk_norm],
        rope_scaled=scaling is not None,
        **({} if scaling is None else {
            "rope_factor": scaling.factor, "rope_low": scaling.low_freq_factor, "rope_high": scaling.high_freq_factor,
            "rope_original": scaling.original_max_seq_len,
        }),
    )  # fmt: skip


def _fits(bits: int = 32, **values: int) -> None:
    """Refuse what ctypes would cut down to its lower bits."""
    for name, value in values.items():
        if not -(2 ** (bits - 1)) <= value < 2 ** (bits - 1):
            raise UserError(f"{name}: value {value}: is outside {bits} bits")


def _int32(tokens: Sequence[int]) -> Any:
    if any(not -(2**31) <= token < 2**31 for token in tokens):
        raise UserError("tokens: an id is outside 32 bits; was it the model's tokenizer?")
    return (ctypes.c_int32 * max(1, len(tokens)))(*tokens)


def _int64(values: np.ndarray[Any, Any]) -> Any:
    return (ctypes.c_int64 * max(1, len(values)))(*[int(v) for v in values])


def _float32(values: Floats) -> Any:
    return values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
