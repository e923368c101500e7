"""Runs inside the peer's environment (see `llama_peer`): float tensors in, llama.cpp's values out. No Pippin here.

llama.cpp's own `llama_model_quantize` decides which tensor gets which type and quantises without importance; with
importance, the same types are made by its `ggml_quantize_chunk`. Values come back through the `gguf` package.
"""

from __future__ import annotations

import ctypes
import json
import sys
from collections import Counter
from pathlib import Path

import gguf
import llama_cpp
import numpy as np
from gguf.quants import dequantize, quant_shape_to_byte_shape
from safetensors import safe_open
from safetensors.numpy import save_file

FTYPES = {
    "Q4_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0,
    "Q4_K_M": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M,
    "IQ4_NL": llama_cpp.LLAMA_FTYPE_MOSTLY_IQ4_NL,
    "Q2_K": llama_cpp.LLAMA_FTYPE_MOSTLY_Q2_K,
}


def ggml():
    """llama.cpp's base library, with the signature of its quantiser."""
    for path in sorted(Path(llama_cpp.__file__).parent.glob("lib/*ggml-base*")):
        library = ctypes.CDLL(str(path))
        floats = ctypes.POINTER(ctypes.c_float)
        library.ggml_quantize_chunk.argtypes = [
            ctypes.c_int, floats, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, floats,
        ]  # fmt: skip
        library.ggml_quantize_chunk.restype = ctypes.c_size_t
        library.ggml_quantize_init.argtypes = [ctypes.c_int]
        return library
    raise SystemExit("llama.cpp's base library was not found in its package")


def pointer(array):
    return None if array is None else array.ctypes.data_as(ctypes.POINTER(ctypes.c_float))


def quantised(library, kind, tensor, importance):
    """The values that a tensor has after a round trip through a type."""
    rows, width = tensor.shape
    shape = quant_shape_to_byte_shape(tensor.shape, kind)
    data = np.empty(shape, np.uint8)
    library.ggml_quantize_init(int(kind))
    written = library.ggml_quantize_chunk(
        int(kind), pointer(tensor), data.ctypes.data, 0, rows, width, pointer(importance)
    )
    assert written == data.nbytes, (kind, written, data.nbytes)
    return dequantize(data, kind)


def main(source, given, directory, *types):
    with safe_open(given, framework="numpy") as file:
        importance = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    tensors = {tensor.name: np.array(tensor.data, np.float32) for tensor in gguf.GGUFReader(source).tensors}
    projections = [name for name in tensors if tensors[name].ndim == 2 and name.startswith("blk.")]
    library = ggml()
    reports = []
    for name in types:
        target = Path(directory) / f"{name}.gguf"
        params = llama_cpp.llama_model_quantize_default_params()
        params.ftype = FTYPES[name]
        params.nthread = 2
        assert llama_cpp.llama_model_quantize(source.encode(), str(target).encode(), ctypes.byref(params)) == 0
        read = {tensor.name: tensor for tensor in gguf.GGUFReader(target).tensors}
        kinds = {tensor_name: tensor.tensor_type for tensor_name, tensor in read.items()}
        plain = {n: dequantize(np.array(t.data), t.tensor_type).reshape(tensors[n].shape) for n, t in read.items()}
        bits = 8 * sum(read[n].n_bytes for n in projections) / sum(tensors[n].size for n in projections)
        file_bits = 8 * sum(t.n_bytes for t in read.values()) / sum(t.size for t in tensors.values())
        counts = Counter(kinds[n].name for n in projections)
        types = " ".join(f"{count}x{kind}" for kind, count in counts.most_common())
        types += f", embedding {kinds['token_embd.weight'].name}"
        weighed = plain | {
            n: quantised(library, kinds[n], tensors[n], np.ascontiguousarray(importance[n], np.float32))
            for n in projections
        }
        for system, values in ((name, plain), (f"{name} +im", weighed)):
            file = f"{system.replace(' ', '')}.safetensors"
            save_file({n: np.ascontiguousarray(v, np.float32) for n, v in values.items()}, Path(directory) / file)
            reports.append({"system": system, "bits": bits, "file_bits": file_bits, "types": types, "file": file})
    (Path(directory) / "report.json").write_text(json.dumps(reports), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
