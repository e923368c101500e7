"""What vLLM is given and what is made of its answers, with a stand-in: vLLM itself has never run here."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from pippin.data.mixture import derive
from pippin.errors import UserError
from pippin.interop.hf import save_hf
from pippin.model.config import ModelConfig
from pippin.model.transformer import Transformer
from pippin.rollout import rollouts
from pippin.vllm_backend import VLLM
from tests.device.models import add_adapter, write

CONFIG = ModelConfig(
    vocab_size=64, d_model=32, n_layers=1, n_heads=4, n_kv_heads=2, d_head=8, d_ff=48, max_seq_len=120
)  # fmt: skip


@dataclass
class Lora:
    lora_name: str
    lora_int_id: int
    lora_path: str


class FakeLLM:
    """Answers with the prompt's first token, counted up until a stop id or max_tokens."""

    def __init__(self, **options: Any) -> None:
        self.options, self.calls = options, list[Any]()

    def generate(self, prompts: Any, sampling_params: Any, *, use_tqdm: bool, lora_request: Any) -> list[Any]:
        assert not use_tqdm
        self.calls.append((prompts, sampling_params, lora_request))
        return [self._answer(p["prompt_token_ids"][0], s) for p, s in zip(prompts, sampling_params, strict=True)]

    def _answer(self, first: int, params: SimpleNamespace) -> SimpleNamespace:
        tokens = [first + 1]
        while tokens[-1] not in params.stop_token_ids and len(tokens) < params.max_tokens:
            tokens.append(tokens[-1] + 1)
        # Beside the drawn token's there may be that of the most likely one.
        log_probs = [{0: SimpleNamespace(logprob=-0.1), token: SimpleNamespace(logprob=-token / 8)} for token in tokens]
        reason = "stop" if tokens[-1] in params.stop_token_ids else "length"
        return SimpleNamespace(
            outputs=[SimpleNamespace(token_ids=tuple(tokens), logprobs=log_probs, finish_reason=reason)]
        )


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    modules = {name: ModuleType(name) for name in ("vllm", "vllm.lora", "vllm.lora.request")}
    vars(modules["vllm"]).update(LLM=FakeLLM, SamplingParams=SimpleNamespace)
    vars(modules["vllm.lora.request"]).update(LoRARequest=Lora)
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("dense")
    save_hf(Transformer(CONFIG, torch.float32), to)
    return to


@pytest.mark.usefixtures("fake")
def test_rollouts_of_it(directory: Path) -> None:
    model = VLLM(directory, gpu_memory_utilization=0.5)
    found = rollouts(
        model, [[5, 9], [20]], n_per_prompt=2, max_tokens=4, stop_ids={22, 40}, temperature=0.7, seed=3
    )  # fmt: skip
    assert [r.prompt for r in found] == [[5, 9], [5, 9], [20], [20]]
    assert [(r.tokens, r.stopped) for r in found[1:3]] == [([6, 7, 8, 9], False), ([21, 22], True)]
    assert found[2].log_probs == [-21 / 8, -22 / 8]
    assert model._llm.options == {
        "model": str(directory), "dtype": "bfloat16", "max_model_len": 120, "skip_tokenizer_init": True,
        "logprobs_mode": "processed_logprobs", "gpu_memory_utilization": 0.5,
    }  # fmt: skip
    ((prompts, params, lora),) = model._llm.calls
    assert prompts[2] == {"prompt_token_ids": [20]} and lora is None
    assert vars(params[3]) == {
        "temperature": 0.7, "max_tokens": 4, "seed": derive(3, 3) % 2**63, "stop_token_ids": [22, 40],
        "ignore_eos": True, "logprobs": 0, "detokenize": False,
    }  # fmt: skip
    assert len({p.seed for p in params}) == 4


@pytest.mark.usefixtures("fake")
def test_each_prompt_has_its_adapter(directory: Path, tmp_path: Path) -> None:
    adapters = [add_adapter(write(tmp_path / f"base {n}"), tmp_path / f"adapter {n}", (4, 12)[n], n) for n in (0, 1)]
    model = VLLM(directory, adapters=adapters)
    assert model._llm.options["enable_lora"] and model._llm.options["max_loras"] == 2
    assert model._llm.options["max_lora_rank"] == 16
    rollouts(model, [[5], [6], [7]], n_per_prompt=2, max_tokens=4, stop_ids=(), slots=[1, -1, 0])
    lora = model._llm.calls[0][2]
    second, first = Lora("slot 1", 2, str(adapters[1])), Lora("slot 0", 1, str(adapters[0]))
    assert lora == [second, second, None, None, first, first]
    with pytest.raises(UserError, match="slots: 2: the model has 2 adapter slots"):
        rollouts(model, [[5]], max_tokens=4, stop_ids=(), slots=[2])


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"top_p": 0.9}, "top_p: 0.9: vLLM tells log-probabilities after its cut"),
        ({"temperature": 0.005}, "temperature: 0.005: vLLM raises it to 0.01"),
        ({"max_tokens": 120}, "exceed the model's max_seq_len 120"),
    ],
)
def test_what_it_cannot_do_is_one_line(directory: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        rollouts(VLLM(directory), [[5]], **{"max_tokens": 4, "stop_ids": (), **changed})


def test_without_vllm_it_is_one_line(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(UserError, match="^vllm: is not installed; pip install vllm, or give the torch model"):
        VLLM(directory)


@pytest.mark.usefixtures("fake")
def test_a_packed_model_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is packed, which vLLM cannot read"):
        VLLM(write(tmp_path))
