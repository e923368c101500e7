"""Messages as published files hold them, checked field by field: OpenAI's form, and ShareGPT's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pippin.data.chat import ROLES
from pippin.data.records import Message

_OPENAI = dict(zip(ROLES, ROLES, strict=True))
_SHAREGPT = {"system": "system", "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}


def read_messages(value: Any, field: str, sharegpt: bool = False) -> list[Message]:
    """A list of messages, {"role", "content"} or (ShareGPT) {"from", "value"}.

    Raises:
        ValueError: the field, its value, and what is expected.
    """
    if not isinstance(value, list) or not value:
        raise ValueError(f"{field}: value {str(value)[:40]!r}: must be text or a list of messages")
    return [read_message(message, f"{field}[{place}]", sharegpt) for place, message in enumerate(value)]


def read_message(value: Any, field: str, sharegpt: bool = False) -> Message:
    """One message; as `read_messages`."""
    who, what = ("from", "value") if sharegpt else ("role", "content")
    if not isinstance(value, Mapping):
        raise ValueError(f"{field}: value {str(value)[:40]!r}: must be an object with {who} and {what}")
    roles = _SHAREGPT if sharegpt else _OPENAI
    role = value.get(who)
    if not isinstance(role, str) or role not in roles:
        raise ValueError(f"{field}.{who}: value {str(role)[:40]!r}: must be one of {', '.join(roles)}")
    return {"role": roles[role], "content": read_text(value.get(what), f"{field}.{what}")}


def read_text(value: Any, field: str) -> str:
    """A text of whole characters; it may be empty.

    Raises:
        ValueError: the field, its value, and what is expected.
    """
    if not isinstance(value, str):
        raise ValueError(f"{field}: value {str(value)[:40]!r}: must be text")
    if any("\ud800" <= c <= "\udfff" for c in value):
        raise ValueError(f"{field}: holds half a character (a lone surrogate); write the text again")
    return value
