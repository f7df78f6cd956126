"""A model of images as the commands use it, the images it takes, and the picture that is made."""

import argparse
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from waveflow.cli.loading import choose_device, load_checkpoint
from waveflow.data import read_image, to_values
from waveflow.errors import InputError
from waveflow.images import LatentModel, save_grid
from waveflow.models.image_model import ImageModel

logger = logging.getLogger("waveflow")


def add_model_argument(parser: argparse.ArgumentParser) -> None:
    """The checkpoint, which comes first."""
    parser.add_argument("model", metavar="MODEL", help="checkpoint: a folder, or a Hugging Face hub id")


def add_image_options(parser: argparse.ArgumentParser) -> None:
    """The options of every command that makes images."""
    parser.add_argument("--out", required=True, metavar="FILE", help="picture to write, .png")
    parser.add_argument("--label", type=int, help="class, for a model with classes: 0, 1, ...")
    parser.add_argument("--zoom", type=int, default=1, metavar="N", help="enlarge every pixel N times (default: 1)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: a GPU if there is one")


def image_target(options: argparse.Namespace, inputs: Sequence[str] = ()) -> Path:
    """Where to write, found out before any work; links are followed, so that none is replaced.

    Raises:
        InputError: for a picture that is not a .png, in no folder, or in the place of an input.
    """
    path = Path(options.out).resolve()
    if path.suffix.lower() != ".png":
        raise InputError(f"--out {options.out}: expected a file ending in .png")
    if not path.parent.is_dir():
        raise InputError(f"--out {options.out}: there is no folder {path.parent}")
    if path.exists() and not path.is_file():
        raise InputError(
            f"--out {options.out}: expected a file to write, got a {'folder' if path.is_dir() else 'device'}"
        )
    if any(path.exists() and os.path.exists(source) and path.samefile(source) for source in inputs):
        raise InputError(f"--out {options.out} would write over an input, choose another file")
    if options.zoom < 1:
        raise InputError(f"--zoom expects at least 1, got {options.zoom}")
    return path


def load_image_model(options: argparse.Namespace, purpose: str | None = None) -> ImageModel:
    """The model of images in MODEL, on ``--device``; with latents, where these serve a purpose.

    Raises:
        InputError: if there is no such checkpoint, it is none of images, or has no latents; for a label that is
            missing, superfluous or out of range.
    """
    model = load_checkpoint(options.model, choose_device(options.device))
    if not isinstance(model, ImageModel):
        raise InputError(f"{options.model}: holds a {type(model).__name__}, which is no model of images")
    if purpose is not None and not isinstance(model, LatentModel):
        raise InputError(f"{options.model}: {purpose} expects a flow, which has latents, got a {type(model).__name__}")
    classes, label = model.config.classes, options.label
    if not classes and label is not None:
        raise InputError(f"--label {label}: the model {options.model} has no classes, leave it out")
    if classes and (label is None or not 0 <= label < classes):
        raise InputError(f"the model {options.model} has classes: expected --label 0 ... {classes - 1}, got {label}")
    return model


def read_for(model: ImageModel, path: str) -> Tensor:
    """An image file as the model has images, uint8 (C, H, W); what had to be converted is said in the log.

    Raises:
        InputError: for a file that is no image, or an image of another size.
        OSError: if it is not there or cannot be opened.
    """
    channels, height, width = model.image_shape
    if channels not in (1, 3):
        raise InputError(f"expected a model of grey or colour images, got one with {channels} channels")
    pixels, changes = read_image(path, channels)
    if tuple(pixels.shape[1:]) != (height, width):
        got = f"{pixels.shape[2]}x{pixels.shape[1]}"
        raise InputError(f"{path}: expected an image of {width}x{height} pixels, as the model has them, got {got}")
    values = model.config.values
    reduced = to_values(pixels, values)
    if not (reduced.float() * (255 / (values - 1))).round().equal(pixels.float()):
        changes = (*changes, f"256 values of a pixel brought to {values}")
    for change in changes:
        logger.warning("%s: %s", path, change)
    return reduced


def write_picture(path: Path, images: Tensor, model: ImageModel, options: argparse.Namespace, columns: int) -> None:
    """Write a grid of what the model made, and say where.

    Raises:
        InputError: for a number of columns below 1.
        OSError: if it cannot be written.
    """
    gap = 2 if len(images) > 1 else 0
    save_grid(path, images, model.config.values, columns, options.zoom, gap)
    what = f"{len(images)} images" if len(images) > 1 else "an image"
    print(f"{options.out}: {what} of {images.shape[3]}x{images.shape[2]} pixels")
