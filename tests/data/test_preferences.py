"""Pairs of every layout read alike; what is wrong is said with its line and field; no prompt is on both sides."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pippin.data.preferences import LEVELS, read_preferences
from pippin.errors import UserError

ASKED = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Where?"}]


def pair(number: int = 0, **others: Any) -> dict[str, Any]:
    return {
        "prompt": [{"role": "user", "content": f"What is {number}?"}],
        "chosen": f"It is {number}.",
        "rejected": "No idea.",
        "level": LEVELS[number % 4],
        "grades": {"chosen": {"truthfulness": 2, "conciseness": None}, "rejected": None},
    } | others


MANY = [pair(n) for n in range(200)]


def write(path: Path, *values: object) -> Path:
    path.write_text("".join((v if isinstance(v, str) else json.dumps(v)) + "\n" for v in values), encoding="utf-8")
    return path


def test_the_split_is_by_prompt_and_what_is_left_out_is_counted(tmp_path: Path) -> None:
    turned = [pair(n, chosen="No idea.", rejected=f"It is {n}.") for n in range(200)]
    equal = [pair(n, chosen="No idea.") for n in range(3)]
    found = read_preferences(write(tmp_path / "p.jsonl", *MANY, "", *turned, *MANY[:7], *equal), 0.25)
    assert (len(found.pairs), found.repeated, found.equal, found.apart) == (400, 7, 3, 0)
    sides: dict[str, set[str]] = {}
    for each in found.pairs:
        sides.setdefault(each["prompt"][0]["content"], set()).add(each["split"])
    assert all(len(side) == 1 for side in sides.values())
    assert 0.15 < sum(side == {"heldout"} for side in sides.values()) / 200 < 0.35
    assert found.pairs[200]["id"] == "p.jsonl:202"  # the empty line counts
    assert found.pairs[3]["level"] == "negligibly better"
    assert found.pairs[3]["grades"] == {"chosen": {"truthfulness": 2}, "rejected": {}}


def test_every_form_of_file_gives_the_same(tmp_path: Path) -> None:
    pairs = read_preferences(write(tmp_path / "p.jsonl", *MANY), 0.25).pairs
    (tmp_path / "p.json").write_text(json.dumps(MANY))
    (tmp_path / "p.json.gz").write_bytes(gzip.compress(json.dumps(MANY).encode()))
    pq.write_table(pa.Table.from_pylist(MANY), tmp_path / "p.parquet")
    for name in ("p.json", "p.json.gz", "p.parquet"):
        found = read_preferences(tmp_path / name, 0.25).pairs
        assert [each | {"id": ""} for each in found] == [each | {"id": ""} for each in pairs]


@pytest.mark.parametrize(
    "line",
    [
        {"prompt": ASKED, "chosen": "Here.", "rejected": "There."},
        {
            "prompt": ASKED,
            "chosen": [{"role": "assistant", "content": "Here."}],
            "rejected": [*ASKED, {"role": "assistant", "content": "There."}],
        },
        {
            "conversations": [{"from": "system", "value": "Be brief."}, {"from": "human", "value": "Where?"}],
            "chosen": {"from": "gpt", "value": "Here."},
            "rejected": {"from": "gpt", "value": "There."},
        },
    ],
)
def test_layouts(tmp_path: Path, line: dict[str, Any]) -> None:
    found = read_preferences(write(tmp_path / "p.jsonl", line, *MANY), 0.25).pairs[0]
    assert (found["prompt"], found["chosen"], found["rejected"]) == (ASKED, "Here.", "There.")
    assert (found["level"], found["grades"]) == (None, {"chosen": {}, "rejected": {}})


def test_hh_dialogues_and_a_prompt_that_is_text(tmp_path: Path) -> None:
    start = "\n\nHuman: Where?\n\nAssistant: Where what?\n\nHuman: The\n\ndoor.\n\nAssistant:"
    hh = {"chosen": f"{start} Here.", "rejected": f"{start}"}
    apart = {"chosen": f"{start} Here.", "rejected": "\n\nHuman: Who?\n\nAssistant: You."}
    asked = [{"role": "user", "content": "Where?"}]
    text = {
        "prompt": "Where?",
        "chosen": [*asked, {"role": "assistant", "content": "Here."}],
        "rejected": [*asked, {"role": "assistant", "content": "There."}],
    }
    found = read_preferences(write(tmp_path / "p.jsonl", hh, apart, text, *MANY), 0.25)
    assert found.apart == 1
    assert [m["content"] for m in found.pairs[0]["prompt"]] == ["Where?", "Where what?", "The\n\ndoor."]
    assert (found.pairs[0]["chosen"], found.pairs[0]["rejected"]) == ("Here.", "")
    assert found.pairs[1]["prompt"] == asked


def rated(text: str, *ratings: object, **others: Any) -> dict[str, Any]:
    """A completion as UltraFeedback has it."""
    aspects = ("instruction_following", "honesty", "truthfulness", "helpfulness")
    notes = {
        aspect: {"Rating": str(rating), "Rationale": "."} for aspect, rating in zip(aspects, ratings, strict=False)
    }
    return {"model": "m", "response": text, "annotations": notes} | others


def test_graded_completions_are_pairs_by_how_far_they_lie_apart(tmp_path: Path) -> None:
    row = {
        "instruction": "Where?",
        "completions": [
            rated("a", 5, 5, 5, 5, overall_score=1),  # 5: the ratings count
            rated("b", 4, 5, 4, 3),  # 4
            rated("c", 2, 3, "N/A", 3),  # 2.666...
            rated("d", **{"fine-grained_score": 3.75}),
            {"response": "e", "overall_score": 8},  # 4 of 5
        ],
    }
    found = read_preferences(write(tmp_path / "p.jsonl", row, *MANY), 0.25)
    pairs = [each for each in found.pairs if each["prompt"][0]["content"] == "Where?"]
    levels = {each["chosen"] + each["rejected"]: each["level"] for each in pairs}
    assert levels == {
        "ab": "better", "ac": "significantly better", "ad": "better", "ae": "better", "bc": "better",
        "bd": "negligibly better", "dc": "better", "ec": "better", "ed": "negligibly better",
    }  # fmt: skip
    assert found.tied == 1
    assert [each["id"] for each in pairs[:2]] == ["p.jsonl:1.1", "p.jsonl:1.2"]
    assert len({each["split"] for each in pairs}) == 1
    assert pairs[1]["grades"] == {
        "chosen": {"instruction_following": 2, "truthfulness": 2}, "rejected": {"instruction_following": 0}
    }  # fmt: skip
    thirds = {"prompt": "Who?", "completions": [rated("a", 2, 3, 3), rated("b", 1, 2, 2)]}
    (pair_,) = read_preferences(write(tmp_path / "p.jsonl", *MANY, thirds), 0.25).pairs[200:]
    assert pair_["level"] == "better"  # 8/3 - 5/3 is below 1 in binary


def test_functions_are_in_the_prompt(tmp_path: Path) -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    call = {"role": "assistant", "content": None, "tool_calls": [{"name": "f", "arguments": {}}]}
    line = {"prompt": ASKED, "chosen": [*ASKED, call], "rejected": "f?", "tools": tools}
    found = read_preferences(write(tmp_path / "p.jsonl", line, *MANY), 0.25).pairs[0]
    assert found["prompt"][0]["content"].endswith('</tool_call>:\n{"name": "f", "parameters": {}}')
    assert found["prompt"][1:] == ASKED[1:]
    assert (found["chosen"], found["rejected"]) == ('<tool_call>{"name": "f", "arguments": {}}</tool_call>', "f?")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("{", "not valid JSON"),
        ("[]x", "not valid JSON"),
        ('"text"', "value 'text': must be an object"),
        ({"chosen": "a", "rejected": "b"}, "chosen: not a dialogue"),
        ({"completions": [rated("a", 1)]}, "prompt: value 'None': must be text or a list"),
        ({"prompt": "?", "completions": {}}, "completions: value '{}': must be a list of rated answers"),
        ({"prompt": "?", "completions": ["a"]}, r"completions\[0\]: value 'a': must be an object"),
        ({"prompt": "?", "completions": [{"response": "a"}]}, r"completions\[0\]: no annotations with a Rating"),
        (
            {"prompt": "?", "completions": [rated("a", "high")]},
            r"completions\[0\].annotations\['instruction_following'\].Rati",
        ),
        (
            {"prompt": "?", "completions": [rated("a", overall_score=11)]},
            r"completions\[0\].overall_score: value '11': must",
        ),
        ({"prompt": "?", "completions": [rated("a", overall_score=float("nan"))]}, r"completions\[0\].overall_score"),
        ({"prompt": "?", "completions": [rated("a", overall_score=True)]}, r"completions\[0\].overall_score"),
        (pair(prompt=[]), r"prompt: value '\[\]': must be text or a list"),
        (pair(prompt=None, chosen=[{"role": "assistant", "content": "a"}]), "prompt: value 'None'"),
        (pair(prompt=[{"role": "human", "content": "a"}]), r"prompt\[0\].role: value 'human': must be one of system"),
        (pair(prompt=[{"role": ["user"], "content": "a"}]), r"prompt\[0\].role: value \"\['user'\]\""),
        (pair(chosen=None), "chosen: value 'None': must be text or a list"),
        (pair(rejected=[{"role": "user", "content": "a"}]), "rejected: the last message has role 'user'"),
        (pair(chosen=[*ASKED, {"role": "assistant", "content": "a"}]), "chosen: begins with other messages"),
        (pair(chosen="\ud800"), "chosen: holds half a character"),
        (pair(level="much better"), "level: value 'much better': must be one of significantly better"),
        (pair(level=["better"]), "level: value"),
        (pair(grades=[1]), "grades: value"),
        (pair(grades={"winner": {}}), "grades: unknown field 'winner'"),
        (pair(grades={"chosen": 2}), "grades.chosen: value '2': must be an object"),
        (pair(grades={"chosen": {"style": 1}}), "grades.chosen: unknown property 'style'"),
        (pair(grades={"rejected": {"truthfulness": 3}}), "grades.rejected.truthfulness: value '3': must be 0, 1 or 2"),
        (pair(grades={"rejected": {"truthfulness": float("nan")}}), "grades.rejected.truthfulness: value 'nan'"),
        (pair(grades={"rejected": {"truthfulness": True}}), "grades.rejected.truthfulness: value 'True'"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: object, expected: str) -> None:
    path = write(tmp_path / "p.jsonl", pair(1), line, pair(2))
    with pytest.raises(UserError, match=rf"p.jsonl:2: {expected}") as raised:
        read_preferences(path, 0.5)
    assert "\n" not in str(raised.value)


def test_wrong_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_preferences(tmp_path / "absent.jsonl", 0.5)
    with pytest.raises(UserError, match=r"p.jsonl:1: .* \(2 lines have errors\)"):
        read_preferences(write(tmp_path / "p.jsonl", "{", pair(), "{"), 0.5)
    with pytest.raises(UserError, match="none of its 1 pairs is on the heldout side"):
        read_preferences(write(tmp_path / "one.jsonl", pair()), 1e-9)
    with pytest.raises(UserError, match=r"p.json: not valid JSON"):
        read_preferences(write(tmp_path / "p.json", "[{"), 0.5)
    (tmp_path / "p.json.gz").write_bytes(gzip.compress(b"[]" * 99)[:-9])
    with pytest.raises(UserError, match="not a whole gzip file"):
        read_preferences(tmp_path / "p.json.gz", 0.5)
    (tmp_path / "p.parquet").write_bytes(b"PAR1 but no more")
    with pytest.raises(UserError, match="not a whole Parquet file"):
        read_preferences(tmp_path / "p.parquet", 0.5)


def test_published_pairs(test_data: Path) -> None:
    hh = read_preferences(test_data / "hh-rlhf" / "harmless-base-test.jsonl.gz", 0.1)
    assert len(hh.pairs) + hh.repeated + hh.equal + hh.apart == 2312
    assert hh.apart == 5
    demo = read_preferences(test_data / "preference" / "dpo_en_demo.json.gz", 0.1)
    assert (len(demo.pairs), demo.repeated, demo.equal, demo.apart) == (295, 5, 0, 0)
