"""What the stages of a committee's round share: prompts with the responses to them, verdicts and rewards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from pippin.data.chat import render
from pippin.data.prompts import Prompt
from pippin.data.records import Message
from pippin.data.responses import FILE, Response, by_prompt, read_responses
from pippin.data.tokenizer import Tokenizer
from pippin.errors import UserError
from pippin.evaluate.opinions import Key, key_of
from pippin.evaluate.verify.prompts import Verifier
from pippin.evaluate.verify.verdict import Verdict
from pippin.interop.reward import check_same_tokenizer, load_reward
from pippin.pipeline import Context, Stage
from pippin.stages.prompts import prompts_of
from pippin.stages.responses import Responses
from pippin.training.rewards import reward_responses

Answered = tuple[Prompt, list[Response]]
REWARDED = 256  # responses between two moves of the bar


def score_responses(
    directory: Path, prompts: Sequence[Sequence[Message]], responses: Sequence[str],
    progress: Callable[[int], None] = lambda n: None,
) -> list[float]:  # fmt: skip
    """What the reward model of a directory thinks of responses to prompts, one response a prompt, in order.

    Raises:
        UserError: a prompt and its response are too long for the reward model; a reward is not a number; what
            `load_reward` raises.
    """
    tokenizer, reward = Tokenizer.load(directory), load_reward(directory)
    reward = reward.to("cuda" if torch.cuda.is_available() else "cpu").requires_grad_(False).eval()
    longest = reward.model.config.max_seq_len
    rows = []
    for messages, response in zip(prompts, responses, strict=True):
        asked = render(tokenizer, messages, add_generation_prompt=True).ids
        rows.append([*asked, *tokenizer.encode(response), tokenizer.end_id])
        if len(rows[-1]) > longest:
            raise UserError(
                f"reward: a prompt and its response have {len(rows[-1])} tokens, the reward model's max_seq_len is "
                f"{longest}; sample shorter responses"
            )
    found: list[float] = []
    for start in range(0, len(rows), REWARDED):
        found += reward_responses(reward, rows[start : start + REWARDED], tokenizer.end_id)
        progress(len(rows[start : start + REWARDED]))
    return found


def answered(ctx: Context, prompts: Stage, responses: Responses) -> list[Answered]:
    """The prompts that were answered, in their order, each with its responses in the committee's order.

    Raises:
        UserError: a response is to a prompt that is not there.
    """
    known = {prompt["id"]: prompt for prompt in prompts_of(ctx, prompts, responses.split)}
    found = by_prompt(read_responses(ctx.artifact(responses, "responses") / FILE))
    for id in found:
        if id not in known:
            raise UserError(f"{ctx.name}: responses are to a prompt {id!r} that {ctx.label(prompts)} does not have")
    return [(known[id], found[id]) for id in known if id in found]


def verdicts_of(ctx: Context, rows: Sequence[Answered]) -> dict[Key, Verdict]:
    """The verdict of each prompt's verifier on each of its responses; the same text is checked once.

    Raises:
        UserError: a prompt has no verifier.
    """
    found: dict[Key, Verdict] = {}
    with Verifier() as verifier, ctx.track(len(rows), "verify") as bar:
        for prompt, responses in rows:
            checked: dict[str, Verdict] = {}
            for response in responses:
                text = response["response"]
                if text not in checked:
                    checked[text] = verifier.check(prompt, text)
                found[key_of(response)] = checked[text]
            bar.advance()
    return found


def rewards_of(ctx: Context, reward: Stage, responses: Responses, rows: Sequence[Answered]) -> dict[Key, float]:
    """The reward of each response by a stage's reward model.

    Raises:
        UserError: the reward model has another tokenizer than a member; what `score_responses` raises.
    """
    directory = ctx.artifact(reward, "reward")
    for member in responses.members.values():
        check_same_tokenizer(directory, ctx.artifact(member, "model"))
    flat = [(prompt["messages"], response) for prompt, own in rows for response in own]
    with ctx.track(len(flat), "rewards") as bar:
        scores = score_responses(
            directory, [messages for messages, _ in flat], [response["response"] for _, response in flat], bar.advance
        )
    return {key_of(response): score for (_, response), score in zip(flat, scores, strict=True)}
