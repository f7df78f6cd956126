"""``waveflow edit``: a face made to smile."""

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
from waveflow.images import AttributeVector, manipulate


def add_to(commands: argparse._SubParsersAction) -> None:
    """Declare the command and its options."""
    parser = commands.add_parser(
        "edit",
        help="give an image an attribute, such as a smile",
        description="Add an attribute vector to the latent of an image. recipes/faces makes such vectors.",
        allow_abbrev=False,
    )
    add_model_argument(parser)
    parser.add_argument("image", metavar="IMAGE", help="image file, of the size of the model's images")
    parser.add_argument("--vector", required=True, metavar="FILE", help="attribute vector, made with this model")
    parser.add_argument(
        "--strength",
        type=float,
        nargs="+",
        default=[1.0],
        metavar="S",
        help="how much of it; 0 leaves the image, below 0 takes the attribute away; several are put side by side "
        "(default: 1)",
    )
    add_image_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Encode, move, decode, write.

    Raises:
        InputError: for options, an image, a vector or a checkpoint that cannot be used.
        OSError: if a file cannot be read or the picture not be written; nothing of it is left then.
    """
    target = image_target(options, (options.image,))
    vector = AttributeVector.load(options.vector)
    model = load_image_model(options, "editing")
    image = read_for(model, options.image)
    try:
        vector.require(model)
    except InputError as error:
        raise InputError(f"{options.vector}: {error}") from None
    edited = manipulate(model, image[None], vector, options.strength, options.label)[:, 0]
    write_picture(target, edited, model, options, columns=len(edited))
