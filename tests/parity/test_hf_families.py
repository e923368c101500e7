"""Every family that is imported computes what transformers computes, through directories written by either."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from pippin.errors import UserError
from pippin.interop.hf import BlockReader, load_hf, save_hf
from pippin.interop.layouts import family_of, from_hf_config, hf_name, to_hf_config
from pippin.interop.lora import base_signature
from pippin.interop.peft import save_adapter
from pippin.model.cache import KVCache
from pippin.model.config import ModelConfig, RopeScaling
from pippin.model.cross_entropy import Targets
from pippin.model.transformer import Transformer

transformers = pytest.importorskip("transformers")

# 40 positions are beyond the 16 of the scaled RoPE's first training; heads are not d_model / n_heads where they may be.
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
SHAPE = {
    "vocab_size": 97, "hidden_size": 48, "intermediate_size": 72, "num_hidden_layers": 2, "num_attention_heads": 6,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "initializer_range": 0.2, "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_type": "default", "rope_theta": 777.0},
    "bos_token_id": None, "eos_token_id": None, "pad_token_id": None,
}  # fmt: skip
# The settings of each case beside SHAPE, and the type in which it is written again.
CASES: dict[str, tuple[str, dict[str, Any], str]] = {
    "qwen3-untied": ("Qwen3", {"head_dim": 20, "tie_word_embeddings": False}, "qwen3"),
    "qwen2-tied": ("Qwen2", {"tie_word_embeddings": True}, "qwen2"),
    "qwen2-untied": ("Qwen2", {"tie_word_embeddings": False}, "qwen2"),
    "llama3": ("Llama", {"head_dim": 20, "tie_word_embeddings": False}, "llama"),
    "llama3.2": ("Llama", {"rope_parameters": LLAMA3, "tie_word_embeddings": True}, "llama"),
    "llama-no-groups": ("Llama", {"num_key_value_heads": 6}, "llama"),
    "mistral": ("Mistral", {"head_dim": 20, "sliding_window": None}, "llama"),
    "mistral-window": ("Mistral", {"sliding_window": 64, "num_attention_heads": 4, "hidden_size": 50}, "mistral"),
    "olmo2": ("Olmo2", {}, "olmo2"),
    "olmo2-tied": ("Olmo2", {"tie_word_embeddings": True}, "olmo2"),
}


def theirs_random(case: str) -> Any:
    """A model of transformers with random gains and biases."""
    kind, settings, _ = CASES[case]
    if "hidden_size" in settings:
        settings = settings | {"head_dim": 12}
    torch.manual_seed(1)
    config = getattr(transformers, f"{kind}Config")(**SHAPE | settings)
    model = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 1.5)
            elif name.endswith("bias"):
                parameter.normal_(std=0.5)
    return model


def tokens() -> torch.Tensor:
    return torch.randint(0, 97, (2, 40), generator=torch.Generator().manual_seed(2))


def assert_same(ours: Transformer, theirs: Any) -> None:
    with torch.no_grad():
        logits, reference = ours(tokens()), theirs(tokens()).logits
    assert reference.abs().max() > 1
    torch.testing.assert_close(logits, reference, atol=1e-4, rtol=0)


@pytest.mark.parametrize("case", CASES)
def test_both_directions(tmp_path: Path, case: str) -> None:
    theirs = theirs_random(case)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = load_hf(tmp_path / "theirs", torch.float32)
    assert_same(ours, theirs)
    assert sum(p.numel() for p in ours.parameters()) == ours.config.n_params().total
    save_hf(ours, tmp_path / "ours")
    assert json.loads((tmp_path / "ours" / "config.json").read_text())["model_type"] == CASES[case][2]
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", dtype=torch.float32).eval()
    assert_same(ours, again)
    # The second trip changes nothing, whatever the first wrote: configuration and every bit.
    back = load_hf(tmp_path / "ours")
    assert back.config == ours.config
    state = back.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in ours.state_dict().items())


@pytest.mark.parametrize("case", ["qwen2-untied", "llama3.2", "olmo2"])
def test_gradients(tmp_path: Path, case: str) -> None:
    theirs = theirs_random(case)
    theirs.save_pretrained(tmp_path)
    ours = load_hf(tmp_path, torch.float32)
    tokens_BT = tokens()
    loss = ours(tokens_BT, targets=Targets(torch.cat((tokens_BT[:, 1:], torch.full((2, 1), -100)), dim=1)))
    (loss.total / loss.count).backward()
    F.cross_entropy(theirs(tokens_BT).logits[:, :-1].flatten(0, 1), tokens_BT[:, 1:].flatten()).backward()
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    # What a bias of the keys adds to all scores of a query cancels in the softmax but for the rotation: small, not 0.
    largest = max(gradient.norm() for gradient in gradients.values())
    for name, parameter in ours.named_parameters():
        reference = gradients.pop(hf_name(name, ours.config.post_norm))
        assert (parameter.grad - reference).norm() <= 1e-4 * reference.norm() + 1e-7 * largest, name
    assert not gradients


@pytest.mark.parametrize("case", ["qwen2-tied", "llama3.2", "mistral", "olmo2"])
def test_cached_decoding_is_the_full_forward(tmp_path: Path, case: str) -> None:
    theirs = theirs_random(case)
    theirs.save_pretrained(tmp_path)
    ours = load_hf(tmp_path, torch.float32)
    cache = KVCache(ours.config, 2, 40, torch.float32)
    with torch.no_grad():
        parts = [ours(tokens()[:, :10], cache=cache)]
        parts += [ours(tokens()[:, i : i + 1], cache=cache) for i in range(10, 40)]
        torch.testing.assert_close(torch.cat(parts, 1), theirs(tokens()).logits, atol=1e-4, rtol=0)


def test_the_scaling_of_rope_matters_here(tmp_path: Path) -> None:
    """The 1e-4 of the parity above would see a model that forgot it."""
    theirs_random("llama3.2").save_pretrained(tmp_path)
    ours = load_hf(tmp_path, torch.float32)
    assert ours.config.rope_scaling == RopeScaling(8.0, 1.0, 4.0, 16)
    scaled = ours(tokens())
    ours.config = replace(ours.config, rope_scaling=None)
    assert (ours(tokens()) - scaled).abs().max() > 0.1


def test_old_forms_of_a_configuration(tmp_path: Path) -> None:
    """Before transformers 5 the base and the scaling of RoPE stood apart, and the head size was left out."""
    theirs = theirs_random("llama3.2")
    theirs.save_pretrained(tmp_path)
    where = tmp_path / "config.json"
    values = json.loads(where.read_text())
    rope = values.pop("rope_parameters")
    del values["head_dim"]
    values |= {"rope_theta": rope.pop("rope_theta"), "rope_scaling": rope}
    where.write_text(json.dumps(values))
    assert_same(load_hf(tmp_path, torch.float32), theirs)
    # Old checkpoints also store the frequencies.
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    load_hf(tmp_path)


@pytest.mark.parametrize("case", ["llama3.2", "qwen2-untied"])
def test_block_by_block_is_the_whole(tmp_path: Path, case: str) -> None:
    theirs = theirs_random(case)
    theirs.to(torch.bfloat16).save_pretrained(tmp_path, max_shard_size="20KB")
    whole = load_hf(tmp_path)
    reader = BlockReader(tmp_path)
    model = reader.skeleton()
    assert reader.config == whole.config
    reader.load(model, "blocks.1")
    filled = {name for name, parameter in model.named_parameters() if not parameter.is_meta}
    assert filled == {name for name, _ in model.named_parameters() if name.startswith("blocks.1.")}
    model.blocks[1].to("meta")
    assert all(parameter.is_meta for parameter in model.parameters())
    for part in ["embed", "blocks.0", "blocks.1", "norm", *(["head"] if case == "qwen2-untied" else [])]:
        reader.load(model, part)
    state = whole.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    with pytest.raises(ValueError, match="blocks.2"):
        reader.load(model, "blocks.2")


@pytest.mark.parametrize(
    ("case", "field", "value"),
    [
        ("llama3", "model_type", "mixtral"),
        ("llama3", "model_type", None),
        ("llama3", "attention_bias", True),
        ("llama3", "mlp_bias", True),
        ("llama3", "hidden_act", "gelu"),
        ("llama3", "partial_rotary_factor", 0.5),
        ("llama3", "num_local_experts", 8),
        ("llama3", "final_logit_softcapping", 30.0),
        ("llama3", "quantization_config", {"quant_method": "gptq"}),
        ("llama3", "rope_parameters", {"rope_type": "linear", "factor": 2.0}),
        ("llama3", "rope_parameters", {"rope_type": "default", "partial_rotary_factor": 0.5}),
        ("llama3", "rope_parameters", LLAMA3 | {"low_freq_factor": 9}),
        ("llama3", "rope_parameters", {"rope_type": "llama3", "factor": 2.0}),
        ("llama3", "tie_word_embeddings", "yes"),
        ("llama3", "tie_word_embeddings", True),
        ("llama3", "num_attention_heads", 0),
        ("mistral", "sliding_window", 32),
        ("olmo2", "attention_bias", True),
        ("qwen2-tied", "use_sliding_window", True),
        ("qwen2-tied", "layer_types", ["full_attention", "sliding_attention"]),
    ],
)
def test_what_is_not_computed_is_one_line(tmp_path: Path, case: str, field: str, value: Any) -> None:
    theirs_random(case).save_pretrained(tmp_path)
    where = tmp_path / "config.json"
    where.write_text(json.dumps(json.loads(where.read_text()) | {field: value}))
    with pytest.raises(UserError) as caught:
        load_hf(tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(tmp_path) in message
    named = {
        "rope_parameters": "rope|factor",
        "quantization_config": "quant_method",
        "tie_word_embeddings": "tied|lm_h",
    }
    assert any(word in message for word in named.get(field, field).replace("num_attention_heads", "heads").split("|"))


BASE = ModelConfig(vocab_size=97, d_model=48, n_layers=2, n_heads=6, n_kv_heads=2, d_head=8, d_ff=72, max_seq_len=64)


@pytest.mark.parametrize(
    "settings",
    [{"qkv_bias": True}, {"post_norm": True}, {"qk_norm": "width"}, {"qk_norm": "none", "post_norm": True}],
)
def test_settings_without_a_layout_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="no Hugging Face layout"):
        family_of(replace(BASE, **settings))


def test_a_configuration_survives_the_trip() -> None:
    scaling = RopeScaling(32.0, 1.0, 4.0, 8192)
    for qk_norm, qkv_bias, post_norm in [
        ("head", False, False), ("none", True, False), ("none", False, False), ("width", False, True)
    ]:  # fmt: skip
        for tied in (True, False):
            config = replace(
                BASE, qk_norm=qk_norm, qkv_bias=qkv_bias, post_norm=post_norm, tied=tied, rope_scaling=scaling
            )
            assert from_hf_config(json.loads(json.dumps(to_hf_config(config)))) == config


@pytest.mark.parametrize("case", ["qwen2-tied", "llama3.2", "olmo2"])
def test_adapters_of_ours_open_in_peft(tmp_path: Path, case: str) -> None:
    peft = pytest.importorskip("peft")
    theirs_random(case).save_pretrained(tmp_path / "base")
    ours = load_hf(tmp_path / "base", torch.float32)
    for _, linear in ours.linears():
        linear.add_adapters(1, 3)
        linear.lora_B.data.normal_(std=0.3)
    save_adapter(ours, 0, tmp_path / "adapter", base_signature(tmp_path / "base"), dtype=torch.float32)
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32).eval()
    with torch.no_grad():
        expected = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").eval()(tokens()).logits
        adapted = ours(tokens(), slots_B=torch.zeros(2, dtype=torch.int64))
    assert (adapted - ours(tokens())).abs().max() > 0.1
    torch.testing.assert_close(adapted, expected, atol=1e-4, rtol=0)
