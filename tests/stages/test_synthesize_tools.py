"""Synthetic tool use as a stage: what it leaves is read by the others, a writer's words are checked, errors."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.chat_server import chat_server

from pippin.data.conversations import read_conversations
from pippin.data.prompts import read_prompts
from pippin.data.synthesis import tools_examples
from pippin.data.synthesis.tools_list import FAMILIES
from pippin.errors import UserError
from pippin.evaluate.verify.prompts import Verifier
from pippin.pipeline import Graph
from pippin.progress import Screen
from pippin.stages.synthesize_tools import KINDS, REAL, SynthesizeTools

PLAIN = tuple(kind for kind in KINDS if kind not in REAL)


def ran(stage: SynthesizeTools, runs: Path) -> Path:
    graph = Graph({"tools": stage}, runs)
    graph.run([], Screen(quiet=True))
    return graph.directory(stage)


def artifacts(directory: Path) -> dict[str, bytes]:
    return {
        kind: (directory / kind / name).read_bytes()
        for kind, name in (("conversations", "tools.jsonl"), ("prompts", "prompts.jsonl"), ("report", "tools.json"))
    }


def test_what_it_leaves_is_read_by_the_others(tmp_path: Path) -> None:
    stage = SynthesizeTools(kinds=PLAIN, per_kind=12)
    directory = ran(stage, tmp_path / "a")
    conversations, repeated = read_conversations(directory / "conversations" / "tools.jsonl", 0.3)
    assert len(conversations) > 70 and repeated == 0
    prompts = read_prompts(directory / "prompts" / "prompts.jsonl")
    following = {  # what was said after the same messages
        json.dumps(each["messages"][:at]): each["messages"][at]["content"]
        for each in conversations
        for at in range(1, len(each["messages"]))
    }
    assert {prompt["split"] for prompt in prompts} == {"train", "heldout"}
    with Verifier() as verifier:
        for prompt in prompts:
            assert prompt["messages"][0]["role"] == "system" and '"name"' in prompt["messages"][0]["content"]
            assert prompt["verifier"] is not None
            said = following.get(json.dumps(prompt["messages"]))
            assert (said is None) == (prompt["split"] == "heldout")
            if said is not None:
                assert verifier.check(prompt, said).correct
            assert verifier.check(prompt, "I cannot.").correct == (not prompt["verifier"]["ground_truth"])
    assert artifacts(ran(stage, tmp_path / "b")) == artifacts(directory)


def test_some_families_are_called_on_the_held_out_side_alone(tmp_path: Path) -> None:
    directory = ran(SynthesizeTools(kinds=PLAIN, per_kind=30, unseen=("lists", "home")), tmp_path)
    unseen = {tool.name for tool in (*FAMILIES["lists"], *FAMILIES["home"])}
    learnt = [
        call["function"]["name"]
        for line in (directory / "conversations" / "tools.jsonl").read_text().splitlines()
        for message in json.loads(line)["messages"]
        for call in message.get("tool_calls", ())
    ]
    assert len(learnt) > 100 and not unseen & set(learnt)
    found = {True: 0, False: 0}
    for prompt in read_prompts(directory / "prompts" / "prompts.jsonl"):
        assert prompt["verifier"] is not None
        called = {name for call in prompt["verifier"]["ground_truth"] for name in call}
        new = prompt["source"].endswith("/unseen")
        assert not (called & unseen and not new) and not (new and prompt["split"] == "train")
        found[new] += 1
    assert found[True] > 10 and found[False] > 100


def test_programs_lead_to_numbers(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "own.txt").write_text("The Copper Heron is mentioned in this text, too, but only once.")
    try:
        directory = ran(SynthesizeTools(kinds=REAL, per_kind=4, corpus=str(tmp_path / "texts")), tmp_path / "runs")
    except UserError as error:
        if "isolation" not in str(error):
            raise
        pytest.skip(str(error))
    prompts = read_prompts(directory / "prompts" / "prompts.jsonl")
    assert len(prompts) == 8
    with Verifier() as verifier:
        for prompt in prompts:
            assert prompt["verifier"] is not None
            assert prompt["messages"][-1]["role"] == "tool" and prompt["verifier"]["kind"] == "gsm8k"
            number = prompt["verifier"]["answer"]
            assert verifier.check(prompt, f"It is {number}.").correct
            assert not verifier.check(prompt, f"It is {int(number) + 1}.").correct


class Parrot:
    """A server that says each request again: the first time with a number more, then with a word before it."""

    def __init__(self) -> None:
        self.heard: set[str] = set()

    def __call__(self, body: dict[str, Any]) -> str:
        text = str(body["messages"][-1]["content"]).split("\n\n")[1]
        first = text not in self.heard
        self.heard.add(text)
        return f"{text} And 99 more." if first else f"Now: {text}"


def test_a_writers_words_are_kept_where_the_calls_hold(tmp_path: Path) -> None:
    kinds = ("lookalike", "irrelevant", "multi_step")
    plain = ran(SynthesizeTools(kinds=kinds, per_kind=20), tmp_path / "plain")
    with chat_server(Parrot()) as (url, requests):
        stage = SynthesizeTools(kinds=kinds, per_kind=20, served="parrot", url=url, workers=1, max_calls=32)
        assert stage.calls == 40
        with pytest.raises(UserError, match="max_calls=32: reached"):
            ran(stage, tmp_path / "runs")
        assert len(requests) == 32
        directory = ran(replace(stage, max_calls=40), tmp_path / "runs")
        assert len(requests) == 40  # what was asked before was kept
    before, after = (
        [json.loads(line) for line in (each / "conversations" / "tools.jsonl").read_text().splitlines()]
        for each in (plain, directory)
    )
    assert len(after) >= 50
    for old, new in zip(before, after, strict=True):
        said = old["messages"][0]["content"]
        assert new["messages"][0]["content"] == (f"Now: {said}" if old["task"] == "lookalike" else said)
        assert new["messages"][1:] == old["messages"][1:]
    report = json.loads((directory / "report" / "tools.json").read_text())
    assert report["kinds"]["lookalike"] == {"kept": 20, "reworded": 20, "wording: a number was added": 20}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kinds": ("single", "sigle")}, "kinds: value 'sigle': must be one of single, multiple"),
        ({"kinds": ()}, "give at least one, and none twice"),
        ({"kinds": ("single", "single")}, "none twice"),
        ({"unseen": ("clocks",)}, "unseen: value 'clocks': must be one of weather, calendar"),
        ({"per_kind": 0}, "per_kind: value 0: must be at least 1"),
        ({"wordings": 0}, "wordings: value 0"),
        ({"temperature": float("nan")}, "temperature: value nan"),
        ({"served": "model"}, "a server needs both"),
    ],
)
def test_wrong_fields(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        SynthesizeTools(**fields)


def test_without_isolation_programs_are_refused_in_one_line_with_a_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pippin.safety.sandbox.shutil.which", lambda name: None)
    with pytest.raises(UserError) as caught:
        ran(SynthesizeTools(kinds=("single", "python"), per_kind=2), tmp_path)
    assert "\n" not in str(caught.value)
    assert "'python' runs programs" in str(caught.value) and "leave python and search out" in str(caught.value)


def test_a_generator_that_errs_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = tools_examples.example

    def wrong(kind: str, seed: int, index: int) -> tools_examples.Example:
        of = right(kind, seed, index)
        return tools_examples.Example(of.kind, of.offered, of.messages, ((1, []),), of.asked)

    monkeypatch.setattr(tools_examples, "example", wrong)
    with pytest.raises(ValueError, match="message 1: no call expected"):
        ran(SynthesizeTools(kinds=("single",), per_kind=2), tmp_path)
