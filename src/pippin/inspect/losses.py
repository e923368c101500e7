"""What a plan is expected to cost in quality: one number for each projection and choice of bits, which add up."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pippin.compress.matrix import palettize_weight
from pippin.errors import UserError
from pippin.files import read_json
from pippin.inspect.operations import is_palettized
from pippin.model.codes import BITS, GROUP_ROWS
from pippin.model.transformer import Transformer

SENSITIVITY = "sensitivity.json"
PROXY_UNIT = "relative weight error (proxy)"
# Groups of 16 rows do not know of each other, so that a sample of them estimates the error of all.
_PROXY_GROUPS = 16


def expected_losses(
    model: Transformer, directory: Path, progress: Callable[[int], None] | None = None
) -> dict[str, Any]:
    """Rises of the loss when only one projection is palettized, from the best source there is.

    Measured rises stand in `sensitivity.json` beside the weights. Without the file, and with float weights, it is the
    squared error of the weights relative to their squares: a proxy that knows nothing of what the model computes.

    Returns:
        {"source": "measured" | "proxy" | "none", "unit", "tokens": int or None, "rises": {name: {"2", "4"}}}.
    Raises:
        UserError: the file is not of this model, or a weight is not finite.
    """
    file = directory / SENSITIVITY
    if file.exists():
        return {"source": "measured", **_read(file, [name for name, _ in model.linears()])}
    if is_palettized(model):
        return {"source": "none", "unit": "", "tokens": None, "rises": {}}
    rises = {}
    for name, linear in model.linears():
        weight = linear.weight.detach()
        groups = len(weight) // GROUP_ROWS
        if groups > _PROXY_GROUPS:
            starts = torch.linspace(0, groups - 1, _PROXY_GROUPS).long() * GROUP_ROWS
            weight = weight[(starts[:, None] + torch.arange(GROUP_ROWS)).flatten()]
        size = weight.square().sum().clamp(min=torch.finfo(torch.float32).tiny)
        rises[name] = {
            str(bits): float((weight - palettize_weight(weight, bits).dense()).square().sum() / size) for bits in BITS
        }
        if progress is not None:
            progress(1)
    return {"source": "proxy", "unit": PROXY_UNIT, "tokens": None, "rises": rises}


def _read(file: Path, names: list[str]) -> dict[str, Any]:
    values = read_json(file)
    rises = values.get("rises") if isinstance(values, dict) else None
    if not isinstance(rises, dict):
        raise UserError(f"{file}: rises: must be an object; write the file again with the model")
    missing, unknown = sorted(set(names) - set(rises)), sorted(set(rises) - set(names))
    if missing or unknown:
        what = f"lacks {missing[0]}" if missing else f"names {unknown[0]}, which the model does not have"
        raise UserError(f"{file}: rises: {what}; the file is of another model")
    for name in names:
        rise = rises[name]
        for bits in BITS:
            value = rise.get(str(bits)) if isinstance(rise, dict) else None
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise UserError(f"{file}: rises: {name}: value {value!r} at {bits} bits: must be a finite number")
    tokens = values.get("tokens")
    return {
        "unit": str(values.get("unit", "")),
        "tokens": tokens if isinstance(tokens, int) else None,
        "rises": {name: {str(bits): float(rises[name][str(bits)]) for bits in BITS} for name in names},
    }
