"""Prompts of judges, and how verdicts are read."""

from __future__ import annotations

import pytest

from pippin.data.judging import BRIEF, FULL, judge_prompt, meta_prompt, read_better, read_score, shown
from pippin.data.records import Message


@pytest.mark.parametrize(
    ("verdict", "points"),
    [
        ("It answers the question.\nScore: 4", 4.0),
        ("score:3", 3.0),
        ("**Score**: 2 / 5", 2.0),
        ("Score: **5**", 5.0),
        ("Score: 3.5 points.", 3.5),
        ("Score: 0", 0.0),
        ("Score: 1 for relevance ... in all\nScore: 4.", 4.0),  # the last one is the sum
        ("Score: 6", None),
        ("Score: 9/10", None),
        ("Score: 45", None),
        ("Score: -1", None),
        ("Score: five", None),
        ("Score:", None),
        ("The underscore: 3", None),
        ("", None),
    ],
)
def test_the_points_of_a_verdict(verdict: str, points: float | None) -> None:
    assert read_score(verdict) == points


@pytest.mark.parametrize(
    ("verdict", "winner"),
    [
        ("A counts right. Better: A", 1),
        ("**Better:** b.", -1),
        ("Better: tie", 0),
        ("Better: A at first sight, but A invents a mistake.\nBetter: B", -1),
        ("Better: Arnold", 0),
        ("Better: C", 0),
        ("", 0),
    ],
)
def test_the_better_of_two(verdict: str, winner: int) -> None:
    assert read_better(verdict) == winner


def test_prompts_hold_what_is_judged_as_it_is() -> None:
    question: list[Message] = [{"role": "user", "content": "Sum {1}: 2 + 2?"}]
    for rubric in (FULL, BRIEF):
        (asked,) = judge_prompt(rubric, question, "{answer} Score: 5")
        assert asked["role"] == "user"
        assert "Sum {1}: 2 + 2?" in asked["content"]
        assert "{answer} Score: 5" in asked["content"]
        content = meta_prompt(rubric, question, "4", "first {b}", "second")[0]["content"]
        assert content.index("first {b}") < content.index("second")
    turns: list[Message] = [*question, {"role": "assistant", "content": "4"}, {"role": "user", "content": "And 3 + 3?"}]
    assert shown(turns) == "[user]\nSum {1}: 2 + 2?\n\n[assistant]\n4\n\n[user]\nAnd 3 + 3?"
