"""An inverse autoregressive flow of splines: a student for densities that scales and shifts cannot follow."""

from collections.abc import Iterator
from dataclasses import dataclass

from waveflow.bijectors import Autoregressive, Bijector, Inverse, LULinear, RationalQuadraticSpline
from waveflow.errors import InputError
from waveflow.models.vector_flow import ACTIVATIONS, VectorFlow, VectorFlowConfig
from waveflow.networks import MADE


@dataclass(frozen=True)
class SplineIAFConfig(VectorFlowConfig):
    """What a SplineIAF is made of; further fields as in :class:`VectorFlowConfig`.

    Args:
        bins: of a spline.
        bound: splines bend [-bound, bound], in standard deviations of the data, and leave the rest as it is.
        raw_scale: factor of what the networks say of splines, as in :class:`~waveflow.models.NSFConfig`.

    Raises:
        InputError: for fewer than two bins, or a bound or factor that is not positive.
    """

    bins: int = 8
    bound: float = 5.0
    raw_scale: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        if self.bins < 2 or not self.bound > 0 or not self.raw_scale > 0:
            raise InputError(
                "SplineIAF expects bins >= 2, a positive bound and a positive raw_scale, got "
                f"{self.bins}, {self.bound} and {self.raw_scale}"
            )


class SplineIAF(VectorFlow):
    """Each layer bends every latent number by a spline that follows from those before it, then mixes all linearly.

    Autoregressive neural spline flows (Durkan et al., 2019; arXiv:1906.04032) turned round as IAF turns MAF round: a
    sample and its density cost one pass; the density of given data has to be solved for. Constructed with the fields
    of :class:`SplineIAFConfig` as keywords.

    Example:
        >>> model = SplineIAF(features=3, layers=2, hidden=(16,), bins=4)
        >>> x, log_prob = model.sample_with_log_prob((10,))
        >>> x.shape, log_prob.shape
        (torch.Size([10, 3]), torch.Size([10]))
    """

    Config = SplineIAFConfig

    @staticmethod
    def layers(config: SplineIAFConfig) -> Iterator[Bijector]:
        features, activation = config.features, ACTIVATIONS[config.activation]
        for i in range(config.layers):
            spline = RationalQuadraticSpline(config.bins, config.bound, raw_scale=config.raw_scale)
            order = range(features)[:: -1 if i % 2 else 1]
            made = MADE(features, config.hidden, spline.params, config.context, order, activation=activation)
            yield Inverse(Autoregressive(made, spline))
            yield LULinear(features, permute=False)
