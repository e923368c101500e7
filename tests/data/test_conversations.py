"""A user's JSON lines: what is wrong is said with its line and field, and no question is on both sides."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pippin.data.chat import FUNCTIONS
from pippin.data.conversations import read_conversations
from pippin.errors import UserError
from pippin.evaluate.verify.tools import read_calls


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
ALPACA = {"instruction": "Add.", "input": "1 and 2", "output": "3"}
CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"of":[1,2]}'}}
ADD = {"name": "add", "description": "Adds «numbers».", "parameters": {"type": "object", "properties": {}}}


def called(*calls: object, **others: object) -> dict[str, object]:
    """An assistant's message with calls, as OpenAI writes it."""
    return {"role": "assistant", "content": None, "tool_calls": list(calls)} | others


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("{", "not valid JSON"),
        ("[]", r"'\[\]': fit no known layout; known: messages \(OpenAI\); conversations \(ShareGPT\); instruction and"),
        ({"text": "Hello", "label": 1}, "fields 'text, label': fit no known layout; known: messages"),
        ({"instruction": "Hello"}, "fields 'instruction': fit no known layout"),
        (GOOD | ALPACA, "fields 'messages, instruction, input, output': fit several layouts; known: messages"),
        (GOOD | {"chosen": "a", "rejected": "b"}, "chosen, rejected: a pair of answers, no conversation"),
        (GOOD | {"label": False}, r"label: marks on single answers \(KTO\) are not read"),
        ({"messages": []}, r"messages: value '\[\]': must be a list of messages, not empty"),
        ({"messages": ["Hello"]}, r"messages\[0\]: value 'Hello': must be an object"),
        (
            {"messages": [{"role": "human", "content": "a"}]},
            r"messages\[0\].role: value 'human': must be one of system",
        ),
        ({"messages": [{"role": "user"}]}, r"messages\[0\].content: value 'None': must be text"),
        ({"messages": [{"role": "user", "content": 3}]}, r"messages\[0\].content: value '3': must be text"),
        (chat("Hello?", " "), "messages: an empty message of the assistant"),
        (chat("Hello?"), "messages: the last message is of user; it must be the assistant's"),
        ({"messages": [{"role": "assistant", "content": "Hi."}]}, "messages: only an answer"),
        (chat("\ud800", "Hi."), r"messages\[0\].content: holds half a character"),
        ({"messages": [called(CALL, role="user")]}, r"messages\[0\].tool_calls: in a message of user; only"),
        ({"messages": [called() | {"tool_calls": CALL}]}, r"messages\[0\].tool_calls: value .* must be a list"),
        ({"messages": [called("add")]}, r"messages\[0\].tool_calls\[0\]: value 'add': must be an object with name"),
        ({"messages": [called({"name": 3, "arguments": {}})]}, r"messages\[0\].tool_calls\[0\].name: value '3'"),
        ({"messages": [called({"name": "f", "arguments": "{"})]}, r".*\[0\].arguments: value '{': not valid JSON"),
        (
            {"messages": [called({"name": "f", "arguments": [1]})]},
            r".*\[0\].arguments: value '\[1\]': must be an object",
        ),
        ({"messages": [called({"name": "f"})]}, r".*\[0\].arguments: value 'None': must be an object"),
        ({"messages": [called({"name": "f", "arguments": {"x": "\ud800"}})]}, "messages: holds half a character"),
        ({"messages": [called({"name": "f", "arguments": {"x": float("nan")}})]}, "message 0 .* cannot be written as"),
        ({"messages": [called() | {"function_call": {}}]}, r"messages\[0\].function_call: an old form"),
        (
            {"messages": [called(CALL), {"role": "tool", "content": "3", "tool_call_id": "c2"}]},
            r"messages\[1\].tool_call_id: value 'c2': no call of the assistant message before it has this id",
        ),
        (GOOD | {"tools": "["}, r"tools: value '\[': not valid JSON"),
        (GOOD | {"tools": ADD}, "tools: value .*: must be a list of functions"),
        (GOOD | {"tools": [{"type": "function"}]}, r"tools\[0\]: value .*: must be a function with name"),
        (
            {"conversations": [{"from": "robot", "value": "a"}]},
            r"conversations\[0\].from: value 'robot': must be one of",
        ),
        ({"conversations": [{"from": "function_call", "value": "add"}]}, r"conversations\[0\].value: value 'add': not"),
        ({"conversations": [{"from": "human", "value": "a"}]}, "conversations: the last message is of user"),
        ({"instruction": "Add.", "output": 3}, "output: value '3': must be text"),
        ({"instruction": "Add.", "output": ""}, "output: empty"),
        ({"instruction": " ", "output": "a"}, "instruction: empty"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: object, expected: str) -> None:
    path = write(tmp_path / "chats.jsonl", GOOD, line, GOOD)
    with pytest.raises(UserError, match=rf"chats.jsonl:2: {expected}") as raised:
        read_conversations(path, 0.5)
    assert "\n" not in str(raised.value)


def test_the_layouts_give_the_same_messages(tmp_path: Path) -> None:
    openai = {
        "messages": [
            {"role": "user", "content": "Add 1 and 2."},
            called(CALL),
            {"role": "tool", "content": "3", "tool_call_id": "c1"},
            {"role": "assistant", "content": "It is 3.", "tool_calls": []},
        ],
        "tools": [{"type": "function", "function": ADD}],
    }
    sharegpt = {
        "conversations": [
            {"from": "human", "value": "Add 1 and 2."},
            {"from": "function_call", "value": '{"name": "add", "arguments": {"of": [1, 2]}}'},
            {"from": "observation", "value": "3"},
            {"from": "gpt", "value": "It is 3."},
        ],
        "tools": json.dumps([ADD]),
        "system": "",
    }
    functions = (
        'Functions, called as <tool_call>{"name": ..., "arguments": {...}}</tool_call>:\n'
        '{"name": "add", "description": "Adds «numbers».", "parameters": {"type": "object", "properties": {}}}'
    )
    expected = [
        {"role": "system", "content": functions},
        {"role": "user", "content": "Add 1 and 2."},
        {"role": "assistant", "content": '<tool_call>{"name": "add", "arguments": {"of": [1, 2]}}</tool_call>'},
        {"role": "tool", "content": "3"},
        {"role": "assistant", "content": "It is 3."},
    ]
    asked = sharegpt | {"system": "Be brief."}
    path = write(tmp_path / "chats.jsonl", openai, sharegpt, asked, ALPACA, ALPACA | {"input": ""}, *MANY)
    found, repeated = read_conversations(path, 0.5)
    assert repeated == 1  # the first two are the same conversation
    assert found[0]["messages"] == expected
    assert found[1]["messages"] == [{"role": "system", "content": f"Be brief.\n\n{functions}"}, *expected[1:]]
    assert found[2]["messages"] == chat("Add.\n\n1 and 2", "3")["messages"]
    assert found[3]["messages"] == chat("Add.", "3")["messages"]
    assert (found[0]["answer"], found[3]["answer"]) == ("It is 3.", "3")


MANY = [chat(f"What is {n}?", f"It is {n}.") for n in range(30)]


def test_results_of_several_calls_stand_in_the_order_of_the_calls(tmp_path: Path) -> None:
    calls = [{"id": name, "function": {"name": name, "arguments": ""}} for name in "abc"]
    results = [{"role": "tool", "content": f"of {name}", "tool_call_id": name} for name in "cab"]
    row = {"messages": [{"role": "user", "content": "Go."}, called(*calls, content="Well:"), *results, *HI]}
    (messages,) = [
        record["messages"]
        for record in read_conversations(write(tmp_path / "c.jsonl", row, *MANY), 0.5)[0]
        if len(record["messages"]) > 2
    ]
    said = ["Well:", *(f'<tool_call>{{"name": "{name}", "arguments": {{}}}}</tool_call>' for name in "abc")]
    assert messages[1]["content"] == "\n".join(said)
    assert [message["content"] for message in messages[2:5]] == ["of a", "of b", "of c"]
    (call,) = read_calls(said[1])
    assert call == {"a": {}}
    assert len(read_calls(messages[1]["content"])) == 3


HI = [{"role": "assistant", "content": "Hi."}]


def test_every_form_of_file_gives_the_same(tmp_path: Path) -> None:
    calls = [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"b": null, "a": "é"}'}}]
    rows = [*MANY, {"messages": [{"role": "user", "content": "Go."}, called(*calls)]}]
    records, _ = read_conversations(write(tmp_path / "c.jsonl", *rows), 0.25)
    (tmp_path / "c.json").write_text(json.dumps(rows, indent=1))
    (tmp_path / "c.json.gz").write_bytes(gzip.compress(json.dumps(rows).encode()))
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress((tmp_path / "c.jsonl").read_bytes()))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "c.parquet")
    for name in ("c.json", "c.json.gz", "c.jsonl.gz", "c.parquet"):
        found, _ = read_conversations(tmp_path / name, 0.25)
        assert [(each["split"], each["messages"]) for each in found] == [(e["split"], e["messages"]) for e in records]


def test_published_conversations(test_data: Path, tmp_path: Path) -> None:
    path = test_data / "tool_calling" / "glaive_toolcall_en_demo.json.gz"
    glaive, repeated = read_conversations(path, 0.1)
    rows = [json.loads(row) for row in {json.dumps(row) for row in json.loads(gzip.decompress(path.read_bytes()))}]
    assert (len(glaive), repeated) == (len(rows), 300 - len(rows)) == (265, 35)
    calls = [m for record in glaive for m in record["messages"] if m["content"].startswith("<tool_call>")]
    assert len(calls) == sum(m["from"] == "function_call" for row in rows for m in row["conversations"]) > 150
    assert all(len(read_calls(call["content"])) == 1 and call["role"] == "assistant" for call in calls)
    assert sum(record["messages"][0]["content"].startswith(FUNCTIONS) for record in glaive) == sum(
        row["tools"] != "[]" for row in rows
    )
    seeds = (test_data / "instruct" / "self_instruct_seed_tasks.jsonl").read_text(encoding="utf-8").splitlines()
    tasks = [json.loads(line) for line in seeds]
    asked = [{"instruction": task["instruction"], **item} for task in tasks for item in task["instances"]]
    alpaca, repeated = read_conversations(write(tmp_path / "alpaca.jsonl", *asked), 0.1)
    assert (len(alpaca), repeated) == (175, 0)
    assert all(len(record["messages"]) == 2 for record in alpaca)
    for name, said in (("dpo", "chosen, rejected: a pair"), ("kto", "label: marks on single answers")):
        with pytest.raises(UserError, match=rf"json.gz:1: {said}.* \(300 lines have errors\)"):
            read_conversations(test_data / "preference" / f"{name}_en_demo.json.gz", 0.1)
    with pytest.raises(UserError, match=r"seed_tasks.jsonl:1: fields 'id, name, .*': fit no known layout"):
        read_conversations(test_data / "instruct" / "self_instruct_seed_tasks.jsonl", 0.1)


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
