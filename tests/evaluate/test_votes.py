"""Votes of people: what they are shown, and what is wrong with a file of votes, to its field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pippin.data.prompts import Prompt
from pippin.data.responses import Response
from pippin.errors import UserError
from pippin.evaluate.opinions import Contest, Opinion
from pippin.evaluate.votes import TIE, Vote, read_votes, shown_pairs


def contest(number: int) -> Contest:
    prompt: Prompt = {
        "id": f"p{number}", "split": "train", "messages": [{"role": "user", "content": f"Say {number}"}],
        "verifier": None, "source": "s",
    }  # fmt: skip
    a, b = (
        Response(
            prompt=f"p{number}", member=f"member-{side}", sample=0, response=f"{side} {number}", tokens=2,
            log_prob=-1.0, stopped=True,
        )
        for side in "ab"
    )  # fmt: skip
    return Contest(prompt, a, b)


CONTESTS = [contest(n) for n in range(3)]
SHOWN = shown_pairs(CONTESTS)
IDS = [pair["id"] for pair in SHOWN["pairs"]]


def votes(*given: Any, **change: Any) -> dict[str, Any]:
    return {"format_version": 1, "pairs": SHOWN["digest"], "by": "Ada", "votes": list(given)} | change


def vote(**change: Any) -> dict[str, Any]:
    return {"pair": IDS[0], "better": "a", "level": None, "grades": None} | change


def test_people_see_texts_and_nothing_else() -> None:
    assert [set(pair) for pair in SHOWN["pairs"]] == [{"id", "prompt", "a", "b"}] * 3
    assert "member" not in json.dumps(SHOWN)
    assert len(set(IDS)) == 3
    exchanged = shown_pairs([CONTESTS[0]._replace(a=CONTESTS[0].b, b=CONTESTS[0].a), *CONTESTS[1:]])
    assert exchanged["digest"] != SHOWN["digest"]


def test_votes_are_opinions(tmp_path: Path) -> None:
    path = tmp_path / "votes.json"
    given = [
        vote(pair=IDS[2], better="b", level="slightly better", grades={"a": {"truthfulness": 0}, "b": None}),
        vote(better="tie"),
    ]
    path.write_text(json.dumps(votes(*given)))
    assert read_votes(path, CONTESTS) == [
        Vote(2, Opinion(1, "slightly better", ({"truthfulness": 0}, {})), "Ada"), Vote(0, TIE, "Ada")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "match"),
    [
        ([], "not a file of votes"),
        (votes(vote(), format_version=2), "format_version: value 2: must be 1"),
        (votes(vote(), pairs="0"), "votes are on other pairs than those of this stage"),
        (votes(vote(), by=" "), "by: value ' ': must be who voted"),
        (votes(vote(), votes={}), "votes: value '{}': must be a list"),
        (votes(vote(), 3), r"votes\[1\]: value '3': must be an object"),
        (votes(vote(pair="x")), r"votes\[0\].pair: value 'x': there is no such pair"),
        (votes(vote(better=None)), r"votes\[0\].better: value 'None': must be a, b or tie"),
        (votes(vote(level="good")), r"votes\[0\].level: value 'good': must be one of significantly better"),
        (votes(vote(grades=[1])), r"votes\[0\].grades: value '\[1\]': must be an object"),
        (votes(vote(grades={"b": 1})), r"votes\[0\].grades.b: value '1': must be an object of grades"),
        (votes(vote(grades={"b": {"wit": 1}})), "unknown property 'wit'"),
        (votes(vote(grades={"a": {"harmlessness": True}})), r"grades.a.harmlessness: value 'True': must be 0, 1 or 2"),
        (votes(), "holds no vote"),
    ],
)
def test_what_is_wrong_with_votes_is_one_line(tmp_path: Path, value: Any, match: str) -> None:
    path = tmp_path / "votes.json"
    path.write_text(json.dumps(value))
    with pytest.raises(UserError, match=match) as raised:
        read_votes(path, CONTESTS)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_folder_without_votes_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no .json file of votes"):
        read_votes(tmp_path, CONTESTS)
