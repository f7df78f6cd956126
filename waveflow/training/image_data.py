"""The images that a recipe's flags name."""

import os
from dataclasses import dataclass, replace

import torch

from waveflow.data import ImageItem, Images, ImageSet, ImageSource, download_images, load_images
from waveflow.errors import InputError
from waveflow.training.image_arguments import ImageArguments


def read_images(args: ImageArguments) -> ImageSet:
    """Read them, after fetching them if so asked; without labels, unless the model is to be told.

    Raises:
        InputError: for what :func:`~waveflow.data.load_images` refuses, labels that are not there, or ``download`` with
            several processes.
        OSError: if a file cannot be read or written.
    """
    first = os.environ.get("RANK", "0") == "0"
    path = path_of(args)
    if args.download:
        if os.environ.get("WORLD_SIZE", "1") != "1":
            raise InputError("--download is for a single process: fetch first, then start torchrun without it")
        download_images(args.data, path)
    images = load_images(
        args.data, path, args.size, args.channels, binary=args.binary, flips=args.flips, seed=args.seed, progress=first
    )
    if args.conditional and not images.classes:
        raise InputError(f"--conditional expects images with labels, {images.name} has none")
    return images if args.conditional else _without_labels(images)


def path_of(args: ImageArguments) -> str | None:
    """Where the images are, or are fetched to; None for those that need no path."""
    return os.path.join("data", args.data) if args.download and args.path is None else args.path


def some(images: Images, count: int) -> Images:
    """So many of the images, evenly spread over all of them, which may be sorted; all for 0."""
    if not 0 < count < len(images):
        return images
    return images.take(torch.arange(count) * len(images) // count)


def _without_labels(images: ImageSet) -> ImageSet:
    validation, test = (replace(part, labels=None) for part in (images.validation, images.test))
    return replace(images, train=_Unlabelled(images.train), validation=validation, test=test, classes=())


@dataclass(frozen=True)
class _Unlabelled:
    source: ImageSource

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.source.shape

    @property
    def values(self) -> int:
        return self.source.values

    def __len__(self) -> int:
        return len(self.source)

    def item(self, epoch: int, index: int) -> ImageItem:
        return {"images": self.source.item(epoch, index)["images"]}
