"""The examples of docs/posttraining_data.md are read by the reader each stands for, and become the tokens shown."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from pippin.data.conversations import LAYOUTS, read_conversations
from pippin.data.preferences import GRADES, LEVELS, PROPERTIES, read_preferences
from pippin.data.prompts import KINDS, read_prompts
from pippin.evaluate.verify.prompts import Verifier


@pytest.fixture(scope="module")
def sections(repository: Path) -> dict[str, str]:
    text = (repository / "docs" / "posttraining_data.md").read_text(encoding="utf-8")
    parts = re.split(r"^## (.*)\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def examples(section: str) -> list[dict[str, Any]]:
    return [json.loads(block) for block in re.findall(r"^```json\n(.*?)^```", section, re.MULTILINE | re.DOTALL)]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_conversations(sections: dict[str, str], tmp_path: Path) -> None:
    section = sections["Conversations"]
    rows = examples(section)
    assert {name for name, fields in LAYOUTS.items() for row in rows if set(fields) <= set(row)} == set(LAYOUTS)
    more = [{"instruction": f"{n}", "output": "a"} for n in range(30)]
    records, _ = read_conversations(write(tmp_path / "c.jsonl", [*rows, *more]), 0.5)
    found = [record["messages"] for record in records[: len(rows)]]
    (shown,) = re.findall(r"^```\n(<\|system.*?)\n```", section, re.MULTILINE | re.DOTALL)
    assert shown == "".join(f"<|{message['role']}|>{message['content']}<|end|>" for message in found[2])
    assert [message["content"] for message in found[3]] == ["Name the opposite.\n\nwarm", "cold"]


def test_prompts(sections: dict[str, str], tmp_path: Path) -> None:
    rows = examples(sections["Prompts"])
    own, gsm8k = read_prompts(write(tmp_path / "p.jsonl", rows))
    assert own == rows[0]
    with Verifier() as judge:
        assert judge.check(own, " 5\n").correct
        assert judge.check(gsm8k, "She has 5 apples.").correct
        assert not judge.check(gsm8k, "She has 4 apples.").correct
    for kind in KINDS:
        assert f"\n| `{kind}` |" in sections["Prompts"]


def test_preferences(sections: dict[str, str], tmp_path: Path) -> None:
    rows = examples(sections["Preferences"])
    more = [{"prompt": f"{n}", "chosen": "a", "rejected": "b"} for n in range(30)]
    pairs = read_preferences(write(tmp_path / "p.jsonl", [*rows, *more]), 0.5).pairs[: len(rows)]
    assert [(pair["chosen"], pair["rejected"]) for pair in pairs] == [
        ("Red.", "No."),
        ("Here.", "No."),
        ("Red.", "A dog."),
    ]
    assert [pair["level"] for pair in pairs] == ["better", None, "significantly better"]
    assert pairs[2]["grades"]["chosen"] == {"instruction_following": GRADES - 1, "truthfulness": GRADES - 1}
    for name in (*LEVELS, *PROPERTIES):
        assert f"`{name}`" in sections["Preferences"]
