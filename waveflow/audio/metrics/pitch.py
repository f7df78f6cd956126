"""Pitch: how far the voice is off, and how often it is there."""

import librosa
import numpy as np
import soxr
from torch import Tensor

from waveflow.audio.metrics.alignment import align

_RATE, _FRAME, _HOP = 16000, 1024, 160
_LOWEST, _HIGHEST = 65.0, 600.0
_SEMITONES = 0.2  # grid of the tracker: 4 times as fast as librosa's 0.1, and off by 10 cents at most


def pitch_track(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """Fundamental frequency by pYIN (Mauch & Dixon, 2014), between 65 and 600 Hz.

    Args:
        waveform: (T,) floats.
        sample_rate: Hz.

    Returns:
        Hz every 10 ms, NaN where there is no voice; T / sample_rate * 100 + 1 values, rounded down.
    """
    at_rate = soxr.resample(np.asarray(waveform, np.float64), sample_rate, _RATE, quality="VHQ")
    frames = {"frame_length": _FRAME, "hop_length": _HOP, "resolution": _SEMITONES}
    frequency, _, _ = librosa.pyin(at_rate, fmin=_LOWEST, fmax=_HIGHEST, sr=_RATE, **frames)
    return frequency


def compare_pitch(
    real: Tensor | np.ndarray, generated: Tensor | np.ndarray, sample_rate: int
) -> tuple[float | None, float | None]:
    """Error of the fundamental frequency, and agreement on where there is a voice.

    Returns:
        RMSE in Hz over the frames that are voiced in both (None where there are none), and the F1 score of the voiced
        frames (2 hits / (2 hits + misses + false alarms); None where neither signal has any).
    """
    ours, theirs = (pitch_track(x, sample_rate) for x in align(real, generated))
    both = np.isfinite(ours) & np.isfinite(theirs)
    total = np.isfinite(ours).sum() + np.isfinite(theirs).sum()
    error = float(np.sqrt(np.mean((ours[both] - theirs[both]) ** 2))) if both.any() else None
    return error, float(2 * both.sum() / total) if total else None
