"""All metrics of one copy against its original."""

import functools
import logging
from collections.abc import Callable

import numpy as np
from torch import Tensor

from waveflow.audio.metrics.listening import HAS_PESQ, pesq, stoi
from waveflow.audio.metrics.pitch import compare_pitch
from waveflow.audio.metrics.spectral import log_mel_l1, mel_cepstral_distortion, stft_distance
from waveflow.errors import InputError

logger = logging.getLogger("waveflow")


def compare(real: Tensor | np.ndarray, generated: Tensor | np.ndarray, sample_rate: int) -> dict[str, float | None]:
    """Every metric of a generated waveform against the real one.

    Args:
        real: (T,) floats in [-1, 1].
        generated: (T',); the longer of the two is cropped if they are less than 256 samples apart.
        sample_rate: Hz of both.

    Returns:
        ``stoi`` (to 1), ``pesq`` (wide band, to 4.64), ``mstft`` (see ``stft_distance``), ``mcd`` (dB), ``f0_rmse``
        (Hz), ``f0_frame_error`` (share of frames, see ``PitchErrors``), ``vuv_f1`` (to 1), ``log_mel_l1`` (nats). None
        for what cannot be said: PESQ without its package, STOI and PESQ of too little speech, pitch where nothing is
        voiced; the log ``waveflow`` gives the reason.

    Raises:
        InputError: for waveforms that cannot be compared: shape, NaN, lengths 256 samples or more apart, or less than
            1025 samples.
    """
    mstft = stft_distance(real, generated)
    pitch = compare_pitch(real, generated, sample_rate)
    return {
        "stoi": _or_none(stoi, real, generated, sample_rate),
        "pesq": _or_none(pesq, real, generated, sample_rate) if HAS_PESQ else _without_pesq(),
        "mstft": mstft,
        "mcd": mel_cepstral_distortion(real, generated, sample_rate),
        "f0_rmse": pitch.rmse,
        "f0_frame_error": pitch.frame_error,
        "vuv_f1": pitch.vuv_f1,
        "log_mel_l1": log_mel_l1(real, generated, sample_rate),
    }


def _or_none(metric: Callable[..., float], *arguments) -> float | None:
    try:
        return metric(*arguments)
    except InputError as error:
        logger.info("%s left out: %s", metric.__name__, error)
        return None


@functools.cache  # said once, not once a clip
def _without_pesq() -> None:
    logger.warning("PESQ is left out, it needs: pip install 'waveflow[metrics]'")
