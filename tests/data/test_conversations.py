"""A user's JSON lines: what is wrong is said with its line and field, and no question is on both sides."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pippin.data.conversations import read_conversations
from pippin.errors import UserError


def chat(*contents: str) -> dict[str, object]:
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[i % 2], "content": text} for i, text in enumerate(contents)]}


def write(path: Path, *values: object) -> Path:
    path.write_text("".join((v if isinstance(v, str) else json.dumps(v)) + "\n" for v in values), encoding="utf-8")
    return path


def test_split_by_question_without_repetitions(tmp_path: Path) -> None:
    once = [chat(f"What is {n}?", f"It is {n}.") for n in range(200)]
    twice = [chat(f"What is {n}?", f"Again, {n}.") for n in range(200)]
    path = write(tmp_path / "chats.jsonl", *once, "", *twice, *once)
    records, repeated = read_conversations(path, 0.25)
    assert (len(records), repeated) == (400, 200)
    sides: dict[str, set[str]] = {}
    for record in records:
        sides.setdefault(record["messages"][0]["content"], set()).add(record["split"])
    assert all(len(side) == 1 for side in sides.values())
    assert 0.15 < sum(side == {"heldout"} for side in sides.values()) / 200 < 0.35
    other = write(tmp_path / "other.jsonl", *reversed(once))
    assert {r["messages"][0]["content"]: {r["split"]} for r in read_conversations(other, 0.25)[0]} == sides
    assert records[3]["id"] == "chats.jsonl:4"
    assert records[200]["id"] == "chats.jsonl:202"  # the empty line counts


GOOD = chat("Hello?", "Hi.")
TOOL = {"role": "tool", "content": "3"}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("{", "not valid JSON"),
        ("[]", "messages: missing or empty"),
        ({"text": "Hello"}, "messages: missing or empty"),
        ({"messages": []}, "messages: missing or empty"),
        ({"messages": ["Hello"]}, r"messages\[0\]: value 'Hello': must be an object"),
        (
            {"messages": [{"role": "human", "content": "a"}]},
            r"messages\[0\].role: value 'human': must be one of system",
        ),
        ({"messages": [{"role": "user"}]}, r"messages\[0\].content: value 'None': must be text"),
        ({"messages": [{"role": "user", "content": 3}]}, r"messages\[0\].content: value '3': must be text"),
        (chat("Hello?", " "), r"messages\[1\].content: empty"),
        (chat("Hello?"), r"messages\[0\].role: value 'user': the last message must be the assistant's"),
        ({"messages": [{"role": "assistant", "content": "Hi."}]}, "messages: only an answer"),
        (chat("\ud800", "Hi."), r"messages\[0\].content: holds half a character"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: object, expected: str) -> None:
    path = write(tmp_path / "chats.jsonl", GOOD, line, GOOD)
    with pytest.raises(UserError, match=rf"chats.jsonl:2: {expected}") as raised:
        read_conversations(path, 0.5)
    assert "\n" not in str(raised.value)


def test_every_wrong_line_is_counted(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"chats.jsonl:1: .* \(2 lines have errors\)"):
        read_conversations(write(tmp_path / "chats.jsonl", "{", GOOD, "{"), 0.5)


def test_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "chats.jsonl"
    path.write_bytes(json.dumps(GOOD).encode() + b"\n" + '{"messages": "\u00e9"}'.encode("latin-1"))
    with pytest.raises(UserError, match=r"chats.jsonl:2: byte 15: not UTF-8"):
        read_conversations(path, 0.5)


def test_no_file_and_no_side(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_conversations(tmp_path / "absent.jsonl", 0.5)
    with pytest.raises(UserError, match="a folder"):
        read_conversations(tmp_path, 0.5)
    with pytest.raises(UserError, match=r"none of its 1 conversations is on the heldout side"):
        read_conversations(write(tmp_path / "one.jsonl", GOOD), 1e-9)
