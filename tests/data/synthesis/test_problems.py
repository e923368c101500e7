"""Word problems: every answer against an independent computation, every reversal by brute force."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from pippin.data.synthesis.families import FAMILIES
from pippin.data.synthesis.problems import Family, Problem, deepened, draw_problem, rephrased, step, turned_round
from pippin.data.world_words import Draw

# What each family asks, written down a second time and from its text alone.
EXPECTED: dict[str, Callable[..., float]] = {
    "change": lambda n, price, paid: paid - n * price,
    "wages": lambda rate, hours, days, spent: rate * hours * days - spent,
    "savings": lambda start, weekly, weeks: start + weeks * weekly,
    "goal": lambda goal, gift, weekly, weeks: goal - gift - weekly * weeks,
    "tickets": lambda adults, full, children, half: adults * full + children * half,
    "discount": lambda price, percent: price * (100 - percent) / 100,
    "boxes": lambda boxes, each, people: boxes * each / people,
    "giving": lambda had, first, second: had - (first + second),
    "fraction": lambda april, part: april * (1 + 1 / part),
    "rows": lambda rows, per, lost: rows * per - lost,
    "legs": lambda hens, goats: 2 * (hens + 2 * goats),
    "harvest": lambda sacks, weight, kept, carts: (sacks * weight - kept) / carts,
    "two_speeds": lambda v, h, w, g: v * h + w * g,
    "pause": lambda way, speed, pause: way / speed + pause,
    "catching_up": lambda ahead, fast, slow: ahead / (fast - slow),
    "ages": lambda age, times, years: years + times * age,
    "siblings": lambda young, gap, years: (young + years) + (young + gap + years),
    "reading": lambda pages, daily, days, faster: (pages - days * daily) / faster,
    "mean": lambda a, b, c: (a + b + c) / 3,
    "outing": lambda classes, pupils, adults, seats: (classes * pupils + adults) / seats,
    "fence": lambda length, width, price: 2 * (length + width) * price,
    "tiles": lambda length, width, tile, spare: length * width / tile + spare,
    "tank": lambda volume, inflow, outflow: volume / (inflow - outflow),
    "watering": lambda beds, cans, litres, stock: stock - beds * cans * litres,
    "workshop": lambda machines, hourly, hours, bad, pack: (machines * hourly * hours - bad) / pack,
    "team": lambda people, each, done, days: done + days * people * each,
    "cooling": lambda start, drop, hours: start - hours * drop,
}
EQUATION = re.compile(r"(\d+|[a-z][A-Za-z ]*) ([-+*/]) (\d+|[a-z][A-Za-z ]*) = (?:(\d+) ([-+*/]) (\d+) = )?(\d+)")
OPERATIONS: dict[str, Callable[[float, float], float]] = {
    "+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b, "/": lambda a, b: a / b,
}  # fmt: skip
DEEPER = {"more": 1, "less": -1}


def drawn(family: Family, n: int = 8) -> list[Problem]:
    return [draw_problem(family, Draw("test", family.name, i)) for i in range(n)]


def last_number(text: str) -> int:
    return int(re.findall(r"\d+", text)[-1])


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_answers_are_those_of_another_computation(family: Family) -> None:
    for problem in drawn(family):
        assert problem.answer == pytest.approx(EXPECTED[family.name](**problem.numbers), rel=1e-12)
        assert problem.solution.endswith(f"The answer is {problem.answer}.")


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_every_wording_states_every_number_once(family: Family) -> None:
    assert len(family.wordings) == 3
    for statement, question in family.wordings:
        slots = re.findall(r"\{(\w+)\}", statement)
        assert Counter(slot for slot in slots if slot in family.numbers) == Counter(family.numbers.keys())
        assert not set(re.findall(r"\{(\w+)\}", question)) & family.numbers.keys(), "it would be lost in a reversal"
        assert question.endswith("?") and statement.endswith(".")
    for problem in drawn(family):
        shown = Counter(re.findall(r"\d+", problem.text))
        assert not Counter(str(value) for value in problem.numbers.values()) - shown
        assert "{" not in problem.text + problem.solution


def check_equations(solution: str) -> int:
    """Every equation of a solution holds; the last value is the answer."""
    value = -1.0
    for left, sign, right, a, inverse, b, result in EQUATION.findall(solution):
        if a:  # "From x * 3 = 12 follows": the first part has an unknown
            assert OPERATIONS[inverse](int(a), int(b)) == int(result), solution
        elif left.isdigit() and right.isdigit():
            assert OPERATIONS[sign](int(left), int(right)) == int(result), solution
        value = int(result)
    assert value == last_number(solution), solution
    return int(value)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_solutions_compute(family: Family) -> None:
    for problem in drawn(family):
        assert check_equations(problem.solution) == problem.answer
        # the equations are those printed: at least one a step
        assert len(EQUATION.findall(problem.solution)) == len(family.steps)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_reversal_has_the_hidden_number_as_its_only_answer(family: Family) -> None:
    found = set()
    for number, problem in enumerate(drawn(family)):
        back = turned_round(problem, Draw("back", number))
        assert back is not None
        hidden = back.hidden
        found.add(hidden)
        assert back.answer == problem.numbers[hidden]
        fits = []
        for x in range(1, 1_001):
            try:
                value = EXPECTED[family.name](**{**problem.numbers, hidden: x})
            except ZeroDivisionError:
                continue
            if abs(value - problem.answer) < 1e-9:
                fits.append(x)
        assert fits == [back.answer], f"{hidden} of {problem.text}"
        assert check_equations(back.solution) == back.answer
        statement = back.text[: back.text.rindex("What is x?")]
        assert re.search(r"\bx\b", statement)
        assert re.findall(r"\d+", statement)[-1] == str(problem.answer), "the answer is given"
        assert turned_round(back, Draw(0)) is None
    assert len(found) > 1 or problem.hideable() == list(found), "not always the same number is hidden"


def test_a_number_that_is_needed_twice_is_not_hidden() -> None:
    siblings = next(family for family in FAMILIES if family.name == "siblings")
    assert draw_problem(siblings, Draw(1)).hideable() == ["gap", "years"]
    square = Family(
        "square", "t", {"a": (2, 9)}, (step("area", "a * a", "{eq}"),), (("{who} {a}.", "How many?"),) * 3, "it"
    )
    problem = draw_problem(square, Draw(1))
    assert problem.hideable() == [] and turned_round(problem, Draw(1)) is None


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_deeper_problems_have_one_more_step_and_are_right(family: Family) -> None:
    for number, problem in enumerate(drawn(family)):
        deeper, expected = problem, problem.answer
        for depth in (1, 2):
            before = deeper.text
            after = deepened(deeper, Draw("deep", number, depth))
            assert after is not None
            added = after.text[len(before[: before.rindex(deeper_question(deeper))]) :]
            k = after.numbers[f"k{depth}"]
            friend = after.words[f"friend{depth}"]
            assert friend not in before
            if match := re.search(rf"\bis {k}(?: \w+)? (more|less) than", added):
                expected += DEEPER[match[1]] * k
            else:
                left, right = re.split(rf" is {k} times ", added.partition(".")[0])
                expected = expected * k if friend in left else expected // k
                assert friend in left or expected * k == deeper.answer, right
            assert after.answer == expected
            assert len(after.steps) == len(deeper.steps) + 1
            assert check_equations(after.solution) == expected
            back = turned_round(after, Draw(number))
            assert back is not None and check_equations(back.solution) == back.answer
            assert after.text.startswith(before[: before.rindex(deeper_question(deeper))])
            deeper = after


def deeper_question(problem: Problem) -> str:
    _, question = problem.family.wordings[problem.wording]
    return (problem.question or question).format(**problem.words)


def test_other_words_keep_numbers_and_answer() -> None:
    for family in FAMILIES:
        problem = draw_problem(family, Draw(family.name))
        others = [rephrased(problem, number) for number in range(3)]
        assert others[2] is None, "three wordings: its own and two more"
        assert len({problem.text, *(other.text for other in others if other)}) == 3
        for other in filter(None, others):
            assert (other.answer, other.numbers, other.words) == (problem.answer, problem.numbers, problem.words)
        back = turned_round(problem, Draw(3))
        assert back is not None
        again = rephrased(back, 0)
        assert again is not None and again.answer == back.answer and again.text != back.text


def test_draws_depend_on_the_key_alone() -> None:
    texts = [draw_problem(family, Draw("again", i)).text for i, family in enumerate(FAMILIES)]
    assert texts == [draw_problem(family, Draw("again", i)).text for i, family in enumerate(FAMILIES)]
    assert len({draw_problem(FAMILIES[0], Draw("many", i)).text for i in range(200)}) == 200
    assert len({family.name for family in FAMILIES}) == len(FAMILIES) == len(EXPECTED) >= 12
    assert len({family.topic for family in FAMILIES}) >= 6
    assert {len(family.steps) for family in FAMILIES} == {2, 3, 4}


def test_numbers_that_give_no_whole_values_are_no_problem() -> None:
    family = replace(FAMILIES[0], numbers={"n": (2, 3), "price": (90, 99), "paid": (10, 20)})
    with pytest.raises(ValueError, match="no numbers in these ranges"):
        draw_problem(family, Draw(1))
    problem = draw_problem(FAMILIES[0], Draw(1))
    with pytest.raises(ValueError, match="out of range"):
        problem.values(paid=1)
