"""Meta-Rewarding as a stage: a scripted model whose judgements are known, a model that cannot judge, limits, kills."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.stages.committee import Begin, Given, answer, prompt

from pippin.data.judging import BRIEF, read_score
from pippin.data.mixture import derive
from pippin.data.preferences import read_preferences
from pippin.errors import UserError
from pippin.files import read_json
from pippin.pipeline import Graph, Stage
from pippin.progress import Screen
from pippin.stages import metareward as stage_module
from pippin.stages.metareward import BY, MetaReward
from pippin.stages.prompts import Prompts

PROMPTS = 24
RIGHT = {str(prompt(i)["messages"][0]["content"]): answer(i) for i in range(PROMPTS)}


class Scripted:
    """Answers right or wrong; judges right with probability `sure`; as meta-judge knows which score is true, but says A
    with probability `first`."""

    name = "scripted"

    def __init__(self, sure: float = 0.8, first: float = 0.2, score: str = "") -> None:
        self.sure, self.first, self.score, self.calls = sure, first, score, 0
        self.stop_after = 10**9

    def write(
        self, conversations: Sequence[Sequence[Mapping[str, object]]], *, n: int = 1, max_tokens: int,
        temperature: float = 1.0, seed: int = 0,
    ) -> list[list[str]]:  # fmt: skip
        found = []
        for place, messages in enumerate(conversations):
            draws = [random.Random(derive(seed, "scripted", place * n + sample)) for sample in range(n)]
            self.calls += n
            if self.calls > self.stop_after:
                raise KeyboardInterrupt
            found.append([self.say(str(messages[-1]["content"]), draw) for draw in draws])
        return found

    def say(self, asked: str, draw: random.Random) -> str:
        lines = asked.split("\n")
        if asked in RIGHT:
            wrong = draw.choice(("red red", "no " * 9, "stone cloud river", ""))
            return RIGHT[asked] if draw.random() < 0.5 else wrong
        said, right = lines[1].removeprefix("Answer: "), RIGHT[lines[0]]
        if lines[-1] == "What is it worth?":
            true = (said == right) == (draw.random() < self.sure)
            return self.score or draw.choice((f"Score: {4 if true else 1}", f"Score: {5 if true else 2}", "Hm."))
        scores = [read_score(line) or 0.0 for line in lines[2:4]]
        better = scores[0] > scores[1] if said == right else scores[0] < scores[1]
        return "Better: A" if draw.random() < self.first or better else "Better: B"


def run(place: Path, monkeypatch: pytest.MonkeyPatch, writer: Scripted, **fields: Any) -> Path:
    """Run the stage with a scripted model in the place of its own; its directory."""
    monkeypatch.setattr(stage_module, "ModelWriter", lambda *_: writer)
    settings: dict[str, Any] = {"rubric": BRIEF, "max_tokens": 12, "judge_tokens": 12, "meta_tokens": 12, **fields}
    settings = {"prompts": Given(train=PROMPTS), "model": Begin(max_seq_len=160), **settings}
    made = MetaReward(**settings)
    graph = Graph({"prompts": made.prompts, "model": made.model, "pairs": made}, place)
    graph.run(["pairs"], Screen(quiet=True))
    return graph.directory(made)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_pairs_of_answers_and_of_judgements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = Scripted()
    directory = run(tmp_path, monkeypatch, writer)
    report = read_json(directory / "report" / "metareward.json")
    path = directory / "preferences" / "preferences.jsonl"
    pairs = lines(path)
    assert {pair["by"] for pair in pairs} == {BY}
    parts = {part: [pair for pair in pairs if pair["part"] == part] for part in ("actor", "judge")}
    assert report["actor_pairs"] == len(parts["actor"]) > 10
    assert report["judge_pairs"] == len(parts["judge"]) > 5
    good = [pair["chosen"] == RIGHT[pair["prompt"][0]["content"]] for pair in parts["actor"]]
    assert sum(good) / len(good) > 0.8
    nearer = 0
    for pair in parts["judge"]:
        asked, said = pair["prompt"][0]["content"].split("\nAnswer: ")
        truth = 4.5 if said.split("\n")[0] == RIGHT[asked] else 1.5
        chosen, rejected = read_score(pair["chosen"]), read_score(pair["rejected"])
        assert chosen is not None
        assert rejected is not None
        nearer += abs(chosen - truth) < abs(rejected - truth)
    assert nearer / len(parts["judge"]) > 0.7
    found = read_preferences(path, 0.2)  # as DPO reads them
    assert len(found.pairs) == len(pairs)
    assert report["battles"]["first"] > report["battles"]["second"]
    w1, w2 = report["position_weights"]
    assert w1 < w2
    assert w1 + w2 == pytest.approx(1.0)
    assert report["longer_by"] < 0.0


def test_every_score_is_in_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = run(tmp_path, monkeypatch, Scripted())
    report = read_json(directory / "report" / "metareward.json")
    answers = lines(directory / "scores" / "answers.jsonl")
    scores = [score for each in answers for score in each["scores"]]
    read = [score for score in scores if score is not None]
    assert report["verdicts"] == len(scores) == 4 * len(answers)
    assert report["unreadable"] == scores.count(None) > 0
    assert report["score_mean"] == pytest.approx(sum(read) / len(read))
    assert 1.5 < report["score_entropy"] <= 2.0  # four scores are given
    assert sum(each["samples"] for each in answers) + report["left_out"] == 4 * PROMPTS
    assert report["left_out"] > 5
    assert all(each["answer"].strip() for each in answers)  # empty ones are left out
    assert not any(each["answer"].startswith("no no") for each in answers)  # and those that have no end in 12 tokens
    battles = lines(directory / "scores" / "battles.jsonl")
    assert sum(len(each["battles"]) for each in battles) == sum(report["battles"].values())
    for each in battles:
        n = len(each["verdicts"])
        assert n == len(set(each["verdicts"])) >= 2
        assert sorted((a, b) for a, b, _ in each["battles"]) == [(a, b) for a in range(n) for b in range(n) if a != b]
        assert "Hm." not in each["verdicts"]


def test_the_same_bytes_again_and_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_module, "GROUP", 8)
    first = Scripted()
    whole = run(tmp_path / "whole", monkeypatch, first)
    cut = Scripted()
    cut.stop_after = first.calls // 2
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", monkeypatch, cut)
    rest = Scripted()
    again = run(tmp_path / "cut", monkeypatch, rest)
    assert 0 < rest.calls < 0.7 * first.calls
    for name in ("preferences/preferences.jsonl", "scores/answers.jsonl", "scores/battles.jsonl",
                 "report/metareward.json"):  # fmt: skip
        assert (again / name).read_bytes() == (whole / name).read_bytes(), name
    other = run(tmp_path / "other", monkeypatch, Scripted(), seed=1)
    name = "preferences/preferences.jsonl"
    assert (other / name).read_bytes() != (whole / name).read_bytes()


def test_calls_are_limited_and_never_more_than_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = Scripted()
    directory = run(tmp_path, monkeypatch, writer, answers=5, judgements=3)
    most = PROMPTS * (5 + 5 * 3 + 3 * 2)
    assert read_json(directory / "report" / "metareward.json")["calls"] == writer.calls <= most
    monkeypatch.setattr(stage_module, "load_model", lambda *_: pytest.fail("loaded"))
    with pytest.raises(UserError, match=f"max_calls={most - 1}: 24 prompts with up to 26 calls each are {most}; allow"):
        run(tmp_path / "limited", monkeypatch, writer, answers=5, judgements=3, max_calls=most - 1)


def test_without_the_meta_judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = run(tmp_path / "both", monkeypatch, Scripted())
    actor = run(tmp_path / "actor", monkeypatch, Scripted(), meta=False)
    of_both = lines(both / "preferences" / "preferences.jsonl")
    assert lines(actor / "preferences" / "preferences.jsonl") == [pair for pair in of_both if pair["part"] == "actor"]
    assert (actor / "scores" / "battles.jsonl").read_text() == ""


def test_a_judge_that_says_nothing_ends_it_with_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(match: str, name: str, score: str, **fields: Any) -> None:
        with pytest.raises(UserError, match=match) as raised:
            run(tmp_path / name, monkeypatch, Scripted(score=score), **fields)
        assert "\n" not in str(raised.value)

    fails("pairs: 100% of .* scores are the maximum: the judge tells answers apart no more", "top", "Score: 5")
    fails("pairs: none of .* judgements has a line 'Score: N'", "mute", "Fine.")
    fails("pairs: no pair came out", "same", "Score: 3")
    fails("no answer ends within max_tokens=12 and leaves room", "room", "", judge_tokens=140)
    fails("rho=0.5", "rho", "", rho=0.5)
    fails("judgements=1", "one", "", judgements=1)
    fails("temperature=0", "cold", "", temperature=0.0)
    fails("max_tokens=0", "none", "", max_tokens=0)


def test_what_has_no_room_is_left_out_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = read_json(run(tmp_path, monkeypatch, Scripted(), judge_tokens=121) / "report" / "metareward.json")
    assert report["too_long"] > 0
    assert report["verdicts"] < 4 * report["answers"]


def test_a_model_that_cannot_judge(tmp_path: Path) -> None:
    begin = Begin(max_seq_len=160)
    given = Given(train=12)
    made = MetaReward(prompts=given, model=begin, rubric=BRIEF, max_tokens=40, judge_tokens=8, meta_tokens=8)
    graph = Graph({"prompts": given, "model": begin, "pairs": made}, tmp_path)
    with pytest.raises(UserError, match="none of .* judgements has a line"):
        graph.run(["pairs"], Screen(quiet=True))


def test_the_cost_is_known_before() -> None:
    world = Prompts(tasks=("copy",), train=10, heldout=1)
    model: Stage = Begin()
    made = MetaReward(prompts=world, model=model, max_tokens=8, answers=7, judgements=11)
    assert made.calls_per_prompt == 194
    assert made.cost().bytes == 400 * 1940
    assert MetaReward(prompts=world, model=model, max_tokens=8, meta=False).calls_per_prompt == 20
