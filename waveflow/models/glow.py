"""Glow (Kingma & Dhariwal, 2018; arXiv:1807.03039)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from waveflow.bijectors import (
    LOG_SCALES,
    ActNorm,
    Affine,
    Bijector,
    Chain,
    ConditionalElementwise,
    Coupling,
    Elementwise,
    Halves,
    InvertibleConv1x1,
    Logit,
    MultiScale,
    Offset,
    Shift,
    Squeeze,
    Standardise,
)
from waveflow.errors import InputError
from waveflow.models.image_flow import ImageFlow, ImageFlowConfig
from waveflow.networks import CouplingNet, ZeroConv2d

_SCALED = {"affine": Affine, "standardise": Standardise}


@dataclass(frozen=True)
class GlowConfig(ImageFlowConfig):
    """What a Glow is made of; further fields as in :class:`~waveflow.models.ImageFlowConfig`.

    Args:
        levels: L, scales of the image; each halves height and width.
        steps: K, steps of flow in each level.
        hidden: width of the couplings' networks.
        coupling: ``"affine"``, x * scale + shift; ``"standardise"``, (x - mean) / std, whose inverse multiplies by
            the std, which the sigmoids bound by 1, instead of dividing; or ``"additive"``, x + shift.
        scale: scale map of affine and standardising couplings, see ``LOG_SCALES``. The paper's is ``"sigmoid"``; the
            default is the same with a floor, as without one samples of affine couplings overflow in the first hundreds
            of steps of training.
        convolution: ``"plain"`` or ``"plu"``, see :class:`~waveflow.bijectors.InvertibleConv1x1`.
        norm: whether the networks standardise their hidden layers by the first batch.
        alpha: of a :class:`~waveflow.bijectors.Logit` that pixels go through first, as in RealNVP; None for the paper's
            y - 1/2. Where most pixels are black or white, as of digits, the logit learns several times faster.

    Raises:
        InputError: for sizes below 1, an alpha outside (0, 0.5), a height or width that cannot be halved once per
            level, or any other choice.
    """

    levels: int = 2
    steps: int = 32
    hidden: int = 512
    coupling: Literal["affine", "standardise", "additive"] = "affine"
    scale: str = "floored_sigmoid"
    convolution: Literal["plain", "plu"] = "plain"
    norm: bool = True
    alpha: float | None = None

    def __post_init__(self):
        super().__post_init__()
        self._require_levels(self.levels)
        for name in ("steps", "hidden"):
            if getattr(self, name) < 1:
                raise InputError(f"Glow expects {name} of at least 1, got {getattr(self, name)}")
        self._require_choice("coupling", (*_SCALED, "additive"))
        self._require_choice("scale", tuple(LOG_SCALES))
        self._require_choice("convolution", ("plain", "plu"))
        if self.alpha is not None and not 0 < self.alpha < 0.5:
            raise InputError(f"Glow expects alpha within 0 and 0.5, got {self.alpha}")


class Glow(ImageFlow):
    """Steps of activation normalisation, 1x1 convolution and coupling, on several scales of the image.

    Of every level but the last, half of the channels leave; their prior is Gaussian with mean and standard deviation
    that follow from those that stay. The prior of the last has a mean and a standard deviation for each channel at each
    position (in the paper's code one for each channel: digits and faces are not alike everywhere).
    Both are part of the bijector, so that the latent is standard normal throughout and temperature acts on all of it.
    With ``classes``, the label moves the last prior and biases the first hidden layer of every coupling's network.

    Constructed with the fields of :class:`GlowConfig` as keywords, or by ``from_preset(name)``:

    - ``cifar10``: the paper's L = 3, K = 32, 512 channels.
    - ``mnist``: two levels of the same, as 28 can be halved twice. (Padding to 32x32 would allow three, but then the
      density of 240 numbers that say nothing would count.) Its pixels go through RealNVP's logit. ``mnist-small``: 8
      steps of 96 channels.
    - ``faces64``: grey faces of 64x64 in four levels.
    - ``digits``: the 8x8 digits of scikit-learn with their 17 values, in seconds.

    Example:
        >>> import torch
        >>> model = Glow.from_preset("digits", steps=2)
        >>> model.bits_per_dim(torch.zeros(5, 1, 8, 8, dtype=torch.uint8)).shape, model.sample(3).shape
        (torch.Size([5]), torch.Size([3, 1, 8, 8]))
    """

    Config = GlowConfig
    PRESETS: ClassVar = {
        "cifar10": {"channels": 3, "height": 32, "width": 32, "levels": 3},
        "mnist": {"alpha": 0.05},
        "mnist-small": {"steps": 8, "hidden": 96, "alpha": 0.05},
        "faces64": {"height": 64, "width": 64, "levels": 4, "steps": 16, "hidden": 256},
        "digits": {"height": 8, "width": 8, "values": 17, "steps": 4, "hidden": 64},
    }
    config: GlowConfig

    @staticmethod
    def bijector(config: GlowConfig) -> Bijector:
        levels, leaving = [], []
        channels, positions = config.channels, (config.height >> config.levels, config.width >> config.levels)
        for level in range(config.levels):
            channels *= 4
            parts = [Squeeze(2), *_steps(channels, config)]
            if level < config.levels - 1:
                channels //= 2
                leaving.append(channels)
                univariate = Standardise()
                conditioner = ZeroConv2d(channels, univariate.params * channels)
                parts.append(Coupling(Halves(swap=True), conditioner, univariate))
            elif config.classes:
                parts.append(ConditionalElementwise(Standardise(), (channels, *positions), config.classes))
            else:
                parts.append(Elementwise(Standardise(), (channels, *positions)))
            levels.append(Chain(parts, config.memory))
        first = Offset(-0.5) if config.alpha is None else Logit(config.alpha)
        return Chain([first, MultiScale(levels, leaving)])


def _steps(channels: int, config: GlowConfig) -> Iterator[Bijector]:
    half = channels // 2
    for _ in range(config.steps):
        univariate = Shift() if config.coupling == "additive" else _SCALED[config.coupling](config.scale)
        network = CouplingNet(half, univariate.params * half, config.hidden, config.classes, config.norm)
        yield ActNorm(channels)
        yield InvertibleConv1x1(channels, config.convolution)
        yield Coupling(Halves(), network, univariate)
