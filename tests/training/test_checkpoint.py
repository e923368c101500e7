from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch

from pippin.errors import UserError
from pippin.training import checkpoint


def tensors(value: float) -> dict[str, torch.Tensor]:
    return {"parameter.w": torch.full((3, 4), value), "step.w": torch.tensor(value)}


def test_round_trip_and_the_last_two_are_kept(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        checkpoint.save(tmp_path, step, tensors(step), {"applied": step - 1})
    assert sorted(os.listdir(tmp_path)) == ["step-00000020", "step-00000030"]
    state, damaged = checkpoint.load_latest(tmp_path)
    assert state is not None
    assert state.meta["step"] == 30
    assert state.meta["applied"] == 29
    assert torch.equal(state.tensors["parameter.w"], torch.full((3, 4), 30.0))
    assert damaged == []


def test_nothing_there(tmp_path: Path) -> None:
    assert checkpoint.load_latest(tmp_path / "none") == (None, [])


@pytest.mark.parametrize("file", ["state.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "delete", "empty"])
def test_a_damaged_one_is_set_aside_and_the_one_before_is_used(tmp_path: Path, file: str, damage: str) -> None:
    checkpoint.save(tmp_path, 10, tensors(10), {"applied": 10})
    checkpoint.save(tmp_path, 20, tensors(20), {"applied": 20})
    path = tmp_path / "step-00000020" / file
    data = bytearray(path.read_bytes())
    if damage == "delete":
        path.unlink()
    elif damage == "flip" and file == "state.json":
        path.write_bytes(data.replace(b'"sha256": "', b'"sha256": "0', 1))
    else:
        data[len(data) // 2] ^= 1
        path.write_bytes({"flip": bytes(data), "cut": bytes(data[:-1]), "empty": b""}[damage])
    if damage == "cut" and file == "state.json":  # the last byte is a newline: still whole
        path.write_bytes(bytes(data[:-3]))
    state, damaged = checkpoint.load_latest(tmp_path)
    assert state is not None
    assert state.meta["step"] == 10
    assert [p.name for p in damaged] == ["damaged-step-00000020"]


def test_a_full_disk_leaves_the_earlier_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.save(tmp_path, 10, tensors(10), {"applied": 10})

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="no space left"):
        checkpoint.save(tmp_path, 20, tensors(20), {"applied": 20})
    assert os.listdir(tmp_path) == ["step-00000010"]
