from __future__ import annotations

import re
from collections import Counter
from typing import get_args

import pytest

from pippin.data import world
from pippin.data.records import Instruction, Split
from pippin.data.world_check import leaks
from pippin.data.world_stories import PLOTS, story
from pippin.data.world_tasks import LENGTH_TASKS, TASKS, Exercise, exercise
from pippin.data.world_words import COLORS, FOODS, LIST_WORDS, NAMES, PLACES, Draw, heldout, list_key, sum_key
from pippin.evaluate.exact_match import grade, majority_answers, nearest_answers


@pytest.fixture(scope="module")
def documents() -> list[tuple[str, Split]]:
    made = [make(7, i) for make in (world.story_document, world.task_document) for i in range(1500)]
    return [(document["text"], document["split"]) for document in made]


@pytest.fixture(scope="module")
def train() -> list[Instruction]:
    return [world.instruction(7, i, "train") for i in range(6000)]


@pytest.fixture(scope="module")
def test() -> list[Instruction]:
    return [world.instruction(7, i, "heldout") for i in range(100 * (len(TASKS) + len(LENGTH_TASKS)))]


def spoken(record: Instruction) -> str:
    return "\n".join(message["content"] for message in record["messages"])


def test_no_heldout_combination_is_in_training_text(
    documents: list[tuple[str, Split]], train: list[Instruction]
) -> None:
    texts = [text for text, split in documents if split == "train"] + [spoken(record) for record in train]
    assert [leak for text in texts for leak in leaks(text)] == []


def test_every_heldout_question_has_a_heldout_combination(test: list[Instruction]) -> None:
    for record in test:
        if record["task"] != "summary":  # its combination is the plot with its hero, which no pattern finds
            assert list(leaks(spoken(record))), record


def test_heldout_summaries_are_of_stories_that_training_never_tells(
    documents: list[tuple[str, Split]], train: list[Instruction], test: list[Instruction]
) -> None:
    told = {story(Draw("any", i), "train").summary for i in range(2000)}
    told |= {str(record["answer"]) for record in train if record["task"] == "summary"}
    lines = [line for text, split in documents if split == "train" for line in text.split("\n")]
    told |= {line.removeprefix("Summary: ") for line in lines}
    assert told.isdisjoint(record["answer"] for record in test if record["task"] == "summary")


@pytest.mark.parametrize(
    "text",
    [
        "{a} + {b} = 1", "{b} + {a} = 1", "Add {b} and {a}.", "Q: What is {a} + {b}?",
        "Tom has {a} figs. Mia gives him {b} more. How many figs does Tom have?",
    ],
)  # fmt: skip
def test_the_search_finds_sums(text: str) -> None:
    pairs = [(a, b) for a in range(2, 60) for b in range(2, 40)]
    held = next(pair for pair in pairs if heldout("sum", sum_key(*pair)))
    free = next(pair for pair in pairs if not heldout("sum", sum_key(*pair)))
    assert list(leaks(text.format(a=held[0], b=held[1])))
    assert not list(leaks(text.format(a=free[0], b=free[1])))


@pytest.mark.parametrize(
    "shape",
    [
        "{0} {1} {2}", "x: {2} {0} {1} -> y", "[{1}] [{2}] [{0}]", "{0}, {1}, {2}", "1. {0} 2. {1} 3. {2}",
        "{0} {1} {2} {0} {1} {2}",
    ],
)  # fmt: skip
def test_the_search_finds_lists_in_every_order_and_form(shape: str) -> None:
    triples = [(a, b, "fox") for a in LIST_WORDS[:8] for b in LIST_WORDS[8:16]]
    held = next(t for t in triples if heldout("words", list_key(t)))
    free = next(t for t in triples if not heldout("words", list_key(t)))
    assert list(leaks(shape.format(*held)))
    assert list(leaks(shape.format(*held).upper()))
    assert not list(leaks(shape.format(*free)))


def test_the_search_finds_facts_and_lengths() -> None:
    held = next(name for name in NAMES if heldout("item", f"{name} red ball"))
    assert list(leaks(f'One day {held} saw a red ball. "Is it yours?"'))
    assert not list(leaks(f"One day {held} came. It was a red ball."))
    held, place = next((name, p) for name in NAMES for p in PLACES if heldout("place", f"{name} {p}"))
    assert list(leaks(f"It rained, and {held} walked to the {place}."))
    held, food = next((name, f) for name in NAMES for f in FOODS if heldout("food", f"{name} {f}"))
    assert list(leaks(f"{held} likes {food}s."))
    assert "length cat dog fox hen owl" in list(leaks("copy: cat dog fox hen owl -> cat"))
    assert not [leak for leak in leaks("count: cat dog fox hen owl -> 5") if leak.startswith("length")]
    assert "length 1 2 3 4" in list(leaks("sort: 4 1 3 2 -> 1 2 3 4"))


def test_guessing_does_not_pay(train: list[Instruction], test: list[Instruction]) -> None:
    """Neither the commonest answer nor the answer to the most similar training question is often right."""
    for answers in (majority_answers(train, test), nearest_answers(train, test)):
        shares = {task: part.share for task, part in grade(test, answers).by_task.items()}
        assert max(shares.values()) < 0.25, shares


def solve(drawn: Exercise, task: str) -> str:
    """The answer computed from the question's text alone, by other code than the generator's."""
    items = drawn.question.split(": ")[-1].split()
    ask = drawn.question.split(":")[0]
    if task == "add":
        return str(sum(map(int, re.findall(r"\d+", drawn.question))))
    if task == "sort":
        return " ".join(sorted(items))
    if task in ("digits", "digits_length"):
        return " ".join(str(n) for n in range(10) if str(n) in items)
    if task in ("copy", "copy_length"):
        return " ".join(items)
    if task == "reverse":
        return " ".join(items[::-1])
    if task == "count":
        return str(len(items))
    if task == "pick":
        return items[{"first": 0, "second": 1, "third": 2, "last": -1}[ask.split()[-2]]]
    if task == "form":
        if "brackets" in ask:
            return "[" + "] [".join(items) + "]"
        if "commas" in ask:
            return ", ".join(items)
        if "capitals" in ask:
            return " ".join(map(str.upper, items))
        if "two times" in ask:
            return " ".join([*items, *items])
        return " ".join(f"{n + 1}. {word}" for n, word in enumerate(items))
    raise AssertionError(task)


@pytest.mark.parametrize("task", [task for task in (*TASKS, *LENGTH_TASKS) if task not in ("read", "summary")])
@pytest.mark.parametrize("split", get_args(Split))
def test_answers_are_right(task: str, split: Split) -> None:
    if task in LENGTH_TASKS and split == "train":
        with pytest.raises(ValueError, match="no training side"):
            exercise(task, Draw("x"), split)
        return
    for i in range(200):
        drawn = exercise(task, Draw("right", task, i), split)
        assert drawn.answer == solve(drawn, task), drawn
        assert drawn.plain.endswith(f" {drawn.answer}")
        assert 1 <= len(drawn.answer.split()) <= 8
        if task not in LENGTH_TASKS:
            assert heldout(drawn.family, drawn.key) == (split == "heldout")


def test_every_question_about_a_passage_has_one_answer_in_it() -> None:
    for i in range(500):
        drawn = exercise("read", Draw("read", i), "train")
        sentences = [s for s in re.split(r"[.?!]\s*", drawn.question) if not s.startswith(("What", "Who", "Where"))]
        found = [s for s in sentences if drawn.answer in s]
        subject = re.search(r"(?:does|is|color is) ([A-Z]\w+)", drawn.question[drawn.question.find("W") :])
        if subject and drawn.answer != subject.group(1):
            found = [s for s in found if s.startswith(subject.group(1))]
        assert len(found) == 1, drawn


def test_stories_are_whole_and_determine_their_summary() -> None:
    """No empty slot, right articles and capitals, a few sentences; whatever the summary names is in the story."""
    stories = [story(Draw("plot", i), "train") for i in range(3000)]
    assert {told.key.split()[0] for told in stories} == set(PLOTS)
    named = re.compile(rf"[A-Z][a-z]+|\b(?:{'|'.join((*COLORS, *LIST_WORDS, 'ladder', 'rope', 'glue', 'roof'))})\b")
    for told in stories:
        assert not re.search(r"[{}]|\s\s| a [aeiou]| an [^aeiou]|^[a-z]|[.!?] [a-z]", told.text), told
        assert 4 <= len(re.findall(r"[.!?]\"?(?= |$)", told.text)) <= 11, told
        assert all(word in told.text for word in named.findall(told.summary)), told


def test_the_world_is_narrow_and_stories_differ(documents: list[tuple[str, Split]]) -> None:
    words = Counter(word for text, _ in documents for word in re.findall(r"[a-z']+", text.lower()))
    assert len(words) < 500
    assert len({text for text, _ in documents}) > 0.99 * len(documents)
    assert 0.03 < sum(split == "heldout" for _, split in documents) / len(documents) < 0.07


def test_a_record_is_a_function_of_seed_and_index() -> None:
    """Goldens: a change of these texts is a change of every corpus (raise the stage's version)."""
    assert world.task_document(0, 1)["text"].split("\n")[0] == "18 + 3 = 21"
    assert world.task_document(0, 3)["text"].startswith("Finn sings:\nbear key drum rabbit frog\nbear key")
    assert world.story_document(0, 4)["text"].startswith("Otto is by the river. Anna is in the library.\nQ: Where is")
    assert world.instruction(0, 0, "train")["messages"][0]["content"] == "5 + 9 = ?"
    backwards = [world.story_document(3, i) for i in reversed(range(20))]
    assert backwards[::-1] == [world.story_document(3, i) for i in range(20)]
    assert world.story_document(4, 0) != world.story_document(3, 0)
