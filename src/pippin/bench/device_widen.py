"""A small packed model inside a large shape: the same logits, and all the work of the large one.

Where the small model has nothing, rows have the scale 0, so their outputs are 0; inputs that are always 0 meet random
codes. Further layers add nothing to the residual stream. So a model that could be trained here says its text at the
speed of a model that could not.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pippin.bench.device_models import write_random_packed
from pippin.interop.directory import GROUP_ROWS, PROJECTIONS, read_packed_config
from pippin.interop.layouts import hf_name
from pippin.interop.stored import StoredModel
from pippin.model.codes import pack
from pippin.model.config import ModelConfig

_INPUTS = {"attention.o": "heads", "ffn.down": "ffn"}
_OUTPUTS = {"attention.q": "heads", "attention.k": "heads", "attention.v": "heads", "ffn.gate": "ffn", "ffn.up": "ffn"}


def widen(small: Path, directory: Path, shape: ModelConfig, plan: dict[str, int]) -> None:
    """Write the model `small` into `shape`, whose heads are twice as wide.

    Args:
        plan: bits of the projections of the layers that `small` has not got; its own keep theirs.

    Raises:
        ValueError: the shape is not larger in all things, or its heads are not twice as wide.
    """
    model = StoredModel(small)
    old, (_, stored_bits) = model.config, read_packed_config(small)
    same_groups = shape.n_heads // shape.n_kv_heads == old.n_heads // old.n_kv_heads
    if not same_groups or shape.d_head != 2 * old.d_head:
        raise ValueError("shape: heads must be twice as wide, with as many query heads a key/value head")
    if any(getattr(shape, n) < getattr(old, n) for n in ("vocab_size", "d_model", "n_layers", "n_kv_heads", "d_ff")):
        raise ValueError("shape: must not be smaller")
    new = replace(shape, rope_base=old.rope_base, norm_eps=old.norm_eps * old.d_model / shape.d_model)
    if new.norm_eps != old.norm_eps / 2:
        raise ValueError("shape: d_model must be doubled too, one epsilon serves all norms")
    bits = {name: stored_bits[hf_name(f"{name}.weight").removesuffix(".weight")] for name in _projections(old.n_layers)}
    given: dict[str, Any] = {}
    for name in _projections(new.n_layers):
        if name in bits:
            given |= _projection(model, name, new)
        elif name.endswith((".o", ".down")):
            given[_stored(name, "scale")] = np.zeros(new.d_model, np.float16)
    rows = model.int8_rows("embed.weight")
    codes, scale = np.zeros((new.vocab_size, new.d_model), np.int8), np.zeros(new.vocab_size, np.float32)
    codes[: old.vocab_size, : old.d_model], scale[: old.vocab_size] = rows.codes, rows.scale
    given |= {_stored("embed", "codes"): codes, _stored("embed", "scale"): scale}
    for name in model.shapes:
        kind = name.rsplit(".", 2)[-2]
        if kind.endswith("norm"):
            # The mean of squares is halved by as many zeros; scores are divided by the root of a doubled head.
            value = model.dense(name) / np.float32(1 if kind == "q_norm" else math.sqrt(2))
            wide = np.zeros(new.d_head if kind in ("q_norm", "k_norm") else new.d_model, np.float32)
            wide[_heads(1, old.d_head) if kind in ("q_norm", "k_norm") else slice(old.d_model)] = value
            given[hf_name(name)] = wide
    write_random_packed(directory, new, plan | bits, given=given)


def _projection(model: StoredModel, name: str, new: ModelConfig) -> dict[str, Any]:
    """The tensors of one projection, its rows and columns at their new places."""
    palette, (out, width) = model.palette(f"{name}.weight"), model.shapes[f"{name}.weight"]
    kind = name.split(".", 2)[2]
    rows, columns = (
        _places(table.get(kind), size, model.config) for table, size in ((_OUTPUTS, out), (_INPUTS, width))
    )
    tall, wide = _size(kind, new)
    rng = np.random.default_rng(0)
    indices = rng.integers(0, 2**palette.bits, (tall, wide), np.uint8)
    indices[rows[:, None], columns] = palette.indices
    table = np.zeros((tall // GROUP_ROWS, 2**palette.bits), np.int8)
    table[rows // GROUP_ROWS] = palette.table[np.arange(out) // GROUP_ROWS]
    scale = np.zeros(tall, np.float16)
    scale[rows] = palette.scale
    codes = pack(torch.from_numpy(indices), palette.bits).numpy()
    return {_stored(name, "codes"): codes, _stored(name, "table"): table, _stored(name, "scale"): scale}


def _places(space: str | None, size: int, old: ModelConfig) -> Any:
    return _heads(size // old.d_head, old.d_head) if space == "heads" else np.arange(size)


def _heads(count: int, d_head: int) -> Any:
    """Where the values of heads go if heads are twice as wide: to every other place, where the rotation is the same."""
    return (np.arange(count)[:, None] * 2 * d_head + 2 * np.arange(d_head)).ravel()


def _size(kind: str, new: ModelConfig) -> tuple[int, int]:
    heads = {"attention.q": new.n_heads, "attention.o": new.n_heads}.get(kind, new.n_kv_heads) * new.d_head
    if kind == "attention.o":
        return new.d_model, heads
    if kind == "ffn.down":
        return new.d_model, new.d_ff
    return (new.d_ff if kind.startswith("ffn") else heads), new.d_model


def _projections(layers: int) -> list[str]:
    return [f"blocks.{layer}.{name}" for layer in range(layers) for name in PROJECTIONS]


def _stored(name: str, part: str) -> str:
    return f"{hf_name(f'{name}.weight').removesuffix('.weight')}.{part}"
