"""What counts as a waveform: float samples in [-1, 1], and how they map to 16 bits."""

import numpy as np
import torch
from torch import Tensor

from waveflow.errors import InputError

PCM_16_SCALE = 32768
"""x = int16 / 32768: -32768 is -1.0 exactly, the largest sample is 1 - 2**-15."""

_TOLERANCE = 1e-4  # a float file rounded by another program may pass 1 by a hair


def check_waveform(waveform: Tensor, name: str = "the waveform") -> None:
    """Refuse samples that no recording has.

    Args:
        waveform: any shape, floating; real samples lie in [-1, 1].
        name: what to call it in the message, for instance its file.

    Raises:
        InputError: for another dtype, no samples, NaN or infinity, or values beyond 1 + 1e-4 (as 16-bit integers that
            were never divided by 32768 have).
    """
    if not isinstance(waveform, Tensor):
        raise InputError(f"{name} has to be a tensor, got {type(waveform).__name__}")
    if not waveform.is_floating_point():
        hint = " (divide by 32768)" if waveform.dtype == torch.int16 else ""
        raise InputError(
            f"{name} has to hold floats in [-1, 1], got {str(waveform.dtype).removeprefix('torch.')}{hint}"
        )
    if waveform.numel() == 0:
        raise InputError(f"{name} has no samples, its shape is {tuple(waveform.shape)}")
    low, high = (float(x) for x in waveform.detach().aminmax())
    if not (np.isfinite(low) and np.isfinite(high)):  # aminmax passes NaN on
        bad = int((~waveform.isfinite()).sum())
        raise InputError(f"{name} has {bad} samples that are NaN or infinite")
    peak = max(-low, high)
    if peak > 1 + _TOLERANCE:
        hint = "is it 16-bit integers that were not divided by 32768?" if peak > 256 else "scale it down"
        raise InputError(f"{name} reaches {peak:.5g}, but waveforms lie in [-1, 1]: {hint}")


def to_pcm16(waveform: np.ndarray) -> np.ndarray:
    """Nearest 16-bit integers of samples in [-1, 1]; what lies beyond is clipped. Inverse of ``from_pcm16``."""
    scaled = np.rint(np.asarray(waveform, np.float64) * PCM_16_SCALE)
    return np.clip(scaled, -PCM_16_SCALE, PCM_16_SCALE - 1).astype(np.int16)


def from_pcm16(samples: np.ndarray) -> np.ndarray:
    """Float32 samples int16 / 32768, exact."""
    return np.asarray(samples, np.float32) / PCM_16_SCALE
