"""Hugging Face configurations of the decoder families that are read and written: one small table a family.

All of them name their tensors alike, but for the two norms of a layer. What a configuration can ask for and this model
does not compute is refused, with the field, its value and the way out in one line.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pippin.errors import UserError
from pippin.model.config import ModelConfig, RopeScaling

_SUPPORTED = "Qwen3, Qwen2 and 2.5, Llama, Mistral and OLMo2"


@dataclass(frozen=True)
class Family:
    """What a `model_type` means.

    Attributes:
        architecture: the class of transformers that computes it.
        flags: the fields of `ModelConfig` that the type fixes; the others keep their defaults.
        only: settings of this type that change what is computed: the value that is computed here, which is also what
            a configuration without the setting means.
        norm_eps: what a configuration without `rms_norm_eps` means.
        d_head: what one without `head_dim` means; None: hidden_size / num_attention_heads.
    """

    architecture: str
    flags: dict[str, Any]
    only: dict[str, Any] = field(default_factory=dict)
    norm_eps: float = 1e-6
    d_head: int | None = None


FAMILIES = {
    "qwen3": Family(
        "Qwen3ForCausalLM",
        flags={"qk_norm": "head"},
        only={"attention_bias": False, "use_sliding_window": False},
        d_head=128,
    ),
    "qwen2": Family(
        "Qwen2ForCausalLM", flags={"qk_norm": "none", "qkv_bias": True}, only={"use_sliding_window": False}
    ),
    "llama": Family("LlamaForCausalLM", flags={"qk_norm": "none"}, only={"attention_bias": False, "mlp_bias": False}),
    "mistral": Family("MistralForCausalLM", flags={"qk_norm": "none"}),
    "olmo2": Family(
        "Olmo2ForCausalLM",
        flags={"qk_norm": "width", "post_norm": True},
        only={"attention_bias": False},
        norm_eps=1e-5,
    ),
}
_EVERYWHERE = {"hidden_act": "silu", "attention_dropout": 0.0}
# Settings that these families do not have, but that forks write under their names; each with the values of "off".
_OFF: dict[str, tuple[Any, ...]] = {
    "partial_rotary_factor": (1, None),
    "attn_logit_softcapping": (None,),
    "final_logit_softcapping": (None,),
    "logit_scale": (1, None),
    "num_experts": (0, 1, None),
    "num_local_experts": (0, 1, None),
    "n_routed_experts": (0, None),
    "clip_qkv": (None,),
}
_MISTRAL_WINDOW = 4096  # what a Mistral configuration without sliding_window means
_ROPE_BASE = 10_000.0  # and any configuration without rope_theta

_LLAMA3 = {
    "factor": "factor",
    "low_freq_factor": "low_freq_factor",
    "high_freq_factor": "high_freq_factor",
    "original_max_position_embeddings": "original_max_seq_len",
}  # the keys of a scaled RoPE, and our fields
_ENDS = {
    "embed.weight": "model.embed_tokens.weight",
    "norm.weight": "model.norm.weight",
    "head.weight": "lm_head.weight",
}
_IN_BLOCK = {
    "attention_norm": "input_layernorm",
    "attention.q": "self_attn.q_proj",
    "attention.k": "self_attn.k_proj",
    "attention.v": "self_attn.v_proj",
    "attention.o": "self_attn.o_proj",
    "attention.q_norm": "self_attn.q_norm",
    "attention.k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn.gate": "mlp.gate_proj",
    "ffn.up": "mlp.up_proj",
    "ffn.down": "mlp.down_proj",
}
_POST_NORM = {"attention_norm": "post_attention_layernorm", "ffn_norm": "post_feedforward_layernorm"}


def hf_name(name: str, post_norm: bool = False) -> str:
    """The Hugging Face name of one of `Transformer`'s parameters; `post_norm` is the model's `config.post_norm`."""
    if name in _ENDS:
        return _ENDS[name]
    _, layer, rest = name.split(".", 2)
    module, _, kind = rest.rpartition(".")
    table = _IN_BLOCK | _POST_NORM if post_norm else _IN_BLOCK
    return f"model.layers.{layer}.{table[module]}.{kind}"


def family_of(config: ModelConfig) -> str:
    """The model type whose directory expresses `config`; Mistral's only where Llama's class asks for d_model / n_heads.

    Raises:
        UserError: none does.
    """
    if config.rope_before_norm:
        raise UserError(
            "rope_before_norm: value True: no Hugging Face layout expresses this order; "
            "train with rope_before_norm=False to export"
        )
    wanted = {"qk_norm": config.qk_norm, "qkv_bias": config.qkv_bias, "post_norm": config.post_norm}
    for name, family in FAMILIES.items():
        if {"qk_norm": "head", "qkv_bias": False, "post_norm": False} | family.flags == wanted:
            if name == "llama" and config.d_model % config.n_heads:
                continue
            return name
    settings = ", ".join(f"{name}={value!r}" for name, value in wanted.items())
    raise UserError(f"{settings}: no Hugging Face layout expresses this combination; use the settings of {_SUPPORTED}")


def to_hf_config(config: ModelConfig) -> dict[str, Any]:
    """config.json of a model of transformers that computes the same.

    Raises:
        UserError: what `family_of` raises.
    """
    name = family_of(config)
    rope: dict[str, Any] = {"rope_type": "default"}
    if config.rope_scaling is not None:
        rope = {"rope_type": "llama3"} | {key: getattr(config.rope_scaling, ours) for key, ours in _LLAMA3.items()}
    values: dict[str, Any] = {
        "architectures": [FAMILIES[name].architecture],
        "model_type": name,
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "intermediate_size": config.d_ff,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads,
        "head_dim": config.d_head,
        "max_position_embeddings": config.max_seq_len,
        "rms_norm_eps": config.norm_eps,
        # transformers 5 reads the last form, everything older (and llama.cpp's converter) the first ones.
        "rope_theta": config.rope_base,
        "rope_parameters": rope | {"rope_theta": config.rope_base},
        "initializer_range": config.d_model**-0.5,
        "use_cache": True,
        "bos_token_id": None,
        "tie_word_embeddings": config.tied,
        **_EVERYWHERE,
        **FAMILIES[name].only,
    }
    if config.rope_scaling is not None:
        values["rope_scaling"] = rope
    if name == "mistral":
        values["sliding_window"] = None
    if name != "qwen3":  # the other classes' own defaults name tokens of their first tokenizers
        values |= {"eos_token_id": None, "pad_token_id": None}
    return values


def from_hf_config(values: dict[str, Any], where: str = "config.json") -> ModelConfig:
    """The model that a config.json describes.

    Raises:
        UserError: another model type, a missing value, or a setting that this model does not compute.
    """
    name = values.get("model_type")
    family = FAMILIES.get(name) if isinstance(name, str) else None
    if family is None:
        raise UserError(f"{where}: model_type: value {name!r}: not read here; {_SUPPORTED} are")
    _refuse_others(values, where, family)
    if name == "mistral":
        _check_window(values, where)
    try:
        d_model, n_heads = values["hidden_size"], values["num_attention_heads"]
        n_kv_heads = values.get("num_key_value_heads") or n_heads
        d_head = values.get("head_dim") or family.d_head or d_model // n_heads
        base, scaling = _rope(values, where)
        return ModelConfig(
            vocab_size=values["vocab_size"],
            d_model=d_model,
            n_layers=values["num_hidden_layers"],
            n_heads=n_heads,
            n_kv_heads=n_kv_heads,
            d_head=d_head,
            d_ff=values["intermediate_size"],
            max_seq_len=values["max_position_embeddings"],
            rope_base=base,
            norm_eps=float(values.get("rms_norm_eps", family.norm_eps)),
            tied=values.get("tie_word_embeddings", False),
            rope_scaling=scaling,
            **family.flags,
        )
    except KeyError as error:
        raise UserError(f"{where}: {error.args[0]}: missing; the file is not a whole {name} configuration") from None
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise UserError(f"{where}: {error}; the file is damaged") from None
    except UserError as error:
        text = str(error)
        raise error if text.startswith(where) else UserError(f"{where}: {text}") from None


def _refuse_others(values: dict[str, Any], where: str, family: Family) -> None:
    for key, only in (_EVERYWHERE | family.only).items():
        value = values.get(key, only)
        if value != only:
            raise UserError(
                f"{where}: {key}: value {value!r}: this model computes {only!r} only; choose a checkpoint with {only!r}"
            )
    for key, off in _OFF.items():
        if key in values and values[key] not in off:
            raise UserError(
                f"{where}: {key}: value {values[key]!r}: this model does not compute it; choose a checkpoint without it"
            )
    layers = values.get("layer_types") or []
    other = next((kind for kind in layers if kind != "full_attention"), None)
    if other is not None:
        raise UserError(
            f"{where}: layer_types: value {other!r}: every layer here sees the whole context; "
            "choose a checkpoint with 'full_attention' only"
        )


def _check_window(values: dict[str, Any], where: str) -> None:
    """A window as long as the context hides nothing."""
    window, length = values.get("sliding_window", _MISTRAL_WINDOW), values.get("max_position_embeddings")
    if window is not None and not (isinstance(window, int) and isinstance(length, int) and window >= length):
        raise UserError(
            f"{where}: sliding_window: value {window!r}: every layer here sees the whole context; set "
            f"max_position_embeddings (now {length!r}) to {window!r} to use the model up to its window"
        )


def _rope(values: dict[str, Any], where: str) -> tuple[float, RopeScaling | None]:
    rope = values.get("rope_parameters") or values.get("rope_scaling") or {}
    if not isinstance(rope, dict):
        raise UserError(f"{where}: rope_parameters: value {rope!r}: must be an object")
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ("default", "llama3"):
        raise UserError(
            f"{where}: rope_type: value {kind!r}: only 'default' and 'llama3' are computed here; if the model was "
            "trained without the scaling, take it out of config.json"
        )
    if rope.get("partial_rotary_factor", 1) != 1:
        raise UserError(
            f"{where}: partial_rotary_factor: value {rope['partial_rotary_factor']!r}: this model rotates whole heads; "
            "choose a checkpoint without it"
        )
    base = float(rope.get("rope_theta", values.get("rope_theta", _ROPE_BASE)))
    scaling = None
    if kind == "llama3":
        scaling = RopeScaling(**{ours: rope[key] for key, ours in _LLAMA3.items()})
    return base, scaling
