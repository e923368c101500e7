"""Exercises in judging: points by hand, labels that are true, nothing held out in training."""

from __future__ import annotations

from collections import Counter

import pytest

from pippin.data.judging import read_better, read_score
from pippin.data.world_judging import TASKS, conversation, judgement, parts, points
from pippin.data.world_tasks import Exercise

LIST = Exercise("Sort these words: pear fig owl", "", "fig owl pear", "words", "fig owl pear")
SUM = Exercise("What is 40 + 7?", "", "47", "sum", "7+40")


@pytest.mark.parametrize(
    ("asked", "answer", "marks"),
    [
        (LIST, "fig owl pear", [1, 1, 1, 1, 1]),
        (LIST, "owl fig pear", [1, 1, 0, 1, 0]),
        (LIST, "fig owl", [1, 0, 1, 0, 0]),
        (LIST, "fig hat pear", [0, 1, 1, 1, 0]),
        (LIST, "7", [0, 0, 0, 0, 0]),
        (LIST, "", [0, 0, 0, 0, 0]),
        (SUM, "47", [1, 1, 1, 1, 1]),
        (SUM, "74", [1, 1, 0, 0, 0]),
        (SUM, "407", [1, 0, 1, 1, 0]),
        (SUM, "fig", [0, 0, 0, 0, 0]),
    ],
)
def test_points_by_hand(asked: Exercise, answer: str, marks: list[int]) -> None:
    assert points(asked, answer) == marks


def test_marks_follow_from_what_is_taken_for_right() -> None:
    assert points(LIST, "owl fig pear", taken="owl fig pear") == [1, 1, 1, 1, 1]
    assert points(LIST, "fig owl pear", taken="owl fig pear") == [1, 1, 0, 1, 0]
    assert read_score(judgement("owl fig pear", [1, 1, 0, 1, 0])) == 3.0
    assert parts("47") == ["4", "7"]
    assert parts("4 7") == ["4", "7"]
    assert parts("fig") == ["fig"]


def test_judgements_are_of_the_answer_that_is_shown() -> None:
    right = 0
    for index in range(300):
        asked, said = conversation("judge", 0, index, "train")
        answer = asked["content"].split("\nAnswer: ")[1].split("\n")[0]
        taken, marks, _, score = said["content"].rsplit(" ", 3)
        assert score == str(sum(map(int, marks)))
        assert (marks == "11111") == (answer == taken)
        right += answer == taken
    assert 0.3 < right / 300 < 0.6


def test_neither_place_is_better_and_ties_are_ties() -> None:
    said: Counter[int] = Counter()
    for index in range(600):
        asked, answer = conversation("meta", 0, index, "train")
        shown = asked["content"].split("\n")
        a, b = (line.split(": ", 1)[1] for line in shown[-3:-1])
        assert a != b
        said[read_better(answer["content"])] += 1
        if a.split(" Score")[0].rsplit(" ", 1)[1] == b.split(" Score")[0].rsplit(" ", 1)[1]:
            assert answer["content"] == "Better: tie"  # the same marks
    assert abs(said[1] - said[-1]) < 100
    assert said[0] > 60


def test_the_held_out_side_is_another() -> None:
    for part in ("act", "judge", "meta"):
        sides = {
            split: {conversation(part, 0, i, split)[0]["content"].split("\n")[0] for i in range(200)}
            for split in ("train", "heldout")
        }
        assert not sides["train"] & sides["heldout"]
    assert conversation("act", 0, 5, "train") == conversation("act", 0, 5, "train")
    assert conversation("act", 1, 5, "train") != conversation("act", 0, 5, "train")
    assert len(TASKS) == 3
    with pytest.raises(ValueError, match="part 'sing'"):
        conversation("sing", 0, 0, "train")
