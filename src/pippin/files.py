"""The one writer: every file appears whole or not at all, and a full disk is one clear line."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pippin.errors import UserError

_FULL = {errno.ENOSPC, errno.EDQUOT}


def fsync_path(path: Path) -> None:
    """Flush a file or a directory entry to the device."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def full_disk_is_one_line(path: Path) -> Iterator[None]:
    """Turn "no space left" into a UserError that names the file; other errors pass through."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise UserError(f"{path}: no space left on the device; free some and run the same command again") from error
        raise
    except Exception as error:  # safetensors and pyarrow wrap the system error in types of their own
        if "No space left" in str(error) or "os error 28" in str(error):
            raise UserError(f"{path}: no space left on the device; free some and run the same command again") from error
        raise


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary sibling of `path` to write; it becomes `path` when the block ends well.

    The bytes are on the device before the name exists (fsync, rename, fsync of the directory), so after a kill
    or a power cut there is either the old file, or the new one, never a part. On any error the temporary is removed.

    Raises:
        UserError: the disk is full.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with full_disk_is_one_line(path):
        try:
            yield temporary
            fsync_path(temporary)
            os.replace(temporary, path)
            fsync_path(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: str | Path) -> Iterator[Path]:
    """Yield a temporary sibling directory to fill; it becomes `path` when the block ends well, whatever was there.

    Every file in it is on the device before the name exists. On any error the temporary is removed and `path` stays.

    Raises:
        UserError: the disk is full.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with full_disk_is_one_line(path):
        try:
            temporary.mkdir()
            yield temporary
            for item in (*temporary.rglob("*"), temporary):
                fsync_path(item)
            old = path.with_name(f".{path.name}.{os.getpid()}.old")
            if path.exists():
                os.replace(path, old)
            os.replace(temporary, path)
            fsync_path(path.parent)
            remove(old)
        finally:
            remove(temporary)


def remove(path: Path) -> None:
    """Remove a file or a directory with all in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write `data` to `path` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` to `path` atomically as UTF-8 with its newlines as they are."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` to `path` atomically as indented JSON (keys in their order, no NaN)."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: the file is missing, not UTF-8 or not JSON.
    """
    path = Path(path)
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({error}); the file is damaged") from None


def digest(path: str | Path) -> str:
    """SHA-256 of a file's bytes, as 64 hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
