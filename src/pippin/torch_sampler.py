"""The torch model's next tokens: one batch of ragged prompts, greedy or sampled, reproducible row by row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from pippin.data.mixture import derive
from pippin.model.cache import KVCache
from pippin.model.transformer import Transformer

BLOCK = 128  # tokens whose probabilities are added up first


@dataclass(frozen=True)
class Sampling:
    """How a token is chosen from logits; see `pippin.generate.generate`."""

    temperature: float
    top_k: int
    top_p: float
    seed: int

    def choose(self, logits_BV: Tensor, rows: Sequence[int], steps: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Next token of each row [B], and its `log_probs`. A row's noise depends on (seed, row, step) alone.

        Args:
            logits_BV: of the next token.
            rows: the number of each row's sequence.
            steps: how many tokens each has already.
        """
        if self.temperature == 0:
            chosen_B = logits_BV.argmax(-1)
            return chosen_B, log_probs(logits_BV, chosen_B, 1.0)
        keys = [[derive(self.seed, row, step) / 2**64] for row, step in zip(rows, steps, strict=True)]
        noise_B1 = torch.tensor(keys, dtype=torch.float64).to(logits_BV.device)
        if self.top_p == 1 and not 0 < self.top_k < logits_BV.shape[-1]:
            return self._from_all(logits_BV, noise_B1)
        chosen_B = self._from_the_likely(logits_BV, noise_B1)
        return chosen_B, log_probs(logits_BV, chosen_B, self.temperature)

    def _from_all(self, logits_BV: Tensor, noise_B1: Tensor) -> tuple[Tensor, Tensor]:
        """Draw and log-probabilities from one set of exponentials, whose sums are float64: of blocks, then in one."""
        below_BV, weights_BV = _exponentials(logits_BV, self.temperature)
        size = weights_BV.shape[-1]
        weights_BNW = F.pad(weights_BV, (0, -size % BLOCK)).unflatten(-1, (-1, BLOCK))
        blocks_BN = weights_BNW.sum(-1, dtype=torch.float64)
        ends_BN = blocks_BN.cumsum(-1)
        target_B1 = noise_B1 * ends_BN[:, -1:]
        block_B1 = _first_above(ends_BN, target_B1)
        inside_BW = weights_BNW.take_along_dim(block_B1[..., None], 1)[:, 0].double().cumsum(-1)
        target_B1 = target_B1 - (ends_BN - blocks_BN).gather(-1, block_B1)
        chosen_B1 = block_B1 * BLOCK + _first_above(inside_BW, target_B1)
        found_B1 = below_BV.gather(-1, chosen_B1).double() / self.temperature - ends_BN[:, -1:].log()
        return chosen_B1[:, 0], found_B1[:, 0]

    def _from_the_likely(self, logits_BV: Tensor, noise_B1: Tensor) -> Tensor:
        scores, ids = logits_BV, None
        if 0 < self.top_k < logits_BV.shape[-1]:
            scores, ids = scores.topk(self.top_k, dim=-1)  # sorted, largest first
        else:
            scores, ids = scores.sort(dim=-1, descending=True, stable=True)
        # Float64: the sums over a large vocabulary decide which token a number in 0..1 falls on.
        weights = (scores.double() / self.temperature).softmax(-1)
        sums = weights.cumsum(-1)
        if self.top_p < 1:  # keep a token while what comes before it holds less than top_p
            weights = weights.masked_fill(sums - weights >= self.top_p, 0)
            sums = weights.cumsum(-1)
        return ids.gather(-1, _first_above(sums, noise_B1 * sums[:, -1:]))[:, 0]


def _first_above(sums_BN: Tensor, target_B1: Tensor) -> Tensor:
    """Where running sums first exceed a target, [B, 1]: a place that adds to them. Targets are below the last sum."""
    last_B1 = sums_BN[:, -1:]
    below_B1 = torch.minimum(target_B1, torch.nextafter(last_B1, torch.zeros_like(last_B1)))  # whatever rounding did
    return torch.searchsorted(sums_BN, below_B1, right=True)


def _exponentials(logits_BV: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Logits less the largest, and e^(that / temperature), both in the logits' precision."""
    below_BV = logits_BV - logits_BV.amax(-1, keepdim=True)
    return below_BV, below_BV.exp() if temperature == 1 else (below_BV / temperature).exp_()


def log_probs(logits_BV: Tensor, tokens_B: Tensor, temperature: float) -> Tensor:
    """log softmax(logits / temperature) of one token a row, float64 [B].

    Only the exponentials are in the logits' precision; their sum is not.
    """
    below_BV, weights_BV = _exponentials(logits_BV, temperature)
    sums_B = weights_BV.sum(-1, dtype=torch.float64)
    return below_BV.gather(-1, tokens_B[:, None])[:, 0].double() / temperature - sums_B.log()


@torch.inference_mode()
def steps(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    rows: Sequence[int],
    max_tokens: int,
    sampling: Sampling,
    slots: Sequence[int] | None,
) -> Iterator[list[int]]:
    """Yield the next token of every prompt, max_tokens times; stopping is the caller's business."""
    device = next(model.parameters()).device
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    longest = int(lengths.max())
    tokens_BT = torch.zeros(len(prompts), longest, dtype=torch.int64)
    for row, prompt in enumerate(prompts):
        tokens_BT[row, longest - len(prompt) :] = torch.tensor(prompt)
    tokens_BT = tokens_BT.to(device)
    slots_B = None if slots is None else torch.tensor(slots, device=device)
    cache = KVCache(model.config, len(prompts), longest + max_tokens - 1, model.compute_dtype, device)
    # Rows of one length need no padding: without positions and segments the model takes its cheaper path.
    positions_BT = segment_ids_BT = None
    if int(lengths.min()) < longest:
        positions_BT = (torch.arange(longest) - (longest - lengths)[:, None]).to(device)
        segment_ids_BT = (positions_BT >= 0).long()
        positions_BT = positions_BT.clamp(min=0)
    for step in range(max_tokens):
        logits_B1V = cast(
            Tensor,
            model(
                tokens_BT, positions_BT=positions_BT, segment_ids_BT=segment_ids_BT, cache=cache, slots_B=slots_B,
                last_only=True,
            ),
        )  # fmt: skip
        chosen, _ = sampling.choose(logits_B1V[:, -1], rows, [step] * len(rows))
        yield chosen.tolist()
        tokens_BT = chosen[:, None]
        if positions_BT is not None:
            positions_BT = positions_BT[:, -1:] + 1
            segment_ids_BT = torch.ones_like(positions_BT)
