"""The whole chain in a few minutes on two cores: a narrow generated world with some real text in it."""

from __future__ import annotations

from pippin.pipeline import Stage
from pippin.recipes.chain import AdapterParams, Feedback, Mixtures, Params, Shape, chain
from pippin.recipes.committee import Round, spec
from pippin.recipes.corpus import Corpus
from pippin.training.loop import TrainSpec

PARAMS = Params(
    corpus=Corpus(
        world_documents=8_000, world_tasks=10_000, stdlib_bytes=1_000_000, instruct_world=30_000, instruct_python=2_000
    ),
    vocab_size=1_536,
    # The report's proportions at width 128: FFN 2.625 d in the student, three times that in the parent (afm 4.25).
    # Heads of 64 and a short RoPE base: with QK-norm a head's logits are at most sqrt(d_head), and copying from the
    # context, which most exercises need, was learnt much later with heads of 32 and a base of 500,000 (docs/LOG.md).
    shape=Shape(
        d_model=128, n_layers=3, n_heads=2, n_kv_heads=2, d_head=64, d_ff=1_008, student_d_ff=336, rope_base=10_000
    ),
    mixtures=Mixtures(
        core={"stories": 0.25, "tasks": 0.6, "python": 0.15},
        continued={"stories": 0.25, "tasks": 0.6, "python": 0.15},
        lengthen={"stories": 0.25, "tasks": 0.6, "python": 0.15},
        sft={"chat": 0.65, "chat-summary": 0.1, "chat-describe": 0.05, "stories": 0.05, "tasks": 0.05, "python": 0.1},
        summary={"chat-summary": 1.0},
        recover={"stories": 0.2, "tasks": 0.2, "python": 0.2, "chat": 0.4},
    ),
    core=TrainSpec(steps=1_000, batch_size=8, seq_len=128, lr=0.005, warmup_steps=40),
    prune=TrainSpec(steps=100, batch_size=8, seq_len=128, lr=0.002, warmup_steps=5),
    distill=TrainSpec(steps=300, batch_size=8, seq_len=128, lr=0.003, warmup_steps=10),
    continued=TrainSpec(steps=120, batch_size=8, seq_len=256, lr=0.002, warmup_steps=10, floor=0.1, weight_decay=1e-5),
    lengthen=TrainSpec(steps=30, batch_size=4, seq_len=512, lr=0.001, warmup_steps=5, floor=0.1, weight_decay=1e-5),
    sft=TrainSpec(steps=1_500, batch_size=8, seq_len=192, lr=0.005, warmup_steps=10, floor=0.05, weight_decay=1e-5),
    summary=TrainSpec(steps=60, batch_size=8, seq_len=256, lr=0.003, warmup_steps=5, weight_decay=1e-5),
    tune=TrainSpec(steps=60, batch_size=8, seq_len=256, lr=0.002, warmup_steps=5, floor=0.02, weight_decay=0.0),
    recover=TrainSpec(steps=60, batch_size=8, seq_len=256, lr=0.003, warmup_steps=5, weight_decay=1e-5),
    # At this width rank 1 adds a fifth of a bit to the weights; the report's 16 would double their size.
    adapters=AdapterParams(task_rank=4, recovery_rank=1),
    feedback=Feedback(
        round=Round(
            methods=("rs", "dpo", "mdloo"),
            prompts=400,
            reward=spec(60, 16, 0.001),
            rs=spec(40, 16, 0.0003),
            preference=spec(30, 16, 0.0001),
            mdloo=spec(24, 64, 0.0002, schedule="constant", checkpoint_every=24),
            student=spec(60, 16, 0.0003),
            picked_by="both",
            kl_beta=0.05,
        ),
        tasks=("add", "sort", "digits", "form"),
        prompts=400,
        heldout=120,
    ),
    heldout_sources=("stories", "tasks", "python"),
)


def quickstart(p: Params = PARAMS) -> dict[str, Stage]:
    """Stages of the quickstart."""
    return chain(p)
