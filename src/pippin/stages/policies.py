"""Policies: how a model trained on responses is saved, sampled and judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pippin.data.chat import render
from pippin.data.prompts import Prompt
from pippin.data.tokenizer import Tokenizer
from pippin.errors import UserError
from pippin.evaluate.exact_match import wilson
from pippin.evaluate.verify.prompts import Verifier
from pippin.files import write_json
from pippin.interop.hf import save_hf
from pippin.interop.load import load_model
from pippin.model.transformer import Transformer
from pippin.pipeline import Context, Cost, Stage
from pippin.rollout import Rollout, rollouts
from pippin.stages.prompts import Prompts, prompts_of
from pippin.training.policy import Response, score_responses


def save_policy(ctx: Context, model: Transformer, tokenizer_directory: Path) -> None:
    """Write `model/` with the tokenizer and the tokens that end a turn."""
    save_hf(model, ctx.out("model"), tokenizer_directory)
    if not (tokenizer_directory / "generation_config.json").exists():
        tokenizer = Tokenizer.load(tokenizer_directory)
        ends = {"eos_token_id": [tokenizer.eos_id, tokenizer.end_id], "pad_token_id": tokenizer.pad_id}
        write_json(ctx.out("model") / "generation_config.json", ends)
    ctx.result(parameters=model.config.n_params().total)


def encode_prompts(
    tokenizer: Tokenizer, prompts: Sequence[Prompt], max_tokens: int, max_seq_len: int
) -> list[list[int]]:
    """Each prompt as the model is given it, up to `<|assistant|>`.

    Raises:
        UserError: a prompt that leaves no room for `max_tokens`.
    """
    found = []
    for prompt in prompts:
        ids = render(tokenizer, prompt["messages"], add_generation_prompt=True, conversation_id=prompt["id"]).ids
        if len(ids) + max_tokens > max_seq_len:
            raise UserError(
                f"prompt {prompt['id']}: its {len(ids)} tokens and max_tokens={max_tokens} exceed the model's "
                f"max_seq_len {max_seq_len}; lower max_tokens or leave the prompt out"
            )
        found.append(ids)
    return found


def text_of(tokenizer: Tokenizer, rollout: Rollout) -> str:
    """The text of a sampled response, without the token that ended it."""
    return tokenizer.decode(rollout.tokens[:-1] if rollout.stopped else rollout.tokens)


def verified(
    verifier: Verifier, tokenizer: Tokenizer, prompts: Sequence[Prompt], found: Sequence[Rollout]
) -> list[bool]:
    """Whether each sampled response solves its prompt; samples of a prompt stand together.

    One that did not end by itself does not: nobody could tell where it ends.
    """
    each = len(found) // len(prompts)
    return [
        rollout.stopped and verifier.check(prompts[number // each], text_of(tokenizer, rollout)).correct
        for number, rollout in enumerate(found)
    ]


@dataclass(frozen=True, kw_only=True)
class ComparePolicies(Stage):
    """How well models solve held-out prompts, and how far they went from a reference.

    Artifact `report/policies.json`: of each model the share solved by its most likely response and by samples (with
    95 % Wilson intervals; by source of the prompt, too), tokens of a sampled response, and KL(pi || pi_ref) per
    response: the mean of log pi - log pi_ref over its own samples, with its standard error.

    Args:
        prompts: held-out ones that can be verified.
        reference: usually the fine-tuned model.
        members: models by name.
        samples: for each prompt.
        max_tokens: of a response.
    """

    prompts: Prompts
    reference: Stage
    members: Mapping[str, Stage]
    samples: int = 4
    max_tokens: int = 32
    temperature: float = 1.0
    seed: int = 0

    def run(self, ctx: Context) -> None:
        prompts = prompts_of(ctx, self.prompts, "heldout")
        reference = load_model(ctx.artifact(self.reference, "model"))
        found: dict[str, Any] = {}
        with Verifier() as verifier, ctx.track(len(self.members)) as bar:
            for name, stage in self.members.items():
                found[name] = self._judge(ctx, verifier, stage, prompts, reference)
                bar.advance(1)
        write_json(ctx.out("report") / "policies.json", found)
        ctx.result(policies=found)

    def _judge(
        self, ctx: Context, verifier: Verifier, stage: Stage, prompts: list[Prompt], reference: Transformer
    ) -> dict[str, Any]:
        directory = ctx.artifact(stage, "model")
        model, tokenizer = load_model(directory).eval(), Tokenizer.load(directory)
        ids = encode_prompts(tokenizer, prompts, self.max_tokens, model.config.max_seq_len)
        common: dict[str, Any] = {"max_tokens": self.max_tokens, "stop_ids": set(tokenizer.special.values())}
        greedy = verified(verifier, tokenizer, prompts, rollouts(model, ids, temperature=0.0, **common))
        drawn = rollouts(model, ids, n_per_prompt=self.samples, temperature=self.temperature, seed=self.seed, **common)
        right = verified(verifier, tokenizer, prompts, drawn)
        sources = [prompt["source"] for prompt in prompts]
        mean, error = kl_to(reference, model, drawn, self.temperature)
        return {
            "greedy": share(greedy),
            "sampled": share(right),
            "by_source": {
                source: {
                    "greedy": share([ok for ok, own in zip(greedy, sources, strict=True) if own == source]),
                    "sampled": share([ok for n, ok in enumerate(right) if sources[n // self.samples] == source]),
                }
                for source in sorted(set(sources))
            },
            "tokens": sum(len(r.tokens) for r in drawn) / len(drawn),
            "stopped": sum(r.stopped for r in drawn) / len(drawn),
            "kl": mean,
            "kl_error": error,
        }

    def cost(self) -> Cost:
        return Cost(other_s=5 * len(self.members))


def share(right: Sequence[bool]) -> dict[str, float]:
    """The share of true ones with its Wilson interval."""
    low, high = wilson(sum(right), len(right))
    return {"share": sum(right) / len(right), "low": low, "high": high, "total": len(right)}


def kl_to(
    reference: Transformer, model: Transformer, drawn: Sequence[Rollout], temperature: float
) -> tuple[float, float]:
    """KL(model || reference) per response from the model's own samples, in nats, and its standard error."""
    responses = [Response(r.prompt, r.tokens) for r in drawn]
    own = score_responses(model, responses, temperature)
    other = score_responses(reference, responses, temperature)
    differences = [a - b for a, b in zip(own, other, strict=True)]
    n = len(differences)
    mean = sum(differences) / n
    spread = sum((d - mean) ** 2 for d in differences) / max(1, n - 1)
    return mean, (spread / n) ** 0.5
