"""Data sets and the order they are seen in: one class a source, all yielding the same kind of item."""

from waveflow.data.batches import Batches, EpochDataset
from waveflow.data.clips import Clip, find_clips, split_clips
from waveflow.data.image_draws import FreshBinary, RandomCrops, RandomFlips, binarise
from waveflow.data.image_files import IMAGE_SUFFIXES, ReadImage, read_image, to_values
from waveflow.data.image_set import ImageItem, Images, ImageSet, ImageSource
from waveflow.data.images import IMAGE_SETS, download_images, load_images
from waveflow.data.ljspeech import download_ljspeech
from waveflow.data.recordings import Recordings, Skipped
from waveflow.data.speech import LSB, SpeechItem, SpeechSegments, WholeClips
from waveflow.data.table_files import read_table
from waveflow.data.tables import TABLES, Table, load_table
from waveflow.data.toys import TOYS, sample_toy

__all__ = [
    "IMAGE_SETS",
    "IMAGE_SUFFIXES",
    "LSB",
    "TABLES",
    "TOYS",
    "Batches",
    "Clip",
    "EpochDataset",
    "FreshBinary",
    "ImageItem",
    "ImageSet",
    "ImageSource",
    "Images",
    "RandomCrops",
    "RandomFlips",
    "ReadImage",
    "Recordings",
    "Skipped",
    "SpeechItem",
    "SpeechSegments",
    "Table",
    "WholeClips",
    "binarise",
    "download_images",
    "download_ljspeech",
    "find_clips",
    "load_images",
    "load_table",
    "read_image",
    "read_table",
    "sample_toy",
    "split_clips",
    "to_values",
]
