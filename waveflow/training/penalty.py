"""A penalty beside the likelihood."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from waveflow.distributions.objectives import Objective


def with_penalty(objective: Objective, parameters: Iterable[nn.Parameter], weight: float) -> Objective:
    r"""An objective plus :math:`w \sum_i \theta_i^2` of some parameters only, unlike weight decay.

    Args:
        objective: gives ``loss`` and further figures; of these the loss alone is changed.
        parameters: those that are penalised.
        weight: w.

    Returns:
        The objective, which has ``penalty`` (the sum of squares) among its figures; without parameters or weight, the
        one that was given.
    """
    parameters = list(parameters)
    if not parameters or not weight:
        return objective

    def penalised(model: nn.Module, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        figures = objective(model, batch)
        squares = torch.stack([parameter.square().sum() for parameter in parameters]).sum()
        return figures | {"loss": figures["loss"] + weight * squares, "penalty": squares.detach()}

    return penalised
