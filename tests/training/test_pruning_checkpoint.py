"""From a checkpoint of a pruning run to the student: the directory alone is enough."""

from __future__ import annotations

from pathlib import Path

import torch

from pippin.model.config import ModelConfig
from pippin.model.transformer import Transformer
from pippin.stages.prune import Masked
from pippin.training.checkpoint import Checkpoints
from pippin.training.pruning import clear_masks, hard_top_k, install_masks, slice_ffn

CONFIG = ModelConfig(64, 32, 2, n_heads=2, n_kv_heads=1, d_head=16, d_ff=48, max_seq_len=32)
KEPT = 20


def masked(seed: int) -> Masked:
    torch.manual_seed(seed)
    return Masked(Transformer(CONFIG, torch.float32), gain=10.0, noise=1.0, seed=seed)


def test_the_student_is_cut_from_a_checkpoint(tmp_path: Path) -> None:
    """Its logits are those of the parent whose masks are hard; another parent in the same place would be noticed."""
    trained, fresh = masked(1), masked(2)
    with Checkpoints(tmp_path) as checkpoints:
        for step, model in ((1, masked(3)), (2, trained)):
            checkpoints.save(step, {name: p.detach() for name, p in model.named_parameters()}, {})
    with Checkpoints(tmp_path) as checkpoints:
        state, _ = checkpoints.restore({name: p.detach() for name, p in fresh.named_parameters()})
    assert state is not None
    assert state.step == 2
    student = slice_ffn(fresh.model, hard_top_k(fresh.scores.detach(), KEPT))
    assert student.config.d_ff == KEPT
    tokens = torch.randint(CONFIG.vocab_size, (2, 16), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        install_masks(trained.model, trained.scores, KEPT, 0.0)
        torch.testing.assert_close(student(tokens), trained.model(tokens), rtol=1e-5, atol=1e-6)
        clear_masks(trained.model)
        assert not torch.allclose(student(tokens), trained.model(tokens), atol=1e-3)
