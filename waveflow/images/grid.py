"""Many images as one."""

import io
import math
import os

import numpy as np
from PIL import Image
from torch import Tensor

from waveflow.atomic import write_whole
from waveflow.errors import InputError


def image_grid(
    images: Tensor, columns: int | None = None, values: int = 256, zoom: int = 1, gap: int = 0
) -> np.ndarray:
    """Lay images out row by row.

    Args:
        images: uint8 (N, C, H, W), C 1 or 3, pixels 0 ... values - 1.
        columns: images in a row; None for a square.
        values: number of values of a pixel, spread over 0 ... 255.
        zoom: pixels of the grid for a pixel of an image, each way.
        gap: black pixels between images.

    Returns:
        uint8 (H', W', C), for TensorBoard with ``dataformats="HWC"``; places without an image are black.

    Raises:
        InputError: for no images, images of another type or shape, pixels out of range, or sizes below 1.

    Example:
        >>> import torch
        >>> image_grid(torch.tensor([0, 1, 1]).to(torch.uint8).reshape(3, 1, 1, 1), values=2)[..., 0].tolist()
        [[0, 255], [255, 0]]
    """
    pixels = images.detach().cpu().numpy()
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1] not in (1, 3) or not pixels.size:
        got = f"{str(images.dtype).removeprefix('torch.')} {tuple(images.shape)}"
        raise InputError(f"a grid expects uint8 images (N, 1 or 3, H, W), got {got}")
    n, channels, height, width = pixels.shape
    columns = math.ceil(math.sqrt(n)) if columns is None else columns
    for name, size, least in (("columns", columns, 1), ("zoom", zoom, 1), ("gap", gap, 0)):
        if size < least:
            raise InputError(f"a grid expects {name} of at least {least}, got {size}")
    if not 2 <= values <= 256 or pixels.max() >= values:
        raise InputError(f"a grid of {values} values expects pixels 0 ... {values - 1}, got one of {pixels.max()}")
    pixels = np.round(pixels * (255 / (values - 1))).astype(np.uint8).repeat(zoom, 2).repeat(zoom, 3)
    height, width, columns = zoom * height, zoom * width, min(columns, n)
    rows = math.ceil(n / columns)
    grid = np.zeros((rows * (height + gap) - gap, columns * (width + gap) - gap, channels), np.uint8)
    for i, image in enumerate(pixels):
        top, left = (i // columns) * (height + gap), (i % columns) * (width + gap)
        grid[top : top + height, left : left + width] = image.transpose(1, 2, 0)
    return grid


def save_grid(
    path: str | os.PathLike,
    images: Tensor,
    values: int = 256,
    columns: int | None = None,
    zoom: int = 1,
    gap: int = 0,
) -> None:
    """Write a grid of images as a PNG, whole or not at all; equal images give equal bytes.

    Args:
        path: where to, by custom ending in .png.
        images, values, columns, zoom, gap: as for :func:`image_grid`. One image is written as it is.

    Raises:
        InputError: as :func:`image_grid`.
        OSError: naming the file, if it cannot be written.
    """
    grid = image_grid(images, columns, values, zoom, gap)
    buffer = io.BytesIO()
    Image.fromarray(grid[..., 0] if grid.shape[2] == 1 else grid).save(buffer, format="PNG")
    write_whole(path, buffer.getvalue())
