"""Planar flow (Rezende & Mohamed, 2015; arXiv:1505.05770)."""

from collections.abc import Iterator
from dataclasses import dataclass

from waveflow.bijectors import Inverse, Planar
from waveflow.errors import InputError
from waveflow.models.vector_flow import VectorFlow


@dataclass(frozen=True)
class PlanarFlowConfig:
    """What a planar flow is made of.

    Args:
        features: D, size of a vector.
        layers: planar maps.

    Raises:
        InputError: for a size below 1.
    """

    features: int
    layers: int = 16

    def __post_init__(self):
        for name in ("features", "layers"):
            if getattr(self, name) < 1:
                raise InputError(f"PlanarFlow expects {name} of at least 1, got {getattr(self, name)}")


class PlanarFlow(VectorFlow):
    """Many small steps, each across a hyperplane; no networks, and no context.

    Built to be sampled, and so to be learned by reverse KL: a sample and its density cost one pass. The density of
    given data takes the root of an increasing function of one number for each layer. Constructed with the fields of
    :class:`PlanarFlowConfig` as keywords.

    Example:
        >>> model = PlanarFlow(features=3, layers=2)
        >>> x, log_prob = model.sample_with_log_prob((10,))
        >>> x.shape, log_prob.shape
        (torch.Size([10, 3]), torch.Size([10]))
    """

    Config = PlanarFlowConfig

    @staticmethod
    def layers(config: PlanarFlowConfig) -> Iterator[Inverse]:
        return (Inverse(Planar(config.features)) for _ in range(config.layers))
