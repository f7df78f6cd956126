"""Images with their labels, divided into what is learned from and what is reported on."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NotRequired, Protocol, Self, TypedDict

import numpy as np
import torch
from torch import Tensor

from waveflow.data.recordings import Skipped
from waveflow.errors import InputError

_SEED = 0  # of divisions: a set is the same in every run


class ImageItem(TypedDict):
    """An image (C, H, W), uint8, and its label, int64 (), where there are labels; a batch has the same keys."""

    images: Tensor
    label: NotRequired[Tensor]


class ImageSource(Protocol):
    """What ``Batches`` draws images from; an item follows from (epoch, index) alone."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""

    @property
    def values(self) -> int:
        """Number of values of a pixel."""

    def __len__(self) -> int:
        """Images in one epoch."""

    def item(self, epoch: int, index: int) -> ImageItem:
        """Image ``index`` as ``epoch`` sees it."""


@dataclass(frozen=True, eq=False)
class Images:
    """Images in memory, the same in every epoch: an ``EpochDataset``.

    Args:
        images: (N, C, H, W), uint8, pixels 0 ... values - 1.
        labels: (N,), int64, from 0; None where there are none.
        values: number of values of a pixel.

    Raises:
        InputError: for images of another type or shape, pixels out of range, or labels that do not fit.
    """

    images: Tensor
    labels: Tensor | None = None
    values: int = 256

    def __post_init__(self):
        if self.images.dtype != torch.uint8 or self.images.ndim != 4:
            raise InputError(
                f"expected uint8 images (N, C, H, W), got {self.images.dtype} {tuple(self.images.shape)}; "
                f"floats in [0, 1] become pixels by (images * {self.values - 1}).round().to(torch.uint8)"
            )
        if self.values < 256 and self.images.numel() and self.images.max() >= self.values:
            raise InputError(f"expected pixels 0 ... {self.values - 1}, got one of {self.images.max()}")
        if self.labels is not None:
            if self.labels.dtype != torch.int64 or self.labels.shape != (len(self.images),):
                got = f"{self.labels.dtype} {tuple(self.labels.shape)}"
                raise InputError(f"expected an int64 label for each of {len(self.images)} images, got {got}")
            if len(self.labels) and self.labels.min() < 0:
                raise InputError(f"expected labels from 0, got {self.labels.min()}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        return tuple(self.images.shape[1:])

    def __len__(self) -> int:
        return len(self.images)

    def item(self, epoch: int, index: int) -> ImageItem:
        """Image ``index``, in any epoch."""
        return _item(self.images[index], None if self.labels is None else self.labels[index])

    def batches(self, batch_size: int) -> Iterator[ImageItem]:
        """All images in order, in batches of that size, the last one smaller: what is reported on is seen once."""
        if batch_size < 1:
            raise InputError(f"expected a batch size of at least 1, got {batch_size}")
        labels = [None] * len(self) if self.labels is None else self.labels.split(batch_size)
        for images, label in zip(self.images.split(batch_size), labels, strict=False):
            yield _item(images, label)

    def take(self, index: Tensor | slice) -> Self:
        """The images of these indices."""
        return type(self)(self.images[index], None if self.labels is None else self.labels[index], self.values)


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images of one source, divided.

    Attributes:
        name: what was asked for.
        train: to learn from; may be cut, flipped or drawn anew in each epoch.
        validation: to choose by.
        test: to report on.
        classes: names of the labels 0, 1, ...; empty where there are no labels.
        note: what a reader has to know beside a figure on this set; empty where it is the set of the papers.
        skipped: files that were left out, with the reason.
    """

    name: str
    train: ImageSource
    validation: Images
    test: Images
    classes: tuple[str, ...] = ()
    note: str = ""
    skipped: list[Skipped] = field(default_factory=list)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        return self.test.shape

    @property
    def values(self) -> int:
        """Number of values of a pixel: 256, or fewer."""
        return self.test.values


def divide(images: Images, shares: int, seed: int = _SEED) -> list[Images]:
    """Divide at random, always alike: first the bulk, then ``shares - 1`` parts of a tenth of what is left each.

    With three shares: training (81 %), validation (9 %), test (10 %).

    Raises:
        InputError: for too few images to leave one in each part.
    """
    if len(images) < 10 * (shares - 1):
        raise InputError(f"expected at least {10 * (shares - 1)} images, to hold some of them out, got {len(images)}")
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(images)))
    parts = []
    for _ in range(shares - 1):
        held_out = len(order) // 10
        order, part = order[:-held_out], order[-held_out:]
        parts.insert(0, images.take(part.sort().values))
    return [images.take(order.sort().values), *parts]


def _item(images: Tensor, label: Tensor | None) -> ImageItem:
    return {"images": images} if label is None else {"images": images, "label": label}
