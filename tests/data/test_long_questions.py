"""Rows with questions: right by construction, checked by a search that is itself checked with mistakes put in."""

from __future__ import annotations

from itertools import cycle

import pytest

from pippin.data import long_questions, world
from pippin.data.long_questions import KEYS, LongQuestions, Row, leaks, problems, row
from pippin.data.world_words import Draw, heldout
from pippin.errors import UserError

DOCUMENTS = [world.story_document(0, i)["text"] for i in range(60)] + [
    world.task_document(0, i)["text"] for i in range(60)
]


def encode(text: str) -> list[int]:
    """A token for each byte: as many as any tokenizer could have."""
    return list(text.encode())


def text_of(made: Row) -> str:
    return bytes(made.ids).decode()


def asked_last(text: str) -> str:
    """The key of the last question."""
    return " ".join(text.rsplit("Recall: ", 1)[1].split()[:2])


def made(seed: int, split: str = "train", length: int = 2_000, keys: int = 5, questions: int = 5) -> Row:
    documents = cycle(DOCUMENTS[seed % 100 :] + DOCUMENTS)
    return row(Draw("test", seed), split, documents, encode, length, keys, questions)


def test_rows_fill_their_length_and_their_questions_are_right() -> None:
    for seed in range(200):
        length = (900, 2_000, 5_000)[seed % 3]
        found = made(seed, length=length, keys=1 + seed % 6, questions=1 + seed % 6)
        assert len(found.ids) == length - 1
        text = text_of(found)
        assert problems(text) == []
        start, stop = found.answers[-1]
        assert sum(found.loss_mask) == sum(stop - start for start, stop in found.answers)
        *key_words, word = text.rsplit("Recall: ", 1)[1].split()
        key = " ".join(key_words)
        assert text[start:stop] == f" {word}"
        assert text.count(f"Code: {key} {word}") == 1
        at = text.index(f"Code: {key} ")
        end_of_its_document = text.index("\n\n", at) + 2
        assert found.distance == start - end_of_its_document


def test_facts_stand_alone_where_no_document_fits() -> None:
    text = text_of(row(Draw("z"), "train", cycle(["word " * 2_000]), encode, 400, 3, 3))
    assert problems(text) == []
    first, own, *_ = text.split("\n\n")
    assert "Code" not in first
    assert own.count("Code: ") == 3


def test_evidence_lies_in_different_documents_and_at_all_depths() -> None:
    depths = [text_of(made(seed, keys=1, questions=1)).index("Code") / 2_000 for seed in range(150)]
    assert min(depths) < 0.2
    assert max(depths) > 0.8
    assert sum(depth < 0.5 for depth in depths) in range(45, 105)


def test_held_out_keys_are_asked_on_one_side_only() -> None:
    for seed in range(60):
        assert not leaks(text_of(made(seed)))
        text = text_of(made(seed, split="heldout", keys=4, questions=1))
        asked = asked_last(text)
        assert heldout("code", asked)
        assert problems(text) == []
    share = sum(heldout("code", key) for key in KEYS) / len(KEYS)
    assert 0.04 < share < 0.2


def test_the_checker_sees_mistakes() -> None:
    text = text_of(made(1, keys=3, questions=2))
    assert problems(text) == []
    key = asked_last(text)
    at = text.index(f"Code: {key} ")
    sentence = text[at : text.index(".", at) + 1]
    wrong = {
        "twice": sentence + text,
        "also with another word": f"Code: {key} 99999.\n\n" + text,
        "missing": text.replace(sentence, "", 1),
        "another answer": text.replace(f"Recall: {key}", f"Recall: {key} not", 1),
        "in the questions only": text[text.index("Recall: ") :],
        "asked twice": text + "\n" + text[text.rindex("Recall: ") :],
        "no question": text[: text.index("Recall: ")],
    }
    for name, bad in wrong.items():
        assert problems(bad), name


def test_rows_are_the_same_for_the_same_seed() -> None:
    spec = LongQuestions(length=1_500, train=3, heldout=2, keys=4)
    first = [list(spec.rows("train", cycle(DOCUMENTS), encode)) for _ in range(2)]
    assert first[0] == first[1]
    assert len(list(spec.rows("heldout", cycle(DOCUMENTS), encode))) == 2
    other = LongQuestions(length=1_500, train=3, heldout=2, keys=4, seed=1)
    assert list(other.rows("train", cycle(DOCUMENTS), encode)) != first[0]


def test_what_does_not_fit_is_said() -> None:
    with pytest.raises(UserError, match=r"too short.*take fewer keys or longer rows"):
        list(LongQuestions(length=300, train=5, heldout=1, keys=30).rows("train", cycle(DOCUMENTS), encode))
    with pytest.raises(UserError, match="keys=99"):
        LongQuestions(length=200, train=1, heldout=1, keys=99)
    with pytest.raises(ValueError, match="speak of codes"):
        row(Draw("x"), "train", cycle(["Code: red ball 47."]), encode, 2_000, 1, 1)
    with pytest.raises(ValueError, match="questions"):
        made(0, keys=1, questions=2)


def test_documents_that_speak_of_codes_are_passed_over() -> None:
    documents = cycle(["Code: red ball 47. And more.", *DOCUMENTS[:5]])
    text = text_of(row(Draw("y"), "train", documents, encode, 3_000, 2, 2))
    assert text.count("Code") == 2
    assert long_questions.MOST_PASSED >= 100
