"""Conversations to token ids, with the loss mask taken from the structure of the conversation.

Functions and calls of them are text, in a form of ours (docs/posttraining_data.md): no vocabulary grows for them, what
a model says is the message itself, and `evaluate.verify.tools.read_calls` reads it back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from pippin.data.records import Message
from pippin.errors import UserError

ROLES = ("system", "user", "assistant", "tool")

FUNCTIONS = 'Functions, called as <tool_call>{"name": ..., "arguments": {...}}</tool_call>:'
"""The line of the system message that the functions follow, one a line as JSON."""


class ChatTokenizer(Protocol):
    """The part of `data.tokenizer.Tokenizer` that a conversation needs."""

    end_id: int

    def encode(self, text: str) -> list[int]:
        """Ids of `text`, never a special one."""

    def role_id(self, role: str) -> int:
        """Id of `<|role|>`."""


class Rendered(NamedTuple):
    """Token ids of a conversation; `loss_mask[i]` is 1 where token i is to be learnt as a target, else 0."""

    ids: list[int]
    loss_mask: list[int]


def render(
    tokenizer: ChatTokenizer,
    messages: Sequence[Mapping[str, object]],
    add_generation_prompt: bool = False,
    conversation_id: str | None = None,
    tools: Sequence[Mapping[str, object]] = (),
) -> Rendered:
    """Turn messages into ids: each is its role token, its content, `<|end|>`; contents are taken as they are.

    The mask is 1 exactly on the content of assistant messages, their calls included, and on the `<|end|>` after it.
    Contents are encoded one by one, so a text that looks like a special token stays text, and cannot end a message or
    start another. The ids are those of the tokenizer directory's chat_template.jinja, except for such look-alikes.

    Args:
        tokenizer: gives `encode`, `role_id` and `end_id`.
        messages: {"role": system | user | assistant | tool, "content": text}, in order, also with tool_calls; see
            `plain`.
        add_generation_prompt: end with `<|assistant|>`, for the model to go on. No target is needed then.
        conversation_id: named in errors.
        tools: the functions that can be called; see `plain`.

    Raises:
        UserError: no message, an unknown role, a content that is not text, a call without name and arguments, or
            nothing to learn (no assistant message with any content) when no generation prompt is asked for.
    """
    where = f"conversation {conversation_id}" if conversation_id is not None else "conversation"
    try:
        texts = plain(messages, tools)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None
    ids: list[int] = []
    loss_mask: list[int] = []
    learnt = 0
    for message in texts:
        content_ids = tokenizer.encode(message["content"])
        target = int(message["role"] == "assistant")
        learnt += target * len(content_ids)
        ids += [tokenizer.role_id(message["role"]), *content_ids, tokenizer.end_id]
        loss_mask += [0, *[target] * (len(content_ids) + 1)]
    if add_generation_prompt:
        ids.append(tokenizer.role_id("assistant"))
        loss_mask.append(0)
    elif not learnt:
        raise UserError(f"{where}: no assistant message with content, so nothing to learn from; add one or drop it")
    return Rendered(ids, loss_mask)


def plain(messages: Sequence[Mapping[str, object]], tools: Sequence[Mapping[str, object]] = ()) -> list[Message]:
    """The messages as role and text alone: calls follow their message's content, functions the system message's.

    Plain messages without tools come back as they are.

    Args:
        messages: OpenAI's: an assistant's may have `tool_calls`, a list of {"function": {"name", "arguments"}} or
            {"name", "arguments"}; its content may then be None. Arguments are an object, or JSON text, taken as it is.
        tools: {"type": "function", "function": schema}, or the schemas alone.

    Raises:
        ValueError: no message, an unknown role, a content that is not text, or a call or function that cannot be
            written; the message's number and what is wrong.
    """
    if not messages:
        raise ValueError("has no messages; give at least one")
    found: list[Message] = []
    for number, message in enumerate(messages):
        role, content, calls = message.get("role"), message.get("content"), message.get("tool_calls") or ()
        if role not in ROLES:
            raise ValueError(f"message {number}: role {role!r}: must be one of {', '.join(ROLES)}")
        where = f"message {number} ({role})"
        if calls and role != "assistant":
            raise ValueError(f"{where}: tool_calls: only the assistant calls functions")
        if content is None and calls:
            content = ""
        if not isinstance(content, str):
            raise ValueError(f"{where}: content {content!r}: must be text")
        if not isinstance(calls, list | tuple):
            raise ValueError(f"{where}: tool_calls: {str(calls)[:40]!r}: must be a list")
        parts = [content, *(_call(call, where) for call in calls)]
        found.append({"role": str(role), "content": "\n".join(part for part in parts if part)})
    if tools:
        said = found.pop(0)["content"] if found[0]["role"] == "system" else ""
        text = "\n".join([FUNCTIONS, *(_json(tool.get("function", tool), "tools") for tool in tools)])
        found.insert(0, {"role": "system", "content": f"{said}\n\n{text}" if said else text})
    return found


def _call(call: Any, where: str) -> str:
    function = call.get("function", call) if isinstance(call, Mapping) else None
    name, arguments = (function.get("name"), function.get("arguments")) if isinstance(function, Mapping) else (None, 0)
    if not isinstance(name, str) or not isinstance(arguments, str | Mapping):
        raise ValueError(f"{where}: tool_calls: {str(call)[:40]!r} has no name and arguments")
    arguments = arguments if isinstance(arguments, str) else _json(arguments, where)
    return f'<tool_call>{{"name": {_json(name, where)}, "arguments": {arguments}}}</tool_call>'


def _json(value: object, where: str) -> str:
    """As the `tojson` of the programs that use the chat template."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {str(value)[:40]!r} cannot be written as JSON ({error})") from None
