"""The rows of a vocabulary table that one process holds when tensor parallelism cuts it."""

from __future__ import annotations

from dataclasses import dataclass

import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class VocabularyPart:
    """Ids `start` .. `start + size - 1` are here, the others in the other processes of `group`.

    The methods that exchange something give the same on every process of the group; no gradient flows through them.
    """

    start: int
    size: int
    group: dist.ProcessGroup

    def local(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Row in this part for each id (0 for an id of another part), and whether it is here."""
        inside = (ids >= self.start) & (ids < self.start + self.size)
        return (ids - self.start) * inside, inside

    def total(self, x: Tensor) -> Tensor:
        """The sum over all parts."""
        x = x.contiguous()
        dist.all_reduce(x, group=self.group)
        return x

    def largest(self, x: Tensor) -> Tensor:
        """The maximum over all parts."""
        x = x.contiguous()
        dist.all_reduce(x, dist.ReduceOp.MAX, group=self.group)
        return x

    def pick(self, rows: Tensor, ids: Tensor) -> Tensor:
        """`rows[i, ids[i]]` of the whole table: [C, 1] from this part's [C, size] and ids [C, 1]."""
        here, inside = self.local(ids)
        return self.total(rows.gather(1, here) * inside)

    def arg_max(self, rows: Tensor) -> Tensor:
        """Id of the largest value of each row [..., size] of the whole table; of equal ones the lowest."""
        values, here = rows.max(-1)
        best = self.largest(values.clone())
        ids = here + self.start
        # Where another part has the maximum, an id that cannot win; the lowest wins.
        ids = ids.masked_fill(values != best, 2**62)
        dist.all_reduce(ids, dist.ReduceOp.MIN, group=self.group)
        return ids
