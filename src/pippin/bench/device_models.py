"""Packed models of any shape with random weights: for measuring speed, where values do not matter."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from pippin.files import atomic_path, write_json
from pippin.interop.directory import EMBEDDING_FORMAT, FORMAT_VERSION, GROUP_ROWS, PROJECTIONS, QUANT_METHOD
from pippin.interop.layouts import hf_name, to_hf_config
from pippin.interop.lora import CONFIG, WEIGHTS
from pippin.interop.stored import codes_shape, parameter_shapes
from pippin.model.config import ModelConfig

_NAMES = {"uint8": "U8", "int8": "I8", "float16": "F16", "float32": "F32"}
_LINE = 64


def random_plan(config: ModelConfig, bits_per_weight: float) -> dict[str, int]:
    """2 or 4 bits for each projection, spread evenly over the layers, so that codes take `bits_per_weight` or less."""
    shapes = parameter_shapes(config)
    names = [f"blocks.{layer}.{name}" for layer in range(config.n_layers) for name in PROJECTIONS]
    sizes = [math.prod(shapes[f"{name}.weight"]) for name in names]
    budget, spent, plan = bits_per_weight * sum(sizes), 0.0, {}
    for seen, (name, size) in enumerate(zip(names, sizes, strict=True), start=1):
        share = budget * sum(sizes[:seen]) / sum(sizes)
        plan[name] = 4 if spent + 4 * size <= share + size / 2 and bits_per_weight > 2 else 2
        spent += plan[name] * size
    return plan


def write_random_packed(
    directory: Path, config: ModelConfig, plan: dict[str, int], seed: int = 0, given: Mapping[str, Any] | None = None
) -> None:
    """Write a packed model (docs/format.md) with uniform codes and normal tables, tensor by tensor.

    Args:
        directory: made if missing.
        plan: bits of each projection, "blocks.0.attention.q": 4.
        given: arrays to write instead, by the tensor's name in the file.
    """
    given = given or {}
    rng = np.random.default_rng(seed)
    shapes = parameter_shapes(config)
    tensors: list[tuple[str, str, tuple[int, ...], Any]] = []
    for name, shape in shapes.items():
        stored = hf_name(name, config.post_norm)
        base, module = stored.removesuffix(".weight"), name.removesuffix(".weight")
        if module in plan:
            groups, *_ = codes = codes_shape(plan[module], shape[0], shape[1])
            values = np.linspace(-127, 127, 2 ** plan[module]).astype(np.int8)
            table = np.tile(values, (groups, 1))
            scale = np.full(shape[0], 1.5 / math.sqrt(shape[1]), np.float16)
            tensors += [(f"{base}.codes", "uint8", codes, None), (f"{base}.table", "int8", table.shape, table)]
            tensors.append((f"{base}.scale", "float16", scale.shape, scale))
        elif module in ("embed", "head"):
            scale = np.full(shape[0], 1 / 127, np.float32)
            tensors += [(f"{base}.codes", "int8", shape, None), (f"{base}.scale", "float32", scale.shape, scale)]
        else:
            tensors.append((stored, "float32", shape, np.ones(shape, np.float32)))
    tensors.sort(key=lambda t: (math.prod(t[2]) * np.dtype(t[1]).itemsize % _LINE != 0, -np.dtype(t[1]).itemsize, t[0]))
    header: dict[str, Any] = {}
    offset = 0
    for name, dtype, shape, _ in tensors:
        size = math.prod(shape) * np.dtype(dtype).itemsize
        header[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % _LINE)
    with atomic_path(directory / "model.safetensors") as temporary, open(temporary, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, dtype, shape, values in tensors:
            values = given.get(name, values)
            if values is None:
                raw = rng.integers(0, 256, math.prod(shape), np.uint8)
                if dtype == "int8":  # -128 is no code of an embedding
                    raw = np.clip(raw.view(np.int8), -127, 127)
                file.write(raw.data)
            else:
                file.write(np.ascontiguousarray(values).data)
    settings = {
        "quant_method": QUANT_METHOD,
        "format_version": FORMAT_VERSION,
        "group_rows": GROUP_ROWS,
        "embedding": EMBEDDING_FORMAT,
        "bits": {hf_name(f"{name}.weight").removesuffix(".weight"): bits for name, bits in plan.items()},
    }
    write_json(directory / "config.json", to_hf_config(config) | {"quantization_config": settings})


def adapter_bytes(config: ModelConfig, rank: int) -> int:
    """What an adapter of all projections in 16 bits adds to the bytes of a token."""
    shapes = parameter_shapes(config)
    names = [f"blocks.0.{name}.weight" for name in PROJECTIONS]
    return 2 * rank * config.n_layers * sum(sum(shapes[name]) for name in names)


def write_random_adapter(directory: Path, config: ModelConfig, rank: int, seed: int = 0) -> None:
    """Write an adapter of all projections as PEFT does: float16, normal values, small enough to change little."""
    rng = np.random.default_rng(seed)
    shapes = parameter_shapes(config)
    tensors = {}
    for layer in range(config.n_layers):
        for name in PROJECTIONS:
            out, width = shapes[f"blocks.{layer}.{name}.weight"]
            module = f"base_model.model.{hf_name(f'blocks.{layer}.{name}.weight').removesuffix('.weight')}"
            for part, shape in (("A", (rank, width)), ("B", (out, rank))):
                values = rng.standard_normal(shape, np.float32) / np.float32(8 * math.sqrt(shape[1]))
                tensors[f"{module}.lora_{part}.weight"] = values.astype(np.float16)
    with atomic_path(directory / WEIGHTS) as temporary:
        save_file(tensors, temporary)
    write_json(directory / CONFIG, {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "bias": "none"})
