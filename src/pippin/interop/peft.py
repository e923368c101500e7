"""Adapters as PEFT directories, written from a model's slots and read into them (report section 5)."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pippin.errors import UserError
from pippin.files import atomic_path, write_json
from pippin.interop.layouts import hf_name
from pippin.interop.lora import CONFIG, FORMAT_VERSION, OURS, WEIGHTS, check_base, read_lora_config, trained_on
from pippin.model.linear import Linear
from pippin.model.transformer import Transformer

TARGET_MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class AdapterInfo(NamedTuple):
    """What was loaded; `rank` is the largest of a projection.

    `base_signature` is None for a directory that another tool wrote: its base is not known.
    """

    rank: int
    alpha: float
    base_signature: str | None
    note: str  # one line for the user, empty when the base was checked


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
    alpha = _alpha(scales.pop(), kept)
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

    A directory of another tool may adapt some of the projections only; the others get a zero adapter. Where patterns
    give a projection a rank or alpha of its own, B takes the ratio of the scales, so a slot has one scale.

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
    config = read_lora_config(directory)
    base = trained_on(directory)
    if expected_signature is not None:
        check_base(directory, expected_signature)
    tensors = _read_weights(directory / WEIGHTS)
    chosen = []
    for name, linear in model.linears():
        a, b = tensors.pop(_peft_name(name, "A"), None), tensors.pop(_peft_name(name, "B"), None)
        if (a is None) != (b is None) or (a is None and base is not None):
            raise UserError(f"{directory / WEIGHTS}: {_peft_name(name, 'A' if a is None else 'B')}: tensor missing")
        if a is None or b is None:
            a, b = torch.zeros(1, linear.in_features), torch.zeros(linear.out_features, 1)
        else:
            rank, scale = config.of(_module(name))
            _check(directory / WEIGHTS, name, linear, a, b, rank)
            if scale != config.scale:
                b = b.float() * (scale / config.scale)
        chosen.append((linear, a, b))
    if tensors:
        raise UserError(
            f"{directory / WEIGHTS}: {min(tensors)}: the model has no such projection; is it for another model?"
        )
    for linear, a, b in chosen:
        linear.load_adapter(slot, a, b, config.scale)
    note = ""
    if base is None:
        note = f"{directory}: written by another tool, so it is not known whether it was trained on this base"
    elif expected_signature is None:
        note = f"{directory}: the base was not checked"
    return AdapterInfo(config.largest_rank, config.alpha, base, note)


def _alpha(scale: float, rank: int) -> float:
    """alpha of a slot's scale, which is float32: 16 / 10 * 10 is not 16 there, so the round number is tried first."""
    rounded = float(f"{rank * scale:.6g}")
    return rounded if float(torch.tensor(rounded / rank)) == scale else rank * scale


def _module(name: str) -> str:
    return hf_name(f"{name}.weight").removesuffix(".weight")


def _peft_name(name: str, part: str) -> str:
    return f"base_model.model.{_module(name)}.lora_{part}.weight"


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
