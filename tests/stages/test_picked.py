"""The best response to each prompt: who wins by each rule, what is learnt from it, and what is refused."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.stages.committee import WORDS, Begin, Given, Judge, Scripted, prompt, run

from pippin.data import instruct
from pippin.data.chat import render
from pippin.data.packing import TokenSet
from pippin.data.prompts import Prompt, write_prompts
from pippin.data.tokenizer import Tokenizer
from pippin.errors import UserError
from pippin.files import read_json
from pippin.pipeline import Context, Stage
from pippin.stages.committee import score_responses
from pippin.stages.picked import Picked
from pippin.training import rewards

GIVEN = Given(train=16, heldout=2)
MEMBERS: dict[str, Stage] = {"one": Begin(), "two": Begin(seed=1)}
RIGHT = [WORDS[(i // 2 + i % 2) % len(WORDS)] for i in range(16)]

Row = tuple[str, str, int, str, bool]


def pick(place: Path, rows: list[Row], given: Given = GIVEN, **fields: Any) -> Path:
    """Run the stage on scripted responses; its directory."""
    responses = Scripted(prompts=given, members=MEMBERS, rows=tuple(rows), max_tokens=9)
    picked = Picked(model=MEMBERS["one"], prompts=given, responses=responses, **({"by": "verifier"} | fields))
    more = {"reward": picked.reward} if picked.reward is not None else {}
    return run(place, given=given, **MEMBERS, responses=responses, **more, picked=picked)["picked"]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def two_of_each(wrong: str = "stone") -> list[Row]:
    """ "one" is right on even prompts, "two" on odd ones; each also says something wrong before."""
    rows = []
    for i, right in enumerate(RIGHT):
        bad = wrong if right != wrong else "river"
        rows += [(f"p{i}", "one", 0, bad, True), (f"p{i}", "one", 1, right if i % 2 == 0 else bad, True)]
        rows += [(f"p{i}", "two", 0, right if i % 2 else bad, True), (f"p{i}", "two", 1, bad, True)]
    return rows


def test_the_verifier_picks_the_right_teacher_for_each_prompt(tmp_path: Path) -> None:
    directory = pick(tmp_path, two_of_each(), heldout_share=0.3)
    picks = lines(directory / "picks" / "picks.jsonl")
    assert [(p["prompt"], p["member"], p["sample"]) for p in picks] == [
        (f"p{i}", "two" if i % 2 else "one", 0 if i % 2 else 1) for i in range(16)
    ]
    results = read_json(directory / "stage.json")["results"]
    assert results == {"prompts": 16, "picked": 16, "none": 0, "won": {"one": 8, "two": 8}}
    scores = lines(directory / "picks" / "scores.jsonl")
    assert (len(scores), sum(s["correct"] for s in scores)) == (64, 16)
    records = [*instruct.read(directory / "instruct", "train"), *instruct.read(directory / "instruct", "heldout")]
    assert {r["id"]: r["messages"][-1]["content"] for r in records} == {f"p{i}": RIGHT[i] for i in range(16)}
    again = pick(tmp_path / "again", two_of_each(), heldout_share=0.3)
    for name in ("picks/picks.jsonl", "picks/scores.jsonl", "instruct/picked.train.jsonl", "tokens/index.json"):
        assert (again / name).read_bytes() == (directory / name).read_bytes(), name


def test_tokens_are_the_conversation_with_the_loss_on_the_response(tmp_path: Path) -> None:
    directory = pick(tmp_path, two_of_each(), heldout_share=0.3)
    tokenizer = Tokenizer.load(next(tmp_path.glob("one-*")) / "model")
    found = 0
    for split in ("train", "heldout"):
        stream = TokenSet(directory / "tokens").open("picked", split)
        for i in range(16):
            document = stream.find(f"p{i}")
            if document is not None:
                found += 1
                start, stop = stream.starts[document : document + 2].tolist()
                messages = [*prompt(i)["messages"], {"role": "assistant", "content": RIGHT[i]}]
                expected = render(tokenizer, messages)
                mask = stream.read_mask(start, stop)
                assert mask is not None
                assert stream.read(start, stop).tolist() == [*expected.ids, tokenizer.eos_id]
                assert mask.tolist()[: len(expected.ids)] == expected.loss_mask
    assert found == 16


def test_what_the_assistant_said_before_is_not_learnt(tmp_path: Path) -> None:
    spoken = Spoken()
    rows = tuple((id, "one", 0, "x", True) for id in ("a", *(f"b{i}" for i in range(20))))
    responses = Scripted(prompts=spoken, members=MEMBERS, max_tokens=9, rows=rows)
    picked = Picked(model=MEMBERS["one"], prompts=spoken, responses=responses, by="verifier", heldout_share=0.3)
    directory = run(tmp_path, spoken=spoken, **MEMBERS, responses=responses, picked=picked)["picked"]
    for split in ("train", "heldout"):
        stream = TokenSet(directory / "tokens").open("picked", split)
        document = stream.find("a")
        if document is not None:
            mask = stream.read_mask(*stream.starts[document : document + 2].tolist())
            assert mask is not None
            assert mask.sum() == 2  # "x" and the end of its turn


@dataclass(frozen=True, kw_only=True)
class Spoken(Stage):
    """Prompts of which one has an answer of the assistant's in it."""

    def run(self, ctx: Context) -> None:
        turns = [("user", "Say red"), ("assistant", "red"), ("user", "Say x")]
        made: list[Prompt] = [prompt(0) | {"id": "a", "messages": [{"role": r, "content": c} for r, c in turns]}]
        made += [prompt(2 * i) | {"id": f"b{i}"} for i in range(20)]
        for one in made:
            one["verifier"] = {"kind": "exact", "answer": "x"}
        write_prompts(ctx.out("prompts") / "prompts.jsonl", made)


def test_of_equal_ones_the_first_in_order_wins_and_cut_or_empty_ones_never(tmp_path: Path) -> None:
    rows: list[Row] = []
    for i, right in enumerate(RIGHT):
        rows += [
            (f"p{i}", "one", 0, right, i % 4 != 1),
            (f"p{i}", "one", 1, " ", True),
            (f"p{i}", "two", 0, right, True),
        ]
    picks = lines(pick(tmp_path, rows, heldout_share=0.3) / "picks" / "picks.jsonl")
    assert [p["member"] for p in picks] == ["two" if i % 4 == 1 else "one" for i in range(16)]
    assert [p["running"] for p in picks] == [1 if i % 4 == 1 else 2 for i in range(16)]


def test_the_reward_models_favourite_wins(tmp_path: Path) -> None:
    rows = [(f"p{i}", name, 0, text, True) for i in range(16) for name, text in (("one", "red stone"), ("two", "blue"))]
    directory = pick(tmp_path, rows, by="reward", reward=Judge(), heldout_share=0.3)
    reward = next(tmp_path.glob("reward-*")) / "reward"
    asked = [prompt(int(p[1:]))["messages"] for p, *_ in rows]
    truth = score_responses(reward, asked, [row[3] for row in rows])
    expected = ["one" if truth[2 * i] >= truth[2 * i + 1] else "two" for i in range(16)]
    assert set(expected) == {"one", "two"}
    picks = lines(directory / "picks" / "picks.jsonl")
    assert [p["member"] for p in picks] == expected
    assert [p["score"] for p in picks] == [max(truth[2 * i : 2 * i + 2]) for i in range(16)]
    middle = sorted(p["score"] for p in picks)[5]
    fewer = pick(tmp_path, rows, by="reward", reward=Judge(), threshold=middle, heldout_share=0.3)
    assert lines(fewer / "picks" / "picks.jsonl") == [p for p in picks if p["score"] >= middle]
    assert read_json(fewer / "stage.json")["results"]["none"] == 5


def test_both_takes_the_favourite_among_the_right_ones(tmp_path: Path) -> None:
    rows: list[Row] = [(*row[:3], row[3], True) for row in two_of_each()]
    picks = lines(pick(tmp_path, rows, by="both", reward=Judge(), heldout_share=0.3) / "picks" / "picks.jsonl")
    assert [p["member"] for p in picks] == ["two" if i % 2 else "one" for i in range(16)]
    assert len({p["score"] for p in picks}) > 8


def test_rewards_do_not_depend_on_what_is_beside_them(tmp_path: Path) -> None:
    rows = [(f"p{i}", "one", 0, " ".join(WORDS[: 1 + i % 5]), True) for i in range(16)]
    pick(tmp_path, rows, by="reward", reward=Judge(), heldout_share=0.3)
    reward = next(tmp_path.glob("reward-*")) / "reward"
    asked = [prompt(int(p[1:]))["messages"] for p, *_ in rows]
    together = score_responses(reward, asked, [row[3] for row in rows])
    alone = [score_responses(reward, [one], [row[3]])[0] for one, row in zip(asked, rows, strict=True)]
    assert together == pytest.approx(alone, rel=0.02, abs=0.02)


def test_what_is_wrong_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(match: str, rows: list[Row] | None = None, **fields: Any) -> None:
        with pytest.raises(UserError, match=match) as raised:
            pick(tmp_path, rows or two_of_each(), **fields)
        assert "\n" not in str(raised.value)
        assert not list(tmp_path.glob("picked-*/DONE"))

    fails("by=best: must be reward, verifier or both", by="best")
    fails("by=reward and by=both need a reward model", by="both")
    fails("by=verifier has none", reward=Judge())
    fails("threshold=inf: must be a finite reward", by="reward", reward=Judge(), threshold=float("inf"))
    fails("threshold=0.5: must be a finite reward; by=verifier", threshold=0.5)
    fails("heldout_share=1: must lie between 0 and 1", heldout_share=1)
    fails("prompt p0: has no verifier", given=Given(train=16, heldout=2, verifier=False))
    fails("no response to any of 1 prompts is good enough", [("p0", "one", 0, "river", True)])
    fails("none of 1 picks is on the (train|heldout) side", [("p0", "one", 0, "red", True)])
    fails("responses are to a prompt 'p99' that given does not have", [("p99", "one", 0, "red", True)])
    fails("tokenizer.json: differs from the one of", by="reward", reward=Judge(vocab_size=300))
    fails("reward: value nan or inf", by="reward", reward=Judge(broken=True))
    monkeypatch.setattr(rewards, "judge", None)
    long = [("p0", "one", 0, "zz " * 60, True)]
    fails("reward: a prompt and its response have .* tokens, the reward model's max_seq_len is 64", long, by="reward",
          reward=Judge())  # fmt: skip
