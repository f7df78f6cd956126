"""WaveGlow: a flow vocoder (Prenger, Valle & Catanzaro, 2018; arXiv:1811.00002)."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from waveflow.bijectors import (
    LOG_SCALES,
    ActNorm,
    Affine,
    Chain,
    Conditioned,
    Coupling,
    Halves,
    InvertibleConv1x1,
    MultiScale,
    Squeeze,
)
from waveflow.errors import InputError
from waveflow.models.vocoder_model import WHITENED, VocoderConfig, VocoderModel
from waveflow.networks import FoldedWaveNetStack, LinearUpsampler, TransposedUpsampler, WaveNetStack

_CHOICES = {"upsampler": ("transposed", "linear"), "memory": ("store", "invert"), "scale": tuple(LOG_SCALES)}


@dataclass(frozen=True, kw_only=True)
class WaveGlowConfig(VocoderConfig):
    """What a WaveGlow is made of, besides what every vocoder has; the defaults are the reference configuration.

    Args:
        flows: steps of 1x1 convolution and coupling.
        group: samples folded into channels; divides the hop length.
        early_every: steps after which channels leave; 0 for never.
        early_channels: channels that leave each time.
        layers: layers of a coupling's network.
        channels: width of these layers.
        kernel_size: taps of their dilated convolutions, odd.
        cycle: layers after which their dilation begins again at 1; 0 for never.
        separable: depthwise-separable convolutions instead (SqueezeWave: arXiv:2001.05685).
        upsampler: ``"transposed"``: a transposed convolution to the sample rate, folded to n_mels * group channels (the
            reference). ``"linear"``: a convolution over frames, interpolated to the rate of the groups.
        context_channels: channels of the linear upsampler.
        scale: scale map of the couplings.
        actnorm: begin each step with an ``ActNorm``, so that training starts from standardised channels (Glow).
        alternate: every second coupling transforms the first half of the channels instead of the second (NVIDIA's
            checkpoints of 2018).
        memory: ``"store"`` or ``"invert"``, see ``Chain``.
    """

    flows: int = 12
    group: int = 8
    early_every: int = 4
    early_channels: int = 2
    layers: int = 8
    channels: int = 256
    kernel_size: int = 3
    cycle: int = 0
    separable: bool = False
    upsampler: Literal["transposed", "linear"] = "transposed"
    context_channels: int = 80
    scale: str = "exp"
    actnorm: bool = False
    alternate: bool = False
    memory: Literal["store", "invert"] = "store"
    temperature: float = 0.6

    def __post_init__(self):
        super().__post_init__()
        self._require_positive("flows", "group", "layers", "channels", "context_channels")
        if self.group % 2 or self.mel.hop_length % self.group:
            raise InputError(
                f"WaveGlow expects an even group that divides the hop of {self.mel.hop_length}, got {self.group}"
            )
        if self.early_channels % 2 or self.early_every < 0 or self.cycle < 0 or self.early_channels < 0:
            raise InputError(
                "WaveGlow expects an even early_channels, early_every and cycle of at least 0, "
                f"got {self.early_channels}, {self.early_every} and {self.cycle}"
            )
        if self.kernel_size % 2 == 0:
            raise InputError(f"WaveGlow expects an odd kernel_size, got {self.kernel_size}")
        for name, choices in _CHOICES.items():
            self._require_choice(name, choices)
        if self.channels_of_level(self.levels - 1) < 2:
            raise InputError(
                f"WaveGlow runs out of channels: {self.levels - 1} times {self.early_channels} leave of {self.group}"
            )

    @property
    def levels(self) -> int:
        """Number of runs of steps between which channels leave."""
        return -(-self.flows // self.early_every) if self.early_every else 1

    def channels_of_level(self, level: int) -> int:
        """Channels that the steps of this level transform."""
        return self.group - level * self.early_channels


class WaveGlow(VocoderModel):
    """Waveform = inverse of a stack of 1x1 convolutions and affine couplings, conditioned on its mel.

    Constructed with the fields of :class:`WaveGlowConfig` as keywords, or by ``from_preset(name)``:

    - ``ljspeech``: the reference configuration, 87.9 M parameters with weight norm; ``ljspeech-512`` (268 M) and
      ``ljspeech-64`` (17.6 M) differ in width.
    - ``small``: groups of 16, 6.5 M.
    - ``tiny``: groups of 16, 0.8 M, trains on a CPU in minutes.
    - ``squeeze``: groups of 128 and separable convolutions, for fast synthesis on one CPU core.

    The channels of a latent are [those that leave first | those that leave next | ... | the last], as in the reference.

    Example:
        >>> model = WaveGlow.from_preset("tiny")
        >>> mel = torch.full((1, 80, 4), -4.5)
        >>> model.vocode(mel).shape, model.log_prob(torch.zeros(1, 1024), mel).shape
        (torch.Size([1, 1024]), torch.Size([1]))
    """

    Config = WaveGlowConfig
    PRESETS: ClassVar = {
        "ljspeech": {},
        "ljspeech-512": {"channels": 512},
        "ljspeech-64": {"channels": 64},
        "small": {
            "flows": 10,
            "group": 16,
            "early_every": 4,
            "early_channels": 4,
            "layers": 7,
            "channels": 96,
            "upsampler": "linear",
            "context_channels": 96,
            "scale": "tanh_exp",
            "actnorm": True,
            **WHITENED,
        },
        "tiny": {
            "flows": 6,
            "group": 16,
            "early_every": 0,
            "layers": 5,
            "channels": 48,
            "upsampler": "linear",
            "scale": "tanh_exp",
            "actnorm": True,
            **WHITENED,
        },
        "squeeze": {
            "flows": 10,
            "group": 128,
            "early_every": 4,
            "early_channels": 16,
            "layers": 8,
            "channels": 128,
            "cycle": 4,
            "separable": True,
            "upsampler": "linear",
            "context_channels": 80,
            "scale": "tanh_exp",
            "actnorm": True,
            **WHITENED,
            "whiten_order": 32,
            "whiten_block": 64,
        },
    }
    config: WaveGlowConfig

    def build(self) -> None:
        c = self.config
        if c.upsampler == "transposed":
            encoder = TransposedUpsampler(c.mel.n_mels, c.mel.hop_length, c.group, c.mel.n_fft)
        else:
            centered = c.mel.padding == "center"
            encoder = LinearUpsampler(c.mel.n_mels, c.context_channels, c.mel.hop_length, c.group, centered)
        levels = []
        for level in range(c.levels):
            channels = c.channels_of_level(level)
            steps = []
            first = level * c.early_every
            for k in range(first, min(first + c.early_every, c.flows) if c.early_every else c.flows):
                univariate = Affine(c.scale)
                network = WaveNetStack(
                    channels // 2,
                    univariate.params * (channels // 2),
                    c.channels,
                    c.layers,
                    c.kernel_size,
                    encoder.out_channels,
                    c.cycle,
                    c.separable,
                )
                if c.actnorm:
                    steps.append(ActNorm(channels))
                steps.append(InvertibleConv1x1(channels))
                steps.append(Coupling(Halves(swap=c.alternate and k % 2 == 1), network, univariate))
            levels.append(Chain(steps, c.memory))
        multi_scale = MultiScale(levels, [c.early_channels] * (c.levels - 1))
        self.flow = self.make_flow(Chain([Squeeze(c.group, dims=1), Conditioned(encoder, multi_scale)]))

    @property
    def group(self) -> int:
        """Samples folded into channels."""
        return self.config.group

    @property
    def reach(self) -> tuple[int, int]:
        """Frames before and after a hop on which its samples (its residual, if whitened) depend, from the layers."""
        groups = sum(coupling.conditioner.reach for coupling in self.couplings())
        frames = -(-groups * self.config.group // self.config.mel.hop_length)
        before, after = self.encoder.reach
        return frames + before, frames + after

    @property
    def encoder(self) -> TransposedUpsampler | LinearUpsampler:
        """The upsampler of mels."""
        return self.layers[1].encoder

    def couplings(self) -> Iterator[Coupling]:
        """The affine couplings, in the order from data to latent."""
        return (part for part in self.flow.bijector.modules() if isinstance(part, Coupling))

    def _shares_threads(self, z: Tensor) -> bool:
        networks = [coupling.conditioner for coupling in self.couplings()]
        return all(isinstance(network, FoldedWaveNetStack) and network.runs_compiled(z) for network in networks)

    def for_inference(self, dtype: torch.dtype = torch.float32, compile: bool = False) -> Self:
        """A frozen copy that vocodes faster: weight norm folded, linear layers merged.

        Args:
            dtype: of the coupling networks. Everything else stays in float32: affine maps, 1x1 products, log-dets.
            compile: also compile the coupling networks by ``torch.compile``; the first call of each length is slow.

        Raises:
            InputError: for a dtype other than float32, bfloat16, float16 (for GPUs) and float64; for a copy that was
                made for inference already.
        """
        if dtype not in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
            raise InputError(f"for_inference expects torch.float32 or torch.bfloat16, got {dtype}")
        if self.made_for_inference:
            raise InputError("for_inference expects a model as it is trained or loaded, got a copy made for inference")
        twin = copy.deepcopy(self)
        twin.made_for_inference = True
        for coupling in twin.couplings():
            coupling.conditioner = coupling.conditioner.folded(dtype)
            if compile:
                coupling.conditioner.compile()
        for chain in [part for part in twin.layers.modules() if isinstance(part, Chain)]:
            for i, part in enumerate(chain.bijectors):
                if isinstance(part, InvertibleConv1x1):
                    chain.bijectors[i] = part.folded()
        return twin.requires_grad_(False).eval()
