"""What the models of vectors share: they are flows, and models that can be saved, at once."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from waveflow.bijectors import Bijector, Chain, ZScore
from waveflow.context import Context, Ragged
from waveflow.distributions import Flow, StandardNormal
from waveflow.errors import InputError
from waveflow.models.pretrained import PretrainedModel

ACTIVATIONS = {"relu": F.relu, "silu": F.silu, "tanh": torch.tanh}


@dataclass(frozen=True)
class VectorFlowConfig:
    """What every model of vectors is told.

    Args:
        features: D, size of a vector.
        layers: invertible layers.
        hidden: widths of the hidden layers of each conditioner.
        context: C, size of the vector that the density is conditioned on; 0 for none.
        activation: of the conditioners: relu, silu or tanh (the last two give densities with smooth gradients).

    Raises:
        InputError: for a size below 1, or an unknown activation.
    """

    features: int
    layers: int = 5
    hidden: tuple[int, ...] = (512, 512)
    context: int = 0
    activation: str = "relu"

    def __post_init__(self):
        object.__setattr__(self, "hidden", tuple(self.hidden))  # a list where it comes from JSON
        model = type(self).__name__.removesuffix("Config")
        sizes = {"features": self.features, "layers": self.layers, "hidden": min(self.hidden, default=0)}
        for name, size in sizes.items():
            if size < 1:
                raise InputError(f"{model} expects {name} of at least 1, got {getattr(self, name)}")
        if self.context < 0:
            raise InputError(f"{model} expects a context of at least 0 numbers, got {self.context}")
        if self.activation not in ACTIVATIONS:
            raise InputError(f"{model} expects an activation out of {', '.join(ACTIVATIONS)}, got {self.activation!r}")


class VectorFlow(PretrainedModel, Flow):
    """A flow of vectors (B, D), standard normal in its latent, with a configuration and checkpoints.

    A subclass names its ``Config`` and gives its :meth:`layers`. In front of them stands a
    :class:`~waveflow.bijectors.ZScore`, the identity until :meth:`standardise`: samples and log-densities are in the
    units of the data.

    Raises:
        InputError: for a field that the configuration does not have, or values it refuses; (calls) for a context
            that is missing, superfluous or of another size.
    """

    def __init__(self, **fields: Any):
        config = self.make_config(**fields)
        bijector = Chain([ZScore(config.features), *self.layers(config)])
        Flow.__init__(self, StandardNormal(), bijector, (config.features,))
        self.config = config

    @staticmethod
    def layers(config: Any) -> Iterable[Bijector]:
        """The model's maps in the order from data to latent."""
        raise NotImplementedError

    def standardise(self, x: Tensor) -> None:
        """Take the mean and the standard deviation of x (N, D) as the units in which the layers see the data.

        Raises:
            InputError: for another number of features, values that are not finite, or a constant feature.
        """
        self.bijector[0].fit(x)

    def event_shape(self, context: Context = None) -> tuple[int, ...]:
        size, name = getattr(self.config, "context", 0), type(self).__name__
        if context is None and size:
            raise InputError(f"{name} expects a context (B, {size}), got None")
        if context is not None:
            got = "a padded batch" if isinstance(context, Ragged) else tuple(context.shape)
            if not size:
                raise InputError(f"{name} expects no context, got {got}")
            if isinstance(context, Ragged) or context.ndim != 2 or context.shape[1] != size:
                raise InputError(f"{name} expects a context (B, {size}), got {got}")
        return super().event_shape(context)
