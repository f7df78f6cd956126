"""Images kept in npz archives: as pixels, or as JPEGs one after another."""

import io
import os
import pickle
import zipfile
import zlib
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from waveflow.errors import InputError

_DAMAGED = (ValueError, EOFError, OSError, NotImplementedError, zipfile.BadZipFile, pickle.UnpicklingError, zlib.error)


def read_archive(path: str | os.PathLike, names: Sequence[str]) -> list[np.ndarray]:
    """These arrays of an npz archive; no pickle in it is executed.

    Raises:
        InputError: if it is not such an archive, or one of the arrays is not in it.
        OSError: if the file is not there or cannot be opened.
    """
    with open(path, "rb") as file:
        try:
            arrays = np.load(file, allow_pickle=False)
            if not isinstance(arrays, np.lib.npyio.NpzFile):
                raise InputError(f"{path}: expected an npz archive, got a single array")
            missing = [name for name in names if name not in arrays.files]
            if missing:
                raise InputError(f"{path}: expected arrays {', '.join(names)}, got {', '.join(arrays.files) or 'none'}")
            return [arrays[name] for name in names]
        except InputError:
            raise
        except _DAMAGED as error:
            raise InputError(f"{path}: not a whole npz archive ({' '.join(str(error).split())})") from None


def read_labels(labels: np.ndarray, images: int, path: str | os.PathLike) -> Tensor:
    """Labels of an archive as int64 (N,).

    Raises:
        InputError: if there is not one whole number, at least 0, for each image.
    """
    if labels.shape != (images,) or labels.dtype.kind not in "iub" or (labels.size and labels.min() < 0):
        raise InputError(f"{path}: expected a label for each of {images} images, got {labels.dtype} {labels.shape}")
    return torch.as_tensor(labels.astype(np.int64))


def decode_jpegs(
    blob: np.ndarray,
    offsets: np.ndarray,
    channels: int,
    path: str | os.PathLike,
    size: int | None = None,
    progress: bool = True,
) -> Tensor:
    """Decode N JPEGs that lie one after another.

    Args:
        blob: their bytes, uint8.
        offsets: (N + 1,), where each begins, and the end.
        channels: 1 for grey, 3 for colour.
        path: the archive, for messages.
        size: bring every image to this side, by averaging; None leaves them as they are.
        progress: show a bar, where standard error is a terminal.

    Returns:
        uint8 (N, channels, H, W).

    Raises:
        InputError: for offsets that do not fit, or images that are damaged or not all of one size.
    """
    fit = offsets.ndim == blob.ndim == 1 and offsets.dtype.kind in "iu" and blob.dtype == np.uint8 and len(offsets) > 1
    if not fit or offsets[0] < 0 or offsets[-1] > len(blob) or (offsets[1:] < offsets[:-1]).any():
        raise InputError(f"{path}: expected JPEGs as blob, uint8, and offsets in it, which ascend")
    content, mode = blob.tobytes(), {1: "L", 3: "RGB"}[channels]
    images = None
    for i in tqdm(range(len(offsets) - 1), "decoding", unit=" images", disable=None if progress else True):
        try:
            with Image.open(io.BytesIO(content[offsets[i] : offsets[i + 1]]), formats=["JPEG"]) as image:
                image = image.convert(mode)
        except Exception:  # decoders fail in ways of their own
            raise InputError(f"{path}: image {i} is not a readable JPEG") from None
        if size is not None:
            image = image.resize((size, size), Image.Resampling.BOX)
        pixels = np.asarray(image).reshape(image.height, image.width, channels).transpose(2, 0, 1)
        if images is None:
            images = np.empty((len(offsets) - 1, *pixels.shape), np.uint8)
        if pixels.shape != images.shape[1:]:
            raise InputError(
                f"{path}: expected images of one size, image {i} is {pixels.shape}, not {images.shape[1:]}"
            )
        images[i] = pixels
    return torch.from_numpy(images)
