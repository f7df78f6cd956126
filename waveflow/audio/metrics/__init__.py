"""How close a copy is to the real recording."""

from waveflow.audio.metrics.alignment import align
from waveflow.audio.metrics.comparison import compare
from waveflow.audio.metrics.listening import HAS_PESQ, pesq, stoi
from waveflow.audio.metrics.pitch import PitchErrors, compare_pitch, compare_tracks, pitch_track
from waveflow.audio.metrics.spectral import (
    STFT_RESOLUTIONS,
    cepstral_distance,
    log_mel_l1,
    mel_cepstral_distortion,
    stft_distance,
)

__all__ = [
    "HAS_PESQ",
    "STFT_RESOLUTIONS",
    "PitchErrors",
    "align",
    "cepstral_distance",
    "compare",
    "compare_pitch",
    "compare_tracks",
    "log_mel_l1",
    "mel_cepstral_distortion",
    "pesq",
    "pitch_track",
    "stft_distance",
    "stoi",
]
