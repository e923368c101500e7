"""Our model and transformers' Qwen3ForCausalLM compute the same, through directories written by either."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from pippin.errors import UserError
from pippin.interop.directory import INDEX
from pippin.interop.hf import load_hf, save_hf
from pippin.interop.layouts import hf_name
from pippin.model.cache import KVCache
from pippin.model.config import ModelConfig
from pippin.model.cross_entropy import Targets
from pippin.model.transformer import Transformer

transformers = pytest.importorskip("transformers")

# d_head is not d_model / n_heads, widths are not round, the base is not the default.
CONFIG = ModelConfig(
    vocab_size=97, d_model=48, n_layers=3, n_heads=6, n_kv_heads=2, d_head=20, d_ff=72, max_seq_len=64, rope_base=1234.5
)


def ours_random(config: ModelConfig = CONFIG) -> Transformer:
    torch.manual_seed(0)
    model = Transformer(config, compute_dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 1.5)
    return model


def theirs_from(directory: Path) -> Any:
    return transformers.Qwen3ForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()


def theirs_random() -> Any:
    torch.manual_seed(1)
    config = transformers.Qwen3Config(
        vocab_size=97, hidden_size=48, intermediate_size=72, num_hidden_layers=3, num_attention_heads=6,
        num_key_value_heads=2, head_dim=20, max_position_embeddings=64, tie_word_embeddings=True,
        rms_norm_eps=1e-5, rope_parameters={"rope_type": "default", "rope_theta": 777.0}, initializer_range=0.2,
    )  # fmt: skip
    model = transformers.Qwen3ForCausalLM(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 1.5)
    return model


def tokens(batch: int = 2, length: int = 33) -> torch.Tensor:
    return torch.randint(0, 97, (batch, length), generator=torch.Generator().manual_seed(2))


def assert_same(ours: Transformer, theirs: Any) -> None:
    """Logits, loss and the gradient of every parameter."""
    tokens_BT = tokens()
    logits = ours(tokens_BT)
    reference = theirs(tokens_BT).logits
    assert reference.abs().max() > 1
    torch.testing.assert_close(logits, reference, atol=1e-4, rtol=0)
    targets_BT = torch.cat((tokens_BT[:, 1:], torch.full((2, 1), -100)), dim=1)
    loss = ours(tokens_BT, targets=Targets(targets_BT))
    (loss.total / loss.count).backward()
    expected = F.cross_entropy(reference[:, :-1].flatten(0, 1), tokens_BT[:, 1:].flatten())
    expected.backward()
    torch.testing.assert_close(loss.nll / loss.count, expected, atol=1e-5, rtol=1e-5)
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    assert len(gradients) == 3 * 11 + 2
    for name, parameter in ours.named_parameters():
        reference_grad = gradients.pop(hf_name(name))
        assert (parameter.grad - reference_grad).norm() <= 1e-4 * reference_grad.norm(), name
    assert not gradients


@pytest.mark.parametrize("shard_bytes", [10**9, 20_000])
def test_ours_opens_in_transformers(tmp_path: Path, shard_bytes: int) -> None:
    ours = ours_random()
    save_hf(ours, tmp_path, shard_bytes=shard_bytes)
    assert (tmp_path / INDEX).exists() == (shard_bytes == 20_000)
    assert_same(ours, theirs_from(tmp_path))


@pytest.mark.parametrize("shard", ["5GB", "20KB"])
def test_theirs_opens_here(tmp_path: Path, shard: str) -> None:
    theirs = theirs_random()
    theirs.save_pretrained(tmp_path, max_shard_size=shard)
    assert (tmp_path / INDEX).exists() == (shard == "20KB")
    ours = load_hf(tmp_path, compute_dtype=torch.float32)
    assert ours.config.rope_base == 777.0
    assert all(p.requires_grad and p.dtype == torch.float32 for p in ours.parameters())
    assert_same(ours, theirs)


def test_round_trip_is_exact(tmp_path: Path) -> None:
    ours = ours_random()
    save_hf(ours, tmp_path)
    again = load_hf(tmp_path)
    assert again.config == CONFIG
    state = again.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in ours.state_dict().items())
    # Saving another layout over it leaves no file of the first behind.
    save_hf(ours, tmp_path, shard_bytes=20_000, dtype=torch.bfloat16)
    assert not (tmp_path / "model.safetensors").exists()
    assert torch.equal(load_hf(tmp_path).embed.weight, ours.embed.weight.bfloat16().float())
    save_hf(ours, tmp_path)
    assert torch.equal(load_hf(tmp_path).embed.weight, ours.embed.weight)


def test_cached_decoding_is_theirs(tmp_path: Path) -> None:
    ours = ours_random()
    save_hf(ours, tmp_path)
    theirs = theirs_from(tmp_path)
    tokens_BT = tokens()
    cache = KVCache(ours.config, 2, 40, torch.float32)
    with torch.no_grad():
        full = theirs(tokens_BT).logits
        mine = [ours(tokens_BT[:, :10], cache=cache)]
        first = theirs(tokens_BT[:, :10], use_cache=True)
        their_parts, past = [first.logits], first.past_key_values
        for i in range(10, 33):
            mine.append(ours(tokens_BT[:, i : i + 1], cache=cache))
            step = theirs(tokens_BT[:, i : i + 1], past_key_values=past, use_cache=True)
            their_parts.append(step.logits)
            past = step.past_key_values
    torch.testing.assert_close(torch.cat(mine, 1), full, atol=1e-4, rtol=0)
    torch.testing.assert_close(torch.cat(mine, 1), torch.cat(their_parts, 1), atol=1e-4, rtol=0)


def test_packed_weights_are_written_as_their_values(tmp_path: Path) -> None:
    ours = ours_random()
    ours.embed.pack_int8()
    logits = ours(tokens())
    save_hf(ours, tmp_path)
    torch.testing.assert_close(load_hf(tmp_path, torch.float32)(tokens()), logits, atol=1e-5, rtol=0)


def test_tokenizer_travels_along(tmp_path: Path) -> None:
    source, target = tmp_path / "tokenizer", tmp_path / "model"
    source.mkdir()
    added = [{"id": 1, "content": "<eos>"}, {"id": 0, "content": "<pad>"}]
    (source / "tokenizer.json").write_text(json.dumps({"added_tokens": added}))
    (source / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<eos>", "pad_token": {"content": "<pad>"}}))
    (source / "chat_template.jinja").write_text("{{ messages }}")
    (source / "tokenizer.model").write_bytes(b"sentencepiece")
    save_hf(ours_random(), target, tokenizer_dir=source)
    values = json.loads((target / "config.json").read_text())
    assert (values["eos_token_id"], values["pad_token_id"]) == (1, 0)
    for file in source.iterdir():
        assert (target / file.name).read_bytes() == file.read_bytes()
    assert theirs_from(target).config.eos_token_id == 1


def test_old_config_form_is_read(tmp_path: Path) -> None:
    save_hf(ours_random(), tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    del values["rope_parameters"]
    values["rope_scaling"] = None
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert load_hf(tmp_path).config == CONFIG
    assert theirs_from(tmp_path).config.rope_parameters["rope_theta"] == 1234.5


@pytest.mark.parametrize(
    ("field", "value", "word"),
    [
        ("model_type", "gpt2", "model_type"),
        ("tie_word_embeddings", False, "lm_head.weight: missing"),
        ("attention_bias", True, "attention_bias"),
        ("hidden_act", "gelu", "hidden_act"),
        ("use_sliding_window", True, "use_sliding_window"),
        ("rope_parameters", {"rope_type": "yarn", "rope_theta": 1e4}, "yarn"),
        ("rope_parameters", {"rope_type": "default", "rope_theta": "many"}, "many"),
        ("hidden_size", None, "d_model"),
        ("num_hidden_layers", 2, "unknown tensor"),
        ("num_hidden_layers", 4, "missing"),
        ("intermediate_size", 80, "shape"),
        ("num_key_value_heads", 4, "n_kv_heads"),
    ],
)
def test_wrong_configurations_are_one_line(tmp_path: Path, field: str, value: Any, word: str) -> None:
    save_hf(ours_random(), tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    values[field] = value
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match=word) as caught:
        load_hf(tmp_path)
    assert "\n" not in str(caught.value)


def test_damaged_directories_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such directory"):
        load_hf(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no such file"):
        load_hf(tmp_path)
    save_hf(ours_random(), tmp_path)
    weights = tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    for size in (0, 5, 100, len(whole) - 1):
        weights.write_bytes(whole[:size])
        with pytest.raises(UserError, match="not a whole safetensors file"):
            load_hf(tmp_path)
    weights.unlink()
    with pytest.raises(UserError, match="no such file"):
        load_hf(tmp_path)
    weights.write_bytes(whole)
    tensors = load_file(weights)
    save_file({**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"].clone()}, weights)
    load_hf(tmp_path)
    save_file({**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"] + 1}, weights)
    with pytest.raises(UserError, match="lm_head"):
        load_hf(tmp_path)
    save_file({**tensors, "model.norm.weight": torch.ones(48, dtype=torch.int8)}, weights)
    with pytest.raises(UserError, match="I8: quantised"):
        load_hf(tmp_path)
    save_hf(ours_random(), tmp_path, shard_bytes=20_000)
    index = json.loads((tmp_path / INDEX).read_text())
    shard = index["weight_map"]["model.norm.weight"]
    (tmp_path / shard).rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=shard):
        load_hf(tmp_path)
    index["weight_map"]["model.norm.weight"] = "../elsewhere"
    (tmp_path / INDEX).write_text(json.dumps(index))
    with pytest.raises(UserError, match="same directory"):
        load_hf(tmp_path)
    (tmp_path / INDEX).write_text("[]")
    with pytest.raises(UserError, match="weight_map"):
        load_hf(tmp_path)


def test_other_rope_order_is_refused(tmp_path: Path) -> None:
    from dataclasses import replace

    with pytest.raises(UserError, match="rope_before_norm"):
        save_hf(ours_random(replace(CONFIG, rope_before_norm=True)), tmp_path)
