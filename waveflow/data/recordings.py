"""Clips that were opened, checked and, as far as memory goes, kept decoded."""

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from waveflow.audio import AudioInfo, audio_info, from_pcm16, read_audio, to_pcm16
from waveflow.data.clips import Clip
from waveflow.errors import InputError

logger = logging.getLogger("waveflow")

_SEEKABLE = ("PCM_16", "PCM_24", "PCM_32", "PCM_S8", "PCM_U8", "FLOAT", "DOUBLE")  # lossy codecs seek approximately


class Skipped(NamedTuple):
    """A clip that was left out, and why."""

    name: str
    reason: str


class Recordings:
    """Mono clips at one sample rate on the 16-bit grid: what likelihood per 16-bit sample is defined on.

    Every file is decoded once, up front, by a few threads under a progress bar. A file that is missing, corrupt,
    empty, silent, too short or not finite is skipped: a warning in the log ``waveflow`` gives its name and reason,
    and one more the count. Clips of another rate are resampled, more channels are averaged, with one line of log in
    total. The first ``cache_bytes`` of decoded samples stay in memory; later clips are read again, in parts where the
    format allows. The samples are the same.

    Args:
        clips: what ``find_clips`` found.
        sample_rate: Hz.
        min_samples: shorter clips are skipped, counted at ``sample_rate``.
        cache_bytes: memory for decoded samples, two bytes each.
        progress: show a bar, where standard error is a terminal.

    Attributes:
        clips: those that can be used, in the order given.
        lengths: their samples.
        skipped: the others.

    Raises:
        InputError: if no clip is left.
    """

    clips: list[Clip]
    lengths: list[int]
    skipped: list[Skipped]

    def __init__(
        self,
        clips: Sequence[Clip],
        sample_rate: int,
        min_samples: int = 1,
        cache_bytes: int = 2**31,
        progress: bool = True,
    ):
        self.sample_rate, self.min_samples = sample_rate, min_samples
        self.clips, self.lengths, self.skipped = [], [], []
        self._cache: dict[int, np.ndarray] = {}
        self._seekable: list[bool] = []
        self._scan(clips, cache_bytes, progress)

    def __len__(self) -> int:
        return len(self.clips)

    def waveform(self, index: int, start: int = 0, stop: int | None = None) -> Tensor:
        """Samples [start, stop) of clip ``index``: (stop - start,) float32 in [-1, 1], multiples of 1 / 32768.

        Raises:
            InputError: if the file can no longer be read.
        """
        stop = self.lengths[index] if stop is None else stop
        if index in self._cache:
            samples = self._cache[index][start:stop]
        elif self._seekable[index]:
            samples = to_pcm16(read_audio(self.clips[index].path, start=start, stop=stop, quiet=True).waveform.numpy())
        else:
            samples = self._decode(self.clips[index])[start:stop]
        return torch.from_numpy(from_pcm16(samples))

    def _scan(self, clips: Sequence[Clip], cache_bytes: int, progress: bool) -> None:
        resampled = averaged = 0
        threads = min(8, os.cpu_count() or 1)
        with (
            ThreadPoolExecutor(threads) as pool,
            tqdm(desc="reading clips", total=len(clips), unit=" clips", disable=None if progress else True) as bar,
        ):
            for first in range(0, len(clips), 4 * threads):  # in runs, so that few wait decoded outside the cache
                run = clips[first : first + 4 * threads]
                for clip, found in zip(run, pool.map(self._open, run), strict=True):
                    bar.update()
                    if isinstance(found, Skipped):
                        self.skipped.append(found)
                        continue
                    samples, info = found
                    if samples.nbytes <= cache_bytes:
                        cache_bytes -= samples.nbytes
                        self._cache[len(self.clips)] = samples
                    self.clips.append(clip)
                    self.lengths.append(len(samples))
                    same_rate = info.sample_rate == self.sample_rate
                    self._seekable.append(same_rate and info.format.split()[-1] in _SEEKABLE)
                    resampled += not same_rate
                    averaged += info.channels > 1
        self._report(len(clips), resampled, averaged)

    def _open(self, clip: Clip) -> tuple[np.ndarray, AudioInfo] | Skipped:
        try:
            info = audio_info(clip.path)
            samples = self._decode(clip)
        except (InputError, OSError, MemoryError) as error:  # a corrupt header may announce more than there is memory
            reason = str(error).removeprefix(str(clip.path)).lstrip(": ")
            return Skipped(clip.name, reason or type(error).__name__)
        if len(samples) < self.min_samples:
            return Skipped(clip.name, f"too short, {len(samples)} samples where at least {self.min_samples} are needed")
        if samples.min() == samples.max():
            return Skipped(clip.name, "silent at 16 bits")
        return samples, info

    def _decode(self, clip: Clip) -> np.ndarray:
        return to_pcm16(read_audio(clip.path, self.sample_rate, quiet=True).waveform.numpy())

    def _report(self, total: int, resampled: int, averaged: int) -> None:
        if resampled or averaged:
            message = "%d of %d clips resampled to %d Hz, %d averaged to one channel"
            logger.warning(message, resampled, total, self.sample_rate, averaged)
        for skipped in self.skipped:
            logger.warning("skipped %s: %s", *skipped)
        if self.skipped:
            logger.warning("skipped %d of %d clips, %d left", len(self.skipped), total, len(self.clips))
        if not self.clips:
            example = f"; the first: {self.skipped[0].name}: {self.skipped[0].reason}" if self.skipped else ""
            raise InputError(f"no clip is left of {total}{example}")
