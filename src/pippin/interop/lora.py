"""What a PEFT directory says of its LoRA, and the signature that ties an adapter to its base. No torch."""

from __future__ import annotations

import hashlib
import json
import math
import re
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

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
    "lora_bias": (False, None),
    "use_dora": (False, None),
    "use_qalora": (False, None),
    "fan_in_fan_out": (False, None),
    "modules_to_save": (None, []),
    "trainable_token_indices": (None, []),
    "target_parameters": (None, []),
    "layer_replication": (None, []),
    **dict.fromkeys(
        ("alora_invocation_tokens", "velora_config", "monteclora_config", "use_bdlora", "arrow_config", "kasa_config"),
        (None,),
    ),
}
# Ways to start an adapter that change the base as well, so that what is stored belongs to that other base.
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga", "mica")

Number = TypeVar("Number", int, float)


class LoraConfig(NamedTuple):
    """A LoRA that computes `scale * B A x`; scale = alpha / rank, or alpha / sqrt(rank) with rank stabilisation.

    `ranks` and `alphas` say otherwise for the modules whose names their patterns match.
    """

    rank: int
    alpha: float
    stabilised: bool
    ranks: dict[str, int]
    alphas: dict[str, float]

    @property
    def scale(self) -> float:
        """Where no pattern matches."""
        return self._scale(self.rank, self.alpha)

    @property
    def largest_rank(self) -> int:
        """What a slot has to hold."""
        return max(self.rank, *self.ranks.values()) if self.ranks else self.rank

    def of(self, module: str) -> tuple[int, float]:
        """Rank and scale of a module by its Hugging Face name; the first pattern that ends the name is taken."""
        rank = _matching(self.ranks, module, self.rank)
        return rank, self._scale(rank, _matching(self.alphas, module, self.alpha))

    def _scale(self, rank: int, alpha: float) -> float:
        return alpha / (math.sqrt(rank) if self.stabilised else rank)


def _matching(patterns: dict[str, Number], module: str, otherwise: Number) -> Number:
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", module):  # as PEFT matches them
            return value
    return otherwise


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
    start = values.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_CHANGES_BASE):
        raise UserError(
            f"{where}: init_lora_weights: value {start!r}: belongs to a changed base; save it in PEFT with "
            "path_initial_model_for_weight_conversion"
        )
    rank, alpha = _rank(where, "r", values.get("r")), _alpha(where, "lora_alpha", values.get("lora_alpha"))
    ranks = {key: _rank(where, f"rank_pattern.{key}", v) for key, v in _patterns(where, "rank_pattern", values)}
    alphas = {key: _alpha(where, f"alpha_pattern.{key}", v) for key, v in _patterns(where, "alpha_pattern", values)}
    return LoraConfig(rank, alpha, bool(values.get("use_rslora")), ranks, alphas)


def _patterns(where: Path, name: str, values: dict[str, Any]) -> list[tuple[str, Any]]:
    patterns = values.get(name) or {}
    if not isinstance(patterns, dict):
        raise UserError(f"{where}: {name}: value {patterns!r}: must be an object; the file is damaged")
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            raise UserError(f"{where}: {name}: {pattern!r} is no regular expression ({error})") from None
    return list(patterns.items())


def _rank(where: Path, name: str, rank: Any) -> int:
    if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
        raise UserError(f"{where}: {name}: value {rank!r}: must be a whole number of at least 1; the file is damaged")
    return rank


def _alpha(where: Path, name: str, alpha: Any) -> float:
    if not isinstance(alpha, int | float) or not math.isfinite(alpha) or alpha <= 0:
        raise UserError(f"{where}: {name}: value {alpha!r}: must be a number above 0; the file is damaged")
    return float(alpha)


def adapter_rank(directory: str | Path) -> int:
    """The largest rank in an adapter directory: what `add_adapters` needs at least.

    Raises:
        UserError: its configuration is missing, damaged or of another kind of adapter.
    """
    return read_lora_config(directory).largest_rank


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
