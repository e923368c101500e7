"""Prompts of the generated world and of a file: both sides, verifiers that know right from wrong, errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.stages.speaking import prompts

from pippin.data.prompts import Prompt
from pippin.data.world_tasks import TASKS, exercise
from pippin.data.world_words import Draw
from pippin.errors import UserError
from pippin.evaluate.verify.prompts import Verifier
from pippin.pipeline import Context, Graph, Stage
from pippin.progress import Screen
from pippin.stages.prompts import STREAM, Prompts, prompts_of


def made(place: Path, stage: Prompts) -> list[Prompt]:
    graph = Graph({"prompts": stage}, place)
    graph.run(["prompts"], Screen(quiet=True))
    ctx = Context(graph, "prompts", Screen(quiet=True))
    return [*prompts_of(ctx, stage, "train"), *prompts_of(ctx, stage, "heldout")]


def answers(found: list[Prompt]) -> dict[str, str]:
    """The right answer of each prompt of the world, drawn again."""
    right = {}
    for prompt in found:
        seed, index = (int(part) for part in prompt["id"].rsplit(":", 2)[1:])
        draw = Draw(STREAM, prompt["split"], seed, index)
        drawn = exercise(prompt["source"], draw, prompt["split"])
        while drawn.question != prompt["messages"][0]["content"]:  # one that the style of benchmarks leaves out
            drawn = exercise(prompt["source"], draw, prompt["split"])
        right[prompt["id"]] = drawn.answer
    return right


def test_exercises_of_both_sides_with_their_answers(tmp_path: Path) -> None:
    found = made(tmp_path, Prompts(tasks=tuple(TASKS), train=40, heldout=30))
    assert [p["split"] for p in found] == ["train"] * 40 + ["heldout"] * 30
    assert {p["source"] for p in found} == set(TASKS)
    asked = {
        split: {p["messages"][0]["content"] for p in found if p["split"] == split} for split in ("train", "heldout")
    }
    assert not asked["train"] & asked["heldout"]
    right = answers(found)
    with Verifier() as verifier:
        assert all(verifier.check(p, f" {right[p['id']]}\n").correct for p in found)
        assert not any(verifier.check(p, f"{right[p['id']]}x").correct for p in found)


def test_the_style_of_benchmarks_tells_right_from_wrong(tmp_path: Path) -> None:
    found = made(tmp_path, Prompts(tasks=("add", "form"), train=2, heldout=200, style="benchmark"))
    right = answers(found)
    kinds = {p["source"]: p["verifier"]["kind"] for p in found if p["verifier"]}
    assert kinds == {"add": "gsm8k", "form": "ifeval"}
    seen = set()
    with Verifier() as verifier:
        for prompt in found:
            verdict = verifier.check(prompt, f"The answer is {right[prompt['id']]}")
            assert verdict.correct, (prompt, verdict)
            if prompt["source"] == "add":
                assert not verifier.check(prompt, str(int(right[prompt["id"]]) + 1)).correct
            else:
                words = prompt["messages"][0]["content"].rpartition(": ")[2]
                assert not verifier.check(prompt, words).correct  # without its form
                assert prompt["verifier"]
                seen |= set(prompt["verifier"]["instruction_id_list"])
    assert seen == {"keywords:existence", "keywords:frequency", "detectable_content:number_placeholders"}


def test_a_file_is_taken_as_it_is(tmp_path: Path) -> None:
    found = made(tmp_path, Prompts(data=str(prompts(tmp_path / "prompts.jsonl", 8))))
    assert [p["split"] for p in found] == ["train"] * 6 + ["heldout"] * 2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "give either a file of them"),
        ({"data": "x", "tasks": ("add",)}, "give either a file of them"),
        ({"tasks": ("adding",), "train": 1, "heldout": 1}, "tasks: 'adding': the world has add, sort"),
        ({"tasks": ("add",), "train": 1}, "train=1, heldout=0: both sides need a prompt"),
        ({"tasks": ("sort",), "train": 1, "heldout": 1, "style": "benchmark"}, "there are add and form only"),
        ({"tasks": ("add",), "train": 1, "heldout": 1, "style": "free"}, "style=free: must be exact or benchmark"),
    ],
)
def test_what_is_wrong_is_one_line(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Prompts(**fields)


def test_a_side_without_prompts_is_said(tmp_path: Path) -> None:
    stage: Stage = Prompts(data=str(prompts(tmp_path / "prompts.jsonl", 2)))
    graph = Graph({"asked": stage}, tmp_path)
    graph.run(["asked"], Screen(quiet=True))
    one_side = tmp_path / "one.jsonl"
    one_side.write_text((tmp_path / "prompts.jsonl").read_text().splitlines()[1] + "\n")
    stage = Prompts(data=str(one_side))
    graph = Graph({"asked": stage}, tmp_path)
    graph.run(["asked"], Screen(quiet=True))
    with pytest.raises(UserError, match="has no heldout prompts"):
        prompts_of(Context(graph, "asked", Screen(quiet=True)), stage, "heldout")
