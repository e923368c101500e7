from __future__ import annotations

import contextlib
import errno
import json
import os
from pathlib import Path

import pytest
import torch
import xxhash
from safetensors.torch import load_file
from torch import Tensor

from pippin.errors import UserError
from pippin.training.checkpoint import Checkpoints, State
from pippin.training.checkpoint_files import Described, Manifest, Shard, check_coverage, shard_name

ONLY = shard_name(1)


def tensors(value: float) -> dict[str, Tensor]:
    """Whole, sliceable, empty and scalar tensors of several types, no two alike."""
    return {
        "parameter.w": value + torch.arange(12.0).view(3, 4),
        "parameter.b": torch.full((5,), value, dtype=torch.bfloat16),
        "parameter.none": torch.zeros(0, 4),
        "random.cpu": (torch.arange(7) + int(value)).to(torch.uint8),
        "step.w": torch.tensor(float(value)),
    }


def save(directory: Path, *steps: int) -> None:
    with Checkpoints(directory) as checkpoints:
        for step in steps:
            checkpoints.save(step, tensors(step), {"applied": step - 1})


def restore(directory: Path) -> tuple[State | None, dict[Path, str], dict[str, Tensor]]:
    found = tensors(0)
    with Checkpoints(directory) as checkpoints:
        state, set_aside = checkpoints.restore(found)
    return state, set_aside, found


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def step_of(directory: Path) -> int:
    """The step that is restored, checked to be that step to the last bit."""
    state, _, found = restore(directory)
    assert state is not None
    assert equal(found, tensors(state.step))
    assert state.meta == {"applied": state.step - 1}
    return state.step


def names(directory: Path) -> list[str]:
    return sorted(name for name in os.listdir(directory) if name != "lock")


def test_round_trip_and_the_last_two_are_kept(tmp_path: Path) -> None:
    save(tmp_path, 10, 20, 30)
    assert names(tmp_path) == ["step-00000020", "step-00000030"]
    assert step_of(tmp_path) == 30


def test_multiples_are_kept_too(tmp_path: Path) -> None:
    with Checkpoints(tmp_path, keep_last=1, keep_every=20) as checkpoints:
        for step in (10, 20, 30, 40, 50, 60):
            checkpoints.save(step, tensors(step), {})
    assert names(tmp_path) == ["step-00000020", "step-00000040", "step-00000060"]


def test_what_changes_after_the_call_is_not_saved(tmp_path: Path) -> None:
    state = tensors(10)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(10, state, {"applied": 9})
        for tensor in state.values():
            tensor.zero_()
    assert step_of(tmp_path) == 10


def test_nothing_there(tmp_path: Path) -> None:
    state, set_aside, found = restore(tmp_path / "none")
    assert (state, set_aside) == (None, {})
    assert equal(found, tensors(0))


def test_safetensors_and_dcp_open_it(tmp_path: Path) -> None:
    import torch.distributed.checkpoint as dcp

    save(tmp_path, 10)
    plain = load_file(tmp_path / "step-00000010" / ONLY)
    assert equal({"parameter.none": torch.zeros(0, 4), **plain}, tensors(10))
    found = {name: torch.zeros_like(tensor) for name, tensor in plain.items()}
    dcp.load(found, storage_reader=dcp.HuggingFaceStorageReader(str(tmp_path / "step-00000010")), no_dist=True)
    assert equal(found, plain)


def test_two_processes_cannot_write_one_directory(tmp_path: Path) -> None:
    with Checkpoints(tmp_path):
        with pytest.raises(UserError, match="another process writes checkpoints here"):
            Checkpoints(tmp_path)
    Checkpoints(tmp_path).close()


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    save(tmp_path, 10)
    (tmp_path / ".step-00000020.tmp").mkdir()
    (tmp_path / ".step-00000020.tmp" / ONLY).write_bytes(b"half")
    assert step_of(tmp_path) == 10
    assert names(tmp_path) == ["step-00000010"]


@pytest.mark.parametrize("file", [ONLY, "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "delete", "empty"])
def test_a_damaged_one_is_set_aside_and_the_one_before_is_used(tmp_path: Path, file: str, damage: str) -> None:
    save(tmp_path, 10, 20)
    path = tmp_path / "step-00000020" / file
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()
    if damage != "delete":
        path.write_bytes({"flip": bytes(data), "cut": bytes(data[:-1]), "empty": b""}[damage])
    state, set_aside, found = restore(tmp_path)
    assert state is not None
    assert state.step == 10
    assert equal(found, tensors(10))
    assert [(path.name, file in why) for path, why in set_aside.items()] == [("damaged-step-00000020", True)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"parameter.w": torch.zeros(4, 3)}, r"parameter\.w is F32 \[3, 4\] in it and F32 \[4, 3\] here, 1 tensors"),
        ({"step.w": torch.zeros((), dtype=torch.float64)}, r"step\.w is F32 \[\] in it and F64 \[\] here"),
        ({"other": torch.zeros(1)}, r"other is missing in it and F32 \[1\] here"),
    ],
)
def test_another_model_is_one_line_and_nothing_is_set_aside(
    tmp_path: Path, change: dict[str, Tensor], words: str
) -> None:
    save(tmp_path, 10)
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(UserError, match=words) as error:
        checkpoints.restore(tensors(0) | change)
    assert "\n" not in str(error.value)
    assert names(tmp_path) == ["step-00000010"]


def test_older_and_newer_formats_are_refused(tmp_path: Path) -> None:
    (tmp_path / "step-00000010").mkdir()
    (tmp_path / "step-00000010" / "state.json").write_text("{}")
    with pytest.raises(UserError, match="written by an older Pippin; delete"):
        restore(tmp_path)
    save(tmp_path / "new", 10)
    file = tmp_path / "new" / "step-00000010" / "manifest.json"
    text = file.read_text().replace('"format_version": 2', '"format_version": 3')
    own = json.loads(text)["digest"]
    text = text.replace(own, "0" * 32)
    file.write_text(text.replace("0" * 32, xxhash.xxh3_128_hexdigest(text.encode())))
    with pytest.raises(UserError, match="format_version 3: this Pippin reads 2"):
        restore(tmp_path / "new")
    assert names(tmp_path / "new") == ["step-00000010"]


def test_a_step_that_is_there_is_replaced(tmp_path: Path) -> None:
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(10, tensors(99), {"applied": 0})
        checkpoints.save(10, tensors(10), {"applied": 9})
    assert step_of(tmp_path) == 10


def test_a_full_disk_leaves_the_earlier_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 10)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    checkpoints = Checkpoints(tmp_path)
    monkeypatch.setattr(os, "fsync", full)
    checkpoints.save(20, tensors(20), {"applied": 19})
    with pytest.raises(UserError, match="no space left"):
        checkpoints.wait()
    assert names(tmp_path) == ["step-00000010"]
    monkeypatch.undo()
    checkpoints.save(30, tensors(30), {"applied": 29})
    checkpoints.close()
    assert step_of(tmp_path) == 30


@pytest.mark.parametrize(
    ("pieces", "covers"),
    [
        ([((0, 0), (4, 6))], True),
        ([((0, 0), (1, 6)), ((1, 0), (3, 2)), ((1, 2), (3, 4))], True),
        ([((0, 0), (4, 3)), ((0, 3), (4, 2))], False),  # a column is missing
        ([((0, 0), (2, 6)), ((1, 0), (3, 6))], False),  # a row is there twice
        ([((0, 0), (4, 6)), ((0, 0), (1, 1))], False),
        ([((0, 0), (4, 6)), ((4, 0), (1, 6))], False),  # outside
        ([], False),
    ],
)
def test_pieces_must_cover_a_tensor_once(pieces: list[tuple[tuple[int, ...], tuple[int, ...]]], covers: bool) -> None:
    shards = {str(number): Shard(0, "", {"a": piece}) for number, piece in enumerate(pieces)}
    manifest = Manifest(1, len(pieces), {}, {"a": Described("F32", (4, 6)), "none": Described("F32", (0, 6))}, shards)
    with contextlib.nullcontext() if covers else pytest.raises(ValueError, match="do not cover it once"):
        check_coverage(manifest)


def test_a_scalar_must_be_there() -> None:
    with pytest.raises(ValueError, match="step: its pieces"):
        check_coverage(Manifest(1, 1, {}, {"step": Described("F32", ())}))
