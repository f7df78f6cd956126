"""Neural spline flows (Durkan, Bekasov, Murray & Papamakarios, 2019; arXiv:1906.04032)."""

from collections.abc import Iterator
from dataclasses import dataclass

from waveflow.bijectors import Autoregressive, Bijector, Coupling, Halves, LULinear, RationalQuadraticSpline
from waveflow.errors import InputError
from waveflow.models.vector_flow import ACTIVATIONS, VectorFlow, VectorFlowConfig
from waveflow.networks import MADE, MLP


@dataclass(frozen=True)
class NSFConfig(VectorFlowConfig):
    """What an NSF is made of; further fields as in :class:`VectorFlowConfig`.

    Args:
        bins: of a spline.
        bound: splines bend [-bound, bound], in standard deviations of the data, and leave the rest as it is.
        coupling: couplings, RQ-NSF (C), instead of autoregressive maps, RQ-NSF (AR).
        raw_scale: factor of what the networks say of splines. Below 1, 1 / sqrt(width) at the gentlest, the inverse
            holds better in float32 and training starts more slowly.

    Raises:
        InputError: for couplings of a single feature, fewer than two bins, or a bound or factor that is not positive.
    """

    bins: int = 8
    bound: float = 5.0
    coupling: bool = False
    raw_scale: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        if self.bins < 2 or not self.bound > 0:
            raise InputError(f"NSF expects bins >= 2 and a positive bound, got {self.bins} and {self.bound}")
        if not self.raw_scale > 0:
            raise InputError(f"NSF expects a positive raw_scale, got {self.raw_scale}")
        if self.coupling and self.features < 2:
            raise InputError(f"NSF expects at least 2 features for couplings, got {self.features}")


class NSF(VectorFlow):
    """Each layer mixes the features linearly, then bends every one by a spline that follows from others.

    Autoregressive splines fit a little better; couplings are as fast both ways. Constructed with the fields of
    :class:`NSFConfig` as keywords.

    Example:
        >>> model = NSF(features=3, layers=2, hidden=(16,), bins=4, coupling=True)
        >>> model.sample((10,)).shape
        torch.Size([10, 3])
    """

    Config = NSFConfig

    @staticmethod
    def layers(config: NSFConfig) -> Iterator[Bijector]:
        features, activation = config.features, ACTIVATIONS[config.activation]
        for i in range(config.layers):
            # Turns are taken by order and halves; a random permutation on top could undo them.
            yield LULinear(features, permute=False)
            spline = RationalQuadraticSpline(config.bins, config.bound, raw_scale=config.raw_scale)
            if config.coupling:
                half = features // 2
                kept, changed = (features - half, half) if i % 2 else (half, features - half)
                network = MLP(kept, spline.params * changed, config.hidden, config.context, activation)
                yield Coupling(Halves(swap=i % 2 == 1), network, spline)
            else:
                order = range(features)[:: -1 if i % 2 else 1]
                made = MADE(features, config.hidden, spline.params, config.context, order, activation=activation)
                yield Autoregressive(made, spline)
