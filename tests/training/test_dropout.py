"""In the loop: on while the loss is computed, off elsewhere, the same after a cut (see test_parallel for meshes)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from tests.training.parallel_cases import CONFIG, LENGTH, ROWS, packed_batch

from pippin.data.loader import Batch
from pippin.errors import UserError
from pippin.files import write_json
from pippin.interop.hf import save_hf
from pippin.model.cross_entropy import Loss
from pippin.model.transformer import Transformer
from pippin.pipeline import Context, Graph, Stage, read_metrics, stage_id
from pippin.progress import Screen
from pippin.stages.training import next_token_loss
from pippin.training.dropout import Dropping
from pippin.training.loop import TrainSpec, fit

SPEC = TrainSpec(
    steps=6, batch_size=ROWS, seq_len=LENGTH, compute="float32", log_every=1, eval_every=3, checkpoint_every=2,
    dropout=0.2,
)  # fmt: skip


def before(step: int) -> None:
    """Called before each loss, for a test to interrupt."""


class Batches:
    """Packed rows by step."""

    def rows(self, step: int, start: int, stop: int) -> Batch:
        whole = packed_batch(step)
        return Batch(*(t[start:stop] for t in (whole.tokens, whole.targets, whole.positions, whole.segment_ids)))

    def identify(self, step: int) -> str:
        return str(step)


@dataclass(frozen=True, kw_only=True)
class Trained(Stage):
    """A small model trained on them."""

    train: TrainSpec

    def run(self, ctx: Context) -> None:
        torch.manual_seed(3)
        model = Transformer(CONFIG, torch.float32)
        seen: list[bool] = []

        def loss(batch: Batch, step: int) -> Loss:
            before(step)
            seen.append(model.dropout is not None)
            return next_token_loss(model, 0.0, batch, step)

        def look() -> dict[str, float]:
            assert model.dropout is None
            found = next_token_loss(model, 0.0, packed_batch(99), 0)
            return {"loss_look": float(found.nll / found.count)}

        fit(model, loss, Batches(), self.train, ctx, look)
        assert set(seen) <= {self.train.dropout > 0}
        save_hf(model, ctx.out("model"))
        write_json(ctx.out("report") / "seen.json", len(seen))


def trained(place: Path, stage: Trained) -> Path:
    graph = Graph({"trained": stage}, place)
    graph.run(["trained"], Screen(quiet=True))
    return graph.directory(stage)


def weights(directory: Path) -> bytes:
    return (directory / "model" / "model.safetensors").read_bytes()


def losses(directory: Path) -> list[float]:
    return [row["loss"] for row in read_metrics(directory / "metrics.jsonl") if "loss" in row]


def test_a_cut_run_ends_with_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = trained(tmp_path / "whole", Trained(train=SPEC))

    def cut(step: int) -> None:
        if step == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("tests.training.test_dropout.before", cut)
        with pytest.raises(KeyboardInterrupt):
            trained(tmp_path / "cut", Trained(train=SPEC))
    again = trained(tmp_path / "cut", Trained(train=SPEC))
    assert "resumed at step 4" in (again / "log").read_text()
    assert weights(again) == weights(whole)


def test_the_rate_is_part_of_the_id_only_when_it_is_set(tmp_path: Path) -> None:
    old = Trained(train=replace(SPEC, dropout=0.0))
    assert stage_id(old) != stage_id(Trained(train=SPEC))
    plain = trained(tmp_path, old)
    assert losses(plain) != losses(trained(tmp_path, Trained(train=SPEC)))


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_a_rate_out_of_range_is_one_line(rate: float) -> None:
    with pytest.raises(UserError, match=f"dropout={rate}: must be at least 0 and below 1"):
        replace(SPEC, dropout=rate).check()


def test_an_error_leaves_no_dropout_behind() -> None:
    model, frozen = Transformer(CONFIG), Transformer(CONFIG).requires_grad_(False)
    dropping = Dropping(torch.nn.ModuleList([model, frozen]), 0.1, 0)
    with pytest.raises(ValueError, match="within"), dropping(0, 0):
        assert model.dropout is not None
        assert frozen.dropout is None
        raise ValueError("within")
    assert model.dropout is None
