"""CIFAR-10 (Krizhevsky, 2009): its python batches, parts of it with exact pixels, JPEG copies; and fetching it."""

import os
from pathlib import Path

import torch

from waveflow.data.cifar10_batch import read_batch
from waveflow.data.download import checksum, fetch, unpack
from waveflow.data.image_archives import decode_jpegs, read_archive, read_labels
from waveflow.data.image_set import Images, ImageSet, divide
from waveflow.errors import InputError

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
MD5 = "c58f30108f718f92721af3b95e74349a"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

_FOLDER = "cifar-10-batches-py"
_TRAIN, _TEST = tuple(f"data_batch_{i}" for i in range(1, 6)), ("test_batch",)
_WHOLE = (50_000, 10_000)


def load_cifar10(folder: str | os.PathLike) -> ImageSet:
    """Read CIFAR-10 with its exact pixels, which published likelihoods are about.

    The python batches, in ``folder`` or ``folder/cifar-10-batches-py``, are taken where they are; otherwise
    ``train_lossless.npz`` and ``test_lossless.npz``: arrays ``images`` (N, 32, 32, 3) and ``labels`` (N,), parts of
    the original, as ``note`` then says. A tenth of the training images, chosen at random, always alike, is for
    validation.

    Raises:
        InputError: if neither is there, or a file is damaged.
        OSError: if a file cannot be opened.
    """
    folder = _checked(folder)
    for place in (folder, folder / _FOLDER):
        if any((place / name).exists() for name in (*_TRAIN, *_TEST)):
            known, test = _batches(place, _TRAIN), _batches(place, _TEST)
            return _divided("cifar10", known, test, _partial(known, test, "exact pixels"))
    if not (folder / "train_lossless.npz").exists():
        hint = "; JPEG copies are there, as cifar10-jpeg" if (folder / "train_jpeg.npz").exists() else ""
        raise InputError(
            f"{folder}: expected CIFAR-10's {_TRAIN[0]} ... {_TEST[0]}, or train_lossless.npz and test_lossless.npz, "
            f"found neither; --download fetches it{hint}"
        )
    known, test = (_lossless(folder / f"{part}_lossless.npz") for part in ("train", "test"))
    return _divided("cifar10", known, test, _partial(known, test, "exact pixels"))


def load_cifar10_jpeg(folder: str | os.PathLike, progress: bool = True) -> ImageSet:
    """Read JPEG copies of CIFAR-10: to look at, not to compare likelihoods on.

    ``train_jpeg.npz`` and ``test_jpeg.npz`` hold ``blob``, the bytes of all files one after another, ``offsets``
    (N + 1,) and ``labels`` (N,). Validation as in :func:`load_cifar10`.

    Raises:
        InputError: if they are not there, or damaged.
        OSError: if a file cannot be opened.
    """
    folder = _checked(folder)
    if not (folder / "train_jpeg.npz").exists():
        raise InputError(f"{folder}: expected train_jpeg.npz and test_jpeg.npz, found none")
    known, test = (_jpegs(folder / f"{part}_jpeg.npz", progress) for part in ("train", "test"))
    note = _partial(known, test, "JPEG copies") or "JPEG copies"
    return _divided("cifar10-jpeg", known, test, f"{note}: likelihoods compare with nothing published")


def download_cifar10(folder: str | os.PathLike, url: str = URL, md5: str = MD5, progress: bool = True) -> Path:
    """Put CIFAR-10 into ``folder/cifar-10-batches-py`` (170 MB to fetch); return that folder.

    What is there already is left alone. An interrupted download is kept as ``*.part`` and continued by the next call;
    the archive is unpacked only when its checksum is right, into a temporary folder that gets its name when whole.
    For one process: under ``torchrun``, let rank 0 call it and the others wait.

    Raises:
        InputError: without a network, when the connection breaks, or for a wrong checksum.
        OSError: if ``folder`` cannot be written or is full.
    """
    folder = Path(folder)
    target = folder / _FOLDER
    if target.is_dir():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / "cifar-10-python.tar.gz.part"
    fetch(url, archive, "CIFAR-10", progress)
    found = checksum(archive, "md5", progress)
    if found != md5:
        archive.unlink()
        raise InputError(f"{url}: expected MD5 {md5}, got {found}; the download was removed, try again")
    unpack(archive, target, progress)
    archive.unlink()
    return target


def _checked(folder: str | os.PathLike) -> Path:
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(
            f"expected a folder with CIFAR-10, got {'a file' if folder.exists() else 'nothing'} at {folder}"
        )
    return folder


def _divided(name: str, known: Images, test: Images, note: str) -> ImageSet:
    for images in (known, test):
        if len(images) and images.labels.max() >= len(CLASSES):
            raise InputError(f"{name} expects labels 0 ... {len(CLASSES) - 1}, got {images.labels.max()}")
    if not len(test):
        raise InputError(f"{name} expects at least one test image, got none")
    train, validation = divide(known, 2)
    return ImageSet(name, train, validation, test, CLASSES, note)


def _partial(known: Images, test: Images, kind: str) -> str:
    if (len(known), len(test)) == _WHOLE:
        return ""
    return f"{len(known):,} of 50,000 training and {len(test):,} of 10,000 test images, {kind}"


def _batches(folder: Path, names: tuple[str, ...]) -> Images:
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise InputError(f"{folder}: CIFAR-10 is not whole, {', '.join(missing)} missing")
    images, labels = zip(*(read_batch(folder / name) for name in names), strict=True)
    return Images(torch.cat(images), torch.cat(labels))


def _lossless(path: Path) -> Images:
    images, labels = read_archive(path, ("images", "labels"))
    if images.dtype != "uint8" or images.shape[1:] != (32, 32, 3):
        raise InputError(f"{path}: expected images (N, 32, 32, 3) of uint8, got {images.shape} of {images.dtype}")
    return Images(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), read_labels(labels, len(images), path))


def _jpegs(path: Path, progress: bool) -> Images:
    blob, offsets, labels = read_archive(path, ("blob", "offsets", "labels"))
    images = decode_jpegs(blob, offsets, 3, path, progress=progress)
    return Images(images, read_labels(labels, len(images), path))
