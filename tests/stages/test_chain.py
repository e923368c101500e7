"""One uninterrupted run of the whole chain, looked at from every side."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from tests.running import TINY, artifacts, command, directory, graph, litter, manifest, metrics, record
from tests.tiny import PARAMS, tiny

from pippin import files
from pippin.chat import open_chat
from pippin.data import instruct
from pippin.data.loader import IGNORE, Loader
from pippin.data.tokenizer import Tokenizer
from pippin.errors import UserError
from pippin.interop.hf import load_hf
from pippin.interop.load import load_model
from pippin.interop.lora import base_signature
from pippin.interop.peft import load_adapter
from pippin.model.transformer import Transformer
from pippin.progress import Screen

TRAINED = ("core", "prune", "distill", "continued", "lengthen", "sft")
ADAPTERS = ("summary", "recover", "control")


def weights(runs: Path, stage: str) -> dict[str, torch.Tensor]:
    return dict(load_hf(directory(runs, stage) / "model").named_parameters())


def logits(model: Transformer, tokens: torch.Tensor, slot: int | None = None) -> torch.Tensor:
    model.compute_dtype = torch.float32
    with torch.no_grad():
        found = model(tokens, slots_B=None if slot is None else torch.full((len(tokens),), slot))
    assert isinstance(found, torch.Tensor)
    return found


@pytest.fixture(scope="module")
def tokens() -> torch.Tensor:
    return torch.randint(8, PARAMS.vocab_size, (2, 40), generator=torch.Generator().manual_seed(1))


# --- the run as a whole


def test_every_stage_is_done_and_printed_once(finished: Path) -> None:
    stages = list(tiny())
    assert sorted(path.parent.name[:-9] for path in finished.glob("*/DONE")) == sorted(stages)
    output = (finished / "output").read_text()
    assert "\x1b" not in output
    lines = output.splitlines()
    assert lines[0].startswith(f"{len(stages)} of {len(stages)} stages to do, ")
    assert [line.split()[1] for line in lines if line.startswith("✓")] == stages
    assert [line.split()[1] for line in lines[1 : 1 + len(stages)]] == stages  # not a terminal: one line each, no more
    assert litter(finished) == []
    assert not list(finished.rglob("checkpoint"))


def test_the_second_run_does_nothing_and_says_so(finished: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}
    outcome = command("run", TINY, "--runs", finished)
    assert (outcome.code, outcome.out.splitlines()[0]) == (0, f"Nothing to do: all {len(tiny())} stages are done.")
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()} == before


def test_show(finished: Path) -> None:
    shown = command("show", TINY, "--runs", finished)
    assert shown.code == 0
    for name in tiny():
        assert f"{name} " in shown.out
    assert "core.steps=7" in shown.out
    assert " to do" not in shown.out

    as_json = json.loads(command("show", TINY, "--json", "--runs", finished).out)
    assert [stage["name"] for stage in as_json["stages"]] == list(tiny())
    assert {stage["state"] for stage in as_json["stages"]} == {"done"}
    assert as_json["settings"]["core.steps"] == 7
    core = next(stage for stage in as_json["stages"] if stage["name"] == "core")
    assert core["tokens"] == PARAMS.core.tokens == record(finished, "core")["results"]["train_tokens"]
    assert Path(core["directory"], "model", "config.json").is_file()
    assert core["parameters"] == record(finished, "core")["results"]["parameters"]

    changed = json.loads(command("show", TINY, "--json", "sft.steps=9", "--runs", finished).out)["stages"]
    todo = [stage["name"] for stage in changed if stage["state"] == "to do"]
    assert todo == ["sft", "summary", "compress", "recover", "control", "evaluate"]
    assert json.loads(command("show", directory(finished, "core")).out)["class"] == "Pretrain"


def test_stage_json(finished: Path) -> None:
    stages = graph(finished)
    for name, stage in stages.stages.items():
        found = record(finished, name)
        assert set(found) == {
            "format_version", "name", "class", "version", "id", "fields", "upstream", "inputs", "environment",
            "seconds", "results",
        }  # fmt: skip
        assert found["name"] == name
        assert found["id"] == stages.id(stage)
        assert found["class"] == type(stage).__name__
        assert found["seconds"] > 0
        assert found["results"]
        assert {"torch", "python", "threads", "machine"} <= set(found["environment"])
        assert all((finished / upstream).is_dir() for upstream in found["upstream"].values())
    assert record(finished, "sft")["upstream"]["start"] == directory(finished, "lengthen").name


def test_losses_are_logged_at_every_step(finished: Path) -> None:
    for name in (*TRAINED, *ADAPTERS):
        spec = getattr(PARAMS, "recover" if name == "control" else name)
        entries = metrics(directory(finished, name))
        losses = {entry["step"]: entry["loss"] for entry in entries if "loss" in entry}
        assert sorted(losses) == list(range(spec.steps)), name
        assert all(0 < loss < 2 * math.log(PARAMS.vocab_size) for loss in losses.values()), losses
        assert any(key.startswith("loss_") for key in entries[-1]), name  # held-out, source by source
        assert list((directory(finished, name) / "tensorboard").iterdir())


def test_every_model_directory_carries_the_tokenizer(finished: Path) -> None:
    own = {Path(name).name: digest for name, digest in manifest(directory(finished, "tokenizer")).items()}
    assert {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"} <= set(own)
    for name in (*TRAINED, "compress"):
        carried = {Path(path).name: digest for path, digest in manifest(directory(finished, name)).items()}
        assert {file: carried[file] for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")} == {
            file: own[file] for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
        }


# --- what the artifacts are to other tools


def test_a_model_opens_in_transformers_with_the_same_logits(finished: Path, tokens: torch.Tensor) -> None:
    transformers = pytest.importorskip("transformers")
    path = directory(finished, "sft") / "model"
    theirs = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    assert type(theirs).__name__ == "Qwen3ForCausalLM"
    with torch.no_grad():
        expected = theirs(tokens).logits
    torch.testing.assert_close(logits(load_hf(path), tokens), expected, rtol=0, atol=1e-4)
    tokenizer, text = transformers.AutoTokenizer.from_pretrained(path), "Ann has 12 red cups.\n"
    assert tokenizer.encode(text, add_special_tokens=False) == Tokenizer.load(path).encode(text)


def test_an_adapter_opens_in_peft_with_the_same_logits(finished: Path, tokens: torch.Tensor) -> None:
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    base, adapter = directory(finished, "sft") / "model", directory(finished, "summary") / "adapter"
    theirs = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    theirs = peft.PeftModel.from_pretrained(theirs, adapter)
    with torch.no_grad():
        expected = theirs(tokens).logits
    model, _, slot = open_chat(directory(finished, "summary"), None)
    ours = logits(model, tokens, slot)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-4)
    assert not torch.equal(ours, logits(model, tokens))  # it does something


def test_an_adapter_refuses_another_base(finished: Path) -> None:
    other = directory(finished, "lengthen") / "model"  # the same shape, other weights
    with pytest.raises(UserError, match="trained on another base"):
        open_chat(other, directory(finished, "summary"))
    model = load_model(directory(finished, "compress") / "model")
    for _, linear in model.linears():
        linear.add_adapters(1, PARAMS.adapters.recovery_rank)
    with pytest.raises(UserError, match="trained on another base"):
        signature = base_signature(directory(finished, "compress") / "model")
        load_adapter(model, 0, directory(finished, "control") / "adapter", signature)


# --- what each stage did


def test_only_the_assistants_tokens_are_learnt(finished: Path) -> None:
    path = directory(finished, "tokens") / "tokens"
    tokenizer = Tokenizer.load(directory(finished, "tokenizer") / "tokenizer")
    spec = PARAMS.sft
    loader = Loader(path, PARAMS.mixtures.sft, "train", spec.seq_len, spec.batch_size, PARAMS.seed, "bins")
    answers = {
        "".join(m["content"] for m in each["messages"] if m["role"] == "assistant")
        for each in instruct.read(directory(finished, "curate") / "instruct", "train")
    }
    batch = loader.batch(0)
    n_learnt = 0
    for row in range(spec.batch_size):
        for segment in range(1, int(batch.segment_ids[row].max()) + 1):
            inside = batch.segment_ids[row] == segment
            learnt = batch.targets[row][inside & (batch.targets[row] != IGNORE)]
            assert learnt[-1] == tokenizer.end_id
            assert tokenizer.decode(learnt[:-1].tolist()) in answers
            n_learnt += len(learnt)
    assert 0 < n_learnt < int((batch.segment_ids > 0).sum())
    # The loss that the stage logged for this batch is the mean over exactly those targets, of the model it began with.
    model = load_hf(directory(finished, "lengthen") / "model", torch.bfloat16)
    with torch.no_grad():
        found = model(batch.tokens, positions_BT=batch.positions, segment_ids_BT=batch.segment_ids)
    assert isinstance(found, torch.Tensor)
    expected = torch.nn.functional.cross_entropy(found.flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORE)
    assert metrics(directory(finished, "sft"))[0]["loss"] == pytest.approx(float(expected), rel=2e-3)


def test_what_does_not_fit_is_counted(finished: Path) -> None:
    assert "documents longer than 256 left out" in (directory(finished, "sft") / "log").read_text()


def test_each_stage_starts_from_the_weights_before_it(finished: Path, tmp_path: Path) -> None:
    for stage in ("curate", "tokenizer", "tokens", "core"):
        (tmp_path / directory(finished, stage).name).symlink_to(directory(finished, stage))
    still = [f"{stage}.{what}" for stage in TRAINED[1:] for what in ("lr=1e-30", "weight_decay=0")]
    graph(tmp_path, *still).run(["sft"], Screen(quiet=True))
    core, pruned, tuned = (weights(tmp_path, stage) for stage in ("core", "prune", "sft"))
    assert all(torch.equal(tuned[name], pruned[name]) for name in pruned)
    assert torch.equal(pruned["blocks.1.attention.q.weight"], core["blocks.1.attention.q.weight"])
    gate, parents = pruned["blocks.1.ffn.gate.weight"], core["blocks.1.ffn.gate.weight"]
    assert len(gate) < len(parents)
    assert all((row == parents).all(1).any() for row in gate)


def test_training_changed_every_matrix(finished: Path) -> None:
    for before, after in zip(TRAINED[1:], TRAINED[2:], strict=False):
        old, new = weights(finished, before), weights(finished, after)
        assert [name for name in new if torch.equal(old[name], new[name])] == [], after


def test_pruning_leaves_the_students_width(finished: Path) -> None:
    sizes = {stage: files.read_json(directory(finished, stage) / "model" / "config.json") for stage in TRAINED}
    assert [sizes[stage]["intermediate_size"] for stage in TRAINED] == [48, 32, 32, 32, 32, 32]
    assert weights(finished, "prune")["blocks.0.ffn.down.weight"].shape == (32, 32)


def test_lengthening_grows_the_rope_base_by_the_rule(finished: Path) -> None:
    paths = (directory(finished, stage) / "model" / "config.json" for stage in ("continued", "lengthen"))
    before, after = map(files.read_json, paths)
    assert (before["rope_theta"], before["max_position_embeddings"]) == (500_000.0, 128)
    ratio = math.log(256 / (2 * math.pi)) / math.log(128 / (2 * math.pi))
    assert after["rope_theta"] == pytest.approx(500_000.0**ratio)
    assert after["rope_parameters"]["rope_theta"] == after["rope_theta"]
    assert after["max_position_embeddings"] == 256


def test_compression_keeps_its_promise(finished: Path) -> None:
    found = record(finished, "compress")["results"]
    assert 2 < found["bits_per_weight"] <= PARAMS.bits_per_weight
    plan = files.read_json(directory(finished, "compress") / "model" / "bitplan.json")
    assert set(plan.values()) == {2, 4}
    assert len(plan) == 7 * PARAMS.shape.n_layers
    kinds = {linear.bits for _, linear in load_model(directory(finished, "compress") / "model").linears()}
    assert kinds == {2, 4}


def test_adapters_leave_their_base_alone(finished: Path) -> None:
    assert [path for path in artifacts(finished) if path.split("-")[0] in ADAPTERS and "/model/" in path] == []
    for name in ADAPTERS:
        assert record(finished, name)["results"]["before"]
