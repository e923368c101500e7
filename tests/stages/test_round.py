"""A planted committee: one teacher knows the first kind of prompts, the other the second; the student learns both."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.stages.committee import Begin, answer, prompt, run, shape

from pippin.data.prompts import write_prompts
from pippin.data.responses import FILE, by_prompt, read_responses
from pippin.files import read_json, write_text
from pippin.pipeline import Stage
from pippin.stages.chats import Chats
from pippin.stages.collect import CollectPreferences
from pippin.stages.picked import Picked
from pippin.stages.policies import ComparePolicies
from pippin.stages.prompts import Prompts
from pippin.stages.responses import Responses
from pippin.stages.reward import Reward
from pippin.stages.round_report import RoundReport
from pippin.stages.sft import Sft
from pippin.training.loop import TrainSpec

TRAIN = TrainSpec(
    steps=60, batch_size=16, seq_len=64, lr=0.02, warmup_steps=5, compute="float32", log_every=60, eval_every=60,
    checkpoint_every=60,
)  # fmt: skip


def lessons(path: Path, knows: int) -> None:
    """Conversations of a teacher: right answers to one kind of prompt, "no idea" to the other."""
    made = []
    for i in range(1_000, 1_320):
        said = answer(i) if i % 2 == knows else "no idea"
        made.append(json.dumps({"messages": [*prompt(i)["messages"], {"role": "assistant", "content": said}]}))
    write_text(path, "\n".join(made))


def stages_of(place: Path) -> dict[str, Stage]:
    """The stages of one round, from nothing to the report on the student; `place` has prompts and lessons."""
    begin = Begin()
    prompts = Prompts(data=str(place / "prompts.jsonl"))
    stages: dict[str, Stage] = {"begin": begin, "prompts": prompts}
    members: dict[str, Stage] = {}
    common: dict[str, Any] = {"train": TRAIN, "model": shape(320)}
    for name in ("first", "second"):
        chats = Chats(model=begin, data=str(place / f"{name}.jsonl"))
        members[name] = Sft(start=begin, tokens=chats, mixture={"chat": 1.0}, **common)
        stages |= {f"{name}_lessons": chats, name: members[name]}
    responses = Responses(prompts=prompts, members=members, samples=2, max_tokens=8)
    collected = CollectPreferences(prompts=prompts, responses=responses)
    picked = Picked(model=begin, prompts=prompts, responses=responses, by="verifier")
    student = Sft(start=begin, tokens=picked, mixture={"picked": 1.0}, **common)
    policies = ComparePolicies(
        prompts=prompts, reference=begin, members={**members, "student": student}, samples=1, max_tokens=8
    )
    report = RoundReport(number=1, picked=picked, preferences=collected, policies=policies)
    return stages | {
        "responses": responses, "collected": collected, "picked": picked, "student": student, "policies": policies,
        "report": report,
    }  # fmt: skip


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("round")
    given = place / "given"
    made = [prompt(i) for i in range(160)] + [prompt(i, "heldout") for i in range(160, 192)]
    write_prompts(given / "prompts.jsonl", made)
    for knows, name in enumerate(("first", "second")):
        lessons(given / f"{name}.jsonl", knows)
    return run(place / "runs", **stages_of(given))


def picks_of(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "picks" / "picks.jsonl").read_text().splitlines()]


def test_the_set_holds_the_right_teacher_of_each_prompt(places: dict[str, Path]) -> None:
    found = by_prompt(read_responses(places["responses"] / "responses" / "responses.jsonl"))
    picks = {pick["prompt"]: pick for pick in picks_of(places["picked"])}
    won = Counter(pick["member"] for pick in picks.values())
    assert min(won["first"], won["second"]) > 40
    for number in range(160):
        right = [r for r in found[f"p{number}"] if r["response"] == answer(number) and r["stopped"]]
        assert {r["member"] for r in right} <= {("first", "second")[number % 2]}
        pick = picks.get(f"p{number}")
        assert (pick is None) == (not right)
        if pick is not None:
            assert (pick["member"], pick["sample"]) == (right[0]["member"], right[0]["sample"])


def test_the_student_beats_every_teacher(places: dict[str, Path]) -> None:
    judged = read_json(places["policies"] / "stage.json")["results"]["policies"]
    solved = {
        name: [row["by_source"][kind]["greedy"]["share"] for kind in ("say", "spell")] for name, row in judged.items()
    }
    assert solved["first"][1] == solved["second"][0] == 0.0
    assert min(solved["first"][0], solved["second"][1]) > 0.4
    assert min(solved["student"]) > 0.8
    best = max(judged[name]["greedy"]["high"] for name in ("first", "second"))
    assert judged["student"]["greedy"]["low"] > best  # beyond chance


def test_the_directory_of_a_round_gives_the_same_choices_again(places: dict[str, Path], tmp_path: Path) -> None:
    runs, given = places["picked"].parent, places["picked"].parents[1] / "given"
    names = {"responses": FILE, "picked": "picks.jsonl", "collected": "preferences.jsonl"}
    before = {name: next(places[name].glob(f"*/{file}")).read_bytes() for name, file in names.items()}
    whole = shutil.copytree(runs, tmp_path / "runs")
    for name in names:
        shutil.rmtree(whole / places[name].name)
    again = run(whole, **stages_of(given))
    assert [again[name].name for name in names] == [places[name].name for name in names]
    for name, file in names.items():
        assert next(again[name].glob(f"*/{file}")).read_bytes() == before[name], name


def test_what_came_of_it_is_told(places: dict[str, Path]) -> None:
    numbers = read_json(places["report"] / "report" / "round.json")
    picks = picks_of(places["picked"])
    assert {member["name"]: member["won"] for member in numbers["members"]} == Counter(p["member"] for p in picks)
    assert numbers["members"][0]["won_by"].keys() == {"say"}
    assert numbers["members"][1]["won_by"].keys() == {"spell"}
    assert numbers["samples"] == 160 * 4
    assert numbers["heldout"]["student"]["kl"] > 0
    for path in numbers["files"]:
        assert (places["report"] / "report" / path).is_file(), path
    text = (places["report"] / "report" / "round.txt").read_text(encoding="utf-8")
    for word in ("Round 1", "first", "second", "nobody", "student", "640 samples", "by rule 1"):
        assert word in text


@pytest.mark.slow
def test_a_reward_model_of_the_rounds_preferences_picks_right(places: dict[str, Path], tmp_path: Path) -> None:
    runs, given = places["picked"].parent, places["picked"].parents[1] / "given"
    stages = stages_of(given)
    prompts, responses, begin = stages["prompts"], stages["responses"], stages["begin"]
    assert isinstance(responses, Responses)
    collected = CollectPreferences(prompts=prompts, responses=responses, pairs_per_prompt=3)
    reward = Reward(start=begin, preferences=collected, train=replace(TRAIN, steps=400, batch_size=32, lr=0.01))
    picked = Picked(model=begin, prompts=prompts, responses=responses, by="reward", reward=reward)
    graded = CollectPreferences(prompts=prompts, responses=responses, grader="reward", reward=reward)
    report = RoundReport(number=2, picked=picked, preferences=graded, reward=reward)
    more = {"pairs": collected, "reward": reward, "favourites": picked, "graded": graded, "second": report}
    whole = shutil.copytree(runs, tmp_path / "runs")
    made = run(whole, **(stages | {f"{name}_2": stage for name, stage in more.items()}))
    assert read_json(made["reward_2"] / "stage.json")["results"]["accuracy"] > 0.8
    found = by_prompt(read_responses(places["responses"] / "responses" / "responses.jsonl"))
    text = {(r["prompt"], r["member"], r["sample"]): r["response"] for own in found.values() for r in own}
    solvable = right = 0
    for pick in picks_of(made["favourites_2"]):
        expected = answer(int(pick["prompt"][1:]))
        if any(r["response"] == expected for r in found[pick["prompt"]]):
            solvable += 1
            right += text[pick["prompt"], pick["member"], pick["sample"]] == expected
    assert solvable > 90
    assert right / solvable > 0.95
    numbers = read_json(made["second_2"] / "report" / "round.json")
    assert numbers["reward"]["heldout"]["accuracy"] > 0.8
    by_name = {member["name"]: member for member in numbers["members"]}
    assert all(0.2 < by_name[name]["right"] < 0.8 for name in ("first", "second"))  # verified for the report
    assert all(isinstance(by_name[name]["reward"], float) for name in ("first", "second"))
