"""Conversations of a user as JSON lines: read strictly, split by a hash of what is asked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pippin.data.chat import ROLES
from pippin.data.records import Instruction, Message, fraction_of
from pippin.errors import UserError

TASK = "chat"


def read_conversations(path: str | Path, heldout_share: float) -> tuple[list[Instruction], int]:
    """The conversations of a file in order, and how many were left out as repetitions.

    A line is {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}, ...]}; other
    fields are not looked at, and empty lines are passed over. Conversations with the same messages before the last are
    on the same side, so no question that is asked to evaluate was trained on.

    Args:
        heldout_share: about which share of the questions is held out.

    Raises:
        UserError: one line that names file, line and field: what is wrong there, and how many lines have errors.
    """
    path = Path(path)
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; give a .jsonl file with one conversation a line") from None
    except IsADirectoryError:
        raise UserError(f"{path}: a folder; give a .jsonl file with one conversation a line") from None
    found: list[Instruction] = []
    wrong: list[str] = []
    seen: set[str] = set()
    repeated = 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            messages = list(_messages(line))
        except ValueError as error:
            wrong.append(f"{path}:{number}: {error}")
            continue
        digest = _digest(messages)
        if digest in seen:
            repeated += 1
            continue
        seen.add(digest)
        held = fraction_of(f"conversation/{_digest(messages[:-1])}") < heldout_share
        found.append(
            {
                "id": f"{path.name}:{number}",
                "task": TASK,
                "split": "heldout" if held else "train",
                "messages": messages,
                "answer": messages[-1]["content"],
                "source": str(path),
            }
        )
    if wrong:
        more = f" ({len(wrong)} lines have errors)" if len(wrong) > 1 else ""
        raise UserError(f"{wrong[0]}{more}")
    for split in ("train", "heldout"):
        if not any(record["split"] == split for record in found):
            raise UserError(
                f"{path}: none of its {len(found)} conversations is on the {split} side at "
                f"heldout_share={heldout_share}; give more conversations or another share"
            )
    return found, repeated


def _messages(line: bytes) -> Iterator[Message]:
    """The messages of one line; ValueError with the field and what is wrong."""
    try:
        value: Any = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start + 1}: not UTF-8; save the file as UTF-8") from None
    except ValueError as error:
        raise ValueError(f"not valid JSON ({error}); write one object a line") from None
    messages = value.get("messages") if isinstance(value, Mapping) else None
    if not isinstance(messages, list) or not messages:
        raise ValueError('messages: missing or empty; expected {"messages": [{"role": ..., "content": ...}, ...]}')
    for place, message in enumerate(messages):
        field = f"messages[{place}]"
        if not isinstance(message, Mapping):
            raise ValueError(f"{field}: value {str(message)[:40]!r}: must be an object with role and content")
        role, content = message.get("role"), message.get("content")
        if role not in ROLES:
            raise ValueError(f"{field}.role: value {str(role)[:40]!r}: must be one of {', '.join(ROLES)}")
        if not isinstance(content, str):
            raise ValueError(f"{field}.content: value {str(content)[:40]!r}: must be text")
        if any("\ud800" <= c <= "\udfff" for c in content):
            raise ValueError(f"{field}.content: holds half a character (a lone surrogate); write the text again")
        if role == "assistant" and not content.strip():
            raise ValueError(f"{field}.content: empty; an assistant message is what is learnt, so it needs text")
        yield {"role": role, "content": content}
    if messages[-1]["role"] != "assistant":
        raise ValueError(
            f"messages[{len(messages) - 1}].role: value {messages[-1]['role']!r}: the last message must be the "
            "assistant's, as it is what is learnt"
        )
    if len(messages) < 2:
        raise ValueError("messages: only an answer; put the message that it answers before it")


def _digest(messages: list[Message]) -> str:
    text = json.dumps([[message["role"], message["content"]] for message in messages], ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
