"""Runs inside the peer's environment (see `llama_peer`): GGUF files of llama.cpp's types for speed. No Pippin here.

Which tensor gets which type is decided by llama.cpp's `llama_model_quantize` on a narrow model with as many layers, as
quantising a whole one takes many minutes. Then a few rows of each type and width are quantised by its
`ggml_quantize_chunk` and written over and over: no kernel's speed depends on the values.
"""

from __future__ import annotations

import ctypes
import math
import sys
from pathlib import Path

import gguf
import llama_cpp
import numpy as np
from gguf.quants import quant_shape_to_byte_shape
from llama_quantise import ggml, pointer

ROWS = 64


def types(narrow, target, kind):
    """Type of each tensor by name, and the number of the file's type."""
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind}")
    assert llama_cpp.llama_model_quantize(narrow.encode(), target.encode(), ctypes.byref(params)) == 0
    return {tensor.name: tensor.tensor_type for tensor in gguf.GGUFReader(target).tensors}, params.ftype


def rows(library, kind, width, cache={}):  # noqa: B006
    """ROWS quantised rows, uint8 [ROWS, bytes]."""
    if (kind, width) not in cache:
        values = np.random.default_rng(0).standard_normal((ROWS, width), np.float32) / np.sqrt(np.float32(width))
        data = np.empty(quant_shape_to_byte_shape(values.shape, kind), np.uint8)
        library.ggml_quantize_init(int(kind))
        assert (
            library.ggml_quantize_chunk(int(kind), pointer(values), data.ctypes.data, 0, ROWS, width, None)
            == data.nbytes
        )
        cache[kind, width] = data
    return cache[kind, width]


def write(source, kinds, file_type, path):
    """The tensors of `source` in other types."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(None, reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name in ("general.architecture", "general.file_type"):
            continue
        kind = field.types[0]
        writer.add_key_value(
            name, field.contents(), kind, field.types[-1] if kind is gguf.GGUFValueType.ARRAY else None
        )
    writer.add_file_type(file_type)
    for tensor in reader.tensors:
        shape, kind = tuple(map(int, reversed(tensor.shape))), kinds[tensor.name]
        if len(shape) == 2:
            shape = quant_shape_to_byte_shape(shape, kind)
            writer.add_tensor_info(tensor.name, shape, np.dtype(np.uint8), math.prod(shape), kind)
        else:
            writer.add_tensor_info(tensor.name, shape, tensor.data.dtype, tensor.data.nbytes)
    writer.write_header_to_file(path)
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    library = ggml()
    for tensor in reader.tensors:
        if len(tensor.shape) == 2:
            width, height = map(int, tensor.shape)
            data = rows(library, kinds[tensor.name], width)
            writer.write_tensor_data(np.resize(data, (height, data.shape[1])))
        else:
            writer.write_tensor_data(np.array(tensor.data))
    writer.close()


def main(source, narrow, directory, *wanted):
    for kind in wanted:
        target = Path(directory) / f"{kind}.gguf"
        scratch = Path(directory) / "narrow.tmp"
        kinds, file_type = types(narrow, str(scratch), kind)
        write(source, kinds, file_type, target.with_suffix(".partial"))
        target.with_suffix(".partial").rename(target)
        scratch.unlink()


if __name__ == "__main__":
    main(*sys.argv[1:])
