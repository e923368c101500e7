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
    said = judgement(LIST, "fig owl pear", taken="owl fig pear")
    assert said == "owl fig 0 fig owl 0 pear pear 1 11010 Score: 3"
    assert read_score(said) == 3.0
    assert judgement(SUM, "4").startswith("4 4 1 7 - 0 ")
    assert parts("47") == ["4", "7"]
    assert parts("4 7") == ["4", "7"]
    assert parts("fig") == ["fig"]


def test_judgements_are_of_the_answer_that_is_shown() -> None:
    right = 0
    for index in range(300):
        asked, said = conversation("judge", 0, index, "train")
        answer = asked["content"].split("\nAnswer: ")[1].split("\n")[0]
        *seen, marks, _, score = said["content"].split()
        expected, given, same = (seen[k::3] for k in range(3))
        assert [part for part in given if part != "-"] == parts(answer)
        assert same == [str(int(e == g)) for e, g in zip(expected, given, strict=True)]
        assert score == str(sum(map(int, marks)))
        assert (marks == "11111") == ("0" not in same)
        right += marks == "11111"
    assert 0.3 < right / 300 < 0.6


def test_neither_place_is_better_and_ties_are_ties() -> None:
    said: Counter[int] = Counter()
    for index in range(600):
        asked, answer = conversation("meta", 0, index, "train")
        shown = asked["content"].split("\n")
        a, b = (line.split(": ", 1)[1] for line in shown[-3:-1])
        assert a != b
        said[read_better(answer["content"])] += 1
        if a.split()[-3] == b.split()[-3]:
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
