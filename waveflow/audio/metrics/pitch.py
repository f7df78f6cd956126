"""Pitch: how far the voice is off, and how often it is there."""

from dataclasses import dataclass

import librosa
import numpy as np
import soxr
from torch import Tensor

from waveflow.audio.metrics.alignment import align
from waveflow.errors import InputError

_RATE, _FRAME, _HOP = 16000, 1024, 160
_LOWEST, _HIGHEST = 65.0, 600.0
_SEMITONES = 0.2  # grid of the tracker: 4 times as fast as librosa's 0.1, and off by 10 cents at most
_GROSS = 0.2  # of the frequency: beyond, a tracker or a voice has lost its way, as by an octave


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


@dataclass(frozen=True)
class PitchErrors:
    """How one course of the fundamental frequency differs from another (Chu & Alwan, 2009).

    None for what cannot be said: nothing is voiced in both, or, for ``vuv_f1``, in either.

    Attributes:
        rmse: of the frames that are voiced in both, Hz. One octave error weighs as much as a thousand good frames.
        fine: the same of those that are less than a fifth off, Hz.
        gross: the share of the frames voiced in both that are not: the gross pitch error, GPE.
        frame_error: the share of all frames that are grossly off, or voiced in one only: the F0 frame error, FFE.
        vuv_f1: F1 score of the voiced frames, 2 hits / (2 hits + misses + false alarms).
    """

    rmse: float | None
    fine: float | None
    gross: float | None
    frame_error: float
    vuv_f1: float | None


def compare_tracks(track: np.ndarray, reference: np.ndarray) -> PitchErrors:
    """Errors of a course of the fundamental frequency.

    Args:
        track: (frames,) Hz, NaN where there is no voice, as of :func:`pitch_track`.
        reference: (frames,) likewise; a frame is grossly off by more than a fifth of what this one has.

    Raises:
        InputError: for tracks of different lengths, or without frames.
    """
    if track.shape != reference.shape or track.ndim != 1 or not len(track):
        raise InputError(f"expected two tracks of as many frames, got {track.shape} and {reference.shape}")
    voiced, expected = np.isfinite(track), np.isfinite(reference)
    both = voiced & expected
    difference, unit = (track - reference)[both], reference[both]
    close = np.abs(difference) < _GROSS * unit
    total = voiced.sum() + expected.sum()
    return PitchErrors(
        rmse=_rms(difference),
        fine=_rms(difference[close]),
        gross=float(np.mean(~close)) if both.any() else None,
        frame_error=float((np.sum(voiced != expected) + np.sum(~close)) / len(track)),
        vuv_f1=float(2 * both.sum() / total) if total else None,
    )


def compare_pitch(real: Tensor | np.ndarray, generated: Tensor | np.ndarray, sample_rate: int) -> PitchErrors:
    """Errors of the fundamental frequency of a generated waveform (T,) against the real one, at a rate in Hz."""
    theirs, ours = (pitch_track(x, sample_rate) for x in align(real, generated))
    return compare_tracks(ours, theirs)


def _rms(differences: np.ndarray) -> float | None:
    return float(np.sqrt(np.mean(differences**2))) if len(differences) else None
