"""A file of conversations through the guards: every drop has its reason, and the adapter recipe takes what is left."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.chat_server import chat_server
from tests.stages.test_reward import Begin

from pippin.data import instruct
from pippin.data.guards import Limits
from pippin.data.records import Split
from pippin.errors import UserError
from pippin.files import read_json
from pippin.pipeline import Graph, Stage
from pippin.progress import Screen
from pippin.recipes.adapter import Params, adapter
from pippin.stages.chats import Chats
from pippin.stages.guard import GuardChats

WORDS = ["red", "green", "blue", "north", "south", "stone", "river", "cloud", "apple", "house", "grey", "cat"]


def asked(number: int) -> str:
    """Questions that share their words with no other."""
    return f"Tell me of {WORDS[number % 12]}{number} and {WORDS[number * 5 % 12]}{number * 7}, please."


PLANTED = [
    ("Who is there?", "I'm sorry, but I can't help with that.", "refusal"),
    ("Where is the key?", "In the caf\u00c3\u00a9.", "encoding"),
    ("Say it again and again.", "round and round we go now " * 9, "repetition"),
    ("What is 3 + 4?", "7", "benchmark"),
    ("Tell me of red0 and red0 please!", "A red0 is known to 0.", "near duplicate"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [(asked(n), f"A {WORDS[n % 12]}{n} is known to {n * 3}.") for n in range(40)]
    rows += [(question, answer) for question, answer, _ in PLANTED]
    path = tmp_path_factory.mktemp("guarded") / "chats.jsonl"
    path.write_text(
        "".join(
            json.dumps({"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]}) + "\n"
            for q, a in rows
        )
    )
    (path.parent / "eval.txt").write_text("What is 3 + 4?\n")
    return path


def run(place: Path, stages: dict[str, Stage], name: str) -> Path:
    graph = Graph(stages, place)
    graph.run([name], Screen(quiet=True))
    return graph.directory(stages[name])


def guarded(place: Path, data: Path, stages: dict[str, Stage] | None = None, **fields: Any) -> Path:
    return run(place, {**(stages or {}), "guard": GuardChats(data=str(data), **fields)}, "guard")


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_is_dropped_for_its_reason_and_can_be_read(data: Path, tmp_path: Path) -> None:
    directory = guarded(tmp_path, data, benchmarks=str(data.parent / "eval.txt"), near=0.8)
    dropped = lines(directory / "report" / "dropped.jsonl")
    reasons = {row["messages"][0]["content"]: row["reason"] for row in dropped}
    assert reasons == {question: reason for question, _, reason in PLANTED}
    assert all(row["evidence"] and row["id"].startswith("chats.jsonl:") for row in dropped)
    assert dropped[-1]["evidence"].endswith("of chats.jsonl:1")
    kept = lines(directory / "chats" / "chats.jsonl")
    assert kept == lines(data)[:40]
    results = read_json(directory / "stage.json")["results"]
    assert (results["read"], results["kept"], results["unjudged"]) == (45, 40, 0)
    assert results["dropped"] == dict(Counter(reasons.values()))
    assert "refusal" in (directory / "report" / "summary.txt").read_text()


def test_what_is_not_asked_for_is_off(data: Path, tmp_path: Path) -> None:
    limits = Limits(refusals=False, broken=False, max_repeated=None)
    directory = guarded(tmp_path, data, limits=limits)
    assert len(lines(directory / "chats" / "chats.jsonl")) == 45
    assert not (directory / "calls").exists()


def test_a_model_of_ours_embeds(data: Path, tmp_path: Path) -> None:
    begin = Begin()
    directory = guarded(tmp_path, data, {"begin": begin}, embedder=begin, near=1.0, limits=Limits(broken=False))
    assert [row["reason"] for row in lines(directory / "report" / "dropped.jsonl")] == ["refusal", "repetition"]
    loose = guarded(tmp_path, data, {"begin": begin}, embedder=begin, near=0.5, limits=Limits(broken=False))
    assert len(lines(loose / "chats" / "chats.jsonl")) < 40  # a random model finds much alike


def test_a_judge_drops_what_it_scores_low_and_is_not_asked_again(data: Path, tmp_path: Path) -> None:
    def judge(body: dict[str, Any]) -> str:
        text = body["messages"][-1]["content"]
        if "red0" in text:
            return "No idea."
        return "It is wrong. Score: 1" if "known to 9." in text else "Good. Score: 4"

    with chat_server(judge) as (url, requests):
        directory = guarded(tmp_path, data, served="judge", url=url)
        assert len(requests) == 42  # what rules drop is not paid for
        assert requests[0]["body"]["temperature"] == 0
    (row,) = (row for row in lines(directory / "report" / "dropped.jsonl") if row["reason"] == "judged low")
    assert row["messages"][1]["content"] == "A north3 is known to 9."
    assert row["evidence"] == "1 by judge: It is wrong. Score: 1"
    assert read_json(directory / "stage.json")["results"]["unjudged"] == 2


def test_mistakes_are_one_line(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="mode: value 'none'"):
        GuardChats(data=str(data), mode="none")
    with pytest.raises(UserError, match="near: value 1.5"):
        GuardChats(data=str(data), near=1.5)
    with pytest.raises(UserError, match="min_score: value 6"):
        GuardChats(data=str(data), min_score=6)
    with pytest.raises(UserError, match="none of its 45 conversations is left; 45 fell for 'long'"):
        guarded(tmp_path, data, limits=Limits(max_chars=0))


def test_tokens_are_made_of_what_is_left(data: Path, tmp_path: Path) -> None:
    begin = Begin()
    guard = GuardChats(data=str(data), heldout_share=0.3)
    chats = Chats(model=begin, data=str(data), heldout_share=0.3, guard=guard)
    directory = run(tmp_path, {"begin": begin, "guard": guard, "chats": chats}, "chats")
    sides: tuple[Split, ...] = ("train", "heldout")
    records = [record for split in sides for record in instruct.read(directory / "instruct", split)]
    found = [record["messages"][-1]["content"] for record in records]
    assert len(found) == 42
    assert not any("sorry" in answer for answer in found)


def test_the_adapter_recipe_guards_when_it_is_asked_to(data: Path, tmp_path: Path) -> None:
    model = run(tmp_path, {"begin": Begin()}, "begin")
    p = Params(model=str(model / "model"), data=str(data))
    assert "guard" not in adapter(p)
    on = Params(
        model=str(model / "model"), data=str(data), guard=True, near=0.9, benchmarks=str(data.parent / "eval.txt")
    )
    guard = adapter(on)["guard"]
    assert isinstance(guard, GuardChats)
    assert (guard.near, guard.heldout_share, guard.embedder) == (0.9, 0.1, None)
    with pytest.raises(UserError, match="guard: value False: near: only with it; add guard=true"):
        adapter(Params(model=str(model / "model"), data=str(data), near=0.9))
