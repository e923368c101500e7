"""Files of records: whatever JSON stands in them, every reader gives records or one line, and never half of both."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
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
MESSAGE = st.fixed_dictionaries(
    {},
    optional={
        "role": WORDS,
        "content": SCALARS,
        "from": WORDS,
        "value": SCALARS,
        "tool_calls": ANYTHING,
        "tool_call_id": SCALARS,
    },
)
ROWS = ANYTHING | st.fixed_dictionaries(
    {},
    optional={
        name: st.lists(MESSAGE, max_size=3) | ANYTHING
        for name in (
            "messages",
            "conversations",
            "prompt",
            "chosen",
            "rejected",
            "completions",
            "tools",
            "verifier",
            "split",
        )
    },
)
READERS: dict[str, Any] = {
    "conversations": lambda path: [row["messages"] for row in read_conversations(path, 0.5)[0]],
    "preferences": lambda path: [
        [*row["prompt"], {"role": "assistant", "content": row["chosen"]}] for row in read_preferences(path, 0.5).pairs
    ],
    "prompts": lambda path: [row["messages"] for row in read_prompts(path)],
}


@pytest.mark.parametrize("reader", READERS)
@given(row=ROWS)
@example(
    row={
        "messages": [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": None, "tool_calls": [{"name": "f", "arguments": {}}]},
        ]
    }
)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_row_is_records_or_one_line(reader: str, row: Any, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n")
    found, said = tried(READERS[reader], path)
    assert (said == "") or said.startswith(str(path))
    assert said.isprintable()
    for messages in found:
        assert plain(messages) == messages  # role and text alone
        "".join(message["content"] for message in messages).encode()


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
    (number, problem), = read_rows(_written(tmp_path / "b.jsonl", b"\n" + b'{"a":' * 100_000), "rows")  # fmt: skip
    assert number == 2
    assert isinstance(problem, ValueError)


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path
