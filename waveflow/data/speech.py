"""Speech for vocoders: random segments to train on, whole clips to validate on, each with its mel."""

import math
from collections.abc import Iterator, Sequence
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor

from waveflow.audio import MelConfig, MelSpectrogram
from waveflow.data.clips import Clip
from waveflow.data.recordings import Recordings, Skipped
from waveflow.errors import InputError

LSB = 1 / 32768
"""One step of 16-bit audio: the width of the dequantisation noise."""


class SpeechItem(TypedDict):
    """A waveform (T,), float32, the mel (n_mels, frames) that tells of it, and the name of its clip."""

    waveform: Tensor
    mel: Tensor
    name: str


class SpeechSegments:
    """Training segments, an ``EpochDataset``: each epoch cuts one segment at a random hop from every clip.

    The mel of a segment is that of the whole clip cut to it, as in synthesis, where frames at the edge of a segment
    know what lies beyond; only as much audio as those frames see is transformed. It is made of the clean samples,
    while the waveform carries uniform dequantisation noise of one 16-bit step, in [-1/65536, 1/65536), so that its
    density is a bound of the probability of the samples.

    Args:
        clips: what ``find_clips`` found; unusable ones are skipped, see ``Recordings``.
        mel_config: of the mel, and the sample rate of everything.
        segment: samples of a waveform. Clips too short for one are skipped.
        seed: of starts and noise, not negative. Item ``index`` of an epoch follows from (seed, epoch, index) alone.
        cache_bytes: memory for decoded clips.
        progress: show a bar while the clips are read.

    Raises:
        InputError: if no clip is left, or for a segment or seed out of range.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        mel_config: MelConfig,
        segment: int = 16000,
        seed: int = 0,
        cache_bytes: int = 2**31,
        progress: bool = True,
    ):
        if segment < 1:
            raise InputError(f"expected segments of at least 1 sample, got {segment}")
        if seed < 0:
            raise InputError(f"expected a seed of at least 0, got {seed}")
        self.mel_config, self.segment, self.seed = mel_config, segment, seed
        self.frames = math.ceil(segment / mel_config.hop_length)
        with_all_frames = mel_config.samples(self.frames - mel_config.frames(0))
        shortest = max(with_all_frames, segment, mel_config.min_samples)
        self.recordings = Recordings(clips, mel_config.sample_rate, shortest, cache_bytes, progress)
        self._mel = MelSpectrogram(mel_config, check_values=False)

    @property
    def skipped(self) -> list[Skipped]:
        """Clips left out, with the reason."""
        return self.recordings.skipped

    def __len__(self) -> int:
        return len(self.recordings)

    def item(self, epoch: int, index: int) -> SpeechItem:
        """Segment of clip ``index`` in ``epoch``: waveform (segment,), mel (n_mels, ceil(segment / hop)), name."""
        # four numbers: numpy pads shorter seeds with zeros, and Batches shuffles by (its seed, epoch)
        rng = np.random.default_rng([self.seed, epoch, index, 1])
        start = self.mel_config.samples(int(rng.integers(self._starts(index))))
        clean, mel = self._cut(index, start)
        noise = rng.random(self.segment, dtype=np.float32) - np.float32(0.5)
        return {
            "waveform": clean + LSB * torch.from_numpy(noise),
            "mel": mel,
            "name": self.recordings.clips[index].name,
        }

    def _starts(self, index: int) -> int:
        """How many hops of a clip a segment may start at."""
        c, length = self.mel_config, self.recordings.lengths[index]
        return 1 + min((length - self.segment) // c.hop_length, c.frames(length) - self.frames)

    def _cut(self, index: int, start: int) -> tuple[Tensor, Tensor]:
        c = self.mel_config
        margin = c.samples(math.ceil(c.n_fft / c.hop_length))  # what frames of the segment see outside it
        first = max(0, start - margin)
        stop = min(self.recordings.lengths[index], start + self.segment + margin)
        around = self.recordings.waveform(index, first, stop)
        inside = start - first
        with torch.no_grad():
            mel = self._mel(around[None])[0].narrow(1, inside // c.hop_length, self.frames)
        return around[inside : inside + self.segment], mel


class WholeClips:
    """Whole clips for validation: clean, cut to whole hops, with one mel frame a hop.

    The waveform carries no noise: what measures likelihood adds it, from a generator of its own.

    Args:
        clips: what ``find_clips`` found; unusable ones are skipped, see ``Recordings``.
        mel_config: of the mel, and the sample rate of everything.
        cache_bytes: memory for decoded clips.
        progress: show a bar while the clips are read.

    Raises:
        InputError: if no clip is left.
    """

    def __init__(self, clips: Sequence[Clip], mel_config: MelConfig, cache_bytes: int = 2**31, progress: bool = True):
        self.mel_config = mel_config
        shortest = max(mel_config.hop_length, mel_config.min_samples)
        self.recordings = Recordings(clips, mel_config.sample_rate, shortest, cache_bytes, progress)
        self._mel = MelSpectrogram(mel_config, check_values=False)

    @property
    def skipped(self) -> list[Skipped]:
        """Clips left out, with the reason."""
        return self.recordings.skipped

    def __len__(self) -> int:
        return len(self.recordings)

    def __getitem__(self, index: int) -> SpeechItem:
        """Clip ``index``: waveform (frames * hop,), mel (n_mels, frames), name."""
        c = self.mel_config
        waveform = self.recordings.waveform(index)
        frames = len(waveform) // c.hop_length
        with torch.no_grad():
            mel = self._mel(waveform[None])[0, :, :frames]
        return {"waveform": waveform[: c.samples(frames)], "mel": mel, "name": self.recordings.clips[index].name}

    def __iter__(self) -> Iterator[SpeechItem]:
        return (self[index] for index in range(len(self)))
