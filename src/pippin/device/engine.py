"""Packed models on the native engine: open, submit, step; one sequence, many, or a stream.

A step is one forward pass over all sequences that run, each with its own adapter or none (report section 4: adapters
are swapped, the base stays). `generate.py` has the same functions for this engine and for the torch model.
"""

from __future__ import annotations

from typing import Literal, get_args

Mode = Literal["fast", "exact"]
KV = Literal["float32", "bfloat16", "int8"]
Finish = Literal["", "stop_id", "stop_text", "length", "cancelled"]
"""How a request ended; "" while it runs."""
Speculation = Literal["no", "lookup", "draft"]
PAGE_TOKENS = 16
_FINISH: tuple[Finish, ...] = get_args(Finish)
_KV: tuple[KV, ...] = get_args(KV)
