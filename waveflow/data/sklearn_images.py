"""Images that come inside scikit-learn: small digits, and two photographs."""

import numpy as np
import torch
from torch import Tensor

from waveflow.data.image_draws import RandomCrops
from waveflow.data.image_set import Images, ImageSet, divide
from waveflow.errors import InputError

_KEPT_APART = 96  # columns of each photograph, for validation and again for testing


def load_digits() -> ImageSet:
    """1,797 handwritten digits (UCI; Alpaydin & Kaynak, 1998): 8 x 8 grey, 17 values, ten classes."""
    digits = _datasets().load_digits()
    images = torch.from_numpy(digits.images.astype(np.uint8))[:, None]
    labels = torch.from_numpy(digits.target.astype(np.int64))
    train, validation, test = divide(Images(images, labels, values=17), 3)
    return ImageSet("digits", train, validation, test, tuple("0123456789"))


def load_photographs(size: int = 32, seed: int = 0, crops: int = 2000) -> ImageSet:
    """Two photographs, 427 x 640 in colour: random crops to learn from, and squares of two strips kept apart.

    The 96 columns at the right of each picture are for testing, the 96 beside them for validation, cut into squares
    that do not overlap; crops to learn from touch neither.

    Args:
        size: side of crops and squares, at most 96.
        seed: of the crops.
        crops: how many make an epoch.

    Raises:
        InputError: for a size out of range.
    """
    if not 1 <= size <= _KEPT_APART:
        raise InputError(f"photographs expects a size of 1 to {_KEPT_APART} pixels, got {size}")
    pictures = [
        torch.from_numpy(picture.transpose(2, 0, 1).copy()) for picture in _datasets().load_sample_images().images
    ]
    width = pictures[0].shape[2] - 2 * _KEPT_APART
    known, validation, test = zip(*(p.split([width, _KEPT_APART, _KEPT_APART], 2) for p in pictures), strict=True)
    train = RandomCrops(known, size, crops, seed)
    note = f"{size}x{size} parts of two photographs"
    return ImageSet("photographs", train, _squares(validation, size), _squares(test, size), note=note)


def _squares(strips: tuple[Tensor, ...], size: int) -> Images:
    squares = [s.unfold(1, size, size).unfold(2, size, size).permute(1, 2, 0, 3, 4).flatten(0, 1) for s in strips]
    return Images(torch.cat(squares))


def _datasets():
    try:
        from sklearn import datasets
    except ModuleNotFoundError:
        raise InputError("these images are in scikit-learn: pip install 'waveflow[recipes]'") from None
    return datasets
