"""A committee small enough for tests: random models with a tokenizer, prompts of two kinds, responses by a script."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from pippin import files
from pippin.data.preferences import PROPERTIES
from pippin.data.prompts import Prompt, write_prompts
from pippin.data.responses import FILE, Response, to_lines
from pippin.data.tokenizer import train_tokenizer
from pippin.interop.hf import save_hf
from pippin.interop.load import load_model
from pippin.interop.reward import save_reward
from pippin.model.config import ModelConfig
from pippin.model.reward import RewardModel
from pippin.model.transformer import Transformer
from pippin.pipeline import Context, Graph, Stage
from pippin.progress import Screen
from pippin.stages.responses import Responses

WORDS = ("red", "green", "blue", "north", "south", "stone", "river", "cloud")


@dataclass(frozen=True, kw_only=True)
class Begin(Stage):
    """A random language model with a tokenizer: what an SFT stage leaves."""

    seed: int = 0
    vocab_size: int = 320
    max_seq_len: int = 64

    def run(self, ctx: Context) -> None:
        tokenizer = train_tokenizer([" ".join((*WORDS, "Say Spell"))] * 50, ctx.out("tokenizer"), self.vocab_size, True)
        torch.manual_seed(self.seed)
        save_hf(Transformer(shape(tokenizer.vocab_size, self.max_seq_len)), ctx.out("model"), ctx.out("tokenizer"))


def shape(vocab_size: int, max_seq_len: int = 64) -> ModelConfig:
    """The shape of every model here."""
    return ModelConfig(
        vocab_size=vocab_size,
        d_model=32,
        n_layers=1,
        n_heads=2,
        n_kv_heads=1,
        d_head=16,
        d_ff=48,
        max_seq_len=max_seq_len,
    )


def prompt(number: int, split: str = "train", verifier: bool = True) -> Prompt:
    """ "Say" (kind 1) or "Spell" (kind 2) a word, and the right answer: the word, or the next one of the list."""
    kind, word = ("Say", "Spell")[number % 2], number // 2 % len(WORDS)
    answer = WORDS[(word + number % 2) % len(WORDS)]
    return {
        "id": f"p{number}",
        "split": "train" if split == "train" else "heldout",
        "messages": [{"role": "user", "content": f"{kind} {WORDS[word]} {number // 2}"}],
        "verifier": {"kind": "exact", "answer": answer} if verifier else None,
        "source": kind.lower(),
    }


def answer(number: int) -> str:
    """The right answer to a prompt."""
    verifier = prompt(number)["verifier"]
    assert verifier is not None
    return str(verifier["answer"])


@dataclass(frozen=True, kw_only=True)
class Given(Stage):
    """`prompts/` as they are given: so many to train on, so many held out."""

    train: int = 12
    heldout: int = 4
    verifier: bool = True

    def run(self, ctx: Context) -> None:
        made = [prompt(i, "train", self.verifier) for i in range(self.train)]
        made += [prompt(self.train + i, "heldout", self.verifier) for i in range(self.heldout)]
        write_prompts(ctx.out("prompts") / "prompts.jsonl", made)


def said(prompt: str, member: str, sample: int, response: str, stopped: bool = True) -> Response:
    """One response."""
    return {
        "prompt": prompt, "member": member, "sample": sample, "response": response, "tokens": 1 + len(response),
        "log_prob": -1.0, "stopped": stopped,
    }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Scripted(Responses):
    """`responses/` by a script, where a model would be in the way: (prompt, member, sample, response, stopped)."""

    rows: tuple[tuple[str, str, int, str, bool], ...]

    def run(self, ctx: Context) -> None:
        files.write_text(ctx.out("responses") / FILE, to_lines(said(*row) for row in self.rows))


@dataclass(frozen=True, kw_only=True)
class Judge(Stage):
    """A reward model nobody trained; its reward is a function of the text all the same."""

    vocab_size: int = 320
    broken: bool = False

    def run(self, ctx: Context) -> None:
        Begin(vocab_size=self.vocab_size).run(ctx)
        reward = RewardModel(load_model(ctx.dir / "model", torch.float32), PROPERTIES)
        if self.broken:
            torch.nn.init.constant_(reward.score.weight, float("nan"))
        save_reward(reward, ctx.out("reward"), ctx.dir / "tokenizer")


def run(place: Path, **stages: Stage) -> dict[str, Path]:
    """Run all stages; their directories by name."""
    graph = Graph(stages, place)
    graph.run(list(stages), Screen(quiet=True))
    return {name: graph.directory(stage) for name, stage in stages.items()}
