"""Masked autoregressive flow (Papamakarios, Pavlakou & Murray, 2017; arXiv:1705.07057)."""

from collections.abc import Iterator
from dataclasses import dataclass

from waveflow.bijectors import Autoregressive, Standardise
from waveflow.models.vector_flow import ACTIVATIONS, VectorFlow, VectorFlowConfig
from waveflow.networks import MADE


@dataclass(frozen=True)
class MAFConfig(VectorFlowConfig):
    """What a MAF is made of; further fields as in :class:`VectorFlowConfig`.

    Args:
        scale: map from a network's answer to the log of a standard deviation, see ``LOG_SCALES``; ``exp`` is the
            paper's, unbounded.
    """

    scale: str = "gentle"


class MAF(VectorFlow):
    """Each layer standardises every feature by a mean and deviation that follow from those before it.

    The features are seen in their order and in reverse by turns. The density of a vector costs one pass; a sample
    costs about as much on a CPU, where networks are run unit by unit (see ``waveflow.bijectors.solvers``).
    Constructed with the fields of :class:`MAFConfig` as keywords.

    Example:
        >>> import torch
        >>> model = MAF(features=3, layers=2, hidden=(16,), context=1)
        >>> context = torch.zeros(4, 1)
        >>> model.log_prob(torch.zeros(4, 3), context).shape, model.sample((10,), context).shape
        (torch.Size([4]), torch.Size([10, 4, 3]))
    """

    Config = MAFConfig

    @staticmethod
    def layers(config: MAFConfig) -> Iterator[Autoregressive]:
        for i in range(config.layers):
            univariate = Standardise(config.scale)
            made = MADE(
                config.features,
                config.hidden,
                univariate.params,
                config.context,
                order=range(config.features)[:: -1 if i % 2 else 1],
                activation=ACTIVATIONS[config.activation],
            )
            yield Autoregressive(made, univariate)
