"""Files of records: whatever JSON stands in them, every reader gives records or one line, and never half of both."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pippin.data.chat import plain
from pippin.data.conversations import read_conversations
from pippin.data.preferences import read_preferences
from pippin.data.prompts import read_prompts
from pippin.data.rows import read_rows
from pippin.errors import UserError

WORDS = st.sampled_from(
    ["user", "assistant", "tool", "system", "gpt", "human", "function_call", "exact", "train", "\ud800", "{}", "5"]
)
SCALARS = st.none() | st.booleans() | st.integers(-2, 11) | st.just(float("nan")) | WORDS
FIELDS = st.sampled_from([
    "messages", "conversations", "role", "content", "from", "value", "tool_calls", "tool_call_id", "function", "name",
    "arguments", "tools", "system", "instruction", "input", "output", "prompt", "chosen", "rejected", "level", "grades",
    "completions", "response", "annotations", "Rating", "overall_score", "verifier", "kind", "answer", "question",
    "problem", "id", "split", "source", "a\nb", "\ud800",
])  # fmt: skip
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS, inner, max_size=4), max_leaves=12
)
ASKED, SAID = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
GOOD: dict[str, list[dict[str, Any]]] = {
    "conversations": [
        {
            "tools": [{"type": "function", "function": {"name": "f"}}],
            "messages": [
                ASKED,
                {"role": "assistant", "content": None, "tool_calls": [CALL, {"name": "g", "arguments": {"x": 1}}]},
                {"role": "tool", "content": "c", "tool_call_id": "c"}, SAID,
            ],
        },
        {
            "tools": '[{"name": "f"}]', "system": "d",
            "conversations": [
                {"from": "human", "value": "a"}, {"from": "function_call", "value": '{"name": "f", "arguments": {}}'},
                {"from": "observation", "value": "c"}, {"from": "gpt", "value": "b"},
            ],
        },
        {"instruction": "a", "input": "b", "output": "c"},
    ],
    "preferences": [
        {
            "prompt": [ASKED], "chosen": [ASKED, SAID], "rejected": "c", "level": "better", "tools": [{"name": "f"}],
            "grades": {"chosen": {"truthfulness": 2}, "rejected": {"conciseness": None}},
        },
        {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant:"},
        {
            "conversations": [{"from": "human", "value": "a"}], "chosen": {"from": "gpt", "value": "b"},
            "rejected": {"from": "gpt", "value": "c"},
        },
        {
            "instruction": "a",
            "completions": [
                {"response": "b", "annotations": {"truthfulness": {"Rating": "5"}, "honesty": {"Rating": "N/A"}}},
                {"response": "c", "fine-grained_score": 2.5}, {"response": "d", "overall_score": 9},
            ],
        },
    ],
    "prompts": [
        {"id": "i", "split": "train", "messages": [ASKED], "verifier": {"kind": "exact", "answer": "b"}, "source": "s"},
        {"question": "b", "answer": "#### 5"}, {"problem": "c", "solution": "5"},
        {"prompt": "d", "instruction_id_list": ["b"], "kwargs": [{}]},
        {"question": [[ASKED]], "function": [{"name": "f"}], "ground_truth": [{"f": {"x": [1]}}]},
    ],
}  # fmt: skip


@st.composite
def changed(draw: st.DrawFn, reader: str) -> Any:
    """A good row with up to three of its values, wherever they stand, replaced or left out."""
    row: Any = [json.loads(json.dumps(draw(st.sampled_from(GOOD[reader]))))]
    for _ in range(draw(st.integers(0, 3))):
        inside, key = row, 0
        while isinstance(inside[key], dict | list) and inside[key] and draw(st.integers(0, 3)):
            inside = inside[key]
            key = draw(st.sampled_from(list(inside) if isinstance(inside, dict) else range(len(inside))))
        if isinstance(inside, dict) and draw(st.booleans()):
            del inside[key]
        else:
            inside[key] = draw(WORDS if isinstance(inside[key], str) and draw(st.booleans()) else ANYTHING)
    return row[0]


READERS: dict[str, Any] = {
    "conversations": lambda path: [row["messages"] for row in read_conversations(path, 0.5)[0]],
    "preferences": lambda path: [
        [*row["prompt"], {"role": "assistant", "content": row["chosen"]}] for row in read_preferences(path, 0.5).pairs
    ],
    "prompts": lambda path: [row["messages"] for row in read_prompts(path)],
}
OTHERS = {  # so that both sides have some
    "conversations": [{"instruction": f"{n}", "output": "a"} for n in range(8)],
    "preferences": [{"prompt": f"{n}", "chosen": "a", "rejected": "b"} for n in range(8)],
    "prompts": [],
}


@pytest.mark.parametrize("reader", READERS)
def test_good_rows_are_records(reader: str, tmp_path: Path) -> None:
    found, said = tried(READERS[reader], written(tmp_path, [*OTHERS[reader], *GOOD[reader]]))
    assert not said
    assert len(found) >= len(OTHERS[reader]) + len(GOOD[reader])


@pytest.mark.parametrize("reader", READERS)
@given(data=st.data())
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_row_is_records_or_one_line(reader: str, data: st.DataObject, tmp_path: Path) -> None:
    path = written(tmp_path, [*OTHERS[reader], data.draw(changed(reader))])
    found, said = tried(READERS[reader], path)
    assert (said == "") or said.startswith(str(path))
    assert said.isprintable()
    for messages in found:
        assert plain(messages) == messages  # role and text alone
        "".join(message["content"] for message in messages).encode()


def written(folder: Path, rows: list[Any]) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def tried(reader: Any, path: Path) -> tuple[list[list[dict[str, str]]], str]:
    try:
        return reader(path), ""
    except UserError as error:
        return [], str(error)


def test_every_form(tmp_path: Path) -> None:
    rows = [{"a": 1, "b": {"c": None, "d": [None, {"e": "é\u2028"}]}}, {"a": None, "b": {"c": 2, "d": []}}]
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).replace("\n", "\n\n \n")
    (tmp_path / "r.jsonl").write_text(lines + "\n\n", encoding="utf-8")
    assert list(read_rows(tmp_path / "r.jsonl", "rows")) == [(1, rows[0]), (4, rows[1])]
    (tmp_path / "r.JSONL.GZ").write_bytes(gzip.compress(lines.encode()))
    assert list(read_rows(tmp_path / "r.JSONL.GZ", "rows")) == [(1, rows[0]), (4, rows[1])]
    (tmp_path / "r.json").write_text(" \n" + json.dumps(rows, indent=2))
    assert list(read_rows(tmp_path / "r.json", "rows")) == [(1, rows[0]), (2, rows[1])]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "r.parquet")
    assert list(read_rows(tmp_path / "r.parquet", "rows")) == [
        (1, {"a": 1, "b": {"d": [None, {"e": "é\u2028"}]}}),
        (2, {"b": {"c": 2, "d": []}}),
    ]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for name, content, said in [
        ("a.jsonl", b"[" * 100_000, "a.jsonl: not valid JSON"),
        ("a.json", b"[1, 2", "a.json: not valid JSON"),
        ("a.json.gz", b"no gzip", "a.json.gz: not a whole gzip file"),
        ("a.parquet", b"", "a.parquet: not a whole Parquet file"),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=said) as raised:
            list(read_rows(tmp_path / name, "rows"))
        assert "\n" not in str(raised.value)
    with pytest.raises(UserError, match=r"no such file; give a .jsonl, .json or .parquet file of rows"):
        list(read_rows(tmp_path / "absent", "rows"))
    with pytest.raises(UserError, match="a folder; give a"):
        list(read_rows(tmp_path, "rows"))
    (tmp_path / "b.jsonl").write_bytes(b"\n" + b'{"a":' * 100_000)
    ((number, problem),) = read_rows(tmp_path / "b.jsonl", "rows")
    assert number == 2
    assert isinstance(problem, ValueError)
