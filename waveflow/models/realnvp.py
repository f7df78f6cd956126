"""RealNVP on images (Dinh, Sohl-Dickstein & Bengio, 2017; arXiv:1605.08803)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from waveflow.bijectors import (
    ActNorm,
    Affine,
    BatchNorm,
    Bijector,
    Chain,
    Checkerboard,
    Coupling,
    Halves,
    Logit,
    MultiScale,
    Partition,
    Permutation,
    Squeeze,
)
from waveflow.context import Context
from waveflow.errors import InputError
from waveflow.models.image_flow import ImageFlow, ImageFlowConfig
from waveflow.networks import ResNet


@dataclass(frozen=True)
class RealNVPConfig(ImageFlowConfig):
    """What a RealNVP is made of; further fields as in :class:`ImageFlowConfig`.

    Args:
        levels: scales; the images are halved in height and width between them.
        blocks: residual blocks of each coupling's network.
        hidden: width of the networks at full size; doubled with each halving.
        norm: ``"batch"``: batch normalisation between couplings and in their networks, as in the paper. ``"actnorm"``:
            ``ActNorm`` between couplings and nothing in the networks; the one that can go with ``memory="invert"``.
        alpha: how far pixels stay from the ends of the interval whose logit is modelled, see
            :class:`~waveflow.bijectors.Logit`.

    Raises:
        InputError: for a size below 1, images that cannot be halved once per level, an unknown choice, or one that does
            not go with another.
    """

    levels: int = 2
    blocks: int = 8
    hidden: int = 64
    norm: Literal["batch", "actnorm"] = "batch"
    alpha: float = 0.05

    def __post_init__(self):
        super().__post_init__()
        for name in ("levels", "blocks", "hidden"):
            if getattr(self, name) < 1:
                raise InputError(f"RealNVP expects {name} of at least 1, got {getattr(self, name)}")
        self._require_levels(self.levels)
        self._require_choice("norm", ("batch", "actnorm"))
        if not 0 < self.alpha < 0.5:
            raise InputError(f"RealNVP expects alpha within 0 and 0.5, got {self.alpha}")
        if self.norm == "batch" and self.memory == "invert":
            raise InputError(
                'RealNVP expects norm "actnorm" for memory "invert", since a batch that is normalised by its own '
                'statistics cannot be rebuilt, got "batch"'
            )


class RealNVP(ImageFlow):
    """Affine couplings over checkerboards and channels at several scales, half of the channels leaving at each.

    Each level but the last has three couplings over a checkerboard, a squeeze and three over channels; then half of
    the channels become latents. The last has four over a checkerboard. Constructed with the fields of
    :class:`RealNVPConfig` as keywords, or by ``from_preset(name)``:

    - ``cifar10``: the paper's for 32x32, 2 levels, 8 blocks of 64; ``faces64``: for 64x64, 5 levels, 2 blocks of 32.
    - ``mnist``: 2 levels (28, 14; 7 is odd), 4 blocks of 64, which the paper does not have.
    - ``mnist-small``: 2 levels, 1 block of 16 with ``ActNorm``, for a CPU.
    - ``digits``: scikit-learn's 8x8 digits of 17 values, 2 levels, 2 blocks of 32 with ``ActNorm``.

    Example:
        >>> model = RealNVP.from_preset("digits", hidden=8)
        >>> images = model.sample(2)
        >>> model.log_prob(images).shape, model.encode(images).shape, model.exact
        (torch.Size([2]), torch.Size([2, 4, 4, 4]), False)
    """

    Config = RealNVPConfig
    PRESETS: ClassVar = {
        "cifar10": {"channels": 3, "height": 32, "width": 32},
        "faces64": {"channels": 3, "height": 64, "width": 64, "levels": 5, "blocks": 2, "hidden": 32},
        "mnist": {"blocks": 4},
        "mnist-small": {"blocks": 1, "hidden": 16, "norm": "actnorm"},
        "digits": {"height": 8, "width": 8, "values": 17, "blocks": 2, "hidden": 32, "norm": "actnorm"},
    }
    config: RealNVPConfig

    @staticmethod
    def bijector(config: RealNVPConfig) -> Bijector:
        levels, factor_out, channels = [], [], config.channels
        for level in range(config.levels):
            last = level == config.levels - 1
            hidden = config.hidden * 2**level
            steps = list(_steps(config, channels, hidden, 4 if last else 3, Checkerboard))
            if not last:
                steps += [Squeeze(2), Permutation(_diagonals_first(channels))]
                steps += _steps(config, 4 * channels, 2 * hidden, 3, Halves)
                channels *= 2
                factor_out.append(channels)
            levels.append(Chain(steps, config.memory))
        return Chain([Logit(config.alpha), MultiScale(levels, factor_out)])

    def weight_scales(self) -> Iterator[nn.Parameter]:
        """The scales of weight norm and of the tanh, on which the paper has an L2 penalty of 5e-5."""
        for name, parameter in self.flow.named_parameters():
            if name.endswith(("weight.original0", "tanh_scale")):
                yield parameter


def _steps(
    config: RealNVPConfig, channels: int, hidden: int, count: int, partition: type[Partition]
) -> Iterator[Bijector]:
    """Couplings by turns, each behind a normalisation."""
    kept = channels if partition.in_place else channels // 2
    for i in range(count):
        yield BatchNorm(channels) if config.norm == "batch" else ActNorm(channels)
        network = _BoundedScale(
            ResNet(kept, 2 * kept, hidden, config.blocks, config.classes, config.norm == "batch"), kept
        )
        yield Coupling(partition(swap=i % 2 == 1), network, Affine("exp"))


class _BoundedScale(nn.Module):
    r"""Bounds the second half of a network's answer: :math:`[t, s] \to [t, g \tanh s]` with learned g per channel."""

    def __init__(self, network: nn.Module, channels: int):
        super().__init__()
        self.network = network
        self.tanh_scale = nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, x: Tensor, context: Context = None) -> Tensor:
        shift, raw = self.network(x, context).chunk(2, 1)
        return torch.cat([shift, self.tanh_scale * torch.tanh(raw)], 1)


def _diagonals_first(channels: int) -> Tensor:
    # Halves of the channels then are the two diagonals of each square, of all colours, as in the paper's figure 3.
    return torch.cat([torch.arange(channels) * 4 + corner for corner in (0, 3, 1, 2)])
