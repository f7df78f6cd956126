"""A folder of image files as a data set."""

import logging
import os
from collections import Counter
from pathlib import Path

import torch
from tqdm import tqdm

from waveflow.data.image_files import IMAGE_SUFFIXES, read_image
from waveflow.data.image_set import Images, ImageSet, divide
from waveflow.data.recordings import Skipped
from waveflow.errors import InputError

logger = logging.getLogger("waveflow")


def load_image_folder(
    folder: str | os.PathLike, channels: int = 3, size: int | None = None, progress: bool = True
) -> ImageSet:
    """Read all images below a folder and divide them at random, always alike: 81 % training, 9 % validation, 10 % test.

    Where every image is in one of several folders inside, these are the classes, in sorted order. A file that cannot
    be read is skipped: a warning in the log ``waveflow`` gives its name and the reason, and one more the count. So it
    is with folders inside, and with what had to be converted. Everything stays in memory.

    Args:
        folder: searched to any depth.
        channels: 1 for grey, 3 for colour; images of the other kind are converted.
        size: cut the middle square out of every image and bring it to this side; None expects images of one size.
        progress: show a bar, where standard error is a terminal.

    Raises:
        InputError: if there are no images, fewer than 20 are left, or they differ in size.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"expected a folder of images, got {'a file' if folder.exists() else 'nothing'} at {folder}")
    unread: list[OSError] = []  # folders inside
    paths = sorted(
        Path(parent, name)
        for parent, _, names in os.walk(folder, onerror=unread.append)
        for name in names
        if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")
    )
    folders = sorted(Skipped(Path(error.filename).relative_to(folder).as_posix(), error.strerror) for error in unread)
    if not paths:
        also = f"; not readable: {folders[0].name} ({folders[0].reason})" if folders else ""
        raise InputError(f"no image in {folder}: expected files ending in {', '.join(IMAGE_SUFFIXES)}{also}")
    images, kept, skipped, changes = [], [], [], Counter()
    for path in tqdm(paths, "reading images", unit=" images", disable=None if progress else True):
        try:
            pixels, changed = read_image(path, channels, size)
        except (InputError, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            skipped.append(Skipped(path.relative_to(folder).as_posix(), reason.removeprefix(f"{path}: ")))
            continue
        images.append(pixels)
        kept.append(path)
        changes.update("size changed" if change.startswith("brought from") else change for change in changed)
    _report(len(paths), folders, skipped, changes)
    if not images:
        raise InputError(f"no image is left of {len(paths)}; the first: {skipped[0].name}: {skipped[0].reason}")
    _check_one_size(images, kept)
    groups = [path.relative_to(folder).parts[:-1] for path in kept]
    classes = sorted({group[0] for group in groups}) if all(groups) else []
    classes = classes if len(classes) > 1 else []
    labels = torch.tensor([classes.index(group[0]) for group in groups]) if classes else None
    train, validation, test = divide(Images(torch.stack(images), labels), 3)
    return ImageSet(str(folder), train, validation, test, tuple(classes), skipped=folders + skipped)


def _report(total: int, folders: list[Skipped], skipped: list[Skipped], changes: Counter) -> None:
    if changes:
        counts = ", ".join(f"{change} in {count}" for change, count in sorted(changes.items()))
        logger.warning("of %d images: %s", total, counts)
    for folder in folders:
        logger.warning("skipped folder %s: %s", *folder)
    for file in skipped:
        logger.warning("skipped %s: %s", *file)
    if skipped:
        logger.warning("skipped %d of %d images, %d left", len(skipped), total, total - len(skipped))


def _check_one_size(images: list[torch.Tensor], paths: list[Path]) -> None:
    first = images[0].shape
    for image, path in zip(images, paths, strict=True):
        if image.shape != first:
            raise InputError(
                f"expected images of one size, got {first[2]}x{first[1]} ({paths[0].name}) and "
                f"{image.shape[2]}x{image.shape[1]} ({path.name}); --size N brings all to N x N"
            )
