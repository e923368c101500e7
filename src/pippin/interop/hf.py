"""Hugging Face model directories in the Qwen3 layout: written for every tool that reads them, read strictly."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from pippin.errors import UserError
from pippin.files import atomic_path, read_json, write_json
from pippin.model.config import ModelConfig
from pippin.model.transformer import Transformer

SHARD_BYTES = 5_000_000_000
INDEX = "model.safetensors.index.json"
_IN_BLOCK = {
    "attention_norm.weight": "input_layernorm.weight",
    "attention.q.weight": "self_attn.q_proj.weight",
    "attention.k.weight": "self_attn.k_proj.weight",
    "attention.v.weight": "self_attn.v_proj.weight",
    "attention.o.weight": "self_attn.o_proj.weight",
    "attention.q_norm.weight": "self_attn.q_norm.weight",
    "attention.k_norm.weight": "self_attn.k_norm.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "ffn.gate.weight": "mlp.gate_proj.weight",
    "ffn.up.weight": "mlp.up_proj.weight",
    "ffn.down.weight": "mlp.down_proj.weight",
}
_TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "merges.txt", "chat_template.jinja", "generation_config.json",
)  # fmt: skip
# Settings of Qwen3Config that change what is computed, with the only value that this model computes.
_FIXED = {
    "hidden_act": "silu",
    "attention_bias": False,
    "attention_dropout": 0.0,
    "use_sliding_window": False,
    "tie_word_embeddings": True,
}
_QWEN3_DEFAULTS = {
    "hidden_act": "silu",
    "attention_bias": False,
    "attention_dropout": 0.0,
    "use_sliding_window": False,
    "tie_word_embeddings": False,
}


def hf_name(name: str) -> str:
    """The Qwen3 name of one of `Transformer`'s dense parameters."""
    if name == "embed.weight":
        return "model.embed_tokens.weight"
    if name == "norm.weight":
        return "model.norm.weight"
    _, layer, rest = name.split(".", 2)
    return f"model.layers.{layer}.{_IN_BLOCK[rest]}"


def to_hf_config(config: ModelConfig) -> dict[str, Any]:
    """config.json of a Qwen3ForCausalLM that computes the same.

    Raises:
        UserError: RoPE before the QK norm, which Qwen3 cannot express.
    """
    if config.rope_before_norm:
        raise UserError(
            "rope_before_norm: value True: a Qwen3 directory cannot express this order; "
            "train with rope_before_norm=False to export"
        )
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "intermediate_size": config.d_ff,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads,
        "head_dim": config.d_head,
        "max_position_embeddings": config.max_seq_len,
        "rms_norm_eps": config.norm_eps,
        # transformers 5 reads the second form, everything older (and llama.cpp's converter) the first.
        "rope_theta": config.rope_base,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_base},
        "initializer_range": config.d_model**-0.5,
        "use_cache": True,
        "bos_token_id": None,
        **_FIXED,
    }


def from_hf_config(values: dict[str, Any], where: str = "config.json") -> ModelConfig:
    """The shape described by a Qwen3 config.json.

    Raises:
        UserError: another model type, a missing value, or a setting that this model does not compute.
    """
    if values.get("model_type") != "qwen3":
        raise UserError(
            f"{where}: model_type: value {values.get('model_type')!r}: only 'qwen3' directories can be read; "
            "convert the checkpoint to the Qwen3 layout first"
        )
    for name, only in _FIXED.items():
        value = values.get(name, _QWEN3_DEFAULTS[name])
        if value != only:
            raise UserError(f"{where}: {name}: value {value!r}: this model computes {only!r} only")
    rope = values.get("rope_parameters") or values.get("rope_scaling") or {}
    if not isinstance(rope, dict):
        raise UserError(f"{where}: rope_parameters: value {rope!r}: must be an object")
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        raise UserError(f"{where}: rope_type: value {kind!r}: only unscaled RoPE ('default') is computed here")
    try:
        return ModelConfig(
            vocab_size=values["vocab_size"],
            d_model=values["hidden_size"],
            n_layers=values["num_hidden_layers"],
            n_heads=values["num_attention_heads"],
            n_kv_heads=values.get("num_key_value_heads") or values["num_attention_heads"],
            d_head=values.get("head_dim", 128),
            d_ff=values["intermediate_size"],
            max_seq_len=values["max_position_embeddings"],
            rope_base=float(rope.get("rope_theta", values.get("rope_theta", 10_000.0))),
            norm_eps=float(values.get("rms_norm_eps", 1e-6)),
        )
    except KeyError as error:
        raise UserError(f"{where}: {error.args[0]}: missing; the file is not a whole Qwen3 configuration") from None
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: {error}; the file is damaged") from None
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def save_hf(
    model: Transformer,
    directory: str | Path,
    tokenizer_dir: Path | None = None,
    dtype: torch.dtype = torch.float32,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write `model` as a Qwen3 directory that transformers, vLLM, llama.cpp's converter ... open.

    Packed weights are written as the values that they stand for. Adapters are not written: they have their own
    directories (PEFT). config.json comes last, so a directory with one is whole.

    Args:
        model: the model; not sharded over processes.
        directory: where to; created if missing.
        tokenizer_dir: its files are copied beside the weights, its eos and pad ids enter the configuration.
        dtype: of the written weights.
        shard_bytes: weights beyond this size are split into several files with an index.
    Raises:
        UserError: RoPE before the QK norm, or no space left.
        ValueError: a soft mask is installed.
    """
    directory = Path(directory)
    config = to_hf_config(model.config) | {"dtype": str(dtype).removeprefix("torch.")}
    tensors = {}
    for name, module in model.named_modules():
        if getattr(module, "mask", None) is not None:
            raise ValueError(f"{name}: has a soft mask; slice the FFN before saving")
        if hasattr(module, "dense_weight"):
            tensors[hf_name(f"{name}.weight")] = module.dense_weight()
        elif isinstance(getattr(module, "weight", None), nn.Parameter):
            tensors[hf_name(f"{name}.weight")] = module.weight
    shards: list[dict[str, Tensor]] = [{}]
    size = total = 0
    for name, tensor in tensors.items():
        n_bytes = tensor.numel() * dtype.itemsize
        if shards[-1] and size + n_bytes > shard_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += n_bytes
        total += n_bytes
    names = ["model.safetensors"]
    if len(shards) > 1:
        names = [f"model-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)]
    for file_name, shard in zip(names, shards, strict=True):
        with atomic_path(directory / file_name) as temporary:
            detached = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in shard.items()}
            save_file(detached, temporary, metadata={"format": "pt"})
    if len(shards) > 1:
        weight_map = {name: file for file, shard in zip(names, shards, strict=True) for name in shard}
        write_json(directory / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})
    for stale in directory.glob("model*.safetensors*"):
        if stale.name not in names and not (stale.name == INDEX and len(shards) > 1):
            stale.unlink()
    if tokenizer_dir is not None:
        config |= _copy_tokenizer(Path(tokenizer_dir), directory)
    write_json(directory / "config.json", config)


def _copy_tokenizer(source: Path, directory: Path) -> dict[str, int]:
    """Copy a tokenizer's files; returns the ids of its end and padding tokens."""
    for name in _TOKENIZER_FILES:
        if (source / name).is_file() and source.resolve() != directory.resolve():
            with atomic_path(directory / name) as temporary:
                shutil.copyfile(source / name, temporary)
    if not (source / "tokenizer_config.json").exists() or not (source / "tokenizer.json").exists():
        return {}
    settings = read_json(source / "tokenizer_config.json")
    special = {token["content"]: token["id"] for token in read_json(source / "tokenizer.json").get("added_tokens", [])}
    ids = {}
    for kind in ("eos", "pad"):
        token = settings.get(f"{kind}_token")
        content = token.get("content") if isinstance(token, dict) else token
        if content in special:
            ids[f"{kind}_token_id"] = special[content]
    return ids


def load_hf(directory: str | Path, compute_dtype: torch.dtype = torch.bfloat16) -> Transformer:
    """Read a Qwen3 directory (single file or sharded index) into a `Transformer` with float32 parameters on the CPU.

    Raises:
        UserError: a file is missing or damaged; the model is of another type or uses what this model does not
            compute; a tensor is missing, unknown or of the wrong shape.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise UserError(f"{directory}: no such directory; expected a Hugging Face model directory")
    values = read_json(directory / "config.json")
    if not isinstance(values, dict):
        raise UserError(f"{directory / 'config.json'}: not an object; the file is damaged")
    config = from_hf_config(values, str(directory / "config.json"))
    with torch.device("meta"):
        model = Transformer(config, compute_dtype)
    expected = {hf_name(name): (name, parameter.shape) for name, parameter in model.named_parameters()}
    state: dict[str, Tensor] = {}
    head: Tensor | None = None
    for file, name, tensor in _read_tensors(directory):
        if name == "lm_head.weight":  # some writers repeat the tied table
            head = tensor
            continue
        if name not in expected:
            raise UserError(f"{file}: {name}: unknown tensor for this configuration; is config.json of another model?")
        ours, shape = expected[name]
        if tensor.shape != shape:
            raise UserError(f"{file}: {name}: shape {tuple(tensor.shape)}, but config.json says {tuple(shape)}")
        if not tensor.is_floating_point():
            raise UserError(f"{file}: {name}: dtype {tensor.dtype}: quantised weights cannot be read")
        state[ours] = tensor.float()
    missing = [name for name, (ours, _) in expected.items() if ours not in state]
    if missing:
        raise UserError(f"{directory}: {missing[0]}: missing tensor, one of {len(missing)}; the directory is not whole")
    if head is not None and not torch.equal(head.float(), state["embed.weight"]):
        raise UserError(f"{directory}: lm_head.weight: differs from the embedding; this model ties them")
    model.load_state_dict(state, assign=True)
    return model.requires_grad_(True)


def _read_tensors(directory: Path) -> Iterator[tuple[Path, str, Tensor]]:
    """All tensors of a directory with the file that each came from."""
    listed: dict[str, str] | None = None
    if (directory / INDEX).exists():
        index = read_json(directory / INDEX)
        listed = index.get("weight_map") if isinstance(index, dict) else None
        if not isinstance(listed, dict) or not all(isinstance(file, str) for file in listed.values()):
            raise UserError(f"{directory / INDEX}: weight_map: missing or damaged; fetch the file again")
    for file_name in sorted(set(listed.values())) if listed else ["model.safetensors"]:
        file = directory / file_name
        if Path(file_name).name != file_name:
            raise UserError(f"{directory / INDEX}: {file_name!r}: must be a file of the same directory")
        if not file.is_file():
            raise UserError(f"{file}: no such file; the directory is not whole")
        with ExitStack() as stack:
            try:
                handle = stack.enter_context(safe_open(file, framework="pt"))
            except (SafetensorError, OSError, json.JSONDecodeError) as error:
                raise UserError(f"{file}: not a whole safetensors file ({error}); fetch or write it again") from None
            for name in handle.keys():  # noqa: SIM118 - safe_open is not a mapping
                if listed is not None and listed.get(name) != file_name:
                    raise UserError(f"{file}: {name}: not in the index; the files are of different models")
                yield file, name, handle.get_tensor(name)
