"""What a mel tells of the spectral envelope: from log-mel bands back to a smooth power spectrum."""

import math

import numpy as np
import torch
from torch import Tensor, nn

from waveflow.audio.mel_config import MelConfig
from waveflow.audio.mel_filterbank import band_centres, mel_filterbank


class MelEnvelope(nn.Module):
    r"""Log power spectrum on the FFT's bins, from the bands of a mel.

    A band divided by the area of its filter is a mean magnitude; squared and divided by :math:`\sum w^2` of the window,
    about a variance (the square of a mean magnitude is pi / 4 of a mean square: white noise of variance s has the level
    log s - 0.24 at every bin, or log s if the mel is one of powers). Levels are laid on knots and interpolated
    linearly in the logarithm between them: on 0 Hz that of the lowest band, on the centre of each band its own, and on
    further knots up to half the sample rate, as far apart as the last two centres, that of the highest band up to
    f_max and from there the mean power of the top fifth of the bands. (The highest band alone misses many a
    fricative by 30 dB.)

    Args:
        config: how the mel is made.

    Attributes:
        knots: number of knots.

    Shape:
        ``(B, n_mels, frames)`` to ``(B, n_fft // 2 + 1, frames)``, float64.
    """

    def __init__(self, config: MelConfig):
        super().__init__()
        self.config = config
        areas = mel_filterbank(config).sum(1)
        self._filled = np.flatnonzero(areas > 0)  # a band narrower than a bin may hold none
        self._top = -(-config.n_mels // 5)
        self._frequencies = _knot_frequencies(band_centres(config)[self._filled], config.sample_rate / 2)
        self.knots = len(self._frequencies)
        self._log_areas = np.log(areas[self._filled])
        bands, above = len(self._filled), self._frequencies > config.f_max
        self._source = np.where(above, bands + 2, np.minimum(np.arange(self.knots), bands + 1))
        self._place("cpu")

    def forward(self, mel: Tensor, correction: Tensor | None = None) -> Tensor:
        """Log power.

        Args:
            mel: (B, n_mels, frames).
            correction: (B, knots, frames), added to the log power at the knots.
        """
        levels = self.levels(mel)
        return self.interpolation @ (levels if correction is None else levels + correction.double())

    def levels(self, mel: Tensor) -> Tensor:
        """Log power at the knots, (B, knots, frames), float64."""
        c = self.config
        mel = mel.double()[:, self.filled].clamp_min(c.log(c.log_floor))
        natural = mel if c.log_base == "e" else mel * math.log(10)
        bands = (natural - self.log_areas) * (2 / c.power) - math.log(3 / 8 * c.win_length)
        top = bands[:, -self._top :].logsumexp(1, keepdim=True) - math.log(min(self._top, bands.shape[1]))
        levels = torch.cat([bands[:, :1], bands, bands[:, -1:], top], 1)
        return levels[:, self.source]

    def _place(self, device: torch.device | str) -> None:
        bins = np.linspace(0, self.config.sample_rate / 2, self.config.n_fft // 2 + 1)
        hats = [np.interp(bins, self._frequencies, unit) for unit in np.eye(self.knots)]
        for name, values in (
            ("interpolation", np.stack(hats, 1)),
            ("log_areas", self._log_areas[:, None]),
            ("filled", self._filled),
            ("source", self._source),
        ):
            self.register_buffer(name, torch.from_numpy(values).to(device), persistent=False)

    def _apply(self, fn, recurse=True):
        # Made anew: float() of a whole model must not reach it.
        super()._apply(fn, recurse)
        self._place(self.interpolation.device)
        return self


def autocorrelation(log_power: Tensor, lags: int) -> Tensor:
    """The inverse Fourier transform of a power spectrum, at its first lags alone.

    Args:
        log_power: (B, n_fft // 2 + 1, frames).
        lags: how many, from 0 on.

    Returns:
        (B, lags, frames); lag 0 is the variance.
    """
    size = 2 * (log_power.shape[1] - 1)
    like = {"dtype": log_power.dtype, "device": log_power.device}
    angle = torch.outer(torch.arange(lags, **like), torch.arange(size // 2 + 1, **like)) * (2 * math.pi / size)
    twice = torch.full((size // 2 + 1,), 2 / size, **like)  # for negative frequencies
    twice[0] = twice[-1] = 1 / size
    return (angle.cos() * twice) @ log_power.exp()


def _knot_frequencies(centres: np.ndarray, nyquist: float) -> np.ndarray:
    spacing = centres[-1] - centres[-2] if len(centres) > 1 else nyquist / 2
    above = np.arange(centres[-1] + spacing, nyquist - spacing / 2, spacing)
    return np.concatenate([[0.0], centres, above, [nyquist]])
