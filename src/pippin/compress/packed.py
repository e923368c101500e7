"""Packed model directories: palettized projections and int8 embeddings, memory-mapped (docs/format.md)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pippin.compress.matrix import TABLE_STEPS
from pippin.errors import UserError
from pippin.files import atomic_path, write_json
from pippin.interop.directory import EMBEDDING_FORMAT, FORMAT_VERSION, QUANT_METHOD, read_packed_config
from pippin.interop.hf import _copy_tokenizer as copy_tokenizer
from pippin.interop.hf import _read_tensors as read_tensors
from pippin.interop.layouts import hf_name, to_hf_config
from pippin.model.codes import BLOCK_BYTES, GROUP_ROWS, codes_shape
from pippin.model.embedding import Embedding
from pippin.model.transformer import Transformer

_DTYPE_NAMES = {torch.uint8: "U8", torch.int8: "I8", torch.float16: "F16", torch.float32: "F32"}


def stored_name(name: str) -> str:
    """The Qwen3 name of a module of `Transformer`: "blocks.0.attention.q" is "model.layers.0.self_attn.q_proj"."""
    return hf_name(f"{name}.weight").removesuffix(".weight")


def save_packed(model: Transformer, directory: str | Path, tokenizer_dir: Path | None = None) -> None:
    """Write a palettized model; `load_packed` gives back the same bits. Adapters have directories of their own.

    config.json comes last, so a directory that has one is whole.

    Args:
        model: every projection packed and the embedding int8 (`pippin.compress.palettize.palettize`).
        directory: where to; created if missing.
        tokenizer_dir: its files are copied beside the weights.
    Raises:
        UserError: the shape cannot be written as a Qwen3 configuration, or no space left.
        ValueError: a projection or the embedding is dense, has a mask, or has values that float16 does not hold.
    """
    directory = Path(directory)
    config = to_hf_config(model.config)
    bits: dict[str, int] = {}
    tensors: dict[str, Tensor] = {}
    for name, linear in model.linears():
        stored = stored_name(name)
        if linear.codes is None or linear.mask is not None:
            raise ValueError(f"{name}: must be palettized and without mask")
        table, scale = (linear.table * TABLE_STEPS).round(), linear.scale.half()
        if not torch.equal((table / TABLE_STEPS).float(), linear.table) or table.abs().max() > TABLE_STEPS:
            raise ValueError(f"{name}.table: holds values that are not multiples of 1 / {TABLE_STEPS} in [-1, 1]")
        if not torch.equal(scale.float(), linear.scale):
            raise ValueError(f"{name}.scale: holds values that float16 does not represent")
        tensors |= {f"{stored}.codes": linear.codes, f"{stored}.table": table.to(torch.int8), f"{stored}.scale": scale}
        bits[stored] = linear.bits
    for name, embedding in _embeddings(model):
        if embedding.codes is None:
            raise ValueError(f"{name}: must be int8")
        tensors |= {f"{stored_name(name)}.codes": embedding.codes, f"{stored_name(name)}.scale": embedding.scale}
    for name, parameter in _dense(model).items():
        tensors[hf_name(name, model.config.post_norm)] = parameter.float()
    _write_tensors(directory / "model.safetensors", tensors)
    if tokenizer_dir is not None:
        config |= copy_tokenizer(Path(tokenizer_dir), directory)
    config["quantization_config"] = {
        "quant_method": QUANT_METHOD,
        "format_version": FORMAT_VERSION,
        "group_rows": GROUP_ROWS,
        "embedding": EMBEDDING_FORMAT,
        "bits": bits,
    }
    write_json(directory / "config.json", config)


def _embeddings(model: Transformer) -> list[tuple[str, Embedding]]:
    return [(name, module) for name, module in model.named_modules() if isinstance(module, Embedding)]


def _dense(model: Transformer) -> dict[str, Tensor]:
    """What stays dense, by parameter name: everything but the weights of projections and embeddings, and adapters."""
    packed = {f"{name}.weight" for name, _ in (*model.linears(), *_embeddings(model))}
    named = model.named_parameters()
    return {name: p.detach() for name, p in named if name not in packed and ".lora_" not in name}


def _write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write a safetensors file in which every tensor of whole 64-byte lines starts on one.

    The library's own writer orders by dtype and pads the header to 8 bytes, so that mapped blocks would straddle
    cache lines. Here whole-line tensors come first and the header is padded with spaces, which the format allows;
    the others follow by falling item size, which keeps each naturally aligned.
    """
    ordered = sorted(
        tensors.items(),
        key=lambda item: (item[1].nbytes % BLOCK_BYTES != 0, -item[1].element_size(), item[0]),
    )
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, tensor in ordered:
        span = [offset, offset + tensor.nbytes]
        header[name] = {"dtype": _DTYPE_NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": span}
        offset = span[1]
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % BLOCK_BYTES)
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for _, tensor in ordered:
            file.write(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)


def load_packed(directory: str | Path, compute_dtype: torch.dtype = torch.bfloat16) -> Transformer:
    """Read a packed directory into a frozen `Transformer` on the CPU; codes stay memory-mapped.

    Raises:
        UserError: a file is missing or damaged, the format is newer than this version reads, or a tensor is
            missing, unknown, or of the wrong shape or dtype.
    """
    directory = Path(directory)
    config, bits = read_packed_config(directory)
    with torch.device("meta"):
        model = Transformer(config, compute_dtype)
    take, finish = _reader(directory)
    for name, linear in model.linears():
        stored = stored_name(name)
        chosen = bits[stored]
        groups, *_ = shape = codes_shape(chosen, linear.out_features, linear.in_features)
        linear.pack(
            take(f"{stored}.codes", torch.uint8, shape),
            (take(f"{stored}.table", torch.int8, (groups, 2**chosen)).float() / TABLE_STEPS),
            take(f"{stored}.scale", torch.float16, (linear.out_features,)),
            chosen,
        )
    for name, embedding in _embeddings(model):
        rows, width = embedding.num_embeddings, embedding.embedding_dim
        embedding.codes = take(f"{stored_name(name)}.codes", torch.int8, (rows, width))
        embedding.scale = take(f"{stored_name(name)}.scale", torch.float32, (rows,)).clone()
        embedding.register_parameter("weight", None)
    for name, parameter in _dense(model).items():
        module = model.get_submodule(name.rpartition(".")[0])
        dense = take(hf_name(name, config.post_norm), torch.float32, tuple(parameter.shape)).clone()
        setattr(module, name.rpartition(".")[2], nn.Parameter(dense))
    finish()
    return model.requires_grad_(False)


def _reader(directory: Path) -> tuple[Callable[[str, torch.dtype, tuple[int, ...]], Tensor], Callable[[], None]]:
    """Two functions over the tensors of a directory: take one, checked; and check that none is left."""
    tensors: dict[str, Tensor] = {}
    file = directory / "model.safetensors"
    for _, name, tensor in read_tensors(directory):
        tensors[name] = tensor

    def take(name: str, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
        tensor = tensors.pop(name, None)
        if tensor is None:
            raise UserError(f"{file}: {name}: tensor missing; the directory is not whole, write it again")
        if tensor.dtype != dtype or tuple(tensor.shape) != shape:
            raise UserError(
                f"{file}: {name}: {tensor.dtype} {tuple(tensor.shape)}, but config.json says {dtype} {shape}; "
                "weights and configuration are of different models"
            )
        if dtype.is_floating_point and not tensor.isfinite().all():
            raise UserError(f"{file}: {name}: holds NaN or infinity; the file is damaged, write it again")
        return tensor

    def finish() -> None:
        if tensors:
            raise UserError(f"{file}: {min(tensors)}: unknown tensor for this configuration; is it of another model?")

    return take, finish
