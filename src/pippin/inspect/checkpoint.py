"""`pippin inspect CHECKPOINT`: what the steps hold, whether they are whole, how two differ, and one as a model."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pippin import files
from pippin.errors import UserError
from pippin.interop.hf import save_hf
from pippin.training import checkpoint_files as stored
from pippin.training.checkpoint_files import Damaged, Manifest
from pippin.training.checkpoint_model import plain, read_tensor, step_model, whole_manifest


@dataclass(frozen=True)
class Step:
    """One step on disk: its manifest, or why there is none."""

    directory: Path
    manifest: Manifest | None
    damage: str = ""


def steps_of(path: Path) -> list[Step]:
    """The steps that a path means: a step, a directory of steps, or an unfinished run's; none if it is nothing such.

    Raises:
        UserError: a step is of another version of the format.
    """
    if path.name != "checkpoint" and (path / "stage.json").is_file() and not (path / "DONE").exists():
        path = path / "checkpoint"
    if (path / stored.MANIFEST).is_file():
        return [_read(path)]
    return [_read(stored.step_directory(path, step)) for step in stored.steps_in(path)]


def inspect_checkpoint(
    path: Path, verify: bool = False, other: Path | None = None, merge: Path | None = None, as_json: Path | None = None
) -> None:
    """What `pippin inspect` does with a checkpoint.

    Args:
        path: as in `steps_of`; where one step is needed and there are several, the newest is taken.
        verify: read every file and compare it with its digest.
        other: a step to compare with.
        merge: write the newest step's model there as a Hugging Face directory.
        as_json: where the list of steps and tensors goes.
    Raises:
        UserError: there is no checkpoint, it is damaged, or it does not hold a whole model.
    """
    steps = steps_of(path)
    if not steps:
        raise UserError(f"{path}: holds no checkpoint (step-*/{stored.MANIFEST})")
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    if merge is not None:
        _merge(steps[-1], merge, console)
    elif other is not None:
        others = steps_of(other)
        if not others:
            raise UserError(f"{other}: holds no checkpoint (step-*/{stored.MANIFEST})")
        _show_difference(steps[-1], others[-1], console)
    else:
        checked = [_verified(step, verify) for step in steps]
        _list(checked, verify, console)
        if as_json is not None:
            files.write_json(as_json, [_as_json(step) for step in checked])
            print(f"written: {as_json}")
        if bad := [step for step in checked if step.damage]:
            first = f"{bad[0].directory}: {plain(bad[0].damage)}"
            raise UserError(f"{first}; {len(bad)} of {len(checked)} steps are damaged, training would not use them")


def _read(directory: Path) -> Step:
    try:
        return Step(directory, stored.read_manifest(directory))
    except Damaged as error:
        return Step(directory, None, str(error))


def _verified(step: Step, digests: bool) -> Step:
    """The step with what is wrong with its files: sizes, and digests if they are asked for."""
    if step.manifest is None:
        return step
    try:
        stored.check_coverage(step.manifest)
        for name, shard in step.manifest.shards.items():
            if digests:
                stored.verify_shard(step.directory, name, shard)
            elif not (file := step.directory / name).is_file():
                raise Damaged(f"{name}: is missing")
            elif file.stat().st_size != shard.bytes:
                raise Damaged(f"{name}: {file.stat().st_size:,} bytes instead of {shard.bytes:,}")
    except (Damaged, ValueError) as error:
        return Step(step.directory, step.manifest, str(error))
    return step


def _list(steps: list[Step], verified: bool, console: Console) -> None:
    table = Table("step", "written", "processes", "tensors", "size", "state", box=None, pad_edge=False)
    for step in steps:
        if step.manifest is None:
            table.add_row(step.directory.name, "", "", "", "", escape(plain(step.damage)))
            continue
        written = datetime.fromtimestamp((step.directory / stored.MANIFEST).stat().st_mtime, UTC)
        table.add_row(
            f"{step.manifest.step:,}",
            f"{written:%Y-%m-%d %H:%M}",
            str(step.manifest.world_size),
            f"{len(step.manifest.tensors):,}",
            _size(sum(shard.bytes for shard in step.manifest.shards.values())),
            escape(plain(step.damage)) or ("every digest is right" if verified else "sizes are right"),
        )
    console.print(table)
    newest = next((step.manifest for step in reversed(steps) if step.manifest is not None), None)
    if newest is None:
        return
    console.print()
    for key, value in newest.meta.items():
        console.print(f"{plain(key)}: {plain(str(value))}", markup=False, soft_wrap=True)
    pieces: dict[str, int] = {}
    for shard in newest.shards.values():
        for name in shard.pieces:
            pieces[name] = pieces.get(name, 0) + 1
    # A parameter and what the optimizer keeps for it are one line; a count of steps is a scalar on it.
    lines: dict[tuple[str, str, str, int], list[str]] = {}
    scalars: dict[str, list[str]] = {}
    for name, (dtype, shape) in newest.tensors.items():
        kind, _, rest = name.partition(".")
        if shape:
            lines.setdefault((rest, dtype, " x ".join(map(str, shape)), pieces.get(name, 0)), []).append(kind)
        else:
            scalars.setdefault(rest, []).append(kind)
    tensors = Table("tensor", "type", "shape", "pieces", "kept for it", box=None, pad_edge=False)
    for (name, dtype, extent, count), kinds in lines.items():
        kept = ", ".join([*kinds, *scalars.pop(name, [])])
        tensors.add_row(*(escape(plain(part)) for part in (name, dtype, extent, str(count), kept)))
    for name, kinds in scalars.items():
        tensors.add_row(escape(plain(name)), "", "scalar", "1", escape(plain(", ".join(kinds))))
    console.print()
    console.print(tensors)


def _as_json(step: Step) -> dict[str, Any]:
    if step.manifest is None:
        return {"directory": step.directory.name, "damage": step.damage}
    return {
        "directory": step.directory.name,
        "damage": step.damage,
        "step": step.manifest.step,
        "world_size": step.manifest.world_size,
        "meta": step.manifest.meta,
        "tensors": {name: [dtype, list(shape)] for name, (dtype, shape) in step.manifest.tensors.items()},
        "bytes": {name: shard.bytes for name, shard in step.manifest.shards.items()},
    }


@dataclass(frozen=True)
class Difference:
    """How one tensor differs: the largest |a - b|, |a - b| / |a| as norms, and the share of elements that differ."""

    name: str
    largest: float
    relative: float
    share: float


def differences(one: Step, other: Step) -> Iterator[Difference]:
    """Compare the tensors that both steps have in the same shape, one at a time.

    Raises:
        UserError: a step is damaged.
    """
    first, second = whole_manifest(one.directory), whole_manifest(other.directory)
    for name in first.tensors.keys() & second.tensors.keys():
        if first.tensors[name].shape == second.tensors[name].shape:
            a = read_tensor(one.directory, first, name).double()
            b = read_tensor(other.directory, second, name).double()
            # NaN in both is no difference.
            gap = torch.where((a == b) | (a.isnan() & b.isnan()), 0.0, a - b)
            if not gap.numel():
                yield Difference(name, 0.0, 0.0, 0.0)
                continue
            norm, length = float(gap.norm()), float(a.norm())
            relative = 0.0 if norm == 0 else norm / length if length else math.inf
            yield Difference(name, float(gap.abs().max()), relative, float((gap != 0).double().mean()))


def _show_difference(one: Step, other: Step, console: Console) -> None:
    found = sorted(differences(one, other), key=lambda each: (-each.relative, each.name))
    assert one.manifest is not None
    assert other.manifest is not None
    first, second = one.manifest, other.manifest
    console.print(f"{one.directory.name} (step {first.step:,}) against {other.directory.name} (step {second.step:,})")
    for key in sorted({*first.meta, *second.meta}):
        if first.meta.get(key) != second.meta.get(key):
            values = f"{first.meta.get(key)} and {second.meta.get(key)}"
            console.print(f"{plain(key)}: {plain(values)}", markup=False, soft_wrap=True)
    table = Table("tensor", "largest difference", "relative", "elements", box=None, pad_edge=False)
    for each in found:
        if each.share:
            numbers = f"{each.largest:.3g}", f"{each.relative:.3g}", f"{each.share:.1%}"
            table.add_row(escape(plain(each.name)), *numbers)
    if table.row_count:
        console.print(table)
    console.print(f"{len(found) - table.row_count} of {len(found)} tensors are equal to the last bit")
    compared = {each.name for each in found}
    if alone := sorted({*first.tensors, *second.tensors} - compared):
        console.print(f"in one only, or of another shape: {plain(', '.join(alone))}", markup=False, soft_wrap=True)


def _merge(step: Step, out: Path, console: Console) -> None:
    """Write the model of a step as a Hugging Face directory."""
    model = step_model(step.directory)
    assert step.manifest is not None
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out}: is there and not empty; name a new directory")
    tokenizer = _tokenizer(step.directory)
    save_hf(model, out, tokenizer)
    console.print(
        f"written: {out} ({_size(4 * model.config.n_params().total)}, step {step.manifest.step:,})", soft_wrap=True
    )
    if tokenizer is None:
        console.print("no tokenizer was found beside the run; copy its files into the directory", soft_wrap=True)


def _tokenizer(step: Path) -> Path | None:
    """The tokenizer of the run that the step is of: the nearest upstream stage that has one."""
    run = step.resolve().parent.parent
    waiting, seen = [run.name], set()
    while waiting:
        name = waiting.pop(0)
        seen.add(name)
        directory = run.parent / name
        if (directory / "tokenizer" / "tokenizer.json").is_file():
            return directory / "tokenizer"
        if (directory / "stage.json").is_file():
            upstream = files.read_json(directory / "stage.json").get("upstream", {}).values()
            waiting += [Path(str(parent)).name for parent in upstream if Path(str(parent)).name not in seen]
    return None


def _size(n_bytes: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= size:
            return f"{n_bytes / size:.1f} {unit}"
    return f"{n_bytes} B"
