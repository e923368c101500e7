"""Task adapters: they start from the recovery adapter, may match a teacher, and refuse another base."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.running import directory, graph, record

from pippin.errors import UserError
from pippin.files import read_json, write_json
from pippin.interop.hf import save_hf
from pippin.interop.load import load_model
from pippin.interop.lora import base_signature
from pippin.interop.peft import load_adapter, save_adapter
from pippin.model.transformer import Transformer
from pippin.pipeline import Graph
from pippin.progress import Screen
from pippin.stages.adapter import Adapter, begin_with

TOKENS = torch.randint(8, 384, (2, 30), generator=torch.Generator().manual_seed(1))


def packed(finished: Path, rank: int, alpha_per_rank: float = 1.0) -> Transformer:
    model = load_model(directory(finished, "compress") / "model", torch.float32)
    torch.manual_seed(0)
    for _, linear in model.linears():
        linear.add_adapters(2, rank)
        linear.lora_scale.fill_(alpha_per_rank)
    return model


@torch.no_grad()
def logits(model: Transformer, slot: int) -> torch.Tensor:
    return model(TOKENS, slots_B=torch.full((len(TOKENS),), slot))


@pytest.fixture(scope="module")
def strong(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of rank 2 and alpha 6 on the compressed model that does a lot."""
    model = packed(finished, 2, 3.0)
    for _, linear in model.linears():
        assert linear.lora_B is not None
        torch.nn.init.normal_(linear.lora_B, std=0.2)
    path = tmp_path_factory.mktemp("strong")
    save_adapter(model, 0, path, base_signature(directory(finished, "compress") / "model"))
    return path


@pytest.mark.parametrize(("rank", "alpha_per_rank"), [(2, 3.0), (5, 3.0), (5, 1.5), (2, 1.0)])
def test_the_start_computes_what_the_initial_adapter_does(
    finished: Path, strong: Path, rank: int, alpha_per_rank: float
) -> None:
    signature = base_signature(directory(finished, "compress") / "model")
    model = packed(finished, rank, alpha_per_rank)
    load_adapter(model, 1, strong, signature)
    begin_with(model, 0, strong, signature)
    ours, theirs = logits(model, 0), logits(model, 1)
    # A power of two between the scales rounds nothing; 3 rounds B once.
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0 if alpha_per_rank != 1.0 else 1e-5)
    assert (ours - logits(model, -1)).abs().max() > 0.1
    for _, linear in model.linears():
        assert linear.lora_A is not None
        assert linear.lora_B is not None
        assert float(linear.lora_scale[0]) == alpha_per_rank
        assert not linear.lora_B[0, :, 2:].any()
        assert linear.lora_A[0, 2:].any(dim=1).all()  # the new rows can learn


def test_a_projection_that_another_tool_s_adapter_leaves_alone_can_learn(
    finished: Path, strong: Path, tmp_path: Path
) -> None:
    config, tensors = read_json(strong / "adapter_config.json"), load_file(strong / "adapter_model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if "q_proj" in name}
    save_file(kept, tmp_path / "adapter_model.safetensors")
    write_json(tmp_path / "adapter_config.json", config)
    model = packed(finished, 2, 3.0)
    begin_with(model, 0, tmp_path, base_signature(directory(finished, "compress") / "model"))
    for name, linear in model.linears():
        assert linear.lora_A is not None and linear.lora_B is not None
        assert linear.lora_A[0].any(dim=1).all()
        assert bool(linear.lora_B[0].any()) == name.endswith(".q")


def test_a_start_that_does_not_fit_is_one_line(finished: Path, strong: Path) -> None:
    signature = base_signature(directory(finished, "compress") / "model")
    with pytest.raises(UserError, match=r"rank: value 1: the adapter to start from has rank 2; set rank=2 or more"):
        begin_with(packed(finished, 1), 0, strong, signature)
    with pytest.raises(UserError, match="trained on another base"):
        begin_with(packed(finished, 2), 0, strong, base_signature(directory(finished, "sft") / "model"))


@pytest.fixture
def runs(finished: Path, tmp_path: Path) -> Path:
    for stage in finished.glob("*-????????"):
        (tmp_path / stage.name).symlink_to(stage)
    return tmp_path


def run(runs: Path, name: str, **changes: object) -> Graph:
    """The tiny chain with one more adapter: `recover` with changes."""
    stages = graph(runs).stages
    made = replace(stages["recover"], **changes)
    assert isinstance(made, Adapter)
    found = Graph(stages | {name: made}, runs)
    found.run([name], Screen(quiet=True))
    return found


def test_a_task_adapter_starts_from_the_recovery_adapter(runs: Path) -> None:
    stages = graph(runs).stages
    still = replace(stages["recover"].train, lr=1e-30)
    run(runs, "task", initial=stages["recover"], rank=8, alpha=16.0, train=still)
    found, initial = record(runs, "task")["results"], record(runs, "recover")["results"]
    assert found["initial"]["bpb_stories"] == pytest.approx(initial["bpb_stories"], rel=1e-3)
    assert found["bpb_stories"] == pytest.approx(initial["bpb_stories"], rel=1e-3)
    assert found["before"] == initial["before"]
    model = packed(runs, 8)
    signature = base_signature(directory(runs, "compress") / "model")
    assert load_adapter(model, 0, directory(runs, "task") / "adapter", signature).rank == 8
    load_adapter(model, 1, directory(runs, "recover") / "adapter", signature)
    torch.testing.assert_close(logits(model, 0), logits(model, 1), rtol=0, atol=2e-3)  # 16-bit storage of B


def test_an_adapter_of_another_base_is_no_start(runs: Path) -> None:
    with pytest.raises(UserError, match="trained on another base"):
        run(runs, "task", initial=graph(runs).stages["control"])
    assert not list(runs.glob("task-*/adapter/*"))


def test_the_teacher_changes_the_loss(runs: Path) -> None:
    stages = graph(runs).stages
    taught = run(runs, "taught", teacher=stages["sft"], teacher_weight=1.0)
    untaught = run(runs, "untaught", teacher=stages["sft"], teacher_weight=0.0)
    own, plain = (record(runs, name)["results"]["bpb_chat"] for name in ("taught", "untaught"))
    assert plain == pytest.approx(record(runs, "recover")["results"]["bpb_chat"], rel=1e-3)  # the same loss
    assert own != plain
    assert taught.id(taught.stages["taught"]) != untaught.id(untaught.stages["untaught"])
    with pytest.raises(UserError, match="teacher_weight"):
        replace(stages["recover"], teacher_weight=1.5)


def test_peft_computes_the_same_on_the_dense_export_of_a_packed_base(
    finished: Path, strong: Path, tmp_path: Path
) -> None:
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    model = packed(finished, 2)
    save_hf(model, tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    theirs = peft.PeftModel.from_pretrained(theirs, strong).eval()
    with torch.no_grad():
        expected = theirs(TOKENS).logits
    load_adapter(model, 0, strong)
    torch.testing.assert_close(logits(model, 0), expected, rtol=0, atol=1e-4)
    assert (expected - logits(model, -1)).abs().max() > 0.1
