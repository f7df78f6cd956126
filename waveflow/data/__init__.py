"""Data sets and the order they are seen in: one class a source, all yielding the same kind of item."""

from waveflow.data.batches import Batches, EpochDataset
from waveflow.data.clips import Clip, find_clips, split_clips
from waveflow.data.ljspeech import download_ljspeech
from waveflow.data.recordings import Recordings, Skipped
from waveflow.data.speech import LSB, SpeechItem, SpeechSegments, WholeClips
from waveflow.data.table_files import read_table
from waveflow.data.tables import TABLES, Table, load_table
from waveflow.data.toys import TOYS, sample_toy

__all__ = [
    "LSB",
    "TABLES",
    "TOYS",
    "Batches",
    "Clip",
    "EpochDataset",
    "Recordings",
    "Skipped",
    "SpeechItem",
    "SpeechSegments",
    "Table",
    "WholeClips",
    "download_ljspeech",
    "find_clips",
    "load_table",
    "read_table",
    "sample_toy",
    "split_clips",
]
