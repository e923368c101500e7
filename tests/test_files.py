from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from pippin import files
from pippin.errors import UserError


def test_write_is_atomic_and_leaves_no_temporary(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "a.txt"
    files.write_text(target, "one\r\n")
    files.write_text(target, "two\n")
    assert target.read_bytes() == b"two\n"
    assert os.listdir(target.parent) == ["a.txt"]


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    files.write_text(target, "old")
    with pytest.raises(RuntimeError), files.atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_full_disk_is_one_line_and_nothing_is_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="no space left"):
        files.write_text(tmp_path / "a.txt", "x")
    assert os.listdir(tmp_path) == []


def test_json_round_trip_and_damage(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a.json", {"ä": [1, None, 0.1]})
    assert files.read_json(tmp_path / "a.json") == {"ä": [1, None, 0.1]}
    (tmp_path / "b.json").write_bytes(b'{"a": \xff')
    with pytest.raises(UserError, match="damaged"):
        files.read_json(tmp_path / "b.json")
    with pytest.raises(UserError, match="no such file"):
        files.read_json(tmp_path / "c.json")
    with pytest.raises(ValueError):
        files.write_json(tmp_path / "d.json", float("nan"))
    assert not (tmp_path / "d.json").exists()


def test_digest_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert files.digest(tmp_path / "a").startswith("ba7816bf8f01cfea")
