"""Differentiable distances between spectra of waveforms, which likelihood alone leaves too quiet."""

from collections.abc import Sequence

import torch
from torch import Tensor

from waveflow.audio.metrics import STFT_RESOLUTIONS
from waveflow.errors import InputError

_LEAST_MAGNITUDE = 1e-4  # as in the metric


def power_loss(
    x: Tensor,
    reference: Tensor,
    n_fft: int = 1024,
    hop_length: int = 256,
    low_bins: int = 0,
    low_weight: float = 0.5,
) -> Tensor:
    r"""Mean squared difference of the amplitudes of two short-time spectra.

    .. math::
        \operatorname{mean}_{t,k} \left(|S_{tk}| - |\hat S_{tk}|\right)^2

    Parallel WaveNet's power loss (arXiv:1711.10433, section 4.1) in the form that reimplementations found to be clear:
    amplitudes frame by frame, neither squared nor logarithmic (ClariNet's frame loss: arXiv:1807.07281). Hann windows
    of ``n_fft``, centred frames with reflected ends, no normalisation: a sine of amplitude a peaks at a ``n_fft`` / 4.

    Args:
        x: the student's waveforms, (B, T) in [-1, 1], T > n_fft / 2.
        reference: recordings, (B, T).
        n_fft: length of a frame in samples.
        hop_length: samples between frames.
        low_bins: the first so many bins are counted once more; 3 kHz is bin 3000 n_fft / sample rate.
        low_weight: factor of their mean.

    Returns:
        (B,). Gradients are finite everywhere, digital silence included.

    Raises:
        InputError: for waveforms of other or different shapes, too short for a frame, or more low bins than there are.
    """
    _check(x, reference, n_fft)
    if not 0 <= low_bins <= n_fft // 2 + 1:
        raise InputError(f"power_loss expects low_bins of 0 ... {n_fft // 2 + 1}, got {low_bins}")
    difference = _amplitudes(x, n_fft, hop_length, n_fft) - _amplitudes(reference, n_fft, hop_length, n_fft)
    squared = difference.square()
    loss = squared.mean((1, 2))
    return loss + low_weight * squared[:, :low_bins].mean((1, 2)) if low_bins else loss


def multi_resolution_stft(
    x: Tensor, reference: Tensor, resolutions: Sequence[tuple[int, int, int]] = STFT_RESOLUTIONS
) -> Tensor:
    r"""Multi-resolution STFT loss (Yamamoto, Song & Kim, 2020; arXiv:1910.11480), without unit.

    .. math::
        \frac{1}{R} \sum_{r=1}^{R} \frac{\| |S_r| - |\hat S_r| \|_F}{\| |S_r| \|_F}
        + \operatorname{mean} \left| \ln |S_r| - \ln |\hat S_r| \right|

    Spectral convergence plus log-magnitude distance, S being the reference: the loss whose value
    :func:`waveflow.audio.metrics.stft_distance` reports. Magnitudes are raised to at least 1e-4.

    Args:
        x: the student's waveforms, (B, T) in [-1, 1], T > half the longest n_fft.
        reference: recordings, (B, T).
        resolutions: (n_fft, hop_length, win_length) of each.

    Returns:
        (B,). Gradients are finite everywhere, digital silence and equal waveforms included.

    Raises:
        InputError: for waveforms of other or different shapes, or too short for a frame.
    """
    _check(x, reference, max(n_fft for n_fft, _, _ in resolutions))
    terms = []
    for n_fft, hop_length, win_length in resolutions:
        theirs, ours = (
            _amplitudes(waveform, n_fft, hop_length, win_length).clamp_min(_LEAST_MAGNITUDE)
            for waveform in (reference, x)
        )
        convergence = _norm(theirs - ours) / _norm(theirs)
        terms.append(convergence + (theirs.log() - ours.log()).abs().mean((1, 2)))
    return torch.stack(terms).mean(0)


def _norm(spectrum: Tensor) -> Tensor:
    return torch.linalg.vector_norm(spectrum, dim=(1, 2))


def _amplitudes(waveform: Tensor, n_fft: int, hop_length: int, win_length: int) -> Tensor:
    """|STFT|, (B, bins, frames), float32 or wider; its gradient where it is zero is zero."""
    wide = waveform.to(torch.promote_types(waveform.dtype, torch.float32))
    window = torch.hann_window(win_length, dtype=wide.dtype, device=wide.device)
    return torch.stft(wide, n_fft, hop_length, win_length, window, return_complex=True).abs()


def _check(x: Tensor, reference: Tensor, longest: int) -> None:
    if x.ndim != 2 or x.shape != reference.shape:
        raise InputError(
            "a spectral loss expects two batches of waveforms (B, T), "
            f"got {tuple(x.shape)} and {tuple(reference.shape)}"
        )
    if x.shape[1] <= longest // 2:
        raise InputError(
            f"a spectral loss of frames of {longest} expects more than {longest // 2} samples, got {x.shape[1]}"
        )
