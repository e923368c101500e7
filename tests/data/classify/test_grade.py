"""The quality filter's chain: a sample is graded, by rules or a model behind a server, and the grades are learnt."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.chat_server import chat_server

from pippin.data.classify import grade as grading
from pippin.data.classify.graders import (
    GRADED_CHARS,
    Message,
    ModelGrader,
    RuleGrader,
    Ungraded,
    ask_endpoint,
    grade_in,
)
from pippin.data.corpus.schema import DOCUMENTS
from pippin.data.endpoint import Endpoint
from pippin.errors import UserError

SUBJECTS = ["river", "engine", "parliament", "bread", "cell", "planet", "bridge", "song", "glacier", "copper"]
VERBS = ["grows", "changes", "moves", "holds", "carries", "breaks", "warms", "turns"]


def prose(rng: random.Random) -> str:
    """Explaining sentences that no one has written before."""
    sentences = []
    for _ in range(8):
        a, b, c = rng.sample(SUBJECTS, 3)
        sentences.append(
            f"The {a} {rng.choice(VERBS)} because the {b} in its {rng.choice(['upper', 'lower', 'older'])} part"
            f" {rng.choice(VERBS)} when it is {rng.choice(['cold', 'wet'])}, and therefore a {c} can be seen there."
        )
    return " ".join(sentences)


def advert(rng: random.Random) -> str:
    """Shop talk."""
    what, now = ["sale", "deals", "cheap", "best price"], ["Buy now", "Click here", "Sign up"]
    return "\n".join(f"{rng.choice(SUBJECTS)} {rng.choice(what)} {rng.choice(now)} $$ 50% >>" for _ in range(25))


def corpus(n: int) -> list[tuple[str, str]]:
    """From eight lines of shop talk to eight sentences of prose, and all between."""
    rng = random.Random(0)
    texts = []
    for i in range(n):
        good = rng.randint(0, 8)
        pieces = prose(rng).split(". ")[:good] + advert(rng).split("\n")[: 8 - good]
        texts.append((f"{i:05}", ".\n".join(pieces)))
    return texts


def shards(folder: Path, rows: list[dict[str, str]], n: int) -> Path:
    folder.mkdir()
    for k in range(n):
        table = pa.Table.from_pylist([dict.fromkeys(DOCUMENTS.names, "") | row for row in rows[k::n]], schema=DOCUMENTS)
        pq.write_table(table, folder / f"{k}.parquet")
    return folder


def test_the_sample_is_the_same_for_any_shards(tmp_path: Path) -> None:
    rows = [
        {"id": f"{i:05}", "text": f"text {i} " + "x" * 5000, "kind": "web" if i % 2 else "code"} for i in range(200)
    ]
    one, three = shards(tmp_path / "one", rows, 1), shards(tmp_path / "three", rows[::-1], 3)
    chosen = grading.sample(one, 20)
    assert chosen == grading.sample(three, 20)
    assert len(chosen) == 20 and all(len(text) == GRADED_CHARS for _, text in chosen)
    assert set(chosen) < set(grading.sample(one, 50)), "a larger sample holds the smaller one"
    assert [id for id, _ in chosen] != [row["id"] for row in rows[:20]]
    web = grading.sample(one, 1000, kinds=("web",))
    assert len(web) == 100 and all(int(id) % 2 for id, _ in web)
    with pytest.raises(UserError, match="has no documents"):
        grading.sample(tmp_path, 5)
    (one / "bad.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(UserError, match="cannot be read as Parquet"):
        grading.sample(one, 5)


def test_rules_grade_writing_above_advertising() -> None:
    rng, grader = random.Random(1), RuleGrader()
    assert min(grader.grade(prose(rng)) for _ in range(20)) >= 3
    assert max(grader.grade(advert(rng)) for _ in range(20)) <= 1
    for _ in range(20):
        text = prose(rng)
        assert grader.grade(text + " Click here to sign up, and subscribe to our newsletter.") < grader.grade(text)
        assert grader.grade(text.replace("because", "near").replace("therefore", "then")) < grader.grade(text)
        assert grader.grade(text + " 7 | 12 | 9 | 44 | 3 | 0 |" * 40) < grader.grade(text)
    for text in ("", "404 not found", "\n\n", "a" * 10_000, "東京は日本の首都です。" * 20, "\0\ud800"):
        assert grader.grade(text) in range(5)


def test_grades_are_learnt_and_the_report_says_how_well(tmp_path: Path) -> None:
    texts = corpus(400)
    rows = grading.grade(texts, RuleGrader(), tmp_path / "graded.jsonl")
    classifier = grading.train(rows)
    found = classifier.report
    assert found["within_one"] > 0.9
    assert found["rank_correlation"] > 0.6
    assert found["accuracy"] > found["majority"] + 0.1
    assert sum(row["texts"] for row in found["by_grade"]) == 400
    scores = classifier.scores([text for _, text in texts])
    limit = grading.threshold(scores)
    kept = scores >= limit
    assert 0.25 <= kept.mean() <= 0.27
    grades = np.array([row.grade for row in rows])
    assert grades[kept].mean() > grades[~kept].mean() + 1


def test_threshold() -> None:
    assert grading.threshold([0.1, 0.2, 0.3, 0.4], 0.25) == 0.4
    assert grading.threshold([0.1, 0.2, 0.3, 0.4], 0.26) == 0.3
    assert grading.threshold([0.5] * 9, 0.25) == 0.5  # ties are all kept
    assert grading.threshold([0.1, 0.2], 1) == 0.1
    for keep, scores in ((0, [1.0]), (1.5, [1.0]), (0.5, [])):
        with pytest.raises(UserError, match="keep"):
            grading.threshold(scores, keep)


def test_grades_that_do_not_differ_are_refused() -> None:
    rows = [grading.Graded(str(i), f"text {i}", 2 if i else 4) for i in range(50)]
    with pytest.raises(UserError, match="differ too little"):
        grading.train(rows)


def test_rare_grades_at_the_ends_count_with_the_next(tmp_path: Path) -> None:
    rng = random.Random(0)
    rows = [grading.Graded(f"a{i}", prose(rng), 3 if i else 4) for i in range(30)]
    rows += [grading.Graded(f"b{i}", advert(rng), 1 if i else 0) for i in range(30)]
    found = grading.train(rows)
    assert found.names == ("1", "2", "3")
    assert found.report["accuracy"] > 0.9


class Flaky:
    """A grader that fails for some texts until told otherwise, and counts what it is asked."""

    name, overhead = "flaky", 100

    def __init__(self, fails: Callable[[str], bool]) -> None:
        self.fails, self.asked = fails, 0

    def grade(self, text: str) -> int:
        self.asked += 1
        if self.fails(text):
            raise Ungraded("no answer in time")
        return len(text) % 5


def test_grading_resumes_and_counts_failures(tmp_path: Path) -> None:
    texts, path = [(f"{i:03}", f"text number {i}" + "." * (i % 7)) for i in range(60)], tmp_path / "graded.jsonl"
    whole = grading.grade(texts, Flaky(lambda text: False), tmp_path / "whole.jsonl", workers=4)
    grading.grade(texts[:25], Flaky(lambda text: False), path)
    path.write_bytes(path.read_bytes()[:-20])  # killed within a line
    again = Flaky(lambda text: "number 40" in text)
    rows = grading.grade(texts, again, path, workers=3)
    assert again.asked == 60 - 24
    assert grading.failed(rows) == {"no answer in time": 1}
    last = Flaky(lambda text: False)
    assert grading.grade(texts, last, path) == whole
    assert last.asked == 1
    shown: list[int] = []
    assert grading.grade(texts[::-1], last, path, progress=shown.append) == whole
    assert (last.asked, sum(shown)) == (1, 60)
    assert grading.estimate(texts, last) == grading.Estimate(60, sum(100 + len(t) for _, t in texts) // 4, 240)
    assert grading.estimate(texts, RuleGrader()) == grading.Estimate(0, 0, 0)


def test_many_failures_are_one_line_and_nothing_is_lost(tmp_path: Path) -> None:
    texts, path = [(f"{i:03}", f"text number {i}") for i in range(60)], tmp_path / "graded.jsonl"
    dead = Flaky(lambda text: True)
    with pytest.raises(UserError, match=r"the first 10 documents got no grade \(no answer in time\)"):
        grading.grade(texts, dead, path)
    assert dead.asked < 60
    with pytest.raises(UserError, match=r"(3.) of 60 documents got no grade \(no answer in time: 3."):
        grading.grade(texts, Flaky(lambda text: int(text.split()[-1]) % 2 == 1), path)
    assert sum(row.grade is not None for row in grading.read(path)) == 30


def test_wrong_files_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "graded.jsonl"
    grading.grade([("a", "b")], Flaky(lambda text: False), path)
    with pytest.raises(UserError, match="graded by 'flaky', not 'rules 1'"):
        grading.grade([("a", "b")], RuleGrader(), path)
    for line in (
        b"hello",
        b"[]",
        b'{"id": "a"}',
        b'{"id": "a", "text": "", "grade": 9, "reason": "", "grader": ""}',
        b"\xff",
    ):
        path.write_bytes(line + b"\n")
        with pytest.raises(UserError, match="graded.jsonl:1: not a graded document"):
            grading.read(path)


@pytest.mark.parametrize(
    ("answer", "grade"),
    [
        ("Grade: 3", 3), ("3", 3), (" 4. ", 4), ("**Grade:** 2", 2), ("grade = 0\n", 0), ("2/4", 2), ("Score: 1/4", 1),
        ("It is good, grade: 2? No. Grade: 3", 3), ("grade **4**", 4),
    ],
)  # fmt: skip
def test_answers_with_a_grade(answer: str, grade: int) -> None:
    assert grade_in(answer) == grade


@pytest.mark.parametrize(
    "answer", ["", "good", "Grade: 7", "Grade: 33", "There are 3 errors and 2 faults", "grade: high"]
)
def test_answers_without_a_grade(answer: str) -> None:
    with pytest.raises(Ungraded):
        grade_in(answer)


@pytest.fixture
def server() -> Iterator[tuple[str, list[dict[str, Any]], list[object]]]:
    """An OpenAI-compatible server: (address, requests, what to answer next: a status or a body)."""
    answers: list[object] = []
    with chat_server(lambda body: answers.pop(0) if answers else "Grade: 2") as (url, requests):
        yield url, requests, answers


def test_an_endpoint_grades(server: tuple[str, list, list], tmp_path: Path) -> None:
    url, requests, answers = server
    grader = ModelGrader("small-1", ask_endpoint(Endpoint(url, "small-1", key="secret", pause_s=0.01)))
    assert grader.grade("A text.") == 2
    assert requests[0]["path"] == "/v1/chat/completions"
    assert requests[0]["key"] == "Bearer secret"
    body = requests[0]["body"]
    assert (body["model"], body["temperature"], len(body["messages"])) == ("small-1", 0, 12)
    assert "A text." in body["messages"][-1]["content"]
    answers += [503, 429, "Grade: 4"]
    assert grader.grade("x") == 4
    cases: dict[str, list[object]] = {
        "the server says 401": [401],
        "the server says 503": [503] * 3,
        "not that of a chat server": [b"<html>"],
        "not that of a chat server ": [b'{"choices": []}'],
        "no text": [None],
        "no grade": ["I cannot say"],
    }
    for reason, script in cases.items():
        answers += script
        with pytest.raises(Ungraded, match=reason.strip()):
            grader.grade("x")
        assert not answers
    grading.grade([("a", "text")], grader, tmp_path / "g.jsonl")
    assert "secret" not in (tmp_path / "g.jsonl").read_text() + repr(grader.name)


def test_a_prompt_has_its_examples_and_a_name() -> None:
    def complete(messages: object) -> str:
        return "Grade: 1"

    none, all_ = ModelGrader("m", complete, examples=0), ModelGrader("m", complete)
    assert (len(none.messages("x")), len(all_.messages("x"))) == (2, 12)
    assert none.name != all_.name
    messages: list[Message] = none.messages("y" * 9000)
    assert messages[1]["content"].count("y") == GRADED_CHARS
    with pytest.raises(UserError, match="examples"):
        ModelGrader("m", complete, examples=6)
