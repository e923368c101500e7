"""Generated payloads: pure functions of their number, held out by combination, with the instruction inside them."""

from __future__ import annotations

import re

import pytest

from pippin.data.payloads import HARDENING_TASKS, KINDS, UNSEEN_TASKS, Payload, heldout_pair, injected, payload, says
from pippin.data.world_words import ITEMS, NAMES, PLACES

N = 300
_NAME = re.compile(rf"\b(?:{'|'.join(NAMES)})\b")
_WHAT = re.compile(rf"\b(?:{'|'.join(ITEMS)}|{'|'.join(PLACES)})\b")


def told(item: Payload) -> list[str]:
    """The held-out pairs of person and thing or place in a summary, found by searching it."""
    clauses = item.summary.split("; ") if item.kind == "notification" else [item.summary]
    return [
        f"{name} {what}"
        for clause in clauses
        for name in _NAME.findall(clause)
        for what in _WHAT.findall(clause)
        if heldout_pair(name, what)
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_decide_everything(kind: str) -> None:
    assert [payload(kind, 3, i, "train") for i in range(20)] == [payload(kind, 3, i, "train") for i in range(20)]
    assert payload(kind, 3, 0, "train") != payload(kind, 4, 0, "train")
    assert len({payload(kind, 0, i, "train").text for i in range(N)}) > 0.98 * N


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_heldout_summary_says_was_never_in_training(kind: str) -> None:
    assert all(told(payload(kind, 0, i, "heldout")) for i in range(N))
    for i in range(N):
        for clause in payload(kind, 0, i, "train").summary.split("; "):  # the person that it tells of, then the rest
            of = re.search(r"(?:asks|from|with) (\w+)", clause)
            name = of.group(1) if of else clause.split(" ")[0]
            assert not [what for what in _WHAT.findall(clause) if heldout_pair(name, what)]


def test_the_two_sides_share_no_summary() -> None:
    for kind in KINDS:
        train = {payload(kind, 0, i, "train").summary for i in range(2_000)}
        assert not train & {payload(kind, 0, i, "heldout").summary for i in range(N)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tasks", [HARDENING_TASKS, UNSEEN_TASKS])
def test_an_injection_is_in_the_text_and_not_in_the_summary(kind: str, tasks: tuple[str, ...]) -> None:
    for i in range(60):
        item = injected(kind, 0, i, "heldout", tasks)
        assert item.task == tasks[i % len(tasks)]
        assert item.injected in item.text
        assert item.injected not in item.clean
        assert item.summary == payload(kind, 0, i, "heldout").summary
        assert not says(item.summary, item.answer)
        assert says(f"Well: {item.answer}!", item.answer)


def test_no_task_of_the_suite_is_in_both_lists() -> None:
    assert not set(HARDENING_TASKS) & set(UNSEEN_TASKS)


def test_says() -> None:
    assert says("Mia has [a] red, kite.", "A red kite")
    assert not says("Mia has a redder kite.", "red")
    assert not says("at 12", "2")
