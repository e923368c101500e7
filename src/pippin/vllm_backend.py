"""Rollouts on vLLM, where it is installed.

Written after vLLM's documents and sources of 2025-26 and tested against a stand-in: it has never run on vLLM itself.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from pippin.errors import UserError
from pippin.interop.directory import is_packed, read_config
from pippin.interop.lora import adapter_rank

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # the largest rank of adapters that vLLM can be opened for
COLDEST = 0.01  # it raises temperatures that are lower, but for 0


class VLLM:
    """A dense model directory in vLLM, as a model for `pippin.rollout.rollouts`.

    vLLM reads the weights once: for those of a later step open another. Its numbers are those of its own kernels and
    of `dtype`; score answers with the torch model before forming ratios.

    Args:
        directory: as `pippin.interop.hf.save_hf` writes it; not a packed one.
        dtype: of weights and activations.
        adapters: PEFT directories, by slot.
        options: any other argument of `vllm.LLM`, such as gpu_memory_utilization or tensor_parallel_size.

    Raises:
        UserError: vLLM is not installed, or a directory is none that it can read.
    """

    def __init__(
        self, directory: str | Path, *, dtype: str = "bfloat16", adapters: Sequence[str | Path] = (), **options: Any
    ) -> None:
        try:
            import vllm
            from vllm.lora.request import LoRARequest
        except ImportError:
            raise UserError("vllm: is not installed; pip install vllm, or give the torch model or the engine") from None
        if is_packed(directory):
            raise UserError(f"{directory}: is packed, which vLLM cannot read; give a dense model or use the engine")
        self.config = read_config(directory)
        self._vllm = vllm
        self.adapters = [LoRARequest(f"slot {n}", n + 1, str(path)) for n, path in enumerate(adapters)]
        lora: dict[str, Any] = {}
        if adapters:
            highest = max(adapter_rank(path) for path in adapters)
            if highest > RANKS[-1]:
                raise UserError(f"adapters: one has rank {highest}: vLLM takes at most {RANKS[-1]}")
            lora = {
                "enable_lora": True, "max_loras": len(adapters),
                "max_lora_rank": next(rank for rank in RANKS if rank >= highest),
            }  # fmt: skip
        # Token ids go in and come out. Log-probabilities are those after the temperature, as ours are.
        self._llm = vllm.LLM(
            model=str(directory), dtype=dtype, max_model_len=self.config.max_seq_len, skip_tokenizer_init=True,
            logprobs_mode="processed_logprobs", **lora, **options,
        )  # fmt: skip

    def sample(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], *, max_tokens: int, temperature: float,
        top_p: float, stop_ids: Collection[int], slots: Sequence[int] | None = None,
    ) -> list[tuple[list[int], list[float], bool]]:  # fmt: skip
        """One answer to each prompt: its tokens, their log-probabilities, and whether a stop token ended it.

        Args:
            seeds: of each prompt; for the others see `rollouts`.

        Raises:
            UserError: a setting for which vLLM has no log-probabilities of ours.
        """
        if top_p < 1:
            raise UserError(f"top_p: {top_p}: vLLM tells log-probabilities after its cut, not before; leave it at 1")
        if 0 < temperature < COLDEST:
            raise UserError(f"temperature: {temperature}: vLLM raises it to {COLDEST}; give that or 0 (greedy)")
        params = [
            self._vllm.SamplingParams(
                temperature=temperature, max_tokens=max_tokens, seed=seed % 2**63, stop_token_ids=sorted(stop_ids),
                ignore_eos=True, logprobs=0, detokenize=False,
            )
            for seed in seeds
        ]  # fmt: skip
        inputs = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
        lora = None if slots is None else [None if slot < 0 else self.adapters[slot] for slot in slots]
        found = []
        for output in self._llm.generate(inputs, params, lora_request=lora, use_tqdm=False):
            answer = output.outputs[0]
            tokens = list(answer.token_ids)
            log_probs = [float(step[token].logprob) for token, step in zip(tokens, answer.logprobs, strict=True)]
            found.append((tokens, log_probs, answer.finish_reason == "stop"))
        return found
