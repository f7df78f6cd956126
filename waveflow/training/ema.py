"""Exponential moving average of a model's weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


class EMA:
    r"""Averaged weights beside those that are trained.

    .. math::
        \bar\theta \leftarrow d_n \bar\theta + (1 - d_n)\, \theta, \qquad
        d_n = \min\left(d, \frac{1 + n}{10 + n}\right)

    after the n-th update, counted from 0. The decay warms up, so that a short run does not export its own beginning.
    The average is kept in float32, or in the parameter's own type where that is wider. Buffers are not averaged: the
    averaged model has those of the trained one.

    Args:
        model: the model that is trained, on its device.
        decay: d in [0, 1); 0 makes the average equal to the trained weights.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.updates = 0
        self._parameters = dict(model.named_parameters())
        self._average = {
            name: p.detach().to(torch.promote_types(p.dtype, torch.float32), copy=True)
            for name, p in self._parameters.items()
        }

    @torch.no_grad()
    def update(self) -> None:
        """Take the present weights into the average."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        average = list(self._average.values())
        weights = [p.detach().to(a.dtype) for a, p in zip(average, self._parameters.values(), strict=True)]
        torch._foreach_lerp_(average, weights, 1 - decay)
        self.updates += 1

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside this context the model has the averaged weights; afterwards, whatever happened, its own again."""
        own = {name: p.detach().clone() for name, p in self._parameters.items()}
        try:
            self._write(self._average)
            yield
        finally:
            self._write(own)

    def state_dict(self) -> dict[str, Any]:
        """The average and the number of updates it has seen."""
        return {"updates": self.updates, "average": dict(self._average)}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what :meth:`state_dict` gave."""
        self.updates = state["updates"]
        for name, average in self._average.items():
            average.copy_(state["average"][name])

    @torch.no_grad()
    def _write(self, weights: dict[str, torch.Tensor]) -> None:
        # Copied rather than swapped by reference: DDP, fused optimizers and CUDA graphs hold on to the storage.
        for name, parameter in self._parameters.items():
            parameter.copy_(weights[name])
