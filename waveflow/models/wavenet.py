"""WaveNet: an autoregressive vocoder, sample by sample (van den Oord et al., 2016; arXiv:1609.03499)."""

import copy
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from waveflow.audio import Denoiser
from waveflow.audio.quantise import EvenSteps, MuLaw, Quantiser
from waveflow.bijectors import (
    Autoregressive,
    Chain,
    Conditioned,
    LinearPrediction,
    MixtureOfLogistics,
    Standardise,
    Univariate,
)
from waveflow.bijectors.univariate import LOG_SCALE_FLOOR
from waveflow.context import Context, Ragged
from waveflow.distributions import (
    AutoregressiveDistribution,
    Categorical,
    DiscretisedMixtureOfLogistics,
    Head,
    StandardLogistic,
    StandardNormal,
)
from waveflow.errors import InputError
from waveflow.models.vocoder_model import WHITENED, VocoderConfig, VocoderModel
from waveflow.models.wavenet_sampling import FrameContext, Task, find_sampler
from waveflow.networks import LinearUpsampler, SpectrogramUpsampler, WaveNetStack
from waveflow.networks.encoded import Encoded
from waveflow.networks.wavenet_causal import FoldedCausalStack

logger = logging.getLogger("waveflow")

_CHOICES = {"head": ("gaussian", "logistics", "mol", "softmax"), "upsampler": ("transposed", "linear", "none")}
_FRAMES = 8  # generated between two looks at the progress
_LOOKED_AT = 32  # frames of a result on which the log scales are checked
_TOO_MANY = 0.1  # share of log scales at their floor that is warned of


@dataclass(frozen=True, kw_only=True)
class WaveNetConfig(VocoderConfig):
    """What a WaveNet is made of, besides what every vocoder has.

    Args:
        layers: dilated layers.
        cycle: layers after which their dilation begins again at 1; 0 for never.
        channels: width of the layers, of half their gates and of the skip sum.
        kernel_size: taps of the dilated convolutions.
        first_kernel: taps of the first convolution.
        scaled: scale sums of layers to keep their variance.
        head: distribution of a sample given those before. ``"gaussian"`` (ClariNet: arXiv:1807.07281);
            ``"logistics"``, a continuous mixture (Parallel WaveNet: arXiv:1711.10433); ``"mol"``, a mixture of
            logistics over 65,536 values; ``"softmax"``, a logit for each of 256 values of the mu-law.
        components: of the mixtures.
        upsampler: of mels. ``"transposed"``: two small transposed convolutions (ClariNet, WaveFlow). ``"linear"``: a
            convolution over frames, interpolated. ``"none"``: the mel tells nothing but the length.
        context_channels: channels of the linear upsampler, and of speakers without upsampler.
        speakers: number of voices; 0 where there is but one.
    """

    layers: int = 20
    cycle: int = 10
    channels: int = 128
    kernel_size: int = 2
    first_kernel: int = 32
    scaled: bool = False
    head: Literal["gaussian", "logistics", "mol", "softmax"] = "gaussian"
    components: int = 10
    upsampler: Literal["transposed", "linear", "none"] = "transposed"
    context_channels: int = 80
    speakers: int = 0

    def __post_init__(self):
        super().__post_init__()
        self._require_positive("layers", "channels", "kernel_size", "first_kernel", "components", "context_channels")
        if self.cycle < 0 or self.speakers < 0:
            raise InputError(
                f"WaveNet expects a cycle and speakers of at least 0, got {self.cycle} and {self.speakers}"
            )
        if (self.cycle or self.layers) > 30:
            raise InputError(f"WaveNet expects a cycle of at most 30 layers, got {self.cycle or self.layers}")
        for name, choices in _CHOICES.items():
            self._require_choice(name, choices)
        if self.whiten and self.head in ("mol", "softmax"):
            raise InputError(
                f'WaveNet whitens for the heads "gaussian" and "logistics" only: a residual has no fixed values that '
                f'"{self.head}" could choose from'
            )


class WaveNet(VocoderModel):
    """Each sample is drawn given all before it, by a causal stack of dilated convolutions conditioned on the mel.

    Constructed with the fields of :class:`WaveNetConfig` as keywords, or by ``from_preset(name)``:

    - ``gaussian``: 2 cycles of 10 layers, 128 channels: ClariNet's teacher.
    - ``mol``: 4 cycles of 6 layers with 3 taps, 10 logistics over 65,536 values.
    - ``softmax``: 3 cycles of 10 layers of 64 channels, 256 values of the mu-law.
    - ``small``: Gaussian, 3 cycles of 10 layers of 64 channels.
    - ``tiny``: Gaussian, whitened, trains on a CPU in minutes.

    With a continuous head the model is a flow: ``flow`` is an ``Autoregressive`` map of the stack, between waveforms
    (B, 1, T) and noise of the same shape. With a discrete one it has instead ``distribution``, an
    :class:`~waveflow.distributions.AutoregressiveDistribution` of whole numbers (B, 1, T), and ``quantiser``, which
    turns waveforms into them.

    Example:
        >>> model = WaveNet.from_preset("tiny", layers=4)
        >>> mel = torch.full((1, 80, 2), -4.5)
        >>> model.vocode(mel).shape, model.log_prob(torch.zeros(1, 512), mel).shape
        (torch.Size([1, 512]), torch.Size([1]))
    """

    Config = WaveNetConfig
    PRESETS: ClassVar = {
        "gaussian": {},
        "mol": {"layers": 24, "cycle": 6, "kernel_size": 3, "first_kernel": 1, "scaled": True, "head": "mol"},
        "softmax": {"layers": 30, "channels": 64, "first_kernel": 1, "head": "softmax"},
        "small": {"layers": 30, "channels": 64},
        "tiny": {
            "layers": 12,
            "cycle": 6,
            "channels": 48,
            "upsampler": "linear",
            "context_channels": 48,
            **WHITENED,
        },
    }
    config: WaveNetConfig
    group = 1
    exact = True  # with a discrete head too, of the waveform as it is given: a density that is even within each cell

    def build(self) -> None:
        c = self.config
        encoder = self._make_encoder()
        self.quantiser, self._head = self._make_head()
        stack = WaveNetStack(
            1,
            self._head.params,
            c.channels,
            c.layers,
            c.kernel_size,
            0 if encoder is None else encoder.out_channels,
            c.cycle,
            causal=True,
            first_kernel=c.first_kernel,
            post=True,
            scaled=c.scaled,
        )
        if isinstance(self._head, Head):
            conditioner = stack if encoder is None else Encoded(encoder, stack)
            self.distribution = AutoregressiveDistribution(conditioner, self._head, self._event_shape)
            return
        layers = Autoregressive(stack, self._head)
        layers = layers if encoder is None else Conditioned(encoder, layers)
        base = StandardNormal() if c.head == "gaussian" else StandardLogistic()
        self.flow = self.make_flow(layers, base)
        if c.whiten and c.speakers:
            self.flow.bijector = Chain([Conditioned(_MelAlone(c.mel.n_mels), self.flow.bijector[0]), layers])

    def _make_encoder(self) -> nn.Module | None:
        c = self.config
        n_mels, hop = c.mel.n_mels, c.mel.hop_length
        upsampler = None
        if c.upsampler == "transposed":
            upsampler = SpectrogramUpsampler(n_mels, hop)
        elif c.upsampler == "linear":
            upsampler = LinearUpsampler(n_mels, c.context_channels, hop, 1, c.mel.padding == "center")
        return _WithSpeaker(upsampler, n_mels, c.speakers, c.context_channels, hop) if c.speakers else upsampler

    def _make_head(self) -> tuple[Quantiser | None, Univariate | Head]:
        c = self.config
        if c.head == "gaussian":
            return None, Standardise("floored")
        if c.head == "logistics":
            return None, MixtureOfLogistics(c.components)
        if c.head == "mol":
            return EvenSteps(65536), DiscretisedMixtureOfLogistics(c.components, 65536)
        return MuLaw(256), Categorical(256)

    @property
    def stack(self) -> WaveNetStack | FoldedCausalStack:
        """The network."""
        part = self._conditioned
        part = getattr(part, "bijector", part) if self.quantiser is None else getattr(part, "network", part)
        return part.conditioner if self.quantiser is None else part

    @property
    def encoder(self) -> nn.Module | None:
        """What takes the mel, and the speaker, to the sample rate; None where the network has no context."""
        return getattr(self._conditioned, "encoder", None)

    @property
    def whitening(self) -> LinearPrediction | None:
        """The linear prediction in front of the network, None where there is none."""
        if not self.config.whiten:
            return None
        first = self.flow.bijector[0]
        return first.bijector if self.config.speakers else first

    @property
    def reach(self) -> tuple[int, int]:
        """Frames before and after a hop on which its samples (its residual, if whitened) depend, from the layers."""
        frames = -(-self.stack.reach // self.config.mel.hop_length)
        before, after = (0, 0) if self.encoder is None else self.encoder.reach
        return frames + before, after

    def forward(self, waveform: Tensor, mel: Tensor, speaker: Tensor | Sequence[int] | None = None) -> Tensor:
        return self.log_prob(waveform, mel, speaker)

    def log_prob(self, waveform: Tensor, mel: Tensor, speaker: Tensor | Sequence[int] | None = None) -> Tensor:
        """Log-density of waveforms on [-1, 1] given their mels.

        With a discrete head the waveform is quantised, and the density is that of its cells: their probability over
        their width.

        Args:
            waveform: (B, T).
            mel: (B, n_mels, frames), frames >= T / hop_length; a surplus is ignored.
            speaker: (B,) whole numbers 0 ... ``speakers`` - 1; None where there is but one.

        Returns:
            (B,) nats.

        Raises:
            InputError: for a waveform or mel of another shape, or other speakers than there are.
        """
        context = self._with_speaker(self._mel_of(waveform, mel), speaker)
        if self.quantiser is None:
            return self.flow.log_prob(waveform[:, None], context)
        codes = self.quantiser.encode(waveform)[:, None]
        log_prob = self._head.log_prob(codes, self._answers(waveform, context))
        return (log_prob - self.quantiser.log_width(codes.to(log_prob.dtype))).flatten(1).sum(1)

    @torch.no_grad()
    def floor_share(self, waveform: Tensor, mel: Tensor, speaker: Tensor | Sequence[int] | None = None) -> float:
        """The share of samples whose log scale the network puts at its floor, of a mixture that of the likeliest.

        Where it is large, the likelihood says little: the network would have it grow without end, on digital silence
        for instance. 0 for ``softmax``, which has no scale.

        Args:
            waveform: (B, T).
            mel: (B, n_mels, frames), frames >= T / hop_length.
            speaker: as of :meth:`log_prob`.
        """
        context = self._with_speaker(self._mel_of(waveform, mel), speaker)
        if self.config.head == "softmax":
            return 0.0
        params = self._answers(waveform, context)
        if self.config.head == "gaussian":
            at_floor = params[:, 1] <= LOG_SCALE_FLOOR
        else:
            k = self.config.components
            likeliest = params[:, :k].argmax(1, keepdim=True)
            raw = params[:, 2 * k :].gather(1, likeliest)
            bound = LOG_SCALE_FLOOR + math.log(k) if self.config.head == "logistics" else _LOWEST_RAW
            at_floor = raw <= bound
        return at_floor.float().mean().item()

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
        method: str = "auto",
        progress: bool = False,
        partial: bool = False,
        speaker: Tensor | Sequence[int] | None = None,
        match: int | None = None,
    ) -> Tensor:
        """Turn mels into waveforms.

        Args:
            mel: (B, n_mels, frames) as ``mel_config`` says.
            temperature: of the noise, which it multiplies; with a discrete head see
                :class:`~waveflow.distributions.Head`. None for the checkpoint's default.
            z: the noise (B, 1, frames * hop_length) itself, in place of a draw: normal, logistic for ``logistics``,
                uniform on (0, 1) for ``mol`` and ``softmax``.
            lengths: frames of each mel (B,), where a batch is padded; each item comes out as if vocoded alone with the
                beginning of its ``z``, and is zero behind its end.
            denoise: strength of the bias subtraction (:class:`~waveflow.audio.Denoiser`).
            generator: of the draw.
            chunk: frames that are generated between two looks at the progress; the result is the same.
            method: all give the same samples for the same noise, to rounding. ``"incremental"``: plain PyTorch.
                ``"kernel"``: compiled for CPUs. ``"graph"``: CUDA graphs. ``"jacobi"``: blocks of samples at once.
                ``"full"``: the whole network for each sample, for comparison. ``"auto"``: graph on a CUDA device,
                kernel in float32 on a CPU, else incremental.
            progress: show a bar.
            partial: on Ctrl-C return the frames made so far, if there are any, instead of raising.
            speaker: (B,) whole numbers 0 ... ``speakers`` - 1; None where there is but one.
            match: rounds of scaling the spectrum towards the mel (:class:`~waveflow.audio.MelMatcher`), before any bias
                subtraction; waveforms shorter than a frame stay as they are. 0 for none, None for the checkpoint's own.

        Returns:
            (B, frames * hop_length), on the scale of [-1, 1] (not clipped); shorter where ``partial`` says so.

        Raises:
            InputError: for a mel, latent, temperature, chunk, lengths, rounds or speakers that do not fit, or a method
                that is unknown or cannot be had where the model is.
            FloatingPointError: if the result is not finite.
        """
        waveform = self._generate(
            mel, temperature, z, lengths, denoise, generator, chunk, method, progress, partial, speaker, match
        )
        self._warn_of_floor(waveform, mel, lengths, speaker)
        return waveform

    def draw_latent(self, frames: int, batch: int, temperature: float, generator: torch.Generator | None) -> Tensor:
        """Noise (B, 1, frames * hop_length) for ``vocode``."""
        if self.quantiser is None:
            return super().draw_latent(frames, batch, temperature, generator)
        like = self._like
        shape = (batch, *self.latent_shape(frames))
        u = torch.rand(shape, generator=generator, dtype=like.dtype, device=like.device)
        # Never 0, which would give values of no probability; one u for all where nothing is to be random.
        return u.clamp_min(torch.finfo(u.dtype).eps / 4) if temperature > 0 else torch.full_like(u, 0.5)

    def denoiser(self, speaker: int | None = None) -> Denoiser:
        """A denoiser with the bias of this model, for a speaker where it has several."""
        chosen = (speaker or 0,) if self.config.speakers else None

        def vocode(mel: Tensor) -> Tensor:
            return self._generate(mel, 0.0, speaker=None if chosen is None else chosen * len(mel), match=0)

        return Denoiser.from_vocoder(vocode, self.config.mel.n_mels, device=self._like.device)

    def for_inference(self, dtype: torch.dtype = torch.float32, compile: bool = False) -> Self:
        """A frozen copy: weight norm folded, constants multiplied out.

        Args:
            dtype: of the network where it runs over whole waveforms, for ``log_prob``. Sampling stays in float32.
            compile: also compile that network by ``torch.compile``; the first call of each length is slow.

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
        folded = twin.stack.folded(dtype)
        part = twin._conditioned
        if twin.quantiser is None:
            getattr(part, "bijector", part).conditioner = folded
        elif isinstance(part, Encoded):
            part.network = folded
        else:
            twin.distribution.conditioner = folded
        if compile:
            folded.compile()
        return twin.requires_grad_(False).eval()

    @property
    def _conditioned(self) -> nn.Module:
        # The map or network with its encoder, if there is one.
        return self.layers if self.quantiser is None else self.distribution.conditioner

    @torch.no_grad()
    def _generate(
        self,
        mel: Tensor,
        temperature: float | None = None,
        z: Tensor | None = None,
        lengths: Tensor | None = None,
        denoise: float = 0.0,
        generator: torch.Generator | None = None,
        chunk: int | None = None,
        method: str = "auto",
        progress: bool = False,
        partial: bool = False,
        speaker: Tensor | Sequence[int] | None = None,
        match: int | None = None,
    ) -> Tensor:
        sampler = find_sampler(method, self._like)
        hop = self.config.mel.hop_length

        def synthesise(z: Tensor, context: Context, temperature: float) -> Tensor:
            told = self._with_speaker(context, speaker)
            frames = chunk or _FRAMES
            encoded = None if self.encoder is None else FrameContext(self.encoder, told, hop, frames)
            task = Task(self.stack, self._head, temperature, encoded, z[:, 0], frames * hop)
            pieces, state, made = [], None, 0
            try:
                with tqdm(total=z.shape[2], unit=" samples", disable=not progress) as bar:
                    for piece in sampler(task):
                        if self.quantiser is not None:
                            piece = self.quantiser.decode(piece)
                        elif self.whitening is not None:
                            piece, state = self.whitening.inverse_part(piece[:, None], context, made // hop, state)
                            piece = piece[:, 0]
                        pieces.append(piece)
                        made += piece.shape[1]
                        bar.update(piece.shape[1])
            except KeyboardInterrupt:
                if not partial or not pieces:
                    raise
                logger.warning("WaveNet.vocode was interrupted after %d of %d frames", made // hop, z.shape[2] // hop)
            waveform = torch.cat(pieces, 1) if pieces else z[:, 0, :0]
            if isinstance(context, Ragged):  # what is generated behind an end may be anything
                inside = context.mask[:, 0].repeat_interleave(hop, 1)[:, : waveform.shape[1]] > 0
                waveform = torch.where(inside, waveform, 0.0)
            return waveform

        return self._vocode(mel, temperature, z, lengths, denoise, generator, chunk, match, synthesise)

    def _warn_of_floor(self, waveform: Tensor, mel: Tensor, lengths: Tensor | None, speaker) -> None:
        frames = min(_LOOKED_AT, waveform.shape[1] // self.config.mel.hop_length)
        if lengths is not None:
            frames = min(frames, int(lengths.min())) if len(lengths) else 0
        if not frames or not len(waveform):
            return
        part = waveform[:, : frames * self.config.mel.hop_length]
        share = self.floor_share(part, mel[..., :frames].to(part), speaker)
        if share > _TOO_MANY:
            logger.warning(
                "WaveNet.vocode: %.0f%% of the log scales at the beginning are at their floor: the network has run "
                "away, or the speech is digital silence",
                100 * share,
            )

    def _answers(self, waveform: Tensor, context: Tensor) -> Tensor:
        """The network's parameters (B, P, 1, T) for a waveform (B, T)."""
        if self.quantiser is not None:
            return self.distribution.as_map()[0](self.quantiser.encode(waveform)[:, None], context)
        x = waveform[:, None]
        if self.whitening is not None:
            x, _ = self.flow.bijector[0](x, context)
        return self.stack(x, None if self.encoder is None else self.encoder(context))

    def _with_speaker(self, mel: Context, speaker: Tensor | Sequence[int] | None) -> Context:
        """The mel with a channel for each speaker below it, 1 for the one who speaks."""
        count = self.config.speakers
        if not count:
            if speaker is not None:
                raise InputError("this WaveNet has one voice and no speakers to choose from: leave speaker out")
            return mel
        values, mask = mel if isinstance(mel, Ragged) else (mel, None)
        ids = None if speaker is None else torch.as_tensor(speaker, device=values.device)
        right = ids is not None and ids.shape == (len(values),) and not ids.is_floating_point()
        if not right or (ids < 0).any() or (ids >= count).any():
            raise InputError(
                f"this WaveNet expects {len(values)} speakers out of 0 ... {count - 1}, "
                f"got {None if ids is None else ids.tolist()}"
            )
        one_hot = F.one_hot(ids.long(), count).to(values.dtype)[:, :, None].expand(-1, -1, values.shape[2])
        values = torch.cat([values, one_hot], 1)
        return values if mask is None else Ragged(values * mask, mask)


_LOWEST_RAW = 8 * math.atanh(-7.5 / 8)  # raw log scale of "mol" that is within 1/2 of the least it can say


class _MelAlone(nn.Module):
    """The mel of a context that tells of the speaker too."""

    def __init__(self, n_mels: int):
        super().__init__()
        self.n_mels = n_mels

    def forward(self, context: Context) -> Context:
        if isinstance(context, Ragged):
            return Ragged(context.values[:, : self.n_mels], context.mask)
        return context[:, : self.n_mels]


class _WithSpeaker(nn.Module):
    """Upsampled mels plus an embedding of the speaker."""

    def __init__(self, upsampler: nn.Module | None, n_mels: int, speakers: int, channels: int, hop_length: int):
        super().__init__()
        self.mel, self.upsampler, self.hop_length = _MelAlone(n_mels), upsampler, hop_length
        self.out_channels = channels if upsampler is None else upsampler.out_channels
        self.reach = (0, 0) if upsampler is None else upsampler.reach
        self.embedding = nn.Linear(speakers, self.out_channels, bias=False)

    def forward(self, context: Context) -> Context:
        values = context.values if isinstance(context, Ragged) else context
        voice = self.embedding(values[:, self.mel.n_mels :, 0])[:, :, None]
        if self.upsampler is None:
            voice = voice.expand(-1, -1, values.shape[2] * self.hop_length)
            if not isinstance(context, Ragged):
                return voice
            mask = context.mask.repeat_interleave(self.hop_length, 2)
            return Ragged(voice * mask, mask)
        mel = self.upsampler(self.mel(context))
        return Ragged((mel.values + voice) * mel.mask, mel.mask) if isinstance(mel, Ragged) else mel + voice
