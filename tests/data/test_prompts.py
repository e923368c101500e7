"""Prompts come back as they were written, sides and ids are unique, and what is wrong is said with line and field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pippin.data.chat import FUNCTIONS
from pippin.data.prompts import Prompt, read_prompts, write_prompts
from pippin.errors import UserError
from pippin.evaluate.verify.prompts import Verifier


def row(number: int = 0, **others: Any) -> dict[str, Any]:
    question = {"role": "user", "content": f"What is {number} and {number}? «×»"}
    return {"messages": [question], "verifier": {"kind": "exact", "answer": str(2 * number)}} | others


FUNCTION = {"name": "area", "parameters": {"type": "dict", "properties": {"side": {"type": "integer"}}}}
BFCL = {"id": "simple_0", "question": [[{"role": "user", "content": "Go."}]], "function": [FUNCTION]}


def write(path: Path, *values: object) -> Path:
    path.write_text("".join((v if isinstance(v, str) else json.dumps(v)) + "\n" for v in values), encoding="utf-8")
    return path


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    prompts: list[Prompt] = [
        {
            "id": f"p{n}",
            "split": "train" if n % 3 else "heldout",
            "messages": [{"role": "user", "content": f"{n}\n\u2028"}],
            "verifier": None if n % 2 else {"kind": "gsm8k", "answer": f"#### {n}"},
            "source": "mine",
        }
        for n in range(9)
    ]
    write_prompts(tmp_path / "p.jsonl", prompts)
    assert read_prompts(tmp_path / "p.jsonl") == prompts
    assert read_prompts(tmp_path / "p.jsonl", "heldout") == prompts[::3]
    pq.write_table(pa.Table.from_pylist(prompts), tmp_path / "p.parquet")
    assert read_prompts(tmp_path / "p.parquet") == prompts


def test_what_is_not_given_follows_from_the_file_and_the_messages(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", *(row(n) for n in range(300)))
    prompts = read_prompts(path)
    assert (prompts[4]["id"], prompts[4]["source"]) == ("p.jsonl:5", "p.jsonl")
    heldout = read_prompts(path, "heldout")
    assert 3 < len(heldout) < 40
    assert len(read_prompts(path, "train")) + len(heldout) == 300
    again = read_prompts(write(tmp_path / "q.jsonl", *(row(n, verifier=None) for n in range(300))))
    assert [p["split"] for p in again] == [p["split"] for p in prompts]


def test_rows_of_the_public_benchmarks(tmp_path: Path) -> None:
    humaneval = {"task_id": "HumanEval/0", "prompt": "def f():", "test": "def check(f): ...", "entry_point": "f"}
    instructions: dict[str, Any] = {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    path = write(
        tmp_path / "p.jsonl",
        {"question": "How many?", "answer": "#### 7"},
        {"problem": "How many?!", "solution": r"\boxed{7}"},
        {"problem": "How many??", "answer": "7", "solution": r"\boxed{8}"},
        {"key": 1000, "prompt": "Write."} | instructions,
        humaneval | {"canonical_solution": "    return 1"},
        BFCL | {"ground_truth": [{"area": {"side": [3]}}]},
        BFCL | {"id": "irrelevant", "question": [[{"role": "user", "content": "Hi."}]]},
    )
    prompts = read_prompts(path)
    assert [prompt["verifier"] for prompt in prompts] == [
        {"kind": "gsm8k", "answer": "#### 7"},
        {"kind": "math", "answer": r"\boxed{7}"},
        {"kind": "math", "answer": "7"},
        {"kind": "ifeval"} | instructions,
        {"kind": "code"} | {name: humaneval[name] for name in ("prompt", "test", "entry_point")},
        {"kind": "tools", "function": [FUNCTION], "ground_truth": [{"area": {"side": [3]}}]},
        {"kind": "tools", "function": [FUNCTION]},
    ]
    assert [p["messages"][-1]["content"] for p in prompts[:5]] == [
        "How many?",
        "How many?!",
        "How many??",
        "Write.",
        "def f():",
    ]
    assert prompts[5]["messages"] == [
        {"role": "system", "content": f"{FUNCTIONS}\n{json.dumps(FUNCTION)}"},
        {"role": "user", "content": "Go."},
    ]
    assert [prompt["id"] for prompt in prompts[3:6]] == ["p.jsonl:4", "HumanEval/0", "simple_0"]
    write_prompts(tmp_path / "again.jsonl", prompts)
    assert read_prompts(tmp_path / "again.jsonl") == prompts


def test_published_benchmarks(test_data: Path) -> None:
    gsm8k = read_prompts(test_data / "gsm8k" / "train.jsonl.gz")
    assert len(gsm8k) == 7473
    with Verifier() as judge:
        assert all(judge.check(p, p["verifier"]["answer"]).correct for p in gsm8k[:200] if p["verifier"])
    assert len(read_prompts(test_data / "math" / "train.jsonl.gz")) == 7500


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("{", "not valid JSON"),
        ("3", "value '3': must be an object"),
        (
            {"prompt": "What?", "chosen": 1},
            "fields 'prompt, chosen': fit no known layout; known: messages; question, ans",
        ),
        (row(messages=[]), r"messages: value '\[\]': must be a list of messages, not empty"),
        (row(tools=[{}]), r"tools\[0\]: value '{}': must be a function"),
        ({"question": 3, "answer": "3"}, "question: value '3': must be text"),
        ({"question": "?", "answer": 3}, "verifier.answer: value '3': must be text"),
        (BFCL | {"question": [[], []]}, "question: value .*: must be a list of one turn"),
        (
            row(messages=[{"role": "robot", "content": "a"}]),
            r"messages\[0\].role: value 'robot': must be one of system",
        ),
        (row(messages=[{"role": "assistant", "content": "a"}]), "messages: the last message is of assistant"),
        (row(split="test"), "split: value 'test': must be train or heldout"),
        (row(id=3), "id: value '3': must be text"),
        (row(id="a\nb"), r"id: value 'a\\nb': must be one line of printable text"),
        (row(9, id="twice"), "id: value 'twice': line 1 has it, too"),
        (row(1, split="heldout"), "split: value 'heldout': line 1 has the same messages as 'train'"),
        (row(verifier="exact"), "verifier: value 'exact': must be an object"),
        (row(verifier={"kind": "taste"}), "verifier.kind: value 'taste': must be one of exact"),
        (row(verifier={"kind": ["exact"]}), "verifier.kind: value"),
        (row(verifier={"kind": "exact"}), "verifier.answer: missing: must be text, as kind 'exact' needs it"),
        (row(verifier={"kind": "gsm8k", "answer": 3}), "verifier.answer: value '3': must be text"),
        (row(verifier={"kind": "ifeval", "instruction_id_list": []}), "verifier.kwargs: missing: must be a list"),
        (row(verifier={"kind": "code", "test_list": "assert f()"}), "verifier.test_list: value 'assert"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: object, expected: str) -> None:
    path = write(tmp_path / "p.jsonl", row(1, id="twice", split="train"), line, row(2))
    with pytest.raises(UserError, match=rf"p.jsonl:2: {expected}") as raised:
        read_prompts(path)
    assert "\n" not in str(raised.value)


def test_no_prompts(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="absent.jsonl: no such file"):
        read_prompts(tmp_path / "absent.jsonl")
    with pytest.raises(UserError, match=r"p.jsonl: has no prompts"):
        read_prompts(write(tmp_path / "p.jsonl", ""))
    with pytest.raises(UserError, match=r"p.jsonl: has no heldout prompts"):
        read_prompts(write(tmp_path / "p.jsonl", row(split="train")), "heldout")
    with pytest.raises(UserError, match=r"p.jsonl:1: .* \(2 lines have errors\)"):
        read_prompts(write(tmp_path / "p.jsonl", "{", row(), "{"))
