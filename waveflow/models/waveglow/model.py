"""WaveGlow: a flow vocoder (Prenger, Valle & Catanzaro, 2018; arXiv:1811.00002)."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from waveflow.audio import Denoiser, MelConfig, check_mel
from waveflow.bijectors import (
    LOG_SCALES,
    ActNorm,
    Affine,
    Chain,
    Conditioned,
    Coupling,
    Halves,
    InvertibleConv1x1,
    LinearPrediction,
    MultiScale,
    Squeeze,
)
from waveflow.context import Context, Ragged
from waveflow.distributions import Flow, StandardNormal
from waveflow.errors import InputError
from waveflow.models.pretrained import PretrainedModel
from waveflow.networks import LinearUpsampler, TransposedUpsampler, WaveNetStack

_CHOICES = {"upsampler": ("transposed", "linear"), "memory": ("store", "invert"), "scale": tuple(LOG_SCALES)}


# Order 128 reaches back over a period of most voices. After short trainings temperatures below 1 only lose level.
_WHITENED = {"whiten": True, "whiten_order": 128, "whiten_block": 32, "whiten_correction": 64, "temperature": 1.0}


@dataclass(frozen=True)
class WaveGlowConfig:
    """What a WaveGlow is made of; the defaults are the reference configuration.

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
        whiten: model the residual of a :class:`~waveflow.bijectors.LinearPrediction` instead of the waveform.
        whiten_order: order of that prediction.
        whiten_block: samples for which one of its filters holds; divides the hop length.
        whiten_correction: channels of the network that corrects its envelope; 0 for none.
        memory: ``"store"`` or ``"invert"``, see ``Chain``.
        temperature: default standard deviation of the latent in synthesis.
        mel: the mel that the model is conditioned on.
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
    whiten: bool = False
    whiten_order: int = 32
    whiten_block: int = 64
    whiten_correction: int = 0
    memory: Literal["store", "invert"] = "store"
    temperature: float = 0.6
    mel: MelConfig = field(default_factory=MelConfig)

    def __post_init__(self):
        for name in ("flows", "group", "layers", "channels", "context_channels"):
            if getattr(self, name) < 1:
                raise InputError(f"WaveGlow expects {name} of at least 1, got {getattr(self, name)}")
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
            if getattr(self, name) not in choices:
                expected = " or ".join(f'"{choice}"' for choice in choices)
                raise InputError(f"WaveGlow expects {name} {expected}, got {getattr(self, name)!r}")
        if self.whiten and (self.whiten_block < 1 or self.mel.hop_length % self.whiten_block):
            raise InputError(
                f"WaveGlow expects a whiten_block that divides the hop {self.mel.hop_length}, got {self.whiten_block}"
            )
        if self.whiten and not (1 <= self.whiten_order <= self.mel.n_fft // 2 and self.whiten_correction >= 0):
            raise InputError(
                f"WaveGlow expects a whiten_order of 1 to {self.mel.n_fft // 2}, half the FFT, and a whiten_correction "
                f"of at least 0, got {self.whiten_order} and {self.whiten_correction}"
            )
        if not self.temperature >= 0:
            raise InputError(f"WaveGlow expects a temperature of at least 0, got {self.temperature}")
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


class WaveGlow(PretrainedModel):
    """Waveform = inverse of a stack of 1x1 convolutions and affine couplings, conditioned on its mel.

    Constructed with the fields of :class:`WaveGlowConfig` as keywords, or by ``from_preset(name)``:

    - ``ljspeech``: the reference configuration, 87.9 M parameters with weight norm; ``ljspeech-512`` (268 M) and
      ``ljspeech-64`` (17.6 M) differ in width.
    - ``small``: groups of 16, 6.5 M.
    - ``tiny``: groups of 16, 0.8 M, trains on a CPU in minutes.
    - ``squeeze``: groups of 128 and separable convolutions, for fast synthesis on one CPU core.

    The layers are in ``flow``, a :class:`~waveflow.distributions.Flow` of waveforms (B, 1, T) given mels.

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
            **_WHITENED,
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
            **_WHITENED,
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
            **_WHITENED,
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
        bijector = Chain([Squeeze(c.group, dims=1), Conditioned(encoder, multi_scale)])
        if c.whiten:
            whitening = LinearPrediction(c.mel, c.whiten_order, c.whiten_block, c.whiten_correction)
            bijector = Chain([whitening, bijector])
        self.flow = Flow(StandardNormal(), bijector, self._event_shape)

    @property
    def mel_config(self) -> MelConfig:
        """The mel that the model is conditioned on."""
        return self.config.mel

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
        return self._layers[1].encoder

    @property
    def whitening(self) -> LinearPrediction | None:
        """The linear prediction in front of the layers, None where there is none."""
        return self.flow.bijector[0] if self.config.whiten else None

    def couplings(self) -> Iterator[Coupling]:
        """The affine couplings, in the order from data to latent."""
        return (part for part in self.flow.bijector.modules() if isinstance(part, Coupling))

    def latent_shape(self, frames: int) -> tuple[int, int]:
        """Shape (group, T / group) of one latent for a mel of that many frames.

        Its channels are [those that leave first | those that leave next | ... | the last], as in the reference.
        """
        return (self.config.group, frames * self.config.mel.hop_length // self.config.group)

    def forward(self, waveform: Tensor, mel: Tensor) -> Tensor:
        return self.log_prob(waveform, mel)

    def log_prob(self, waveform: Tensor, mel: Tensor) -> Tensor:
        """Log-density of waveforms on [-1, 1] given their mels.

        Args:
            waveform: (B, T), T a multiple of ``config.group``.
            mel: (B, n_mels, frames), frames >= T / hop_length; a surplus is ignored.

        Returns:
            (B,) nats.

        Raises:
            InputError: for a waveform or mel of another shape.
        """
        c = self.config
        if (
            waveform.ndim != 2
            or not waveform.is_floating_point()
            or waveform.shape[1] % c.group
            or not waveform.shape[1]
        ):
            raise InputError(
                f"WaveGlow.log_prob expects waveforms (B, T) of floats, T divisible by {c.group} and not 0, "
                f"got {waveform.dtype} {tuple(waveform.shape)}"
            )
        frames = -(-waveform.shape[1] // c.mel.hop_length)
        if mel.ndim != 3 or mel.shape[:2] != (len(waveform), c.mel.n_mels) or mel.shape[2] < frames:
            raise InputError(
                f"WaveGlow.log_prob expects mels ({len(waveform)}, {c.mel.n_mels}, {frames} or more) for waveforms "
                f"{tuple(waveform.shape)}, got {tuple(mel.shape)}"
            )
        return self.flow.log_prob(waveform[:, None], mel[..., :frames])

    @torch.no_grad()
    def vocode(
        self,
        mel: Tensor,
        temperature: float | None = None,
        z: Tensor | None = None,
        lengths: Tensor | None = None,
        denoise: float = 0.0,
        generator: torch.Generator | None = None,
        chunk: int | None = None,
    ) -> Tensor:
        """Turn mels into waveforms.

        Args:
            mel: (B, n_mels, frames) as ``mel_config`` says.
            temperature: standard deviation of the latent; None for the checkpoint's default.
            z: the latent (B, *latent_shape(frames)) itself, in place of a draw: the result then is a function
                of ``(mel, z)`` alone.
            lengths: frames of each mel (B,), where a batch is padded; each item comes out as if vocoded alone with the
                beginning of its ``z``, and is zero behind its end.
            denoise: strength of the bias subtraction (:class:`~waveflow.audio.Denoiser`); to vocode many mels with it,
                make one ``denoiser()`` and apply it yourself.
            generator: of the draw.
            chunk: synthesise this many frames at a time, each with all the context it depends on: the same result in
                memory that does not grow with the length. None: all at once.

        Returns:
            (B, frames * hop_length), on the scale of [-1, 1] (not clipped).

        Raises:
            InputError: for a mel, latent, temperature, chunk or lengths that do not fit.
            FloatingPointError: if the result is not finite.
        """
        self._check(mel, z, temperature, lengths, chunk)
        batch, _, frames = mel.shape
        like = self.encoder.convolution.weight
        mel = mel.to(like.device, like.dtype)
        if z is None:
            temperature = self.config.temperature if temperature is None else temperature
            shape = (batch, *self.latent_shape(frames))
            z = self.flow.base.sample(shape, temperature, generator, dtype=like.dtype, device=like.device)
        else:
            z = z.to(like.device, like.dtype)
        context = mel if lengths is None else Ragged.from_lengths(mel, lengths)
        waveform = self._synthesise_chunks(z, context, chunk or mel.shape[2])
        if not waveform.isfinite().all():
            raise FloatingPointError("WaveGlow.vocode gave samples that are not finite: is the model trained?")
        if lengths is None:
            return self.denoiser()(waveform, denoise) if denoise else waveform
        denoiser = self.denoiser() if denoise else None
        out = torch.zeros_like(waveform)
        for i, end in enumerate((lengths * self.config.mel.hop_length).tolist()):
            item = waveform[i : i + 1, :end]
            out[i, :end] = denoiser(item, denoise)[0] if denoiser and end else item[0]
        return out

    def denoiser(self) -> Denoiser:
        """A denoiser with the bias of this model."""
        like = self.encoder.convolution.weight
        return Denoiser.from_vocoder(
            lambda mel: self.vocode(mel, temperature=0.0), self.config.mel.n_mels, device=like.device
        )

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
        return twin.requires_grad_(False).eval()

    @property
    def _layers(self) -> Chain:
        return self.flow.bijector[1] if self.config.whiten else self.flow.bijector

    def _event_shape(self, context: Context) -> tuple[int, int]:
        values = context.values if isinstance(context, Ragged) else context
        return (1, values.shape[-1] * self.config.mel.hop_length)

    def _synthesise_chunks(self, z: Tensor, context: Context, chunk: int) -> Tensor:
        values, mask = context if isinstance(context, Ragged) else (context, None)
        hop = self.config.mel.hop_length
        rate = hop // self.config.group
        frames = values.shape[-1]
        before, after = self.reach
        pieces, state = [], None
        for start in range(0, frames, chunk):
            stop = min(start + chunk, frames)
            low, high = max(0, start - before), min(frames, stop + after)
            part = values[..., low:high]
            part = part if mask is None else Ragged(part, mask[..., low:high])
            piece, _ = self._layers.inverse(z[..., low * rate : high * rate], part)
            piece = piece[..., (start - low) * hop : (stop - low) * hop]
            if self.whitening is not None:
                piece, state = self.whitening.inverse_part(piece, context, start, state)
            pieces.append(piece[:, 0])
        return torch.cat(pieces, 1)

    def _check(self, mel, z, temperature, lengths, chunk) -> None:
        check_mel(mel, self.config.mel)
        if mel.ndim != 3:
            raise InputError(
                f"WaveGlow.vocode expects mels (B, {self.config.mel.n_mels}, frames), got {tuple(mel.shape)}"
            )
        batch, _, frames = mel.shape
        if temperature is not None and not temperature >= 0:
            raise InputError(f"WaveGlow.vocode expects a temperature of at least 0, got {temperature}")
        if z is not None:
            expected = (batch, *self.latent_shape(frames))
            if temperature is not None:
                raise InputError("WaveGlow.vocode expects either z or a temperature, got both")
            if tuple(z.shape) != expected:
                raise InputError(f"WaveGlow.vocode expects z of shape {expected}, got {tuple(z.shape)}")
        if lengths is not None and (
            lengths.shape != (batch,) or lengths.is_floating_point() or (lengths < 0).any() or (lengths > frames).any()
        ):
            raise InputError(
                f"WaveGlow.vocode expects {batch} whole lengths within 0 ... {frames}, got {lengths.tolist()}"
            )
        if chunk is not None and chunk < 1:
            raise InputError(f"WaveGlow.vocode expects chunks of at least 1 frame, got {chunk}")
