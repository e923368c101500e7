"""Conversations against evaluation prompts: n-grams within a message, and prompts too short for n-grams as a whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pippin.data.decontaminate.benchmarks import Benchmark
from pippin.data.decontaminate.index import Mode
from pippin.data.decontaminate.messages import contaminated

LONG = "A farmer sells twelve brown eggs every morning at the market by the river."
ITEMS = [LONG, "What is 3 + 4?", "Sort these words: pear, apple, fig", "Name it"]


@pytest.fixture
def benchmark(tmp_path: Path) -> Benchmark:
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps({"question": text}) + "\n" for text in ITEMS))
    return Benchmark("questions", str(path))


def found(benchmark: Benchmark, tmp_path: Path, conversations: list[list[str]], mode: Mode = "small") -> dict[int, str]:
    return contaminated(conversations, [benchmark], tmp_path / "index", mode)


def test_what_leaks_is_found_and_what_does_not_is_kept(benchmark: Benchmark, tmp_path: Path) -> None:
    conversations = [
        ["Tell me: a farmer sells twelve brown eggs every morning at the fair.", "Fine."],  # ten words on end
        ["what is 3 + 4", "7"],  # numbers alone: no n-gram counts in mode "small"
        ["Name it!", "No."],  # two words: too short for any n-gram
        ["Sort these words: plum, fig", "fig plum"],
        ["A farmer sells twelve", "brown eggs every morning"],  # only across messages
        ["What is 3 + 5?", "8"],
        ["Please continue.", f"Sure: {LONG}"],  # in an answer
    ]
    colliding = found(benchmark, tmp_path, conversations)
    assert sorted(colliding) == [0, 1, 2, 6]
    assert colliding[0] == "questions: a farmer sells twelve brown eggs every morning at the"
    assert colliding[1] == "questions: what is 3 4 (all of it)"
    assert colliding[2] == "questions: name it (all of it)"


def test_modes_differ_where_a_template_is_shared(benchmark: Benchmark, tmp_path: Path) -> None:
    template = [
        ["Sort these words: pear, apple, plum", "apple pear plum"],
        ["Sort these words: red, green", "green red"],
    ]
    assert sorted(found(benchmark, tmp_path, template)) == [0]  # five of its six words
    assert sorted(found(benchmark, tmp_path, template, "own")) == []  # all six, or none
    assert sorted(found(benchmark, tmp_path, [["Sort these words: pear, apple, fig", ""]], "own")) == [0]
