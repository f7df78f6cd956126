"""``waveflow sample``: images out of nothing."""

import argparse
import math

import torch

from waveflow.cli.image_model import (
    add_image_options,
    add_model_argument,
    image_target,
    load_image_model,
    write_picture,
)
from waveflow.cli.loading import check_seed
from waveflow.errors import InputError

_AT_ONCE = 64


def add_to(commands: argparse._SubParsersAction) -> None:
    """Declare the command and its options."""
    parser = commands.add_parser(
        "sample",
        help="draw images from a model",
        description="Draw images from a model of images and write them as one picture.",
        allow_abbrev=False,
    )
    add_model_argument(parser)
    parser.add_argument("--n", type=int, default=64, help="how many (default: 64)")
    parser.add_argument(
        "--temperature", type=float, default=1.0, help="below 1 for likelier, less diverse images (default: 1)"
    )
    parser.add_argument("--seed", type=int, default=0, help="equal seeds give equal images (default: 0)")
    parser.add_argument("--columns", type=int, metavar="N", help="images in a row (default: as many as rows)")
    add_image_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Draw and write.

    Raises:
        InputError: for options or a checkpoint that cannot be used.
        OSError: if the picture cannot be written; nothing of it is left then.
    """
    for name in ("n", "columns"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise InputError(f"--{name} expects at least 1, got {value}")
    check_seed(options.seed)
    target = image_target(options)
    model = load_image_model(options)
    generator = torch.Generator(next(model.parameters()).device).manual_seed(options.seed)
    sizes = [min(_AT_ONCE, options.n - first) for first in range(0, options.n, _AT_ONCE)]
    images = torch.cat([model.sample(n, options.temperature, options.label, generator).cpu() for n in sizes])
    write_picture(target, images, model, options, options.columns or math.ceil(math.sqrt(options.n)))
