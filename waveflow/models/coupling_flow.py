"""RealNVP on vectors (Dinh, Sohl-Dickstein & Bengio, 2017; arXiv:1605.08803)."""

from collections.abc import Iterator
from dataclasses import dataclass

from waveflow.bijectors import Affine, Bijector, Coupling, Elementwise, Halves
from waveflow.errors import InputError
from waveflow.models.vector_flow import ACTIVATIONS, VectorFlow, VectorFlowConfig
from waveflow.networks import MLP


@dataclass(frozen=True)
class CouplingFlowConfig(VectorFlowConfig):
    """What a coupling flow is made of; further fields as in :class:`VectorFlowConfig`.

    Args:
        scale: map from a network's answer to the log of a scale, see ``LOG_SCALES``.

    Raises:
        InputError: for a single feature.
    """

    scale: str = "gentle"

    def __post_init__(self):
        super().__post_init__()
        if self.features < 2:
            raise InputError(f"CouplingFlow expects at least 2 features, got {self.features}")


class CouplingFlow(VectorFlow):
    """The halves of a vector take turns in being scaled and shifted by what follows from the other.

    Densities and samples cost one pass each. A scale and shift for each feature by itself comes last. Constructed with
    the fields of :class:`CouplingFlowConfig` as keywords.

    Example:
        >>> model = CouplingFlow(features=3, layers=2, hidden=(16,))
        >>> model.sample((10,)).shape
        torch.Size([10, 3])
    """

    Config = CouplingFlowConfig

    @staticmethod
    def layers(config: CouplingFlowConfig) -> Iterator[Bijector]:
        half = config.features // 2
        for i in range(config.layers):
            kept, changed = (config.features - half, half) if i % 2 else (half, config.features - half)
            univariate = Affine(config.scale)
            activation = ACTIVATIONS[config.activation]
            network = MLP(kept, univariate.params * changed, config.hidden, config.context, activation)
            yield Coupling(Halves(swap=i % 2 == 1), network, univariate)
        yield Elementwise(Affine(), (config.features,))
