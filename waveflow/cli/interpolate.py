"""``waveflow interpolate``: from one image to another."""

import argparse

from waveflow.cli.image_model import (
    add_image_options,
    add_model_argument,
    image_target,
    load_image_model,
    read_for,
    write_picture,
)
from waveflow.errors import InputError
from waveflow.images import interpolate, linear, spherical


def add_to(commands: argparse._SubParsersAction) -> None:
    """Declare the command and its options."""
    parser = commands.add_parser(
        "interpolate",
        help="blend one image into another",
        description="Write the images on the way from A to B through the latent space of a flow, side by side.",
        allow_abbrev=False,
    )
    add_model_argument(parser)
    parser.add_argument("a", metavar="A", help="image file, of the size of the model's images")
    parser.add_argument("b", metavar="B", help="another one")
    parser.add_argument("--steps", type=int, default=8, metavar="N", help="images, A and B included (default: 8)")
    parser.add_argument("--spherical", action="store_true", help="on a great circle, not on a straight line")
    add_image_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Encode, blend, decode, write.

    Raises:
        InputError: for options, images or a checkpoint that cannot be used.
        OSError: if an image cannot be read or the picture not be written; nothing of it is left then.
    """
    if options.steps < 2:
        raise InputError(f"--steps expects at least 2, got {options.steps}")
    target = image_target(options, (options.a, options.b))
    model = load_image_model(options, "interpolation")
    a, b = read_for(model, options.a), read_for(model, options.b)
    between = spherical if options.spherical else linear
    images = interpolate(model, a, b, options.steps, options.label, between)
    write_picture(target, images, model, options, columns=len(images))
