"""The samples of a committee: the same bytes again, also after a kill; limits, prompts without room, wrong settings."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.stages.committee import Begin, Given, run

from pippin.data.chat import render
from pippin.data.prompts import read_prompts
from pippin.data.responses import by_prompt, members_of, read_responses
from pippin.data.tokenizer import Tokenizer
from pippin.errors import UserError
from pippin.files import read_json
from pippin.interop.load import load_model
from pippin.pipeline import Stage
from pippin.rollout import Rollout, score
from pippin.stages import responses as module
from pippin.stages.responses import Responses

SETTINGS: dict[str, Any] = {"max_tokens": 6, "samples": 3}


def sample(place: Path, given: Given | None = None, **fields: Any) -> dict[str, Path]:
    members: dict[str, Stage] = {"one": Begin(), "two": Begin(seed=1)}
    prompts = given or Given()
    return run(
        place, one=members["one"], two=members["two"], prompts=prompts,
        responses=Responses(prompts=prompts, members=members, **(SETTINGS | fields)),
    )  # fmt: skip


def test_every_member_answers_every_prompt_of_the_side(tmp_path: Path) -> None:
    places = sample(tmp_path)
    found = read_responses(places["responses"] / "responses" / "responses.jsonl")
    assert members_of(found) == ["one", "two"]
    assert {prompt: len(own) for prompt, own in by_prompt(found).items()} == {f"p{i}": 6 for i in range(12)}
    results = read_json(places["responses"] / "stage.json")["results"]
    assert (results["samples"], results["prompts"], results["too_long"]) == (72, 12, 0)
    assert results["tokens"] == sum(r["tokens"] for r in found) == sum(results["tokens_of"].values())
    assert results["cut"] == sum(not r["stopped"] for r in found) > 0
    assert len({r["response"] for r in found}) > 60  # other noise for every sample and member
    heldout = sample(tmp_path, split="heldout")["responses"]
    assert list(by_prompt(read_responses(heldout / "responses" / "responses.jsonl"))) == ["p12", "p13", "p14", "p15"]


def test_rows_say_what_was_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Rollout] = []
    plain: Callable[..., list[Rollout]] = module.rollouts

    def kept(*arguments: Any, **named: Any) -> list[Rollout]:
        drawn.extend(plain(*arguments, **named))
        return drawn[-12 * 3 :]

    monkeypatch.setattr(module, "rollouts", kept)
    places = sample(tmp_path)
    tokenizer, model = Tokenizer.load(places["two"] / "model"), load_model(places["two"] / "model", torch.float32)
    found = read_responses(places["responses"] / "responses" / "responses.jsonl")
    prompts = {p["id"]: p for p in read_prompts(places["prompts"] / "prompts" / "prompts.jsonl")}
    assert len(drawn) == len(found) == 72
    for each, rollout in zip(found, drawn, strict=True):
        assert rollout.prompt == render(tokenizer, prompts[each["prompt"]]["messages"], add_generation_prompt=True).ids
        assert (each["response"], each["tokens"]) == (tokenizer.decode(rollout.tokens), len(rollout.tokens))
        assert each["stopped"] == (rollout.tokens[-1] < 8)
    truth = score(model, [(rollout.prompt, rollout.tokens) for rollout in drawn[36:]])  # those of "two"
    assert [each["log_prob"] for each in found[36:]] == pytest.approx([sum(each) for each in truth], rel=0.02)


def test_a_killed_run_ends_with_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PART_PROMPTS", 5)
    whole = sample(tmp_path / "whole")["responses"] / "responses" / "responses.jsonl"
    plain: Callable[..., Any] = module.rollouts
    calls: list[int] = []

    def cut(*arguments: Any, **named: Any) -> Any:
        if len(calls) == 4:
            raise KeyboardInterrupt
        calls.append(named["seed"])
        return plain(*arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(module, "rollouts", cut)
        with pytest.raises(KeyboardInterrupt):
            sample(tmp_path / "cut")
    before = len(calls)

    def counted(*arguments: Any, **named: Any) -> Any:
        calls.append(named["seed"])
        return plain(*arguments, **named)

    monkeypatch.setattr(module, "rollouts", counted)
    again = sample(tmp_path / "cut")["responses"]
    assert (before, len(calls), len(set(calls))) == (4, 6, 6)  # what was sampled before the kill is not sampled again
    assert (again / "responses" / "responses.jsonl").read_bytes() == whole.read_bytes()
    assert not (again / "checkpoint").exists()


def test_a_limit_takes_always_the_same_prompts(tmp_path: Path) -> None:
    few = read_responses(sample(tmp_path, limit=4)["responses"] / "responses" / "responses.jsonl")
    more = read_responses(sample(tmp_path, limit=7)["responses"] / "responses" / "responses.jsonl")
    assert (len(by_prompt(few)), len(by_prompt(more))) == (4, 7)
    assert set(by_prompt(few)) < set(by_prompt(more))
    other = read_responses(sample(tmp_path, limit=7, seed=1)["responses"] / "responses" / "responses.jsonl")
    assert set(by_prompt(other)) != set(by_prompt(more))


def test_too_many_samples_are_refused_before_a_model_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "load_model", None)
    with pytest.raises(UserError, match="max_samples=71: 12 prompts, 2 members and 3 samples are 72; allow that many"):
        sample(tmp_path, max_samples=71)
    assert not list(tmp_path.glob("responses-*/responses"))
    monkeypatch.undo()
    assert sample(tmp_path, max_samples=72)["responses"].name == sample(tmp_path)["responses"].name


def test_prompts_without_room_are_left_out_for_all(tmp_path: Path) -> None:
    places = sample(tmp_path, max_tokens=54, samples=1)
    tokenizer = Tokenizer.load(places["one"] / "model")
    short = [
        p["id"]
        for p in read_prompts(places["prompts"] / "prompts" / "prompts.jsonl", "train")
        if len(render(tokenizer, p["messages"], add_generation_prompt=True).ids) + 54 <= 64
    ]
    assert 0 < len(short) < 12
    results = read_json(places["responses"] / "stage.json")["results"]
    assert (results["prompts"], results["too_long"]) == (len(short), 12 - len(short))
    found = read_responses(places["responses"] / "responses" / "responses.jsonl")
    assert list(by_prompt(found)) == short
    with pytest.raises(UserError, match="max_tokens=63: leaves room for none of the 12 prompts; lower it"):
        sample(tmp_path, max_tokens=63)


def test_what_is_wrong_is_one_line(tmp_path: Path) -> None:
    def fails(match: str, **fields: Any) -> None:
        with pytest.raises(UserError, match=match) as raised:
            sample(tmp_path, **fields)
        assert "\n" not in str(raised.value)

    fails("samples=0: must be at least 1", samples=0)
    fails("limit=-1: must be at least 0", limit=-1)
    fails("samples=3: at temperature 0 all samples are the same; set samples=1", temperature=0.0)
    fails("temperature=nan: must be 0", temperature=float("nan"))
    fails("split=test: must be train or heldout", split="test")
    fails("has no heldout prompts", given=Given(heldout=0), split="heldout")
    with pytest.raises(UserError, match="members: none"):
        Responses(prompts=Given(), members={}, max_tokens=4)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"sample": 1.5}, r"r.jsonl:2: sample: value '1.5': must be a whole number"),
        ({"stopped": 1}, "stopped: value '1': must be true or false"),
        ({"tokens": True}, "tokens: value 'True': must be a whole number"),
        ({"log_prob": float("nan")}, "log_prob: value nan: must be finite"),
        ({"member": None}, "member: value 'None': must be a name"),
        ({"response": "\ud800"}, "response: holds half a character"),
        ({"sample": 0}, "sample 0 of one to prompt 'p0' is there twice"),
    ],
)
def test_a_damaged_file_of_responses_names_its_line(tmp_path: Path, change: dict[str, Any], match: str) -> None:
    good = {
        "prompt": "p0", "member": "one", "sample": 0, "response": "red", "tokens": 2, "log_prob": -1.5, "stopped": True
    }  # fmt: skip
    path = tmp_path / "r.jsonl"
    path.write_text(json.dumps(good) + "\n" + json.dumps(good | {"sample": 1} | change) + "\n")
    with pytest.raises(UserError, match=match):
        read_responses(path)
