"""Training images that differ from epoch to epoch, and follow from (seed, epoch, index) alone."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from waveflow.data.image_set import ImageItem, Images, ImageSource
from waveflow.errors import InputError

# A stream for each kind of draw, so that a crop says nothing about its flip.
_CROP, _BINARY, _FLIP = 1, 2, 3


class RandomCrops:
    """Squares cut at random out of larger pictures, taken in turn: an ``EpochDataset``.

    Args:
        pictures: uint8 (C, H, W) each, of any size; all with the same C.
        size: side of a crop.
        crops: how many make an epoch.
        seed: of the places, not negative.
        values: number of values of a pixel.

    Raises:
        InputError: for a size that does not fit into every picture.
    """

    def __init__(self, pictures: Sequence[Tensor], size: int, crops: int = 2000, seed: int = 0, values: int = 256):
        least = min(min(picture.shape[1:]) for picture in pictures)
        if not 1 <= size <= least:
            raise InputError(f"expected crops of 1 to {least} pixels, got {size}")
        self.pictures, self.size, self.crops = pictures, size, crops
        self.seed, self.values = _checked(seed), values

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every crop."""
        return (self.pictures[0].shape[0], self.size, self.size)

    def __len__(self) -> int:
        return self.crops

    def item(self, epoch: int, index: int) -> ImageItem:
        """Crop ``index`` of ``epoch``."""
        picture = self.pictures[index % len(self.pictures)]
        rng = np.random.default_rng([self.seed, epoch, index, _CROP])
        top, left = (int(rng.integers(side - self.size + 1)) for side in picture.shape[1:])
        return {"images": picture[:, top : top + self.size, left : left + self.size].clone()}


class RandomFlips:
    """Every other image on average mirrored left to right: an ``EpochDataset``.

    Args:
        source: what is mirrored.
        seed: of the choice, not negative.
    """

    def __init__(self, source: ImageSource, seed: int = 0):
        self.source, self.seed = source, _checked(seed)
        self.shape, self.values = source.shape, source.values

    def __len__(self) -> int:
        return len(self.source)

    def item(self, epoch: int, index: int) -> ImageItem:
        """Image ``index`` as ``epoch`` sees it."""
        item = self.source.item(epoch, index)
        if np.random.default_rng([self.seed, epoch, index, _FLIP]).random() < 0.5:
            item = {**item, "images": item["images"].flip(-1)}
        return item


class FreshBinary:
    """Binary images drawn anew in each epoch, a pixel being 1 with its intensity as probability: an ``EpochDataset``.

    Args:
        source: images whose intensities are x / (values - 1).
        seed: of the draws, not negative.
    """

    values = 2

    def __init__(self, source: ImageSource, seed: int = 0):
        self.source, self.seed, self.shape = source, _checked(seed), source.shape

    def __len__(self) -> int:
        return len(self.source)

    def item(self, epoch: int, index: int) -> ImageItem:
        """Image ``index`` as ``epoch`` sees it, pixels 0 and 1."""
        item = self.source.item(epoch, index)
        u = np.random.default_rng([self.seed, epoch, index, _BINARY]).random(item["images"].shape, dtype=np.float32)
        return {**item, "images": _binary(item["images"], u, self.source.values)}


def binarise(images: Images, seed: int) -> Images:
    """One draw of binary images, a pixel being 1 with its intensity x / (values - 1) as probability.

    The draw is the same in every version of NumPy, so that figures on it compare.
    """
    # Bit generators keep their streams over versions, which Generator does not promise.
    bits = np.random.PCG64(seed).random_raw(images.images.numel()).reshape(images.images.shape)
    u = ((bits >> np.uint64(40)) * 2.0**-24).astype(np.float32)
    return Images(_binary(images.images, u, images.values), images.labels, values=2)


def _binary(images: Tensor, u: np.ndarray, values: int) -> Tensor:
    return (torch.from_numpy(u) * (values - 1) < images).to(torch.uint8)


def _checked(seed: int) -> int:
    if seed < 0:
        raise InputError(f"expected a seed of at least 0, got {seed}")
    return seed
