"""Data sets and the order they are seen in: one class a source, all yielding the same kind of item."""

from waveflow.data.batches import Batches, EpochDataset
from waveflow.data.clips import Clip, find_clips, split_clips
from waveflow.data.ljspeech import download_ljspeech
from waveflow.data.recordings import Recordings, Skipped
from waveflow.data.speech import LSB, SpeechItem, SpeechSegments, WholeClips

__all__ = [
    "LSB",
    "Batches",
    "Clip",
    "EpochDataset",
    "Recordings",
    "Skipped",
    "SpeechItem",
    "SpeechSegments",
    "WholeClips",
    "download_ljspeech",
    "find_clips",
    "split_clips",
]
