"""What every model of a committee answers to the prompts: the samples that preferences and picks are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from pippin import files
from pippin.data.chat import render
from pippin.data.mixture import derive
from pippin.data.prompts import Prompt
from pippin.data.records import Split, fraction_of
from pippin.data.responses import FILE, Response, read_responses, to_lines
from pippin.data.tokenizer import Tokenizer
from pippin.errors import UserError
from pippin.interop.load import load_model, read_shape
from pippin.model.transformer import Transformer
from pippin.pipeline import Context, Cost, Stage
from pippin.rollout import rollouts
from pippin.stages.policies import text_of
from pippin.stages.prompts import prompts_of

PART_PROMPTS = 128  # sampled together; a killed run goes on after the last whole part


@dataclass(frozen=True, kw_only=True)
class Responses(Stage):
    """Sample each member of a committee on prompts of one side (afm 8.2, 8.4; that there are 4 samples is ours).

    Artifact: `responses/responses.jsonl` (see `data.responses`), member by member. Every member answers the same
    prompts: those for which one of them has no room are left out and counted. A sample is a function of the member's
    name and weights, the prompt's place and the seed.

    Args:
        prompts: whose `prompts/` are answered.
        members: whose `model/` answer, by name; the order is that of the committee.
        split: which side of the prompts.
        samples: of each member for each prompt.
        temperature, max_tokens: of sampling.
        limit: at most this many prompts, chosen by a hash of the seed and their ids; 0: all.
        max_samples: refuse, before anything is loaded, to draw more samples than this in all; 0: no limit.
        batch_size: sequences that run at the same time.
    """

    prompts: Stage
    members: dict[str, Stage]
    max_tokens: int
    split: Split = "train"
    samples: int = 4
    temperature: float = 1.0
    limit: int = 0
    max_samples: int = field(default=0, metadata={"how": True})
    batch_size: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.members:
            raise UserError("members: none; a committee needs at least one model")
        for name in ("samples", "max_tokens", "batch_size"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)}: must be at least 1")
        for name in ("limit", "max_samples"):
            if getattr(self, name) < 0:
                raise UserError(f"{name}={getattr(self, name)}: must be at least 0")
        if not 0 <= self.temperature < float("inf"):
            raise UserError(f"temperature={self.temperature}: must be 0 (greedy) or positive")
        if self.temperature == 0 and self.samples > 1:
            raise UserError(f"samples={self.samples}: at temperature 0 all samples are the same; set samples=1")
        if self.split not in ("train", "heldout"):
            raise UserError(f"split={self.split}: must be train or heldout")

    def run(self, ctx: Context) -> None:
        prompts = _some(prompts_of(ctx, self.prompts, self.split), self.limit, self.seed)
        asked = len(prompts) * len(self.members) * self.samples
        if self.max_samples and asked > self.max_samples:
            raise UserError(
                f"max_samples={self.max_samples}: {len(prompts)} prompts, {len(self.members)} members and "
                f"{self.samples} samples are {asked}; allow that many, or lower limit or samples"
            )
        directories = {name: ctx.artifact(stage, "model") for name, stage in self.members.items()}
        rows, kept = self._fitting(directories, prompts)
        parts: list[Path] = []
        with ctx.track(len(kept) * len(self.members)) as bar:
            for name, directory in directories.items():
                model: Transformer | None = None
                for start in range(0, len(kept), PART_PROMPTS):
                    numbers = range(start, min(start + PART_PROMPTS, len(kept)))
                    parts.append(ctx.dir / "checkpoint" / f"{name}.{start}.jsonl")
                    if not parts[-1].exists():
                        model = model or _load(directory)
                        found = self._sample(name, model, Tokenizer.load(directory), kept, rows[name], numbers)
                        files.write_text(parts[-1], to_lines(found))
                    bar.advance(len(numbers))
        files.write_bytes(ctx.out("responses") / FILE, b"".join(part.read_bytes() for part in parts))
        made = read_responses(ctx.out("responses") / FILE)
        tokens = {name: sum(r["tokens"] for r in made if r["member"] == name) for name in self.members}
        if left_out := len(prompts) - len(kept):
            ctx.say(f"{left_out} of {len(prompts)} prompts are too long for a member and were left out")
        ctx.result(
            prompts=len(kept), too_long=left_out, samples=len(made), tokens=sum(tokens.values()), tokens_of=tokens,
            cut=sum(not response["stopped"] for response in made),
        )  # fmt: skip

    def _fitting(
        self, directories: Mapping[str, Path], prompts: Sequence[Prompt]
    ) -> tuple[dict[str, list[list[int]]], list[Prompt]]:
        """The prompts for which every member has room, and their token ids for each member."""
        encoded: dict[str, list[list[int]]] = {}
        fits = [True] * len(prompts)
        for name, directory in directories.items():
            tokenizer, room = Tokenizer.load(directory), read_shape(directory).max_seq_len - self.max_tokens
            encoded[name] = [
                render(tokenizer, p["messages"], add_generation_prompt=True, conversation_id=p["id"]).ids
                for p in prompts
            ]
            fits = [before and len(ids) <= room for before, ids in zip(fits, encoded[name], strict=True)]
        kept = [prompt for prompt, fit in zip(prompts, fits, strict=True) if fit]
        if not kept:
            raise UserError(
                f"max_tokens={self.max_tokens}: leaves room for none of the {len(prompts)} prompts; lower it"
            )
        rows = {name: [ids for ids, fit in zip(all_ids, fits, strict=True) if fit] for name, all_ids in encoded.items()}
        return rows, kept

    def _sample(
        self, name: str, model: Transformer, tokenizer: Tokenizer, prompts: Sequence[Prompt],
        rows: Sequence[list[int]], numbers: range,
    ) -> list[Response]:  # fmt: skip
        """One part of a member's responses, in order."""
        found = rollouts(
            model, [rows[number] for number in numbers], max_tokens=self.max_tokens,
            stop_ids=tokenizer.special.values(), n_per_prompt=self.samples, temperature=self.temperature,
            seed=derive(self.seed, "responses", name, numbers.start), batch_size=self.batch_size,
        )  # fmt: skip
        return [
            {
                "prompt": prompts[numbers[place // self.samples]]["id"],
                "member": name,
                "sample": place % self.samples,
                "response": text_of(tokenizer, rollout),
                "tokens": len(rollout.tokens),
                "log_prob": sum(rollout.log_probs),
                "stopped": rollout.stopped,
            }
            for place, rollout in enumerate(found)
        ]

    def cost(self) -> Cost:
        samples = self.max_samples or self.limit * len(self.members) * self.samples
        return Cost(bytes=(200 + 4 * self.max_tokens) * samples, other_s=1 + samples * self.max_tokens / 2_000)


def _some(prompts: list[Prompt], limit: int, seed: int) -> list[Prompt]:
    """`limit` of the prompts in their order, for a seed always the same ones; 0: all."""
    if not 0 < limit < len(prompts):
        return prompts
    drawn = sorted(prompts, key=lambda prompt: (fraction_of(f"responses/{seed}/{prompt['id']}"), prompt["id"]))
    chosen = {prompt["id"] for prompt in drawn[:limit]}
    return [prompt for prompt in prompts if prompt["id"] in chosen]


def _load(directory: Path) -> Transformer:
    """A member, ready to sample, on the accelerator if there is one."""
    return load_model(directory).to("cuda" if torch.cuda.is_available() else "cpu").requires_grad_(False)
