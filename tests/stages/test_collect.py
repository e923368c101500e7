"""Preferences between a committee's responses: what is paired, what is kept, what `data.preferences` reads of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.stages.committee import Begin, Given, Judge, Scripted, answer, prompt, run

from pippin.data.preferences import read_preferences
from pippin.errors import UserError
from pippin.files import read_json
from pippin.pipeline import Stage
from pippin.stages.collect import CollectPreferences
from pippin.stages.committee import score_responses

N = 40
MEMBERS: dict[str, Stage] = {"one": Begin(), "two": Begin(seed=1)}
WRONG = "no idea"

Row = tuple[str, str, int, str, bool]


def answers(n: int = N) -> list[Row]:
    """To each prompt the right answer twice, the same with spaces behind it, and a wrong one."""
    rows: list[Row] = []
    for i in range(n):
        rows += [(f"p{i}", "one", 0, answer(i), True), (f"p{i}", "one", 1, answer(i) + " " * 9, True)]
        rows += [(f"p{i}", "two", 0, WRONG, True), (f"p{i}", "two", 1, answer(i), True)]
    return rows


def collect(place: Path, rows: list[Row] | None = None, given: Given | None = None, **fields: Any) -> Path:
    """Run the stage on scripted responses; its directory."""
    given = given or Given(train=N, heldout=2)
    responses = Scripted(prompts=given, members=MEMBERS, rows=tuple(rows or answers()), max_tokens=9)
    made = CollectPreferences(prompts=given, responses=responses, **fields)
    more = {"reward": made.reward} if made.reward is not None else {}
    return run(place, given=given, **MEMBERS, responses=responses, **more, collect=made)["collect"]


def lines(directory: Path) -> list[dict[str, Any]]:
    text = (directory / "preferences" / "preferences.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_every_pair_of_different_responses_is_graded_by_rule(tmp_path: Path) -> None:
    directory = collect(tmp_path, pairs_per_prompt=9)
    results = read_json(directory / "stage.json")["results"]
    assert results == {
        "pairs": 120, "looked": 120, "by": "rule 1", "none": {}, "levels": {"better": 80, "slightly better": 40}
    }  # fmt: skip
    found = lines(directory)
    for pair in found:
        number = int(pair["prompt_id"][1:])
        assert pair["prompt"] == prompt(number)["messages"]
        assert pair["chosen"].strip() == answer(number)
        assert pair["chosen"] != pair["rejected"]
        assert (pair["level"] == "better") == (pair["rejected"] == WRONG)
        if pair["level"] == "slightly better":
            assert (pair["chosen"], pair["rejected"]) == (answer(number), answer(number) + " " * 9)
        if pair["rejected"] == WRONG:
            assert pair["members"]["rejected"] == {"member": "two", "sample": 0}
            assert pair["grades"]["rejected"] == {"truthfulness": 0}
        assert pair["members"]["chosen"]["member"] == "one"  # of equal texts the first in order
        assert pair["grades"]["chosen"]["truthfulness"] == 2
    read = read_preferences(directory / "preferences" / "preferences.jsonl", 0.2)
    assert (len(read.pairs), read.repeated, read.equal, read.apart) == (120, 0, 0, 0)


def test_pairs_of_a_prompt_are_drawn_with_the_seed(tmp_path: Path) -> None:
    first = collect(tmp_path)
    again = collect(tmp_path / "again")
    name = "preferences/preferences.jsonl"
    assert (first / name).read_bytes() == (again / name).read_bytes()
    pairs = lines(first)
    assert [pair["prompt_id"] for pair in pairs] == [f"p{i}" for i in range(N)]
    kinds = Counter((pair["chosen"][-1] == " ", pair["rejected"][-1] == " ") for pair in pairs)
    assert len(kinds) == 3  # each of the three pairs of a prompt is drawn somewhere
    assert lines(collect(tmp_path, seed=1)) != pairs
    more = lines(collect(tmp_path, pairs_per_prompt=2))
    assert [more[i] for i in range(0, 2 * N, 2)] == pairs


def test_a_rule_looks_on_until_it_has_an_opinion(tmp_path: Path) -> None:
    directory = collect(tmp_path, shorter=False)
    assert {pair["rejected"] for pair in lines(directory)} == {WRONG}
    assert len(lines(directory)) == N
    results = read_json(directory / "stage.json")["results"]
    assert (results["looked"], results["none"]) == (3 * N, {"both are right": N})


def test_drawn_labels_are_exchanged_as_often_as_their_level_says(tmp_path: Path) -> None:
    n = 600
    fields: dict[str, Any] = {"given": Given(train=n, heldout=2), "rows": answers(n), "pairs_per_prompt": 3}
    plain, drawn = lines(collect(tmp_path, **fields)), lines(collect(tmp_path, **fields, drawn=True))
    exchanged: Counter[str] = Counter()
    for one, other in zip(plain, drawn, strict=True):
        if one != other:
            exchanged[one["level"]] += 1
            for name in ("grades", "members"):
                assert other[name] == {"chosen": one[name]["rejected"], "rejected": one[name]["chosen"]}
            assert (other["chosen"], other["rejected"]) == (one["rejected"], one["chosen"])
    assert 0.11 < exchanged["better"] / (2 * n) < 0.19
    assert 0.19 < exchanged["slightly better"] / n < 0.31


def test_a_reward_model_prefers_its_favourite(tmp_path: Path) -> None:
    rows = [(f"p{i}", "one", k, text, True) for i in range(N) for k, text in enumerate(("red", "blue stone", "river"))]
    directory = collect(tmp_path, rows, grader="reward", reward=Judge(), pairs_per_prompt=3)
    pairs = lines(directory)
    reward = next(tmp_path.glob("reward-*"))
    assert {pair["by"] for pair in pairs} == {f"reward {reward.name}"}
    sides = [
        score_responses(reward / "reward", [pair["prompt"] for pair in pairs], [pair[side] for pair in pairs])
        for side in ("chosen", "rejected")
    ]
    assert min(c - r for c, r in zip(*sides, strict=True)) > 0.3
    results = read_json(directory / "stage.json")["results"]
    assert results["looked"] == 3 * N == len(pairs) + results["none"].get("the rewards are alike", 0)
    assert sum(results["levels"].values()) == len(pairs)
    assert len(results["levels"]) > 1


class LastOne:
    """A judge that prefers what is right, but in every fourth conversation what stands last."""

    name = "stub"

    def __init__(self) -> None:
        self.calls = 0

    def write(
        self, conversations: Sequence[Sequence[Mapping[str, object]]], *, n: int = 1, max_tokens: int,
        temperature: float = 1.0, seed: int = 0,
    ) -> list[list[str]]:  # fmt: skip
        found = []
        for conversation in conversations:
            text = str(conversation[0]["content"])
            a = text[text.index("Response A:") : text.index("Response B:")]
            self.calls += 1
            wrong_first = WRONG in a
            found.append([f"Better: {'B' if wrong_first or self.calls % 4 == 0 else 'A'}, slightly"])
        return found


def test_a_judge_sees_so_many_pairs_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = LastOne()
    monkeypatch.setattr(CollectPreferences, "opened", lambda *_: judge)
    rows = [row for row in answers() if row[3] in (WRONG,) or row[2] == 0]
    directory = collect(tmp_path, rows, grader="judge", served="stub", url="http://localhost:1/v1")
    results = read_json(directory / "stage.json")["results"]
    assert judge.calls == 2 * N
    assert results["looked"] == N
    assert results["pairs"] + results["none"]["the judge contradicts itself when the order changes"] == N
    assert 0 < results["pairs"] < N
    assert {(pair["rejected"], pair["level"], pair["by"]) for pair in lines(directory)} == {
        (WRONG, "slightly better", "judge stub")
    }


def test_the_calls_to_a_judge_are_limited(tmp_path: Path) -> None:
    judge = Begin(max_seq_len=1024)
    members = MEMBERS | {"judge": judge}
    given = Given(train=20, heldout=2)
    responses = Scripted(prompts=given, members=MEMBERS, rows=tuple(answers(20)), max_tokens=9)
    made = CollectPreferences(prompts=given, responses=responses, grader="judge", writer=judge, max_calls=35)
    with pytest.raises(UserError, match="max_calls=35: reached after 32 calls"):
        run(tmp_path, given=given, **members, responses=responses, collect=made)
    assert not list(tmp_path.glob("collect-*/preferences"))


def test_people_get_a_page_and_their_votes_become_pairs(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"collect: 40 pairs wait for people: open \S+/people/vote.html in a browser"):
        collect(tmp_path, grader="people")
    (first,) = tmp_path.glob("collect-*")
    assert not (first / "DONE").exists()
    assert not (first / "preferences").exists()
    shown = read_json(first / "people" / "pairs.json")
    page = (first / "people" / "vote.html").read_text(encoding="utf-8")
    assert shown["pairs"][0]["id"] in page
    assert "sample" not in json.dumps(shown)  # nobody sees whose a response is
    assert {pair["a"] == WRONG for pair in shown["pairs"]} == {True, False}  # either may stand first
    both = [pair for pair in shown["pairs"] if WRONG in (pair["a"], pair["b"])]
    votes = [
        {"pair": pair["id"], "better": "b" if pair["a"] == WRONG else "a", "level": "better",
         "grades": {"a": {"harmlessness": 2}, "b": {}}}
        for pair in both
    ]  # fmt: skip
    folder = tmp_path / "votes"
    folder.mkdir()
    head = {"format_version": 1, "pairs": shown["digest"]}
    (folder / "ada.json").write_text(json.dumps(head | {"by": " Ada ", "votes": votes}))
    (folder / "bob.json").write_text(
        json.dumps(head | {"by": "Bob", "votes": [votes[0] | {"level": None}, votes[1] | {"better": "tie"}]})
    )
    directory = collect(tmp_path, grader="people", votes=str(folder))
    pairs = lines(directory)
    assert {pair["rejected"] for pair in pairs} == {WRONG}
    assert Counter(pair["by"] for pair in pairs) == {"Ada": len(both), "Bob": 1}
    assert Counter(pair["level"] for pair in pairs) == {"better": len(both), None: 1}
    assert sum(pair["grades"]["chosen"] == {"harmlessness": 2} for pair in pairs) > 0
    results = read_json(directory / "stage.json")["results"]
    assert results["by"] == "people: Ada, Bob"
    assert results["none"] == {"people find them alike": 1, "nobody voted": 40 - len(both)}
    assert (directory / "people" / "pairs.json").read_bytes() == (first / "people" / "pairs.json").read_bytes()


def test_what_is_wrong_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(match: str, rows: list[Row] | None = None, **fields: Any) -> None:
        with pytest.raises(UserError, match=match) as raised:
            collect(tmp_path, rows, **fields)
        assert "\n" not in str(raised.value)
        assert not list(tmp_path.glob("collect-*/DONE"))

    fails("grader=coin: must be one of rule, reward, judge, people", grader="coin")
    fails("pairs_per_prompt=0: must be at least 1", pairs_per_prompt=0)
    fails("reward: grader=reward needs it, and no other does; grader=reward", grader="reward")
    fails("reward: grader=reward needs it, and no other does; grader=rule", reward=Judge())
    fails("writer or served: grader=judge needs it", grader="judge")
    fails("votes: only grader=people reads them", votes="votes.json")
    fails("prompt p0: has no verifier", given=Given(train=N, heldout=2, verifier=False))
    fails("none of 40 pairs is left .both are wrong: 40.; take more samples", [
        (f"p{i}", "one", k, text, True) for i in range(N) for k, text in enumerate(("a", "b"))
    ])  # fmt: skip
    fails("no prompt has two different responses", [(f"p{i}", "one", k, "a", True) for i in range(9) for k in (0, 1)])
    fails("tokenizer.json: differs from the one of", grader="reward", reward=Judge(vocab_size=300))
    fails("reward: value nan or inf", grader="reward", reward=Judge(broken=True))
    alone = Scripted(prompts=Given(), members={"one": Begin()}, rows=(), samples=1, max_tokens=9)
    with pytest.raises(UserError, match="samples=1: one response to a prompt is no pair; take 2 samples or 2 members"):
        CollectPreferences(prompts=Given(), responses=alone)
