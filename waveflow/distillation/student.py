"""A student as the trainer wraps it."""

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from waveflow.context import Context
from waveflow.distillation.teacher import flow_of
from waveflow.distributions import Flow


class Student(nn.Module):
    """A model whose ``forward`` draws, where its own gives densities.

    DDP, autocast and :class:`~waveflow.training.Trainer` wrap a module's ``forward``; a student is trained by its
    draws. The trainer exports the model itself, with its averaged weights.

    Args:
        model: a flow of vectors, or a model that has a ``flow``.

    Example:
        >>> from waveflow.models import IAF
        >>> x, log_prob = Student(IAF(features=2, layers=1, hidden=(8,)))(draws=5)
        >>> x.shape, log_prob.shape
        (torch.Size([5, 2]), torch.Size([5]))
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        flow_of(model)
        self.model = model

    @property
    def flow(self) -> Flow:
        """The flow that is trained."""
        return flow_of(self.model)

    @property
    def config(self) -> Any:
        """The model's, by which the trainer knows a checkpoint of the same model."""
        return self.model.config

    def forward(
        self,
        draws: int = 1,
        context: Context = None,
        generator: torch.Generator | None = None,
        lesson: Callable[[Flow], Tensor] | None = None,
    ) -> tuple[Tensor, Tensor] | Tensor:
        """x and its log-density, as from ``Flow.sample_with_log_prob((draws,), context)``.

        A ``lesson`` is called with the flow instead, and its loss returned: what wraps this module wraps it too.
        """
        if lesson is not None:
            return lesson(self.flow)
        return self.flow.sample_with_log_prob((draws,), context, generator=generator)

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        """Write the model."""
        self.model.save_pretrained(folder)
