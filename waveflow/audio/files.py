"""Audio files in and out, by soundfile; resampling by soxr."""

import io
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor

from waveflow.atomic import write_whole
from waveflow.audio.truncation import check_not_truncated
from waveflow.audio.waveform import check_waveform, to_pcm16
from waveflow.errors import InputError

logger = logging.getLogger("waveflow")

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".au", ".w64", ".caf")
"""Suffixes that ``read_audio`` is expected to read, for those who search folders."""

_FORMATS = {".wav": ("WAV", "PCM_16"), ".flac": ("FLAC", "PCM_16"), ".ogg": ("OGG", "VORBIS")}
_LOSSY = ("VORBIS", "OPUS", "MPEG_LAYER_I", "MPEG_LAYER_II", "MPEG_LAYER_III")  # decoders overshoot full scale
_HARD_CLIPPED = 0.01  # loud masters have a few samples at full scale in a thousand, a full-scale sine 0.5 %


class Audio(NamedTuple):
    """A mono waveform (T,), float32 in [-1, 1], and its sample rate in Hz."""

    waveform: Tensor
    sample_rate: int


@dataclass(frozen=True)
class AudioInfo:
    """What the header of an audio file says.

    Args:
        samples: per channel, as ``read_audio``'s ``start`` and ``stop`` count them.
        sample_rate: Hz.
        channels: 1 for mono.
        format: the container and coding, for instance ``FLAC PCM_16``.
    """

    samples: int
    sample_rate: int
    channels: int
    format: str

    @property
    def seconds(self) -> float:
        """Duration."""
        return self.samples / self.sample_rate


def audio_info(path: str | os.PathLike) -> AudioInfo:
    """Read the header of an audio file.

    Raises:
        InputError: naming the file, if it is missing, not readable or no audio.
    """
    with _open(path) as file:
        return AudioInfo(file.frames, file.samplerate, file.channels, f"{file.format} {file.subtype}")


def read_audio(
    path: str | os.PathLike,
    sample_rate: int | None = None,
    *,
    start: int = 0,
    stop: int | None = None,
    quiet: bool = False,
) -> Audio:
    """Read a file, or a part of it, as a mono waveform.

    More channels are averaged to one; another rate is resampled (soxr, very high quality). A warning in the log
    ``waveflow`` says so. What decoders of lossy formats make beyond [-1, 1] is clipped.

    Args:
        path: wav, flac, ogg, mp3, or whatever else libsndfile reads.
        sample_rate: Hz of the result; None keeps that of the file.
        start: first sample to read, counted at the rate of the file.
        stop: one past the last sample; None reads to the end.
        quiet: no warnings, for callers that read many files and sum up by themselves.

    Returns:
        Audio: waveform (T,) float32 in [-1, 1], and its sample rate.

    Raises:
        InputError: naming the file and the reason: missing, a folder, not readable, no audio, truncated, without
            samples, NaN or infinite, beyond [-1, 1]; and, where the whole file was asked for, digital silence or more
            than 1 % of the samples clipped at full scale.
    """
    with _open(path) as file:
        total, rate, channels, lossy = file.frames, file.samplerate, file.channels, file.subtype in _LOSSY
        stop = total if stop is None else stop
        if not 0 <= start < stop <= total:
            raise InputError(f"{path}: no samples [{start}, {stop}), it has {total}")
        try:
            file.seek(start)
            samples = file.read(stop - start, dtype="float32", always_2d=True)
        except (soundfile.LibsndfileError, RuntimeError) as error:
            raise InputError(f"{path}: cannot be decoded, {_reason(error)}") from error
    if len(samples) < stop - start:
        raise InputError(f"{path}: truncated, {len(samples)} samples where {stop - start} were expected")

    if lossy:
        samples = samples.clip(-1, 1)
    waveform = torch.from_numpy(samples.mean(1) if channels > 1 else samples[:, 0].copy())
    check_waveform(torch.from_numpy(samples), str(path))
    if start == 0 and stop == total:
        _check_content(samples, waveform, path)

    done = []
    if channels > 1:
        done.append(f"{channels} channels averaged to one")
    if sample_rate is not None and sample_rate != rate:
        waveform = resample(waveform, rate, sample_rate)
        done.append(f"resampled from {rate} to {sample_rate} Hz")
    if done and not quiet:
        logger.warning("%s: %s", path, ", ".join(done))
    return Audio(waveform, sample_rate or rate)


def resample(waveform: Tensor, from_rate: int, to_rate: int) -> Tensor:
    """Resample (T,) from one rate to another; ringing at full scale is clipped to [-1, 1].

    Returns:
        (round(T * to_rate / from_rate),) float32.
    """
    if min(from_rate, to_rate) < 1:
        raise InputError(f"sample rates are positive, got {from_rate} and {to_rate}")
    resampled = soxr.resample(waveform.numpy(), from_rate, to_rate, quality="VHQ")
    return torch.from_numpy(resampled.clip(-1, 1))


def write_audio(path: str | os.PathLike, waveform: Tensor | np.ndarray, sample_rate: int) -> None:
    """Write a file whole or not at all; its suffix chooses 16-bit wav or flac, or ogg (Vorbis).

    Samples beyond [-1, 1] are clipped, and a warning in the log ``waveflow`` counts them. 16-bit files read back with
    ``read_audio`` and written again have the same samples.

    Args:
        path: ends in .wav, .flac or .ogg.
        waveform: (T,) or (C, T), floats in [-1, 1].
        sample_rate: Hz.

    Raises:
        InputError: for another suffix, shape or dtype, no samples, NaN or infinity.
        OSError: naming the file, if it cannot be written; what was there is untouched.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in _FORMATS:
        raise InputError(f"{path}: cannot write {suffix or 'a file without suffix'}, only {', '.join(_FORMATS)}")
    samples = waveform.detach().cpu().float().numpy() if isinstance(waveform, Tensor) else np.asarray(waveform)
    if samples.ndim not in (1, 2) or samples.size == 0 or not np.issubdtype(samples.dtype, np.floating):
        raise InputError(
            f"{path}: a waveform is floats of shape (T,) or (C, T), got {samples.dtype} of shape {samples.shape}"
        )
    if not np.isfinite(samples).all():
        raise InputError(f"{path}: the waveform has {int((~np.isfinite(samples)).sum())} NaN or infinite samples")
    beyond = int((np.abs(samples) > 1).sum())
    if beyond:
        peak = float(np.abs(samples).max())
        logger.warning("%s: %d of %d samples beyond [-1, 1] clipped, peak %.4g", path, beyond, samples.size, peak)

    kind, subtype = _FORMATS[suffix]
    data = to_pcm16(samples) if subtype == "PCM_16" else samples.clip(-1, 1).astype(np.float32)
    buffer = io.BytesIO()
    try:
        soundfile.write(buffer, data.T, sample_rate, format=kind, subtype=subtype)
    except (soundfile.LibsndfileError, TypeError) as error:
        raise InputError(f"{path}: {kind} does not take {sample_rate} Hz, shape {samples.shape}") from error
    write_whole(path, buffer.getvalue())


def _open(path: str | os.PathLike) -> soundfile.SoundFile:
    path = Path(path)
    try:
        if path.is_dir():
            raise InputError(f"{path}: is a folder, not an audio file")
        if path.stat().st_size == 0:
            raise InputError(f"{path}: empty file")
        check_not_truncated(path)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    try:
        file = soundfile.SoundFile(path)
    except (soundfile.LibsndfileError, RuntimeError, TypeError) as error:
        raise InputError(f"{path}: not a readable audio file, {_reason(error)}") from error
    if file.frames < 1:
        file.close()
        raise InputError(f"{path}: has no samples")
    return file


def _check_content(samples: np.ndarray, waveform: Tensor, path: str | os.PathLike) -> None:
    if waveform.min() == waveform.max():
        raise InputError(f"{path}: digitally silent, every sample is {float(waveform[0]):g}")
    clipped = float((np.abs(samples) >= 1 - 2**-15).mean())
    if clipped > _HARD_CLIPPED:
        raise InputError(f"{path}: clipped, {clipped:.1%} of its samples are at full scale")


def _reason(error: Exception) -> str:
    text = getattr(error, "error_string", None) or str(error)
    return " ".join(text.split()).rstrip(".")
