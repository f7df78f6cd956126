"""Image files read as pixels, and every change that this took said by name."""

import io
import os
import re
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from waveflow.errors import InputError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm")
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
_COLOURS = {"1": "L", "L": "L", "LA": "L", "La": "L", "I;16": "L"}  # every other mode is colour
# Of PGM and PPM: kind, width and height, set apart by blanks and comments.
_MAXVAL = re.compile(rb"P[2356](?:(?:\s|#[^\n]*\n)+\d+){2}(?:\s|#[^\n]*\n)+(\d+)")
_16_BITS = ("I;16", "I;16L", "I;16B", "I;16N")


class ReadImage(NamedTuple):
    """Pixels, uint8 (C, H, W), and what was changed to have them so, in words."""

    pixels: Tensor
    changes: tuple[str, ...]


def read_image(path: str | os.PathLike, channels: int | None = None, size: int | None = None) -> ReadImage:
    """Read a PNG, JPEG, BMP, GIF, TIFF, WebP or PNM file, upright where it says how it was held.

    Transparent images are laid on white, 16 bits are brought to 8 (all the file's grey values over 257, rounded), of
    several frames the first is taken; each of these is said in ``changes``.

    Args:
        path: the file.
        channels: 1 for grey, 3 for colour: images of the other kind are converted; None takes them as they are.
        size: cut the middle square out of the image and bring it to this side; None leaves the image whole.

    Raises:
        InputError: for a file that is not such an image, or is damaged; for pixels of 32 bits; for a PNG of 16-bit
            colours one of which is named as transparent.
        OSError: if the file is not there or cannot be opened.
    """
    if channels not in (None, 1, 3):
        raise InputError(f"expected 1 channel (grey) or 3 (colour), got {channels}")
    if size is not None and size < 1:
        raise InputError(f"expected a size of at least 1 pixel, got {size}")
    with open(path, "rb") as file:
        content = file.read()
    if not content:
        raise InputError(f"{path}: an empty file")
    try:
        # Named formats only: Pillow would hand PostScript to another program.
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            frames = getattr(image, "n_frames", 1)
            image.load()
            deep = image.mode in _16_BITS
            if image.format == "PNG":
                deep = content[24] == 16
                _mend_transparency(image, depth=content[24])
            if image.format == "PPM" and (maxval := _MAXVAL.match(content)):
                deep = int(maxval[1]) > 255  # Pillow spreads the values over 16 bits where they are grey, over 8 else
            image = ImageOps.exif_transpose(image)
            return _convert(image, deep, frames, channels, size)
    except (MemoryError, InputError) as error:
        raise InputError(f"{path}: {error or 'too large for memory'}") from None
    except Exception as error:  # decoders fail in ways of their own: SyntaxError, struct.error, zlib.error, ...
        reason = "truncated" if "truncated" in str(error) else "not a readable image"
        raise InputError(f"{path}: {reason} (expected {', '.join(_FORMATS)})") from None


def to_values(pixels: Tensor, values: int) -> Tensor:
    """Pixels 0 ... 255 brought to 0 ... values - 1, each to the nearest: what saved grids of such images undo to.

    Example:
        >>> to_values(torch.tensor([0, 16, 255], dtype=torch.uint8), 17).tolist()
        [0, 1, 16]
    """
    return (pixels.float() * ((values - 1) / 255)).round().to(torch.uint8)


def _convert(image: Image.Image, deep: bool, frames: int, channels: int | None, size: int | None) -> ReadImage:
    changes = []
    if frames > 1:
        changes.append(f"the first of {frames} frames taken")
    if deep:
        changes.append("16 bits brought to 8")
    if image.mode in _16_BITS or (deep and image.mode == "I"):
        values, transparent = np.asarray(image).astype(np.float64), image.info.get("transparency")
        image = Image.fromarray(np.round(values / 257).astype(np.uint8))
        if transparent is not None:
            alpha = np.where(values == transparent, 0, 255).astype(np.uint8)
            image = Image.merge("LA", (image, Image.fromarray(alpha)))
    if image.mode in ("I", "F"):
        raise InputError("expected pixels of 8 or 16 bits, got 32")
    own = _COLOURS.get(image.mode, "RGB")
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        with_alpha = image.convert("RGBA")
        if with_alpha.getextrema()[3][0] < 255:
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, with_alpha)
            changes.append("transparency laid on white")
    elif image.mode not in ("1", "L", "P", "RGB"):
        changes.append(f"{image.mode} turned to RGB")
    if own == "RGB" or channels == 3:
        image = image.convert("RGB")
    if channels == 1 and own == "RGB" and not _is_grey(image):
        changes.append("colours turned to grey")
    if channels == 3 and own == "L":
        changes.append("grey turned to colour")
    if channels == 1 or (channels is None and own == "L"):
        image = image.convert("L")
    if size is not None and image.size != (size, size):
        width, height = image.size
        changes.append(f"brought from {width}x{height} to {size}x{size}")
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        image = image.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.BICUBIC)
    pixels = np.asarray(image)
    return ReadImage(torch.tensor(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)), tuple(changes))


def _mend_transparency(image: Image.Image, depth: int) -> None:
    """Let the value that a PNG names as transparent be one of the pixels as Pillow gives them."""
    transparent = image.info.get("transparency")
    if isinstance(transparent, tuple) and depth == 16:
        raise InputError("expected no colour named as transparent beside colours of 16 bits")
    if isinstance(transparent, int) and image.mode == "L" and depth in (2, 4):
        image.info["transparency"] = transparent * 255 // (2**depth - 1)


def _is_grey(image: Image.Image) -> bool:
    red, green, blue = image.split()
    return red.tobytes() == green.tobytes() == blue.tobytes()
