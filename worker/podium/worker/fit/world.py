"""The ranks that train one job together: one process for each device, of one machine or several.

Every rank holds the same model and sees its own share of every batch. A rank that is alone needs no process group, and
then nothing here costs anything.

Shape legend: R ranks.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch import distributed as dist


@dataclass(frozen=True, kw_only=True)
class World:
    """Which rank this is, of how many. More than one need an initialised default process group.

    Args:
        rank: from 0; rank 0 reports and saves.
        size: R.
        device: where this rank computes.
    """

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the rank that reports and saves."""
        return self.rank == 0

    def share(self, batch: Tensor) -> Tensor:
        """This rank's part of the places of a batch; the parts' lengths differ by one at most."""
        return batch[self.rank :: self.size]

    def summed(self, values: Tensor) -> Tensor:
        """The sum over all ranks of a small tensor, on the device. Every rank must call."""
        if self.size > 1:
            values = values.to(self.device)
            dist.all_reduce(values)
        return values

    def told(self, value: int) -> int:
        """What rank 0 calls with. Every rank must call; waits for the slowest."""
        if self.size == 1:
            return value
        shared = torch.tensor([value], dtype=torch.int64, device=self.device)
        dist.broadcast(shared, src=0)
        return int(shared.item())

    def gathered(self, rows: Tensor) -> Tensor:
        """The rows of all ranks, one rank after the other, on the CPU. Every rank must call.

        Args:
            rows: (N, ...), N of each rank's own.
        """
        if self.size == 1:
            return rows.cpu()
        lengths = torch.zeros(self.size, dtype=torch.int64, device=self.device)
        lengths[self.rank] = len(rows)
        dist.all_reduce(lengths)
        # A collective takes equal shapes only.
        padded = rows.new_zeros((int(lengths.max()), *rows.shape[1:]), device=self.device)
        padded[: len(rows)] = rows.to(self.device)
        found = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(found, padded)
        return torch.cat([part[:length] for part, length in zip(found, lengths.tolist(), strict=True)]).cpu()

    def same(self, module: nn.Module) -> None:
        """Gives every rank rank 0's buffers, such as the statistics of batch normalisations. Every rank must call."""
        if self.size > 1:
            for buffer in module.buffers():
                dist.broadcast(buffer, src=0)

    @contextmanager
    def first_goes_first(self) -> Iterator[None]:
        """The block runs on rank 0, and only then on the others, which find what rank 0 has made."""
        if self.size > 1 and not self.first:
            dist.barrier()
        yield
        if self.size > 1 and self.first:
            dist.barrier()


def alone(device: torch.device) -> World:
    """A world of one."""
    return World(device=device)
