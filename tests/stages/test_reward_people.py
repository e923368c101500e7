"""A reward model on what people preferred: the published hh-rlhf pairs, where they are at hand.

The texts are offensive and distressing by design. The file is the data set's test part, used here to train on and to
hold out from: a check of the code, no benchmark.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from pippin.bench.posttrain_labels import HELDOUT, RandomStart
from pippin.files import read_json
from pippin.pipeline import Graph
from pippin.progress import Screen
from pippin.stages.reward import Reward
from pippin.training.loop import TrainSpec


@pytest.mark.slow
def test_a_small_model_beats_both_rules_of_length(test_data: Path, tmp_path: Path) -> None:
    data = str(test_data / "hh-rlhf" / "harmless-base-test.jsonl.gz")
    train = TrainSpec(
        steps=50, batch_size=64, seq_len=256, lr=2e-3, warmup_steps=10, weight_decay=2e-4, base_width=64,
        compute="float32", eval_every=50, checkpoint_every=50, optimizer="adamw",
    )  # fmt: skip
    accuracies = []
    for seed in range(2):
        begin = RandomStart(data=data, seed=seed)
        made = Reward(start=begin, data=data, train=train, heldout_share=HELDOUT, seed=seed)
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
