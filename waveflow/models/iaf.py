"""Inverse autoregressive flow (Kingma et al., 2016; arXiv:1606.04934)."""

from collections.abc import Iterator
from dataclasses import dataclass

from waveflow.bijectors import Affine, Autoregressive, Inverse
from waveflow.models.vector_flow import ACTIVATIONS, VectorFlow, VectorFlowConfig
from waveflow.networks import MADE


@dataclass(frozen=True)
class IAFConfig(VectorFlowConfig):
    """What an IAF is made of; further fields as in :class:`VectorFlowConfig`.

    Args:
        scale: map from a network's answer to the log of a scale, see ``LOG_SCALES``.
    """

    scale: str = "gentle"


class IAF(VectorFlow):
    """Each layer scales and shifts every latent number by what follows from the latent numbers before it.

    A MAF turned round: a sample and its density cost one pass, which suits reverse KL and distillation; the density of
    given data has to be solved for. Constructed with the fields of :class:`IAFConfig` as keywords.

    Example:
        >>> model = IAF(features=3, layers=2, hidden=(16,))
        >>> x, log_prob = model.sample_with_log_prob((10,))
        >>> x.shape, log_prob.shape
        (torch.Size([10, 3]), torch.Size([10]))
    """

    Config = IAFConfig

    @staticmethod
    def layers(config: IAFConfig) -> Iterator[Inverse]:
        for i in range(config.layers):
            univariate = Affine(config.scale)
            made = MADE(
                config.features,
                config.hidden,
                univariate.params,
                config.context,
                order=range(config.features)[:: -1 if i % 2 else 1],
                activation=ACTIVATIONS[config.activation],
            )
            yield Inverse(Autoregressive(made, univariate))
