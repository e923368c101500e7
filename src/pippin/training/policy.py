"""Responses as batches, their log-probabilities, and what preference and reinforcement learning minimise on them.

A response is one action (afm 9.3): what is weighed is the sum of its tokens' log-probabilities, its `<|end|>` included.
The formulas are in `training.losses`; here they meet a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from pippin.data.loader import IGNORE, Batch
from pippin.model.cross_entropy import CHUNK_LOGITS, MIN_CHUNK, Loss
from pippin.model.transformer import Transformer
from pippin.training.losses import clipped, dpo, exact_kl, ipo, mirror_descent, reinforce

PreferenceKind = Literal["dpo", "ipo"]
PolicyKind = Literal["mdloo", "rloo", "ppo"]


class Response(NamedTuple):
    """A response to a prompt, as token ids, with what was known of it before training.

    Attributes:
        prompt: as the model is given it, not empty.
        tokens: the response, the token that ended it included.
        reference: log pi_ref(y|x).
        advantage: of reinforcement learning; else 0.
    """

    prompt: list[int]
    tokens: list[int]
    reference: float = 0.0
    advantage: float = 0.0


class ResponsePair(NamedTuple):
    """The preferred response and the other one to the same prompt."""

    id: str
    chosen: Response
    rejected: Response


@dataclass(kw_only=True)
class ResponseBatch(Batch):
    """One response a row, after its prompt, padded on the right.

    `targets` has one place for each thing that the loop counts, a response or a pair; what is scored is `actions`.

    Attributes:
        actions: int64 [B, T]: each token of the response where it is to be predicted; -100 elsewhere.
        reference: log pi_ref(y|x) of each row, float64 [B].
        advantages: of each row, float64 [B].
    """

    actions: Tensor
    reference: Tensor
    advantages: Tensor

    def to(self, device: torch.device | str) -> ResponseBatch:
        """The same batch on `device`."""
        moved = (t.to(device) for t in (self.tokens, self.targets, self.positions, self.segment_ids))
        return ResponseBatch(
            *moved, actions=self.actions.to(device), reference=self.reference.to(device),
            advantages=self.advantages.to(device),
        )  # fmt: skip


def response_batch(responses: Sequence[Response], counted: int = 1) -> ResponseBatch:
    """Some responses as one batch, as wide as the longest; every `counted`-th row counts as one for the loop."""
    rows = [[*r.prompt, *r.tokens[:-1]] for r in responses]
    width = max(map(len, rows))
    tokens = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    lengths = torch.tensor([len(row) for row in rows])
    segment_ids = (torch.arange(width) < lengths[:, None]).long()
    actions, targets = torch.full_like(tokens, IGNORE), torch.full_like(tokens, IGNORE)
    for row, r in enumerate(responses):
        if not r.tokens:
            raise ValueError("a response without tokens: the token that ends it is one")
        first = len(r.prompt) - 1
        actions[row, first : first + len(r.tokens)] = torch.tensor(r.tokens)
        if row % counted == 0:
            targets[row, first + len(r.tokens) - 1] = r.tokens[-1]
    return ResponseBatch(
        tokens, targets, torch.arange(width) * segment_ids, segment_ids, actions=actions,
        reference=torch.tensor([r.reference for r in responses], dtype=torch.float64),
        advantages=torch.tensor([r.advantage for r in responses], dtype=torch.float64),
    )  # fmt: skip


def pair_responses(pairs: Sequence[ResponsePair]) -> ResponseBatch:
    """Pairs as a batch: rows 2i and 2i + 1 are the preferred and the other response of pair i."""
    return response_batch([side for pair in pairs for side in (pair.chosen, pair.rejected)], counted=2)


# --- log-probabilities -----------------------------------------------------------------------------------------------


def response_log_probs(model: Transformer, batch: ResponseBatch, temperature: float = 1.0) -> Tensor:
    """log pi(y|x) of each row under softmax(logits / temperature): [B], differentiable, float32 or wider."""
    return _scored(model, batch, temperature, None)[0]


def log_probs_and_kl(
    model: Transformer, iterate: Transformer, batch: ResponseBatch, temperature: float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    """log pi(y|x) and log pi_k(y|x), and KL(pi || pi_k) summed over the places of each response, all [B].

    The KL at a place is exact, over the whole vocabulary; over a response it is along its sampled prefix. Gradients
    flow to `model` alone.
    """
    return _scored(model, batch, temperature, iterate)


def _scored(
    model: Transformer, batch: ResponseBatch, temperature: float, iterate: Transformer | None
) -> tuple[Tensor, Tensor, Tensor]:
    where = {"positions_BT": batch.positions, "segment_ids_BT": batch.segment_ids}
    acted_BT = batch.actions != IGNORE
    actions_N = batch.actions[acted_BT]
    h_ND = cast(Tensor, model(batch.tokens, **where, hidden_only=True))[acted_BT]
    other_ND: Tensor | None = None
    if iterate is not None:
        with torch.no_grad():
            other_ND = cast(Tensor, iterate(batch.tokens, **where, hidden_only=True))[acted_BT]
    head_VD = model.head_weight()
    other_head_VD = None if iterate is None else iterate.head_weight().detach()
    chunk = max(MIN_CHUNK, CHUNK_LOGITS // len(head_VD))
    parts = []
    for start in range(0, len(h_ND), chunk):
        rows = slice(start, start + chunk)
        given = (h_ND[rows], head_VD, actions_N[rows], temperature, None if other_ND is None else other_ND[rows],
                 other_head_VD)  # fmt: skip
        # Of many tokens only one chunk's logits exist at a time, also in the backward pass.
        parts.append(checkpoint(_place, *given, use_reentrant=False) if len(h_ND) > chunk else _place(*given))
    row_N = acted_BT.nonzero()[:, 0]
    sums = []
    for column in zip(*parts, strict=True):
        values_N = torch.cat(column)
        sums.append(values_N.new_zeros(len(batch.tokens)).index_add(0, row_N, values_N))
    return sums[0], sums[1], sums[2]


def _place(
    h_ND: Tensor, head_VD: Tensor, actions_N: Tensor, temperature: float, other_ND: Tensor | None,
    other_head_VD: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """log pi, log pi_k and KL(pi || pi_k) at each place; the last two are 0 without an iterate."""
    log_p_NV = _log_softmax(h_ND, head_VD, temperature)
    log_p_N = log_p_NV.gather(1, actions_N[:, None])[:, 0]
    if other_ND is None or other_head_VD is None:
        nothing = torch.zeros_like(log_p_N.detach())
        return log_p_N, nothing, nothing
    log_q_NV = _log_softmax(other_ND, other_head_VD, temperature)
    return log_p_N, log_q_NV.gather(1, actions_N[:, None])[:, 0], exact_kl(log_p_NV, log_q_NV)


def _log_softmax(h_ND: Tensor, head_VD: Tensor, temperature: float) -> Tensor:
    logits_NV = F.linear(h_ND, head_VD.to(h_ND.dtype))
    return torch.log_softmax(logits_NV.to(torch.promote_types(logits_NV.dtype, torch.float32)) / temperature, dim=-1)


@torch.no_grad()
def score_responses(
    model: Transformer, responses: Sequence[Response], temperature: float = 1.0, at_once: int = 32
) -> list[float]:
    """log pi(y|x) of each response, in order; computed in batches of like length."""
    device = next(model.parameters()).device
    order = sorted(range(len(responses)), key=lambda i: len(responses[i].prompt) + len(responses[i].tokens))
    found = [0.0] * len(responses)
    for start in range(0, len(order), at_once):
        numbers = order[start : start + at_once]
        batch = response_batch([responses[i] for i in numbers]).to(device)
        for i, value in zip(numbers, response_log_probs(model, batch, temperature).tolist(), strict=True):
            found[i] = value
    return found


# --- what is minimised -----------------------------------------------------------------------------------------------


def preference_loss(
    model: Transformer, kind: PreferenceKind, beta: float, by_length: bool, batch: Batch, step: int
) -> Loss:
    """The sum over pairs of DPO's or IPO's loss; `nll` is the sum of -log sigmoid(beta (h_c - h_r)) for both.

    IPO's is taken times tau: its first gradient grows as 1 / tau otherwise, until the optimizer skips such steps. The
    optimum stays.

    Args:
        kind: "dpo"; or "ipo", whose tau is `beta`.
        by_length: IPO with means over the tokens of a response instead of sums (see `losses.ipo`).
    """
    assert isinstance(batch, ResponseBatch)
    log_ratios = response_log_probs(model, batch) - batch.reference
    chosen, rejected = log_ratios[0::2], log_ratios[1::2]
    plain = dpo(chosen, rejected, beta)
    if kind == "dpo":
        loss = plain
    else:
        lengths = (batch.actions != IGNORE).sum(1)
        loss = beta * ipo(chosen, rejected, beta, (lengths[0::2], lengths[1::2]) if by_length else None)
    return Loss(loss.sum(), plain.detach().sum(), (batch.targets != IGNORE).sum())


def policy_loss(
    model: Transformer, iterate: Transformer, kind: PolicyKind, gamma: float, temperature: float, batch: Batch,
    step: int,
) -> Loss:  # fmt: skip
    """The sum over responses of what an algorithm minimises on the iterate's responses; `nll` is the same, detached.

    Args:
        kind: "mdloo", "rloo" (no ratio and no KL to the iterate, also when responses are used again) or "ppo", the
            clipped ratio.
        gamma: of MDLOO's KL to the iterate.
    """
    assert isinstance(batch, ResponseBatch)
    if kind == "rloo":
        loss = reinforce(response_log_probs(model, batch, temperature), batch.advantages)
    else:
        log_probs, before, kl = log_probs_and_kl(model, iterate, batch, temperature)
        if kind == "mdloo":
            loss = mirror_descent(log_probs, before, batch.advantages, kl, gamma)
        else:
            loss = clipped(log_probs, before, batch.advantages)
    return Loss(loss.sum(), loss.detach().sum(), (batch.targets != IGNORE).sum())
