"""`pippin eval`: files of responses in, verdicts out; what cannot be graded is one line with file, line and field."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pippin.errors import UserError
from pippin.evaluate.verify.responses import grade_file

GSM8K = {"question": "How many?", "answer": "#### 18", "response": "The answer is 18."}
TITLE = {
    "prompt": "Write.", "instruction_id_list": ["detectable_format:title", "punctuation:no_comma"], "kwargs": [{}, {}],
    "response": "<<A>>\nb, c",
}  # fmt: skip
TOOL = {
    "question": [[{"role": "user", "content": "News?"}]],
    "function": [{"name": "news", "parameters": {"type": "dict", "properties": {"about": {"type": "string"}}}}],
    "ground_truth": [{"news": {"about": ["Oslo"]}}],
    "response": "[news(about='Oslo')]",
}


def written(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def graded(grade: Any, folder: Path, *rows: Any) -> dict[str, Any]:
    grade_file(grade, written(folder / "responses.jsonl", *rows), folder / "out.json")
    found: dict[str, Any] = json.loads((folder / "out.json").read_text(encoding="utf-8"))
    return found


def test_gsm8k(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = graded("gsm8k", tmp_path, GSM8K, GSM8K | {"response": "17"})
    assert found["accuracy"] == 0.5
    assert found["items"] == [
        {"index": 0, "correct": True, "extracted": "18", "detail": "equal"},
        {"index": 1, "correct": False, "extracted": "17", "detail": "expected 18"},
    ]
    assert "1 of 2 correct" in capsys.readouterr().out


def test_ifeval_lists_every_instruction(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("nltk", reason="needs pippin[eval]")
    found = graded("ifeval", tmp_path, TITLE)
    assert found["accuracy"] == 0
    (item,) = found["items"]
    assert (item["strict"], item["loose"]) == ([True, False], [True, True])
    said = capsys.readouterr().out
    assert "strict: prompts 0.0000, instructions 0.5000" in said
    assert "loose: prompts 1.0000, instructions 1.0000" in said


def test_a_json_list_behind_gzip_is_the_same(tmp_path: Path) -> None:
    path, out = tmp_path / "responses.json.gz", tmp_path / "out.json"
    path.write_bytes(gzip.compress(json.dumps([GSM8K, GSM8K | {"response": "17"}], indent=1).encode()))
    grade_file("gsm8k", path, out)
    assert json.loads(out.read_text(encoding="utf-8"))["accuracy"] == 0.5


def test_math(tmp_path: Path) -> None:
    pytest.importorskip("math_verify", reason="needs pippin[eval]")
    rows = [{"problem": "?", "solution": r"So \boxed{\frac12}.", "response": "$0.5$"}, {"answer": "2", "response": "3"}]
    assert graded("math", tmp_path, *rows)["accuracy"] == 0.5


def test_tools(tmp_path: Path) -> None:
    irrelevant = {key: value for key, value in TOOL.items() if key != "ground_truth"}
    assert graded("tools", tmp_path, TOOL, irrelevant, irrelevant | {"response": "No."})["accuracy"] == 2 / 3


@pytest.mark.parametrize(
    ("grade", "row", "said"),
    [
        ("gsm8k", {"answer": "#### 1"}, "response: missing"),
        ("gsm8k", GSM8K | {"answer": 18}, "answer: '18' is int; expected a text"),
        ("gsm8k", GSM8K | {"answer": "none"}, "holds no number"),
        ("math", {"response": "1"}, "solution: missing"),
        ("ifeval", TITLE | {"kwargs": [{}]}, "kwargs: 1 for 2"),
        ("ifeval", TITLE | {"kwargs": [1, {}]}, "kwargs: '1' is no object"),
        ("ifeval", TITLE | {"instruction_id_list": [1, 2]}, "instruction_id_list: 1 is no text"),
        ("tools", TOOL | {"function": [{"parameters": {}}]}, "name: missing"),
        ("tools", TOOL | {"ground_truth": [{"news": ["Oslo"]}]}, "ground_truth: news"),
        ("tools", TOOL | {"ground_truth": [{"news": {"about": "Oslo"}}]}, "about: 'Oslo' is str; expected a list"),
        ("tools", TOOL | {"ground_truth": [{}]}, "ground_truth: an empty object"),
        ("tools", {key: TOOL[key] for key in ("function", "ground_truth")}, "response: missing"),
        ("gsm8k", [1], "a list; an object is expected"),
    ],
)
def test_a_row_that_cannot_be_graded(tmp_path: Path, grade: Any, row: Any, said: str) -> None:
    good = {"gsm8k": GSM8K, "ifeval": TITLE, "tools": TOOL}.get(grade)
    rows = [good, row] if good is not None and grade != "ifeval" else [row]
    with pytest.raises(UserError) as caught:
        graded(grade, tmp_path, *rows)
    assert said in str(caught.value)
    assert str(caught.value).startswith(f"{tmp_path / 'responses.jsonl'}:{len(rows)}: ")
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize("text", ['{"answer": \n', "\xff\xfe", "[" * 100_000, "", "\n\n"])
def test_a_damaged_or_empty_file_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "responses.jsonl"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"not valid JSON|not UTF-8|holds no response"):
        grade_file("gsm8k", path, None)


def test_the_command(tmp_path: Path) -> None:
    path, out = written(tmp_path / "responses.jsonl", GSM8K), tmp_path / "out.json"
    command = [sys.executable, "-m", "pippin.cli", "eval", "--grade", "gsm8k", "--responses"]
    done = subprocess.run([*command, str(path), "--json", str(out)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(out.read_text(encoding="utf-8"))["accuracy"] == 1
    done = subprocess.run([*command, str(tmp_path / "absent")], capture_output=True, text=True, timeout=60)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)


BLOCK = """
import sys
from importlib.machinery import PathFinder

find = PathFinder.find_spec
names = {"torch", "nltk", "langdetect", "math_verify", "sympy"}
PathFinder.find_spec = lambda name, *rest: None if name.split(".")[0] in names else find(name, *rest)
"""


@pytest.mark.parametrize(("grade", "row"), [("ifeval", {"num_sentences": 1, "relation": "at least"}), ("gsm8k", {})])
def test_a_missing_extra_is_one_line_and_gsm8k_needs_none(tmp_path: Path, grade: str, row: dict[str, Any]) -> None:
    sentences = {"instruction_id_list": ["length_constraints:number_sentences"], "kwargs": [row], "response": "A b."}
    path = written(tmp_path / "responses.jsonl", GSM8K if grade == "gsm8k" else sentences)
    code = f"sys.argv = ['pippin', 'eval', '--grade', {grade!r}, '--responses', {str(path)!r}]\n"
    code += "from pippin.cli import main\nmain()"
    done = subprocess.run([sys.executable, "-c", BLOCK + code], capture_output=True, text=True, timeout=60)
    if grade == "gsm8k":
        assert done.returncode == 0, done.stderr
    else:
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
        assert "pippin[eval]" in done.stderr
