"""Every kind of verifier judges through a prompt as `pippin eval` does on a file; what is missing is one line."""

from __future__ import annotations

from typing import Any

import pytest

from pippin.data.prompts import KINDS, Prompt
from pippin.errors import UserError
from pippin.evaluate.verify.prompts import Verifier


def prompt(verifier: dict[str, Any] | None) -> Prompt:
    asked: Prompt = {
        "id": "p7", "split": "heldout", "messages": [{"role": "user", "content": "?"}], "verifier": verifier,
        "source": "",
    }  # fmt: skip
    return asked


AREA = {"name": "area", "parameters": {"type": "dict", "properties": {"side": {"type": "integer"}}}}
CASES: dict[str, tuple[dict[str, Any], str, str, str | None]] = {  # verifier, right, wrong, the package it needs
    "exact": ({"answer": " seven\n"}, "\nseven ", "Seven", None),
    "gsm8k": ({"answer": "3 + 4 = 7\n#### 7"}, "So the answer is 7.0.", "It is 8.", None),
    "math": ({"answer": r"\frac12"}, r"Thus \boxed{0.5}.", r"\boxed{2}", "math_verify"),
    "ifeval": ({"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}, "a b", "a, b", "nltk"),
    "tools": (
        {"function": [AREA], "ground_truth": [{"area": {"side": [3]}}]},
        "[area(side=3)]",
        "[area(side=4)]",
        None,
    ),
}


@pytest.mark.parametrize("kind", CASES)
def test_right_and_wrong(kind: str) -> None:
    verifier, right, wrong, needed = CASES[kind]
    if needed:
        pytest.importorskip(needed, reason="needs pippin[eval]")
    asked = prompt({"kind": kind} | verifier)
    with Verifier() as judge:
        assert judge.check(asked, right).correct
        assert not judge.check(asked, wrong).correct
        assert not judge.check(asked, "").correct


def test_code_is_run() -> None:
    from pippin.safety.sandbox import Sandbox

    try:
        Sandbox()
    except UserError as error:
        pytest.skip(str(error))
    problem = {
        "kind": "code", "prompt": "def twice(n):\n", "test": "def check(f):\n    assert f(3) == 6\n",
        "entry_point": "twice",
    }  # fmt: skip
    with Verifier() as judge:
        assert judge.check(prompt(problem), "    return 2 * n\n").correct
        assert not judge.check(prompt(problem), "    return n\n").correct


def test_every_kind_is_tried_here() -> None:
    assert {*CASES, "code"} == set(KINDS)


def test_the_mathematics_child_ends_with_the_verifier() -> None:
    pytest.importorskip("math_verify", reason="needs pippin[eval]")
    with Verifier() as judge:
        judge.check(prompt({"kind": "math", "answer": "2"}), "2")
        (checker,) = [cell.cell_contents for cell in judge._graders["math"].__closure__ or ()]
        child = checker._child
        assert child.poll() is None
    assert child.poll() is not None


@pytest.mark.parametrize(
    ("verifier", "said"),
    [
        (None, "prompt p7: has no verifier"),
        ({"kind": "gsm8k", "answer": "none"}, "prompt p7: verifier: answer 'none': holds no number"),
        ({"kind": "ifeval", "instruction_id_list": ["a"], "kwargs": []}, "prompt p7: verifier: kwargs: 0 for 1"),
        ({"kind": "tools", "function": [3]}, "prompt p7: verifier: function: '3' is no object"),
    ],
)
def test_what_cannot_be_judged(verifier: dict[str, Any] | None, said: str) -> None:
    with Verifier() as judge, pytest.raises(UserError) as raised:
        judge.check(prompt(verifier), "7")
    assert str(raised.value).startswith(said)
