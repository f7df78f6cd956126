"""MNIST (LeCun, Cortes & Burges, 1998) in its idx files: read, or fetched and checked."""

import gzip
import hashlib
import math
import os
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from waveflow.data.download import fetch
from waveflow.data.image_set import Images, ImageSet
from waveflow.errors import InputError

URL = "https://ossci-datasets.s3.amazonaws.com/mnist"
MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
"""Of the contents, not of their compressed copies: those may be compressed anew."""

_HELD_OUT = 10_000  # the last of the training images, as in most papers


def load_mnist(folder: str | os.PathLike) -> ImageSet:
    """Read the four idx files of MNIST, or of a set in its format, gzipped or not.

    They are looked for in ``folder`` and in ``folder/MNIST/raw``. The last 10,000 images of the training file (a sixth
    of fewer than 60,000) are for validation.

    Raises:
        InputError: for a missing file, by name, or one that is damaged.
        OSError: if a file cannot be opened.
    """
    folder = Path(folder)
    known = _read(folder, "train")
    test = _read(folder, "t10k")
    if known.shape != test.shape:
        raise InputError(
            f"{folder}: expected images of one size, got {known.shape} to learn from, {test.shape} to test"
        )
    held_out = min(_HELD_OUT, len(known) // 6)
    if not held_out or not len(test):
        raise InputError(
            f"{folder}: expected at least 6 images to learn from and 1 to test, got {len(known)}, {len(test)}"
        )
    train, validation = known.take(slice(None, -held_out)), known.take(slice(-held_out, None))
    classes = tuple(map(str, range(1 + max(9, int(known.labels.max()), int(test.labels.max())))))
    return ImageSet("mnist", train, validation, test, classes)


def download_mnist(folder: str | os.PathLike, url: str = URL, progress: bool = True) -> Path:
    """Put the four files of MNIST (12 MB) into ``folder``, gzipped; return it.

    A file that is there is left alone, one that broke off is continued. What is fetched gets its name when its content
    has the published MD5. For one process: under ``torchrun``, let rank 0 call it and the others wait.

    Raises:
        InputError: without a network, when the connection breaks, or for another content.
        OSError: if ``folder`` cannot be written or is full.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, expected in MD5.items():
        if _find(folder, name) is not None:
            continue
        part, source = folder / f"{name}.gz.part", f"{url}/{name}.gz"
        fetch(source, part, f"MNIST {name}", progress)
        try:
            found = hashlib.md5(_content(part), usedforsecurity=False).hexdigest()
        except InputError:
            found = "what is not gzipped"
        if found != expected:
            part.unlink()
            raise InputError(f"{source}: expected content of MD5 {expected}, got {found}; it was removed, try again")
        part.rename(folder / f"{name}.gz")
    return folder


def _read(folder: Path, part: str) -> Images:
    images = _read_idx(folder, f"{part}-images-idx3-ubyte", 3)
    labels = _read_idx(folder, f"{part}-labels-idx1-ubyte", 1)
    if len(images) != len(labels):
        raise InputError(f"{folder}: {part} has {len(images)} images, but {len(labels)} labels")
    return Images(images[:, None], labels.long())


def _read_idx(folder: Path, name: str, axes: int) -> Tensor:
    path = _find(folder, name)
    if path is None:
        raise InputError(f"{folder}: expected MNIST's {name} or {name}.gz, found neither; --download fetches them")
    content = _content(path)
    header = np.frombuffer(content[: 4 + 4 * axes], ">u4") if len(content) >= 4 + 4 * axes else [0]
    if header[0] != 0x800 + axes:
        raise InputError(f"{path}: not an idx file of bytes with {axes} axes")
    shape = tuple(int(n) for n in header[1:])
    if len(content) != 4 + 4 * axes + math.prod(shape):
        raise InputError(f"{path}: expected {math.prod(shape)} bytes for {shape}, got {len(content) - 4 - 4 * axes}")
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape).copy())


def _find(folder: Path, name: str) -> Path | None:
    names = [name, f"{name}.gz", name.replace("-idx", ".idx"), f"{name.replace('-idx', '.idx')}.gz"]
    places = [place / n for place in (folder, folder / "MNIST" / "raw") for n in names]
    return next((path for path in places if path.is_file()), None)


def _content(path: Path) -> bytes:
    content = path.read_bytes()
    if path.suffix not in (".gz", ".part"):
        return content
    try:
        return gzip.decompress(content)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path}: damaged, or not gzipped ({error})") from None
