"""Bias subtraction: take away the tones a vocoder makes of silence."""

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn

from waveflow.errors import InputError


class Denoiser(nn.Module):
    """Subtract a vocoder's own spectrum from what it made, as the reference WaveGlow does.

    The magnitude of what the vocoder makes of an all-zero mel at temperature 0 is the bias; ``strength`` times the bias
    is taken from the magnitude of every frame, not below 0, and the phase is kept. It removes the tones at multiples of
    an eighth of the sample rate that squeezing by 8 leaves. 0.1 is where to start, 0.01 is enough for a well trained
    model.

    Args:
        bias: magnitudes (n_fft // 2 + 1,), not negative.
        n_fft: samples of a frame and of its periodic Hann window.
        hop_length: samples from one frame to the next.

    Shape:
        ``(B, T)`` to ``(B, T)``; T > n_fft / 2. Float32 inside for narrower dtypes, which are given back.

    Raises:
        InputError: for a negative strength, or a waveform of wrong shape or too short.
    """

    bias: Tensor
    window: Tensor

    def __init__(self, bias: Tensor, n_fft: int = 1024, hop_length: int = 256):
        super().__init__()
        if bias.shape != (n_fft // 2 + 1,) or not bias.isfinite().all() or (bias < 0).any():
            raise InputError(f"Denoiser expects finite magnitudes ({n_fft // 2 + 1},) as bias, got {tuple(bias.shape)}")
        self.n_fft = n_fft
        self.hop_length = hop_length
        self.register_buffer("bias", bias.detach().clone())
        self.register_buffer("window", torch.hann_window(n_fft, dtype=bias.dtype, device=bias.device), persistent=False)

    @classmethod
    def from_waveform(cls, waveform: Tensor, n_fft: int = 1024, hop_length: int = 256) -> Self:
        """The bias is the first frame of what a vocoder made of nothing.

        Args:
            waveform: (T,) or (1, T), T > n_fft / 2.
            n_fft: samples of a frame.
            hop_length: samples from one frame to the next.
        """
        waveform = waveform.detach()
        batch = waveform[None] if waveform.ndim == 1 else waveform
        if batch.ndim != 2 or batch.shape[0] != 1:
            raise InputError(f"Denoiser expects the bias as a waveform (T,) or (1, T), got {tuple(waveform.shape)}")
        batch = batch.to(torch.promote_types(batch.dtype, torch.float32))
        _check(batch, n_fft)
        window = torch.hann_window(n_fft, dtype=batch.dtype, device=batch.device)
        return cls(_stft(batch, window, hop_length)[0, :, 0].abs(), n_fft, hop_length)

    @classmethod
    def from_vocoder(
        cls,
        vocode: Callable[[Tensor], Tensor],
        n_mels: int = 80,
        frames: int = 88,
        n_fft: int = 1024,
        hop_length: int = 256,
        device: torch.device | str | None = None,
    ) -> Self:
        """The bias of a vocoder.

        The mel is literally zeros, as in the reference: zeros are not the mel of silence, which is log(1e-5).

        Args:
            vocode: takes a mel (1, n_mels, frames) and gives a waveform (1, T), at temperature 0; for instance
                ``lambda mel: model.vocode(mel, temperature=0.0)``.
            n_mels: bands of that mel.
            frames: frames of that mel.
            n_fft: samples of a frame of the denoiser.
            hop_length: samples from one frame of the denoiser to the next.
            device: where the mel is made.
        """
        with torch.no_grad():
            return cls.from_waveform(vocode(torch.zeros(1, n_mels, frames, device=device)), n_fft, hop_length)

    def forward(self, waveform: Tensor, strength: float = 0.1) -> Tensor:
        if not strength >= 0:
            raise InputError(f"Denoiser expects a strength of 0 or more, got {strength}")
        _check(waveform, self.n_fft)
        if strength == 0:
            return waveform
        with torch.autocast(waveform.device.type, enabled=False):
            spectrum = _stft(waveform.to(self.bias.dtype), self.window, self.hop_length)
            magnitude = spectrum.abs()
            kept = (magnitude - strength * self.bias[:, None]).clamp_min(0)
            tiny = torch.finfo(magnitude.dtype).tiny  # where nothing is, nothing remains
            clean = torch.istft(
                spectrum * (kept / magnitude.clamp_min(tiny)),
                self.n_fft,
                self.hop_length,
                window=self.window,
                length=waveform.shape[1],
            )
        return clean.to(waveform.dtype)

    def _apply(self, fn, recurse=True):
        exact = self.bias
        super()._apply(fn, recurse)
        # A model cast to bf16 with its denoiser inside keeps the STFT in float32.
        dtype = torch.promote_types(self.bias.dtype, torch.float32)
        self.bias = exact.to(self.bias.device, dtype)
        self.window = torch.hann_window(self.n_fft, dtype=dtype, device=self.bias.device)
        return self


def _stft(waveform: Tensor, window: Tensor, hop_length: int) -> Tensor:
    return torch.stft(waveform, len(window), hop_length, window=window, return_complex=True)


def _check(waveform: Tensor, n_fft: int) -> None:
    if waveform.ndim != 2 or not waveform.is_floating_point():
        raise InputError(f"Denoiser expects waveforms (B, T) of floats, got {waveform.dtype} {tuple(waveform.shape)}")
    if waveform.shape[1] <= n_fft // 2:
        raise InputError(f"Denoiser expects more than {n_fft // 2} samples, got {waveform.shape[1]}")
