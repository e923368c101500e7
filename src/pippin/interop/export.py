"""`pippin export`: a model or an adapter as what other tools open; a directory or a file, whole or not at all."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pippin.errors import UserError
from pippin.files import atomic_directory, remove
from pippin.interop import gguf
from pippin.interop.directory import locate
from pippin.progress import Screen

if TYPE_CHECKING:
    from pippin.interop.coreml_program import Adapter
    from pippin.interop.peft import AdapterInfo
    from pippin.model.transformer import Transformer

TYPES = {
    "hf": ("float32", "bfloat16", "float16"),
    "gguf": gguf.TYPES,
    "coreml": ("float16", "float32"),
    "peft": ("float16", "bfloat16"),
}
"""The formats, each with the types that its weights can have; the first is the default."""


@dataclass(frozen=True)
class Request:
    """What to export.

    Attributes:
        source: a model directory, or the run directory of a stage that made a model or an adapter.
        to: one of TYPES.
        out: where to.
        kind: of the weights; None: the format's first.
        adapters: directories of adapters, for coreml also NAME=DIRECTORY; the source's own needs no mention.
        context: for coreml, the tokens that the cache holds; None: the model's own.
        overwrite: replace `out` if it is there.
    """

    source: Path
    to: str
    out: Path
    kind: str | None = None
    adapters: tuple[str, ...] = ()
    context: int | None = None
    overwrite: bool = False


def export(request: Request, screen: Screen) -> list[str]:
    """Write it, and say in lines what was written.

    Raises:
        UserError: an unknown format or type, an output that exists, an option of another format, a missing extra, a
            damaged source, or a model that the format cannot express.
    """
    if request.to not in TYPES:
        raise UserError(f"to: value {request.to!r}: must be one of {', '.join(TYPES)}")
    kind = request.kind or TYPES[request.to][0]
    if kind not in TYPES[request.to]:
        more = "; its llama-quantize makes others from f16" if request.to == "gguf" else ""
        raise UserError(
            f"type: value {kind!r}: for {request.to} it must be one of {', '.join(TYPES[request.to])}{more}"
        )
    if request.context is not None and request.to != "coreml":
        raise UserError(f"context: value {request.context}: is for coreml only; leave it out")
    model, own = locate(request.source)
    adapters = [*([str(own)] if own is not None else []), *request.adapters]
    _check_out(request, [model, *(_adapter_of(item)[1] for item in adapters)])
    if request.adapters and request.to in ("hf", "gguf"):
        raise UserError(f"adapter: value {request.adapters[0]!r}: adapters are not merged; export them with --to peft")
    if request.to in ("hf", "peft") or (request.to == "coreml" and adapters):
        _needs_torch(request.to)
    lines = {"hf": _hf, "gguf": _gguf, "coreml": _coreml, "peft": _peft}[request.to](
        model, adapters, request, kind, screen
    )
    if own is not None and request.to in ("hf", "gguf"):
        lines.append(f"The adapter {own} is not part of it; export it with --to peft.")
    return lines


def _check_out(request: Request, sources: Sequence[Path]) -> None:
    out = request.out.resolve()
    if any(out == path or out in path.parents for path in (source.resolve() for source in sources)):
        raise UserError(f"out: value {str(request.out)!r}: holds what is exported; choose another place")
    if request.to == "gguf" and request.out.is_dir():
        raise UserError(f"out: value {str(request.out)!r}: is a directory; give the name of a file")
    if request.out.exists() and not request.overwrite:
        raise UserError(f"out: value {str(request.out)!r}: exists already; give --overwrite to replace it")


def _needs_torch(to: str) -> None:
    if importlib.util.find_spec("torch") is None:
        raise UserError(f"{to}: PyTorch is not installed here; install Pippin with its extra: pippin[train]")


def _adapter_of(item: str) -> tuple[str, Path]:
    """Name and directory of an adapter, given as NAME=DIRECTORY, a directory, or a run directory."""
    name, _, place = item.rpartition("=")
    path = Path(place)
    if not (path / "adapter_config.json").is_file() and (path / "adapter").is_dir():
        path = path / "adapter"
    if not (path / "adapter_config.json").is_file():
        raise UserError(f"adapter: value {place!r}: no adapter (adapter_config.json) there; give a PEFT directory")
    if not name:
        run = path.resolve().parent if path.name == "adapter" else path.resolve()
        name = re.sub(r"\W", "_", re.sub(r"-[0-9a-f]{8}$", "", run.name))
    if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII) or name == "main":
        raise UserError(f"adapter: value {name!r}: names a function, so it must be letters and digits, and not main")
    return name, path


def _size(path: Path) -> str:
    files = path.rglob("*") if path.is_dir() else [path]
    return f"{sum(file.stat().st_size for file in files if file.is_file()) / 1e6:,.1f} MB"


def _hf(model: Path, adapters: list[str], request: Request, kind: str, screen: Screen) -> list[str]:
    import torch

    from pippin.interop.hf import save_hf
    from pippin.interop.load import load_model

    with atomic_directory(request.out) as temporary:
        save_hf(load_model(model), temporary, model, dtype=getattr(torch, kind))
    return [f"written: {request.out} ({_size(request.out)}): {kind}; transformers opens it"]


def _gguf(model: Path, adapters: list[str], request: Request, kind: str, screen: Screen) -> list[str]:
    from pippin.interop.stored import StoredModel

    stored = StoredModel(model)
    with screen.track(len(stored.shapes), "tensors") as track:
        counts = gguf.export_gguf(stored, request.out, kind, track.advance)
    types = ", ".join(f"{count} {name}" for name, count in counts.most_common())
    return [f"written: {request.out} ({_size(request.out)}): tensors {types}; llama.cpp opens it"]


def _coreml(model: Path, adapters: list[str], request: Request, kind: str, screen: Screen) -> list[str]:
    from pippin.interop.coreml import export_coreml
    from pippin.interop.stored import StoredModel

    stored = StoredModel(model)
    functions: dict[str, Adapter] = {}
    for item in adapters:
        name, path = _adapter_of(item)
        if name in functions:
            raise UserError(f"adapter: value {name!r}: names two adapters; give NAME=DIRECTORY")
        functions[name] = _low_ranks(model, path)
    with screen.track(stored.config.n_layers * (1 + len(functions)), "layers") as track:
        checked = export_coreml(stored, request.out, kind, request.context, functions, track.advance)
    kinds = {"palettized": checked.palettized, "int8": checked.int8, "dense": checked.dense}
    found = ", ".join(f"{count} {name}" for name, count in kinds.items() if count)
    exact = "to the last bit" if not checked.difference else f"within {checked.difference:.1e} of their largest values"
    return [
        f"written: {request.out} ({_size(request.out)}): {kind}, functions {', '.join(['main', *functions])}",
        f"checked: {found} matrices, read back and decoded, are the model's {exact}",
        "not run: Core ML computes on Apple's systems only, and this machine has only looked at the program",
    ]


def _peft(model: Path, adapters: list[str], request: Request, kind: str, screen: Screen) -> list[str]:
    import torch

    from pippin.interop.lora import OURS, adapter_rank, base_signature
    from pippin.interop.peft import save_adapter

    if len(adapters) != 1:
        raise UserError(
            f"adapter: {len(adapters)} of them: name one, by --adapter DIRECTORY or the run directory that made it"
        )
    path, rank = _adapter_of(adapters[0])[1], adapter_rank(_adapter_of(adapters[0])[1])
    filled, info = _with_adapter(model, path)
    with atomic_directory(request.out) as temporary:
        save_adapter(filled, 0, temporary, base_signature(model), rank=rank, dtype=getattr(torch, kind))
        if info.base_signature is None:  # of another tool: that it belongs to this base is not known
            remove(temporary / OURS)
    lines = [
        f"written: {request.out} ({_size(request.out)}): rank {rank}, {kind}; peft opens it over the exported base"
    ]
    return lines + ([info.note] if info.note else [])


def _with_adapter(model_dir: Path, adapter: Path) -> tuple[Transformer, AdapterInfo]:
    """The model with the adapter in slot 0, checked against its base; and what was loaded."""
    from pippin.interop.load import load_model
    from pippin.interop.lora import adapter_rank, base_signature
    from pippin.interop.peft import load_adapter

    model = load_model(model_dir).requires_grad_(False)
    for _, linear in model.linears():
        linear.add_adapters(1, adapter_rank(adapter))
    return model, load_adapter(model, 0, adapter, base_signature(model_dir))


def _low_ranks(model_dir: Path, adapter: Path) -> Adapter:
    from pippin.interop.coreml_program import LowRank

    model, _ = _with_adapter(model_dir, adapter)
    found = {}
    for name, linear in model.linears():
        assert linear.lora_A is not None and linear.lora_B is not None and linear.lora_scale is not None
        a, b = (part[0].detach().half().numpy() for part in (linear.lora_A, linear.lora_B))
        found[f"{name}.weight"] = LowRank(a, b, float(linear.lora_scale[0]))
    return found
