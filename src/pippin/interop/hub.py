"""Where a model to import lies: a local directory, or one commit of a repository on the Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path

from pippin.errors import UserError
from pippin.interop.directory import TOKENIZER_FILES

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_COMMIT = re.compile(r"[0-9a-f]{40}")
# Weights as safetensors only, and none of the copies in other formats that lie beside them.
_WANTED = ("config.json", "model*.safetensors", "model.safetensors.index.json", *TOKENIZER_FILES)


def is_local(source: str) -> bool:
    """Whether `source` is a directory here; a path that starts with `/`, `.` or `~` is meant as one."""
    return source.startswith(("/", ".", "~")) or Path(source).is_dir()


def locate(source: str, revision: str, only_config: bool = False) -> Path:
    """The local directory of a model; one of the hub is fetched into the hub's own cache, if it is not there yet.

    Args:
        source: a directory, or "owner/name" on the hub.
        revision: for the hub: the commit, 40 hex digits, so that the same command means the same weights for ever.
        only_config: fetch config.json only.
    Raises:
        UserError: no such directory, no pinned revision, or the hub does not give it.
    """
    if is_local(source):
        directory = Path(source).expanduser()
        if not directory.is_dir():
            raise UserError(f"{directory}: no such directory; expected a Hugging Face model directory")
        return directory
    if not _REPOSITORY.fullmatch(source):
        raise UserError(f"model: value {source!r}: must be a model directory, or owner/name on the Hugging Face hub")
    if not _COMMIT.fullmatch(revision):
        raise UserError(
            f"revision: value {revision!r}: a name on the hub needs the commit, 40 hex digits (a branch may change); "
            f"it stands on the page of {source} under Files and versions, History"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        patterns = ["config.json"] if only_config else list(_WANTED)
        return Path(snapshot_download(source, revision=revision, allow_patterns=patterns))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UserError(
            f"{source}: cannot be fetched ({reason}); download it yourself and give the directory"
        ) from None
