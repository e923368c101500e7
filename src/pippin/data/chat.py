"""Conversations to token ids, with the loss mask taken from the structure of the conversation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from pippin.errors import UserError

ROLES = ("system", "user", "assistant", "tool")


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
) -> Rendered:
    """Turn messages into ids: each is its role token, its content, `<|end|>`; contents are taken as they are.

    The mask is 1 exactly on the content of assistant messages and on the `<|end|>` after it. Contents are encoded
    one by one, so a text that looks like a special token stays text, and cannot end a message or start another.
    The ids are those of the tokenizer directory's chat_template.jinja, except for such look-alikes.

    Args:
        tokenizer: gives `encode`, `role_id` and `end_id`.
        messages: {"role": system | user | assistant | tool, "content": text}, in order.
        add_generation_prompt: end with `<|assistant|>`, for the model to go on. No target is needed then.
        conversation_id: named in errors.

    Raises:
        UserError: no message, an unknown role, a content that is not text, or nothing to learn (no assistant
            message with any content) when no generation prompt is asked for.
    """
    where = f"conversation {conversation_id}" if conversation_id is not None else "conversation"
    if not messages:
        raise UserError(f"{where}: has no messages; give at least one")
    ids: list[int] = []
    loss_mask: list[int] = []
    learnt = 0
    for number, message in enumerate(messages):
        role, content = message.get("role"), message.get("content")
        if role not in ROLES:
            raise UserError(f"{where}: message {number}: role {role!r}: must be one of {', '.join(ROLES)}")
        if not isinstance(content, str):
            raise UserError(f"{where}: message {number} ({role}): content {content!r}: must be text")
        content_ids = tokenizer.encode(content)
        target = int(role == "assistant")
        learnt += target * len(content_ids)
        ids += [tokenizer.role_id(role), *content_ids, tokenizer.end_id]
        loss_mask += [0, *[target] * (len(content_ids) + 1)]
    if add_generation_prompt:
        ids.append(tokenizer.role_id("assistant"))
        loss_mask.append(0)
    elif not learnt:
        raise UserError(f"{where}: no assistant message with content, so nothing to learn from; add one or drop it")
    return Rendered(ids, loss_mask)
