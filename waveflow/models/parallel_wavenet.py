"""Parallel WaveNet's student: all samples at once, as a WaveNet taught them (van den Oord et al., 2017)."""

import copy
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Self

import torch
from torch import Tensor, nn

from waveflow.bijectors import LOG_SCALES, Affine, Autoregressive, Chain, Conditioned, Inverse, Univariate
from waveflow.bijectors.base import log_det_dtype
from waveflow.bijectors.solvers import Solution
from waveflow.context import Context, Ragged
from waveflow.distributions import Base, StandardLogistic, StandardNormal
from waveflow.errors import InputError
from waveflow.models.vocoder_model import WHITENED, VocoderConfig, VocoderModel
from waveflow.networks import LinearUpsampler, SpectrogramUpsampler, WaveNetStack
from waveflow.networks.convolution import to_channels_last
from waveflow.threads import one_torch_thread

logger = logging.getLogger("waveflow")

_BLOCK = 1 << 18  # numbers that a layer hands on at a time, on a CPU: a few stay in its caches
_BOUNDS = {"exp": math.inf, "tanh_exp": 5.0, "gentle": 2.0}  # of the scale maps that a stack can begin anywhere with
_CHOICES = {"base": ("gaussian", "logistic"), "upsampler": ("transposed", "linear"), "scale": tuple(_BOUNDS)}
_OF_THE_TEACHER = (
    "whiten",
    "whiten_order",
    "whiten_block",
    "whiten_correction",
    "mel",
    "upsampler",
    "context_channels",
)


@dataclass(frozen=True, kw_only=True)
class ParallelWaveNetConfig(VocoderConfig):
    """What a student is made of, besides what every vocoder has; the defaults are ClariNet's.

    Args:
        flows: layers of each flow, the one nearest to the noise first.
        cycle: layers after which the dilation begins again at 1; 0 for never.
        channels: width of the layers.
        kernel_size: taps of the dilated convolutions.
        base: distribution of the noise: ``"gaussian"`` (ClariNet: arXiv:1807.07281) or ``"logistic"`` (Parallel
            WaveNet: arXiv:1711.10433).
        scale: scale map of the flows: ``"exp"``, ``"tanh_exp"`` or ``"gentle"``, see ``LOG_SCALES``.
        initial_scale: scale of all samples (of the residual, if whitened) before training.
        upsampler: as of :class:`~waveflow.models.WaveNetConfig`.
        context_channels: channels of the linear upsampler.
        frozen_encoder: the upsampler and the whitening are a teacher's, and stay as they are.
    """

    flows: tuple[int, ...] = (10,) * 6
    cycle: int = 10
    channels: int = 64
    kernel_size: int = 3
    base: Literal["gaussian", "logistic"] = "gaussian"
    scale: str = "tanh_exp"
    initial_scale: float = 0.05
    upsampler: Literal["transposed", "linear"] = "transposed"
    context_channels: int = 80
    frozen_encoder: bool = False

    def __post_init__(self):
        super().__post_init__()
        self._require_positive("channels", "kernel_size", "context_channels")
        if not self.flows or min(self.flows) < 1:
            raise InputError(f"ParallelWaveNet expects flows of at least 1 layer each, got {self.flows}")
        if self.cycle < 0 or (self.cycle or max(self.flows)) > 30:
            raise InputError(f"ParallelWaveNet expects a cycle of 0 ... 30 layers, got {self.cycle}")
        for name, choices in _CHOICES.items():
            self._require_choice(name, choices)
        if not (self.initial_scale > 0 and abs(math.log(self.initial_scale)) < _BOUNDS[self.scale]):
            raise InputError(
                f"ParallelWaveNet expects a positive initial_scale within e^±{_BOUNDS[self.scale]:g}, which "
                f'"{self.scale}" can reach, got {self.initial_scale}'
            )


class Moments(NamedTuple):
    """Draws of a student, with the distribution that each sample had given those before it.

    Attributes:
        x: (B, 1, T): waveforms, or if the student is whitened their residuals.
        location: (B, 1, T), float32 or wider.
        log_scale: (B, 1, T), likewise: x_t = location_t + exp(log_scale_t) z_t, z_t of the base.
    """

    x: Tensor
    location: Tensor
    log_scale: Tensor


class ParallelWaveNet(VocoderModel):
    r"""Waveform = noise through inverse autoregressive flows, each a causal WaveNet stack conditioned on the mel.

    .. math::
        z^{(i)}_t = z^{(i-1)}_t\, s_i(z^{(i-1)}_{<t}, c) + \mu_i(z^{(i-1)}_{<t}, c), \qquad x = z^{(n)}

    so all samples of a waveform are made in one pass, together with their density. The density of given data has to be
    solved for, sample by sample; a student is not trained by it but by a teacher: :mod:`waveflow.distillation`.

    Constructed with the fields of :class:`ParallelWaveNetConfig` as keywords, by ``from_preset(name)``, or by
    :meth:`from_teacher`:

    - ``clarinet``: six Gaussian flows of 10 layers, 64 channels.
    - ``parallel-wavenet``: four logistic flows of 10, 10, 10 and 30 layers, 64 channels; unlike the paper's, their
      layers have skip connections.
    - ``small``: four flows of 6 layers, 32 channels, whitened.
    - ``tiny``: three of them with 24 channels, for runs of minutes on a CPU.

    The last flow alone begins with the initial scale, so that the networks of all see noise of scale 1.

    Example:
        >>> model = ParallelWaveNet.from_preset("tiny")
        >>> model.vocode(torch.full((1, 80, 4), -4.5)).shape
        torch.Size([1, 1024])
    """

    Config = ParallelWaveNetConfig
    PRESETS: ClassVar = {
        "clarinet": {},
        "parallel-wavenet": {"flows": (10, 10, 10, 30), "base": "logistic"},
        "small": {
            "flows": (6,) * 4,
            "cycle": 6,
            "channels": 32,
            "upsampler": "linear",
            "context_channels": 48,
            "initial_scale": 1.0,
            **WHITENED,
        },
        "tiny": {
            "flows": (6,) * 3,
            "cycle": 6,
            "channels": 24,
            "upsampler": "linear",
            "context_channels": 48,
            "initial_scale": 1.0,
            **WHITENED,
        },
    }
    config: ParallelWaveNetConfig
    group = 1

    def build(self) -> None:
        c = self.config
        if c.upsampler == "transposed":
            encoder = SpectrogramUpsampler(c.mel.n_mels, c.mel.hop_length)
        else:
            encoder = LinearUpsampler(c.mel.n_mels, c.context_channels, c.mel.hop_length, 1, c.mel.padding == "center")
        flows = []
        for layers in c.flows:
            univariate = Affine(c.scale)
            stack = WaveNetStack(
                1, univariate.params, c.channels, layers, c.kernel_size, encoder.out_channels, c.cycle, causal=True
            )
            flows.append(Inverse(Autoregressive(stack, univariate, _Compiled())))
        log_scale, bound = math.log(c.initial_scale), _BOUNDS[c.scale]
        raw = log_scale if math.isinf(bound) else bound * math.atanh(log_scale / bound)
        nn.init.constant_(flows[-1].bijector.conditioner.output.bias[1:], raw)
        self.flow = self.make_flow(Conditioned(encoder, Chain(reversed(flows))), _base(c.base))
        if c.frozen_encoder:
            encoder.requires_grad_(False)
            if self.whitening is not None:
                self.whitening.requires_grad_(False)

    @classmethod
    def from_teacher(cls, teacher: VocoderModel, preset: str | None = None, **fields: Any) -> Self:
        """A fresh student of a teacher: with its mel, its whitening and its upsampler, copied and frozen.

        Args:
            teacher: a :class:`~waveflow.models.WaveNet` with a continuous head, of one voice.
            preset: of the student; None for the defaults.
            fields: to be replaced.

        Raises:
            InputError: for a teacher without an upsampler that a student could have, or fields that are the teacher's
                to say and differ from its own.
        """
        theirs = teacher.config
        kind = type(teacher).__name__
        if getattr(theirs, "speakers", 0):
            raise InputError(
                f"ParallelWaveNet expects a teacher of one voice, got a {kind} of {theirs.speakers} speakers"
            )
        if getattr(theirs, "upsampler", None) not in _CHOICES["upsampler"] or not hasattr(teacher, "stack"):
            raise InputError(
                "ParallelWaveNet expects a WaveNet with an upsampler of mels as teacher, "
                f"got a {kind} with upsampler {getattr(theirs, 'upsampler', None)!r}"
            )
        copied = {name: getattr(theirs, name) for name in _OF_THE_TEACHER}
        for name in sorted(copied.keys() & fields.keys()):
            if fields[name] != copied[name]:
                raise InputError(f"the student's {name} is that of its teacher, {copied[name]!r}, got {fields[name]!r}")
        if preset is not None and preset not in cls.PRESETS:
            raise InputError(f"{cls.__name__} has no preset {preset!r}, expected one of {', '.join(cls.PRESETS)}")
        begin = {"initial_scale": 1.0 if theirs.whiten else 0.05}
        fields = {**cls.PRESETS.get(preset, {}), **begin, **fields, **copied, "frozen_encoder": True}
        student = cls(**fields)
        student.encoder.load_state_dict(teacher.encoder.state_dict())
        if student.whitening is not None:
            student.whitening.load_state_dict(teacher.whitening.state_dict())
        return student

    @property
    def encoder(self) -> SpectrogramUpsampler | LinearUpsampler:
        """The upsampler of mels."""
        return self.layers.encoder

    @property
    def reach(self) -> tuple[int, int]:
        """Frames before and after a hop on which its samples (its residual, if whitened) depend, from the layers."""
        frames = -(-sum(flow.conditioner.reach for flow in self.flows()) // self.config.mel.hop_length)
        before, after = self.encoder.reach
        return frames + before, after

    def flows(self) -> Iterator[Autoregressive]:
        """The autoregressive maps, each from noise to what the next one takes, in this order."""
        return (flow.bijector for flow in reversed(self.layers.bijector))

    def log_prob(self, waveform: Tensor, mel: Tensor) -> Tensor:
        """Log-density of waveforms on [-1, 1] given their mels, solved for sample by sample and flow by flow.

        It costs what it costs to sample from a WaveNet as many times as there are flows; a warning says so. The density
        of the model's own draws comes for free: ``flow.sample_with_log_prob``.

        Args, result and errors: as of :meth:`VocoderModel.log_prob`.
        """
        logger.warning(
            "%s.log_prob solves for %d samples one after the other, in each of %d flows: as slow as a WaveNet draws",
            type(self).__name__,
            waveform.shape[-1],
            len(self.config.flows),
        )
        return super().log_prob(waveform, mel)

    def sample_with_moments(self, z: Tensor, context: Context) -> Moments:
        r"""Draws from noise, with the conditional distribution of each of their samples in closed form.

        .. math::
            \mu_{tot} \leftarrow \mu_{tot} e^{s_i} + \mu_i, \qquad s_{tot} \leftarrow s_{tot} + s_i; \qquad
            p(x_t \mid z_{<t}) = \pi\big((x_t - \mu_{tot,t}) / e^{s_{tot,t}}\big) / e^{s_{tot,t}}

        (ClariNet: arXiv:1807.07281, eq. 5.) Since z_t and x_t tell each other given what is before them, this is also
        p(x_t | x_<t). One parallel pass, differentiable.

        Args:
            z: (B, 1, T), of the base.
            context: mels (B, n_mels, frames), frames = T / hop_length.
        """
        encoding = self.encoder(context)
        x = z.to(log_det_dtype(z))
        location, log_scale = torch.zeros_like(x), torch.zeros_like(x)
        for flow in self.flows():
            shift, raw = flow.conditioner(x.to(z.dtype), encoding).to(x.dtype).unbind(1)
            step = LOG_SCALES[self.config.scale](raw)
            location = location * step.exp() + shift
            log_scale = log_scale + step
            x = x * step.exp() + shift
        return Moments(x.to(z.dtype), location, log_scale)

    def _decoder(self, z: Tensor, context: Context) -> Callable[[int, int], Tensor]:
        # Over a long stretch, what one layer hands to the next falls out of a processor's caches. Blocks stay, and each
        # layer remembers what it has to.
        if z.device.type != "cpu":
            return super()._decoder(z, context)
        streams = [(flow.univariate, flow.conditioner.stream(len(z))) for flow in self.flows()]
        compiled = streams[0][1].compiled
        values, mask = context if isinstance(context, Ragged) else (context, None)
        hop, (before, after) = self.config.mel.hop_length, self.encoder.reach
        step = max(1, _BLOCK // (self.config.channels * hop))

        def block(start: int, stop: int) -> Tensor:
            low, high = max(0, start - before), min(values.shape[-1], stop + after)
            part = values[..., low:high]
            part = part if mask is None else Ragged(part, mask[..., low:high])
            now = slice((start - low) * hop, (stop - low) * hop)
            if compiled and isinstance(self.encoder, LinearUpsampler):
                encoding = self.encoder.knots(*part if mask is not None else (part,)).between(now.start, now.stop)
            else:
                encoding = self.encoder(part)
                encoding = encoding.values if isinstance(encoding, Ragged) else encoding
                encoding = to_channels_last(encoding[..., now]).squeeze(2)
            x = z[..., start * hop : stop * hop]
            for univariate, stream in streams:
                x, _ = univariate(x, stream.push(x, encoding))
            return x

        def decode(start: int, stop: int) -> Tensor:
            with one_torch_thread() if compiled else nullcontext():
                return torch.cat([block(i, min(i + step, stop)) for i in range(start, stop, step)], 2)

        return decode

    def for_inference(self, dtype: torch.dtype = torch.float32) -> Self:
        """A frozen copy that vocodes faster: weight norm folded, constants multiplied out.

        Args:
            dtype: of the networks. Everything else stays in float32: affine maps and log-dets.

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
        for flow in twin.flows():
            flow.conditioner = flow.conditioner.folded(dtype)
        return twin.requires_grad_(False).eval()


class _Compiled:
    # For the density of given data. Numba takes half a second to import, and a student is mostly made to draw.
    def __call__(self, conditioner: nn.Module, univariate: Univariate, z: Tensor, context: Context) -> Solution:
        from waveflow.models.wavenet_kernel import CompiledSolver

        return CompiledSolver()(conditioner, univariate, z, context)


def _base(name: str) -> Base:
    return StandardNormal() if name == "gaussian" else StandardLogistic()
