"""A masked-convolution flow turned round: images in one pass, made to be taught by one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from waveflow.bijectors import Affine, Autoregressive, Bijector, Chain, Flip, Inverse, Logit
from waveflow.models.image_flow import ImageFlow
from waveflow.models.masked_conv_flow import MaskedConvFlow, MaskedConvFlowConfig
from waveflow.networks import GatedPixelCNNStack


@dataclass(frozen=True)
class MaskedConvIAFConfig(MaskedConvFlowConfig):
    """What a MaskedConvIAF is made of: the fields of :class:`MaskedConvFlowConfig`."""


class MaskedConvIAF(ImageFlow):
    """Latent pixels are scaled and shifted by what follows from the latent pixels before them.

    The maps of :class:`MaskedConvFlow`, but that mean and scale of a pixel follow from noise, not from pixels: an image
    and its density cost one pass of each network; the likelihood of a given image is solved for, number by number.
    Trained by distillation, see ``recipes/mnist/distill.py``. Constructed with the fields of
    :class:`MaskedConvIAFConfig` as keywords.

    Example:
        >>> model = MaskedConvIAF.from_preset("digits")
        >>> x, log_prob = model.flow.sample_with_log_prob((2,))
        >>> x.shape, log_prob.shape
        (torch.Size([2, 1, 8, 8]), torch.Size([2]))
    """

    Config = MaskedConvIAFConfig
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = MaskedConvFlow.PRESETS

    @staticmethod
    def bijector(config: MaskedConvIAFConfig) -> Bijector:
        c, maps = config, []
        for _ in range(c.steps):
            univariate = Affine(c.scale)
            network = GatedPixelCNNStack(
                c.image_shape, univariate.params, c.hidden, c.layers, c.kernel, c.first_kernel, c.classes
            )
            maps += [Inverse(Autoregressive(network, univariate)), Flip()]
        return Chain([Logit(), *maps[:-1]], memory=c.memory)
