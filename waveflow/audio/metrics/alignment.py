"""Two waveforms that say the same thing at the same time."""

import numpy as np
from torch import Tensor

from waveflow.errors import InputError

TOLERANCE = 256
"""Samples by which a copy may be longer or shorter: less than a hop, which a vocoder adds or drops at the end."""


def align(real: Tensor | np.ndarray, generated: Tensor | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64 arrays, the longer cropped at its end.

    Args:
        real: (T,) floats.
        generated: (T',) floats, T' within less than 256 samples of T.

    Raises:
        InputError: for another shape or dtype, no samples, NaN or infinity, or lengths further apart.
    """
    real, generated = _samples(real, "real"), _samples(generated, "generated")
    if abs(len(real) - len(generated)) >= TOLERANCE:
        raise InputError(
            f"metrics compare waveforms of one length, less than {TOLERANCE} samples apart, "
            f"got {len(real)} real and {len(generated)} generated"
        )
    length = min(len(real), len(generated))
    return real[:length], generated[:length]


def _samples(waveform: Tensor | np.ndarray, name: str) -> np.ndarray:
    array = waveform.detach().cpu().double().numpy() if isinstance(waveform, Tensor) else np.asarray(waveform)
    if array.ndim != 1 or array.size == 0 or not np.issubdtype(array.dtype, np.floating):
        raise InputError(f"metrics expect {name} to be floats (T,), got {array.dtype} {array.shape}")
    if not np.isfinite(array).all():
        raise InputError(f"metrics expect finite samples, got {int((~np.isfinite(array)).sum())} others in {name}")
    return array.astype(np.float64)
