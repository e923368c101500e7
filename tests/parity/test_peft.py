"""Adapters as PEFT directories: PEFT on transformers computes what we compute, and wrong ones are refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pippin.compress.packed import save_packed
from pippin.compress.palettize import palettize
from pippin.errors import UserError
from pippin.interop import lora
from pippin.interop.hf import load_hf, save_hf
from pippin.interop.load import load_model
from pippin.interop.lora import adapter_rank, base_signature
from pippin.interop.peft import load_adapter, save_adapter
from pippin.model.config import ModelConfig
from pippin.model.transformer import Transformer

CONFIG = ModelConfig(vocab_size=60, d_model=32, n_layers=2, n_heads=4, n_kv_heads=2, d_head=10, d_ff=72, max_seq_len=64)
RANK, ALPHA = 4, 10.0  # alpha / rank and its inverse are not whole numbers


def fill(model: Transformer, slot: int, rank: int, seed: int) -> None:
    """A random adapter with B far from zero, of 16-bit values."""
    generator = torch.Generator().manual_seed(seed)
    for _, linear in model.linears():
        a = (linear.in_features**-0.5 * torch.randn(rank, linear.in_features, generator=generator)).half().float()
        b = (0.3 * torch.randn(linear.out_features, rank, generator=generator)).half().float()
        linear.load_adapter(slot, a, b, ALPHA / rank)


def with_slots(model: Transformer, slots: int = 2, rank: int = RANK) -> Transformer:
    for _, linear in model.linears():
        linear.add_adapters(slots, rank)
    return model


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    directory = tmp_path_factory.mktemp("base")
    save_hf(Transformer(CONFIG), directory)
    return directory


@pytest.fixture(scope="module")
def signature(base: Path) -> str:
    return base_signature(base)


@pytest.fixture(scope="module")
def adapter(base: Path, signature: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = with_slots(load_hf(base, torch.float32))
    fill(model, slot=1, rank=RANK, seed=1)
    directory = tmp_path_factory.mktemp("adapter")
    save_adapter(model, 1, directory, signature)
    return directory


@pytest.fixture
def copy(adapter: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(adapter, tmp_path / "adapter"))


@pytest.fixture
def model(base: Path) -> Transformer:
    return with_slots(load_hf(base, torch.float32))


TOKENS = torch.randint(60, (2, 17), generator=torch.Generator().manual_seed(2))


def logits(model: Transformer, slot: int) -> torch.Tensor:
    with torch.no_grad():
        return model(TOKENS, slots_B=torch.full((2,), slot))


def test_peft_on_transformers_computes_the_same(base: Path, adapter: Path, model: Transformer, signature: str) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    theirs = PeftModel.from_pretrained(theirs, adapter).eval()
    keys = theirs.load_adapter(adapter, "again")
    assert (keys.unexpected_keys, [key for key in keys.missing_keys if "lora_" in key]) == ([], [])
    with torch.no_grad():
        expected = theirs(TOKENS).logits
    info = load_adapter(model, 0, adapter, signature)
    assert (info.rank, info.alpha, info.base_signature, info.note) == (RANK, ALPHA, signature, "")
    ours = logits(model, 0)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)
    assert (ours - logits(model, -1)).abs().max() > 0.1  # the adapter does something
    assert torch.equal(theirs.peft_config["default"].lora_alpha * torch.ones(()), torch.tensor(ALPHA))


def test_what_peft_writes_is_read(base: Path, model: Transformer, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(3)
    theirs = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    settings = LoraConfig(
        r=3, lora_alpha=5, target_modules=["q_proj", "down_proj"], init_lora_weights=False, use_rslora=True
    )
    theirs = get_peft_model(theirs, settings).eval()
    theirs.save_pretrained(tmp_path)
    with torch.no_grad():
        expected = theirs(TOKENS).logits
    fill(model, 0, RANK, seed=9)  # what was in the slot before must not shine through
    info = load_adapter(model, 0, tmp_path, expected_signature="of another base")
    assert info.base_signature is None
    assert "another tool" in info.note
    assert adapter_rank(tmp_path) == 3
    torch.testing.assert_close(logits(model, 0), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("stabilised", [False, True])
@pytest.mark.filterwarnings("ignore:Using Rank-Stabilized")
def test_ranks_and_alphas_by_pattern_are_peft_s(
    base: Path, model: Transformer, tmp_path: Path, stabilised: bool
) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(3)
    settings = LoraConfig(
        r=2, lora_alpha=5, target_modules=["q_proj", "k_proj", "up_proj", "down_proj"], init_lora_weights=False,
        use_rslora=stabilised,
        # The first that matches; PEFT sorts them when it saves, so patterns in another order it cannot read itself.
        rank_pattern={r".*\.1\.mlp\..*": 3, r"layers\.0\.self_attn\.q_proj": 4, "up_proj": 1},
        alpha_pattern={"k_proj": 7, "1.mlp.down_proj": 1.5},
    )  # fmt: skip
    theirs = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), settings).eval()
    theirs.save_pretrained(tmp_path / "theirs")
    with torch.no_grad():
        expected = theirs(TOKENS).logits
    ranks = {name: len(tensor) for name, tensor in theirs.state_dict().items() if "lora_A" in name}
    assert sorted(set(ranks.values())) == [1, 2, 3, 4]
    fill(model, 0, RANK, seed=9)
    assert load_adapter(model, 0, tmp_path / "theirs").rank == adapter_rank(tmp_path / "theirs") == 4
    torch.testing.assert_close(logits(model, 0), expected, rtol=0, atol=1e-5)
    # Written anew it is plain: one rank and one alpha, which the engine takes too.
    save_adapter(model, 0, tmp_path / "plain", "0" * 64, dtype=torch.float32)
    load_adapter(model, 1, tmp_path / "plain")
    torch.testing.assert_close(logits(model, 1), expected, rtol=0, atol=1e-5)
    written = json.loads((tmp_path / "plain" / "adapter_config.json").read_text())
    assert (written["r"], "rank_pattern" in written) == (4, False)


def test_a_pattern_has_to_end_the_name_after_a_point_as_peft_s() -> None:
    from peft.utils.other import get_pattern_key

    patterns = [
        "q_proj",
        "q",
        "proj",
        "1.mlp.down_proj",
        r".*\.mlp\..*",
        r"layers\.1\.self_attn",
        "model.layers.1.mlp.up_proj",
    ]
    modules = [
        f"model.layers.{layer}.{part}"
        for layer in (0, 1, 11)
        for part in ("self_attn.q_proj", "mlp.up_proj", "mlp.down_proj", "mlp.down_proj_q_proj")
    ]
    matched = 0
    for pattern in patterns:
        for module in modules:
            theirs = get_pattern_key([pattern], module) == pattern
            assert (lora.LoraConfig(2, 2.0, False, {pattern: 3}, {}).of(module)[0] == 3) == theirs, (pattern, module)
            matched += theirs
    assert 10 < matched < len(patterns) * len(modules) / 2


def test_b_of_zero_is_the_identity_and_a_swap_back_has_the_same_bits(
    model: Transformer, signature: str, tmp_path: Path
) -> None:
    plain = logits(model, -1)
    for _, linear in model.linears():
        assert linear.lora_A[0].any() and not linear.lora_B[0].any()
    assert torch.equal(logits(model, 0), plain)
    for name, seed in (("a", 1), ("b", 2)):
        fill(model, 0, RANK, seed)
        save_adapter(model, 0, tmp_path / name, signature)
    found = {}
    for step, name in enumerate("aba"):
        load_adapter(model, 0, tmp_path / name, signature)
        found[step] = logits(model, 0)
    assert torch.equal(found[0], found[2]) and not torch.equal(found[0], found[1])
    assert torch.equal(logits(model, -1), plain)


def test_the_engine_names_patterns_and_the_way_out(base: Path, copy: Path, tmp_path: Path) -> None:
    library = pytest.importorskip("pippin.device.engine", reason="the engine is not built")
    dense = load_hf(base, torch.float32)
    palettize(dense, {name: 4 for name, _ in dense.linears()})
    save_packed(dense, tmp_path / "packed")
    edit(CONFIG_FILE, lambda c: c.update(alpha_pattern={"q_proj": 3}))(copy)
    with pytest.raises(UserError, match="the engine takes one rank and alpha; write it anew") as caught:
        library.Adapter(library.Model(tmp_path / "packed"), copy)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_round_trip(model: Transformer, signature: str, tmp_path: Path, dtype: torch.dtype) -> None:
    fill(model, 0, RANK, seed=4)
    save_adapter(model, 0, tmp_path, signature, dtype=dtype)
    load_adapter(model, 1, tmp_path, signature)
    for _, linear in model.linears():
        for part in (linear.lora_A, linear.lora_B):
            assert torch.equal(part[1], part[0].to(dtype).float())
        assert linear.lora_scale[1] == linear.lora_scale[0]
    stored = load_file(tmp_path / "adapter_model.safetensors")
    assert len(stored) == 28
    assert {tensor.dtype for tensor in stored.values()} == {dtype}


def test_a_smaller_rank_is_kept(model: Transformer, signature: str, tmp_path: Path) -> None:
    fill(model, 0, rank=2, seed=5)
    save_adapter(model, 0, tmp_path, signature, rank=2)
    assert adapter_rank(tmp_path) == 2
    assert load_adapter(model, 1, tmp_path).alpha == ALPHA
    assert torch.allclose(logits(model, 1), logits(model, 0), atol=1e-5)
    fill(model, 0, rank=3, seed=5)
    with pytest.raises(ValueError, match="rank: value 2"):
        save_adapter(model, 0, tmp_path, signature, rank=2)


def test_rounded_scale_gives_a_round_alpha(base: Path, tmp_path: Path) -> None:
    model = with_slots(load_hf(base), rank=10)
    for _, linear in model.linears():
        linear.load_adapter(0, torch.zeros(10, linear.in_features), torch.zeros(linear.out_features, 10), 16 / 10)
    save_adapter(model, 0, tmp_path, "0" * 64)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["lora_alpha"] == 16


def test_what_cannot_be_stored_is_not_saved(model: Transformer, tmp_path: Path) -> None:
    fill(model, 0, RANK, seed=6)
    model.blocks[0].ffn.up.lora_scale[0] = 1
    with pytest.raises(ValueError, match=r"one scale that is not 0, but have \[1\.0, 2\.5\]"):
        save_adapter(model, 0, tmp_path, "0" * 64)
    fill(model, 0, RANK, seed=6)
    with torch.no_grad():
        model.blocks[1].ffn.up.lora_B[0, 0, 0] = 1e6
    with pytest.raises(UserError, match="lora_B of blocks.1.ffn.up"):
        save_adapter(model, 0, tmp_path, "0" * 64)
    assert not list(tmp_path.iterdir())


def test_signature_is_that_of_the_numbers(base: Path, signature: str, tmp_path: Path) -> None:
    model = load_hf(base)
    assert len(signature) == 64
    save_hf(model, tmp_path / "sharded", shard_bytes=20_000)
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    assert base_signature(tmp_path / "sharded") == signature
    with torch.no_grad():
        model.blocks[1].ffn.down.weight[3, 3] += 1e-3
    save_hf(model, tmp_path / "other")
    assert base_signature(tmp_path / "other") != signature
    save_hf(load_hf(base), tmp_path / "base")
    config = json.loads((tmp_path / "base" / "config.json").read_text())
    (tmp_path / "base" / "config.json").write_text(json.dumps(config | {"rope_theta": 1e4, "rope_parameters": None}))
    assert base_signature(tmp_path / "base") != signature


def test_adapter_on_a_packed_base_stays_separate(base: Path, tmp_path: Path) -> None:
    dense = load_hf(base, torch.float32)
    palettize(dense, {name: 4 for name, _ in dense.linears()})
    save_packed(dense, tmp_path / "packed")
    signature = base_signature(tmp_path / "packed")
    packed = with_slots(load_model(tmp_path / "packed", torch.float32))
    fill(packed, 0, RANK, seed=7)
    save_adapter(packed, 0, tmp_path / "adapter", signature)
    codes = packed.blocks[0].ffn.up.codes.clone()
    load_adapter(packed, 1, tmp_path / "adapter", signature)
    assert torch.equal(packed.blocks[0].ffn.up.codes, codes)
    assert torch.equal(logits(packed, -1), dense(TOKENS))
    assert (logits(packed, 1) - dense(TOKENS)).abs().max() > 0.1
    with pytest.raises(UserError, match="trained on another base"):
        load_adapter(packed, 1, tmp_path / "adapter", base_signature(base))


def edit(name: str, change: Callable[[dict], object]) -> Callable[[Path], None]:
    def damage(directory: Path) -> None:
        values = json.loads((directory / name).read_text())
        change(values)
        (directory / name).write_text(json.dumps(values))

    return damage


def edit_tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def damage(directory: Path) -> None:
        tensors = load_file(directory / "adapter_model.safetensors")
        tensors = {name: tensor.clone() for name, tensor in tensors.items()}
        change(tensors)
        save_file(tensors, directory / "adapter_model.safetensors")

    return damage


def truncate(directory: Path) -> None:
    file = directory / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])


CONFIG_FILE = "adapter_config.json"
A = "base_model.model.model.layers.1.mlp.up_proj.lora_A.weight"
DAMAGES = {
    "other base": (edit("pippin.json", lambda c: c.update(base_signature="f" * 64)), "trained on another base"),
    "newer": (edit("pippin.json", lambda c: c.update(format_version=2)), "newer than 1; update"),
    "no signature": (edit("pippin.json", lambda c: c.pop("base_signature")), "base_signature: missing"),
    "other kind": (edit(CONFIG_FILE, lambda c: c.update(peft_type="IA3")), "'IA3'"),
    "dora": (edit(CONFIG_FILE, lambda c: c.update(use_dora=True)), "use_dora: value True"),
    "activated": (edit(CONFIG_FILE, lambda c: c.update(alora_invocation_tokens=[1])), "alora_invocation_tokens: value"),
    "changed base": (edit(CONFIG_FILE, lambda c: c.update(init_lora_weights="pissa_niter_4")), "a changed base; save"),
    "pattern": (edit(CONFIG_FILE, lambda c: c.update(rank_pattern={"(": 2})), r"'\(' is no regular expression"),
    "patterns": (edit(CONFIG_FILE, lambda c: c.update(alpha_pattern=[1])), "alpha_pattern: value .1.: must be an obj"),
    "its rank": (edit(CONFIG_FILE, lambda c: c.update(rank_pattern={"q_proj": 0})), "rank_pattern.q_proj: value 0"),
    "its alpha": (edit(CONFIG_FILE, lambda c: c.update(alpha_pattern={"v": "1"})), "alpha_pattern.v: value '1'"),
    "its shape": (edit(CONFIG_FILE, lambda c: c.update(rank_pattern={"o_proj": 2})), "attention.o: A .4, 40., B"),
    "rank": (edit(CONFIG_FILE, lambda c: c.update(r=0)), "r: value 0"),
    "other rank": (edit(CONFIG_FILE, lambda c: c.update(r=3)), "for another model"),
    "alpha": (edit(CONFIG_FILE, lambda c: c.update(lora_alpha=None)), "lora_alpha: value None"),
    "half a config": (lambda d: (d / CONFIG_FILE).write_text("{"), "not valid JSON"),
    "no weights": (lambda d: (d / "adapter_model.safetensors").unlink(), "no such file"),
    "truncated": (truncate, "not a whole safetensors file"),
    "missing": (edit_tensors(lambda t: t.pop(A)), "up_proj.lora_A.weight: tensor missing"),
    "extra": (edit_tensors(lambda t: t.update(extra=torch.zeros(1))), "extra: the model has no such"),
    "shape": (edit_tensors(lambda t: t.update({A: t[A][:, 1:].contiguous()})), "blocks.1.ffn.up: A"),
    "not finite": (edit_tensors(lambda t: t[A].fill_(torch.nan)), "NaN or infinity"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_what_does_not_fit_is_one_line_and_leaves_the_slot(
    copy: Path, model: Transformer, signature: str, kind: str
) -> None:
    damage, message = DAMAGES[kind]
    damage(copy)
    fill(model, 0, RANK, seed=8)
    before = logits(model, 0)
    with pytest.raises(UserError, match=message) as caught:
        load_adapter(model, 0, copy, signature)
    assert "\n" not in str(caught.value)
    assert torch.equal(logits(model, 0), before)


def test_slots_too_small_are_named(base: Path, adapter: Path) -> None:
    small = with_slots(load_hf(base), rank=2)
    with pytest.raises(UserError, match="the slots hold rank 2"):
        load_adapter(small, 0, adapter)
