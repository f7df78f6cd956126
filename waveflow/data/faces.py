"""Faces with a smile label: 64 x 64 grey JPEGs in one npz file (SMILEsmileD, cut from Labeled Faces in the Wild)."""

import os
from pathlib import Path

from waveflow.data.image_archives import decode_jpegs, read_archive, read_labels
from waveflow.data.image_set import Images, ImageSet, divide
from waveflow.errors import InputError

CLASSES = ("neutral", "smiling")


def load_faces(path: str | os.PathLike, size: int | None = None, progress: bool = True) -> ImageSet:
    """Read the faces and divide them at random, always alike: 81 % training, 9 % validation, 10 % test.

    Args:
        path: an npz file, or a folder with ``faces_smile.npz``: arrays ``blob`` (bytes of all JPEGs one after
            another), ``offsets`` (N + 1,) and ``smile`` (N,), 1 for smiling.
        size: bring every image to this side, by averaging; None for 64.
        progress: show a bar, where standard error is a terminal.

    Raises:
        InputError: if the file is not such an archive, or damaged.
        OSError: if it is not there or cannot be opened.
    """
    path = Path(path)
    if size is not None and not 1 <= size <= 64:
        raise InputError(f"faces expects a size of 1 to 64 pixels, got {size}")
    if path.is_dir():
        path = path / "faces_smile.npz"
    blob, offsets, smile = read_archive(path, ("blob", "offsets", "smile"))
    images = decode_jpegs(blob, offsets, 1, path, size, progress)
    labels = read_labels(smile, len(images), path)
    if labels.max() > 1:
        raise InputError(f"{path}: expected smile to be 0 or 1, got {labels.max()}")
    train, validation, test = divide(Images(images, labels), 3)
    note = "JPEG images, in which several show the same person: likelihoods compare with nothing published"
    return ImageSet("faces", train, validation, test, CLASSES, note)
