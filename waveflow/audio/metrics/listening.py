"""Models of listeners: PESQ for quality, STOI for intelligibility."""

import warnings

import numpy as np
import soxr
from torch import Tensor

from waveflow.audio.metrics.alignment import align
from waveflow.errors import InputError

try:
    import pesq as _pesq
except ImportError:  # a C extension, and optional
    _pesq = None

HAS_PESQ = _pesq is not None
"""Whether the optional package ``pesq`` is there."""


def stoi(real: Tensor | np.ndarray, generated: Tensor | np.ndarray, sample_rate: int) -> float:
    """Short-time objective intelligibility (Taal et al., 2011), by pystoi; about 0 to 1, 1 for equal signals.

    Raises:
        InputError: for less than about 0.4 s of speech, silence not counted.
    """
    from pystoi import stoi as _stoi  # loads scipy.signal, a second that no other use of the package should wait for

    real, generated = align(real, generated)
    if not real.any():
        raise InputError("STOI needs speech, but the real waveform is silent")
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        try:
            return float(_stoi(real, generated, sample_rate))
        except (RuntimeWarning, ValueError) as error:
            raise InputError("STOI needs at least 0.4 s of speech that is not silent") from error


def pesq(real: Tensor | np.ndarray, generated: Tensor | np.ndarray, sample_rate: int) -> float:
    """Wide-band PESQ (ITU-T P.862.2) at 16 kHz, by the optional package ``pesq``; 1.04 to 4.64 for equal signals.

    Raises:
        InputError: if the package is missing, or for less than 0.25 s, or where no speech is found.
    """
    if _pesq is None:
        raise InputError("PESQ needs the package pesq, which builds with a C compiler: pip install 'waveflow[metrics]'")
    real, generated = align(real, generated)
    if not real.any():
        raise InputError("PESQ needs speech, but the real waveform is silent")
    real, generated = (soxr.resample(x, sample_rate, 16000, quality="VHQ") for x in (real, generated))
    try:
        return float(_pesq.pesq(16000, real.astype(np.float32), generated.astype(np.float32), "wb"))
    except (_pesq.PesqError, ValueError, ZeroDivisionError) as error:
        reason = error.args[0] if error.args else type(error).__name__
        reason = reason.decode() if isinstance(reason, bytes) else reason
        raise InputError(f"PESQ cannot judge this: {reason}") from error
