from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from tests.running import TINY, command, one_line_error

from pippin.files import write_json
from pippin.interop.hf import load_hf
from pippin.model.config import ModelConfig, RopeScaling
from pippin.model.transformer import Transformer
from pippin.pipeline import canonical
from pippin.training.checkpoint import Checkpoints
from pippin.training.checkpoint_files import MANIFEST, shard_name, steps_in

CONFIG = ModelConfig(
    vocab_size=32, d_model=16, n_layers=2, n_heads=2, n_kv_heads=1, d_head=8, d_ff=24, max_seq_len=16,
    rope_scaling=RopeScaling(2.0, 1.0, 4.0, 8), qk_norm="none",
)  # fmt: skip


def model(step: int) -> Transformer:
    torch.manual_seed(step)
    return Transformer(CONFIG, torch.float32)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of an unfinished stage with steps 10 and 20, whose last blocks are equal."""
    run = tmp_path_factory.mktemp("runs") / "core-00000000"
    write_json(run / "stage.json", {"upstream": {"tokens": "tokens-11111111"}})
    shared = model(5).blocks[1].state_dict()
    with Checkpoints(run / "checkpoint") as checkpoints:
        for step in (10, 20):
            trained = model(step)
            trained.blocks[1].load_state_dict(shared)
            tensors: dict[str, torch.Tensor] = {}
            for name, parameter in trained.named_parameters():
                tensors[f"parameter.{name}"] = parameter
                tensors[f"momentum.{name}"] = torch.full_like(parameter, step)
                tensors[f"step.{name}"] = torch.tensor(float(step))
            checkpoints.save(step, tensors, {"applied": step - 1, "models": {"": canonical(CONFIG)}})
    return run


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(made, tmp_path / made.name))


def test_an_unfinished_run_and_its_directories_are_known(made: Path) -> None:
    whole = command("inspect", made)
    assert whole.code == 0
    assert [line.split()[0] for line in whole.out.splitlines()[1:3]] == ["10", "20"]
    assert "applied: 19" in whole.out
    (line,) = [line for line in whole.out.splitlines() if line.startswith("blocks.1.ffn.up.weight")]
    assert line.split() == [
        "blocks.1.ffn.up.weight", "F32", "24", "x", "16", "1", "parameter,", "momentum,", "step"
    ]  # fmt: skip
    assert command("inspect", made / "checkpoint").out == whole.out
    one = command("inspect", made / "checkpoint" / "step-00000010")
    assert "applied: 9" in one.out


def test_numbers_for_programs(made: Path, tmp_path: Path) -> None:
    assert command("inspect", made, "--json", tmp_path / "list.json").code == 0
    listed = json.loads((tmp_path / "list.json").read_text(encoding="utf-8"))
    assert [step["step"] for step in listed] == [10, 20]
    assert listed[0]["tensors"]["parameter.embed.weight"] == ["F32", [32, 16]]
    assert "of a checkpoint there is --json" in one_line_error(command("inspect", made, "--html", tmp_path / "page"))


def test_verify_finds_a_flipped_bit_that_the_list_does_not(run: Path) -> None:
    assert "every digest is right" in command("inspect", run, "--verify").out
    file = run / "checkpoint" / "step-00000020" / shard_name(1)
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert command("inspect", run).code == 0
    outcome = command("inspect", run, "--verify")
    assert "differs from its digest; 1 of 2 steps are damaged" in one_line_error(outcome)
    assert outcome.out.count("every digest is right") == 1
    for option in ("--diff", "--merge"):
        error = one_line_error(command("inspect", run, option, run / "checkpoint" / "step-00000010"))
        assert "the step is damaged" in error


def test_a_cut_file_and_a_lost_manifest_are_in_the_list(run: Path) -> None:
    (run / "checkpoint" / "step-00000010" / MANIFEST).unlink()
    os.truncate(run / "checkpoint" / "step-00000020" / shard_name(1), 100)
    outcome = command("inspect", run)
    assert "2 of 2 steps are damaged" in one_line_error(outcome)
    assert "manifest.json: is missing" in outcome.out
    assert "100 bytes instead of" in outcome.out


def test_diff(made: Path) -> None:
    outcome = command("inspect", made / "checkpoint" / "step-00000010", "--diff", made)
    assert outcome.code == 0
    assert "applied: 9 and 19" in outcome.out
    rows = {line.split()[0]: line.split()[1:] for line in outcome.out.splitlines() if "%" in line}
    assert not [name for name in rows if name.startswith("parameter.blocks.1")]
    assert rows["momentum.embed.weight"] == ["10", "1", "100.0%"]
    expected = model(10).embed.weight - model(20).embed.weight
    assert rows["parameter.embed.weight"][0] == f"{float(expected.detach().abs().max()):.3g}"
    same = command("inspect", made, "--diff", made / "checkpoint" / "step-00000020")
    assert "%" not in same.out
    assert "tensors are equal to the last bit" in same.out


def test_merge_gives_the_model(made: Path, run: Path, tmp_path: Path) -> None:
    assert "no tokenizer was found" in command("inspect", run, "--merge", tmp_path / "plain").out
    tokenizer = run.parent / "tokens-11111111" / "tokenizer"
    tokenizer.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        write_json(tokenizer / name, {})
    assert command("inspect", run / "checkpoint" / "step-00000010", "--merge", tmp_path / "hf").code == 0
    assert (tmp_path / "hf" / "tokenizer.json").exists()
    merged = load_hf(tmp_path / "hf", torch.float32)
    assert merged.config == CONFIG
    assert torch.equal(merged.embed.weight, model(10).embed.weight)
    again = one_line_error(command("inspect", run, "--merge", tmp_path / "hf"))
    assert "is there and not empty" in again


def test_kept_checkpoints_of_a_finished_stage(finished: Path, tmp_path: Path) -> None:
    runs = Path(shutil.copytree(finished, tmp_path / "runs"))
    assert command("run", TINY, "core", "core.keep_every=4", "--runs", runs).code == 0
    (kept,) = runs.glob("core-*/checkpoint")
    assert steps_in(kept) == [4, 6]
    assert "core" in command("inspect", kept, "--verify").out
    assert "no tokenizer" not in command("inspect", kept / "step-00000006", "--merge", tmp_path / "out").out
    merged, trained = load_hf(tmp_path / "out"), load_hf(kept.parent / "model")
    assert merged.config == trained.config
    assert 0 < float((merged.embed.weight - trained.embed.weight).detach().abs().max()) < 0.1  # one step apart
    assert "Nothing to do" in command("run", TINY, "core", "core.keep_every=4", "--runs", runs).out
    assert steps_in(kept) == [4, 6]


def test_what_cannot_be_merged(tmp_path: Path) -> None:
    with Checkpoints(tmp_path / "adapter") as checkpoints:
        checkpoints.save(1, {"parameter.lora_A": torch.ones(2)}, {"models": {"": canonical(CONFIG)}})
    with Checkpoints(tmp_path / "other") as checkpoints:
        checkpoints.save(1, {"parameter.x": torch.ones(2)}, {})
    assert "of an adapter" in one_line_error(command("inspect", tmp_path / "adapter", "--merge", tmp_path / "out"))
    assert "says nothing of one" in one_line_error(command("inspect", tmp_path / "other", "--merge", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_there_is_none(tmp_path: Path) -> None:
    for option in (["--verify"], ["--diff", tmp_path], ["--merge", tmp_path / "out"]):
        assert "holds no checkpoint" in one_line_error(command("inspect", tmp_path, *option))


def test_names_do_not_command_the_terminal(tmp_path: Path) -> None:
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"a.\x1b[2J[red]": torch.ones(2)}, {"\x1b]0;x": "\x1b[31m"})
    outcome = command("inspect", tmp_path)
    assert "\x1b" not in outcome.out
    assert "[red]" in outcome.out
