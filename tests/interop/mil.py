"""A written Core ML package computed with NumPy: the operations that Pippin's programs use, as they are defined."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

CASTS = {"fp16": np.float16, "fp32": np.float32, "int32": np.int32}


def looked_up(indices: np.ndarray, lut: np.ndarray) -> np.ndarray:
    """Case 1 of constexpr_lut_to_dense: a table for each block of rows and columns, scalars in it."""
    rows, columns = (size // tables for size, tables in zip(indices.shape, lut.shape, strict=False))
    tables = lut[..., 0].repeat(rows, 0).repeat(columns, 1)
    return np.take_along_axis(tables, indices.astype(np.int64)[..., None], 2)[..., 0]


def scaled(data: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """constexpr_blockwise_shift_scale without an offset."""
    for axis, (size, scales) in enumerate(zip(data.shape, scale.shape, strict=True)):
        scale = scale.repeat(size // scales, axis)
    return data.astype(scale.dtype) * scale


def slices(begin: Any, end: Any, masks: dict[str, Any]) -> tuple[Any, ...]:
    found: list[Any] = []
    none = [False] * len(begin)
    open_start, open_end, squeeze = (masks.get(name) for name in ("begin_mask", "end_mask", "squeeze_mask"))
    for b, e, first, last, one in zip(
        begin,
        end,
        none if open_start is None else open_start,
        none if open_end is None else open_end,
        none if squeeze is None else squeeze,
        strict=True,
    ):
        found.append(int(b) if one else slice(None if first else int(b), None if last else int(e)))
    return tuple(found)


def softmax(x: np.ndarray, axis: int) -> np.ndarray:
    e = np.exp(x.astype(np.float32) - x.max(axis, keepdims=True))
    return (e / e.sum(axis, keepdims=True)).astype(x.dtype)


def updated(x: np.ndarray, update: np.ndarray, begin: Any, end: Any, **masks: Any) -> np.ndarray:
    x = x.copy()
    assert x[slices(begin, end, masks)].shape == update.shape
    x[slices(begin, end, masks)] = update
    return x


def matmul(x: np.ndarray, y: np.ndarray, transpose_x: bool = False, transpose_y: bool = False) -> np.ndarray:
    x, y = (
        a.astype(np.float32).swapaxes(-1, -2) if t else a.astype(np.float32)
        for a, t in ((x, transpose_x), (y, transpose_y))
    )
    return x @ y


OPERATIONS: dict[str, Callable[..., Any]] = {
    "add": lambda x, y: x + y,
    "cast": lambda x, dtype: x.astype(CASTS[dtype]),
    "concat": lambda values, axis, interleave: np.concatenate(values, axis),
    "constexpr_blockwise_shift_scale": scaled,
    "constexpr_lut_to_dense": looked_up,
    "expand_dims": lambda x, axes: np.expand_dims(x, tuple(axes)),
    "gather": lambda x, indices, axis, batch_dims, validate_indices: x.take(indices, axis),
    "identity": lambda x: x,
    "less_equal": lambda x, y: x <= y,
    "linear": lambda x, weight, bias: (matmul(x, weight, transpose_y=True) + bias.astype(np.float32)).astype(x.dtype),
    "matmul": lambda x, y, **transposed: matmul(x, y, **transposed).astype(x.dtype),
    "mul": lambda x, y: x * y,
    "reduce_mean": lambda x, axes, keep_dims: x.mean(tuple(axes), keepdims=bool(keep_dims)),
    "reshape": lambda x, shape: x.reshape(shape),
    "rsqrt": lambda x, epsilon: 1 / np.sqrt(x + epsilon),
    "shape": lambda x: np.array(x.shape, np.int32),
    "silu": lambda x: (x.astype(np.float32) / (1 + np.exp(-x.astype(np.float32)))).astype(x.dtype),
    "slice_by_index": lambda x, begin, end, **masks: x[slices(begin, end, masks)],
    "slice_update": updated,
    "softmax": softmax,
    "split": lambda x, num_splits, axis: np.split(x, num_splits, axis),
    "sub": lambda x, y: x - y,
    "transpose": lambda x, perm: x.transpose(perm),
}


class Package:
    """A package as Core ML would open it: functions to call, and states that live between the calls."""

    def __init__(self, path: Path) -> None:
        import coremltools as ct
        from coremltools.converters.mil.frontend.milproto.load import load

        spec = ct.utils.load_spec(str(path))
        self.program = load(spec, spec.specificationVersion, str(path / "Data/com.apple.CoreML/weights"))
        self.description = spec.description
        self.states: dict[str, np.ndarray] = {}

    def __call__(self, tokens: list[int], start: int, function: str = "main") -> np.ndarray:
        """Logits [V] after `tokens` at the positions from `start` on."""
        block = self.program.functions[function]
        given = {
            "tokens": np.array([tokens], np.int32),
            "positions": np.arange(start, start + len(tokens), dtype=np.int32)[None],
        }
        for name, var in block.inputs.items():
            if name not in given:
                self.states.setdefault(name, np.zeros(var.sym_type.wrapped_type().get_shape(), np.float16))
        values: dict[Any, Any] = {var: given.get(name, name) for name, var in block.inputs.items()}
        for operation in block.operations:
            arguments = {
                name: [self._value(v, values) for v in var]
                if isinstance(var, (tuple, list))
                else self._value(var, values)
                for name, var in operation.inputs.items()
                if var is not None
            }
            found = self._run(operation.op_type, arguments)
            outputs = operation.outputs
            for var, value in zip(outputs, found if len(outputs) > 1 else [found], strict=True):
                values[var] = value
        (logits,) = block.outputs
        return values[logits][0, 0]

    def _run(self, kind: str, arguments: dict[str, Any]) -> Any:
        if kind == "const":
            return None
        if kind == "read_state":
            return self.states[arguments["input"]]
        if kind == "coreml_update_state":
            self.states[arguments["state"]] = arguments["value"]
            return arguments["value"]
        return OPERATIONS[kind](**arguments)

    @staticmethod
    def _value(var: Any, values: dict[Any, Any]) -> Any:
        return values[var] if var in values and values[var] is not None else var.val
