"""Triangular mel filters, in float64."""

import numpy as np

from waveflow.audio.mel_config import MelConfig, MelScale


def mel_filterbank(config: MelConfig) -> np.ndarray:
    """Weights of every frequency bin in every mel band.

    Triangles whose corners are evenly spaced on the mel scale; with ``norm="slaney"`` each is divided by half its
    width in Hz (Slaney, 1998: Auditory Toolbox), otherwise its peak is 1.

    Returns:
        (n_mels, n_fft // 2 + 1), float64.
    """
    limits = _hz_to_mel(np.array([config.f_min, config.f_max]), config.mel_scale)
    corners = _mel_to_hz(np.linspace(*limits, config.n_mels + 2), config.mel_scale)
    bins = np.linspace(0, config.sample_rate / 2, config.n_fft // 2 + 1)
    lower, centre, upper = (corners[i : i + config.n_mels, None] for i in range(3))
    rising, falling = (bins - lower) / (centre - lower), (upper - bins) / (upper - centre)
    filters = np.maximum(0, np.minimum(rising, falling))
    return filters * 2 / (upper - lower) if config.norm == "slaney" else filters


def band_centres(config: MelConfig) -> np.ndarray:
    """Peak frequency of every band in Hz, (n_mels,) float64."""
    limits = _hz_to_mel(np.array([config.f_min, config.f_max]), config.mel_scale)
    return _mel_to_hz(np.linspace(*limits, config.n_mels + 2), config.mel_scale)[1:-1]


# Slaney's scale: 3 mel in 200 Hz up to 1 kHz (mel 15), from there 27 mel for a factor of 6.4.
_HZ_PER_MEL, _BREAK_HZ, _BREAK_MEL, _LOG_STEP = 200 / 3, 1000.0, 15.0, np.log(6.4) / 27


def _hz_to_mel(hz: np.ndarray, scale: MelScale) -> np.ndarray:
    if scale == "htk":
        return 2595 * np.log10(1 + hz / 700)
    above = _BREAK_MEL + np.log(np.maximum(hz, _BREAK_HZ) / _BREAK_HZ) / _LOG_STEP
    return np.where(hz < _BREAK_HZ, hz / _HZ_PER_MEL, above)


def _mel_to_hz(mel: np.ndarray, scale: MelScale) -> np.ndarray:
    if scale == "htk":
        return 700 * (10 ** (mel / 2595) - 1)
    above = _BREAK_HZ * np.exp(_LOG_STEP * (np.maximum(mel, _BREAK_MEL) - _BREAK_MEL))
    return np.where(mel < _BREAK_MEL, mel * _HZ_PER_MEL, above)
