"""Context parallelism: each process has a part of every row's tokens, and all keys and values.

Rows are cut into 2 n chunks, and process i takes chunks i and 2 n - 1 - i: under a causal mask all have the same work.
Keys and values are gathered before attention, and their gradients are summed back to where they came from; who sees
whom is said by positions and segment ids, as in a key/value cache, so documents packed into a row stay apart. The
model's code has no part in it: hooks cut its inputs and hand it `GatheredKeys` in the place of a cache.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from pippin.model.cross_entropy import Loss, Targets
from pippin.model.transformer import Transformer
from pippin.training.collectives import all_gather, gather


def own_chunks(x_BT: Tensor, rank: int, size: int) -> Tensor:
    """The head and the tail chunk that process `rank` of `size` takes of each row.

    Raises:
        ValueError: 2 `size` does not divide the row.
    """
    if x_BT.shape[1] % (2 * size):
        raise ValueError(f"rows of {x_BT.shape[1]} tokens: {2 * size} chunks do not divide them")
    chunks = x_BT.chunk(2 * size, dim=1)
    return torch.cat((chunks[rank], chunks[2 * size - 1 - rank]), dim=1)


class GatheredKeys:
    """Where `Attention` finds the keys and values of whole rows; in the place of a `KVCache`, with gradients."""

    length = 0
    plain = False

    def __init__(self, group: dist.ProcessGroup) -> None:
        self._group = group

    def append(self, positions_BT: Tensor, segment_ids_BT: Tensor, plain: bool) -> None:
        """Gather the positions and segments of all tokens of the rows."""
        both = all_gather(torch.stack((positions_BT, segment_ids_BT)), self._group, dim=2)
        self.positions_BS, self.segments_BS = both.unbind()
        self.length = self.segments_BS.shape[1]

    def write(self, layer: int, k_BTKH: Tensor, v_BTKH: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [B, S, K, H] of whole rows, in the order of `positions_BS`."""
        k_BSKH, v_BSKH = gather(torch.cat((k_BTKH, v_BTKH), dim=-1), self._group).chunk(2, dim=-1)
        return k_BSKH, v_BSKH


def share_context(model: Transformer, group: dist.ProcessGroup) -> None:
    """Let the processes of `group` share the tokens of each row; all call the model with the same whole rows.

    A loss then has the gradient of the own tokens, with `nll` and `count` of whole rows; hidden states are of the own
    tokens. Teachers in `Targets` may be whole or already cut.
    """
    rank, size = dist.get_rank(group), dist.get_world_size(group)

    def enter(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        tokens_BT = args[0]
        positions, segments = kwargs.get("positions_BT"), kwargs.get("segment_ids_BT")
        if positions is None:
            positions = torch.arange(tokens_BT.shape[1], device=tokens_BT.device).expand_as(tokens_BT)
        if segments is None:
            segments = torch.ones_like(tokens_BT)
        kwargs = kwargs | {
            "positions_BT": own_chunks(positions, rank, size),
            "segment_ids_BT": own_chunks(segments, rank, size),
            "cache": GatheredKeys(group),
        }
        targets: Targets | None = kwargs.get("targets")
        if targets is not None:
            taught = targets.teacher_BT
            if isinstance(taught, Tensor) and taught.shape == tokens_BT.shape:
                taught = own_chunks(taught, rank, size)
            kwargs["targets"] = replace(targets, tokens_BT=own_chunks(targets.tokens_BT, rank, size), teacher_BT=taught)
        return (own_chunks(tokens_BT, rank, size), *args[1:]), kwargs

    def leave(_: Any, args: Any, found: Tensor | Loss) -> Tensor | Loss:
        if not isinstance(found, Loss):
            return found
        sums = torch.stack((found.nll.double(), found.count.double()))
        dist.all_reduce(sums, group=group)
        return Loss(found.total, sums[0].to(found.nll.dtype), sums[1].to(found.count.dtype))

    model.register_forward_pre_hook(enter, with_kwargs=True)
    model.register_forward_hook(leave)
