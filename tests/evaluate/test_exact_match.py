"""Exact match and its baselines: fair, deterministic, and fed what they say they are fed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from pippin.data.records import Instruction
from pippin.evaluate import exact_match
from pippin.evaluate.exact_match import (
    chat_answers,
    few_shot_answers,
    grade,
    majority_answers,
    nearest_answers,
    prompt,
    stronger_few_shot,
    wilson,
    with_answer,
)
from pippin.model.config import ModelConfig
from pippin.model.transformer import Transformer

NAMES = ["<pad>", "<eos>", "<unk>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", "<|end|>"]


class ByteTokenizer:
    """Special pieces 0..7 and one token a byte."""

    def __init__(self) -> None:
        self.special = {name: i for i, name in enumerate(NAMES)}
        self.end_id = 7

    def encode(self, text: str) -> list[int]:
        return [8 + byte for byte in text.encode()]

    def decode(self, ids: Sequence[int]) -> str:
        """As the real one, special tokens included, so that a test can read prompts."""
        return b"".join(NAMES[i].encode() if i < 8 else bytes([i - 8]) for i in ids).decode()

    def role_id(self, role: str) -> int:
        return self.special[f"<|{role}|>"]


TOKENIZER = ByteTokenizer()


def record(task: str, question: str, answer: str | None, number: int = 0, system: str | None = None) -> Instruction:
    messages = [{"role": "system", "content": system}] if system else []
    messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer or "well"}]
    return Instruction(id=f"{task}:{number}", task=task, split="train", messages=messages, answer=answer, source="test")  # type: ignore[typeddict-item]


def model(max_seq_len: int = 256) -> Transformer:
    torch.manual_seed(0)
    config = ModelConfig(
        264, d_model=16, n_layers=1, n_heads=2, n_kv_heads=1, d_head=8, d_ff=16, max_seq_len=max_seq_len
    )
    return Transformer(config, compute_dtype=torch.float32)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], list[dict[str, Any]], dict[str, str]]:
    """Replaces generation: (prompts seen as text, keyword arguments, replies by the end of the prompt)."""
    prompts: list[str] = []
    calls: list[dict[str, Any]] = []
    replies: dict[str, str] = {}

    def generate_many(model: Any, tokenizer: Any, ids: Sequence[list[int]], **kwargs: Any) -> list[list[int]]:
        texts = [TOKENIZER.decode(row) for row in ids]
        prompts.extend(texts)
        calls.append(kwargs)
        if kwargs["progress"] is not None:
            kwargs["progress"](len(ids))
        return [TOKENIZER.encode(next((r for end, r in replies.items() if text.endswith(end)), "?")) for text in texts]

    monkeypatch.setattr(exact_match, "generate_many", generate_many)
    return prompts, calls, replies


def test_wilson_is_the_published_interval() -> None:
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=2e-4)
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=2e-4)
    assert wilson(10, 10) == pytest.approx((0.7225, 1.0), abs=2e-4)
    assert wilson(0, 0) == (0.0, 1.0)
    with pytest.raises(ValueError, match="correct 3"):
        wilson(3, 2)


def test_grade_strips_and_counts_by_task() -> None:
    records = [record("sum", "1+1", "2"), record("sum", "2+2", " 4\n"), record("copy", "ab", "ab")]
    result = grade(records, [" 2 ", "5", "a b"])
    assert (result.overall.correct, result.overall.total) == (1, 3)
    assert {task: (p.correct, p.total) for task, p in result.by_task.items()} == {"copy": (0, 1), "sum": (1, 2)}
    assert list(result.by_task) == ["copy", "sum"]
    assert result.by_task["sum"].as_dict()["share"] == 0.5
    with pytest.raises(ValueError, match="3 records, 1 answers"):
        grade(records, ["2"])
    with pytest.raises(ValueError, match="needs an answer"):
        grade([record("story", "tell", None)], ["well"])
    assert with_answer([record("story", "tell", None), *records]) == records


def test_the_prompt_ends_before_the_last_reply() -> None:
    conversation = record("t", "first", "two", system="be brief")
    conversation["messages"] += [{"role": "user", "content": "second"}, {"role": "assistant", "content": "two"}]
    assert [message["content"] for message in prompt(conversation)] == ["be brief", "first", "two", "second"]
    unanswered = record("t", "first", "two")
    unanswered["messages"] = unanswered["messages"][:1]
    assert [message["content"] for message in prompt(unanswered)] == ["first"]


def test_majority_is_per_task() -> None:
    train = [record("a", "x", "no"), record("a", "y", " yes"), record("a", "z", "yes "), record("b", "x", "no")]
    asked = [record("a", "q", "?"), record("b", "q", "?"), record("c", "q", "?")]
    assert majority_answers(train, asked) == ["yes", "no", ""]


def test_nearest_copies_the_most_similar_item_of_the_task() -> None:
    train = [
        record("capital", "What is the capital of France?", "Paris"),
        record("capital", "What is the capital of Peru?", "Lima"),
        record("colour", "What is the colour of a capital Peru flag?", "red"),
        record("capital", "What is the capital of Chad?", None),
    ]
    asked = [
        record("capital", "the capital of Peru is what?", "?"),
        record("capital", "What is the capital of France?", "?"),
        record("colour", "What is the capital of France?", "?"),
        record("capital", "\N{SNOWMAN}" * 9, "?"),
        record("new", "What?", "?"),
        record("capital", "", "?"),
    ]
    assert nearest_answers(train, asked) == ["Lima", "Paris", "red", "Paris", "", "Paris"]


def test_nearest_goes_by_the_rare_parts() -> None:
    animals = ["cats", "dogs", "cows", "pigs", "hens", "rats", "bees", "ants", "owls", "eels"]
    train = [record("t", f"please tell me all you know about {animal}", animal) for animal in animals]
    train.append(record("t", "zebras or giraffes", "zebras"))
    assert nearest_answers(train, [record("t", "please tell me of zebras", "?")]) == ["zebras"]


def test_nearest_finds_every_training_item_itself() -> None:
    train = [record("sum", f"What is {a} plus {b}?", f"{a} {b}") for a in range(20) for b in range(20)]
    assert nearest_answers(train, train[::7]) == [item["answer"] for item in train[::7]]


def test_chat_answers_come_back_in_order(said: Any) -> None:
    prompts, calls, replies = said
    replies |= {"<|user|>2+2<|end|><|assistant|>": " 4", "<|user|>copy this<|end|><|assistant|>": "this"}
    records = [record("copy", "copy this", "this"), record("sum", "2+2", "4"), record("copy", "y" * 300, "this")]
    done: list[int] = []
    answers = chat_answers(model(), TOKENIZER, records, batch_size=3, slot=1, progress=done.append)
    assert answers == ["this", " 4", ""]
    assert sum(done) == 3
    assert sorted(call["max_tokens"] for call in calls) == [9, 12]
    assert [call["slots_B"] for call in calls] == [[1], [1]]
    assert prompts == ["<|user|>copy this<|end|><|assistant|>", "<|user|>2+2<|end|><|assistant|>"]


def test_few_shot_prompts_show_examples_of_the_task_only(said: Any) -> None:
    prompts, _, replies = said
    train = [record("sum", f"{n}+{n}", str(2 * n), n) for n in range(9)] + [record("copy", "ab", "ab")]
    asked = [record("sum", "50+50", "100"), record("new", "hm", "x")]
    replies |= {"Q: 50+50\nA:": " 100\nQ: more"}
    assert few_shot_answers(model(), TOKENIZER, train, asked, "plain", shots=2)[0].strip() == "100"
    first, second, last = prompts[0].split("\n\n")
    assert first.startswith("<eos>Q: ")
    assert last == "Q: 50+50\nA:"
    for shown in (first.removeprefix("<eos>"), second):
        question, answer = shown.split("\n")
        n = question.removeprefix("Q: ").split("+")[0]
        assert answer == f"A: {2 * int(n)}"
    assert prompts[1] == "<eos>Q: hm\nA:"
    seen = list(prompts)
    prompts.clear()
    few_shot_answers(model(), TOKENIZER, train[::-1], asked, "plain", shots=2)
    assert prompts == seen
    prompts.clear()
    few_shot_answers(model(), TOKENIZER, train, asked, "chat", shots=2)
    assert prompts[0].count("<|assistant|>") == 3
    assert prompts[0].endswith("<|user|>50+50<|end|><|assistant|>")
    prompts.clear()
    few_shot_answers(model(max_seq_len=40), TOKENIZER, train, asked, "plain", shots=9)
    assert len(TOKENIZER.encode(prompts[0])) <= 40 + 4
    assert prompts[0].count("Q:") == 2


def test_few_shot_keeps_answers_of_several_lines(said: Any) -> None:
    _, _, replies = said
    replies |= {"A:": " a\nb\nQ: c"}
    several = [record("list", "make a list", "x\ny")]
    assert few_shot_answers(model(), TOKENIZER, several, several, "plain")[0] == "a\nb"
    one = [record("list", "make a list", "x")]
    assert few_shot_answers(model(), TOKENIZER, one, one, "plain")[0] == "a"


@pytest.mark.parametrize(("end", "best"), [("A:", "plain"), ("<|assistant|>", "chat"), ("never", "plain")])
def test_the_stronger_form_is_kept(said: Any, end: str, best: str) -> None:
    said[2][end] = "100"
    asked = [record("sum", "50+50", "100")]
    result = stronger_few_shot(model(), TOKENIZER, [record("sum", "1+1", "2")], asked)
    assert result.form == best
    assert result.grades[result.form].overall.correct == (end != "never")
    assert grade(asked, result.answers) == result.grades[result.form]


def test_runs_with_a_real_model() -> None:
    train = [record("sum", f"{n}+{n}", str(2 * n), n) for n in range(5)]
    small = model()
    bytes_only = ByteTokenizer()
    bytes_only.decode = lambda ids: bytes(i - 8 for i in ids if i >= 8).decode(errors="replace")  # type: ignore[method-assign]
    answers = chat_answers(small, bytes_only, train, batch_size=2)
    assert answers == chat_answers(small, bytes_only, train, batch_size=5)
    assert stronger_few_shot(small, bytes_only, train, train, shots=2).grades["plain"].overall.total == 5
