"""A reward model on what people preferred: the published hh-rlhf pairs, where they are at hand.

The texts are offensive and distressing by design. The file is the data set's test part, used here to train on and to
hold out from: a check of the code, no benchmark.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from pippin.data.preferences import read_preferences
from pippin.data.tokenizer import train_tokenizer
from pippin.files import read_json
from pippin.interop.hf import save_hf
from pippin.model.config import ModelConfig
from pippin.model.transformer import Transformer
from pippin.pipeline import Context, Graph, Stage
from pippin.progress import Screen
from pippin.stages.reward import Reward
from pippin.training.loop import TrainSpec

HELD_OUT = 0.25


@dataclass(frozen=True, kw_only=True)
class Begin(Stage):
    """A random model of one layer, its tokenizer trained on the pairs that are not held out."""

    data: str
    seed: int

    def run(self, ctx: Context) -> None:
        pairs = [p for p in read_preferences(self.data, HELD_OUT).pairs if p["split"] == "train"]
        texts = [text for p in pairs for text in (p["chosen"], p["rejected"], *(m["content"] for m in p["prompt"]))]
        tokenizer = train_tokenizer(texts, ctx.out("tokenizer"), 1_024)
        config = ModelConfig(
            vocab_size=tokenizer.vocab_size, d_model=64, n_layers=1, n_heads=4, n_kv_heads=4, d_head=16, d_ff=128,
            max_seq_len=256,
        )  # fmt: skip
        torch.manual_seed(self.seed)
        save_hf(Transformer(config), ctx.out("model"), ctx.out("tokenizer"))


@pytest.mark.slow
def test_a_small_model_beats_both_rules_of_length(test_data: Path, tmp_path: Path) -> None:
    data = str(test_data / "hh-rlhf" / "harmless-base-test.jsonl.gz")
    train = TrainSpec(
        steps=50, batch_size=64, seq_len=256, lr=2e-3, warmup_steps=10, weight_decay=2e-4, base_width=64,
        compute="float32", eval_every=50, checkpoint_every=50, optimizer="adamw",
    )  # fmt: skip
    accuracies = []
    for seed in range(2):
        begin = Begin(data=data, seed=seed)
        made = Reward(start=begin, data=data, train=train, heldout_share=HELD_OUT, seed=seed)
        graph = Graph({"begin": begin, "reward": made}, tmp_path)
        graph.run(["reward"], Screen(quiet=True))
        report = read_json(graph.directory(made) / "report" / "reward.json")
        print({k: report[k] for k in ("counts", "heldout", "always_longer", "always_shorter")})
        assert report["counts"]["heldout"] > 300
        assert report["heldout"]["log_loss"] < math.log(2)
        rules = max(report["always_longer"], report["always_shorter"])
        assert report["heldout"]["accuracy"] > rules
        accuracies.append(report["heldout"]["accuracy"])
    assert sum(accuracies) / 2 > rules + 0.02
