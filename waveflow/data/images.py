"""Images as data sets: those in scikit-learn, MNIST, CIFAR-10, faces, a folder of one's own."""

import os
from dataclasses import replace
from pathlib import Path

from waveflow.data.cifar10 import download_cifar10, load_cifar10, load_cifar10_jpeg
from waveflow.data.faces import load_faces
from waveflow.data.image_draws import FreshBinary, RandomFlips, binarise
from waveflow.data.image_folder import load_image_folder
from waveflow.data.image_set import ImageSet
from waveflow.data.mnist import download_mnist, load_mnist
from waveflow.data.sklearn_images import load_digits, load_photographs
from waveflow.errors import InputError

IMAGE_SETS = ("digits", "photographs", "mnist", "cifar10", "cifar10-jpeg", "faces")
"""All names that :func:`load_images` knows; it takes a folder of images, too."""

_DOWNLOADS = {"mnist": download_mnist, "cifar10": download_cifar10}

# Of the one draw of binary images that is validated and reported on.
_VALIDATION_DRAW, _TEST_DRAW = 1, 0


def load_images(
    data: str | os.PathLike,
    path: str | os.PathLike | None = None,
    size: int | None = None,
    channels: int | None = None,
    binary: bool = False,
    flips: bool = False,
    seed: int = 0,
    progress: bool = True,
) -> ImageSet:
    """Read images, check them and divide them, officially where the source says how, else at random, always alike.

    Args:
        data: a name out of :data:`IMAGE_SETS`, or a folder of images.
        path: folder of ``mnist``, ``cifar10`` (exact pixels) and ``cifar10-jpeg`` (copies), file or folder of
            ``faces``.
        size: side of the images: of crops (``photographs``, default 32), or what is brought to it (folders, ``faces``).
        channels: 1 for grey, 3 for colour (the default): folders only.
        binary: a pixel is 1 with its intensity as probability, drawn anew in each epoch to learn from; validation and
            test images are drawn once for the whole project.
        flips: mirror every other training image on average, chosen anew in each epoch.
        seed: of everything that changes with the epoch; the division is always the same.
        progress: show bars.

    Raises:
        InputError: for an unknown name; a path, size or number of channels that is missing or superfluous; files that
            are missing or damaged; too few images.
        OSError: if a file cannot be read.

    Example:
        >>> digits = load_images("digits")
        >>> digits.shape, digits.values, len(digits.train), len(digits.test)
        ((1, 8, 8), 17, 1457, 179)
    """
    name = os.fspath(data)
    _check_arguments(name, path, size, channels)
    if seed < 0:
        raise InputError(f"expected a seed of at least 0, got {seed}")
    match name:
        case "digits":
            images = load_digits()
        case "photographs":
            images = load_photographs(32 if size is None else size, seed)
        case "mnist":
            images = load_mnist(path)
        case "cifar10":
            images = load_cifar10(path)
        case "cifar10-jpeg":
            images = load_cifar10_jpeg(path, progress)
        case "faces":
            images = load_faces(path, size, progress)
        case _:
            images = load_image_folder(name, 3 if channels is None else channels, size, progress)
    if binary:
        images = _binary(images, seed)
    return replace(images, train=RandomFlips(images.train, seed)) if flips else images


def download_images(name: str, folder: str | os.PathLike, progress: bool = True) -> None:
    """Fetch ``mnist`` (12 MB) or ``cifar10`` (170 MB) into a folder, unless it is there: the path of it then.

    For one process: under ``torchrun``, let rank 0 call it and the others wait.

    Raises:
        InputError: for another name, without a network, when the connection breaks, or for content of another checksum.
        OSError: if the folder cannot be written or is full.
    """
    if name not in _DOWNLOADS:
        raise InputError(f"--download belongs to {' and '.join(_DOWNLOADS)}, got it with {name}")
    _DOWNLOADS[name](folder, progress=progress)


def _check_arguments(name: str, path, size, channels) -> None:
    if name not in IMAGE_SETS and not Path(name).exists():
        raise InputError(f"{name!r} is neither a folder nor one of {', '.join(IMAGE_SETS)}")
    needs_path = name in ("mnist", "cifar10", "cifar10-jpeg", "faces")
    if needs_path and path is None:
        raise InputError(f"{name} expects --path, the {'npz file' if name == 'faces' else 'folder'} that holds it")
    if path is not None and not needs_path:
        raise InputError(f"--path belongs to mnist, cifar10, cifar10-jpeg and faces, got it with {name}")
    if size is not None and name in IMAGE_SETS and name not in ("photographs", "faces"):
        raise InputError(f"--size belongs to photographs, faces and folders, got it with {name}")
    if channels is not None and name in IMAGE_SETS:
        raise InputError(f"--channels belongs to folders, got it with {name}")


def _binary(images: ImageSet, seed: int) -> ImageSet:
    note = "binary test images are one draw of this project's own, not the fixed set of the papers"
    return replace(
        images,
        name=f"binary {images.name}",
        train=FreshBinary(images.train, seed),
        validation=binarise(images.validation, _VALIDATION_DRAW),
        test=binarise(images.test, _TEST_DRAW),
        note="; ".join(filter(None, [images.note, note])),
    )
