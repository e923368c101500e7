"""Synthetic code as a stage: the right solution is kept among planted wrong and hostile ones; errors are one line."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.chat_server import chat_server

from pippin.data.conversations import read_conversations
from pippin.data.prompts import read_prompts
from pippin.data.synthesis.code_topics import TOPICS
from pippin.errors import UserError
from pippin.evaluate.verify.prompts import Verifier
from pippin.pipeline import Graph
from pippin.progress import Screen
from pippin.safety.sandbox import Sandbox
from pippin.stages.synthesize_code import TEMPLATES, SynthesizeCode

SOME = ("palindromes", "tries")


@pytest.fixture(scope="module")
def isolated() -> None:
    try:
        Sandbox()
    except UserError as error:
        pytest.skip(str(error))


def ran(stage: SynthesizeCode, runs: Path) -> Path:
    graph = Graph({"code": stage}, runs)
    graph.run([], Screen(quiet=True))
    return graph.directory(stage)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.usefixtures("isolated")
def test_templates_offline(tmp_path: Path) -> None:
    stage = SynthesizeCode(topics=SOME, per_topic=1)
    directory = ran(stage, tmp_path / "a")
    report = json.loads((directory / "report" / "code.json").read_text())
    assert report["kept"] == report["topics_kept"] == 1
    assert report["questions"] == {"questions": 1, "topics without a template": 1}
    assert report["planted"] == {"right solution kept": 1, "wrong test kept": 0, "empty test kept": 0}
    assert report["tests"]["no solution passes"] + report["tests"]["only others pass"] == 1
    assert report["tests"]["wrong programs pass"] >= 1
    triplets = rows(directory / "triplets" / "code.jsonl")
    prompts = read_prompts(directory / "prompts" / "prompts.jsonl")
    assert [prompt["id"] for prompt in prompts] == [triplet["id"] for triplet in triplets]
    with Verifier() as verifier:
        for prompt, triplet in zip(prompts, triplets, strict=True):
            assert verifier.check(prompt, f"```python\n{triplet['solution']}```").correct
            assert not verifier.check(prompt, f"def {triplet['signature']}:\n    return None").correct
            assert f"def {triplet['signature']}:" in prompt["messages"][0]["content"]
    again = ran(stage, tmp_path / "b")
    for name in ("triplets/code.jsonl", "conversations/code.jsonl", "prompts/prompts.jsonl", "report/code.json"):
        assert (again / name).read_bytes() == (directory / name).read_bytes()
    with pytest.raises(UserError, match=r"none of its 1 conversations is on the heldout side"):
        read_conversations(directory / "conversations" / "code.jsonl", 1e-9)  # it is read


@pytest.mark.slow
@pytest.mark.usefixtures("isolated")
def test_every_template_offline(tmp_path: Path) -> None:
    directory = ran(SynthesizeCode(per_topic=3), tmp_path)
    report = json.loads((directory / "report" / "code.json").read_text())
    assert report["topics_kept"] == len(TEMPLATES)
    assert report["planted"] == {"right solution kept": report["kept"], "wrong test kept": 0, "empty test kept": 0}


QUESTION = "def twice(n):\nReturn twice the whole number, and 0 for None instead of a number."
RIGHT = "```python\ndef twice(n):\n    return 0 if n is None else 2 * n\n```\nThat is all."
TESTS = """assert twice(1) == 2
assert twice(3) == 6
assert twice(None) == 0
assert twice(2) == 5
assert twice(-4) == -8
assert isinstance(twice(7), object)
assert __import__('os')
assert print('0') or twice(1) == 2
"""
HANGS = "import time\ndef twice(n):\n    time.sleep(99)"
HOSTILE = {
    "forgets None": "def twice(n):\n    return 2 * n",
    "raises": "def twice(n):\n    raise ValueError(n)",
    "leaves": "import os\ndef twice(n):\n    os._exit(0)",
    "prose": "You could multiply it by two.",
}


class Interviewer:
    """A server with one question on each topic but queues; of its four solutions one is right, of `tries` none."""

    def __init__(self) -> None:
        self.asked = Counter[str]()

    def __call__(self, body: dict[str, Any]) -> str:
        asked = str(body["messages"][-1]["content"])
        self.asked[asked] += 1
        if "about this topic: queues" in asked:
            return "I would rather talk about something else."
        if "about this topic" in asked:
            return QUESTION + (" Think of tries." if "tries" in asked else "")
        if "tests of this function" in asked:
            return TESTS
        hostile = list(HOSTILE.values())
        return (hostile if "tries" in asked else [HANGS, *hostile[1:3], RIGHT])[self.asked[asked] - 1]


@pytest.mark.usefixtures("isolated")
def test_a_writers_solutions_are_run_and_the_right_one_is_kept(tmp_path: Path) -> None:
    with chat_server(Interviewer()) as (url, requests):
        topics = ("queues", "recursion", "tries")
        stage = SynthesizeCode(topics=topics, per_topic=2, run_s=4, served="interviewer", url=url, workers=1)
        assert stage.calls == 36
        directory = ran(stage, tmp_path / "runs")
    assert len(requests) == 6 + 2 * (1 + 4)  # the questions that came twice or were none cost nothing more
    report = json.loads((directory / "report" / "code.json").read_text())
    assert report["questions"] == {"question: not one function": 2, "questions": 2, "repeated": 2}
    assert report["kept"] == 1 and report["left_out"] == {"below the threshold": 1}
    (triplet,) = rows(directory / "triplets" / "code.jsonl")
    assert triplet["topic"] == "recursion" and triplet["share"] == 0.8
    assert triplet["solution"] == "def twice(n):\n    return 0 if n is None else 2 * n\n"
    # Without the wrong one, the empty one and the two that are no tests.
    assert triplet["tests"] == ["twice(1) == 2", "twice(3) == 6", "twice(None) == 0", "twice(-4) == -8"]
    assert report["planted"] == {}


def test_without_isolation_nothing_is_run_or_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pippin.safety.sandbox.shutil.which", lambda name: None)
    with pytest.raises(UserError) as caught:
        ran(SynthesizeCode(topics=SOME, per_topic=1), tmp_path)
    assert "\n" not in str(caught.value) and "not run without isolation" in str(caught.value)
    assert not list(tmp_path.rglob("code.json*"))


@pytest.mark.usefixtures("isolated")
def test_where_nothing_is_kept_one_line_says_why(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing is kept of 0 questions \(topics without a template 1\)"):
        ran(SynthesizeCode(topics=("tries",), per_topic=1), tmp_path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"topics": ("recursion", "cooking")}, "topics: value 'cooking': not one of the 71"),
        ({"topics": ()}, "give at least one"),
        ({"topics": ("tries", "tries")}, "none twice"),
        ({"threshold": 0}, "threshold: value 0: must be above 0"),
        ({"threshold": 1.1}, "threshold: value 1.1"),
        ({"min_tests": 0}, "min_tests: value 0: must be at least 1"),
        ({"run_s": 0}, "run_s: value 0"),
        ({"temperature": -1}, "temperature: value -1"),
        ({"max_calls": 0}, "max_calls: value 0"),
    ],
)
def test_wrong_fields(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        SynthesizeCode(**fields)


def test_the_cost_in_calls_is_known_before() -> None:
    stage = SynthesizeCode(served="m", url="http://x/v1")
    assert stage.calls == len(TOPICS) * 2 * 6
    assert stage.cost().other_s > SynthesizeCode().cost().other_s
    assert SynthesizeCode().calls == 0
