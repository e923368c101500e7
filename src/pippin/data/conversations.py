"""Conversations of a user, in the layouts of published files: read strictly, split by a hash of what is asked.

OpenAI      {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}, ...]};
            an assistant's may have tool_calls, "tools" are the functions to call
ShareGPT    {"conversations": [{"from": "human", "value": "..."}, {"from": "gpt", "value": "..."}, ...]}; also from
            function_call and observation, with "tools", and "system" beside them
Alpaca      {"instruction": "...", "input": "...", "output": "..."}; input may be empty or missing
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pippin.data.messages import read_messages, read_text
from pippin.data.records import Instruction, Message, fraction_of
from pippin.data.rows import read_rows
from pippin.errors import UserError

TASK = "chat"
LAYOUTS = {"OpenAI": ("messages",), "ShareGPT": ("conversations",), "Alpaca": ("instruction", "output")}


def read_conversations(path: str | Path, heldout_share: float) -> tuple[list[Instruction], int]:
    """The conversations of a file in order, and how many were left out as repetitions.

    The file is .jsonl, .json or .parquet, JSON also with .gz behind it; the layout of each row follows from its fields,
    and other fields are not looked at. Messages are plain (`data.chat.plain`). Conversations with the same messages
    before the last are on the same side, so no question that is asked to evaluate was trained on.

    Args:
        heldout_share: about which share of the questions is held out.

    Raises:
        UserError: one line that names file, line and field: what is wrong there, and how many lines have errors.
    """
    path = Path(path)
    found: list[Instruction] = []
    wrong: list[str] = []
    seen: set[str] = set()
    repeated = 0
    for number, value in read_rows(path, "conversations"):
        try:
            if isinstance(value, ValueError):
                raise value
            messages = _messages(value)
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


def _messages(value: Any) -> list[Message]:
    """The messages of one row; ValueError with the field and what is wrong."""
    if isinstance(value, Mapping):
        # What of these is worth learning is not said by the messages, so they would be learnt whatever they are worth.
        if value.get("chosen") is not None and value.get("rejected") is not None:
            raise ValueError(
                "chosen, rejected: a pair of answers, no conversation; end it with the answer to be learnt"
            )
        if isinstance(value.get("label"), bool):
            raise ValueError("label: marks on single answers (KTO) are not read; keep the good rows, without the field")
    layouts = [
        layout
        for layout, fields in LAYOUTS.items()
        if isinstance(value, Mapping) and all(value.get(field) is not None for field in fields)
    ]
    if len(layouts) != 1:
        known = "; ".join(f"{' and '.join(fields)} ({layout})" for layout, fields in LAYOUTS.items())
        there = f"fields {', '.join(value)[:60]!r}" if isinstance(value, Mapping) else f"{str(value)[:40]!r}"
        which = "fit several layouts" if layouts else "fit no known layout"
        raise ValueError(f"{there}: {which}; known: {known}")
    if layouts == ["Alpaca"]:
        return _alpaca(value)
    (field,) = LAYOUTS[layouts[0]]
    given = value[field]
    if field == "conversations" and value.get("system") and isinstance(given, list):
        given = [{"from": "system", "value": value["system"]}, *given]
    messages = read_messages(given, field, value.get("tools"), sharegpt=field == "conversations")
    for message in messages:
        if message["role"] == "assistant" and not message["content"].strip():
            raise ValueError(f"{field}: an empty message of the assistant; it is what is learnt, so it needs text")
    if messages[-1]["role"] != "assistant":
        raise ValueError(
            f"{field}: the last message is of {messages[-1]['role']}; it must be the assistant's, as it is what is "
            "learnt"
        )
    if len(messages) < 2:
        raise ValueError(f"{field}: only an answer; put the message that it answers before it")
    return messages


def _alpaca(value: Mapping[str, Any]) -> list[Message]:
    asked = read_text(value["instruction"], "instruction")
    more = "" if value.get("input") is None else read_text(value["input"], "input")
    said = read_text(value["output"], "output")
    for name, text in (("instruction", asked), ("output", said)):
        if not text.strip():
            raise ValueError(f"{name}: empty; give its text, or leave the row out")
    return [
        {"role": "user", "content": "\n\n".join(text for text in (asked, more) if text)},
        {"role": "assistant", "content": said},
    ]


def _digest(messages: list[Message]) -> str:
    text = json.dumps([[message["role"], message["content"]] for message in messages], ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
