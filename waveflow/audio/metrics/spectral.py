"""Distances between spectra: multi-resolution STFT, log mel, mel cepstrum."""

import math

import numpy as np
import torch
from torch import Tensor

from waveflow.audio.mel import MelSpectrogram
from waveflow.audio.mel_config import MelConfig
from waveflow.audio.metrics.alignment import align
from waveflow.errors import InputError

STFT_RESOLUTIONS = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))
"""(n_fft, hop_length, win_length) of Yamamoto, Song & Kim, 2020, used at every sample rate."""


def stft_distance(real: Tensor | np.ndarray, generated: Tensor | np.ndarray) -> float:
    r"""Multi-resolution STFT distance (Yamamoto, Song & Kim, 2020; arXiv:1910.11480; auraloss' defaults).

    .. math::
        \frac{1}{3} \sum_{r=1}^{3} \frac{\| |S_r| - |\hat S_r| \|_F}{\| |S_r| \|_F}
        + \operatorname{mean} \left| \ln |S_r| - \ln |\hat S_r| \right|

    Spectral convergence plus log-magnitude distance, over ``STFT_RESOLUTIONS``, with periodic Hann windows, centred
    frames with reflected ends, and magnitudes not below 1e-4.

    Args:
        real: (T,), T > 1024.
        generated: (T,).

    Returns:
        0 for equal signals; without unit.
    """
    pair = torch.from_numpy(np.stack(align(real, generated)))
    longest = max(n_fft for n_fft, _, _ in STFT_RESOLUTIONS)
    if pair.shape[1] <= longest // 2:
        raise InputError(f"the STFT distance needs more than {longest // 2} samples, got {pair.shape[1]}")
    distances = []
    for n_fft, hop_length, win_length in STFT_RESOLUTIONS:
        window = torch.hann_window(win_length, dtype=pair.dtype)
        spectra = torch.stft(pair, n_fft, hop_length, win_length, window, return_complex=True)
        ours, theirs = spectra.abs().clamp_min(1e-4)
        convergence = torch.linalg.norm(ours - theirs) / torch.linalg.norm(ours)
        distances.append(convergence + (ours.log() - theirs.log()).abs().mean())
    return float(sum(distances) / len(distances))


def log_mel_l1(real: Tensor | np.ndarray, generated: Tensor | np.ndarray, sample_rate: int) -> float:
    """Mean absolute difference of log mels, in nats.

    The mel is that of preset ``tacotron2`` at the given rate (80 bands up to 8 kHz or half the rate), whatever the
    vocoder was fed, so that vocoders can be compared.
    """
    ours, theirs = _log_mels(real, generated, sample_rate)
    return float((ours - theirs).abs().mean())


def mel_cepstral_distortion(real: Tensor | np.ndarray, generated: Tensor | np.ndarray, sample_rate: int) -> float:
    r"""Mel-cepstral distortion in dB (Kubichek, 1993), frame by frame without time warping: copies are aligned.

    ``cepstral_distance`` of the log mels that ``log_mel_l1`` compares.
    """
    ours, theirs = _log_mels(real, generated, sample_rate)
    return cepstral_distance(ours.numpy(), theirs.numpy())


def cepstral_distance(log_mel: np.ndarray, other: np.ndarray, coefficients: int = 13) -> float:
    r"""Distance of two log mels by their low cepstral coefficients, in dB.

    .. math::
        \text{MCD} = \frac{10 \sqrt 2}{\ln 10} \, \operatorname{mean}_t \sqrt{\sum_{k=1}^{K} (c_{tk} - \hat c_{tk})^2},
        \qquad c_{tk} = \frac{2}{N} \sum_{n=0}^{N-1} \ln m_{tn} \cos \frac{\pi k (n + 1/2)}{N}

    The scale of c makes ln m the plain sum of c_k cos(...), so the distortion is the root-mean-square difference of the
    two smoothed spectra in dB; c_0, the level, is left out. Other tools scale and count coefficients otherwise: compare
    only figures made by one.

    Args:
        log_mel: (n_mels, frames), natural log of magnitudes.
        other: the same shape.
        coefficients: K, less than n_mels.
    """
    bands = len(log_mel)
    k, n = np.arange(1, coefficients + 1)[:, None], np.arange(bands)
    cepstra = 2 / bands * np.cos(np.pi * k * (n + 0.5) / bands) @ (np.asarray(log_mel, np.float64) - other)
    return 10 * math.sqrt(2) / math.log(10) * float(np.linalg.norm(cepstra, axis=0).mean())


def _log_mels(real: Tensor | np.ndarray, generated: Tensor | np.ndarray, sample_rate: int) -> Tensor:
    config = MelConfig.from_preset("tacotron2", sample_rate=sample_rate, f_max=min(8000.0, sample_rate / 2))
    pair = torch.from_numpy(np.stack(align(real, generated)))
    return MelSpectrogram(config, check_values=False).double()(pair)
