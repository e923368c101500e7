"""GGUF files, which llama.cpp and what is built on it open: weights, shape and vocabulary in one file.

The one writer of the project. Names, the order of rotated rows and what each architecture asks for were read in
llama.cpp's `src/models/*.cpp` and are tested against it (`pippin bench export`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pippin.errors import UserError
from pippin.files import atomic_path
from pippin.interop.gguf_vocabulary import add_vocabulary
from pippin.interop.layouts import family_of
from pippin.interop.stored import Floats, StoredModel, parameter_shapes
from pippin.model.config import ModelConfig, RopeScaling

if TYPE_CHECKING:
    from gguf import GGUFWriter

TYPES = ("f16", "f32", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0")
"""What the `gguf` package can write; llama.cpp's other types are made from an f16 file by its `llama-quantize`."""

_FILE_TYPES = {
    "f32": "ALL_F32", "f16": "MOSTLY_F16", "bf16": "MOSTLY_BF16", "q8_0": "MOSTLY_Q8_0", "q5_1": "MOSTLY_Q5_1",
    "q5_0": "MOSTLY_Q5_0", "q4_1": "MOSTLY_Q4_1", "q4_0": "MOSTLY_Q4_0",
}  # fmt: skip
_TABLE_TYPES = dict.fromkeys(("q5_1", "q5_0", "q4_1", "q4_0"), "q8_0")  # embedding and head suffer most from few bits
_ARCHITECTURES = {"qwen3": "qwen3", "qwen2": "qwen2", "llama": "llama", "mistral": "llama", "olmo2": "olmo2"}
_ENDS = {"embed": "token_embd", "norm": "output_norm", "head": "output"}
_IN_BLOCK = {
    "attention.q": "attn_q", "attention.k": "attn_k", "attention.v": "attn_v", "attention.o": "attn_output",
    "ffn.gate": "ffn_gate", "ffn.up": "ffn_up", "ffn.down": "ffn_down", "attention_norm": "attn_norm",
    "ffn_norm": "ffn_norm", "attention.q_norm": "attn_q_norm", "attention.k_norm": "attn_k_norm",
}  # fmt: skip
_POST_NORM = {"attention_norm": "post_attention_norm", "ffn_norm": "post_ffw_norm"}


def gguf_name(name: str, post_norm: bool = False) -> str:
    """The name in a GGUF file of one of `Transformer`'s parameters; `post_norm` is the model's `config.post_norm`."""
    module, _, kind = name.rpartition(".")
    if module in _ENDS:
        return f"{_ENDS[module]}.{kind}"
    _, layer, module = module.split(".", 2)
    table = _IN_BLOCK | _POST_NORM if post_norm else _IN_BLOCK
    return f"blk.{layer}.{table[module]}.{kind}"


def architecture_of(config: ModelConfig) -> str:
    """The architecture of llama.cpp that computes `config`.

    Raises:
        UserError: none does.
    """
    name = _ARCHITECTURES[family_of(config)]
    width = config.n_heads * config.d_head
    if name in ("qwen2", "olmo2") and width != config.d_model:
        raise UserError(
            f"d_head: value {config.d_head}: llama.cpp's {name} needs n_heads * d_head = d_model, but they are {width} "
            f"and {config.d_model}; export with --to hf"
        )
    if config.rope_scaling is not None and name != "llama":
        raise UserError(
            f"rope_scaling: llama.cpp's {name} does not compute the scaling of Llama 3.1; export with --to hf"
        )
    return name


def export_gguf(
    model: StoredModel, path: str | Path, kind: str = "f16", progress: Callable[[int], object] = lambda n: None
) -> Counter[str]:
    """Write a model directory, packed or dense, with its tokenizer and chat template.

    Args:
        model: packed weights are written as the values that they stand for.
        path: of the file; replaced if it is there.
        kind: one of TYPES.
        progress: called with the number of tensors written since the last call.
    Returns:
        How many tensors have which type: norms are f32, rows that do not divide into blocks of 32 are f16, and beside
        4 and 5 bits the embedding is q8_0.
    Raises:
        UserError: the `gguf` package is missing, llama.cpp cannot compute the model or use its tokenizer, a value
            does not fit into 16 bits, or no space is left.
    """
    return write_gguf(path, model.config, model.dense, model.directory, kind, progress)


def write_gguf(
    path: str | Path,
    config: ModelConfig,
    read: Callable[[str], Floats],
    tokenizer_dir: Path | None,
    kind: str = "f16",
    progress: Callable[[int], object] = lambda n: None,
) -> Counter[str]:
    """Write the parameters that `read` gives by name; without `tokenizer_dir` the file has no vocabulary.

    Parameters are read one at a time, twice the largest is in memory. For the rest see `export_gguf`.
    """
    try:
        import gguf
        from gguf.quants import quant_shape_to_byte_shape, quantize
    except ImportError:
        raise UserError("gguf: the package is not installed; pip install 'pippin[export]'") from None
    if kind not in TYPES:
        raise UserError(f"type: value {kind!r}: must be one of {', '.join(TYPES)}")
    name = architecture_of(config)
    shapes = parameter_shapes(config)
    sources = {gguf_name(ours, config.post_norm): ours for ours in shapes}
    if name == "olmo2" and config.tied:  # the only one that does not fall back to the embedding
        sources["output.weight"] = "embed.weight"
    kinds = {theirs: _tensor_type(ours, shapes[ours], kind) for theirs, ours in sources.items()}

    writer = gguf.GGUFWriter(None, name)
    _add_shape(writer, config)
    writer.add_file_type(gguf.LlamaFileType[_FILE_TYPES[kind]])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    add_vocabulary(writer, tokenizer_dir, config.vocab_size)
    if config.rope_scaling is not None:
        writer.add_tensor_info("rope_freqs.weight", (config.d_head // 2,), np.dtype(np.float32), 2 * config.d_head)
    for theirs, ours in sources.items():
        ggml_type = gguf.GGMLQuantizationType[kinds[theirs].upper()]
        if kinds[theirs] in ("f16", "f32"):
            size = math.prod(shapes[ours]) * (2 if kinds[theirs] == "f16" else 4)
            writer.add_tensor_info(theirs, shapes[ours], np.dtype(np.float32), size, ggml_type)
        else:
            stored = quant_shape_to_byte_shape(shapes[ours], ggml_type)
            writer.add_tensor_info(theirs, stored, np.dtype(np.uint8), math.prod(stored), ggml_type)
    with atomic_path(path) as temporary:
        try:
            writer.write_header_to_file(temporary)
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            if config.rope_scaling is not None:
                writer.write_tensor_data(rope_divisors(config, config.rope_scaling))
            for theirs, ours in sources.items():
                value = np.ascontiguousarray(read(ours), np.float32)
                if name == "llama" and ".attention.q." in ours:
                    value = interleaved(value, config.n_heads)
                elif name == "llama" and ".attention.k." in ours:
                    value = interleaved(value, config.n_kv_heads)
                if kinds[theirs] == "f16" and np.abs(value).max(initial=0.0) > np.finfo(np.float16).max:
                    raise UserError(f"type: value {kind!r}: {ours} has values that float16 does not hold; use bf16")
                writer.write_tensor_data(quantize(value, gguf.GGMLQuantizationType[kinds[theirs].upper()]))
                progress(1)
        finally:
            writer.close()
    return Counter(kinds.values())


def interleaved(rows: Floats, heads: int) -> Floats:
    """The rows of a q or k projection in the order that llama.cpp's "llama" rotates: pairs side by side.

    Here and in Hugging Face layouts row i of a head is rotated with row i + d_head / 2; there 2 i with 2 i + 1.
    """
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, -1)
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(rows.shape)


def rope_divisors(config: ModelConfig, scaling: RopeScaling) -> Floats:
    """What llama.cpp divides each rotary frequency by, float32 [d_head / 2] (`pippin.model.rope.rope_tables`)."""
    frequencies = config.rope_base ** (-np.arange(0, config.d_head, 2, dtype=np.float64) / config.d_head)
    turns = scaling.original_max_seq_len * frequencies / (2 * math.pi)
    kept = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    kept = kept.clip(0, 1)
    divisors: Floats = (1 / (kept + (1 - kept) / scaling.factor)).astype(np.float32)
    return divisors


def _tensor_type(name: str, shape: tuple[int, ...], kind: str) -> str:
    if len(shape) == 1:
        return "f32"
    if StoredModel.is_embedding(name):
        kind = _TABLE_TYPES.get(kind, kind)
    return "f16" if kind.startswith("q") and shape[-1] % 32 else kind


def _add_shape(writer: GGUFWriter, config: ModelConfig) -> None:
    writer.add_context_length(config.max_seq_len)
    writer.add_embedding_length(config.d_model)
    writer.add_block_count(config.n_layers)
    writer.add_feed_forward_length(config.d_ff)
    writer.add_head_count(config.n_heads)
    writer.add_head_count_kv(config.n_kv_heads)
    writer.add_key_length(config.d_head)
    writer.add_value_length(config.d_head)
    writer.add_rope_dimension_count(config.d_head)
    writer.add_rope_freq_base(config.rope_base)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_vocab_size(config.vocab_size)
