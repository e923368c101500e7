"""The table of checks names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_test_that_the_table_names_exists() -> None:
    text = (ROOT / "docs/posttraining_checks.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \|(.*)$", text, flags=re.MULTILINE)
    assert [int(number) for number, _ in rows] == [*range(1, 19), 20, 21, 22]
    named: dict[str, set[str]] = {}
    for _, row in rows:
        file = ""
        for path, name in re.findall(r"`(tests/[\w/]+\.py)?::(\w+)`", row):
            file = path or file
            named.setdefault(file, set()).add(name)
    assert len(named) > 15 and sum(map(len, named.values())) > 50
    for file, names in named.items():
        there = set(re.findall(r"^def (test_\w+)", (ROOT / file).read_text(encoding="utf-8"), flags=re.MULTILINE))
        assert names <= there, (file, names - there)
