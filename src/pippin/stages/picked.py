"""Rejection sampling and committee distillation: the best response to each prompt, to train on."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pippin import files
from pippin.data import instruct
from pippin.data.chat import render
from pippin.data.packing import TokenWriter
from pippin.data.prompts import Prompt
from pippin.data.records import Instruction, fraction_of
from pippin.data.responses import Response
from pippin.data.tokenizer import Tokenizer
from pippin.errors import UserError
from pippin.evaluate.opinions import Key, key_of
from pippin.pipeline import Context, Cost, Stage
from pippin.stages.committee import answered, rewards_of, verdicts_of
from pippin.stages.responses import Responses
from pippin.stages.tokenize import TokenStage

SOURCE = "picked"
PICKS = "picks.jsonl"
SCORES = "scores.jsonl"
Judge = Literal["reward", "verifier", "both"]


class Pick(NamedTuple):
    """The response that won a prompt; `running` is how many could have."""

    prompt: Prompt
    response: Response
    running: int


@dataclass(frozen=True, kw_only=True)
class Picked(TokenStage):
    """Of all samples of all members the best response to each prompt, as conversations to train on (afm 8.4).

    The choice is per prompt, not per model. Of equal scores the first in the committee's order wins. A response that
    was cut short, or is empty, is never picked (ours: nobody should learn to stop there).

    Artifacts: `tokens/` with the source `picked`, the loss on the response; `instruct/` with the conversations;
    `picks/picks.jsonl`, who won each prompt (prompt, member, sample, score, how many were in the running), and
    `picks/scores.jsonl`, of every response whether it is right and its reward, where that was asked.

    Args:
        model: whose tokenizer the tokens are of: the student's start.
        prompts: that were answered.
        responses: of the committee; one member's alone is rejection sampling.
        by: "reward": the reward model's favourite; "verifier": the first right one; "both": the reward model's
            favourite among the right ones.
        reward: the stage whose `reward/` scores; a new one for each round.
        threshold: a favourite with a reward below it is not taken.
        heldout_share: of the prompts, by a hash of their ids, to see how the student does.
    """

    model: Stage
    prompts: Stage
    responses: Responses
    by: Judge = "reward"
    reward: Stage | None = None
    threshold: float | None = None
    heldout_share: float = 0.05

    def __post_init__(self) -> None:
        if self.by not in ("reward", "verifier", "both"):
            raise UserError(f"by={self.by}: must be reward, verifier or both")
        if (self.reward is None) != (self.by == "verifier"):
            raise UserError(f"reward: by=reward and by=both need a reward model, by=verifier has none; by={self.by}")
        if self.threshold is not None and (self.by == "verifier" or not abs(self.threshold) < float("inf")):
            raise UserError(f"threshold={self.threshold}: must be a finite reward; by={self.by}")
        if not 0 < self.heldout_share < 1:
            raise UserError(f"heldout_share={self.heldout_share}: must lie between 0 and 1")

    def tokenizer_dir(self, ctx: Context) -> Path:
        return ctx.artifact(self.model, "model")

    def run(self, ctx: Context) -> None:
        rows = answered(ctx, self.prompts, self.responses)
        right: dict[Key, bool] = {}
        rewards: dict[Key, float] = {}
        if self.by != "reward":
            right = {key: verdict.correct for key, verdict in verdicts_of(ctx, rows).items()}
        if self.reward is not None:
            rewards = rewards_of(ctx, self.reward, self.responses, rows)
        picks = [pick for row in rows if (pick := self._pick(*row, right, rewards)) is not None]
        if not picks:
            raise UserError(
                f"{ctx.name}: no response to any of {len(rows)} prompts is good enough (by={self.by}, "
                f"threshold={self.threshold}); take more samples or better members"
            )
        lines = [
            _who(response) | {"score": rewards.get(key_of(response), 1.0), "running": running}
            for _, response, running in picks
        ]
        _write(ctx.out("picks") / PICKS, lines)
        scores = [
            _who(r) | {"correct": right.get(key_of(r)), "reward": rewards.get(key_of(r))}
            for _, own in rows
            for r in own
        ]
        _write(ctx.out("picks") / SCORES, scores)
        self._tokenize(ctx, picks)
        won = Counter(response["member"] for _, response, _ in picks)
        by_member = {name: won[name] for name in self.responses.members}
        ctx.say(f"of {len(rows)} prompts: " + ", ".join(f"{name} won {n}" for name, n in by_member.items()))
        ctx.result(prompts=len(rows), picked=len(picks), none=len(rows) - len(picks), won=by_member)

    def _pick(
        self, prompt: Prompt, responses: Sequence[Response], right: Mapping[Key, bool], rewards: Mapping[Key, float]
    ) -> Pick | None:
        """The best response to a prompt, if one is good enough."""
        running = [r for r in responses if r["stopped"] and r["response"].strip() and right.get(key_of(r), True)]
        if not running:
            return None
        best = max(running, key=lambda r: rewards.get(key_of(r), 0.0))  # the first of equal ones
        if self.threshold is not None and rewards[key_of(best)] < self.threshold:
            return None
        return Pick(prompt, best, len(running))

    def _tokenize(self, ctx: Context, picks: Sequence[Pick]) -> None:
        records = [_conversation(pick, self.heldout_share) for pick in picks]
        for split in ("train", "heldout"):
            if not any(record["split"] == split for record in records):
                raise UserError(
                    f"heldout_share={self.heldout_share}: none of {len(records)} picks is on the {split} side; give "
                    "more prompts or another share"
                )
        tokenizer = Tokenizer.load(self.tokenizer_dir(ctx))
        with TokenWriter(ctx.out("tokens"), tokenizer.vocab_size, tokenizer.eos_id) as writer:
            for record in records:
                messages = record["messages"]
                asked = len(render(tokenizer, messages[:-1], add_generation_prompt=True).ids)
                rendered = render(tokenizer, messages, conversation_id=record["id"])
                # What the assistant said before its last message belongs to the prompt.
                mask = [0] * asked + rendered.loss_mask[asked:]
                learnt = len(messages[-1]["content"].encode())
                writer.add(SOURCE, record["split"], rendered.ids, learnt, mask, document=record["id"])
        instruct.write(ctx.out("instruct"), records)

    def cost(self) -> Cost:
        samples = self.responses.limit * len(self.responses.members) * self.responses.samples
        return Cost(bytes=1_000 * self.responses.limit, other_s=2 + samples / 200)


def _conversation(pick: Pick, heldout_share: float) -> Instruction:
    """The prompt and the response that won; its side follows from what is asked."""
    messages = pick.prompt["messages"]
    held = fraction_of(f"picked/{json.dumps(messages)}") < heldout_share
    return {
        "id": pick.prompt["id"],
        "task": SOURCE,
        "split": "heldout" if held else "train",
        "messages": [*messages, {"role": "assistant", "content": pick.response["response"]}],
        "answer": None,
        "source": f"{pick.response['member']}/{pick.response['sample']}",
    }


def _who(response: Response) -> dict[str, Any]:
    return {"prompt": response["prompt"], "member": response["member"], "sample": response["sample"]}


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    files.write_text(path, "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))
