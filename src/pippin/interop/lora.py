"""What a PEFT directory says of its LoRA, and the signature that ties an adapter to its base. No torch."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

from pippin.errors import UserError
from pippin.files import read_json
from pippin.interop.layouts import from_hf_config
from pippin.interop.stored import raw_tensors
from pippin.pipeline import canonical

FORMAT_VERSION = 1
WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
OURS = "pippin.json"
# Variants of LoRA that compute something else than B A x * scale; each setting with the values that turn it off.
_OFF: dict[str, tuple[Any, ...]] = {
    "bias": ("none", None),
    "use_dora": (False, None),
    "fan_in_fan_out": (False, None),
    "modules_to_save": (None, []),
    "rank_pattern": (None, {}),
    "alpha_pattern": (None, {}),
    "trainable_token_indices": (None, []),
}


class LoraConfig(NamedTuple):
    """A LoRA that computes `scale * B A x`; scale = alpha / rank, or alpha / sqrt(rank) with rank stabilisation."""

    rank: int
    alpha: float
    scale: float


def read_lora_config(directory: str | Path) -> LoraConfig:
    """The settings of an adapter directory.

    Raises:
        UserError: they are missing, damaged or of another kind of adapter.
    """
    where = Path(directory) / CONFIG
    values = read_json(where)
    if not isinstance(values, dict) or values.get("peft_type") != "LORA":
        kind = values.get("peft_type") if isinstance(values, dict) else values
        raise UserError(f"{where}: peft_type: value {kind!r}: only 'LORA' adapters can be loaded")
    for name, off in _OFF.items():
        if values.get(name) not in off:
            raise UserError(f"{where}: {name}: value {values[name]!r}: only plain LoRA can be loaded; train without it")
    rank, alpha = values.get("r"), values.get("lora_alpha")
    if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
        raise UserError(f"{where}: r: value {rank!r}: must be a whole number of at least 1; the file is damaged")
    if not isinstance(alpha, int | float) or not math.isfinite(alpha) or alpha <= 0:
        raise UserError(f"{where}: lora_alpha: value {alpha!r}: must be a number above 0; the file is damaged")
    return LoraConfig(rank, float(alpha), alpha / (math.sqrt(rank) if values.get("use_rslora") else rank))


def adapter_rank(directory: str | Path) -> int:
    """The rank of an adapter directory: what `add_adapters` needs at least.

    Raises:
        UserError: its configuration is missing, damaged or of another kind of adapter.
    """
    return read_lora_config(directory).rank


def trained_on(directory: str | Path) -> str | None:
    """The signature of the base that an adapter of ours was trained on; None if another tool wrote it."""
    where = Path(directory) / OURS
    if not where.exists():
        return None
    values = read_json(where)
    version = values.get("format_version") if isinstance(values, dict) else None
    if not isinstance(version, int) or not isinstance(values.get("base_signature"), str):
        raise UserError(f"{where}: format_version or base_signature: missing; the file is damaged")
    if version > FORMAT_VERSION:
        raise UserError(
            f"{where}: format_version: value {version}: newer than {FORMAT_VERSION}; update Pippin to read it"
        )
    return str(values["base_signature"])


def check_base(directory: str | Path, expected: str) -> None:
    """Refuse an adapter of ours that was trained on another base than the one with the signature `expected`.

    Raises:
        UserError: it was.
    """
    found = trained_on(directory)
    if found is not None and found != expected:
        raise UserError(
            f"{directory}: trained on another base (signature {found[:12]}, this base has {expected[:12]}); "
            "use its own base or train the adapter again on this one"
        )


def base_signature(directory: str | Path) -> str:
    """SHA-256, in hex, of what a base model computes: its shape, its quantisation and the digest of every tensor.

    The same for a base however its files are cut; another for any other weights, dtype or bit plan.

    Raises:
        UserError: the directory is not a whole model directory.
    """
    directory = Path(directory)
    where = directory / "config.json"
    values = read_json(where)
    if not isinstance(values, dict):
        raise UserError(f"{where}: not an object; the file is damaged")
    config = {"shape": canonical(from_hf_config(values, str(where))), "quantization": values.get("quantization_config")}
    tensors = {}
    for name, dtype, shape, content in raw_tensors(directory):
        tensors[name] = [f"torch.{dtype}", list(shape), hashlib.sha256(content).hexdigest()]
    return hashlib.sha256(json.dumps([config, tensors], sort_keys=True).encode()).hexdigest()
