"""Give a waveform the mel that it was made from."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from waveflow.audio.mel import MelSpectrogram
from waveflow.audio.mel_config import MelConfig
from waveflow.errors import InputError

_LOUDEST_GAIN = 10.0  # of a bin in one round, and its inverse the softest


class MelMatcher(nn.Module):
    r"""Scale the spectrum of what a vocoder made, bin by bin and frame by frame, towards the mel that was asked for.

    A bin's gain is the geometric mean of asked over found in the bands that hear it, weighted by how well they do:

    .. math::
        \log g_{kt} = \sum_b \frac{F_{bk}}{\sum_{b'} F_{b'k}} (\log m_{bt} - \log \hat m_{bt})

    Bins that no band hears, such as those above ``f_max``, stay as they are, and so do all phases. Overlapping frames
    then agree on a waveform by least squares (Griffin & Lim, 1984: eq. 6), whose mel is nearer, but not the one asked
    for; hence rounds. Nothing is learnt: it mends levels, of which a flow that was trained for a short time loses
    some, and takes noise from between the harmonics that a mel resolves. It does so to anything, noise included, so a
    figure of matched copies says less of the vocoder than one without.

    Args:
        config: how the mel is made.

    Shape:
        ``(B, T)`` and ``(B, n_mels, frames)`` to ``(B, T)``; frames as many as those of T samples, or one less.
        Computed in float32, given back in the dtype that came. With ``chunk``, so many frames at a time, each with all
        that its samples depend on: the same result, and of no more than these is the spectrum held.

    Raises:
        InputError: on call, for negative rounds, a chunk below 1, shapes that do not fit, or fewer than
            ``config.min_samples``.

    Example:
        >>> config = MelConfig()
        >>> waveform, mel = 0.1 * torch.randn(1, 2048), torch.full((1, 80, 8), -4.0)
        >>> matched = MelMatcher(config)(waveform, mel, rounds=3)
        >>> before, after = ((MelSpectrogram(config)(x)[..., :8] - mel).abs().mean() for x in (waveform, matched))
        >>> bool(after < before / 2)
        True
    """

    window: Tensor
    weights: Tensor

    def __init__(self, config: MelConfig):
        super().__init__()
        self.config = config
        self.spectrogram = MelSpectrogram(config, check_values=False)
        left = (config.n_fft - config.win_length) // 2
        window = F.pad(torch.hann_window(config.win_length), (left, config.n_fft - config.win_length - left))
        heard = self.spectrogram.filterbank.sum(0)
        self.register_buffer("window", window, persistent=False)
        self.register_buffer(
            "weights", (self.spectrogram.filterbank / torch.where(heard > 0, heard, 1.0)).t(), persistent=False
        )

    @torch.no_grad()
    def forward(self, waveform: Tensor, mel: Tensor, rounds: int = 3, chunk: int | None = None) -> Tensor:
        c = self.config
        if rounds < 0:
            raise InputError(f"MelMatcher expects 0 rounds or more, got {rounds}")
        if chunk is not None and chunk < 1:
            raise InputError(f"MelMatcher expects chunks of at least 1 frame, got {chunk}")
        if waveform.ndim != 2 or not waveform.is_floating_point() or waveform.shape[1] < c.min_samples:
            raise InputError(
                f"MelMatcher expects waveforms (B, {c.min_samples} or more) of floats, got {waveform.dtype} "
                f"{tuple(waveform.shape)}"
            )
        frames = c.frames(waveform.shape[1])
        if mel.ndim != 3 or mel.shape[:2] != (len(waveform), c.n_mels) or mel.shape[2] not in (frames, frames - 1 or 1):
            raise InputError(
                f"MelMatcher expects mels ({len(waveform)}, {c.n_mels}, {frames - 1} or {frames}) for waveforms "
                f"{tuple(waveform.shape)}, got {tuple(mel.shape)}"
            )
        if not (rounds and len(waveform)):  # some FFTs refuse an empty batch
            return waveform
        hop, length, out = c.hop_length, waveform.shape[1], torch.empty_like(waveform)
        hops = max(1, length // hop)
        chunk = min(chunk or hops, hops)
        reach = rounds * -(-c.n_fft // hop)  # a sample depends on those within a frame of it, in each round
        for start in range(0, hops, chunk):
            stop, low, high = start + chunk, max(0, start - reach), start + chunk + reach
            begin, end = low * hop, high * hop if high < hops else length
            part = self._match(waveform[:, begin:end], mel[..., low : high if high < hops else None], rounds)
            kept = slice(start * hop, stop * hop if stop < hops else length)
            out[:, kept] = part[:, kept.start - begin : kept.stop - begin]
        return out

    def _match(self, waveform: Tensor, mel: Tensor, rounds: int) -> Tensor:
        x = waveform.float()
        with torch.autocast(x.device.type, enabled=False):
            for _ in range(rounds):
                x = self._scale(x, self._gains(x, mel.float()))
        return x.to(waveform.dtype)

    def _gains(self, x: Tensor, mel: Tensor) -> Tensor:
        c = self.config
        missing = (mel - self.spectrogram(x)[..., : mel.shape[2]]) * (1 if c.log_base == "e" else math.log(10))
        limit = math.log(_LOUDEST_GAIN)
        gains = (self.weights @ (missing / c.power).clamp(-limit, limit)).exp()
        return F.pad(gains, (0, c.frames(x.shape[1]) - mel.shape[2]), mode="replicate")

    def _scale(self, x: Tensor, gains: Tensor) -> Tensor:
        c = self.config
        padded = F.pad(x[:, None], (c.pad, c.pad), mode="reflect")[:, 0]
        spectrum = torch.stft(padded, c.n_fft, c.hop_length, window=self.window, center=False, return_complex=True)
        frames = torch.fft.irfft(spectrum * gains, c.n_fft, dim=1) * self.window[:, None]
        length = c.n_fft + (gains.shape[2] - 1) * c.hop_length
        weight = self.window.square()[:, None].expand(1, -1, gains.shape[2])
        total, weight = (
            F.fold(part, (1, length), (1, c.n_fft), stride=(1, c.hop_length))[:, 0, 0, c.pad : c.pad + x.shape[1]]
            for part in (frames, weight)
        )
        covered = weight > 1e-3 * self.window.square().sum() / c.hop_length
        scaled = torch.where(covered, total / torch.where(covered, weight, 1.0), x[:, : total.shape[1]])
        return torch.cat([scaled, x[:, total.shape[1] :]], 1)
