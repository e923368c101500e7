"""Opinions of rules, rewards and judges: each rule on its own, levels by margin, a judge asked in both orders."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from pippin.data.prompts import Prompt
from pippin.data.responses import Response
from pippin.evaluate.opinions import Contest, JudgeGrader, Opinion, RewardGrader, RuleGrader, judge_prompt, read_verdict
from pippin.evaluate.verify.verdict import Verdict

PROMPT: Prompt = {
    "id": "p", "split": "train", "messages": [{"role": "user", "content": "How many?"}], "verifier": None, "source": "s"
}  # fmt: skip


def said(text: str, sample: int, stopped: bool = True) -> Response:
    return {
        "prompt": "p", "member": "m", "sample": sample, "response": text, "tokens": 3, "log_prob": -1.0,
        "stopped": stopped,
    }  # fmt: skip


def verdict(correct: bool, extracted: Any = "7", strict: tuple[bool, ...] | None = None) -> Verdict:
    return Verdict(correct, extracted, "", strict, strict)


RIGHT, WRONG = verdict(True), verdict(False)


def rule(a: Response, b: Response, verdicts: tuple[Verdict, Verdict], shorter: bool = True) -> Opinion | str:
    """The opinion, which must be the same one the other way round."""
    table = {("p", "m", a["sample"]): verdicts[0], ("p", "m", b["sample"]): verdicts[1]}
    one, other = RuleGrader(table, shorter).compare([Contest(PROMPT, a, b), Contest(PROMPT, b, a)])
    if isinstance(one, str):
        assert one == other
    else:
        assert other == Opinion(1 - one.better, one.level, one.grades[::-1])
    return one


def test_the_right_one_beats_the_wrong_one() -> None:
    opinion = rule(said("no", 0), said("a long but right answer", 1), (WRONG, RIGHT))
    assert opinion == Opinion(1, "better", ({"truthfulness": 0}, {"truthfulness": 2}))
    for nothing in (verdict(False, None), verdict(False, "")):
        assert rule(said("no", 0), said("yes", 1), (nothing, RIGHT))[:2] == (1, "significantly better")
    cut = rule(said("7", 0), said("7 and so o", 1, stopped=False), (RIGHT, RIGHT))
    assert cut == Opinion(
        0, "significantly better", ({"truthfulness": 2}, {"truthfulness": 0, "conciseness": 0})
    )  # fmt: skip


def test_of_two_right_ones_the_shorter_is_better() -> None:
    assert rule(said("1234", 0), said("12345", 1), (RIGHT, RIGHT)) == Opinion(
        0, "slightly better", ({"truthfulness": 2, "conciseness": 2}, {"truthfulness": 2, "conciseness": 2})
    )
    close = rule(said("1" * 40, 0), said("1" * 41, 1), (RIGHT, RIGHT))
    assert close[:2] == (0, "negligibly better")
    grades = rule(said("1", 0), said("1 1", 1), (RIGHT, RIGHT))
    assert isinstance(grades, Opinion)
    assert [grade["conciseness"] for grade in grades.grades] == [2, 0]
    assert rule(said("1", 0), said("2", 1), (RIGHT, RIGHT)) == "both are right"
    assert rule(said("1", 0), said("123", 1), (RIGHT, RIGHT), shorter=False) == "both are right"


def test_of_two_wrong_ones_the_one_that_follows_more_is_better() -> None:
    assert rule(said("1", 0), said("2", 1), (WRONG, WRONG)) == "both are wrong"
    some, none = verdict(False, strict=(True, False)), verdict(False, strict=(False, False))
    assert rule(said("1", 0), said("2", 1), (none, some)) == Opinion(
        1, "slightly better", ({"instruction_following": 0}, {"instruction_following": 1})
    )
    assert rule(said("1", 0), said("2", 1, stopped=False), (none, some)) == "both are wrong"
    both = verdict(True, strict=(True, True))
    opinion = rule(said("1", 0), said("2", 1), (both, some))
    assert isinstance(opinion, Opinion)
    assert [grade["instruction_following"] for grade in opinion.grades] == [2, 1]


@pytest.mark.parametrize(
    ("confidence", "level"),
    [(0.97, "significantly better"), (0.901, "significantly better"), (0.899, "better"), (0.81, "better"),
     (0.79, "slightly better"), (0.71, "slightly better"), (0.69, "negligibly better"), (0.61, "negligibly better"),
     (0.59, None), (0.5, None)],
)  # fmt: skip
def test_a_margin_is_a_level(confidence: float, level: str | None) -> None:
    margin = math.log(confidence / (1 - confidence))
    grader = RewardGrader({("p", "m", 0): 3.0, ("p", "m", 1): 3.0 - margin}, "r")
    a, b = said("a", 0), said("b", 1)
    one, other = grader.compare([Contest(PROMPT, a, b), Contest(PROMPT, b, a)])
    if level is None:
        assert one == other == "the rewards are alike"
    else:
        assert one == Opinion(0, level)
        assert other == Opinion(1, level)


class Scripted:
    """A writer that says what it is told, for the two orders of each contest."""

    name = "script"

    def __init__(self, *texts: str) -> None:
        self.texts = texts
        self.asked: list[Sequence[Mapping[str, object]]] = []

    def write(
        self, conversations: Sequence[Sequence[Mapping[str, object]]], *, n: int = 1, max_tokens: int,
        temperature: float = 1.0, seed: int = 0,
    ) -> list[list[str]]:  # fmt: skip
        assert (n, temperature) == (1, 0.0)
        self.asked += conversations
        return [[text] for text in self.texts]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("Better: A", "Better: B", Opinion(0, "better")),
        ("Better: B, significantly", "it is clear. **Better:** A, slightly.", Opinion(1, "slightly better")),
        ("Better: A, negligibly", "Better: B, significantly", Opinion(0, "negligibly better")),
        ("Better: A", "Better: A", "the judge contradicts itself when the order changes"),
        ("Better: A", "Better: tie", "the judge contradicts itself when the order changes"),
        ("Better: tie", "Better: tie", "the judge finds them alike"),
        ("Better: A", "A is best", "a judgement could not be read"),
        ("", "Better: B", "a judgement could not be read"),
    ],
)
def test_a_judge_is_asked_in_both_orders(first: str, second: str, expected: Opinion | str) -> None:
    writer = Scripted(first, second)
    grader = JudgeGrader(writer)
    contest = Contest(PROMPT, said("seven", 0), said("eight", 1))
    assert grader.compare([contest]) == [expected]
    assert grader.name == "judge script"
    texts = [str(conversation[0]["content"]) for conversation in writer.asked]
    assert texts[0].index("seven") < texts[0].index("eight")
    assert texts[1].index("eight") < texts[1].index("seven")
    assert texts[0].replace("seven", "*").replace("eight", "seven").replace("*", "eight") == texts[1]


def test_the_last_verdict_counts() -> None:
    assert read_verdict("Better: A?\nNo.\nBetter: B, slightly") == ("b", "slightly better")
    assert read_verdict("The better one: A") is None
    assert "How many?" in judge_prompt(Contest(PROMPT, said("x {a}", 0), said("{prompt}", 1)))[0]["content"]
