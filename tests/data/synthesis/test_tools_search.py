"""BM25 against a direct evaluation of its formula; the corpora it reads; the tools that really run."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pippin.data.corpus.schema import DOCUMENTS
from pippin.data.corpus.shards import Table
from pippin.data.synthesis.tools_notes import make_inns, notes_of
from pippin.data.synthesis.tools_real import PythonTool, SearchTool
from pippin.data.synthesis.tools_search import Index, Passage, read_texts
from pippin.data.synthesis.tools_steps import with_python, with_search
from pippin.data.words import normalise
from pippin.errors import UserError


def brute_force(texts: list[str], query: str, k1: float, b: float) -> list[float]:
    """The formula, word by word and text by text."""
    split = [normalise(text).split() for text in texts]
    mean = sum(map(len, split)) / len(split)
    scores = []
    for words in split:
        score = 0.0
        for word in normalise(query).split():
            n = sum(word in other for other in split)
            idf = math.log(1 + (len(split) - n + 0.5) / (n + 0.5))
            f = words.count(word)
            if f:
                score += idf * f * (k1 + 1) / (f + k1 * (1 - b + b * len(words) / mean))
        scores.append(score)
    return scores


WORDS = st.lists(st.sampled_from(["red", "Blue,", "green", "a", "b!", "ferry", "inn"]), max_size=12).map(" ".join)


@given(st.lists(WORDS, min_size=1, max_size=8), WORDS, st.floats(0.1, 3), st.floats(0, 1))
def test_scores_are_those_of_the_formula(texts: list[str], query: str, k1: float, b: float) -> None:
    texts = [*texts, "one more"]
    expected = brute_force(texts, query, k1, b)
    found = Index(texts, k1, b).search(query, len(texts))
    assert {hit.number for hit in found} == {i for i, score in enumerate(expected) if score > 0}
    for hit in found:
        assert hit.score == pytest.approx(expected[hit.number], rel=1e-12)
    order = [(-hit.score, hit.number) for hit in found]
    assert order == sorted(order)


def test_the_best_k_in_order_and_nothing_without_a_word_of_the_query() -> None:
    index = Index(["tea tea", "tea and milk", "milk", "bread"])
    assert [hit.number for hit in index.search("Tea!", 2)] == [0, 1]
    assert [hit.number for hit in index.search("milk tea", 5)] == [1, 0, 2]
    assert index.search("honey") == []
    assert [hit.number for hit in Index(["same", "other", "same"]).search("same")] == [0, 2]
    with pytest.raises(UserError, match="no words"):
        Index(["", "!"])


def test_a_folder_is_read_by_names_and_strictly(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "x.txt").write_text("no")
    (tmp_path / "b" / "two.md").write_text("zwei é", encoding="utf-8")
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "c.bin").write_bytes(b"\0")
    assert read_texts(tmp_path) == [Passage("a.txt", "one"), Passage("b/two.md", "zwei é")]
    (tmp_path / "d.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"d\.txt: byte 1: not UTF-8"):
        read_texts(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        read_texts(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="has no texts"):
        read_texts(tmp_path / "empty")


def test_the_notes_are_found() -> None:
    inns = make_inns(0, 100)
    assert len({inn.name for inn in inns}) == len({inn.village for inn in inns}) == 100
    search = SearchTool(notes_of(inns))
    for inn in inns:
        assert inn.note in [hit["name"] for hit in json.loads(search.run(inn.name))]
        assert json.loads(search.run(f"inn {inn.village}"))[0]["name"] == inn.village_note
    assert json.loads(search.run("zebra")) == []


def test_the_documents_of_a_curated_corpus_are_read(tmp_path: Path) -> None:
    row = dict.fromkeys(DOCUMENTS.names, "")
    for source, texts in (("b", ("one", "two")), ("a", ("three",))):
        with Table(tmp_path / source, "0", DOCUMENTS) as table:
            for text in texts:
                split = "heldout" if text == "two" else "train"
                table.add(row | {"id": f"id of {text}", "source": source, "text": text, "split": split})
    assert read_texts(tmp_path) == [Passage("id of three", "three"), Passage("id of one", "one")]


@pytest.fixture(scope="module")
def python() -> PythonTool:
    try:
        return PythonTool()
    except UserError as error:
        pytest.skip(str(error))


def test_the_python_tool_says_what_is_printed_and_what_went_wrong(python: PythonTool) -> None:
    assert python.run("print(6 * 7)") == "42"
    assert python.run("print(1)\n1 / 0") == "1\nZeroDivisionError: division by zero"
    assert len(python.run("print('x' * 50_000)")) == 2_000


def test_conversations_with_programs_end_with_the_known_answer(python: PythonTool) -> None:
    inns = make_inns(0, 100)
    search = SearchTool(notes_of(inns))
    kinds = set()
    for index in range(12):
        of = with_python(0, index, python) if index < 6 else with_search(0, index, inns, search, python)
        assert of is not None
        assert str(of.messages[-1]["content"]).rstrip(".").endswith(f" {of.answer}")
        kinds.add(tuple(c["function"]["name"] for m in of.messages for c in m.get("tool_calls", ())))
        results = [str(m["content"]) for m in of.messages if m["role"] == "tool"]
        assert any(of.answer in result for result in results)
    assert len(kinds) >= 3


def test_a_wrong_output_or_a_note_that_is_not_found_drops_the_conversation(python: PythonTool) -> None:
    class Wrong(PythonTool):
        def __init__(self) -> None: ...

        def run(self, code: str) -> str:
            return "17"

    inns = make_inns(0, 100)
    nothing = SearchTool([Passage("x", "something else")])
    assert all(with_python(0, index, Wrong()) is None for index in range(5))
    assert all(with_search(0, index, inns, nothing, python) is None for index in range(5))


def test_without_isolation_the_python_tool_refuses_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pippin.safety.sandbox.shutil.which", lambda name: None)
    with pytest.raises(UserError) as caught:
        PythonTool()
    assert "\n" not in str(caught.value) and "not run without isolation" in str(caught.value)
