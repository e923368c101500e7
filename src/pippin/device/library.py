"""The compiled engine, loaded once, with the types of its C interface (csrc/pippin.h)."""

from __future__ import annotations

import ctypes
import os
import sysconfig
from ctypes import (
    POINTER,
    Structure,
    c_char_p,
    c_double,
    c_float,
    c_int32,
    c_int64,
    c_size_t,
    c_uint8,
    c_uint64,
    c_void_p,
)
from functools import cache
from pathlib import Path
from typing import Any

from pippin.errors import UserError

ABI = 2
NAME = "libpippin_device.so"
_ROOM = 2_000  # bytes of an error message


class Config(Structure):
    """`pippin_config`."""

    _fields_ = [
        *[(name, c_int32) for name in (
            "vocab_size", "d_model", "n_layers", "n_heads", "n_kv_heads", "d_head", "d_ff", "max_seq_len",
            "rope_before_norm", "qk_norm", "qkv_bias", "post_norm", "tied", "rope_scaled",
        )],
        *[(name, c_double) for name in (
            "rope_base", "norm_eps", "rope_factor", "rope_low", "rope_high", "rope_original",
        )],
        ("resident", c_int32), ("unused", c_int32),
    ]  # fmt: skip


class Options(Structure):
    """`pippin_options`."""

    _fields_ = [
        *[(name, c_int32) for name in ("threads", "exact", "kv", "max_sequences", "prefill_chunk", "reserved")],
        ("kv_tokens", c_int64),
        ("kernels", c_char_p),
    ]


class Request(Structure):
    """`pippin_request`."""

    _fields_ = [
        ("tokens", POINTER(c_int32)), ("n_tokens", c_int64), ("max_tokens", c_int64),
        ("temperature", c_float), ("top_k", c_int32), ("top_p", c_float), ("min_p", c_float),
        ("repetition_penalty", c_float), ("speculate", c_int32), ("seed", c_uint64),
        ("stop_ids", POINTER(c_int32)), ("n_stop_ids", c_int64),
        ("stop_texts", POINTER(c_char_p)), ("stop_lengths", POINTER(c_int64)), ("n_stop_texts", c_int64),
        ("adapter", c_void_p),
    ]  # fmt: skip


class Event(Structure):
    """`pippin_event`."""

    _fields_ = [
        ("request", c_int64), ("token", c_int32), ("finish", c_int32), ("settled", c_int64), ("logprob", c_double),
    ]  # fmt: skip


class Stats(Structure):
    """`pippin_stats`."""

    _fields_ = [(name, c_int64) for name in (
        "pages", "pages_used", "pages_cached", "kv_page_tokens", "kv_page_bytes", "prompt_tokens", "reused_tokens",
        "new_tokens", "drafted", "accepted", "steps", "rows", "bytes_per_token",
        "matrix_ns", "attention_ns", "norm_ns", "head_ns", "wait_ns", "sample_ns",
    )]  # fmt: skip


_ERROR = (c_char_p, c_size_t)
_FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "pippin_abi": (c_int32, ()),
    "pippin_kernels": (c_int32, (c_char_p, c_size_t)),
    "pippin_model_open": (c_void_p, (c_char_p, POINTER(Config), *_ERROR)),
    "pippin_model_close": (None, (c_void_p,)),
    "pippin_model_bytes_per_token": (c_int64, (c_void_p,)),
    "pippin_adapter_open": (c_void_p, (c_void_p, c_char_p, c_int32, c_float, *_ERROR)),
    "pippin_adapter_close": (None, (c_void_p,)),
    "pippin_engine_open": (c_void_p, (c_void_p, c_void_p, POINTER(Options), *_ERROR)),
    "pippin_engine_close": (None, (c_void_p,)),
    "pippin_engine_set_text": (c_int32, (c_void_p, POINTER(c_uint8), POINTER(c_int64), c_int64, *_ERROR)),
    "pippin_submit": (c_int64, (c_void_p, POINTER(Request), *_ERROR)),
    "pippin_cancel": (c_int32, (c_void_p, c_int64)),
    "pippin_step": (c_int64, (c_void_p, POINTER(Event), c_int64, *_ERROR)),
    "pippin_pending": (c_int64, (c_void_p,)),
    "pippin_get_stats": (c_int32, (c_void_p, POINTER(Stats))),
    "pippin_score": (c_int32, (c_void_p, POINTER(c_int32), c_int64, c_void_p, POINTER(c_double), *_ERROR)),
    "pippin_logits": (c_int32, (c_void_p, POINTER(c_int32), c_int64, c_void_p, c_int64, POINTER(c_float), *_ERROR)),
    "pippin_project": (c_int32, (c_void_p, c_int32, c_int32, POINTER(c_float), c_int64, POINTER(c_float), *_ERROR)),
    "pippin_read_bandwidth": (c_double, (c_int64, c_int32, c_int32)),
}


def library_path() -> Path:
    """Where the compiled engine is: beside this file, or where an editable installation puts what it compiles.

    PIPPIN_DEVICE_LIBRARY names another one, as of a build for tests.
    """
    if chosen := os.environ.get("PIPPIN_DEVICE_LIBRARY"):
        return Path(chosen)
    beside = Path(__file__).with_name(NAME)
    installed = Path(sysconfig.get_path("platlib"), "pippin", "device", NAME)
    return installed if installed.is_file() and not beside.is_file() else beside


@cache
def library() -> ctypes.CDLL:
    """The compiled engine.

    Raises:
        UserError: it was not built (no C++ compiler when Pippin was installed), or is of another version.
    """
    path = library_path()
    if not path.is_file():
        raise UserError(
            f"{path}: the engine was not built, there was no C++ compiler; install g++ or clang++ and Pippin again "
            "(pip install --force-reinstall --no-deps), or use torch: pip install 'pippin[train]'"
        )
    try:
        lib = ctypes.CDLL(str(path))
        for name, (result, arguments) in _FUNCTIONS.items():
            function = getattr(lib, name)
            function.restype, function.argtypes = result, list(arguments)
    except (OSError, AttributeError) as error:
        raise UserError(f"{path}: cannot be loaded ({error}); install Pippin again") from None
    if lib.pippin_abi() != ABI:
        raise UserError(f"{path}: version {lib.pippin_abi()} of the engine, but {ABI} is needed; install Pippin again")
    return lib


def is_built() -> bool:
    """Whether the compiled engine is there and can be loaded."""
    try:
        library()
    except UserError:
        return False
    return True


def call(name: str, *arguments: Any) -> Any:
    """Call a function whose last two arguments are the room for an error message.

    Raises:
        UserError: with the engine's message, if it failed.
    """
    message = ctypes.create_string_buffer(_ROOM)
    result = getattr(library(), name)(*arguments, message, _ROOM)
    if message.value:
        raise UserError(message.value.decode("utf-8", errors="replace"))
    return result
