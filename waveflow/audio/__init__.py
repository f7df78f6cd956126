"""Audio front end: mels, files, denoiser, metrics, pictures. Knows nothing of models."""

from waveflow.audio.denoise import Denoiser
from waveflow.audio.files import AUDIO_SUFFIXES, Audio, AudioInfo, audio_info, read_audio, resample, write_audio
from waveflow.audio.mel import MelSpectrogram, check_mel
from waveflow.audio.mel_config import MEL_PRESETS, MelConfig
from waveflow.audio.mel_envelope import MelEnvelope, autocorrelation
from waveflow.audio.mel_files import MEL_SUFFIXES, read_mel, read_mel_config, write_mel
from waveflow.audio.mel_filterbank import band_centres, mel_filterbank
from waveflow.audio.mel_matching import MelMatcher
from waveflow.audio.metrics import compare
from waveflow.audio.pictures import mel_image, mel_picture
from waveflow.audio.waveform import check_waveform, from_pcm16, to_pcm16

__all__ = [
    "AUDIO_SUFFIXES",
    "MEL_PRESETS",
    "MEL_SUFFIXES",
    "Audio",
    "AudioInfo",
    "Denoiser",
    "MelConfig",
    "MelEnvelope",
    "MelMatcher",
    "MelSpectrogram",
    "audio_info",
    "autocorrelation",
    "band_centres",
    "check_mel",
    "check_waveform",
    "compare",
    "from_pcm16",
    "mel_filterbank",
    "mel_image",
    "mel_picture",
    "read_audio",
    "read_mel",
    "read_mel_config",
    "resample",
    "to_pcm16",
    "write_audio",
    "write_mel",
]
