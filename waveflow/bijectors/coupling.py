"""Coupling: one part of an event decides how the other is transformed."""

import torch
from torch import Tensor, nn

from waveflow.bijectors.base import Bijector, sum_event
from waveflow.bijectors.partition import Partition
from waveflow.bijectors.univariate import Univariate
from waveflow.context import Context
from waveflow.first_batch import no_first_batch


class Coupling(Bijector):
    r"""Transform one part of x by a univariate map whose parameters are a function of the other part.

    .. math::
        z_a = x_a, \qquad z_b = u(x_b; \theta(x_a)), \qquad \log|\det| = \sum \log|u'| \\
        x_a = z_a, \qquad x_b = u^{-1}(z_b; \theta(z_a)), \qquad \log|\det| = -\sum \log|u'|

    Both directions cost one pass of the conditioner, which may be any network (NICE: arXiv:1410.8516; RealNVP:
    arXiv:1605.08803).

    Args:
        partition: which part is kept, which changed.
        conditioner: network called as ``conditioner(kept, context)`` that gives
            ``univariate.params`` channels for every channel of the changed part, ordered as [all of parameter 1 | all
            of parameter 2 | ...] (if ``partition.in_place``: for every channel of the whole).
        univariate: the map of the changed part.

    Shape:
        ``(B, C, ...)`` to ``(B, C, ...)``.

    Raises:
        ValueError: (both directions) if the partition cannot divide the events, or the conditioner's answer does not
            fit the changed part.
    """

    def __init__(self, partition: Partition, conditioner: nn.Module, univariate: Univariate):
        super().__init__()
        self.partition = partition
        self.conditioner = conditioner
        self.univariate = univariate
        self.constant_log_det = univariate.constant_log_det

    def forward(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        kept, changed = self.partition.split(x)
        changed, log_derivative = self.univariate(changed, self._params(kept, changed, context))
        return self.partition.merge(kept, changed), sum_event(log_derivative)

    def inverse(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        kept, changed = self.partition.split(z)
        with no_first_batch():  # z is no data for a norm inside the conditioner
            params = self._params(kept, changed, context)
        changed, log_derivative = self.univariate.inverse(changed, params)
        return self.partition.merge(kept, changed), sum_event(log_derivative)

    def expects(self, event: tuple[int, ...], inverse: bool) -> str | None:
        return self.partition.expects(event)

    def _params(self, kept: Tensor, changed: Tensor, context: Context) -> Tensor:
        in_place, count = self.partition.in_place, self.univariate.params
        seen = self.partition.merge(kept, torch.zeros_like(kept)) if in_place else kept
        answered = seen if in_place else changed
        raw = self.conditioner(seen, context)
        expected = (count * answered.shape[1], *answered.shape[2:])
        if raw.shape[1:] != expected:
            raise ValueError(f"Coupling expects a conditioner that gives {expected}, got {tuple(raw.shape[1:])}")
        if in_place:  # parameter by parameter, since a partition goes by the axes of an event
            raw = torch.cat([self.partition.split(part)[1] for part in raw.chunk(count, 1)], 1)
        return raw.unflatten(1, (count, changed.shape[1]))
