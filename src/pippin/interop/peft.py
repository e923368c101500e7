"""Adapters as PEFT directories, and the signature that ties an adapter to its base (report section 5)."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pippin.errors import UserError
from pippin.files import atomic_path, read_json, write_json
from pippin.interop.hf import _read_tensors as read_tensors
from pippin.interop.layouts import from_hf_config, hf_name
from pippin.model.linear import Linear
from pippin.model.transformer import Transformer
from pippin.pipeline import canonical

FORMAT_VERSION = 1
WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
OURS = "pippin.json"
TARGET_MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
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


class AdapterInfo(NamedTuple):
    """What was loaded. `base_signature` is None for a directory that another tool wrote: its base is not known."""

    rank: int
    alpha: float
    base_signature: str | None
    note: str  # one line for the user, empty when the base was checked


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
    for _, name, tensor in read_tensors(directory):
        content = hashlib.sha256(tensor.contiguous().view(-1).view(torch.uint8).numpy().data).hexdigest()
        tensors[name] = [str(tensor.dtype), list(tensor.shape), content]
    return hashlib.sha256(json.dumps([config, tensors], sort_keys=True).encode()).hexdigest()


def save_adapter(
    model: Transformer,
    slot: int,
    directory: str | Path,
    base_signature: str,
    *,
    rank: int | None = None,
    dtype: torch.dtype = torch.float16,
) -> None:
    """Write the adapter of one slot as a PEFT directory; adapter_config.json comes last.

    Args:
        model: has adapter slots on all projections.
        slot: which one.
        directory: where to; created if missing.
        base_signature: of the base that it was trained on (`base_signature(base_dir)`); kept in pippin.json.
        rank: of the adapter, if it is less than the slots'; the rest of the slot must be zero.
        dtype: 16-bit storage. float16 keeps three more bits than bfloat16 of values of an adapter's size, and PEFT
            widens either to float32 without loss.
    Raises:
        UserError: a value does not fit the dtype (the adapter diverged), or no space left.
        ValueError: no slots, projections with different scales, or a rank that would cut values off.
    """
    directory = Path(directory)
    tensors: dict[str, Tensor] = {}
    scales = set()
    for name, linear in model.linears():
        if linear.lora_A is None or linear.lora_B is None or linear.lora_scale is None:
            raise ValueError(f"{name}: has no adapter slots")
        a, b = linear.lora_A[slot].detach(), linear.lora_B[slot].detach()
        kept = len(a) if rank is None else rank
        if not 0 < kept <= len(a) or (a[kept:].any() and b[:, kept:].any()):
            raise ValueError(f"rank: value {rank}: slot {slot} of {name} holds rank {len(a)}")
        scales.add(float(linear.lora_scale[slot]))
        for part, tensor in (("A", a[:kept]), ("B", b[:, :kept])):
            stored = tensor.to("cpu", dtype).contiguous()
            if not stored.isfinite().all():
                raise UserError(f"adapter: lora_{part} of {name} does not fit {dtype}; its training diverged")
            tensors[_peft_name(name, part)] = stored
    if len(scales) != 1 or 0.0 in scales:
        raise ValueError(f"slot {slot}: projections must share one scale that is not 0, but have {sorted(scales)}")
    alpha = float(f"{kept * scales.pop():.6g}")  # the slot's scale is float32: 16 / 10 * 10 is not 16 there
    with atomic_path(directory / WEIGHTS) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})
    write_json(directory / OURS, {"format_version": FORMAT_VERSION, "base_signature": base_signature})
    write_json(
        directory / CONFIG,
        {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": None,
            "r": kept,
            "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
            "lora_dropout": 0.0,
            "target_modules": TARGET_MODULES,
            "bias": "none",
            "fan_in_fan_out": False,
            "use_rslora": False,
            "use_dora": False,
            "modules_to_save": None,
            "inference_mode": True,
        },
    )


def load_adapter(
    model: Transformer, slot: int, directory: str | Path, expected_signature: str | None = None
) -> AdapterInfo:
    """Read a PEFT directory into a slot, in place; the slot is untouched unless all of it fits.

    A directory of another tool may adapt some of the projections only; the others get a zero adapter.

    Args:
        model: has adapter slots of at least the adapter's rank.
        slot: which one.
        directory: of ours or of any LoRA that computes scale * B A x.
        expected_signature: `base_signature` of the base; None leaves it unchecked.
    Raises:
        UserError: a file is missing or damaged, the adapter belongs to another base, is another kind of adapter, or
            does not fit the model's shape or the slot's rank.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise UserError(f"{directory}: no such directory; expected an adapter with {CONFIG}")
    rank, alpha, scale = _read_config(directory / CONFIG)
    trained_on = _read_signature(directory / OURS)
    if None not in (expected_signature, trained_on) and trained_on != expected_signature:
        raise UserError(
            f"{directory}: trained on another base (signature {str(trained_on)[:12]}, this base has "
            f"{str(expected_signature)[:12]}); use its own base or train the adapter again on this one"
        )
    tensors = _read_weights(directory / WEIGHTS)
    chosen = []
    for name, linear in model.linears():
        a, b = tensors.pop(_peft_name(name, "A"), None), tensors.pop(_peft_name(name, "B"), None)
        if (a is None) != (b is None) or (a is None and trained_on is not None):
            raise UserError(f"{directory / WEIGHTS}: {_peft_name(name, 'A' if a is None else 'B')}: tensor missing")
        if a is None or b is None:
            a, b = torch.zeros(1, linear.in_features), torch.zeros(linear.out_features, 1)
        else:
            _check(directory / WEIGHTS, name, linear, a, b, rank)
        chosen.append((linear, a, b))
    if tensors:
        raise UserError(
            f"{directory / WEIGHTS}: {min(tensors)}: the model has no such projection; is it for another model?"
        )
    for linear, a, b in chosen:
        linear.load_adapter(slot, a, b, scale)
    note = ""
    if trained_on is None:
        note = f"{directory}: written by another tool, so it is not known whether it was trained on this base"
    elif expected_signature is None:
        note = f"{directory}: the base was not checked"
    return AdapterInfo(rank, alpha, trained_on, note)


def adapter_rank(directory: str | Path) -> int:
    """The rank of an adapter directory: what `add_adapters` needs at least.

    Raises:
        UserError: its configuration is missing, damaged or of another kind of adapter.
    """
    return _read_config(Path(directory) / CONFIG)[0]


def _peft_name(name: str, part: str) -> str:
    return f"base_model.model.{hf_name(f'{name}.weight').removesuffix('weight')}lora_{part}.weight"


def _read_config(where: Path) -> tuple[int, float, float]:
    """Rank, alpha, and the factor of B A x."""
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
    return rank, float(alpha), alpha / (math.sqrt(rank) if values.get("use_rslora") else rank)


def _read_signature(where: Path) -> str | None:
    """The signature of the base that an adapter of ours was trained on; None if another tool wrote it."""
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


def _read_weights(where: Path) -> dict[str, Tensor]:
    try:
        return load_file(where)
    except FileNotFoundError:
        raise UserError(f"{where}: no such file; the adapter is not whole (only safetensors are read)") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{where}: not a whole safetensors file ({error}); fetch or write it again") from None


def _check(where: Path, name: str, linear: Linear, a: Tensor, b: Tensor, rank: int) -> None:
    """Compare one projection's pair with the model, the configuration and the slot."""
    if linear.lora_A is None:
        raise ValueError(f"{name}: has no adapter slots")
    expected = (rank, linear.in_features), (linear.out_features, rank)
    if (tuple(a.shape), tuple(b.shape)) != expected:
        raise UserError(
            f"{where}: {name}: A {tuple(a.shape)}, B {tuple(b.shape)}, but this model and {CONFIG} need "
            f"A {expected[0]}, B {expected[1]}; the adapter is for another model"
        )
    if rank > linear.lora_A.shape[1]:
        raise UserError(f"{where}: r: value {rank}: the slots hold rank {linear.lora_A.shape[1]}; make them larger")
    if not (a.isfinite().all() and b.isfinite().all()):
        raise UserError(f"{where}: {name}: holds NaN or infinity; the file is damaged or its training diverged")
