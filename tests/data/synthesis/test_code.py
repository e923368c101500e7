"""Programming problems: right solutions are right, wrong ones are caught; tests of a harmless form; the selection."""

from __future__ import annotations

from typing import Any

import pytest

from pippin.data.synthesis.code_ask import Question, ask_question, ask_solution, ask_tests, read_question
from pippin.data.synthesis.code_problems import Problem, Template, problem
from pippin.data.synthesis.code_select import STUBS, select, stubs
from pippin.data.synthesis.code_templates import TEXTS
from pippin.data.synthesis.code_templates_numbers import NUMBERS
from pippin.data.synthesis.code_templates_search import SEARCH
from pippin.data.synthesis.code_tests import as_check, read_test, read_tests, renamed
from pippin.data.synthesis.code_topics import TOPICS

TEMPLATES = (*TEXTS, *SEARCH, *NUMBERS)


def test_there_are_71_topics_and_each_template_is_of_one() -> None:
    assert len(TOPICS) == len({topic.lower() for topic in TOPICS}) == 71
    assert len({template.topic for template in TEMPLATES}) == len(TEMPLATES) >= 30
    assert {template.topic for template in TEMPLATES} <= set(TOPICS)


def run(source: str, tests: list[str]) -> list[bool]:
    """What a solution of ours does, in this process: no model wrote it."""
    names: dict[str, Any] = {}
    exec(source, names)  # noqa: S102 - ours
    passed = []
    for test in tests:
        try:
            passed.append(bool(eval(test, names)))  # noqa: S307 - ours
        except Exception:
            passed.append(False)
    return passed


def hold(made: Problem) -> None:
    """Right solutions pass every test but the planted wrong one; wrong solutions fail one of the others."""
    wrong_test, empty_test = made.planted
    sound = [test for number, test in enumerate(made.tests) if number != wrong_test]
    for number, source in enumerate(made.solutions):
        passed = run(source, list(made.tests))
        if number in made.right:
            assert not passed[wrong_test], source
            assert passed.count(False) == 1, (source, [t for t, p in zip(made.tests, passed, strict=True) if not p])
        else:
            assert not all(run(source, sound)), source
    stub = run(stubs("stub_"), [renamed(made.tests[empty_test], _entry(made), f"stub_{i}") for i in range(len(STUBS))])
    assert all(stub)


def _entry(made: Problem) -> str:
    return made.signature.partition("(")[0]


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template.topic)
def test_right_solutions_pass_and_wrong_ones_are_caught(template: Template) -> None:
    made = problem(template, 0, 0)
    hold(made)
    assert made == problem(template, 0, 0)
    assert len(made.right) >= 2 and len(made.solutions) - len(made.right) >= 2
    assert "$" not in made.question + "".join(made.solutions)
    assert [read_test(f"assert {test}", template.entry) for test in made.tests] == list(made.tests)


@pytest.mark.slow
@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template.topic)
def test_many_draws_of_each_template(template: Template) -> None:
    for index in range(100):
        hold(problem(template, 1, index))


@pytest.mark.parametrize(
    ("line", "form"),
    [
        ("assert f(1) == 2", "f(1) == 2"),
        ("  assert f([1,2], k=3) == {'a': (1, -2.5)}, 'why'", "f([1, 2], k=3) == {'a': (1, -2.5)}"),
        ("assert sorted(f({1, 2})[1:]) == [0] * 3", "sorted(f({1, 2})[1:]) == [0] * 3"),
        ("assert abs(f(10 ** 9) - 0.5) < 1e-6", "abs(f(10 ** 9) - 0.5) < 1e-06"),
        ("assert f('x') is None and not f('')", "f('x') is None and (not f(''))"),
    ],
)
def test_plain_assertions_are_taken(line: str, form: str) -> None:
    assert read_test(line, "f") == form


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("assert f(1) ==", "not Python"),
        ("assert True", "does not call"),
        ("assert f == 1", "does not call"),
        ("x = f(1)", "not one assertion"),
        ("assert f(1) == 2; print('0')", "not one assertion"),
        ("import os", "not one assertion"),
        ("assert f(1) == g(2)", "another name"),
        ("assert f(open('token').read())", "a call of something else"),
        ("assert print('0') or f(1)", "another name"),
        ("assert f(1).__class__", "Attribute is not allowed"),
        ("assert f([x for x in (1, 2)])", "ListComp is not allowed"),
        ("assert f(lambda: 1)", "Lambda is not allowed"),
        ("assert f(f'{1}')", "JoinedStr is not allowed"),
        ("assert f(x := 1)", "NamedExpr is not allowed"),
        ("assert f(*[1])", "Starred is not allowed"),
        ("assert f(10 ** 10 ** 10)", "a large power"),
        ("assert f(1)(2)", "a call of something else"),
        ("assert f(1 << 60)", "LShift is not allowed"),
        ("assert f('" + "x" * 3_000 + "')", "too long"),
    ],
)
def test_anything_else_is_refused(line: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_test(line, "f")


def test_the_tests_of_an_answer() -> None:
    text = "Here:\n```python\nassert f(1) == 2\nassert f(1)==2\nfor i in x: assert f(i)\n  assert f(2) == 3 # b\n"
    text += "assert 1\n```\n1. `assert f(4) == 5`\n- assert f('`')\nThen assert f(6).\n"
    assert read_tests(text, "f") == ["f(1) == 2", "f(2) == 3", "f(4) == 5", "f('`')"]
    assert renamed("f(max(1, 2)) == f(3)", "f", "g") == "g(max(1, 2)) == g(3)"
    assert as_check(["f(1) == 2", "f(2)"]) == "def check(candidate):\n    assert f(1) == 2\n    assert f(2)\n"


T, F = True, False


def test_the_solution_with_most_passes_is_kept_above_the_threshold() -> None:
    passed = [[T, F, F, T], [T, T, T, F], [F, T, F, F]]
    found = select(passed, [], 0.75, 2)
    assert (found.solution, found.tests, found.share, found.reason) == (1, (0, 1, 2), 0.75, "")
    assert select(passed, [], 0.76, 2)[:4] == (None, (0, 1, 2, 3), 0.75, "below the threshold")
    assert select([passed[1], passed[1]], [], 0.5, 1).solution == 0  # the first of equals


def test_tests_that_everything_wrong_passes_do_not_count() -> None:
    passed = [[T, F, T, F], [T, T, T, T]]
    wrong = [[T, F, F, F], [T, T, F, F]]
    found = select(passed, wrong, 1.0, 3)
    assert (found.solution, found.tests, found.share, found.empty) == (1, (1, 2, 3), 1.0, (0,))
    assert select(passed, wrong, 1.0, 4).reason == "too few tests"
    # One wrong program fails it, so it says something.
    assert select(passed, [wrong[0], [F] * 4], 1.0, 3).tests == (0, 1, 2, 3)
    assert select([], [], 0.5, 1).reason == "too few tests"


def test_tests_that_no_solution_passes_go_but_count() -> None:
    found = select([[T, T, T, F], [T, F, F, F]], [], 0.75, 2)
    assert (found.solution, found.tests, found.share, found.never) == (0, (0, 1, 2), 0.75, (3,))
    assert select([[T, T, T, F], [T, F, F, F]], [], 0.8, 2).reason == "below the threshold"
    assert select([[F, F]], [], 0.5, 1)[:5] == (None, (0, 1), 0.0, "below the threshold", (0, 1))


def test_the_kept_tests_must_be_enough_too() -> None:
    passed = [[T, T, F, F], [F, F, T, F], [F, F, F, T]]
    assert select(passed, [], 0.5, 2).solution == 0
    assert select(passed, [], 0.5, 3).reason == "too few tests"


def test_a_question_is_read_from_an_answer() -> None:
    text = "```python\ndef longest(words: list[str], least: int = 1) -> str:\n    pass\n```\n"
    text += "Return the longest word, '' if none.\n"
    question = read_question(text)
    assert question == Question("Return the longest word, '' if none.", "longest(words, least=1)")
    assert question.entry == "longest"
    assert "def longest(words, least=1):" in question.message
    assert ask_question("tries")[0]["content"].count("tries") == 1
    assert (
        "Write 5 tests" in ask_tests(question, 5)[0]["content"]
        and "assert longest(" in ask_tests(question, 5)[0]["content"]
    )
    assert question.message in ask_solution(question)[0]["content"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Write something.", "not one function"),
        ("def f(x):\nor\ndef g(x):\nwhichever you like more, it is free", "not one function"),
        ("def f(x:):\nReturn the number twice, please, as a text.", "not one function"),
        ("def f(x):\n    return x\nReturn the number itself, nothing else.", "holds code"),
        ("def f(x):\nShort.", "too short"),
        ("def f(x):\n" + "long " * 1_000, "too long"),
    ],
)
def test_what_is_no_question(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_question(text)
