"""The exponential moving average of a model."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """Of every floating-point tensor of a module's state, the statistics of normalisations included.

    In its first steps it keeps less of itself, (1 + t) / (10 + t) after t steps, or it would remember the beginning.

    Args:
        module: what is averaged.
        decay: the share of itself that the average keeps in a step, in (0, 1).
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._decay = decay
        state = module.state_dict(keep_vars=True)
        # Under its first name only: what parts of a module share would be swapped twice, and come back as the average.
        names = {id(value): name for name, value in reversed(state.items())}.values()
        self._live = {name: state[name].detach() for name in names if state[name].is_floating_point()}
        self._mean = {name: value.clone() for name, value in self._live.items()}

    def update(self, steps: int) -> None:
        """After so many earlier steps."""
        keep = min(self._decay, (1 + steps) / (10 + steps))
        torch._foreach_lerp_(list(self._mean.values()), list(self._live.values()), 1 - keep)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within, the module holds the average."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def state(self) -> dict[str, Tensor]:
        """The module's own tensors, in a checkpoint whose model is the average."""
        return dict(self._live)

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Takes the average from the module and the module from `state`."""
        for name, live in self._live.items():
            self._mean[name].copy_(live)
            live.copy_(state[name])

    def _swap(self) -> None:
        for name, live in self._live.items():
            kept = live.clone()
            live.copy_(self._mean[name])
            self._mean[name].copy_(kept)
