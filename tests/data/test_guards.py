"""Each rule drops what it is for, and leaves what is like it and right."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pippin.data.guards import RULES, Limits, broken_rules
from pippin.data.records import Message
from pippin.errors import UserError

LIMITS = Limits(min_chars=2, max_chars=400, same_language=True)
QUESTION = "Where did the grey cat sleep last night, and who found it there in the morning?"


def broken(answer: str, question: str = QUESTION, limits: Limits = LIMITS) -> dict[str, str]:
    messages: list[Message] = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return broken_rules(messages, limits)


@pytest.mark.parametrize(
    ("rule", "answer", "evidence"),
    [
        ("no words", " ... !? ", "..."),
        ("short", "x", "1 characters"),
        ("long", "It slept in the barn. " * 30, "characters"),
        ("question again", QUESTION.lower().replace(",", ""), "where did"),
        ("refusal", "I'm sorry, but I can't help with that.", "I'm sorry, but I can't help"),
        ("refusal", "As an AI language model, I have no cats.", "As an AI"),
        ("refusal", "Unfortunately, I cannot assist with this request.", "cannot assist"),
        ("encoding", "It slept in the caf\u00c3\u00a9.", "\u00c3\u00a9 for \u00e9"),
        ("encoding", "It\u00e2\u20ac\u2122s in the barn.", "\u2019"),
        ("encoding", "It slept in the b\ufffdrn.", "U+FFFD at character 18"),
        ("encoding", "It slept\x00 in the barn.", "U+0000"),
        ("repetition", "It slept. " + "the cat sat on the mat and " * 8, "of the words"),
        ("other language", "Die graue Katze schlief in der Scheune, und am Morgen fand sie der alte Bauer dort.", "de"),
    ],
)
def test_a_rule_finds_what_it_is_for(rule: str, answer: str, evidence: str) -> None:
    found = broken(answer)
    assert evidence in found[rule]
    assert len(found[rule]) <= 80
    assert "\n" not in found[rule]
    off = {
        "short": "min_chars", "long": "max_chars", "question again": "echo", "refusal": "refusals",
        "encoding": "broken", "repetition": "max_repeated", "other language": "same_language",
    }  # fmt: skip
    if rule in off:
        value = None if off[rule] in ("min_chars", "max_chars", "max_repeated") else False
        assert rule not in broken(answer, limits=replace(LIMITS, **{off[rule]: value}))


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (QUESTION, "It slept in the barn, and the farmer found it."),
        (QUESTION, "I cannot say who found it, but it slept in the barn."),  # no refusal to do something
        (QUESTION, "Sorry, I misread: it slept in the barn."),
        (QUESTION, "As an AI assistant, I'd be happy to tell you: in the barn. It was not the farmer's."),
        ("Copy: red green blue", "red green blue"),
        ("Tea?", "Tea."),
        ("How do you say good morning to all of my friends in German?", "Guten Morgen, liebe Freunde!"),
        (
            QUESTION,
            "Dans le caf\u00e9 \u00ab Chez Zo\u00e9 \u00bb \u2013 it\u2019s 20\u00b0, said na\u00efve \u00c5sa.",
        ),
        ("Sum up in Chinese.", "\u732b\u5728\u8c37\u4ed3\u91cc\u7761\u89c9\u3002"),
        ("Write a verse.", "Row, row, row your boat, gently down the stream, merrily, merrily, life is but a dream."),
        ("Use a tab and lines.", "a\tb\nc\td"),
    ],
)
def test_what_is_right_is_kept(question: str, answer: str) -> None:
    assert broken(answer, question) == {}


def test_every_answer_of_a_conversation_is_looked_at_and_nothing_else() -> None:
    messages: list[Message] = [
        {"role": "system", "content": "\ufffd"},
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": "I cannot help with that."},
        {"role": "user", "content": "As an AI language model, \x00?"},
        {"role": "assistant", "content": "In the barn."},
    ]
    assert list(broken_rules(messages, LIMITS)) == ["refusal"]
    assert list(broken_rules([*messages[:2], *messages[4:]], LIMITS)) == []
    assert list(broken("\ufffd" * 401)) == ["no words", "long", "encoding"]
    assert set(broken("\ufffd" * 401)) <= set(RULES)


def test_limits_out_of_range_are_one_line() -> None:
    with pytest.raises(UserError, match=r"limits.max_repeated: value -0.1: must be at least 0"):
        Limits(max_repeated=-0.1)
