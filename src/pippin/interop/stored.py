"""The tensors of a model directory, packed or dense, one at a time with numpy alone: what the exporters read."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from pippin.errors import UserError
from pippin.interop.directory import GROUP_ROWS, PROJECTIONS, is_packed, read_config, read_packed_config, weight_files
from pippin.interop.layouts import hf_name
from pippin.model.config import ModelConfig

Floats: TypeAlias = NDArray[np.float32]

TABLE_STEPS = 127  # tables are int8 in steps of 1 / 127 (docs/format.md)
_LANE = 4  # bytes of a row in a block of codes
_NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I8": "i1", "U8": "u1", "BF16": "<u2"}
_ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I8": 1, "U8": 1, "I16": 2, "I32": 4, "I64": 8, "BOOL": 1}
_DENSE = ("F64", "F32", "F16", "BF16")


class _Entry(NamedTuple):
    """A tensor in a file; `offset` in bytes from the start of the file."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int


class Palette(NamedTuple):
    """A palettized weight [out, in]: `table[row // 16, indices] / 127 * scale[row]`.

    `indices` uint8 [out, in], `table` int8 [ceil(out / 16), 2 ** bits], `scale` float16 [out].
    """

    bits: int
    indices: NDArray[np.uint8]
    table: NDArray[np.int8]
    scale: NDArray[np.float16]

    def dense(self) -> Floats:
        """The weight, in float32 and with the roundings that Pippin's own model has."""
        values: Floats = self.table.astype(np.float32) / np.float32(TABLE_STEPS)
        groups = np.arange(len(self.indices)) // GROUP_ROWS
        weight: Floats = values[groups[:, None], self.indices]
        weight *= self.scale.astype(np.float32)[:, None]
        return weight


class Int8Rows(NamedTuple):
    """An embedding [vocabulary, width]: `codes * scale[row]`; `codes` int8, `scale` float32 [vocabulary]."""

    codes: NDArray[np.int8]
    scale: Floats

    def dense(self) -> Floats:
        """The table in float32."""
        table: Floats = self.codes.astype(np.float32)
        table *= self.scale[:, None]
        return table


def parameter_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every parameter of `Transformer`, without making one."""
    q, kv, d, f = config.n_heads * config.d_head, config.n_kv_heads * config.d_head, config.d_model, config.d_ff
    matrices = [(q, d), (kv, d), (kv, d), (d, q), (f, d), (f, d), (d, f)]
    shapes: dict[str, tuple[int, ...]] = {"embed.weight": (config.vocab_size, d)}
    for layer in range(config.n_layers):
        own: dict[str, tuple[int, ...]] = {"attention_norm.weight": (d,), "ffn_norm.weight": (d,)}
        own |= {f"{name}.weight": shape for name, shape in zip(PROJECTIONS, matrices, strict=True)}
        if config.qkv_bias:
            own |= {f"attention.{name}.bias": (width,) for name, width in (("q", q), ("k", kv), ("v", kv))}
        if config.qk_norm != "none":
            wide = config.qk_norm == "width"
            own["attention.q_norm.weight"] = (q if wide else config.d_head,)
            own["attention.k_norm.weight"] = (kv if wide else config.d_head,)
        shapes |= {f"blocks.{layer}.{name}": shape for name, shape in own.items()}
    shapes["norm.weight"] = (d,)
    if not config.tied:
        shapes["head.weight"] = (config.vocab_size, d)
    return shapes


class StoredModel:
    """A model directory of either kind; tensors are read from the mapped file when they are asked for.

    Attributes:
        directory: where it lies; tokenizer files are beside the weights.
        config: the model's shape and settings.
        shapes: shape of every parameter, by the names of `Transformer`.
        packed: whether projections are palettized.

    Raises:
        UserError: a file is missing or damaged, or a tensor is missing, or of the wrong shape or type.
    """

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        self.packed = is_packed(self.directory)
        self._bits: dict[str, int] = {}
        if self.packed:
            self.config, self._bits = read_packed_config(self.directory)
        else:
            self.config = read_config(self.directory)
        self.shapes = parameter_shapes(self.config)
        self._tensors = _entries(self.directory)
        for name in self.shapes:
            self._check(name)

    def palette(self, name: str) -> Palette:
        """A packed model's projection, by the name of its parameter ("blocks.0.attention.q.weight")."""
        stored, (out, width) = self._stored(name), self.shapes[name]
        bits = self._bits[stored]
        codes = self._take(f"{stored}.codes", ("U8",), codes_shape(bits, out, width))
        table = self._take(f"{stored}.table", ("I8",), (codes.shape[0], 2**bits))
        scale = self._take(f"{stored}.scale", ("F16",), (out,))
        return Palette(bits, unpack(codes, bits, out, width), table, scale)

    def int8_rows(self, name: str) -> Int8Rows:
        """A packed model's embedding ("embed.weight", "head.weight")."""
        stored, shape = self._stored(name), self.shapes[name]
        codes = self._take(f"{stored}.codes", ("I8",), shape)
        return Int8Rows(codes, self._take(f"{stored}.scale", ("F32",), shape[:1]))

    def dense(self, name: str) -> Floats:
        """Any parameter as float32 values, whatever it is stored as."""
        if self.packed and self.is_projection(name):
            return self.palette(name).dense()
        if self.packed and self.is_embedding(name):
            return self.int8_rows(name).dense()
        return self._take(hf_name(name, self.config.post_norm), _DENSE, self.shapes[name])

    @staticmethod
    def is_projection(name: str) -> bool:
        """Whether a parameter is the matrix of a projection."""
        return name.endswith(".weight") and name.split(".", 2)[-1].removesuffix(".weight") in PROJECTIONS

    @staticmethod
    def is_embedding(name: str) -> bool:
        """Whether a parameter is a table over the vocabulary."""
        return name in ("embed.weight", "head.weight")

    def _stored(self, name: str) -> str:
        return hf_name(name, self.config.post_norm).removesuffix(".weight")

    def _check(self, name: str) -> None:
        """Look at types and shapes of what stores a parameter, without reading values."""
        stored, shape = self._stored(name), self.shapes[name]
        if self.packed and self.is_projection(name):
            bits = self._bits[stored]
            codes = codes_shape(bits, shape[0], shape[1])
            self._entry(f"{stored}.codes", ("U8",), codes)
            self._entry(f"{stored}.table", ("I8",), (codes[0], 2**bits))
            self._entry(f"{stored}.scale", ("F16",), shape[:1])
        elif self.packed and self.is_embedding(name):
            self._entry(f"{stored}.codes", ("I8",), shape)
            self._entry(f"{stored}.scale", ("F32",), shape[:1])
        else:
            self._entry(hf_name(name, self.config.post_norm), _DENSE, shape)

    def _entry(self, stored: str, dtypes: tuple[str, ...], shape: tuple[int, ...]) -> _Entry:
        entry = self._tensors.get(stored)
        if entry is None:
            raise UserError(f"{self.directory}: {stored}: tensor missing; the directory is not whole, write it again")
        if entry.dtype not in dtypes or entry.shape != shape:
            raise UserError(
                f"{entry.file}: {stored}: {entry.dtype} {entry.shape}, but config.json says {dtypes[0]} {shape}; "
                "weights and configuration are of different models"
            )
        return entry

    def _take(self, stored: str, dtypes: tuple[str, ...], shape: tuple[int, ...]) -> NDArray[Any]:
        entry = self._entry(stored, dtypes, shape)
        array: NDArray[Any] = np.memmap(entry.file, _NUMPY[entry.dtype], "r", entry.offset, shape)
        if entry.dtype == "BF16":  # the upper half of a float32
            array = (array.astype(np.uint32) << 16).view(np.float32)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise UserError(f"{entry.file}: {stored}: holds NaN or infinity; the file is damaged, write it again")
        return array.astype(np.float32) if dtypes == _DENSE else array


def codes_shape(bits: int, out_features: int, in_features: int) -> tuple[int, int, int]:
    """Shape of the codes of a weight: `pippin.model.codes.codes_shape` without torch."""
    block_inputs = _LANE * (8 // bits)
    return -(-out_features // GROUP_ROWS), -(-in_features // block_inputs), GROUP_ROWS * _LANE


def unpack(codes: NDArray[np.uint8], bits: int, out_features: int, in_features: int) -> NDArray[np.uint8]:
    """The table indices [out, in] of codes [groups, blocks, 64]: `pippin.model.codes.unpack` without torch."""
    groups, blocks, _ = codes.shape
    fields = np.empty((groups, GROUP_ROWS, blocks, 8 // bits, _LANE), np.uint8)
    lanes = codes.reshape(groups, blocks, GROUP_ROWS, _LANE).transpose(0, 2, 1, 3)
    for field in range(8 // bits):
        fields[:, :, :, field] = (lanes >> (bits * field)) & (2**bits - 1)
    return fields.reshape(groups * GROUP_ROWS, -1)[:out_features, :in_features]


_TORCH = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I8": "int8", "U8": "uint8",
    "I16": "int16", "I32": "int32", "I64": "int64", "BOOL": "bool",
}  # fmt: skip


def raw_tensors(directory: Path) -> Iterator[tuple[str, str, tuple[int, ...], memoryview]]:
    """Name, dtype (by its name in torch), shape and bytes of every tensor of a directory; the bytes are mapped.

    Raises:
        UserError: a file is missing or damaged.
    """
    for name, entry in _entries(directory).items():
        dtype = _TORCH.get(entry.dtype, entry.dtype)
        size = math.prod(entry.shape) * _ITEM_BYTES.get(entry.dtype, 1)
        content = np.memmap(entry.file, "u1", "r", entry.offset, (size,)).data if size else memoryview(b"")
        yield name, dtype, entry.shape, content


def _entries(directory: Path) -> dict[str, _Entry]:
    """Where every tensor of a directory lies; the library checks the headers, values are mapped by offset."""
    entries = {}
    for file_name, listed in weight_files(directory).items():
        path = directory / file_name
        try:
            with safe_open(path, framework="numpy"):
                pass
            with open(path, "rb") as file:
                length = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(length))
        except FileNotFoundError:
            raise UserError(f"{path}: no such file; the directory is not whole") from None
        except (SafetensorError, OSError, ValueError) as error:
            raise UserError(f"{path}: not a whole safetensors file ({error}); fetch or write it again") from None
        header.pop("__metadata__", None)
        for name, values in header.items():
            if listed is None or name in listed:
                offset = 8 + length + values["data_offsets"][0]
                entries[name] = _Entry(path, values["dtype"], tuple(values["shape"]), offset)
    return entries
