"""A flow as a distribution of ``torch.distributions``."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from waveflow.context import Context, Ragged

if TYPE_CHECKING:
    from waveflow.distributions.flow import Flow


class FlowDistribution(Distribution):
    """What ``flow.as_distribution(context)`` gives: batch shape (B,) for a context of B, otherwise ()."""

    has_rsample = True

    def __init__(self, flow: "Flow", context: Context = None):
        self.flow, self.context = flow, context
        values = context.values if isinstance(context, Ragged) else context
        batch = torch.Size() if values is None else values.shape[:1]
        super().__init__(batch, torch.Size(flow.event_shape(context)), validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.real, len(self.event_shape))

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008 torch's signature
        return self.flow.sample(tuple(sample_shape), self.context)

    def log_prob(self, value: Tensor) -> Tensor:
        if self.batch_shape or value.ndim > len(self.event_shape):
            value = value.expand(torch.broadcast_shapes(value.shape, self.batch_shape + self.event_shape))
            return self.flow.log_prob(value, self.context)
        return self.flow.log_prob(value[None], self.context)[0]
