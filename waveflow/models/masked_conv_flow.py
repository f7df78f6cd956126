"""A masked autoregressive flow whose networks are those of Gated PixelCNN."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from waveflow.bijectors import LOG_SCALES, Autoregressive, Bijector, Chain, Flip, Logit, Standardise
from waveflow.errors import InputError
from waveflow.models.image_flow import ImageFlow, ImageFlowConfig
from waveflow.networks import GatedPixelCNNStack


@dataclass(frozen=True)
class MaskedConvFlowConfig(ImageFlowConfig):
    """What a MaskedConvFlow is made of; further fields as in :class:`ImageFlowConfig`.

    Args:
        steps: autoregressive maps, the first from the upper left, the next from the lower right, and so on.
        hidden: channels of each one's network.
        layers: its gated layers.
        kernel: side of their convolutions, odd.
        first_kernel: side of the first convolution, odd.
        scale: map from a network's answer to the log of a standard deviation, see ``LOG_SCALES``.

    Raises:
        InputError: for sizes that are too small, even kernels, or an unknown scale.
    """

    steps: int = 2
    hidden: int = 48
    layers: int = 5
    kernel: int = 3
    first_kernel: int = 7
    scale: str = "tanh_exp"

    def __post_init__(self):
        super().__post_init__()
        self._require_choice("scale", tuple(LOG_SCALES))
        for name, least in {"steps": 1, "hidden": self.channels, "layers": 1}.items():
            if getattr(self, name) < least:
                raise InputError(f"{self._model} expects {name} of at least {least}, got {getattr(self, name)}")
        for name in ("kernel", "first_kernel"):
            if getattr(self, name) < 3 or getattr(self, name) % 2 == 0:
                raise InputError(f"{self._model} expects {name} odd and at least 3, got {getattr(self, name)}")


class MaskedConvFlow(ImageFlow):
    """Pixels, on a logit scale, are standardised by a mean and deviation that follow from the pixels before them.

    MAF (arXiv:1705.07057) with the network of Gated PixelCNN (arXiv:1606.05328) in the place of MADE, in alternating
    directions. The likelihood takes one pass of each network; samples are made number by number, each step doing only
    new work. Constructed with the fields of :class:`MaskedConvFlowConfig` as keywords.

    Example:
        >>> import torch
        >>> model = MaskedConvFlow.from_preset("digits")
        >>> images = torch.randint(17, (2, 1, 8, 8), dtype=torch.uint8)
        >>> torch.equal(model.decode(model.encode(images)), images)
        True
    """

    Config = MaskedConvFlowConfig
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "digits": {"height": 8, "width": 8, "values": 17, "hidden": 24, "layers": 4, "first_kernel": 5},
        "mnist": {},
    }

    @staticmethod
    def bijector(config: MaskedConvFlowConfig) -> Bijector:
        c, maps = config, []
        for _ in range(c.steps):
            univariate = Standardise(c.scale)
            network = GatedPixelCNNStack(
                c.image_shape, univariate.params, c.hidden, c.layers, c.kernel, c.first_kernel, c.classes
            )
            maps += [Autoregressive(network, univariate), Flip()]
        return Chain([Logit(), *maps[:-1]], memory=c.memory)
