"""The profile of a model directory: every operation counted, measured here, and at every choice of bits.

`inspect_model` makes it, a JSON-able dict; `totals` is the arithmetic of the page, which repeats it in the browser.
Times add up: the operations of a pass are scaled to the pass without the hooks that told them apart. A plan takes what
the model took as it is, and for each projection with other bits the difference of the times of its shape; the same for
the tables, which are int8 as soon as one projection is palettized.
"""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from pippin import __version__
from pippin.bench.result import cpu_name
from pippin.compress.packed import stored_name
from pippin.compress.size import projection_bytes
from pippin.errors import UserError
from pippin.inspect import operations as ops
from pippin.inspect.losses import expected_losses
from pippin.inspect.measure import Spread, Times, measure, spread
from pippin.inspect.operations import MODES
from pippin.interop.load import load_model
from pippin.model.codes import BITS, codes_shape
from pippin.model.transformer import Transformer

FORMAT_VERSION = 1
DEFAULT_PROMPT_TOKENS = 128
_HEADER_ALIGN = 64

# Picojoules by what is done. Sources: a 16-bit floating addition 0.4 and multiplication 1.1, an access of 64 bits to a
# cache of 1 MB 100 and to DRAM 1300 to 2600, all at 45 nm (Horowitz, Computing's energy problem, ISSCC 2014).
ENERGY = {"flop_pj": 0.75, "cache_pj_per_byte": 12.5, "dram_pj_per_byte": 160.0}

Plan = Mapping[str, int]


def locate(path: str | Path) -> Path:
    """The model directory that `path` names: itself, or the `model/` of a stage's run directory.

    Raises:
        UserError: it is neither.
    """
    path = Path(path)
    for directory in (path, path / "model"):
        if (directory / "config.json").is_file():
            return directory
    what = "holds no model (config.json)" if path.is_dir() else "no such directory"
    raise UserError(f"{path}: {what}; inspect takes a model directory, or the run directory of a stage with a model/")


def inspect_model(
    path: str | Path,
    prompt_tokens: int | None = None,
    rounds: int = 7,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """Profile a dense or packed model directory on this machine.

    Args:
        prompt_tokens: T: a prompt of T tokens is measured, and one token after it. None: 128, or less where the model
            takes less.
        rounds: of measurement; times are medians over them.
        progress: called with (what, steps done, steps in all).
    Raises:
        UserError: the directory holds no model, is damaged, or the prompt does not fit.
    """
    directory = locate(path)
    model = load_model(directory).eval()
    longest = model.config.max_seq_len - 1
    if prompt_tokens is None:
        prompt_tokens = min(DEFAULT_PROMPT_TOKENS, longest)
    if not 1 <= prompt_tokens <= longest:
        raise UserError(
            f"prompt_tokens: value {prompt_tokens}: must be 1 to {longest}, so that the model takes one more"
        )
    if rounds < 1:
        raise UserError(f"rounds: value {rounds}: must be at least 1")
    names = [name for name, _ in model.linears()]

    def tell(what: str, total: int) -> Callable[[int], None]:
        done = 0

        def step(n: int) -> None:
            nonlocal done
            done += n
            if progress is not None:
                progress(what, done, total)

        return step

    losses = expected_losses(model, directory, tell("errors of the weights", len(names)))
    plans = {
        "as it is": dict.fromkeys(names, 0),
        "all 4 bits": dict.fromkeys(names, 4),
        "all 2 bits": dict.fromkeys(names, 2),
        # Not used for the prediction: it checks that times of operations add up.
        "4 and 2 bits in turn": {name: BITS[number % 2] for number, name in enumerate(names)},
    }
    times = measure(model, prompt_tokens, plans, rounds, tell("rounds of measurement", rounds * len(plans)))
    times.scale("as it is", {*names, "embed", "head"})
    profile = {
        "format_version": FORMAT_VERSION,
        "model": _name(Path(path)),
        "kind": "packed" if ops.is_palettized(model) else "dense",
        "config": {key: value for key, value in dataclasses.asdict(model.config).items() if value is not None},
        "machine": {
            "cpu": cpu_name(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "compute_dtype": str(model.compute_dtype).removeprefix("torch."),
        },
        "version": __version__,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "prompt_tokens": prompt_tokens,
        "rounds": rounds,
        "parameters": model.config.n_params().total,
        "energy": ENERGY,
        "float_bits": None if ops.is_palettized(model) else round(8 * _headers(directory)[1]),
        "loss": {key: value for key, value in losses.items() if key != "rises"},
        "file": _file(model, directory),
        "pass_ms": {mode: spread(times.passes["as it is"][mode])._asdict() for mode in MODES},
        "operations": _operations(model, prompt_tokens, directory, times, losses["rises"]),
    }
    profile["checks"] = [_check(profile, plan, bits, times) for plan, bits in plans.items() if plan != "as it is"]
    return profile


def _name(path: Path) -> str:
    name = path.resolve().name
    return path.resolve().parent.name if name == "model" else name


def _files(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.safetensors"))


def _headers(directory: Path) -> tuple[int, float]:
    """Bytes of the weight files that are not tensors, and mean bytes of one number in the tensors."""
    header_bytes = tensor_bytes = numbers = 0
    for file in _files(directory):
        with open(file, "rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            header = json.loads(opened.read(length))
        header_bytes += 8 + length
        tensors = [entry for name, entry in header.items() if name != "__metadata__"]
        numbers += sum(math.prod(entry["shape"]) for entry in tensors)
        tensor_bytes += sum(entry["data_offsets"][1] - entry["data_offsets"][0] for entry in tensors)
    return header_bytes, tensor_bytes / max(numbers, 1)


def _file(model: Transformer, directory: Path) -> dict[str, int]:
    """Bytes of the weight files as they are, and of the header that a packed file of this model has."""
    return {
        "bytes": sum(file.stat().st_size for file in _files(directory)),
        "header_bytes": _headers(directory)[0],
        "packed_header_bytes": _packed_header_bytes(model),
    }


def _packed_header_bytes(model: Transformer) -> int:
    """About the length of the JSON header before the tensors of a packed file (offsets vary by a digit)."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}

    def add(name: str, dtype: str, *shape: int) -> None:
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset]}

    offset = model.config.n_params().total // 4  # halfway through the file, as digits go
    packed = {name for name, _ in model.linears()}
    for name, linear in model.linears():
        stored, shape = stored_name(name), codes_shape(4, linear.out_features, linear.in_features)
        add(f"{stored}.codes", "U8", *shape)
        add(f"{stored}.table", "I8", shape[0], 16)
        add(f"{stored}.scale", "F16", linear.out_features)
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Embedding):
            add(f"{stored_name(name)}.codes", "I8", module.num_embeddings, module.embedding_dim)
            add(f"{stored_name(name)}.scale", "F32", module.num_embeddings)
        else:
            for parameter, tensor in module.named_parameters(recurse=False):
                if name not in packed or parameter == "bias":
                    add(f"{stored_name(name)}.{parameter}", "F32", *tensor.shape)
    length = 8 + len(json.dumps(entries, separators=(",", ":")))
    return -(-length // _HEADER_ALIGN) * _HEADER_ALIGN


def _operations(
    model: Transformer, prompt_tokens: int, directory: Path, times: Times, rises: Mapping[str, Mapping[str, float]]
) -> list[dict[str, Any]]:
    """The operations as the page takes them: counts, times, and for each choice of bits bytes, times and rise."""
    weight_bytes = _headers(directory)[1]
    linears = dict(model.linears())
    found = ops.operations(model, prompt_tokens)
    pooled = _pooled({name: (m.out_features, m.in_features) for name, m in linears.items()}, model, times)
    embed: dict[str, int] = {}
    made = []
    for operation in found:
        stored = ops.stored_bytes(operation, model, weight_bytes)
        embed = embed or stored
        entry: dict[str, Any] = dataclasses.asdict(operation)
        entry["ms"] = {mode: spread(times.operations["as it is"][mode][operation.name])._asdict() for mode in MODES}
        entry["stored_bytes"] = stored
        entry["read_bytes"] = ops.read_bytes(operation, model, stored, embed)
        if operation.kind == "projection":
            linear = linears[operation.name]
            shape = linear.out_features, linear.in_features
            entry["weights"] = shape[0] * shape[1]
            entry["bits"] = linear.bits
            options = BITS if linear.bits else (0, *BITS)
            entry["options"] = {
                str(bits): {
                    "bytes": projection_bytes(*shape, bits) if bits else round(weight_bytes * shape[0] * shape[1]),
                    "ms": pooled[shape, bits],
                    "rise": None if not rises else 0.0 if not bits else rises[operation.name][str(bits)],
                }
                for bits in options
            }
        elif operation.kind in ("embedding", "head"):
            entry["table_ms"] = {
                key: {mode: statistics.median(times.operations[plan][mode][operation.name]) for mode in MODES}
                for key, plan in (("0", "as it is"), ("8", "all 4 bits"))
            }
        made.append(entry)
    return made


def _pooled(shapes: Mapping[str, tuple[int, int]], model: Transformer, times: Times) -> dict[Any, dict[str, float]]:
    """Milliseconds by mode of a projection of some shape at some bits, {(shape, bits)}: the mean of their medians."""
    values: dict[Any, dict[str, list[float]]] = {}
    for plan, fixed in (("as it is", None), ("all 4 bits", 4), ("all 2 bits", 2)):
        for name, linear in model.linears():
            key = shapes[name], linear.bits if fixed is None else fixed
            for mode in MODES:
                median = statistics.median(times.operations[plan][mode][name])
                values.setdefault(key, {}).setdefault(mode, []).append(median)
    return {key: {mode: statistics.fmean(found) for mode, found in by.items()} for key, by in values.items()}


def _check(profile: Mapping[str, Any], name: str, plan: Plan, times: Times) -> dict[str, Any]:
    """A plan's predicted and measured milliseconds."""
    predicted = totals(profile, plan)["ms"]
    measured: dict[str, Spread] = {mode: spread(times.passes[name][mode]) for mode in MODES}
    return {
        "plan": name,
        "fitted": name != "4 and 2 bits in turn",
        "predicted_ms": predicted,
        "measured_ms": {mode: measured[mode].median for mode in MODES},
        "error": {mode: predicted[mode] / measured[mode].median - 1 for mode in MODES},
    }


def current_plan(profile: Mapping[str, Any]) -> dict[str, int]:
    """Bits of every projection as the model is; 0 is float."""
    return {op["name"]: op["bits"] for op in profile["operations"] if op["kind"] == "projection"}


def totals(profile: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """What a plan is predicted to give: sizes in bytes, bits, milliseconds by mode, tokens/s, expected loss.

    Args:
        plan: 0 (float, for a dense model only), 4 or 2 for every projection.
    Raises:
        UserError: the plan is of another model, or asks for bits that a projection cannot have.
    """
    now = current_plan(profile)
    if plan.keys() != now.keys():
        raise UserError(f"plan: {min(plan.keys() ^ now.keys())}: not in both, the plan and the model; use its own plan")
    table = "8" if any(plan.values()) else "0"
    projections = rest = weights = 0
    loss: float | None = 0.0
    ms = {mode: profile["pass_ms"][mode]["median"] for mode in MODES}
    for op in profile["operations"]:
        rest += op["stored_bytes"][table]
        if op["kind"] == "projection":
            chosen = op["options"].get(str(plan[op["name"]]))
            if chosen is None:
                raise UserError(
                    f"plan: value {plan[op['name']]!r} for {op['name']}: must be {', '.join(op['options'])}"
                )
            weights += op["weights"]
            projections += chosen["bytes"]
            loss = None if loss is None or chosen["rise"] is None else loss + chosen["rise"]
            before = op["options"][str(op["bits"])]
            ms = {mode: ms[mode] + (chosen["ms"][mode] - before["ms"][mode]) for mode in MODES}
        elif "table_ms" in op:
            ms = {mode: ms[mode] + (op["table_ms"][table][mode] - op["table_ms"]["0"][mode]) for mode in MODES}
    file = profile["file"]
    header = file["header_bytes"] if plan == now else file["packed_header_bytes"]
    return {
        "projection_bytes": projections,
        "tensor_bytes": projections + rest,
        "file_bytes": projections + rest + header,
        "bits_per_weight": 8 * projections / weights,
        "bits_per_parameter": 8 * (projections + rest + header) / profile["parameters"],
        "ms": ms,
        "tokens_per_s": 1000 / ms["token"],
        "loss": loss,
    }
