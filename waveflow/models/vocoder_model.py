"""Vocoders: models of waveforms given their mels, with the face that all of them share."""

import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor

from waveflow.audio import Denoiser, MelConfig, MelMatcher, check_mel
from waveflow.bijectors import Bijector, Chain, LinearPrediction
from waveflow.context import Context, Ragged
from waveflow.distributions import Base, Flow, StandardNormal
from waveflow.errors import InputError
from waveflow.models.pretrained import PretrainedModel
from waveflow.models.shipped import best_vocoder
from waveflow.threads import one_torch_thread

# Order 128 reaches back over a period of most voices. After short trainings temperatures below 1 only lose level.
WHITENED = {"whiten": True, "whiten_order": 128, "whiten_block": 32, "whiten_correction": 64, "temperature": 1.0}


@dataclass(frozen=True, kw_only=True)
class VocoderConfig:
    """What every vocoder has.

    Args:
        whiten: model the residual of a :class:`~waveflow.bijectors.LinearPrediction` instead of the waveform.
        whiten_order: order of that prediction.
        whiten_block: samples for which one of its filters holds; divides the hop length.
        whiten_correction: channels of the network that corrects its envelope; 0 for none.
        temperature: default standard deviation of the latent in synthesis.
        match: default rounds of scaling towards the mel in synthesis, see :class:`~waveflow.audio.MelMatcher`.
        mel: the mel that the model is conditioned on.

    Raises:
        InputError: for values out of range.
    """

    whiten: bool = False
    whiten_order: int = 32
    whiten_block: int = 64
    whiten_correction: int = 0
    temperature: float = 1.0
    match: int = 0
    mel: MelConfig = field(default_factory=MelConfig)

    def __post_init__(self):
        if self.whiten and (self.whiten_block < 1 or self.mel.hop_length % self.whiten_block):
            raise InputError(
                f"{self._model} expects a whiten_block that divides the hop {self.mel.hop_length}, "
                f"got {self.whiten_block}"
            )
        if self.whiten and not (1 <= self.whiten_order <= self.mel.n_fft // 2 and self.whiten_correction >= 0):
            raise InputError(
                f"{self._model} expects a whiten_order of 1 to {self.mel.n_fft // 2}, half the FFT, and a "
                f"whiten_correction of at least 0, got {self.whiten_order} and {self.whiten_correction}"
            )
        if not self.temperature >= 0:
            raise InputError(f"{self._model} expects a temperature of at least 0, got {self.temperature}")
        if self.match < 0:
            raise InputError(f"{self._model} expects match, rounds of scaling, of at least 0, got {self.match}")

    @property
    def _model(self) -> str:
        return type(self).__name__.removesuffix("Config")

    def _require_positive(self, *names: str) -> None:
        for name in names:
            if getattr(self, name) < 1:
                raise InputError(f"{self._model} expects {name} of at least 1, got {getattr(self, name)}")

    def _require_choice(self, name: str, choices: tuple[str, ...]) -> None:
        if getattr(self, name) not in choices:
            expected = " or ".join(f'"{choice}"' for choice in choices)
            raise InputError(f"{self._model} expects {name} {expected}, got {getattr(self, name)!r}")


class VocoderModel(PretrainedModel):
    """A model with a likelihood of waveforms (B, T) given mels, and ``vocode``.

    The layers are in ``flow``, a :class:`~waveflow.distributions.Flow` of waveforms (B, 1, T) given mels. A subclass
    makes it in :meth:`build` by :meth:`make_flow`, and says ``group``, ``reach`` and ``for_inference``.
    """

    config: VocoderConfig
    group: int  # samples that belong together: lengths are multiples of it, and latents are (group, T / group)

    def make_flow(self, layers: Bijector, base: Base | None = None) -> Flow:
        """The flow with these layers, from waveforms (B, 1, T) on, behind the whitening if there is one.

        ``base`` is standard normal unless given.
        """
        c = self.config
        if c.whiten:
            whitening = LinearPrediction(c.mel, c.whiten_order, c.whiten_block, c.whiten_correction)
            layers = Chain([whitening, layers])
        return Flow(base or StandardNormal(), layers, self._event_shape)

    @property
    def mel_config(self) -> MelConfig:
        """The mel that the model is conditioned on."""
        return self.config.mel

    @property
    def reach(self) -> tuple[int, int]:
        """Frames before and after a hop on which its samples (its residual, if whitened) depend, from the layers."""
        raise NotImplementedError

    @property
    def layers(self) -> Bijector:
        """What follows the whitening: all of the flow's bijector where there is none."""
        return self.flow.bijector[1] if self.config.whiten else self.flow.bijector

    @property
    def whitening(self) -> LinearPrediction | None:
        """The linear prediction in front of the layers, None where there is none."""
        return self.flow.bijector[0] if self.config.whiten else None

    def latent_shape(self, frames: int) -> tuple[int, int]:
        """Shape (group, T / group) of one latent for a mel of that many frames."""
        return (self.group, frames * self.config.mel.hop_length // self.group)

    def forward(self, waveform: Tensor, mel: Tensor) -> Tensor:
        return self.log_prob(waveform, mel)

    def log_prob(self, waveform: Tensor, mel: Tensor) -> Tensor:
        """Log-density of waveforms on [-1, 1] given their mels.

        Args:
            waveform: (B, T), T a multiple of ``group``.
            mel: (B, n_mels, frames), frames >= T / hop_length; a surplus is ignored.

        Returns:
            (B,) nats.

        Raises:
            InputError: for a waveform or mel of another shape.
        """
        return self.flow.log_prob(waveform[:, None], self._mel_of(waveform, mel))

    def _mel_of(self, waveform: Tensor, mel: Tensor) -> Tensor:
        """As many frames as the waveform needs, of a mel that fits it."""
        c, name = self.config, type(self).__name__
        wrong = waveform.ndim != 2 or not waveform.is_floating_point()
        if wrong or waveform.shape[1] % self.group or not waveform.shape[1]:
            raise InputError(
                f"{name}.log_prob expects waveforms (B, T) of floats, T divisible by {self.group} and not 0, "
                f"got {waveform.dtype} {tuple(waveform.shape)}"
            )
        frames = -(-waveform.shape[1] // c.mel.hop_length)
        if mel.ndim != 3 or mel.shape[:2] != (len(waveform), c.mel.n_mels) or mel.shape[2] < frames:
            raise InputError(
                f"{name}.log_prob expects mels ({len(waveform)}, {c.mel.n_mels}, {frames} or more) for waveforms "
                f"{tuple(waveform.shape)}, got {tuple(mel.shape)}"
            )
        return mel[..., :frames]

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
        match: int | None = None,
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
                memory that grows with the length by waveform and latent alone (and by what ``denoise`` takes). None:
                all at once.
            match: rounds of scaling the spectrum towards the mel (:class:`~waveflow.audio.MelMatcher`), before any bias
                subtraction; waveforms shorter than a frame stay as they are. 0 for none, None for the checkpoint's own.

        Returns:
            (B, frames * hop_length), on the scale of [-1, 1] (not clipped).

        Raises:
            InputError: for a mel, latent, temperature, chunk, rounds or lengths that do not fit.
            FloatingPointError: if the result is not finite.
        """

        def synthesise(z: Tensor, context: Context, temperature: float) -> Tensor:
            return self._synthesise_chunks(z, context, chunk or mel.shape[2])

        return self._vocode(mel, temperature, z, lengths, denoise, generator, chunk, match, synthesise)

    def draw_latent(self, frames: int, batch: int, temperature: float, generator: torch.Generator | None) -> Tensor:
        """Noise (B, *latent_shape(frames)) for ``vocode``."""
        like = self._like
        shape = (batch, *self.latent_shape(frames))
        return self.flow.base.sample(shape, temperature, generator, dtype=like.dtype, device=like.device)

    def denoiser(self) -> Denoiser:
        """A denoiser with the bias of this model."""
        return Denoiser.from_vocoder(
            lambda mel: self.vocode(mel, temperature=0.0, match=0), self.config.mel.n_mels, device=self._like.device
        )

    @property
    def _like(self) -> Tensor:
        # Where the model is, in the precision that its waveforms have.
        return next(self.parameters())

    def _event_shape(self, context: Context) -> tuple[int, int]:
        values = context.values if isinstance(context, Ragged) else context
        return (1, values.shape[-1] * self.config.mel.hop_length)

    def _synthesise_chunks(self, z: Tensor, context: Context, chunk: int) -> Tensor:
        frames = (context.values if isinstance(context, Ragged) else context).shape[-1]
        decode, pieces, state = self._decoder(z, context), [], None
        for start in range(0, frames, chunk):
            piece = decode(start, min(start + chunk, frames))
            if self.whitening is not None:
                piece, state = self.whitening.inverse_part(piece, context, start, state)
            pieces.append(piece[:, 0])
        return torch.cat(pieces, 1)

    def _decoder(self, z: Tensor, context: Context) -> Callable[[int, int], Tensor]:
        """What the layers make of a latent: a function of ``start`` and ``stop`` in frames, to be called in order.

        This one computes each stretch together with all that it depends on.
        """
        values, mask = context if isinstance(context, Ragged) else (context, None)
        hop = self.config.mel.hop_length
        rate, (before, after) = hop // self.group, self.reach

        def decode(start: int, stop: int) -> Tensor:
            low, high = max(0, start - before), min(values.shape[-1], stop + after)
            part = values[..., low:high]
            part = part if mask is None else Ragged(part, mask[..., low:high])
            with one_torch_thread() if self._shares_threads(z) else nullcontext():
                piece, _ = self.layers.inverse(z[..., low * rate : high * rate], part)
            return piece[..., (start - low) * hop : (stop - low) * hop]

        return decode

    def _shares_threads(self, z: Tensor) -> bool:
        """Whether most of the work is done by threads of our own, not by PyTorch's."""
        return False

    def _vocode(
        self,
        mel: Tensor,
        temperature: float | None,
        z: Tensor | None,
        lengths: Tensor | None,
        denoise: float,
        generator: torch.Generator | None,
        chunk: int | None,
        match: int | None,
        synthesise: Callable[[Tensor, Context, float], Tensor],
    ) -> Tensor:
        # All of ``vocode`` but how waveforms are made of latents.
        self._check(mel, z, temperature, lengths, chunk, match)
        batch, _, frames = mel.shape
        like = self._like
        if generator is not None and generator.device.type != like.device.type:
            raise InputError(
                f"{type(self).__name__}.vocode expects a generator on {like.device.type}, where the model is, "
                f"got one on {generator.device.type}"
            )
        mel = mel.to(like.device, like.dtype)
        temperature = self.config.temperature if temperature is None else temperature
        z = self.draw_latent(frames, batch, temperature, generator) if z is None else z.to(like.device, like.dtype)
        context = mel if lengths is None else Ragged.from_lengths(mel, lengths)
        waveform = synthesise(z, context, temperature)
        if not waveform.isfinite().all():
            name = type(self).__name__
            raise FloatingPointError(f"{name}.vocode gave samples that are not finite: is the model trained?")
        denoiser = self.denoiser() if denoise else None
        rounds = self.config.match if match is None else match
        matcher = MelMatcher(self.config.mel).to(like.device) if rounds else None

        def finish(waveform: Tensor, mel: Tensor) -> Tensor:
            if matcher and waveform.shape[1] >= self.config.mel.min_samples:
                mel = mel[..., : waveform.shape[1] // self.config.mel.hop_length]
                waveform = matcher(waveform, mel, rounds, chunk)
            return denoiser(waveform, denoise) if denoiser else waveform

        if lengths is None:
            return finish(waveform, mel)
        out = torch.zeros_like(waveform)
        for i, frames in enumerate(lengths.tolist()):
            end = frames * self.config.mel.hop_length
            if frames:
                out[i, :end] = finish(waveform[i : i + 1, :end], mel[i : i + 1, :, :frames])[0]
        return out

    def _check(self, mel, z, temperature, lengths, chunk, match) -> None:
        name = type(self).__name__
        check_mel(mel, self.config.mel)
        if mel.ndim != 3:
            raise InputError(
                f"{name}.vocode expects mels (B, {self.config.mel.n_mels}, frames), got {tuple(mel.shape)}"
            )
        batch, _, frames = mel.shape
        if temperature is not None and not temperature >= 0:
            raise InputError(f"{name}.vocode expects a temperature of at least 0, got {temperature}")
        if z is not None:
            expected = (batch, *self.latent_shape(frames))
            if temperature is not None:
                raise InputError(f"{name}.vocode expects either z or a temperature, got both")
            if tuple(z.shape) != expected:
                raise InputError(f"{name}.vocode expects z of shape {expected}, got {tuple(z.shape)}")
        if lengths is not None and (
            lengths.shape != (batch,) or lengths.is_floating_point() or (lengths < 0).any() or (lengths > frames).any()
        ):
            raise InputError(
                f"{name}.vocode expects {batch} whole lengths within 0 ... {frames}, got {lengths.tolist()}"
            )
        if chunk is not None and chunk < 1:
            raise InputError(f"{name}.vocode expects chunks of at least 1 frame, got {chunk}")
        if match is not None and match < 0:
            raise InputError(f"{name}.vocode expects match, rounds of scaling, of at least 0, got {match}")


def load_vocoder(source: str | os.PathLike | None = None, device: torch.device | str = "cpu") -> VocoderModel:
    """Load a trained vocoder, in evaluation mode.

    Args:
        source: a folder, the name of a model that ships with the package, or a Hugging Face hub id; None for the best
            that ships.
        device: where to put it.

    Raises:
        InputError: if there is none, or none that can be used.

    Example::

        waveform = load_vocoder().vocode(mel)  # (B, 80, frames) -> (B, frames * 256)
    """
    return VocoderModel.from_pretrained(best_vocoder() if source is None else source, device)
